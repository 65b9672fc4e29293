"""`qthink run`: makes every box of the graph that has changed, several at once, and compares the results with the commit.

`dvc repro` makes one box after another. Here a box starts as soon as everything that it depends on is made and a processor
is free. The box with the longest chain of boxes after it starts first, by `dvc repro --single-item` (dvc_jobs.py).
"""

import contextlib
import importlib
import math
import os
import re
import selectors
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qthink_core.errors import ParamError, QThinkError, StoppedError, printable
from qthink_core.pipeline import graph, parameters, process
from qthink_core.pipeline.graph import Box
from qthink_core.planning import calibration, progress, schedule, workload
from qthink_core.planning.calibration import CPU
from qthink_core.planning.run_plan import RunPlan, plan_run
from qthink_core.planning.stage_costs import COSTS
from qthink_core.running import committed, dvc_jobs, warm
from qthink_core.running.dvc_jobs import Job

REPORT = "report"
# The folder for a report on some of the tasks; Git ignores it.
PART = Path("demo")
# A stopped stage finishes or drops its unit within 20 s.
STOPPING_S = 25.0
KILLED = 128 + signal.SIGKILL
# At its start and end a box holds DVC's lock while others wait; this many extra boxes keep the processors busy.
SPARE = 1
# The warm server costs as much as one cold start of a stage, so it does not pay for this few boxes.
FEW = 3
BAR = re.compile(r"\d+%\|")  # a progress bar


class BoxFailedError(QThinkError):
    """A box failed and has printed why; the program ends with the exit code of the box."""

    def __init__(self, box: str, code: int) -> None:
        killed = ": it was killed, perhaps because memory ran out; --jobs 1 runs one box at a time" if code == KILLED else ""
        super().__init__(
            f"{box} ended with exit code {code}{killed}; finished work is kept, run the same command to continue"
        )
        self.exit_code = code


def run(root: Path, tasks: Sequence[str], jobs: int | None) -> None:
    """Makes all boxes, or those of some tasks, prints the table, and compares it with the committed one.

    Raises ParamError at a task that is not in params, and BoxFailedError when a box fails: then no other box starts, and
    those that run may finish.
    """
    from qthink_core.report import markdown

    process.stop_on_signals()
    # so that `python` in dvc.yaml is this interpreter
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    tree = graph.checked_parameters(root)
    known = [str(task) for task in tree["tasks"]]
    for task in tasks:
        if task not in known:
            raise ParamError(f"task {task!r} is unknown: params.yaml has {', '.join(known)}")
    part = [task for task in known if task in tasks] if tasks and set(tasks) != set(known) else []
    needs = of_tasks(schedule.edges(root, tree), part or known)
    make(root, tree, needs, jobs)
    if REPORT not in graph.stages(root):
        return
    if part:
        written = report_of(root, tree, part)
    else:
        # a clone contains results, which DVC does not make again if their inputs are the same
        if all(one["stage"] != REPORT for one in calibration.entries(root / calibration.LOG)):
            make(root, tree, {REPORT: frozenset()}, 1, force=True)
        written = results(root, tree)
    print(f"\n{markdown.short((written / 'table.md').read_text())}")
    print(f"In detail: {written / 'table.md'}; with plots and single questions, in a browser: {written / 'report.html'}\n")
    steps = {name: workload.latent_steps(tree, name) for name in tree["systems"]["distilled"]}
    print(committed.compared(root, written, results(root, tree), part or known, tree["report"]["control"], steps))


def of_tasks(needs: Mapping[str, frozenset[str]], tasks: Collection[str]) -> dict[str, frozenset[str]]:
    """The boxes of these tasks and those without a task, except boxes that also need boxes of other tasks."""
    kept: dict[str, frozenset[str]] = {}
    for box, before in needs.items():
        if Box.parse(box).task in ("", *tasks) and before <= kept.keys():
            kept[box] = before
    return kept


