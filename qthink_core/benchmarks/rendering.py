"""Prompts as token ids, rendered once with the model's own chat template (decision 13). No torch."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from qthink_core.artifacts.prepared import Prompted
from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(tokenizer: "PreTrainedTokenizerBase", question: str, thinking: bool) -> list[int]:
    """The prompt of a question as token ids, with or without thinking."""
    encoding = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        # inside `chat_template_kwargs` it would be silently ignored, and thinking would stay on
        enable_thinking=thinking,
    )
    return cast("list[int]", cast("Mapping[str, object]", encoding)["input_ids"])


def prompted(benchmark: str, problems: Iterable[Problem], tokenizer: "PreTrainedTokenizerBase") -> list[Prompted]:
    """The problems with gold answers and prompts, in the same order."""
    return [
        Prompted(
            id=problem.id,
            question=problem.question,
            gold=problem.gold,
            rationale=problem.rationale,
            target_gold=grader(benchmark).gold_answer(problem),
            prompt_thinking=render(tokenizer, problem.question, thinking=True),
            prompt_direct=render(tokenizer, problem.question, thinking=False),
        )
        for problem in problems
    ]


def longest_prompt(rows: Iterable[Prompted]) -> int:
    """The number of tokens of the longest prompt; 0 where there are no rows."""
    return max((len(prompt) for row in rows for prompt in (row["prompt_thinking"], row["prompt_direct"])), default=0)
