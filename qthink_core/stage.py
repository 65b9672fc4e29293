"""What every stage does around its one page: checked parameters, one run at a time, verified inputs, words, exit codes.

DVC tells a stage its name through the environment (DVC_STAGE), so the commands in dvc.yaml are constants and no parameter
ever reaches a shell.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import importlib
import itertools
import json
import os
import pkgutil
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from qthink_core import artifacts, ranks, settings
from qthink_core.errors import DataError, ParamError, QThinkError, StoppedError, StorageError, UnavailableError

PR_SET_PDEATHSIG = 1
NAME = re.compile(r"[a-z][a-z0-9_]*")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Instance:
    """One box of the graph: `train@gsm8k-uniform-0` is stage `train`, task `gsm8k`, system `uniform`, training seed 0."""

    stage: str
    task: str = ""
    system: str = ""
    seed: int = -1

    def __str__(self) -> str:
        seed = str(self.seed) if self.seed >= 0 else ""
        return self.stage + "@" * bool(self.task) + "-".join(filter(None, (self.task, self.system, seed)))

    @classmethod
    def parse(cls, text: str) -> "Instance":
        """Raises ParamError when the text names no instance."""
        stage, _, cell = text.partition("@")
        task, system, seed = [*cell.split("-", 2), "", ""][:3]
        for part in filter(None, (stage, task, system)):
            if not NAME.fullmatch(part):
                raise ParamError(f"stage {text!r} has a part {part!r}: use small letters, digits and underscores")
        if seed and not seed.isdecimal():
            raise ParamError(f"stage {text!r} ends in {seed!r}: a training seed is a whole number, 0 or more")
        found = cls(stage, task, system, int(seed) if seed else -1)
        if str(found) != text:
            raise ParamError(f"stage {text!r} is no name of a box: {str(found)!r} would be one")
        return found


def resolve(text: str, at: Instance, tree: Mapping[str, Any]) -> str:
    """A path or key of dvc.yaml with its `${...}` filled in for one instance: parts of its name, else parameters."""
    known = {"item.task": at.task, "item.system": at.system, "item.seed": str(at.seed)}
    return re.sub(
        r"\$\{([^}]*)\}", lambda found: known[found[1]] if found[1] in known else settings.value(tree, found[1]), text
    )


def graph(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """The stages of dvc.yaml as they are written."""
    return settings.read_yaml(root / "dvc.yaml")["stages"]


def instances(stage: str, entry: Mapping[str, Any], tree: Mapping[str, Any]) -> list[Instance]:
    """Every box of a stage: the product of its matrix over the parameters that it names."""
    axes = [list(settings.value(tree, axis[2:-1])) for axis in entry.get("matrix", {}).values()]
    return [Instance(stage, **dict(zip(entry.get("matrix", {}), cell, strict=True))) for cell in itertools.product(*axes)]


def declared(root: Path, at: Instance, tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The instance's deps and params as dvc.yaml declares them: {"deps": [path], "params": {file: [key]}}."""
    stages = graph(root)
    if at.stage not in stages:
        raise ParamError(f"dvc.yaml has no stage {at.stage!r}: it has {', '.join(stages)}")
    entry = stages[at.stage]
    params: dict[str, list[str]] = {}
    for key in entry.get("params", []):
        for file, names in key.items() if isinstance(key, dict) else [("params.yaml", [key])]:
            params.setdefault(resolve(file, at, tree), []).extend(resolve(name, at, tree) for name in names)
    return {"deps": [resolve(dep, at, tree) for dep in entry.get("deps", [])], "params": params}


def remove_orphans(root: Path, at: Instance) -> list[str]:
    """Removes from the instance's input folders the artifacts that no box of the graph makes any more, and returns them.

    A stage that depends on a whole folder (all seeds of a system, all systems of a task) would otherwise hash and check what
    a seed or system left behind that has gone from params. DVC's cache keeps them. Only an artifact whose manifest says that
    it is of this very place is removed, and only from a folder in which boxes of the graph make others; what they make
    inside of it stays.
    """
    tree, _ = settings.load(root)
    made = {
        Path(resolve(out if isinstance(out, str) else next(iter(out)), one, tree))
        for stage, entry in graph(root).items()
        for one in instances(stage, entry, tree)
        for out in entry.get("outs", [])
    }
    shared = [dep for dep in map(Path, declared(root, at, tree)["deps"]) if any(dep in out.parents for out in made)]
    gone = []
    for file in sorted(file for dep in shared for file in (root / dep).rglob(artifacts.MANIFEST)):
        folder = file.parent.relative_to(root)
        if not made & {folder, *folder.parents} and artifacts.placed(root / folder) == str(folder):
            _remove(root, folder, made)
            gone.append(str(folder))
    return gone


