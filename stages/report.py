"""report: the paper's table at this scale, the HTML page with all results, and the files that DVC compares and plots."""

from typing import TYPE_CHECKING, Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.report.params import ReportParams, outline

if TYPE_CHECKING:
    from qthink_core.report.build import Folders


class Params(ReportParams):
    """The rows and columns of the table, and the settings that the report states and compares."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]

    def folders(self) -> dict[str, "Folders"]:
        """The folders with the artifacts of each task."""
        from qthink_core.report.build import Folders

        systems = self.systems
        return {
            str(task): Folders(
                layout.problems(task),
                layout.test_sets(task),
                layout.grades(task),
                {name: {seed: layout.adapters(task, name, seed) for seed in self.seeds} for name in systems.trained},
                {name: layout.answers(task, name) for name in (*systems.baseline, *systems.trained)},
                {name: layout.probes(task, name) for name in systems.trained if name in systems.distilled},
            )
            for task in self.tasks
        }


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Reads grades, answers and loss curves and writes the results."""
    from qthink_core.artifacts.files import write_file
    from qthink_core.pipeline import seconds
    from qthink_core.report import build, markdown

    folders = params.folders()
    findings = build.find(folders, outline(params))
    written = build.write(layout.RESULTS, findings, folders)
    took = markdown.seconds_table(findings, seconds.read(seconds.LOG))
    seconds.REPORT.parent.mkdir(exist_ok=True)
    write_file(seconds.REPORT, took.encode())
    print(took, flush=True)
    return f"{len(findings.systems)} systems on {len(folders)} benchmarks: {written[0]}, {written[1]} and what DVC plots"


if __name__ == "__main__":
    stage.main("report", run)