def make(
    root: Path, tree: Mapping[str, Any], needs: Mapping[str, frozenset[str]], jobs: int | None, force: bool = False
) -> None:
    """Makes the boxes that have changed and those that depend on them, `jobs` at once or as many as the plan says."""
    dvc_jobs.load()
    todo = set(needs) if force else after(needs, dvc_jobs.changed() & needs.keys())
    if not todo:
        print(f"Nothing to do: all {len(needs)} boxes are up to date.", flush=True)
        return
    known = plan_or_none(root)
    processors = jobs_without_plan(tree)
    spare = 0
    if jobs is None:
        jobs = known.at_once if known else processors
        spare = SPARE * (jobs == processors > 1)
    queue = Queue(needs, todo, expected(known, needs), jobs, spare, force)
    what = f"{len(todo)} of {len(needs)} boxes to make, {jobs} at once"
    print(f"{what}: {progress.about(queue.left())} by the plan", flush=True)
    with warm_server(tree) if len(todo) > FEW else contextlib.nullcontext():
        queue.empty()
    dvc_jobs.sort_lock(root, [str(box) for box in graph.all_boxes(root, tree)])


def after(needs: Mapping[str, frozenset[str]], changed: Collection[str]) -> set[str]:
    """The changed boxes and all that depend on them."""
    found: set[str] = set()
    for box, before in needs.items():
        if box in changed or before & found:
            found.add(box)
    return found


@contextlib.contextmanager
def warm_server(tree: Mapping[str, Any]) -> Iterator[None]:
    """Starts a warm server for the stages in the context, if they compute on the processor."""
    if tree.get("device", CPU) != CPU or sys.platform != "linux":
        yield
        return
    with warm.server(tree["cpu_threads"], tree["cpu_kernels"]) as place:
        os.environ[warm.PLACE] = str(place)
        try:
            yield
        finally:
            del os.environ[warm.PLACE]


def plan_or_none(root: Path) -> RunPlan | None:
    """The plan of the run; None where the cost of a stage or the shape of the base model is unknown."""
    if not graph.stages(root).keys() <= COSTS.keys():
        return None
    with contextlib.suppress(ParamError):
        return plan_run(root, None, None, 1)
    return None


def jobs_without_plan(tree: Mapping[str, Any]) -> int:
    """How many boxes run at once without a plan, when their memory is unknown; on a GPU it is one."""
    return schedule.side_by_side(tree["cpu_threads"], math.inf) if tree.get("device", CPU) == CPU else 1


def expected(known: RunPlan | None, boxes: Collection[str]) -> dict[str, float]:
    """Seconds of each box by the plan; without a plan, the same for all boxes."""
    means = known.means if known else {}
    return {box: max(means.get(Box.parse(box).stage, 1.0), 0.1) for box in boxes}


