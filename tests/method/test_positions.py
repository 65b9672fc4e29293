from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT

from qthink_core.artifacts.pairs import Pair, Rule
from qthink_core.method.positions import RULES, evenly
from qthink_core.method.think import Block
from qthink_core.pipeline import code

LENGTHS = st.integers(1, 5000)
STEPS = st.integers(1, 64)


@pytest.mark.parametrize(
    ("length", "K", "expected"),
    [
        (6, 6, [0, 1, 2, 3, 4, 5]),
        # k * 10 / 6 = 1.67, 3.33, 5.00, 6.67, 8.33, 10.00
        (10, 6, [1, 2, 4, 6, 7, 9]),
        # 1.5, 3.0, 4.5, 6.0, 7.5, 9.0: halves go up
        (9, 6, [1, 2, 4, 5, 7, 8]),
        (1000, 6, [166, 332, 499, 666, 832, 999]),
        (7, 1, [6]),
        # fewer tokens than steps: 0.5, 1.0, 1.5, 2.0, 2.5, 3.0
        (3, 6, [0, 0, 1, 1, 2, 2]),
        (1, 6, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_step_k_reads_token_round_k_L_over_K(length: int, K: int, expected: list[int]) -> None:
    assert evenly(length, K) == expected


@given(length=LENGTHS, K=STEPS)
def test_positions_rise_within_the_block_and_end_at_its_last_token(length: int, K: int) -> None:
    found = evenly(length, K)
    assert len(found) == K
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] == length - 1


@given(length=LENGTHS, K=STEPS)
def test_positions_are_those_of_exact_fractions(length: int, K: int) -> None:
    exact = [floor(Fraction(k * length, K) + Fraction(1, 2)) - 1 for k in range(1, K + 1)]
    assert evenly(length, K) == [max(index, 0) for index in exact]


@given(length=LENGTHS, K=STEPS)
def test_a_block_with_a_token_for_every_step_repeats_none(length: int, K: int) -> None:
    found = evenly(length, K)
    assert len(set(found)) == min(length, K)
    gaps = {after - before for before, after in pairwise(found)}
    assert gaps <= {length // K, -(-length // K)}


@pytest.mark.parametrize(("length", "K"), [(0, 6), (-1, 6), (5, 0)])
def test_an_empty_block_has_no_positions(length: int, K: int) -> None:
    with pytest.raises(ValueError, match="has no"):
        evenly(length, K)


@pytest.mark.parametrize(
    ("K", "expected"), [(1, [0]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5, 5, 5, 5])]
)
def test_running_positions_are_the_completion_token_by_token_to_the_one_behind_it(K: int, expected: list[int]) -> None:
    block = Block("whole", start=2, stop=5, answer=8)
    assert RULES["running"](block, K) == expected


def test_even_positions_lie_in_the_block() -> None:
    assert RULES["even"](Block("whole", start=2, stop=8, answer=10), 3) == [3, 5, 7]


def test_the_params_offer_the_rules_that_there_are() -> None:
    assert get_args(Rule) == tuple(RULES)


@given(length=st.integers(1, 60), before=st.integers(0, 3), K=st.integers(1, 20), rule=st.sampled_from(list(RULES)))
def test_every_rule_gives_k_rising_indices_of_the_completion(length: int, before: int, K: int, rule: str) -> None:
    found = RULES[rule](Block("whole", before, before + length, None), K)
    assert len(found) == K
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= before + length


@pytest.mark.slow
def test_an_edit_of_the_rules_is_other_code_of_what_reads_positions_and_of_no_sampling_and_no_scoring() -> None:
    """A training reads teachers and not positions; where those come out the same it does not run again."""
    stages = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
    reached = {stage for stage in stages if "qthink_core/method/positions.py" in code.modules(ROOT, f"stages/{stage}.py")}
    assert reached == {"extract", "probe"}
    named = {stage for stage in stages if "qthink_core/artifacts/pairs.py" in code.modules(ROOT, f"stages/{stage}.py")}
    assert named == reached | {"average", "finetune", "train", "report"}


def test_a_pair_of_its_own_has_a_folder_inside_the_artifact_and_the_shared_one_its_top() -> None:
    shared = Pair(6, "even")
    assert shared.inside(Path("a"), shared) == Path("a")
    assert Pair(3, "even").inside(Path("a"), shared) == Path("a/K3-even")
    assert Pair(6, "running").inside(Path("a"), shared) == Path("a/K6-running")
