"""The real pipeline at a scale so small that it can be killed thousands of times; its boxes run as forks of this process."""

import contextlib
import fcntl
import gc
import hashlib
import importlib
import os
import runpy
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from chain.workplaces import TASK, Workplace
from graph import outputs
from imports import ROOT
from ruamel.yaml import YAML

from qthink_core.pipeline import code, graph, parameters, process
from qthink_core.pipeline.graph import Box, boxes, resolve, stages
from qthink_core.running.warm_server import PACKAGES

MICRO = Path(__file__).with_name("micro.yaml")
# What the method's own numbers would only make slower.
PARAMS = {"K": 2, "rollout": {"G": 2}, "probe": {"top": 2}, "train": {"target": "gold"}}
# In the order of the pipeline; of the stages with several boxes the harness strikes the first.
ORDER = (
    *("fingerprint", "base", "prepare", "sample", "reward", "extract", "average", "finetune", "train"),
    *("merge", "baseline", "evaluate", "probe", "grade", "report"),
)
PIPE_BYTES = 1 << 20
# What the stages' libraries import when they are first used.
LATE = ("pyarrow.dataset", "pandas", "qthink_core.planning.preflight")


class Ended(NamedTuple):
    """How a box ended: its exit code (negative: the signal), all that it said, and its seconds."""

    code: int
    said: str
    seconds: float


def load(stages: Iterable[str] = ORDER) -> None:
    """Imports all that these stages import, so that a fork starts in a moment."""
    for name in (*PACKAGES, *LATE):
        importlib.import_module(name)
    for stage in stages:
        for path in code.modules(ROOT, f"stages/{stage}.py"):
            importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    gc.collect()
    gc.freeze()  # the collector of a fork then does not touch, and so does not copy, what was imported


class Project:
    """A copy of the repository, and what its boxes made when nobody disturbed them."""

    def __init__(self, folder: Path) -> None:
        self.place = Workplace(folder, MICRO, PARAMS)
        self.root = self.place.root
        tree = parameters.load(self.root)[0]
        known = stages(self.root)
        self.boxes = [box for stage in ORDER for box in boxes(stage, known[stage], tree)]
        self.outs = {box: [Path(resolve(out, box, tree)) for out in outputs(box.stage)] for box in self.boxes}
        self.made: dict[Box, dict[str, str]] = {}
        with contextlib.chdir(self.root):
            graph.checked_parameters(Path())  # a fork then finds them parsed

    def box(self, stage: str) -> Box:
        """The box of a stage that the harness strikes."""
        return next(box for box in self.boxes if box.stage == stage)

    def make(self, until: str = ORDER[-1]) -> None:
        """Runs the boxes up to those of a stage undisturbed, and keeps what they made as the truth."""
        for box in self.boxes[: max(at for at, box in enumerate(self.boxes) if box.stage == until) + 1]:
            done = self.run(box)
            if done.code:
                raise RuntimeError(f"{box} ended with {done.code} though nothing disturbed it:\n{done.said}")
            self.made[box] = self.tree(box)

    def run(self, box: Box, before: Callable[[], None] = lambda: None, **environment: str) -> Ended:
        """Runs a box in a fork, which calls `before` first."""
        return self.ended(*self.start(box, before, **environment))

    def start(self, box: Box, before: Callable[[], None] = lambda: None, **environment: str) -> tuple[int, int, float]:
        """A fork that runs a box, the pipe of its output, and when it began."""
        read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)  # nobody reads before the end
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(read)
            _become(self.root, box, before, write, self.place.environment | environment)
        os.close(write)
        return child, read, time.monotonic()

    def ended(self, child: int, read: int, began: float) -> Ended:
        """Waits for a fork."""
        _, status = os.waitpid(child, 0)
        seconds = time.monotonic() - began
        with open(read, "rb") as said:
            return Ended(os.waitstatus_to_exitcode(status), said.read().decode(errors="replace"), seconds)

    def remove_outs(self, box: Box) -> None:
        """As DVC does before it runs a stage."""
        for out in self.outs[box]:
            path = self.root / out
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def reset(self, box: Box) -> None:
        """As if the box had never run."""
        self.remove_outs(box)
        for path in (self.work(box), self.root / "logs"):
            shutil.rmtree(path, ignore_errors=True)

    def work(self, box: Box) -> Path:
        """The work folder of a box."""
        return self.root / ".work" / str(box)

    def tree(self, box: Box) -> dict[str, str]:
        """The sha256 of each file that the box made."""
        found = {}
        for out in self.outs[box]:
            path = self.root / out
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if file.is_file():
                    found[str(file.relative_to(self.root))] = hashlib.sha256(file.read_bytes()).hexdigest()
        return found


def _become(root: Path, box: Box, before: Callable[[], None], output: int, environment: Mapping[str, str]) -> None:
    """Runs `python -m stages.<stage>` in a fork, and ends it."""
    status: Any = 70
    try:
        os.chdir(root)
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ.clear()
        os.environ.update(environment, DVC_STAGE=str(box))
        before()
        sys.modules.pop(f"stages.{box.stage}", None)  # runpy would warn
        runpy.run_module(f"stages.{box.stage}", run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the harness shows it
        traceback.print_exc()
        status = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def pin() -> None:
    """Pins the numerics of this process as a stage of the micro scale would; call it before torch is imported."""
    with MICRO.open() as file:
        params = YAML(typ="safe").load(file)
    process.pin_numerics(params["cpu_threads"], params["cpu_kernels"])


__all__ = ["ORDER", "TASK", "Ended", "Project", "load", "pin"]
