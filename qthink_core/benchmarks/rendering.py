"""Prompts as token ids, rendered once with the model's own chat template (decision 13). No torch."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from qthink_core.artifacts.prepared import Prompted
from qthink_core.benchmarks.bounded_rendering import Conversation, encoded
from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.errors import DataError

THINK_MARKS = ("<think>", "</think>")

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Prompts that are rendered in one process: starting it takes some milliseconds.
TOGETHER = 1000


def render(tokenizer: "PreTrainedTokenizerBase", question: str, thinking: bool) -> list[int]:
    """The prompt of a question as token ids, with or without thinking; raises as `prompts` does."""
    return prompts(tokenizer, [question], thinking)[0]


def prompts(tokenizer: "PreTrainedTokenizerBase", questions: Sequence[str], thinking: bool) -> list[list[int]]:
    """The prompts of questions as token ids, with or without thinking.

    Raises DataError where the chat template or the tokenizer fails, or takes too much time or memory
    (`bounded_rendering.encoded`).
    """
    # inside `chat_template_kwargs`, `enable_thinking` would be silently ignored, and thinking would stay on
    options = {"add_generation_prompt": True, "enable_thinking": thinking}
    conversations = [Conversation([{"role": "user", "content": question}], options) for question in questions]
    return encoded(tokenizer, tokenizer.name_or_path, conversations)


def prompted(benchmark: str, problems: Iterable[Problem], tokenizer: "PreTrainedTokenizerBase") -> list[Prompted]:
    """The problems with gold answers and prompts, in the same order; raises as `prompts` does.

    Raises DataError naming a problem with a special token of the model in its text: it would end the question, or open a
    thought.
    """
    return [row for some in _in_blocks(problems) for row in prompted_block(benchmark, some, tokenizer)]


def _in_blocks(problems: Iterable[Problem]) -> Iterator[list[Problem]]:
    left = iter(problems)
    while some := list(islice(left, TOGETHER)):
        yield some


def _check_plain(problems: Sequence[Problem], tokenizer: "PreTrainedTokenizerBase") -> None:
    added = [str(one) for one in tokenizer.added_tokens_decoder.values() if one.special]
    special = dict.fromkeys(filter(None, [*THINK_MARKS, *tokenizer.all_special_tokens, *added]))
    for problem in problems:
        text = f"{problem.question}\n{problem.rationale or ''}\n{problem.gold}"
        for mark in special:
            if mark in text:
                raise DataError(
                    f"problem {problem.id} has {mark!r:.60} in its text, a special token of the base model: drop its row"
                )


def prompted_block(benchmark: str, problems: Sequence[Problem], tokenizer: "PreTrainedTokenizerBase") -> Iterator[Prompted]:
    _check_plain(problems, tokenizer)
    questions = [problem.question for problem in problems]
    both = [prompts(tokenizer, questions, thinking) for thinking in (True, False)]
    for problem, thinking, direct in zip(problems, *both, strict=True):
        yield Prompted(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            rationale=problem.rationale,
            target_gold=grader(benchmark).gold_answer(problem),
            prompt_thinking=thinking,
            prompt_direct=direct,
        )


def longest_prompt(rows: Iterable[Prompted]) -> int:
    """The number of tokens of the longest prompt; 0 where there are no rows."""
    return max((len(prompt) for row in rows for prompt in (row["prompt_thinking"], row["prompt_direct"])), default=0)
