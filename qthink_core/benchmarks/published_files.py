"""The published files of the benchmarks: their places in a folder or on the hub, and their digests."""

from pathlib import Path
from typing import NamedTuple

from qthink_core.artifacts.files import sha256
from qthink_core.benchmarks.graders import grader
from qthink_core.errors import DataError


class HubFile(NamedTuple):
    """A file of a dataset repository at a commit, with its sha256."""

    repo: str
    revision: str
    file: str
    sha256: str


_GSM8K = ("openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866")
_MATH500 = ("HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be")
HUB_FILES = {
    ("gsm8k", "train"): HubFile(
        *_GSM8K,
        "main/train-00000-of-00001.parquet",
        "ea82612ea9582142387730c793eb67d3b12849002bc0b7fa6f8efafa7351419d",
    ),
    ("gsm8k", "test"): HubFile(
        *_GSM8K,
        "main/test-00000-of-00001.parquet",
        "ee7b8da9e381df27b9e3f7758a159ab2bdaa4dbaa910546cbbc47e0cb44e4f59",
    ),
    ("math500", "test"): HubFile(
        *_MATH500, "test.jsonl", "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132"
    ),
}

# Where the files of a data folder are published.
PUBLISHED_IN = {
    "gsm8k": "grade_school_math/data of github.com/openai/grade-school-math",
    "math500": "prm800k/math_splits of github.com/openai/prm800k",
    "tooluse": "datasets/tooluse of github.com/lasgroup/SDPO",
}


def hint(benchmark: str, file: str | None) -> str:
    """Where a file of the benchmark is published, to put into a message; "" for other files."""
    names = [str(_published_name(benchmark, split)) for split in ("train", "test")] if benchmark in PUBLISHED_IN else []
    return f", which is published in {PUBLISHED_IN[benchmark]}" if file in names else ""


def in_folder(task: str, split: str, folder: Path) -> tuple[Path, str | None]:
    """A split's file in a data folder, and its sha256 where one is recorded; raises DataError where the file is missing."""
    path, known = folder / _published_name(task, split), grader(task).FILES.get(split)
    if not path.is_file():
        raise DataError(f"{path} is missing: put the file there, it is published in {PUBLISHED_IN[task]}")
    return path, known.sha256 if known else None


def on_hub(task: str, split: str) -> HubFile:
    """The file of a split on the hub; raises DataError where the hub does not have it in its published form."""
    if (task, split) not in HUB_FILES:
        raise DataError(f"{task} {split} is not on the hub in its published form: take the file from {PUBLISHED_IN[task]}")
    return HUB_FILES[task, split]


def check_digest(path: Path, expected: str | None) -> None:
    """Raises DataError where a sha256 is expected and the file has a different one."""
    if expected is not None and (found := sha256(path)) != expected:
        raise DataError(f"{path} has sha256 {found}, the published file {expected}: fetch it again")


def _published_name(task: str, split: str) -> Path:
    """A split's file in the data folder: as the benchmark's grader records it, else next to the test file."""
    files = grader(task).FILES
    if split in files:
        return Path(files[split].path)
    test = Path(files["test"].path)
    return test.with_name(split + test.suffix)
