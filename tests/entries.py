"""The section `data` of params.yaml, and problems gathered by it."""

import json
from pathlib import Path
from typing import Any

from imports import ROOT
from worlds import WORLD

from qthink_core.benchmarks import problems
from qthink_core.benchmarks.data_entries import Entry
from qthink_core.benchmarks.problems import Gathered
from qthink_core.pipeline import parameters

RAW: dict[str, Any] = parameters.read_yaml(ROOT / "params.yaml")["data"]
ENTRIES = {name: Entry.model_validate(one) for name, one in RAW.items()}
ALL = {"n_train": "all", "n_validation": 0, "n_test": "all", "max_left_out": 100, "seed": 0, "world": WORLD}


def gather(task: str, source: Any, folder: Path | None = None, entry: Entry | None = None, **more: Any) -> Gathered:
    """The problems of a task as `prepare` gathers them, all of a source unless `more` says otherwise."""
    return problems.gather(task, entry or ENTRIES[task], source, str(folder), **ALL | more)


ROWS = [{"question": f"What is {i} and {i}?", "answer": f"{i} + {i}\n#### {2 * i}"} for i in range(6)]
TEST = [{"question": f"What is {i} times 7?", "answer": str(7 * i)} for i in range(3)]
MINE = Entry.model_validate({"benchmark": "gsm8k", "train": "train.jsonl", "test": "test.jsonl"})


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def mine(folder: Path, train: bytes, entry: Entry = MINE, **more: Any) -> Any:
    """The problems of a task of the user's own with this training file."""
    (folder / "train.jsonl").write_bytes(train)
    (folder / "test.jsonl").write_bytes(lines(TEST))
    return gather("mine", "folder", folder, entry, **more)
