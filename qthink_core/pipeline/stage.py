"""What every stage does around its stage file: checked parameters, one run at a time, verified inputs, exit codes."""

import contextlib
import hashlib
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from qthink_core.artifacts import files, store
from qthink_core.errors import (
    DataError,
    ParamError,
    QThinkError,
    StoppedError,
    StorageError,
    UnavailableError,
    first_line,
    printable,
    stop_behind,
)
from qthink_core.pipeline import code, layout, parameters, process, ranks
from qthink_core.pipeline.graph import (
    BESIDE,
    FOLDER,
    Box,
    checked_parameters,
    declared,
    outs,
    parameter_classes,
    remove_orphans,
    resolve,
    stages,
)

Item = TypeVar("Item")


def read_params(root: Path, stage: str) -> Any:
    """The stage's own parameters, read after a check of the parameters of all stages.

    Raises ParamError with every fault of the params files, one per line.
    """
    tree = checked_parameters(root)
    section = parameter_classes()[stage]
    return section.model_validate(parameters.prune(tree, parameters.patterns(section)))


def planning_module(name: str) -> Any:
    """A module of the planning package, imported by name: it changes no result, so no stage depends on it."""
    return importlib.import_module(f"qthink_core.planning.{name}")


def preflight(at: Box) -> list[str]:
    """The needs of a box that this machine meets, one per line; raises UnavailableError with everything that is missing."""
    return planning_module("preflight").check(Path(), at, None)


@contextlib.contextmanager
def device_memory(root: Path, stage: str) -> Iterator[None]:
    """Turns an out-of-memory error of the device, also in a worker, into UnavailableError with the parameter to lower."""
    try:
        yield
    except Exception as error:
        torch = sys.modules.get("torch")
        cause = getattr(error, "cause", None) or error  # Ray's worker wraps what its unit raised
        if torch is None or not isinstance(cause, torch.OutOfMemoryError):
            raise
        tree, _ = parameters.load(root)
        remedy = planning_module("room").remedy(stage, tree)
        raise UnavailableError(
            f"the device's memory is full ({str(cause).partition('. ')[0]}): end other programs that use it and run the "
            f"same command again, or {remedy}, after which this box begins again"
        ) from None


def nonzero(counts: Mapping[str, int], *without: str) -> str:
    """The counts that are not 0 as text, each after a comma, except those in `without`, which the sentence already has."""
    return "".join(f", {name} {count}" for name, count in counts.items() if count and name not in without)


def identity(root: Path, at: Box) -> tuple[str, str, dict[str, str]]:
    """(fingerprint of parameters, inputs and code; digest of parameters and inputs; digest of each input).

    Only parameters that dvc.yaml declares for this box count, so the settings of another system change nothing here. The
    code is read from the sources each time; for the stage that records the code, it is the code of all stages. The user's
    own folder counts by the sizes and times of its files, and in the fingerprint alone: what the box takes from it is in its
    outputs, so other files there, or another place of the folder, change nothing after this box. The same is true of the
    parameters in BESIDE: they are in the output that they determine.
    """
    tree, _ = parameters.load(root)
    entry = declared(root, at, tree)
    own = {path: files.listing(root / path) for path in entry["folders"]}
    of_code = (str(layout.code(at.stage)), *code.PACKAGES)
    inputs = {dep: store.digest(root / dep) for dep in entry["deps"] if dep not in of_code}
    keys = sorted({name for names in entry["params"].values() for name in names} - {FOLDER})
    whole = parameters.without(tree, FOLDER)
    params = {key: parameters.value(whole, key) for key in keys}
    for key in BESIDE:
        whole = parameters.without(whole, resolve(key, at, tree))
    lasting = {key: parameters.value(whole, key) for key in keys if key not in BESIDE}
    values = {"instance": str(at), "params": lasting, "inputs": inputs}
    made_from = hashlib.sha256(store.canonical_json(values)).hexdigest()
    digests = {one: code.of_stage(root, one) for one in (stages(root) if at.stage == code.STAGE else [at.stage])}
    now = values | {"params": params, "code": digests, "own": own}
    fingerprint = hashlib.sha256(store.canonical_json(now)).hexdigest()
    return fingerprint, made_from, inputs