def _remove(root: Path, folder: Path, but: set[Path]) -> None:
    """Removes a folder but for the paths inside it that are to stay."""
    if not any(folder in one.parents for one in but):
        shutil.rmtree(root / folder)
        return
    for path in (root / folder).iterdir():
        inner = path.relative_to(root)
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif inner not in but:
            _remove(root, inner, but)


def stage_sections() -> dict[str, type[settings.Section]]:
    """The parameters class of every stage, found in the `stages` package; their modules import nothing heavy."""
    import stages  # the one look upward: to check all parameters at once, before anything expensive starts

    names = sorted(module.name for module in pkgutil.iter_modules(stages.__path__))
    modules = {name: importlib.import_module(f"stages.{name}") for name in names}
    return {name: module.Params for name, module in modules.items()}


def read_params(root: Path, stage: str) -> Any:
    """The stage's own parameters, after those of all stages were checked.

    Raises ParamError with every fault of the params files, one a line.
    """
    tree, origin = settings.load(root)
    sections = stage_sections()
    found = settings.faults(tree, origin, sections)
    if found:
        raise ParamError("\n".join(found))
    return sections[stage].model_validate(settings.prune(tree, settings.patterns(sections[stage])))


def preflight(at: Instance | None, scale: str | None = None) -> list[str]:
    """What this machine has of what a scale asks for, a line each, before a box starts or whenever somebody asks.

    Raises UnavailableError with everything that is missing, a line each. It only refuses, so its module is found by name,
    like those of the parameter classes, and is no dep of the stages that ask.
    """
    return importlib.import_module("qthink_core.preflight").check(Path(), at, scale)


def pin_numerics(threads: int, kernels: str) -> None:
    """Sets, before torch is imported, what decides the bits of a CPU result: threads and, for `portable`, instruction sets.

    `portable` keeps ATen and oneDNN to AVX2 and MKL to the one branch that Intel and AMD processors share; its AVX2 branch
    gives other bits on each (docs/decisions.md, Reproducibility). `native` takes the fastest of the machine.
    """
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["MKL_DYNAMIC"] = "FALSE"
    os.environ["OMP_DYNAMIC"] = "FALSE"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if kernels == "portable":
        os.environ["MKL_CBWR"] = "COMPATIBLE"
        os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
        os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX2"


def die_with_parent() -> None:
    """Asks the kernel to kill this process when DVC dies: an orphan would go on writing beside the next run.

    The commands in dvc.yaml pass DVC's process id, since DVC may have died before this process could ask: then StoppedError.
    """
    parent = int(os.environ.get("QTHINK_PARENT") or os.getppid())
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            raise StoppedError(f"process {parent}, which started this stage, has ended: run `dvc repro` again")


@contextlib.contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """Holds the stage's lock for the duration; raises StoppedError naming the process that holds it already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StoppedError(f"{what} is already running as process {file.read().strip()}: let it end") from None
        except OSError as error:  # Lustre without -o flock, some NFS
            raise StorageError(
                f"{path} cannot be locked ({error.strerror}): mount its file system with flock, or move the repository"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextlib.contextmanager
def device_memory(root: Path, stage: str) -> Iterator[None]:
    """Raises UnavailableError, naming the batch to lower, where the device's memory is full, here or in a worker."""
    try:
        yield
    except Exception as error:
        torch = sys.modules.get("torch")
        cause = getattr(error, "cause", None) or error  # Ray's worker wraps what its unit raised
        if torch is None or not isinstance(cause, torch.OutOfMemoryError):
            raise
        batch = importlib.import_module("qthink_core.preflight").BATCH.get(stage, "its batch")
        scale = settings.read_yaml(root / "params.yaml")["scale"]
        raise UnavailableError(
            f"the device's memory is full ({str(cause).partition('. ')[0]}): lower {batch} in params/{scale}.yaml, then run "
            "the same command again; finished units are kept"
        ) from None


def told(counts: Mapping[str, int], *but: str) -> str:
    """The counts that are not 0, each behind a comma, but for those that the sentence before has said."""
    return "".join(f", {name} {count}" for name, count in counts.items() if count and name not in but)


