"""Files of JSON lines, and questions of GSM8K to put into them."""

import json
from pathlib import Path
from typing import Any


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions(n: int) -> list[dict[str, Any]]:
    """Generated questions of GSM8K, as the published file has them, of several lengths."""
    from worlds import WORLD

    from qthink_core.benchmarks.generated import worked

    rows: list[dict[str, Any]] = []
    for changes in (2, 4, 6):
        world = WORLD.model_copy(update={"changes": changes})
        rows += [dict(item.row) for item in worked("gsm8k", "test", n // 3, 5, world)]
    return rows