class Queue:
    """The boxes that wait, those that run, and the line that shows the progress."""

    def __init__(
        self,
        needs: Mapping[str, frozenset[str]],
        todo: set[str],
        expected: Mapping[str, float],
        jobs: int,
        spare: int,
        force: bool,
    ) -> None:
        self.needs = {box: needs[box] & todo for box in todo}
        self.boxes = len(needs)
        self.waiting = set(todo)
        self.running: dict[str, Job] = {}
        self.output: dict[str, bytearray] = {}
        self.failed: BoxFailedError | None = None
        self.most, self.force = jobs + spare, force
        self.began = time.monotonic()
        self.estimate = progress.Estimate({box: expected[box] for box in todo}, self.needs, jobs)
        self.selector = selectors.DefaultSelector()
        self.live = sys.stdout.isatty()

    def empty(self) -> None:
        """Makes all boxes; raises BoxFailedError when one fails, and StoppedError, after stopping all, on a signal."""
        try:
            while self.running or (self.waiting and not self.failed):
                self._start()
                self._show()
                closed = [key.data for key, _ in self.selector.select(timeout=1.0) if not self._read(key.data)]
                for box, one in list(self.running.items()):
                    # a process that a stage left running keeps the pipe open
                    ended, status = os.waitpid(one.pid, 0 if box in closed else os.WNOHANG)
                    if ended:
                        self._ended(box, status)
        except KeyboardInterrupt as error:
            self._stop()
            raise StoppedError(f"stopped by {error}; finished units are kept, run the same command to continue") from None
        if self.failed:
            raise self.failed

    def _start(self) -> None:
        while not self.failed and len(self.running) < self.most:
            ready = [box for box in self.waiting if not self.needs[box] & (self.waiting | self.running.keys())]
            if not ready:
                return
            box = max(ready, key=lambda one: (self.estimate.paths[one], one))
            self.waiting.remove(box)
            self.output[box] = bytearray()
            with dvc_jobs.held():  # a stop signal between start and entry would leave the box running
                self.running[box] = dvc_jobs.start(box, self.force)
            self.selector.register(self.running[box].output, selectors.EVENT_READ, box)

    def _read(self, box: str) -> bool:
        """Reads the output of a box; False where the output has ended."""
        part = os.read(self.running[box].output, 1 << 16)
        self.output[box] += part
        return bool(part)

    def _ended(self, box: str, status: int) -> None:
        one = self.running.pop(box)
        self.selector.unregister(one.output)
        os.set_blocking(one.output, False)
        with contextlib.suppress(BlockingIOError):
            while part := os.read(one.output, 1 << 16):
                self.output[box] += part
        os.close(one.output)
        self.estimate.finished(box, time.monotonic() - one.began)
        output = lines(bytes(self.output.pop(box)))
        code = os.waitstatus_to_exitcode(status)
        if code:
            self._print(output)
            self.failed = self.failed or BoxFailedError(box, code if code > 0 else 128 - code)
            return
        *others, made = output or [f"{box}: already made"]
        self._print([*others, f"{self._line()} {made}"])

    def left(self) -> float:
        """Estimated seconds until the last box ends."""
        now = time.monotonic()
        return self.estimate.left(progress.Rest(self.waiting, {box: now - one.began for box, one in self.running.items()}))

    def _line(self) -> str:
        done = self.boxes - len(self.waiting) - len(self.running)
        return progress.line(done, self.boxes, time.monotonic() - self.began, self.left())

    def _print(self, printed: Sequence[str]) -> None:
        clear = "\r\x1b[K" if self.live else ""
        print(clear + "\n".join(printed), flush=True)

    def _show(self) -> None:
        if self.live and self.running:
            text = f"{self._line()} {', '.join(sorted(self.running))}"
            print("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1], end="", flush=True)

    def _stop(self) -> None:
        """Stops the running boxes, by SIGKILL if they take too long, and waits until all have ended."""
        for one in self.running.values():
            one.stop(signal.SIGINT)
        end = time.monotonic() + STOPPING_S
        while self.running:
            for box, one in list(self.running.items()):
                try:
                    gone = os.waitpid(one.pid, os.WNOHANG)[0]
                except ChildProcessError:  # the stop came just after its end was noticed
                    gone = one.pid
                if gone:
                    del self.running[box]
                elif time.monotonic() > end:
                    one.stop(signal.SIGKILL)
            time.sleep(0.05)
        self._print([""] if self.live else [])


def lines(output: bytes) -> list[str]:
    """The output of a box without progress bars and empty lines, safe for a terminal."""
    shown = [line.rpartition("\r")[2] for line in output.decode(errors="replace").split("\n")]
    return [printable(line) for line in shown if line.strip() and not BAR.search(line)]


def results(root: Path, tree: Mapping[str, Any]) -> Path:
    """The folder of the report."""
    return schedule.first_outputs(root, tree)[Box(REPORT)].parent


def report_of(root: Path, tree: Mapping[str, Any], tasks: Sequence[str]) -> Path:
    """Writes the report of some tasks into a separate folder, and returns that folder."""
    from qthink_core.report import build
    from qthink_core.report.params import outline

    stage_file = importlib.import_module(f"stages.{REPORT}")  # only a stage file knows the paths of artifacts
    own = parameters.prune({**tree, "tasks": list(tasks)}, parameters.patterns(stage_file.Params))
    params = stage_file.Params.model_validate(own)
    shutil.rmtree(root / PART, ignore_errors=True)
    build.write(root / PART, build.find(params.folders(), outline(params)), params.folders())
    return PART
