"""Calibration: what earlier runs in this folder say about the next: seconds, parameters, counts. No torch."""

import functools
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qthink_core import artifacts
from qthink_core.errors import DataError

LOG = Path("logs") / "runs.jsonl"
LOCK = Path("dvc.lock")


class Logged(NamedTuple):
    """The last run of a box: its seconds, and the tree of the parameters that DVC recorded for it."""

    seconds: float
    params: dict[str, Any]


def logged(root: Path, scale: str) -> dict[str, Logged]:
    """The last run of each box at a scale, as far as this folder's log and dvc.lock both know it.

    The log has no parameters: those are taken from dvc.lock, which DVC rewrites after each stage. Raises DataError where
    either cannot be read.
    """
    seconds = dict(durations(root / LOG))
    params = locked(root / LOCK, scale) if seconds else {}
    return {box: Logged(seconds[box], tree) for box, tree in params.items() if box in seconds}


def durations(log: Path) -> Iterator[tuple[str, float]]:
    """(box, seconds) of every run in a log, the oldest first; none where there is no log."""
    for number, line in enumerate(log.read_bytes().splitlines() if log.is_file() else [], 1):
        try:
            run = json.loads(line)
            seconds = float(run["seconds"])
            if not 0 <= seconds < math.inf:
                raise ValueError(f"{seconds} seconds")
            yield str(run["stage"]), seconds
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{log} line {number} is no record of a run: delete that line") from None


def locked(lock: Path, scale: str) -> dict[str, dict[str, Any]]:
    """The tree of the parameters of every box that DVC last ran at a scale."""
    if not lock.is_file():
        return {}
    try:
        # the parser in C, as DVC does: the one of read_yaml takes seconds for 9,000 lines
        entries = YAML(typ="safe").load(lock)["stages"]
        files = {str(box): entry.get("params", {}) for box, entry in entries.items()}
        return {
            box: functools.reduce(with_params, params.values(), {})
            for box, params in files.items()
            if f"params/{scale}.yaml" in params
        }
    except (YAMLError, KeyError, TypeError, AttributeError):
        raise DataError(f"{lock} is being written or damaged: try again, or restore it with `git checkout {lock}`") from None


def with_params(tree: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with other values at dotted keys; a mapping there is merged key by key."""
    made = dict(tree)
    for key, value in params.items():
        first, _, rest = key.partition(".")
        here, inner = made.get(first), {rest: value} if rest else value
        below = here if isinstance(here, Mapping) else {}
        made[first] = with_params(below, inner) if isinstance(inner, Mapping) else inner
    return made


def factor(ratios: Mapping[str, float], box: str) -> float:
    """What a box's estimate is multiplied by: its own measured/estimated seconds, else the median of its stage's boxes.

    A run that was resumed logs its last part alone, so a ratio below half of the median counts as the median. 1 where no box
    of the stage was logged.
    """
    stage = box.partition("@")[0]
    known = [ratio for other, ratio in ratios.items() if other.partition("@")[0] == stage]
    middle = statistics.median(known) if known else 1.0
    own = ratios.get(box, middle)
    return own if own >= middle / 2 else middle


def counts(folder: Path) -> dict[str, int]:
    """What the manifest of an artifact counts; {} where there is none that is whole."""
    return _manifest(folder).get("counts", {})


def about(folder: Path) -> dict[str, Any]:
    """The facts in the manifest of an artifact; {} where there is none that is whole."""
    return _manifest(folder).get("about", {})


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return artifacts.unsealed((folder / artifacts.MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the stage that reads it says what is wrong with it
        return {}
