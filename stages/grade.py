"""grade: the verdict on every answer of every system for one task; the answers themselves do not change."""

from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Baseline


class Systems(Section):
    """The rows of the table: those of the base model, then the trained ones."""

    baseline: dict[str, Baseline]
    trained: list[str]


class Params(Section):
    """The parameters that determine the grades; the benchmark's grader has none."""

    split: Literal["test", "validation"]
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    systems: Systems


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Grades the task's answers, one row of the table after another."""
    from qthink_core.artifacts import answers, grades, prepared, store
    from qthink_core.benchmarks import grading

    benchmark = prepared.benchmark(layout.problems(at.task))
    asked = prepared.questions(layout.problems(at.task), layout.test_sets(at.task), params.split)
    systems = [*params.systems.baseline, *params.systems.trained]

    def answered(system: str, test_set: str) -> list[answers.Answer]:
        folders = (layout.answers(at.task, system), layout.probes(at.task, system))
        return [row for folder in folders if folder.exists() for row in answers.read(folder, test_set)]

    done = []
    for test_set, problems in asked.items():
        shown = stage.progress(systems, len(systems), f"{at} {test_set}".strip(), "system")
        given = ((system, answered(system, test_set)) for system in shown)
        rows = grading.grade_answers(benchmark, {row["id"]: row["gold"] for row in problems}, given)
        done.append(store.of_set(test_set, "grades"))
        work.commit(done[-1], {f"{done[-1]}.parquet": grades.grades_writer(rows)}, grading.verdict_counts(rows))
    made = work.publish(layout.grades(at.task), "grades", done)
    n = sum(made.counts.values())
    return f"{n} answers: " + ", ".join(f"{count} {verdict}" for verdict, count in made.counts.items())


if __name__ == "__main__":
    stage.main("grade", run)