def check_code(root: Path, at: Box) -> None:
    """Raises DataError when the code recorded for DVC differs from the current code, because `fingerprint` did not run."""
    if at.stage != code.STAGE:
        code.check(root / layout.code(at.stage), code.of_stage(root, at.stage))


def check_complete(root: Path, at: Box) -> None:
    """Raises DataError when the inputs of a box lack an artifact that the graph makes there."""
    tree, _ = parameters.load(root)
    inputs = [Path(dep) for dep in declared(root, at, tree)["deps"]]
    for out in sorted(outs(root, tree)):
        if any(out.is_relative_to(dep) for dep in inputs):
            if not (root / out / store.MANIFEST).is_file():
                raise DataError(f"{out} is missing or holds no {store.MANIFEST}: run `dvc repro`")
            store.manifest_of(root / out)  # before its digest, which takes minutes where the file is too large


def check_lineage(root: Path, inputs: Iterable[str]) -> None:
    """Raises DataError when an input is damaged, belongs elsewhere, or was made from another version of another input.

    So does a file in the folder of an input that belongs to no artifact.
    """
    folders: dict[str, store.Manifest] = {}
    for path in inputs:
        found = {file.parent: store.read_manifest(file.parent) for file in sorted((root / path).rglob(store.MANIFEST))}
        folders |= {str(folder.relative_to(root)): manifest for folder, manifest in found.items()}
        for file in files.strangers(root / path, ()):
            if not found.keys() & {*file.parents}:
                raise DataError(f"{printable(str(file.relative_to(root)))} belongs to no artifact in {path}: delete it")
    for name, manifest in folders.items():
        if manifest.place != name:
            raise DataError(f"{name} holds the artifact of {manifest.place}: {store.fix(name)}")
        for source, recorded in manifest.inputs.items():
            if source in folders and recorded != store.digest(root / source):
                raise DataError(f"{name} was made from another version of {source} than the present one: run `dvc repro`")


def progress(items: Iterable[Item], total: int, what: str, unit: str = "it") -> Iterator[Item]:
    """The items, with a progress bar on a terminal or a line every half minute in a log; a short stage shows nothing.

    Only rank 0 shows progress.
    """
    from tqdm import tqdm

    pause = 0.2 if sys.stderr.isatty() else 30.0
    return iter(tqdm(items, total=total, desc=what, unit=unit, mininterval=pause, delay=pause, disable=ranks.rank() > 0))


def checkpoint_every() -> int:
    """Optimiser steps between two checkpoints, from QTHINK_CHECKPOINT_EVERY; no result depends on it."""
    text = os.environ.get("QTHINK_CHECKPOINT_EVERY", "25")
    if not re.fullmatch("0{0,9}[1-9][0-9]{0,8}", text):
        raise ParamError(f"QTHINK_CHECKPOINT_EVERY is {text!r}: give a whole number of optimiser steps, at least 1")
    return int(text)


