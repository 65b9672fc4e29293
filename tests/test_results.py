"""The committed results, which a real run of this code made (dvc.lock says so), show what the embedded scale promises."""

import json

import pytest
from imports import ROOT

from qthink_core import settings

TREE, _ = settings.load(ROOT)


@pytest.fixture(scope="module")
def accuracy() -> dict[str, dict[str, float]]:
    return json.loads((ROOT / "results" / "accuracy.json").read_bytes())


def test_the_committed_results_are_of_the_tiny_scale() -> None:
    assert TREE["scale"] == "tiny"
    assert "scale tiny" in (ROOT / "results" / "table.md").read_text()


@pytest.mark.parametrize("task", TREE["tasks"])
def test_the_tiny_base_needs_its_thinking(task: str, accuracy: dict[str, dict[str, float]]) -> None:
    """The gap that latent steps are meant to close: at least 80 % with thinking, at most half of that without."""
    thinking, direct = accuracy[task]["base"], accuracy[task]["base_direct"]
    assert thinking >= 0.8
    assert direct <= thinking / 2


def test_every_system_has_a_cell_on_every_benchmark(accuracy: dict[str, dict[str, float]]) -> None:
    systems = {*TREE["systems"]["baseline"], *TREE["systems"]["trained"]}
    assert {task: set(row) for task, row in accuracy.items()} == dict.fromkeys(TREE["tasks"], systems)
