from typing import Any

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
    find_block,
    spoken,
)

THINK, END, N1, N2, EOS = 1, 2, 3, 4, 5  # <think>, </think>, "\n", "\n\n", end of turn
MARKS = Marks(THINK, END, frozenset({N1, N2}), EOS)


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
    ("ending", "expected"),
    [
        ("<think>\n", "<think>\n"),
        ("<think>", "<think>"),
        ("<think>\n\n\n", "<think>\n\n\n"),
        ("<think>\n\n</think>\n\n", ""),
        ("<think>\nSo", ""),
        ("", ""),
    ],
)
def test_the_text_of_a_turn_begins_with_what_the_prompt_opened(tokenizer: Any, ending: str, expected: str) -> None:
    prompt = tokenizer("<|im_start|>assistant\n" + ending)["input_ids"]
    assert spoken(tokenizer, prompt, tokenizer("8</think>")["input_ids"]) == expected + "8</think>"
