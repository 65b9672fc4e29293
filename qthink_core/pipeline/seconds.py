"""The seconds that answers took, measured for each batch and stored in logs/, because outputs must not contain times.

Each record is a separate file, so that workers on several machines can write at the same time. A batch that is made again
replaces its record. A box that starts from the beginning first deletes its old records.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from qthink_core.artifacts.files import read_object, read_small, write_file
from qthink_core.artifacts.store import MAIN, set_of
from qthink_core.errors import DataError

LOG = Path("logs/seconds")
REPORT = Path("logs/seconds.md")


class Measured(NamedTuple):
    """A system's answers on a benchmark: their number, the summed seconds of their batches, and the device."""

    answers: int
    seconds: float
    device: str

    @property
    def each(self) -> float:
        """The seconds per answer, where the answers of a batch share its time."""
        return self.seconds / self.answers


def folder(box: str, resumed: bool) -> Path:
    """The folder for the records of a box; records of an earlier run are deleted unless that run is resumed."""
    place = LOG / box
    if not resumed:
        shutil.rmtree(place, ignore_errors=True)
    return place


def record(place: Path, unit: str, answers: int, seconds: float, device: str) -> None:
    """Writes the record of one batch."""
    place.mkdir(parents=True, exist_ok=True)
    write_file(place / f"{unit}.json", json.dumps({"answers": answers, "seconds": seconds, "device": device}).encode())


def read(log: Path) -> dict[tuple[str, str], Measured]:
    """The measurements by task and system, of the answers that the table is about: those to further test sets do not count.

    Folders whose names are not those of boxes are ignored. Raises DataError naming a record that is damaged.
    """
    found: dict[tuple[str, str], Measured] = {}
    for place in sorted(log.glob("*/")):
        batches = [file for file in sorted(place.glob("*.json")) if set_of(file.stem) == MAIN]
        rows = [_recorded(file) for file in batches]
        task, _, system = place.name.partition("@")[2].partition("-")
        if rows and system:
            devices = ", ".join(dict.fromkeys(row.device for row in rows))
            found[task, system] = Measured(sum(row.answers for row in rows), sum(row.seconds for row in rows), devices)
    return found


def _recorded(file: Path) -> Measured:
    try:
        row = read_object(read_small(file))
        return Measured(int(row["answers"]), float(row["seconds"]), str(row["device"]))
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file} is not the record of a batch: delete that file") from None