def _on_signal(number: int, _frame: object) -> NoReturn:
    # Not a StoppedError: libraries catch Exception around their optional imports, and the stop would be lost.
    raise KeyboardInterrupt(signal.Signals(number).name)


def identity(root: Path, at: Instance) -> tuple[str, str, dict[str, str]]:
    """(fingerprint of parameters, inputs and code; digest of parameters and inputs; digest of each input).

    Parameters are those that dvc.yaml declares for this instance, so that another system's settings change nothing here.
    """
    tree, _ = settings.load(root)
    entry = declared(root, at, tree)
    deps = {dep: artifacts.digest(root / dep) for dep in entry["deps"]}
    inputs = {dep: value for dep, value in deps.items() if not dep.endswith(".py")}
    keys = sorted({name for names in entry["params"].values() for name in names})
    values = {"instance": str(at), "params": {key: settings.value(tree, key) for key in keys}}
    made_from = hashlib.sha256(artifacts.canonical_json(values | {"inputs": inputs})).hexdigest()
    fingerprint = hashlib.sha256(artifacts.canonical_json(values | {"deps": deps})).hexdigest()
    return fingerprint, made_from, inputs


def check_lineage(root: Path, inputs: Iterable[str]) -> None:
    """Raises DataError when an input is damaged, is the artifact of another place, or was made from another version of
    an artifact that this stage reads as well.
    """
    folders = {
        str(file.parent.relative_to(root)): artifacts.read_manifest(file.parent)
        for path in inputs
        for file in sorted((root / path).rglob(artifacts.MANIFEST))
    }
    for name, manifest in folders.items():
        if manifest.place != name:
            raise DataError(f"{name} holds the artifact of {manifest.place}: run `dvc checkout --force {name}`")
        for source, recorded in manifest.inputs.items():
            if source in folders and recorded != artifacts.digest(root / source):
                raise DataError(f"{name} was made from another {source} than the one at hand: run `dvc repro`")


def progress(items: Iterable[Item], total: int, what: str, unit: str = "it") -> Iterator[Item]:
    """The items, with a bar on a terminal (rate and time left); in a log a line each half minute, none for a short stage.

    Of several ranks the first one's.
    """
    from tqdm import tqdm

    pause = 0.2 if sys.stderr.isatty() else 30.0
    return iter(tqdm(items, total=total, desc=what, unit=unit, mininterval=pause, delay=pause, disable=ranks.rank() > 0))


def data_folder() -> Path | None:
    """The folder of published benchmark files that QTHINK_DATA names.

    The path is in no fingerprint: files with a recorded sha256 are pinned by it, the others (MATH and Tooluse training
    problems) are the user's own to keep as they are.
    """
    text = os.environ.get("QTHINK_DATA")
    return Path(text) if text else None


def checkpoint_every() -> int:
    """Optimiser steps between two checkpoints; QTHINK_CHECKPOINT_EVERY, since no result depends on it."""
    text = os.environ.get("QTHINK_CHECKPOINT_EVERY", "25")
    if not text.isdigit() or int(text) < 1:
        raise ParamError(f"QTHINK_CHECKPOINT_EVERY is {text!r}: give a whole number of optimiser steps, at least 1")
    return int(text)


def launch(stage: str) -> None:
    """Becomes the launcher that QTHINK_LAUNCH names, which starts this stage again, once for each rank; else does nothing.

    The process id stays, and so does the kernel's order to end it with DVC; the ranks go with the launcher. Raises
    ParamError when QTHINK_LAUNCH names no program or accelerate has started one process where several were asked for.
    """
    text = os.environ.pop("QTHINK_LAUNCH", None)
    if ranks.forsaken():
        raise ParamError("accelerate started one process instead of several: add --multi_gpu, without --cpu; CPUs are fine")
    if text is None or ranks.launched():
        return
    try:
        command = shlex.split(text)
    except ValueError:
        command = []
    if not command or not shutil.which(command[0]):
        raise ParamError(f"QTHINK_LAUNCH is {text!r}, no program found here: give `accelerate launch ...`, or unset it")
    if re.search(r"--num[_-]processes[= ](?!1( |$))", text) and "--mpirun_hostfile" not in text:
        # accelerate's --cpu leaves the starting to MPI. Its other launcher starts ranks on CPUs too; params name the device.
        command = ["--multi_gpu" if word == "--cpu" else word for word in command]
    os.environ.pop("QTHINK_PARENT", None)  # the ranks' parent is the launcher, on several machines another one each
    os.execvp(command[0], [*command, "-m", f"stages.{stage}"])


