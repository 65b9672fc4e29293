"""Units of work, which group requests: blocks of problems for rollouts, batches of questions for answers.

The plan depends on prompts and sizes only, so that a resumed run finds the units that an earlier run committed.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts.answers import BATCH, Answer
from qthink_core.artifacts.completions import Completion
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.store import MAIN, of_set
from qthink_core.generation.requests import Request, Sampling
from qthink_core.models.loading import QThinkConfig, System


class Unit(NamedTuple):
    """The requests to one system: the folder of its model, its config, and its training seed (None: the base model)."""

    model: Path
    config: QThinkConfig
    seed: int | None
    requests: list[Request]


def plan_rollouts(
    base: Path, prompts: Mapping[str, Sequence[int]], size: int, G: int, sampling: Sampling
) -> dict[str, Unit]:
    """The units of rollouts by name: blocks of at most `size` problems in the order of their ids."""
    return {
        f"block-{number:05d}": Unit(
            base, QThinkConfig(0, True), None, [Request(name, prompts[name], G, sampling) for name in ids]
        )
        for number, ids in enumerate(cut(sorted(prompts), size))
    }


def plan_answers(
    model: Path,
    config: QThinkConfig,
    seed: int | None,
    problems: Sequence[Mapping[str, Any]],
    size: int,
    sampling: Sampling | None = None,
    test_set: str = MAIN,
) -> dict[str, Unit]:
    """The units of answers by name: batches of at most `size` questions of similar prompt length, all of one test set.

    `sampling` applies only to a system that writes its thoughts: its prompt asks for thinking, and it has no latent steps
    (decision 19). All other answers are greedy.
    """
    how = sampling.of_training(seed) if sampling and config.thinking and not config.K else None
    prompts = asked(config, problems)
    return {
        of_set(test_set, name): Unit(model, config, seed, [Request(one, prompts[one], 1, how) for one in ids])
        for name, ids in batches(prompts, size, seed).items()
    }


def asked(system: System | QThinkConfig, problems: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[int]]:
    """The prompts of a system by problem id: those that ask for thinking, or the direct ones."""
    column = "prompt_thinking" if system.thinking else "prompt_direct"
    return {row["id"]: row[column] for row in problems}


def batches(prompts: Mapping[str, Sequence[int]], size: int, seed: int | None = None) -> dict[str, list[str]]:
    """The problem ids of each unit by its name: sorted by prompt length (then id), at most `size` in each."""
    order = sorted(prompts, key=lambda name: (len(prompts[name]), name))
    of_seed = "" if seed is None else f"seed-{seed}-"
    return {f"{of_seed}{BATCH}{number:05d}": ids for number, ids in enumerate(cut(order, size))}


def cut(ids: Sequence[str], size: int) -> list[list[str]]:
    """The ids in groups of at most `size`."""
    return [list(ids[start : start + size]) for start in range(0, len(ids), size)]


def longest(planned: Mapping[str, Unit]) -> int:
    """The number of tokens in the longest prompt of a plan; 0 for an empty plan."""
    return max((len(one.prompt) for unit in planned.values() for one in unit.requests), default=0)


def rollouts_of(requests: Sequence[Request], completions: Sequence[Sequence[Completion]]) -> list[Rollout]:
    """The completions of requests as rollouts, numbered from 0 for each request."""
    return [
        Rollout(row.tokens, row.text, row.finish, problem_id=request.problem_id, rollout=index)
        for request, rows in zip(requests, completions, strict=True)
        for index, row in enumerate(rows)
    ]


def answers_of(
    requests: Sequence[Request], completions: Iterable[Sequence[Completion]], seed: int | None, condition: str
) -> list[Answer]:
    """The completions of requests, one for each, as answers of a training seed under a condition."""
    return [
        Answer(row.tokens, row.text, row.finish, problem_id=request.problem_id, seed=seed, condition=condition)
        for request, (row,) in zip(requests, completions, strict=True)
    ]
