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


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Reads every grade and loss curve and writes the results."""
    from qthink_core import report

    systems = [*params.systems.baseline, *params.systems.trained]
    cells = report.read_cells({task: layout.grades(task) for task in params.tasks}, systems)
    curves = report.read_curves(
        {task: {name: layout.adapters(task, name) for name in params.systems.trained} for task in params.tasks}
    )
    settings = {"scale": params.scale, "seed": params.seed, "K": params.K, "gamma": params.gamma}
    written = report.write(layout.RESULTS, cells, curves, settings)
    return f"{len(systems)} systems on {len(params.tasks)} benchmarks, in {', '.join(map(str, written))}"


if __name__ == "__main__":
    stage.main("report", run)
