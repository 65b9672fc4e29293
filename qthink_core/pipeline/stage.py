"""What every stage does around its one page: checked parameters, one run at a time, verified inputs, words, exit codes."""

import contextlib
import hashlib
import importlib
import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from qthink_core.artifacts import store
from qthink_core.errors import DataError, ParamError, QThinkError, StoppedError, UnavailableError
from qthink_core.pipeline import code, layout, parameters, process, ranks
from qthink_core.pipeline.graph import Box, declared, remove_orphans, stages

Item = TypeVar("Item")


def stage_sections() -> dict[str, type[parameters.Section]]:
    """The parameters class of every stage, found in the `stages` package; their modules import nothing heavy."""
    import stages  # the one look upward: to check all parameters at once, before anything expensive starts

    names = sorted(module.name for module in pkgutil.iter_modules(stages.__path__))
    modules = {name: importlib.import_module(f"stages.{name}") for name in names}
    return {name: module.Params for name, module in modules.items()}


def read_params(root: Path, stage: str) -> Any:
    """The stage's own parameters, after those of all stages were checked.

    Raises ParamError with every fault of the params files, one a line.
    """
    tree, origin = parameters.load(root)
    sections = stage_sections()
    # by name, like the parameter classes: it only refuses, so that an edit of a check is no other code of a stage
    found = importlib.import_module("qthink_core.pipeline.checks").faults(tree, origin, sections)
    if found:
        raise ParamError("\n".join(found))
    return sections[stage].model_validate(parameters.prune(tree, parameters.patterns(sections[stage])))


def preflight(at: Box | None, scale: str | None = None) -> list[str]:
    """What this machine has of what a scale asks for, a line each, before a box starts or whenever somebody asks.

    Raises UnavailableError with everything that is missing, a line each. It only refuses, so its module is found by name,
    like those of the parameter classes, and is not a dep of the stages that ask.
    """
    return importlib.import_module("qthink_core.planning.preflight").check(Path(), at, scale)


@contextlib.contextmanager
def device_memory(root: Path, stage: str) -> Iterator[None]:
    """Raises UnavailableError, naming the parameter to lower, where the device's memory is full, here or in a worker."""
    try:
        yield
    except Exception as error:
        torch = sys.modules.get("torch")
        cause = getattr(error, "cause", None) or error  # Ray's worker wraps what its unit raised
        if torch is None or not isinstance(cause, torch.OutOfMemoryError):
            raise
        tree, _ = parameters.load(root)
        key = importlib.import_module("qthink_core.planning.preflight").to_lower(stage, tree)
        raise UnavailableError(
            f"the device's memory is full ({str(cause).partition('. ')[0]}): end what else uses it and run the same command "
            f"again, or lower {key} in params/{tree['scale']}.yaml, with which this box begins anew"
        ) from None


def told(counts: Mapping[str, int], *but: str) -> str:
    """The counts that are not 0, each behind a comma, but for those that the sentence before has said."""
    return "".join(f", {name} {count}" for name, count in counts.items() if count and name not in but)


def identity(root: Path, at: Box) -> tuple[str, str, dict[str, str]]:
    """(fingerprint of parameters, inputs and code; digest of parameters and inputs; digest of each input).

    Parameters are those that dvc.yaml declares for this instance, so that another system's settings change nothing here. The
    code is read anew from the sources; of the stage that writes it down for the others, it is that of all stages.
    """
    tree, _ = parameters.load(root)
    entry = declared(root, at, tree)
    of_code = (str(layout.code(at.stage)), *code.PACKAGES)
    inputs = {dep: store.digest(root / dep) for dep in entry["deps"] if dep not in of_code}
    keys = sorted({name for names in entry["params"].values() for name in names})
    values = {"instance": str(at), "params": {key: parameters.value(tree, key) for key in keys}, "inputs": inputs}
    made_from = hashlib.sha256(store.canonical_json(values)).hexdigest()
    said = {one: code.of_stage(root, one) for one in (stages(root) if at.stage == code.STAGE else [at.stage])}
    fingerprint = hashlib.sha256(store.canonical_json(values | {"code": said})).hexdigest()
    return fingerprint, made_from, inputs


def check_code(root: Path, at: Box) -> None:
    """Raises DataError when DVC compares other code than that which is there: a stage was run without the one before it."""
    if at.stage != code.STAGE:
        code.check(root / layout.code(at.stage), code.of_stage(root, at.stage))


def check_lineage(root: Path, inputs: Iterable[str]) -> None:
    """Raises DataError when an input is damaged, is the artifact of another place, or was made from another version of
    an artifact that this stage reads as well.
    """
    folders = {
        str(file.parent.relative_to(root)): store.read_manifest(file.parent)
        for path in inputs
        for file in sorted((root / path).rglob(store.MANIFEST))
    }
    for name, manifest in folders.items():
        if manifest.place != name:
            raise DataError(f"{name} holds the artifact of {manifest.place}: run `dvc checkout --force {name}`")
        for source, recorded in manifest.inputs.items():
            if source in folders and recorded != store.digest(root / source):
                raise DataError(f"{name} was made from another {source} than the one here: run `dvc repro`")


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


def main(stage: str, run: Callable[..., str], launchable: bool = False) -> None:
    """Runs one instance of a stage and ends the process with its exit code.

    `run(params, at, work)` returns the sentence that says what was made. Parameters, inputs and code are fingerprinted
    before and after: an edit in the middle would put wrong hashes into dvc.lock. A `launchable` stage can use the ranks of
    a launcher: rank 0 does all this, and the others have their part in `run` alone.
    """
    root, started = Path(), time.monotonic()
    name = os.environ.get("DVC_STAGE", "")
    try:
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
        process.stop_on_signals()
        ranks.join()
        place = root / ".work" / str(at)
        if ranks.rank() > 0:
            ranks.barrier()  # until rank 0 has opened the work folder
            joined = store.JoinedWork(place, identity(root, at)[0])
            with store.storage(joined.folder), device_memory(root, stage):
                run(params, at, joined)
            ranks.leave()
            return
        with process.lock(place.with_suffix(".lock"), str(at)):
            for folder in remove_orphans(root, at):
                print(f"{at}: {folder} is made by no box of the graph any more: removed (DVC's cache keeps it)", flush=True)
            fingerprint, made_from, inputs = identity(root, at)
            check_code(root, at)
            check_lineage(root, inputs)
            store.sweep(root / ".work", inputs)
            work = store.Work(place, fingerprint, made_from, inputs)
            ranks.barrier()
            with store.storage(work.folder), device_memory(root, stage):
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


def log_run(root: Path, at: Box, seconds: float, params: parameters.Section, resumed: bool) -> None:
    """Adds the run to logs/runs.jsonl: clocks and durations live there and never in an output.

    With what `calibration` must know of it: scale, device, processes, executor, the stage's parameters, and whether units of
    an earlier run were found made. `cpu_seconds` are those of the processor, in this process from its start and in the
    children that it waited for: unlike `seconds` they hardly grow where other boxes run beside this one.
    """
    (root / "logs").mkdir(exist_ok=True)
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
    with (root / "logs" / "runs.jsonl").open("a") as file:
        file.write(json.dumps(entry) + "\n")


def device_of(params: parameters.Section) -> str:
    """Where a stage computed: `cpu`, the name of its GPU, or `cuda` where this process never asked for that name."""
    if getattr(params, "device", "cpu") == "cpu":
        return "cpu"
    torch = sys.modules.get("torch")  # a stage that loaded it has done so by now, and no other should
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cuda"
