"""Interventions: other vectors in the latents' places, hand-worked, and against systems that have them by other means.

Float64 models: a pass over K latents at once and K passes over one then agree almost to the bit, as do batches of any size,
and "the same tokens" is a statement about the method. Latents and teachers are stored in float32.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from artifact_folders import work
from engines import answer, requests

from qthink_core.artifacts import answers, readout
from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import MEAN, NOISE, NONE, OTHER, REPLACED, TEACHER, TRAINED, ZEROS, steps_condition
from qthink_core.artifacts.pairs import Pair
from qthink_core.artifacts.store import Work, listed
from qthink_core.errors import NumericError
from qthink_core.generation import reading
from qthink_core.generation.hf_engine import HFEngine, complete
from qthink_core.generation.interventions import (
    NO_TEACHER,
    Latents,
    feed,
    intervene,
    intervene_all,
    read_latents,
    replacements,
    taught,
    teachers_of,
)
from qthink_core.generation.reading import branch, read
from qthink_core.generation.shared_prompts import SharedPrompts
from qthink_core.method.latent_steps import Context, latent_steps, project, read_prompts
from qthink_core.models.loading import System

K, D, SWEEP, N, MAX_NEW_TOKENS, SEED = 3, 32, 2, 20, 12, 4
ALL = 1000  # more than all conditions have together
STEPS = [steps_condition(k) for k in range(1, SWEEP * K + 1)]
# Float64 rounding over a few passes of two layers.
EXACT = 1e-10
# What is stored in float32, beside values of a few units.
STORED = 1e-6
# Of 64,000 Gaussians a step: the root mean square is off by 0.3 % at one standard error, the mean by 0.4 % of it.
DRAWN = 0.02


@pytest.fixture
def system(qwen3: Callable[..., Any], random_head: Callable[..., Any], tokenizer: Any) -> System:
    """A system of K latent steps with random weights."""
    return System(qwen3("float64"), tokenizer, random_head(dtype="float64"), K, thinking=False)


@pytest.fixture
def problems(questions: list[list[int]]) -> list[dict[str, Any]]:
    """Questions of many lengths, their ids in another order than their lengths."""
    return [{"id": f"q{i:02d}", "prompt_direct": row} for i, row in enumerate(questions[:N])]


@pytest.fixture
def prompts(problems: list[dict[str, Any]]) -> dict[str, list[int]]:
    return {row["id"]: row["prompt_direct"] for row in problems}


@pytest.fixture
def teachers(prompts: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """A teacher of every question but q00 and q07."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((K, D)).astype(np.float32) for name in prompts if name not in ("q00", "q07")}


def under(rows: Sequence[Answer], condition: str) -> dict[str, list[int]]:
    """The tokens of each question under one condition."""
    return {row.problem_id: row.tokens for row in rows if row.condition == condition}


def all_answers(
    system: System,
    prompts: dict[str, list[int]],
    teachers: dict[str, np.ndarray],
    conditions: Sequence[str] = REPLACED,
    max_new_tokens: int = MAX_NEW_TOKENS,
    rows: int = ALL,
) -> list[Answer]:
    """Every condition on one batch of all questions, by default with all of its answers at once."""
    latents, _ = read_latents(system, prompts, len(prompts), 1, SEED)
    limits = {"conditions": conditions, "sweep": SWEEP, "rows": rows, "max_new_tokens": max_new_tokens, "seed": SEED}
    return intervene(system, prompts, latents, teachers, **limits)


