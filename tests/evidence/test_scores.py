"""Scores: verdicts as arrays in the order of seeds and questions, and the cell of the table that follows from them."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from small_run import graded, rows

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.grades import Graded, graded_sets
from qthink_core.errors import DataError
from qthink_core.evidence import scores

LETTERS = {
    ("base", None, TRAINED): "rwut",
    ("sft", 10, TRAINED): "rrrw",
    ("sft", 2, TRAINED): "rwww",
    ("uniform", 0, TRAINED): "rrww",
    ("uniform", 0, "K=0"): "wwow",
}


def read(folder: Path, made: list[Graded], *systems: str) -> scores.Task:
    return scores.read(graded(folder, "gsm8k", made), systems)


@pytest.fixture
def task(tmp_path: Path) -> scores.Task:
    mixed = random.Random(0).sample(rows("gsm8k", LETTERS), 20)
    return read(tmp_path, mixed, "uniform", "base", "sft")


def test_rows_are_seeds_in_rising_order_and_columns_questions_in_the_order_of_their_ids(task: scores.Task) -> None:
    assert list(task.scores) == ["uniform", "base", "sft"]
    assert task.ids == [f"gsm8k-test-0000{number}" for number in range(4)]
    assert task.seeds == {"uniform": [0], "base": [None], "sft": [2, 10]}
    assert task.scores["sft"][TRAINED].right.tolist() == [[True, False, False, False], [True, True, True, False]]
    assert task.scores["base"][TRAINED].verdicts == [["right", "wrong", "unparsable", "timeout"]]
    assert task.scores["base"][TRAINED].at_limit.tolist() == [[False, False, True, False]]
    assert task.scores["uniform"]["K=0"].tokens.tolist() == [[3, 4, 5, 6]]
    assert (task.first_seed("sft"), task.first_seed("uniform")) == (2, 0)


def test_a_verdict_other_than_right_counts_as_wrong_and_stays_in_the_denominator(task: scores.Task) -> None:
    # 1 of 4: sqrt(1/4 * 3/4 / 4) = sqrt(3) / 8; (3 + 4 + 5 + 6) / 4 = 4.5; the unparsable one of 4 ran into the limit
    found = scores.cell(task.scores["base"][TRAINED])
    assert (found.accuracy, found.n, found.mean_tokens, found.hit_limit) == (0.25, 4, 4.5, 0.25)
    assert found.standard_error == pytest.approx(math.sqrt(3) / 8, rel=1e-15)
    # Wilson at 1 of 4, z = 1.959964: (p + z^2 / 8 -+ z sqrt(3/64 + z^2 / 64)) / (1 + z^2 / 4)
    z = 1.959964
    half = z * math.sqrt(3 / 64 + z**2 / 64) / (1 + z**2 / 4)
    middle = (0.25 + z**2 / 8) / (1 + z**2 / 4)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert scores.cell(task.scores["uniform"]["K=0"]).accuracy == 0


def test_a_cell_of_several_seeds_is_their_mean_with_the_spread_over_seeds(task: scores.Task) -> None:
    # 1/4 and 3/4 right: mean 1/2, standard deviation sqrt(2 (1/4)^2 / 1)
    found = scores.cell(task.scores["sft"][TRAINED])
    assert (found.accuracy, found.seeds, found.n) == (0.5, 2, 4)
    assert found.spread == pytest.approx(math.sqrt(2) / 4, rel=1e-15)
    assert scores.cell(task.scores["uniform"][TRAINED]).spread is None


def test_further_scores_come_along_by_seed_and_question(tmp_path: Path) -> None:
    made = [one._replace(details=json.dumps({"exact": one.right})) for one in rows("tooluse", LETTERS)]
    found = scores.read(graded(tmp_path, "tooluse", made), ["sft"]).scores["sft"][TRAINED]
    assert [[one["exact"] for one in held] for held in found.details] == found.right.tolist()
    assert np.array_equal(found.right, [[True, False, False, False], [True, True, True, False]])


def test_a_system_without_grades_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    folder = graded(tmp_path, "gsm8k", rows("gsm8k", LETTERS))
    with pytest.raises(DataError, match=r"gsm8k has no grades of reward_weighted, final_step: run `dvc repro grade@gsm8k`$"):
        scores.read(folder, ["base", "reward_weighted", "final_step"])


@pytest.mark.parametrize("extra", [{("uniform", 1, "K=0"): "wwww"}, {("uniform", 0, "K=0"): "www"}])
def test_answers_under_one_condition_to_other_questions_or_of_other_seeds_are_refused(
    tmp_path: Path, extra: dict[tuple[str, int | None, str], str]
) -> None:
    said = r"gsm8k grades uniform under K=0 on other questions or seeds than the rest: run `dvc repro grade@gsm8k`$"
    with pytest.raises(DataError, match=said):
        read(tmp_path, rows("gsm8k", LETTERS | extra), "base", "uniform")


def test_a_system_that_was_not_graded_as_trained_is_refused(tmp_path: Path) -> None:
    made = [row for row in rows("gsm8k", LETTERS) if (row.system, row.condition) != ("uniform", TRAINED)]
    with pytest.raises(DataError, match=r"gsm8k has no grades of uniform: run `dvc repro grade@gsm8k`$"):
        read(tmp_path, made, "base", "uniform")


def test_the_grades_of_a_test_set_are_read_apart(tmp_path: Path) -> None:
    others = rows("gsm8k", {("base", None, TRAINED): "rrw", ("sft", 0, TRAINED): "www"})
    folder = graded(tmp_path, "gsm8k", rows("gsm8k", LETTERS), svamp=others, bags=others[:3])
    assert graded_sets(folder) == ["bags", "svamp"]
    found = scores.read(folder, ["sft", "base"], "svamp")
    assert found.scores["base"][TRAINED].right.tolist() == [[True, True, False]]
    assert scores.read(folder, ["base"]).scores["base"][TRAINED].verdicts == [["right", "wrong", "unparsable", "timeout"]]
    with pytest.raises(DataError, match="has no grades of sft: run `dvc repro grade@gsm8k`"):
        scores.read(folder, ["sft", "base"], "bags")
