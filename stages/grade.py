"""grade: the verdict on every answer of every system for one task; the answers themselves do not change."""

from typing import Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Baseline


class Systems(Section):
    """The rows of the table: those of the base model, then the trained ones."""

    baseline: dict[str, Baseline]
    trained: list[str]


class Params(Section):
    """The parameters that determine the grades; the benchmark's grader has none."""

    split: Literal["test", "validation"]
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]
    systems: Systems


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Grades the task's answers, one row of the table after another."""
    from qthink_core.artifacts import answers, grades, prepared
    from qthink_core.benchmarks import grading

    benchmark = prepared.benchmark(layout.problems(at.task))
    golds = {row["id"]: row["gold"] for row in prepared.read(layout.problems(at.task), params.split)}
    systems = [*params.systems.baseline, *params.systems.trained]

    def answered(system: str) -> list[answers.Answer]:
        folders = (layout.answers(at.task, system), layout.probes(at.task, system))
        return [row for folder in folders if folder.exists() for row in answers.read(folder)]

    shown = stage.progress(systems, len(systems), str(at), "system")
    rows = grading.grade_answers(benchmark, golds, ((system, answered(system)) for system in shown))
    work.commit("grades", {"grades.parquet": grades.grades_writer(rows)}, grading.verdict_counts(rows))
    made = work.publish(layout.grades(at.task), "grades", ["grades"])
    return f"{len(rows)} answers: " + ", ".join(f"{count} {verdict}" for verdict, count in made.counts.items())


if __name__ == "__main__":
    stage.main("grade", run)