def main(stage: str, run: Callable[..., str], launchable: bool = False) -> None:
    """Runs one instance of a stage and ends the process with its exit code.

    `run(params, at, work)` returns the sentence that says what was made. Parameters, inputs and code are fingerprinted
    before and after: an edit in the middle would put wrong hashes into dvc.lock. A `launchable` stage can use the ranks of
    a launcher: rank 0 does all this, and the others have their part in `run` alone.
    """
    root, started = Path(), time.monotonic()
    name = os.environ.get("DVC_STAGE", "")
    try:
        at = Instance.parse(name)
        if at.stage != stage:
            raise ParamError(f"stages/{stage}.py is a part of the graph: run it with `dvc repro {stage}`")
        params = read_params(root, stage)
        pin_numerics(params.cpu_threads, params.cpu_kernels)
        die_with_parent()
        if launchable:
            launch(stage)
        elif ranks.world() > 1:
            raise ParamError(f"{stage} runs in one process, found {ranks.world()}: start it without a launcher")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _on_signal)
        ranks.join()
        place = root / ".work" / str(at)
        if ranks.rank() > 0:
            ranks.barrier()  # until rank 0 has opened the work folder
            joined = artifacts.JoinedWork(place, identity(root, at)[0])
            with artifacts.storage(joined.folder), device_memory(root, stage):
                run(params, at, joined)
            ranks.leave()
            return
        with lock(place.with_suffix(".lock"), str(at)):
            for folder in remove_orphans(root, at):
                print(f"{at}: {folder} is made by no box of the graph any more: removed (DVC's cache keeps it)", flush=True)
            fingerprint, made_from, inputs = identity(root, at)
            check_lineage(root, inputs)
            artifacts.sweep(root / ".work", inputs)
            work = artifacts.Work(place, fingerprint, made_from, inputs)
            ranks.barrier()
            with artifacts.storage(work.folder), device_memory(root, stage):
                made = run(params, at, work)
            if identity(root, at)[0] != fingerprint:
                raise DataError(f"parameters, inputs or code of {at} changed while it ran: run `dvc repro` again")
            work.close()
            ranks.leave()
        seconds = time.monotonic() - started
        log_run(root, at, seconds, params, work.resumed)
        print(f"{at}: {printable(made)} ({seconds:.0f} s)", flush=True)
    except KeyboardInterrupt as error:
        stopped = f"stopped by {error}; finished units are kept, `dvc repro` goes on from there"
        _end(name, stopped if ranks.rank() == 0 else "", StoppedError.exit_code)
    except QThinkError as error:
        if ranks.world() > 1 and not error.everywhere:
            name += f": rank {ranks.rank()}"
        elif ranks.rank() > 0:  # or the launcher would end rank 0 before it has said it
            with contextlib.suppress(ranks.LostError, KeyboardInterrupt):
                ranks.barrier()
        silent = ranks.rank() > 0 and (error.everywhere or isinstance(error, ranks.LostError))
        _end(name, "" if silent else str(error), error.exit_code)


def _end(name: str, message: str, code: int) -> NoReturn:
    for line in filter(None, message.split("\n")):
        print(f"{name or 'qthink'}: {printable(line)}", file=sys.stderr, flush=True)
    sys.exit(code)


def printable(text: str) -> str:
    """The text with control characters escaped: ids and names out of files must not steer a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def log_run(root: Path, at: Instance, seconds: float, params: settings.Section, resumed: bool) -> None:
    """Adds the run to logs/runs.jsonl: clocks and durations live there and never in an output.

    With what `calibration` must know of it: scale, device, processes, executor, the stage's parameters, and whether units of
    an earlier run were found made.
    """
    (root / "logs").mkdir(exist_ok=True)
    entry = {
        "stage": str(at),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(seconds, 2),
        "scale": settings.read_yaml(root / "params.yaml")["scale"],
        "device": device_of(params),
        "processes": ranks.world(),
        "executor": os.environ.get("QTHINK_EXECUTOR", "here"),
        "resumed": resumed,
        "params": params.model_dump(mode="json", exclude_unset=True),
    }
    with (root / "logs" / "runs.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def device_of(params: settings.Section) -> str:
    """Where a stage computed: `cpu`, the name of its GPU, or `cuda` where this process never asked for that name."""
    if getattr(params, "device", "cpu") == "cpu":
        return "cpu"
    torch = sys.modules.get("torch")  # a stage that loaded it has done so by now, and no other should
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cuda"