def main(stage: str, run: Callable[..., str], launchable: bool = False) -> None:
    """Runs one box of a stage and ends the process with its exit code.

    `run(params, at, work)` returns a sentence about what was made. Parameters, inputs and code are fingerprinted before and
    after: an edit during the run would put wrong hashes into dvc.lock. A `launchable` stage can use the ranks of a launcher:
    rank 0 does all of this, and the others only call `run`.
    """
    root, started = Path(), time.monotonic()
    name = os.environ.get("DVC_STAGE", "")
    try:
        process.stop_on_signals()
        at = Box.parse(name)
        if at.stage != stage:
            raise ParamError(f"stages/{stage}.py is a part of the graph: run it with `dvc repro {stage}`")
        params = read_params(root, stage)
        process.only_as_pinned(params.cpu_threads, params.cpu_kernels, getattr(params, "device", "cpu"))
        process.pin_numerics(params.cpu_threads, params.cpu_kernels)
        process.die_with_parent()
        if launchable:
            process.launch(stage)
        elif ranks.world() > 1:
            raise ParamError(f"{stage} runs in one process, found {ranks.world()}: start it without a launcher")
        ranks.join()
        place = root / ".work" / str(at)
        if ranks.rank() > 0:
            ranks.barrier()  # until rank 0 has opened the work folder
            joined = ranks.JoinedWork(place, identity(root, at)[0])
            with files.storage(joined.folder), device_memory(root, stage):
                run(params, at, joined)
            ranks.leave()
            return
        with files.storage(place), process.lock(place.with_suffix(".lock"), str(at)):
            for folder in remove_orphans(root, at):
                print(f"{at}: removed {folder}, which no box of the graph makes any more (DVC's cache keeps it)", flush=True)
            check_complete(root, at)
            fingerprint, made_from, inputs = identity(root, at)
            check_code(root, at)
            check_lineage(root, inputs)
            store.sweep(root / ".work", inputs)
            work = store.Work(place, fingerprint, made_from, inputs)
            ranks.barrier()
            with files.storage(work.folder), device_memory(root, stage):
                made = run(params, at, work)
            if identity(root, at)[0] != fingerprint:
                raise DataError(f"parameters, inputs or code of {at} changed while it ran: run `dvc repro` again")
            work.close()
            ranks.leave()
        seconds = time.monotonic() - started
        log_run(root, at, seconds, params, work.resumed)
        print(f"{at}: {printable(made)} ({seconds:.0f} s)", flush=True)
        process.ignore_signals()
    except (KeyboardInterrupt, Exception) as error:
        if (stop := stop_behind(error)) is not None:
            stopped = f"stopped by {stop}; finished units are kept, `dvc repro` continues from there"
            _end(name, stopped if ranks.rank() == 0 else "", StoppedError.exit_code)
        if isinstance(error, OSError):  # such as a folder where a file belongs
            what = error.filename or "reading or writing"
            error = StorageError(
                f"{what} failed ({error.strerror or first_line(error)}): fix this and run `dvc repro` again"
            )
        if not isinstance(error, QThinkError):
            raise
        if ranks.world() > 1 and not error.everywhere:
            name += f": rank {ranks.rank()}"
        elif ranks.rank() > 0:  # otherwise the launcher would end rank 0 before it has printed the error
            with contextlib.suppress(ranks.LostError, KeyboardInterrupt):
                ranks.barrier()
        silent = ranks.rank() > 0 and (error.everywhere or isinstance(error, ranks.LostError))
        _end(name, "" if silent else str(error), error.exit_code)


def _end(name: str, message: str, code: int) -> NoReturn:
    for line in filter(None, message.split("\n")):
        print(f"{name or 'qthink'}: {printable(line)}", file=sys.stderr, flush=True)
    if ranks.joined():
        # While Python ends, a thread of the connection to a lost rank can abort the process, and the code would be lost.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def log_run(root: Path, at: Box, seconds: float, params: parameters.Section, resumed: bool) -> None:
    """Adds the run to logs/runs.jsonl, the only place where times are recorded: no output contains one.

    The entry has what planning/calibration.py needs: scale, device, processes, executor, the stage's parameters, and whether
    the run continued an earlier one. `cpu_seconds` is the processor time of this process since its start, and of the
    children that it waited for; unlike `seconds`, it hardly grows when other boxes run at the same time.
    """
    entry = {
        "stage": str(at),
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(sum(os.times()[:4]), 2),
        "scale": parameters.read_yaml(root / "params.yaml")["scale"],
        "device": device_of(params),
        "processes": ranks.world(),
        "executor": os.environ.get("QTHINK_EXECUTOR", "here"),
        "resumed": resumed,
        "params": params.model_dump(mode="json", exclude_unset=True),
    }
    files.append_line(root / "logs" / "runs.jsonl", json.dumps(entry).encode())


def device_of(params: parameters.Section) -> str:
    """Where a stage computed: `cpu`, the name of its GPU, or `cuda` where this process never loaded torch."""
    if getattr(params, "device", "cpu") == "cpu":
        return "cpu"
    torch = sys.modules.get("torch")  # a stage that needs it has loaded it by now, and the others must not
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cuda"
