"""Work folders and artifacts for tests of what lies between stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import Work


def work(folder: Path) -> Work:
    """A work folder under a fixed fingerprint: called again, it finds what was committed."""
    return Work(folder / "work", "0" * 64, "settings", {})


def published(
    folder: Path, artifact: str, units: Mapping[str, Mapping[str, Writer | bytes]], about: Mapping[str, Any] | None = None
) -> Path:
    """An artifact folder made of these units."""
    place = work(folder)
    for name, files in units.items():
        place.commit(name, files)
    place.publish(folder / artifact, artifact, list(units), about)
    return folder / artifact
