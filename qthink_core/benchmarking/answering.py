"""Latent answers against the model card's loop, and probes against each condition on its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import MEAN, NOISE, NONE, OTHER, TEACHER, ZEROS, steps_condition
from qthink_core.benchmarking import naive
from qthink_core.benchmarking.counting import counted
from qthink_core.benchmarking.extraction import after_attention
from qthink_core.benchmarking.measured import Measured
from qthink_core.benchmarking.timing import paired
from qthink_core.benchmarking.workload import EOS, PAD, NoText, Sizes, head_of, model_of, prompts_of
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.interventions import Latents, intervene, read_latents, replacements
from qthink_core.generation.requests import Request
from qthink_core.models.loading import System
from qthink_core.planning import cost
from qthink_core.planning.cost import Shape

CONDITIONS = (NONE, ZEROS, NOISE, OTHER, MEAN, TEACHER)
MAX_ROW_STEPS = 1.05


def system_of(shape: Shape, sizes: Sizes) -> System:
    """A latent system of random weights without text."""
    return System(model_of(shape, sizes.seed, sizes.on), NoText(), head_of(shape, sizes.seed, sizes.on), sizes.K, False)


def own_answers(engine: HFEngine, prompts: Mapping[str, list[int]]) -> list[list[int]]:
    """The answers to all prompts as one batch."""
    return [one.tokens for (one,) in engine.generate([Request(name, prompt) for name, prompt in prompts.items()])]


def naive_answers(system: System, prompts: Mapping[str, list[int]], sizes: Sizes) -> list[list[int]]:
    """The answers to the prompts, one after the other, by the card's loop."""
    assert system.head is not None, "a latent system has a head"
    return [naive.answer(system.model, system.head, one, sizes.K, EOS, sizes.max_new_tokens) for one in prompts.values()]


def answers(name: str, shape: Shape, sizes: Sizes, rounds: int, peak: float, goal: float | None) -> Measured:
    """The row of a shape and a batch of `questions`."""
    system, prompts = system_of(shape, sizes), prompts_of(shape, sizes, sizes.questions)
    with counted(system.model) as naively:
        expected = naive_answers(system, prompts, sizes)
    engine = HFEngine(system, sizes.max_new_tokens)
    with counted(system.model) as work:
        found = own_answers(engine, prompts)
    emitted = sum(map(len, found))
    counts: dict[str, float] = {
        "questions": len(prompts),
        "tokens_emitted": emitted,
        "row_steps": work.logits_rows,
        "row_steps_per_token": work.logits_rows / emitted,
        "forward_calls": work.forward_calls,
        "naive_forward_calls": naively.forward_calls,
        "naive_logits_rows": naively.logits_rows,
    }
    ratio = paired(lambda: naive_answers(system, prompts, sizes), lambda: own_answers(engine, prompts), rounds, sizes.on)
    return Measured(
        f"latent answers, B = {len(prompts)}",
        name,
        "the card's loop",
        ratio,
        unequal(found, expected),
        counts,
        goal,
        {"row_steps_per_token": MAX_ROW_STEPS},
        flops(shape, list(prompts.values()), found, sizes.K) / ratio.own_s / peak,
        emitted / ratio.own_s,
    )


def flops(shape: Shape, prompts: Sequence[Sequence[int]], found: Sequence[Sequence[int]], K: int) -> float:
    """FLOPs that latent answers need: two a weight and token, and attention to the tokens before it.

    In the last layer, what follows the attention is needed at the last token of a prompt alone. Its queries and attention,
    which are needed there alone, too, are counted for all tokens: less than a twentieth. The projection head, which
    is K small products a question, is not counted.
    """
    behind = [K + len(answer) - 1 for answer in found]  # the last token of an answer is not read
    read = sum(map(len, prompts))
    context = sum((len(prompt) + n) ** 2 for prompt, n in zip(prompts, behind, strict=True)) / 2
    body = cost.body(shape) * (read + sum(behind)) - after_attention(shape) * (read - len(prompts))
    head = cost.output_head(shape) * sum(map(len, found))
    return 2.0 * (body + head) + cost.attention_flops(shape, context)


