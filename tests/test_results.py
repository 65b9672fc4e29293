"""The committed results, which a real run of this code made (dvc.lock says so): what the embedded scale promises, and that
table, metrics and verdicts on latents follow from the verdicts on single questions that lie beside them."""

import csv
import json

import numpy as np
import pytest
from imports import ROOT

from qthink_core import report, settings, verdicts
from qthink_core.completions import TRAINED

TREE, _ = settings.load(ROOT)
RESULTS = ROOT / "results"
SYSTEMS = TREE["systems"]
every_task = pytest.mark.parametrize("task", TREE["tasks"])


@pytest.fixture(scope="module")
def accuracy() -> dict[str, dict[str, float]]:
    return json.loads((RESULTS / "accuracy.json").read_bytes())


@pytest.fixture(scope="module")
def table() -> list[str]:
    return (RESULTS / "table.md").read_text().splitlines()


@pytest.fixture(scope="module")
def right() -> dict[str, dict[tuple[str, str], np.ndarray]]:
    """Right or not by task, system and condition, a row per seed, out of the verdicts files alone."""
    found: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for task in TREE["tasks"]:
        with (RESULTS / "verdicts" / f"{task}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        groups: dict[tuple[str, str], list[list[bool]]] = {}
        for column in list(rows[0])[1:]:
            system, _, condition = [*column.split(":"), "", ""][:3]
            groups.setdefault((system, condition or TRAINED), []).append([row[column] == "r" for row in rows])
        found[task] = {key: np.array(value) for key, value in groups.items()}
    return found


def test_the_committed_results_are_of_the_tiny_scale(table: list[str]) -> None:
    assert TREE["scale"] == "tiny"
    assert any(line.startswith("Made with scale tiny, ") for line in table)


@every_task
def test_the_tiny_base_needs_its_thinking(task: str, accuracy: dict[str, dict[str, float]]) -> None:
    """The gap that latent steps are meant to close: at least 80 % with thinking, at most half of that without."""
    thinking, direct = accuracy[task]["base"], accuracy[task]["base_direct"]
    assert thinking >= 0.8
    assert direct <= thinking / 2


def test_every_system_has_a_cell_on_every_benchmark(accuracy: dict[str, dict[str, float]]) -> None:
    systems = {*SYSTEMS["baseline"], *SYSTEMS["trained"]}
    assert {task: set(row) for task, row in accuracy.items()} == dict.fromkeys(TREE["tasks"], systems)


@every_task
def test_every_seed_and_condition_has_its_verdicts(task: str, right: dict[str, dict[tuple[str, str], np.ndarray]]) -> None:
    steps = range(1, TREE["probe"]["sweep"] * TREE["K"] + 1)
    probed = {*TREE["probe"]["conditions"], *(f"K={k}" for k in steps)}
    expected = {(system, TRAINED): 1 for system in SYSTEMS["baseline"]}
    expected |= {(system, TRAINED): len(TREE["seeds"]) for system in SYSTEMS["trained"]}
    expected |= {(system, condition): len(TREE["seeds"]) for system in SYSTEMS["distilled"] for condition in probed}
    assert {key: len(value) for key, value in right[task].items()} == expected


@every_task
def test_accuracies_are_shares_of_right_verdicts(
    task: str, accuracy: dict[str, dict[str, float]], right: dict[str, dict[tuple[str, str], np.ndarray]]
) -> None:
    assert accuracy[task] == {
        system: round(float(value.mean()), 6) for (system, condition), value in right[task].items() if condition == TRAINED
    }


@every_task
@pytest.mark.parametrize("system", SYSTEMS["distilled"])
def test_the_verdict_on_latents_follows_from_the_verdicts_on_questions(
    task: str, system: str, right: dict[str, dict[tuple[str, str], np.ndarray]], table: list[str]
) -> None:
    found = right[task]
    conditions = {condition: value for (name, condition), value in found.items() if name == system}
    judged = verdicts.judge(conditions, TREE["K"], found[TREE["report"]["control"], TRAINED])
    assert f"- {report.SYSTEM_NAMES[system]}: **{judged.word}**. {judged.sentence}" in table
