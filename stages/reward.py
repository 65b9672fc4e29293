"""reward: r in {0, 1} for each rollout, by the grader of its benchmark."""

from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.pipeline.parameters import Section


class Params(Section):
    """The parameters of every stage; rewards depend on the rollouts and the benchmark's grader only."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Grades every rollout of the task."""
    from qthink_core.artifacts import grades, prepared, rollouts
    from qthink_core.benchmarks import grading

    files = rollouts.files(layout.rollouts(at.task))
    benchmark = prepared.benchmark(layout.problems(at.task))
    golds = {row["id"]: row["gold"] for row in prepared.read(layout.problems(at.task), "train")}
    shown = stage.progress(files, len(files), str(at), "block")
    graded = grading.grade_rollouts(benchmark, golds, (row for file in shown for row in rollouts.read(file)))
    work.commit("rewards", {"rewards.parquet": grades.rewards_writer(graded)}, grading.verdict_counts(graded))
    made = work.publish(layout.rewards(at.task), "rewards", ["rewards"])
    return f"{made.counts.get('right', 0)} of {len(graded)} rollouts are right"


if __name__ == "__main__":
    stage.main("reward", run)
