"""Targets: the token ids that training on each problem learns to write, and counts of the problems that are left out."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.method.think import Marks, block_of, marked_again, opening

ANSWER, THINK_AND_ANSWER = "answer", "think_and_answer"
GOLD = "gold"
OPENED = "<think>\n"


class Example(NamedTuple):
    """One training problem as token ids: its prompt and its target. An empty target means distillation only."""

    problem_id: str
    prompt: list[int]
    target: list[int]


def choose_right(rollouts: Sequence[Rollout], rewards: Sequence[int], seed: int) -> Rollout | None:
    """The right rollout with the smallest sha256 of (seed, problem, index), or None when no rollout is right.

    The choice does not depend on the order of the rollouts.
    """

    def rank(row: Rollout) -> bytes:
        return hashlib.sha256(f"{seed} {row.problem_id} {row.rollout}".encode()).digest()

    right = [row for row, reward in zip(rollouts, rewards, strict=True) if reward]
    return min(right, key=rank, default=None)


class Limit(NamedTuple):
    """The largest number of tokens in an answer, including the end token, and when a cut answer gets one (decision 10)."""

    tokens: int
    end_token: str

    def cut(self, answer: Sequence[int], eos: int) -> tuple[list[int], bool]:
        """The answer within the limit, and whether it was cut; a cut answer has an end token only with `always`."""
        if len(answer) <= self.tokens:
            return list(answer), False
        return [*answer[: self.tokens - 1], eos] if self.end_token == "always" else list(answer[: self.tokens]), True


def from_rollouts(
    problems: Mapping[str, Mapping[str, Any]],
    rollouts: Mapping[str, Sequence[Rollout]],
    rewards: Mapping[str, Sequence[int]],
    marks: Marks,
    *,
    kind: str,
    seed: int,
    limit: Limit,
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Target tokens by problem, each from one right rollout, and counts of cut and missing targets.

    With `kind` `answer`, the target is what follows `</think>` and its newlines; `think_and_answer` keeps the think block
    before it. Only right rollouts that reach an answer, without another think mark, can be chosen. Targets are slices of the
    stored token ids, so no text is tokenised again.
    """
    prompts = {name: row["prompt_thinking"] for name, row in problems.items()}
    targets: dict[str, list[int]] = {}
    counts = {"target_cut": 0, "target_missing": 0}
    for name in problems:
        sampled = rollouts.get(name, [])
        starts = {row.rollout: at for row in sampled if (at := _answer(row, prompts, marks)) is not None}
        usable = [row.rollout in starts and reward for row, reward in zip(sampled, rewards.get(name, []), strict=True)]
        row = choose_right(sampled, usable, seed)
        if row is None:
            counts["target_missing"] += 1
            continue
        start = starts[row.rollout]
        answer, cut = limit.cut(row.tokens[start:], marks.eos)
        targets[name] = answer if kind == ANSWER else [*row.tokens[:start], *answer]
        counts["target_cut"] += cut
    return targets, counts


def _answer(row: Rollout, prompts: Mapping[str, Sequence[int]], marks: Marks) -> int | None:
    """Where the answer of a rollout begins; None where there is none, or another think mark is in the block or behind it."""
    block = block_of(row, prompts, marks)
    return None if marked_again(row.tokens, block, marks) else block.answer


def from_gold(
    problems: Mapping[str, Mapping[str, Any]],
    tokenizer: Any,
    *,
    kind: str,
    limit: Limit,
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Target tokens by problem from the published solutions, and the count of cut targets.

    With `kind` `think_and_answer`, the think block holds the published worked solution, if there is one. It begins with
    what is left of `<think>` and a newline after the prompt, which may have opened the block.
    """
    eos = tokenizer.eos_token_id
    targets: dict[str, list[int]] = {}
    counts = {"target_cut": 0, "target_missing": 0}
    for name, row in problems.items():
        answer_ids = [*tokenizer.encode(row["target_gold"], add_special_tokens=False), eos]
        answer, cut = limit.cut(answer_ids, eos)
        thought = []
        if kind == THINK_AND_ANSWER:
            start = OPENED[len(opening(tokenizer, row["prompt_thinking"])) :]
            thought = tokenizer.encode(f"{start}{row['rationale'] or ''}\n</think>\n\n", add_special_tokens=False)
        targets[name] = [*thought, *answer]
        counts["target_cut"] += cut
    return targets, counts


def examples(
    problems: Mapping[str, Mapping[str, Any]],
    targets: Mapping[str, list[int]],
    *,
    thinking: bool,
    prompt_max_tokens: int,
    with_teacher: frozenset[str],
) -> tuple[list[Example], dict[str, int]]:
    """The training examples in the order of their problem ids, and counts.

    A problem is left out if its prompt is longer than `prompt_max_tokens`, or if it has neither a target nor a teacher.
    Prompts are never cut, because a cut would remove the question (decision 13).
    """
    kept: list[Example] = []
    counts = {"prompt_too_long": 0, "nothing_to_learn": 0, "distillation_only": 0, "examples": 0}
    for name in sorted(problems):
        prompt = list(problems[name]["prompt_thinking" if thinking else "prompt_direct"])
        target = targets.get(name, [])
        if len(prompt) > prompt_max_tokens:
            counts["prompt_too_long"] += 1
        elif not target and name not in with_teacher:
            counts["nothing_to_learn"] += 1
        else:
            counts["distillation_only"] += not target
            counts["examples"] += 1
            kept.append(Example(name, prompt, target))
    return kept, counts
