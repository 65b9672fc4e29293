"""report: the paper's table at this scale, one page that shows it all, and the files that DVC compares and plots."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.stated import Stated


class Params(Stated):
    """What the table's rows and columns are, and the settings that it states and compares."""

    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]


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