def uncached(system: System, prompt: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(latents z_1..z_K, hidden states h_1..h_K) of one question, each pass over all that was read so far."""
    inputs, latents, states = system.model.get_input_embeddings()(torch.tensor([prompt])), [], []
    with torch.no_grad():
        for _ in range(system.K):
            hidden = system.model(inputs_embeds=inputs, output_hidden_states=True).hidden_states[-1][:, -1]
            latents.append(system.head(hidden))
            inputs = torch.cat([inputs, latents[-1][:, None]], dim=1)
            states.append(system.model(inputs_embeds=inputs, output_hidden_states=True).hidden_states[-1][:, -1])
    return torch.cat(latents), torch.cat(states)


STATES = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
THREE = Latents(["a", "b", "c"], STATES)


def test_other_is_the_next_question_by_id_and_the_first_for_the_last() -> None:
    found = replacements(OTHER, THREE, ["c", "a", "b"], SEED)
    assert np.array_equal(found, STATES[[0, 1, 2]])


def test_mean_is_the_average_over_all_questions_step_by_step_whatever_the_batch() -> None:
    found = replacements(MEAN, THREE, ["b"], SEED)
    assert found.tolist() == [[[6, 7, 8], [9, 10, 11]]]
    assert np.array_equal(replacements(MEAN, THREE, ["c", "a"], SEED), found[[0, 0]])


def test_zeros_are_zeros_in_all_places_and_without_latents_there_are_none() -> None:
    assert replacements(ZEROS, THREE, ["b", "a"], SEED).tolist() == [[[0.0] * 3] * 2] * 2
    assert replacements(NONE, THREE, ["b", "a"], SEED).shape == (2, 0, 3)


def test_noise_has_the_root_mean_square_of_the_latents_at_each_step_and_mean_zero() -> None:
    ids = [f"q{i}" for i in range(2000)]
    scale_K = np.array([0.1, 0.0, 20.0], np.float32)
    states = np.random.default_rng(1).uniform(0, 1, (2000, 3, D)).astype(np.float32) * scale_K[:, None]
    noise = replacements(NOISE, Latents(ids, states), ids, SEED)
    # of a uniform number from 0 to s: s / sqrt(3)
    expected = scale_K / np.sqrt(3)
    assert noise.dtype == np.float32
    np.testing.assert_allclose(np.sqrt(np.square(noise).mean(axis=(0, 2))), expected, rtol=DRAWN)
    assert (np.abs(noise.mean(axis=(0, 2))) <= DRAWN * expected).all()


def test_noise_depends_on_the_seed_and_the_question_alone() -> None:
    together = replacements(NOISE, THREE, ["a", "b", "c"], SEED)
    assert np.array_equal(replacements(NOISE, THREE, ["c"], SEED), together[[2]])
    assert np.array_equal(replacements(NOISE, THREE, ["b", "a"], SEED), together[[1, 0]])
    # among other questions of the same size, too
    assert np.array_equal(replacements(NOISE, Latents(["z", "c", "y"], STATES[::-1]), ["c"], SEED), together[[2]])
    other_seed = replacements(NOISE, THREE, ["a", "b", "c"], SEED + 1)
    values = np.concatenate([together, other_seed]).ravel()
    assert len(np.unique(values)) == len(values)


def test_the_latents_read_are_the_inputs_of_the_latent_steps_question_by_question(
    system: System, prompts: dict[str, list[int]]
) -> None:
    latents, _ = read_latents(system, dict(reversed(prompts.items())), 7, 1, SEED)
    assert latents.ids == sorted(prompts)
    for name, states in zip(latents.ids, latents.states, strict=True):
        np.testing.assert_allclose(states, uncached(system, prompts[name])[0].numpy(), rtol=0, atol=STORED)


def test_the_systems_own_latents_in_one_pass_give_the_answers_of_its_latent_steps(
    system: System, prompts: dict[str, list[int]]
) -> None:
    with torch.inference_mode():
        before = read(system.model, list(prompts.values()), system.tokenizer.pad_token_id)
        h_0 = before.hidden
        stepped, steps = latent_steps(system.model, system.head, branch(before), K)
        own = torch.cat([project(system.model, system.head, state) for state in (h_0, *steps[:-1])], dim=1)
        fed = feed(system, before, own)
        torch.testing.assert_close(fed.hidden, stepped.hidden, rtol=0, atol=EXACT)
        assert torch.equal(fed.mask, stepped.mask)
        found = complete(system, requests(prompts), fed, MAX_NEW_TOKENS)
    expected = answer(HFEngine(system, MAX_NEW_TOKENS), prompts, SEED)
    assert [row.tokens for (row,) in found] == [row.tokens for row in expected]
    assert len({tuple(row.tokens) for (row,) in found}) > N / 2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_without_latents_a_system_answers_as_one_of_no_steps(
    system: System, qwen3: Any, random_head: Any, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray], dtype: str
) -> None:
    system = system._replace(model=qwen3(dtype), head=random_head(dtype=dtype))
    found = all_answers(system, prompts, teachers)
    expected = answer(HFEngine(system._replace(head=None, K=0), MAX_NEW_TOKENS), prompts, SEED)
    assert [row for row in found if row.condition == NONE] == [replace(row, condition=NONE) for row in expected]


@pytest.mark.slow
def test_another_number_of_steps_is_a_system_of_that_k(
    system: System, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray]
) -> None:
    found = all_answers(system, prompts, teachers)
    assert [name for name in dict.fromkeys(row.condition for row in found) if name not in REPLACED] == STEPS
    assert STEPS == ["K=1", "K=2", "K=3", "K=4", "K=5", "K=6"]
    for k in (1, 2, 3, 4, 5, 6):
        expected = answer(HFEngine(system._replace(K=k), MAX_NEW_TOKENS), prompts, SEED)
        assert under(found, f"K={k}") == {row.problem_id: row.tokens for row in expected}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_trained_number_of_steps_is_probed_also_without_a_sweep_and_answers_as_evaluate_does(
    system: System, qwen3: Any, random_head: Any, prompts: dict[str, list[int]], dtype: str
) -> None:
    system = system._replace(model=qwen3(dtype), head=random_head(dtype=dtype))
    latents, _ = read_latents(system, prompts, N, 1, SEED)
    limits = {"conditions": [], "sweep": 0, "rows": ALL, "max_new_tokens": MAX_NEW_TOKENS, "seed": SEED}
    expected = answer(HFEngine(system, MAX_NEW_TOKENS), prompts, SEED)
    assert intervene(system, prompts, latents, {}, **limits) == [replace(row, condition="K=3") for row in expected]


def test_every_condition_is_answered_after_its_own_vectors(
    system: System, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray]
) -> None:
    """[prompt; vectors] of one question in passes over all that was read so far, without a cache or a batch."""
    found = all_answers(system, prompts, teachers)
    latents, _ = read_latents(system, prompts, N, 1, SEED)
    embed, eos = system.model.get_input_embeddings(), system.tokenizer.eos_token_id
    for name, condition in itertools.product(["q01", "q19"], REPLACED):
        if condition == TEACHER:
            h_0 = system.model(torch.tensor([prompts[name]]), output_hidden_states=True).hidden_states[-1][:, -1]
            given = system.head(torch.cat([h_0, torch.from_numpy(teachers[name][:-1]).double()]))
        else:
            given = torch.from_numpy(np.array(replacements(condition, latents, [name], SEED)[0])).double()
        inputs, tokens = torch.cat([embed(torch.tensor([prompts[name]])), given[None]], dim=1), []
        while len(tokens) < MAX_NEW_TOKENS and tokens[-1:] != [eos]:
            with torch.no_grad():
                tokens.append(int(system.model(inputs_embeds=inputs).logits[0, -1].argmax()))
                inputs = torch.cat([inputs, embed(torch.tensor([tokens[-1:]]))], dim=1)
        assert under(found, condition)[name] == tokens, condition
    replies = [under(found, condition)["q19"] for condition in REPLACED]
    assert len(set(map(tuple, replies))) > 3  # the vectors do make a difference


def test_teacher_states_stand_one_step_before_their_latents_and_the_last_is_not_used(
    system: System, prompts: dict[str, list[int]]
) -> None:
    with torch.inference_mode():
        context = read(system.model, list(prompts.values())[:2], system.tokenizer.pad_token_id)
        states = torch.randn(2, K, D, generator=torch.Generator().manual_seed(0))
        found = taught(system, context, states)
        expected = [system.head(one) for one in (context.hidden, states[:, 0].double(), states[:, 1].double())]
        assert torch.equal(found, torch.stack(expected, dim=1))
        states[:, -1] = torch.nan
        assert torch.equal(taught(system, context, states), found)


@pytest.mark.slow
def test_conditions_leave_no_trace_in_one_another(
    system: System, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray]
) -> None:
    together = all_answers(system, prompts, teachers)
    expected = {name: under(together, name) for name in (*REPLACED, *STEPS)}
    for conditions in (REPLACED[::-1], *([one] for one in REPLACED)):
        found = all_answers(system, prompts, teachers, conditions)
        for name in (*conditions, *STEPS):
            assert under(found, name) == expected[name]


@pytest.mark.parametrize("begin", [read, read_prompts])
def test_a_branch_and_what_follows_it_leave_the_context_as_it_was(
    system: System, prompts: dict[str, list[int]], begin: Callable[..., Context]
) -> None:
    rows = dict(list(prompts.items())[:6])

    def states(context: Context) -> list[torch.Tensor]:
        cache = context.cache
        layers = cache.own if isinstance(cache, SharedPrompts) else cache.layers
        shared = [*cache.keys, *cache.values, cache.slot] if isinstance(cache, SharedPrompts) else []
        return [*shared, *(one for layer in layers for one in (layer.keys, layer.values)), context.mask, context.hidden]

    with torch.inference_mode():
        context = begin(system.model, list(rows.values()), system.tokenizer.pad_token_id)
        context, _ = latent_steps(system.model, system.head, context, 1)
        before = [one.clone() for one in states(context)]
        complete(system, requests(rows), branch(context), MAX_NEW_TOKENS)
        feed(system, branch(context, [4, 1]), torch.zeros(2, K, D, dtype=torch.float64))
        latent_steps(system.model, system.head, branch(context), K)
    after = states(context)
    assert len(before) == len(after) > 5
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.slow
def test_answers_are_the_same_one_condition_at_a_time_and_where_rows_do_not_share_their_prompt(
    system: System, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = list[int]()
    system.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    found, most = [], []
    for shared, rows in ((True, ALL), (True, 3 * N), (True, 1), (False, ALL)):
        monkeypatch.setattr(reading, "can_pack", lambda _, shared=shared: shared)
        passes.clear()
        found.append(all_answers(system, prompts, teachers, rows=rows))
        most.append(max(passes))
    assert found == [found[0]] * 4
    assert most[0] > 8 * N
    assert 2 * N < most[1] <= 3 * N
    assert most[2:] == [N, N]


def test_a_branch_of_some_rows_holds_those_in_their_order(system: System, prompts: dict[str, list[int]]) -> None:
    rows = list(prompts)[:6]
    chosen = [rows[4], rows[1]]
    with torch.inference_mode():
        context = read(system.model, [prompts[name] for name in rows], system.tokenizer.pad_token_id)
        asked = requests({name: prompts[name] for name in chosen})
        found = complete(system, asked, branch(context, [4, 1]), MAX_NEW_TOKENS)
    alone = answer(HFEngine(system._replace(K=0), MAX_NEW_TOKENS), {name: prompts[name] for name in chosen}, SEED)
    assert [row.tokens for (row,) in found] == [row.tokens for row in alone]


def test_prompts_are_read_once_and_the_sweep_adds_a_step_at_a_time(
    system: System, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray]
) -> None:
    """Of answers of one token nothing is computed but prompts and latents."""
    latents, _ = read_latents(system, prompts, N, 1, SEED)
    shapes: list[tuple[int, int]] = []
    system.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape[:2])))
    intervene(system, prompts, latents, teachers, conditions=REPLACED, sweep=SWEEP, rows=ALL, max_new_tokens=1, seed=SEED)
    replaced = [(N, K)] * 4 + [(len(teachers), K)]
    assert shapes == [(1, sum(map(len, prompts.values()))), *replaced, *[(N, 1)] * (SWEEP * K)]


def test_a_question_without_a_teacher_gets_an_empty_answer_and_the_others_their_own(
    system: System, prompts: dict[str, list[int]], teachers: dict[str, np.ndarray]
) -> None:
    found = {row.problem_id: row for row in all_answers(system, prompts, teachers, [TEACHER]) if row.condition == TEACHER}
    assert sorted(found) == sorted(prompts)
    for name in ("q00", "q07"):
        assert found[name] == Answer([], "", NO_TEACHER, problem_id=name, seed=SEED, condition=TEACHER)
    assert NO_TEACHER not in {found[name].finish for name in teachers}
    alone = all_answers(system, {"q19": prompts["q19"]}, teachers, [TEACHER])
    assert under(alone, TEACHER) == {"q19": found["q19"].tokens}


def test_a_batch_in_which_no_question_has_a_teacher_is_answered_empty(system: System, prompts: dict[str, list[int]]) -> None:
    found = all_answers(system, prompts, {}, [TEACHER])
    assert [(row.tokens, row.finish) for row in found if row.condition == TEACHER] == [([], NO_TEACHER)] * N


def test_each_hidden_state_is_read_as_its_likeliest_tokens(system: System, prompts: dict[str, list[int]]) -> None:
    _, rows = read_latents(system, prompts, 7, 4, SEED)
    assert len(rows) == N * K * 4
    by_step = {key: list(group) for key, group in itertools.groupby(rows, key=lambda row: (row.problem_id, row.step))}
    assert sorted(by_step) == list(itertools.product(sorted(prompts), range(1, K + 1)))
    for name in ("q00", "q11"):
        for k, hidden in enumerate(uncached(system, prompts[name])[1], 1):
            scores = system.model.lm_head(hidden).detach()
            found = by_step[name, k]
            assert [row.rank for row in found] == [1, 2, 3, 4]
            assert found[0].token == system.tokenizer.decode([int(scores.argmax())])
            expected = sorted(scores.softmax(-1).tolist(), reverse=True)[:4]
            np.testing.assert_allclose([row.probability for row in found], expected, rtol=0, atol=STORED)


def test_a_latent_step_that_is_not_finite_is_named(system: System, prompts: dict[str, list[int]]) -> None:
    with torch.no_grad():
        system.head.mlp[0].bias[0] = torch.nan
    with pytest.raises(NumericError, match=r"^q\d\d has a state that is not finite at latent step 1: check the model$"):
        read_latents(system, prompts, 7, 1, SEED)


THOUGHTS = {
    # 7 tokens at K = 3: round(7/3) - 1 = 1, round(14/3) - 1 = 4, and the last, 6
    "q01": ("<think>\n", 7, "\n</think>\n\nThe answer", [1, 4, 6]),
    "q02": ("<think>\n", 2, "\n</think>\n\nThe", [0, 0, 1]),
    "q03": ("<think>\n", 5, "", [1, 2, 4]),  # cut at the limit: round(5/3) - 1 = 1, round(10/3) - 1 = 2
    "q04": ("<think>\n\n</think>\n\n", 0, "The answer", None),
    "q05": ("The answer", 3, "", None),
}


@pytest.fixture
def thoughts(tokenizer: Any) -> list[Answer]:
    """Completions with thoughts of known length."""
    rng = np.random.default_rng(2)
    found = []
    for name, (before, length, after, _) in THOUGHTS.items():
        thought = rng.integers(0, 190, length).tolist()
        tokens = [*tokenizer.encode(before), *thought, *tokenizer.encode(after)]
        found.append(Answer(tokens, tokenizer.decode(tokens), "length", problem_id=name, seed=None, condition=TRAINED))
    return found


@pytest.mark.parametrize("cut_blocks", ["use", "drop"])
def test_teachers_are_the_last_hidden_states_at_k_even_places_of_each_thought(
    system: System, problems: list[dict[str, Any]], thoughts: list[Answer], cut_blocks: str
) -> None:
    thinker = system._replace(head=None, K=0, thinking=True)
    asked = [{"id": row["id"], "prompt_thinking": row["prompt_direct"][:-4]} for row in problems]
    found = teachers_of(thinker, asked, thoughts, pair=Pair(K, "even"), cut_blocks=cut_blocks, batch_tokens=200)
    assert sorted(found) == ["q01", "q02"] + ["q03"] * (cut_blocks == "use")
    by_id = {row["id"]: row["prompt_thinking"] for row in asked}
    for row in thoughts:
        if row.problem_id in found:
            prompt, at = by_id[row.problem_id], THOUGHTS[row.problem_id][3]
            with torch.no_grad():
                whole = system.model(torch.tensor([[*prompt, *row.tokens]]), output_hidden_states=True).hidden_states[-1][0]
            # behind the prompt, `<think>` and a newline
            expected = whole[[len(prompt) + 2 + one for one in at]].numpy()
            np.testing.assert_allclose(found[row.problem_id], expected, rtol=0, atol=STORED)


class PowerCut(Exception):
    """What ends a run from outside."""


def cut_before(number: int | None) -> Callable[[list[str], int], Iterator[str]]:
    """Shows the missing units, with a power cut in place of this one."""

    def show(units: list[str], total: int) -> Iterator[str]:
        assert len(units) == total
        for index, unit in enumerate(units):
            if index == number:
                raise PowerCut
            yield unit

    return show


def run(
    system: System,
    problems: list[dict[str, Any]],
    teachers: dict[str, np.ndarray],
    place: Work,
    *,
    seed: int = SEED,
    batch: int = 7,
    cut: int | None = None,
) -> list[str]:
    limits = {"conditions": REPLACED, "sweep": SWEEP, "top": 2, "batch": batch, "rows": 50, "max_new_tokens": MAX_NEW_TOKENS}
    return intervene_all(system, problems, teachers, **limits, seed=seed, work=place, show=cut_before(cut))


def published(folder: Path, place: Work, units: list[str]) -> Path:
    place.publish(folder / "probes", "answers", units)
    return folder / "probes"


@pytest.mark.slow
def test_batches_of_any_size_give_the_same_answers(
    system: System, problems: list[dict[str, Any]], teachers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    found = []
    for batch in (1, 7, 64):
        folder = tmp_path / str(batch)
        units = run(system, problems, teachers, work(folder), batch=batch)
        assert len(units) == 1 + -(-N // batch)
        found.append(answers.read(published(folder, work(folder), units)))
    assert found[0] == found[1] == found[2]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_has_each_seed_condition_and_question_once(
    system: System, problems: list[dict[str, Any]], teachers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    expected = [one for seed in (3, 5) for one in run(system, problems, teachers, work(unbroken), seed=seed)]
    with pytest.raises(PowerCut):
        run(system, problems, teachers, work(broken), seed=3, cut=2)
    kept = {path.name: path.stat().st_mtime_ns for path in (broken / "work").rglob("*.parquet")}
    assert sorted(kept) == ["seed-3-batch-00000.parquet", "seed-3-batch-00001.parquet", "seed-3-readout.parquet"]
    units = [one for seed in (3, 5) for one in run(system, problems, teachers, work(broken), seed=seed)]
    assert units == expected
    again = {path.name: path.stat().st_mtime_ns for path in (broken / "work").rglob("*.parquet")}
    assert {name: again[name] for name in kept} == kept, "what was committed is not made twice"
    one, two = published(unbroken, work(unbroken), units), published(broken, work(broken), units)
    for name in listed(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    rows = answers.read(two)
    keys = [(row.seed, row.condition, row.problem_id) for row in rows]
    ids = [row["id"] for row in problems]
    assert sorted(keys) == sorted(itertools.product((3, 5), (*REPLACED, *STEPS), ids))
    assert {len(steps) for steps in readout.read(two, 5).values()} == {K}
    noise = {seed: under([row for row in rows if row.seed == seed], NOISE) for seed in (3, 5)}
    assert noise[3] != noise[5], "each training seed has noise of its own"


@pytest.mark.slow
def test_what_was_made_and_what_lacked_a_teacher_is_counted(
    system: System, problems: list[dict[str, Any]], teachers: dict[str, np.ndarray], tmp_path: Path
) -> None:
    made = work(tmp_path).publish(tmp_path / "probes", "answers", run(system, problems, teachers, work(tmp_path)))
    assert made.counts["answers"] == N * (len(REPLACED) + len(STEPS))
    assert made.counts["without_teacher"] == 2
    assert made.counts["readouts"] == N * K * 2
    rows = answers.read(tmp_path / "probes")
    assert made.counts["tokens"] == sum(len(row.tokens) for row in rows)
    assert made.counts["hit_limit"] == sum(row.finish == "length" for row in rows) > 0
