"""Interventions: the answers of a latent system when other vectors replace its latents, with the same weights.

A latent is the input of a latent step: the projected hidden state z_k = head(h_{k-1}). Each condition replaces all K
latents with other vectors (in one pass, as if the head had computed them), leaves them out, or takes another number of
latent steps.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qthink_core.artifacts import readout
from qthink_core.artifacts.answers import Answer, counts, writer
from qthink_core.artifacts.conditions import MEAN, NOISE, NONE, OTHER, TEACHER, ZEROS, steps_condition
from qthink_core.artifacts.files import number_of
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.readout import Read
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.store import Work
from qthink_core.errors import NumericError
from qthink_core.generation.hf_engine import complete
from qthink_core.generation.reading import branch, can_join, read, together
from qthink_core.generation.readout import likely_tokens
from qthink_core.generation.requests import Request, stream
from qthink_core.generation.units import answers_of, asked, batches
from qthink_core.method.extraction import select
from qthink_core.method.hidden_states import last_hidden, read_positions
from qthink_core.method.latent_steps import Context, latent_steps, project
from qthink_core.method.think import marks
from qthink_core.models.loading import System
from qthink_core.numerics.products import reordered
from qthink_core.numerics.short_layers import ShortLayers

NO_TEACHER = "no_teacher"


class Latents(NamedTuple):
    """The latents z_1..z_K of one system for every question; `states` has a row for each of `ids`."""

    ids: list[str]
    states: Float[np.ndarray, "Q K D"]


def replacements(condition: str, latents: Latents, names: Sequence[str], seed: int) -> Float[np.ndarray, "B K D"]:
    """The vectors that replace the latents of the questions `names` under a condition.

    `K=0`: no vectors. `zeros`: zeros. `noise`: independent Gaussian numbers of mean 0, with the root mean square of all
    questions' latents at that step; the draws depend on (seed, question) only. `other`: those of the next question by id;
    the last question gets those of the first. `mean`: the average of all questions' latents at that step.
    """
    Q, K, D = latents.states.shape
    if condition == NONE:
        return np.zeros((len(names), 0, D), np.float32)
    if condition == ZEROS:
        return np.zeros((len(names), K, D), np.float32)
    if condition == MEAN:
        mean_KD = latents.states.mean(axis=0, dtype=np.float64).astype(np.float32)
        return np.broadcast_to(mean_KD, (len(names), K, D))
    if condition == OTHER:
        following = {name: latents.states[(index + 1) % Q] for index, name in enumerate(latents.ids)}
        return np.stack([following[name] for name in names])
    assert condition == NOISE, condition
    rms_K = np.sqrt(np.square(latents.states, dtype=np.float64).mean(axis=(0, 2)))
    drawn = [stream([seed, number_of(name)]).standard_normal((K, D)) * rms_K[:, None] for name in names]
    return np.stack(drawn).astype(np.float32)


def feed(system: System, context: Context, latents: Float[Tensor, "B K D"]) -> Context:
    """The context after one pass over the given latents; its cache is extended in place. K = 0 changes nothing."""
    new = latents.shape[1]
    if new == 0:
        return context
    mask = torch.cat([context.mask, context.mask.new_ones(len(latents), new)], dim=1)
    hidden = last_hidden(system.model, inputs_embeds=latents, mask=mask, cache=context.cache)
    return Context(context.cache, mask, hidden[:, -1])


def taught(system: System, context: Context, teachers: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
    """The latents that the head makes of the teacher's states: head(h_0), head(t_1) .. head(t_{K-1}).

    The teacher's last state t_K is not used. It is the state before `</think>`, not before an answer, so the model computes
    h_K itself.
    """
    assert system.head is not None, "latents come from a head"
    earlier = torch.cat([context.hidden[:, None], teachers[:, :-1].to(context.hidden)], dim=1)
    return torch.cat([project(system.model, system.head, earlier[:, k]) for k in range(earlier.shape[1])], dim=1)


def teachers_of(
    thinker: System,
    problems: Sequence[Mapping[str, Any]],
    thoughts: Sequence[Answer],
    *,
    pair: Pair,
    cut_blocks: str,
    batch_tokens: int,
) -> dict[str, Float[np.ndarray, "K D"]]:
    """The thinker's states at the pair's positions in its own think blocks, by question, for the usable blocks."""
    prompts = asked(thinker, problems)
    rows = [Rollout(row.tokens, row.text, row.finish, problem_id=row.problem_id, rollout=0) for row in thoughts]
    chosen, _ = select(rows, prompts, marks(thinker.tokenizer), [pair], cut_blocks)
    states = read_positions(thinker.model, chosen, pair.K, batch_tokens, "float32")
    return {row.rollout.problem_id: state for row, state in zip(chosen, states, strict=True)}


def read_latents(
    system: System, prompts: Mapping[str, Sequence[int]], batch: int, top: int, seed: int
) -> tuple[Latents, list[Read]]:
    """The latents of all questions, and the `top` most likely tokens of each hidden state h_k by the output head.

    Raises NumericError naming the question and step of a state that is not finite.
    """
    assert system.head is not None, "latents come from a head"
    ids, rows = sorted(prompts), list[Read]()
    found: dict[str, Float[np.ndarray, "K D"]] = {}
    with torch.inference_mode(), reordered(system.model, system.head), ShortLayers(system.model).used():
        for names in batches(prompts, batch).values():
            context = read(system.model, [prompts[name] for name in names], system.tokenizer.pad_token_id)
            before = context.hidden
            _, steps = latent_steps(system.model, system.head, context, system.K)
            z_BKD = torch.cat([project(system.model, system.head, one) for one in [before, *steps[:-1]]], dim=1)
            found |= dict(zip(names, z_BKD.float().cpu().numpy(), strict=True))
            for k, hidden in enumerate(steps, 1):
                for name, finite in zip(names, torch.isfinite(hidden).all(dim=1).tolist(), strict=True):
                    if not finite:
                        raise NumericError(f"{name} has a state that is not finite at latent step {k}: check the model")
                for name, pairs in zip(names, likely_tokens(system, hidden, top), strict=True):
                    rows += [Read(name, seed, k, rank, text, value) for rank, (text, value) in enumerate(pairs, 1)]
    return Latents(ids, np.stack([found[name] for name in ids])), rows


def intervene(
    system: System,
    prompts: Mapping[str, Sequence[int]],
    latents: Latents,
    teachers: Mapping[str, Float[np.ndarray, "K D"]],
    *,
    conditions: Sequence[str],
    sweep: int,
    rows: int,
    max_new_tokens: int,
    seed: int,
) -> list[Answer]:
    """The answers of one batch under each condition, after K latent steps, and after each number of steps in 1..sweep*K.

    With K steps the system is as trained. It answers here, too, with the same decoding loop as under the conditions, because
    `evaluate` may use another engine. The prompts are read once: each condition continues from a copy of that context, and
    the sweep continues from one latent step to the next. As many whole conditions as have at most `rows` answers are
    decoded together, if the model's attention allows it. A question without a teacher gets an empty answer (`finish` is
    `no_teacher`), so that every condition has an answer to every question.
    """
    assert system.head is not None, "latents come from a head"
    with torch.inference_mode(), reordered(system.model, system.head), ShortLayers(system.model).used():
        context = read(system.model, list(prompts.values()), system.tokenizer.pad_token_id)
        waiting = Waiting(system, rows if can_join(context) else 1, max_new_tokens, seed)
        for condition in conditions:
            if condition != TEACHER:
                found = replacements(condition, latents, list(prompts), seed)
                given = torch.from_numpy(np.array(found)).to(context.hidden)
                waiting.add(condition, prompts, feed(system, branch(context), given))
        if TEACHER in conditions:
            known = {name: tokens for name, tokens in prompts.items() if name in teachers}
            waiting.answers[TEACHER] = [
                Answer([], "", NO_TEACHER, problem_id=name, seed=seed, condition=TEACHER)
                for name in prompts
                if name not in known
            ]
            if known:
                own = branch(context, [row for row, name in enumerate(prompts) if name in known])
                states = torch.from_numpy(np.stack([teachers[name] for name in known]))
                waiting.add(TEACHER, known, feed(system, own, taught(system, own, states)))
        for steps in range(1, max(sweep, 1) * system.K + 1):
            context, _ = latent_steps(system.model, system.head, context, 1)
            if sweep or steps == system.K:
                waiting.add(steps_condition(steps), prompts, branch(context))
        waiting.finish()
    swept = [steps_condition(steps) for steps in range(1, max(sweep, 1) * system.K + 1)]
    order = [*(one for one in conditions if one != TEACHER), TEACHER, *swept]
    return [row for condition in order for row in waiting.answers.get(condition, [])]


class Waiting:
    """Conditions whose answers are decoded together, at most `rows` of them but at least one condition."""

    def __init__(self, system: System, rows: int, max_new_tokens: int, seed: int) -> None:
        self.system, self.rows, self.max_new_tokens, self.seed = system, rows, max_new_tokens, seed
        self.parts: list[tuple[str, list[Request], Context]] = []
        self.answers: dict[str, list[Answer]] = {}

    def add(self, condition: str, prompts: Mapping[str, Sequence[int]], context: Context) -> None:
        """Adds the answers to some prompts under a condition, and decodes those that wait if there is no room for more."""
        if self.parts and sum(len(requests) for _, requests, _ in self.parts) + len(prompts) > self.rows:
            self.finish()
        self.parts.append((condition, [Request(name, prompt) for name, prompt in prompts.items()], context))

    def finish(self) -> None:
        """Decodes what waits."""
        if self.parts:
            context = together([one for _, _, one in self.parts]) if len(self.parts) > 1 else self.parts[0][2]
            asked = [one for _, requests, _ in self.parts for one in requests]
            done = iter(complete(self.system, asked, context, self.max_new_tokens))
            for condition, requests, _ in self.parts:
                completions = list(itertools.islice(done, len(requests)))
                self.answers.setdefault(condition, []).extend(answers_of(requests, completions, self.seed, condition))
        self.parts = []


def intervene_all(
    system: System,
    problems: Sequence[Mapping[str, Any]],
    teachers: Mapping[str, Float[np.ndarray, "K D"]],
    *,
    conditions: Sequence[str],
    sweep: int,
    top: int,
    batch: int,
    rows: int,
    max_new_tokens: int,
    seed: int,
    work: Work,
    show: Callable[[list[str], int], Iterable[str]],
) -> list[str]:
    """The names of the units, after committing the readout of all latents and the answers under every condition by batch."""
    prompts = asked(system, problems)
    latents, readouts = read_latents(system, prompts, batch, top, seed)
    first = readout.name(seed)
    if not work.done(first):
        work.commit(first, {f"{first}.parquet": readout.writer(readouts)}, {"readouts": len(readouts)})
    plan = batches(prompts, batch, seed)
    missing = [name for name in plan if not work.done(name)]
    for name in show(missing, len(missing)):
        answers = intervene(
            system,
            {one: prompts[one] for one in plan[name]},
            latents,
            teachers,
            conditions=conditions,
            sweep=sweep,
            rows=rows,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
        lacking = {"without_teacher": sum(row.finish == NO_TEACHER for row in answers)}
        work.commit(name, {f"{name}.parquet": writer(answers)}, counts(answers) | lacking)
    return [first, *plan]
