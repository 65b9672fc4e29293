"""The committed results, which a real run of this code made (dvc.lock says so): what the embedded scale promises, and that
table, metrics and verdicts on latents follow from the verdicts on single questions that lie beside them."""

import csv
import json

import numpy as np
import pytest
from imports import ROOT

from qthink_core.artifacts import grades
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.evidence import verdicts
from qthink_core.evidence.statistics import compare
from qthink_core.pipeline import layout, parameters
from qthink_core.report.params import SYSTEM_NAMES

TREE, _ = parameters.load(ROOT)
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
    """The gap that latent steps are meant to close: at least 90 % with thinking, at most a third of that without."""
    thinking, direct = accuracy[task]["base"], accuracy[task]["base_direct"]
    assert thinking >= 0.9
    assert direct <= thinking / 3


@every_task
def test_the_method_works_and_its_controls_are_distinguishably_worse(
    task: str, accuracy: dict[str, dict[str, float]], right: dict[str, dict[tuple[str, str], np.ndarray]]
) -> None:
    """At least 85 % with uniform teachers; less without latents, without distillation, or with final-step supervision.

    Exact paired tests with Bonferroni's correction over these nine comparisons.
    """
    assert accuracy[task]["uniform"] >= 0.85
    for control in ("answer_only", "undistilled", "final_step"):
        found = compare(right[task]["uniform", TRAINED], right[task][control, TRAINED])
        assert found.difference > 0
        assert found.p_method * 9 < 0.05, control


@every_task
def test_rollouts_are_a_mixture(task: str) -> None:
    """At least 15 % of the training problems have right and wrong rollouts, so that the two kinds of teachers differ."""
    folder = ROOT / layout.rewards(task)
    if not folder.exists():
        pytest.skip("the demo was not made here")
    by_problem = grades.read_rewards(folder)
    mixed = [0 < sum(rewards.values()) < len(rewards) for rewards in by_problem.values()]
    assert np.mean(mixed) >= 0.15


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
    assert f"- {SYSTEM_NAMES[system]}: **{judged.word}**. {judged.sentence}" in table