def unequal(found: list[Any], expected: list[Any]) -> int:
    """The number of answers that differ."""
    return sum(one != other for one, other in zip(found, expected, strict=True))


class Probe:
    """The inputs of a probe on a batch of questions, and both ways to answer under all its conditions."""

    def __init__(self, shape: Shape, sizes: Sizes) -> None:
        self.rows = len(CONDITIONS + tuple(range(sizes.K))) * sizes.questions  # all at once
        self.sizes, self.system = sizes, system_of(shape, sizes)
        self.prompts = prompts_of(shape, sizes, sizes.questions)
        rng = np.random.default_rng([sizes.seed, 2])
        drawn = rng.standard_normal((len(self.prompts), sizes.K, shape.hidden)).astype(np.float32)
        self.teachers = dict(zip(self.prompts, drawn, strict=True))
        self.latents, _ = read_latents(self.system, self.prompts, len(self.prompts), 1, sizes.seed)
        self.given = {one: self._given(one, self.latents) for one in CONDITIONS}

    def _given(self, condition: str, latents: Latents) -> torch.Tensor:
        model, head, names = self.system.model, self.system.head, list(self.prompts)
        if condition != TEACHER:
            drawn = np.array(replacements(condition, latents, names, self.sizes.seed))
            return torch.from_numpy(drawn).to(model.device, model.dtype)
        assert head is not None, "a latent system has a head"
        last = torch.cat([naive.states(model, one, [-1]) for one in self.prompts.values()])
        taught = torch.from_numpy(np.stack([self.teachers[name] for name in names]))[:, :-1].to(model.device, model.dtype)
        with torch.no_grad():
            return head(torch.cat([last[:, None], taught], dim=1))

    def own(self) -> dict[str, list[list[int]]]:
        """The answers by condition, as `probe` makes them: the prompts are read once."""
        rows = intervene(
            self.system,
            self.prompts,
            self.latents,
            self.teachers,
            conditions=CONDITIONS,
            sweep=1,
            rows=self.rows,
            max_new_tokens=self.sizes.max_new_tokens,
            seed=self.sizes.seed,
        )
        return by_condition(rows)

    def naive(self) -> dict[str, list[list[int]]]:
        """The answers by condition, each computed from its prompts."""
        model, head, limit = self.system.model, self.system.head, self.sizes.max_new_tokens
        assert head is not None, "a latent system has a head"
        asked, found = list(self.prompts.values()), dict[str, list[list[int]]]()
        for one, given in self.given.items():
            found[one] = naive.conditions(model, head, asked, given, 0, EOS, PAD, limit)
        for steps in range(1, self.sizes.K + 1):
            found[steps_condition(steps)] = naive.conditions(model, head, asked, None, steps, EOS, PAD, limit)
        return found


def by_condition(rows: list[Answer]) -> dict[str, list[list[int]]]:
    """The tokens of answers by condition, in the order of the questions."""
    found: dict[str, list[list[int]]] = {}
    for row in rows:
        found.setdefault(row.condition, []).append(list(row.tokens))
    return found


def probes(name: str, shape: Shape, sizes: Sizes, rounds: int, goal: float | None) -> Measured:
    """The row of a shape: all conditions and the sweep of latent steps, on a batch of `questions`."""
    probe = Probe(shape, sizes)
    with counted(probe.system.model) as naively:
        expected = probe.naive()
    with counted(probe.system.model) as work:
        found = probe.own()
    emitted = sum(len(row) for rows in found.values() for row in rows)
    counts: dict[str, float] = {
        "conditions": len(found),
        "questions": len(probe.prompts),
        "tokens_emitted": emitted,
        "row_steps_per_token": work.logits_rows / emitted,
        "forward_calls": work.forward_calls,
        "naive_forward_calls": naively.forward_calls,
        "tokens_processed": work.tokens,
        "naive_tokens": naively.tokens,
    }
    differing = sum(unequal(found[one], expected[one]) for one in expected)
    against = "each condition on its own, in a batch"
    ratio = paired(probe.naive, probe.own, rounds, sizes.on)
    return Measured("probes", name, against, ratio, differing, counts, goal, tokens_s=emitted / ratio.own_s)
