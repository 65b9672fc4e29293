"""A checkpoint that the tests of a process share: each load takes a quarter of a second."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import exported
from lively import lively_qwen3

from qthink_core import LatentReasoner


@pytest.fixture(scope="session")
def shared_folder(tokenizer: Any, random_head: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that no test may change. Float64, so that the rounding of a batch moves no token."""
    folder = tmp_path_factory.mktemp("shared") / "model"
    return exported(folder, lively_qwen3(tokenizer, "float64"), tokenizer, random_head(dtype="float64"))


@pytest.fixture(scope="session")
def _loaded(shared_folder: Path) -> LatentReasoner:
    return LatentReasoner.from_pretrained(shared_folder)


@pytest.fixture
def reasoner(_loaded: LatentReasoner, qwen3: Any) -> LatentReasoner:
    """The reasoner of `shared_folder`, on one thread and with deterministic operations."""
    return _loaded


@pytest.fixture
def folder(shared_folder: Path, tmp_path: Path) -> Path:
    """A copy of `shared_folder` that a test may change."""
    return Path(shutil.copytree(shared_folder, tmp_path / "model"))
