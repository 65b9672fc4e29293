"""report: the paper's table at this scale, one page that shows it all, and the files that DVC compares and plots."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.base_source import Base
from qthink_core.recipe import Seeds
from qthink_core.settings import Section
from qthink_core.systems import Baseline, Distilled, Finetuned


class Systems(Section):
    """The rows of the table."""

    baseline: dict[str, Baseline]
    finetuned: dict[str, Finetuned]
    distilled: dict[str, Distilled]
    trained: list[str]


class Rollout(Section):
    """How many rollouts the teachers average."""

    G: int


class Train(Section):
    """What the rows were trained towards, and for how long."""

    target: str
    answer_max_tokens: int
    epochs: int


class Evaluate(Section):
    """The limit of the answers."""

    max_new_tokens: int


class Prepare(Section):
    """Where the problems come from."""

    source: str


class Report(Section):
    """The row that the latents are judged against, and how many questions of a benchmark are shown one by one."""

    control: str
    questions: int = Field(ge=0)


class Params(Section):
    """What the table's rows and columns are, and the settings that it states and compares."""

    scale: str
    seed: int = Field(ge=0)
    seeds: Seeds
    split: Literal["test", "validation"]
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    base: Base
    tasks: list[Literal["gsm8k", "math500", "tooluse"]] = Field(min_length=1)
    systems: Systems
    K: int
    gamma: float
    rollout: Rollout
    train: Train
    evaluate: Evaluate
    prepare: Prepare
    report: Report


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Reads grades, answers and loss curves and writes the results."""
    from qthink_core import report

    systems = params.systems
    folders = {
        str(task): report.Folders(
            layout.problems(task),
            layout.grades(task),
            {name: {seed: layout.adapters(task, name, seed) for seed in params.seeds} for name in systems.trained},
            {name: layout.answers(task, name) for name in (*systems.baseline, *systems.trained)},
            {name: layout.probes(task, name) for name in systems.trained if name in systems.distilled},
        )
        for task in params.tasks
    }
    findings = report.find(folders, report.plan(params))
    written = report.write(layout.RESULTS, findings, folders)
    return f"{len(findings.systems)} systems on {len(folders)} benchmarks: {written[0]}, {written[1]} and what DVC plots"


if __name__ == "__main__":
    stage.main("report", run)
