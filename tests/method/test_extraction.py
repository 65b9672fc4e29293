from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_folders import published

from qthink_core.artifacts import hidden_states
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.method.extraction import distinct, select
from qthink_core.method.think import Marks, marks, opens_block

THINK, END, N1, N2, EOS = 1, 2, 3, 4, 5
MARKS = Marks(THINK, END, frozenset({N1, N2}), EOS)
TWO, THREE, SIX = [Pair(2, "even")], [Pair(3, "even")], [Pair(6, "even")]
PROMPTS = {"p": [90, 91, 92], "q": [90, 91, 92, 93, THINK, N1]}


def rollout(tokens: list[int], index: int = 0, problem: str = "p") -> Rollout:
    return Rollout(tokens, "", "stop" if tokens[-1:] == [EOS] else "length", problem_id=problem, rollout=index)


WHOLE = [THINK, N1, 10, 11, 12, 13, 14, N1, END, N2, 20, EOS]
CUT = [THINK, N1, 10, 11, 12]
ENDED = [THINK, N1, 10, 11, EOS]
EMPTY = [THINK, N2, END, N2, 20, EOS]
DIRECT = [20, EOS]


def test_positions_count_from_the_first_prompt_token_and_the_row_ends_at_the_last_of_them() -> None:
    rows, _ = select([rollout(WHOLE)], PROMPTS, MARKS, TWO, "use")
    # the block is tokens 2..6 of the completion, L = 5: round(2.5) - 1 = 2 and 4, behind 3 prompt tokens
    assert rows[0].positions == [3 + 2 + 2, 3 + 2 + 4]
    assert rows[0].tokens == [90, 91, 92, THINK, N1, 10, 11, 12, 13, 14]
    assert [rows[0].tokens[at] for at in rows[0].positions] == [12, 14]
    assert rows[0].think_tokens == 5


def test_rollouts_that_agree_up_to_the_last_position_are_read_once() -> None:
    """The answer behind the thought may differ; another thought, another problem or other positions may not."""
    again, other = [*WHOLE[:10], 21, EOS], [THINK, N1, 10, 11, 12, 13, 15, N1, END, N2, 20, EOS]
    rows, _ = select([rollout(WHOLE), rollout(other, 1), rollout(again, 2), rollout(WHOLE, 3)], PROMPTS, MARKS, TWO, "use")
    rows += [rows[0]._replace(positions=[5, 9])]
    once, which = distinct(rows)
    assert [row.rollout.rollout for row in once] == [0, 1, 0]
    assert which == [0, 1, 0, 0, 2]
    assert [once[index].tokens for index in which] == [row.tokens for row in rows]
    assert distinct([]) == ([], [])


def test_a_prompt_that_opens_the_block_is_read_alike() -> None:
    rows, _ = select([rollout([10, 11, 12, 13, N1, END, N2, 20, EOS], problem="q")], PROMPTS, MARKS, TWO, "use")
    assert [rows[0].tokens[at] for at in rows[0].positions] == [11, 13]
    assert rows[0].tokens[-1] == 13


def test_rollouts_without_a_block_are_left_out_and_counted_by_reason() -> None:
    block = [rollout(tokens, index) for index, tokens in enumerate([WHOLE, CUT, ENDED, EMPTY, DIRECT, WHOLE, DIRECT])]
    rows, counts = select(block, PROMPTS, MARKS, SIX, "use")
    assert [row.rollout.rollout for row in rows] == [0, 1, 2, 5]
    reasons = {"whole": 2, "cut": 1, "ended_inside": 1, "empty": 1, "never_opened": 2}
    assert counts == reasons | {"usable": 4, "shorter_than_K": 4}
    rows, counts = select(block, PROMPTS, MARKS, SIX, "drop")
    assert [row.rollout.rollout for row in rows] == [0, 5]
    assert counts == reasons | {"usable": 2, "shorter_than_K": 2}


def test_a_block_that_was_cut_is_used_up_to_the_cut() -> None:
    rows, _ = select([rollout(CUT), rollout(ENDED)], PROMPTS, MARKS, THREE, "use")
    assert [[row.tokens[at] for at in row.positions] for row in rows] == [[10, 11, 12], [10, 10, 11]]


def test_the_marks_are_those_of_the_tokenizer(tokenizer: Any) -> None:
    found = marks(tokenizer)
    assert tokenizer.decode([found.think]) == "<think>"
    assert tokenizer.decode([found.end_think]) == "</think>"
    assert sorted(tokenizer.decode([token]) for token in found.newlines) == ["\n", "\n\n"]
    assert found.eos == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("question", "ending", "expected"),
    [
        ("2 + 2?", "", False),
        ("2 + 2?", "<think>\n\n</think>\n\n", False),
        ("2 + 2?", "<think>\n", True),
        ("2 + 2?", "<think>", True),
        # a question may hold the mark as text: the prompt does not end in it
        ("What does <think> mean?", "", False),
        ("What does <think> mean?", "<think>\n\n</think>\n\n", False),
        ("What does </think> mean?", "<think>\n", True),
    ],
)
def test_a_block_is_open_only_where_the_prompt_ends_in_it(
    tokenizer: Any, question: str, ending: str, expected: bool
) -> None:
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{ending}"
    assert opens_block(tokenizer(prompt)["input_ids"], marks(tokenizer)) == expected


def test_a_rendered_thought_is_found_token_by_token(tokenizer: Any) -> None:
    thought = "3 + 4 = 7\n\n7 * 2 = 14"
    tokens = tokenizer(f"<think>\n{thought}\n</think>\n\nThe answer is 14<|im_end|>")["input_ids"]
    rows, _ = select([rollout(tokens)], PROMPTS, marks(tokenizer), SIX, "use")
    start = len(tokens) - len(tokenizer(f"{thought}\n</think>\n\nThe answer is 14<|im_end|>")["input_ids"])
    assert tokenizer.decode(tokens[start : start + rows[0].think_tokens]) == thought
    assert tokenizer.decode(rows[0].tokens[3 + start :]) == thought


def test_states_come_back_under_their_problem_and_rollout(tmp_path: Path) -> None:
    block = [rollout(WHOLE, 4), rollout(CUT, 9), rollout(WHOLE, 1, "q")]
    rows, _ = select(block, PROMPTS | {"q": [90]}, MARKS, SIX, "use")
    states = np.arange(3 * 6 * 4, dtype=np.float32).reshape(3, 6, 4)
    folder = published(
        tmp_path, "hidden_states", {"shard": hidden_states.shard("shard", [row.source for row in rows], states, SIX)}
    )
    found = hidden_states.read(folder)
    assert {name: list(of) for name, of in found.items()} == {"p": [4, 9], "q": [1]}
    assert np.array_equal(found["p"][9], states[1])
    assert np.array_equal(found["q"][1], states[2])


def test_a_shard_of_no_usable_rollout_is_a_shard(tmp_path: Path) -> None:
    rows, counts = select([rollout(DIRECT)], PROMPTS, MARKS, SIX, "use")
    assert counts["usable"] == 0
    files = hidden_states.shard("shard", [row.source for row in rows], np.empty((0, 6, 4), np.float32), SIX)
    assert hidden_states.read(published(tmp_path, "hidden_states", {"shard": files})) == {}
