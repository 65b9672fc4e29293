"""Calibration: the seconds, parameters and counts of earlier runs in this folder, to predict the next one. No torch."""

import collections
import math
import re
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts import store
from qthink_core.artifacts.files import read_object, read_small, unsealed
from qthink_core.errors import DataError
from qthink_core.pipeline.executor import HERE

LOG = Path("logs") / "runs.jsonl"
CPU = "cpu"


class Logged(NamedTuple):
    """A run of a box: its seconds, and the parameters that it ran with, as a tree."""

    seconds: float
    params: dict[str, Any]


class Log(NamedTuple):
    """The last usable run of each box, and the numbers of runs that are not usable, by reason."""

    runs: dict[str, Logged]
    left_out: dict[str, int]


def read_log(root: Path, scale: str, device: str) -> Log:
    """The last complete run of each box in this folder, at a scale, on a device and in one process.

    Raises DataError where the log cannot be read.
    """
    runs: dict[str, Logged] = {}
    left_out: collections.Counter[str] = collections.Counter()
    for run in entries(root / LOG):
        reason = unfit(run, scale, device)
        if reason:
            left_out[reason] += 1
        else:
            runs[run["stage"]] = Logged(took(run), run["params"])
    return Log(runs, dict(left_out))


def took(run: Mapping[str, Any]) -> float:
    """Seconds that a box takes when it runs alone.

    This is processor time where the box computed on one thread, because boxes that ran at the same time do not affect it.
    Otherwise it is wall-clock time, which also covers the download of a base model.
    """
    base = run["params"].get("base", {})
    alone = run["device"] == CPU and run["params"].get("cpu_threads") == 1 and (not base or "pretrain" in base)
    return run["cpu_seconds"] if alone else run["seconds"]


def unfit(run: Mapping[str, Any], scale: str, device: str) -> str:
    """Why a run does not predict the next one at a scale and on a device; empty where it does."""
    if run["scale"] != scale:
        return f"at scale {run['scale']}"
    if "device" in run["params"] and not same_device(run["device"], device):
        return f"on {run['device']}"
    if run["processes"] != 1 or run["executor"] != HERE:
        return "by several processes"
    return "resumed" if run["resumed"] else ""


def same_device(name: str, device: str) -> bool:
    """Whether the device of a run (`NVIDIA H100 80GB HBM3`, `cpu`) is the one that a plan names (`h100`, `cpu`)."""
    return name == CPU if device == CPU else device in re.findall(r"[a-z0-9]+", name.casefold())


def entries(log: Path) -> Iterator[dict[str, Any]]:
    """Every run in a log, the oldest first; nothing where there is no log. Raises DataError naming the line at fault."""
    content = log.read_bytes() if log.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]  # a power cut may leave a part of a line, which the next run removes
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            run = read_object(line)
            run |= {name: float(run[name]) for name in ("seconds", "cpu_seconds")}
            run |= {name: str(run[name]) for name in ("stage", "scale", "device", "executor")}
            run |= {"params": dict(run["params"]), "resumed": bool(run["resumed"]), "processes": int(run["processes"])}
            if not all(0 <= run[name] < math.inf for name in ("seconds", "cpu_seconds")):
                raise ValueError("has a time below 0 or without end")
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{log} line {number} is not the record of a run: delete that line") from None
        yield run


def with_params(tree: Mapping[str, Any], params: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tree with other values at dotted keys.

    A mapping there is merged key by key, but a row of `systems` replaces the row as a whole: what it lacks is shared. Keys
    that are not text stay, for the check of the parameters.
    """
    made = dict(tree)
    for key, value in params.items():
        first, _, rest = key.partition(".") if isinstance(key, str) else (key, "", "")
        here, inner, path = made.get(first), {rest: value} if rest else value, (*above, first)
        row = not rest and path[0] == "systems" and len(path) == 3
        below = here if isinstance(here, Mapping) else {}
        made[first] = with_params(below, inner, path) if isinstance(inner, Mapping) and not row else inner
    return made


def factor(ratios: Mapping[str, float], box: str) -> float:
    """What a box's estimate is multiplied by: its own measured/estimated seconds, else the median of its stage's boxes.

    1 where no box of the stage was logged.
    """
    stage = box.partition("@")[0]
    known = [ratio for other, ratio in ratios.items() if other.partition("@")[0] == stage]
    return ratios.get(box, statistics.median(known) if known else 1.0)


def counts(folder: Path) -> dict[str, int]:
    """The counts in the manifest of an artifact; {} where the manifest is missing or damaged."""
    return _manifest(folder).get("counts", {})


def about(folder: Path) -> dict[str, Any]:
    """The facts in the manifest of an artifact; {} where the manifest is missing or damaged."""
    return _manifest(folder).get("about", {})


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return unsealed(read_small(folder / store.MANIFEST))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the stage that reads the artifact reports the fault
        return {}
