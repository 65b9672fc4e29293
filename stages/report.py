"""report: the paper's table at this scale, and the files that `dvc metrics` and `dvc plots` read."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.settings import Section


class Baseline(Section):
    """A row whose name alone is read here."""

    thinking: bool


class Systems(Section):
    """The rows of the table: those of the base model by name, then the trained ones."""

    baseline: dict[str, Baseline]
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


class Params(Section):
    """What the table's rows and columns are, and the settings that its last line names."""

    scale: str
    seed: int = Field(ge=0)
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    tasks: list[Literal["gsm8k", "math500", "tooluse"]] = Field(min_length=1)
    systems: Systems
    K: int
    gamma: float
    rollout: Rollout
    train: Train
    evaluate: Evaluate
    prepare: Prepare


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Reads every grade and loss curve and writes the results."""
    from qthink_core import report

    systems = [*params.systems.baseline, *params.systems.trained]
    grades = {str(task): layout.grades(task) for task in params.tasks}
    curves = report.read_curves(
        {task: {name: layout.adapters(task, name) for name in params.systems.trained} for task in params.tasks}
    )
    settings = {
        "scale": params.scale,
        "problems": params.prepare.source,
        "seed": params.seed,
        "K": params.K,
        "G": params.rollout.G,
        "gamma": params.gamma,
        "epochs": params.train.epochs,
        "target": params.train.target,
        "training answers of at most": params.train.answer_max_tokens,
        "evaluated answers of at most": params.evaluate.max_new_tokens,
    }
    cells, further = report.read_cells(grades, systems), report.read_further(grades)
    written = report.write(layout.RESULTS, cells, further, curves, settings)
    return f"{len(systems)} systems on {len(params.tasks)} benchmarks: {written[0]} and {len(written) - 1} files beside it"


if __name__ == "__main__":
    stage.main("report", run)
