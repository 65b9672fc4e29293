from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qthink_core.method.think import (
    CUT,
    EMPTY,
    ENDED_INSIDE,
    NEVER_OPENED,
    WHOLE,
    Block,
    Marks,
    evenly,
    find_block,
    positions,
)

THINK, END, N1, N2, EOS = 1, 2, 3, 4, 5  # <think>, </think>, "\n", "\n\n", end of turn
MARKS = Marks(THINK, END, frozenset({N1, N2}), EOS)
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
    ("tokens", "expected"),
    [
        ([THINK, N1, 10, 11, 12, N1, END, N2, 20, EOS], Block(WHOLE, 2, 5, 8)),
        # newlines inside the thought belong to it
        ([THINK, N1, 10, N2, 11, N1, END, N2, 20, EOS], Block(WHOLE, 2, 5, 8)),
        ([THINK, 10, END, 20, EOS], Block(WHOLE, 1, 2, 3)),
        # the answer was cut, the block was not
        ([THINK, N1, 10, N1, END, N2, 20], Block(WHOLE, 2, 3, 6)),
        # nothing after the block: the answer is the end token, or is not there
        ([THINK, N1, 10, N1, END, N2, EOS], Block(WHOLE, 2, 3, 6)),
        ([THINK, N1, 10, N1, END], Block(WHOLE, 2, 3, 5)),
        # a second closing mark belongs to the answer
        ([THINK, N1, 10, N1, END, N2, 20, END, 21, EOS], Block(WHOLE, 2, 3, 6)),
        ([THINK, N1, 10, 11, 12], Block(CUT, 2, 5, None)),
        ([THINK, N1, 10, 11, N1], Block(CUT, 2, 4, None)),
        ([THINK, N1, 10, 11, EOS], Block(ENDED_INSIDE, 2, 4, None)),
        ([THINK, N1, N1, END, N2, 20, EOS], Block(EMPTY, 3, 3, 5)),
        ([THINK, N2, END, N2, 20, EOS], Block(EMPTY, 2, 2, 4)),
        ([THINK, END, 20, EOS], Block(EMPTY, 1, 1, 2)),
        ([THINK, N1], Block(EMPTY, 2, 2, None)),
        ([THINK, EOS], Block(EMPTY, 1, 1, None)),
        ([20, 21, EOS], Block(NEVER_OPENED, 0, 0, None)),
        ([20, THINK, 10, END, 21, EOS], Block(NEVER_OPENED, 0, 0, None)),
        ([EOS], Block(NEVER_OPENED, 0, 0, None)),
        ([], Block(NEVER_OPENED, 0, 0, None)),
    ],
)
def test_a_block_is_found_without_its_marks_and_newlines(tokens: list[int], expected: Block) -> None:
    assert find_block(tokens, MARKS, opened=False) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([10, 11, N1, END, N2, 20, EOS], Block(WHOLE, 0, 2, 5)),
        ([N1, 10, 11, END, 20], Block(WHOLE, 1, 3, 4)),
        ([10, 11], Block(CUT, 0, 2, None)),
        ([10, 11, EOS], Block(ENDED_INSIDE, 0, 2, None)),
        ([N1, END, N2, 20, EOS], Block(EMPTY, 1, 1, 3)),
        ([EOS], Block(EMPTY, 0, 0, None)),
        ([], Block(EMPTY, 0, 0, None)),
    ],
)
def test_a_prompt_that_opens_the_block_leaves_the_rest_to_the_completion(tokens: list[int], expected: Block) -> None:
    assert find_block(tokens, MARKS, opened=True) == expected


TOKENS = st.lists(st.sampled_from([THINK, END, N1, N2, 10, 11, 12]), max_size=24)


@given(tokens=TOKENS, ended=st.booleans(), opened=st.booleans())
def test_whatever_the_model_writes_the_thought_holds_no_closing_mark_and_the_answer_follows_one(
    tokens: list[int], ended: bool, opened: bool
) -> None:
    tokens = [*tokens, EOS] if ended else tokens
    block = find_block(tokens, MARKS, opened)
    thought = tokens[block.start : block.stop]
    assert END not in thought
    assert EOS not in thought
    assert bool(thought) == (block.state in (WHOLE, CUT, ENDED_INSIDE))
    if thought:
        assert not {thought[0], thought[-1]} & MARKS.newlines
    if block.answer is not None:
        before = [token for token in tokens[: block.answer] if token not in MARKS.newlines]
        assert before[-1] == END
        assert block.answer == len(tokens) or tokens[block.answer] not in MARKS.newlines


@pytest.mark.parametrize(
    ("K", "expected"), [(1, [0]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5, 5, 5, 5])]
)
def test_running_positions_are_the_completion_token_by_token_to_the_one_behind_it(K: int, expected: list[int]) -> None:
    block = Block("whole", start=2, stop=5, answer=8)
    assert positions(block, K, "running") == expected


def test_even_positions_lie_in_the_block() -> None:
    assert positions(Block("whole", start=2, stop=8, answer=10), 3, "even") == [3, 5, 7]
