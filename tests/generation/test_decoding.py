from typing import Any

import numpy as np
import pytest
import torch
from engines import requests
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from qthink_core.artifacts.completions import Completion
from qthink_core.generation.decoding import decode, sampler
from qthink_core.generation.hf_engine import complete
from qthink_core.generation.requests import Sampling
from qthink_core.method.latent_steps import read_prompts
from qthink_core.models.loading import System

V = 40
SETTINGS = [
    (0.6, 0.95, 20),  # the method's
    (1.0, 1.0, 0),  # nothing is filtered
    (0.7, 0.5, 0),
    (1.3, 1.0, 5),
    (1.0, 0.05, 0),  # only the likeliest token is left
    (0.6, 0.95, 100),  # top-k beyond the vocabulary
]
# Hugging Face sums probabilities in float32, we in float64.
PROBABILITY_TOLERANCE = 1e-6


def huggingface_probabilities(scores: torch.Tensor, temperature: float, top_p: float, top_k: int) -> torch.Tensor:
    """Temperature, then top-k, then top-p, by the classes of `generate`."""
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        scores = TopKLogitsWarper(top_k)(None, scores)
    return TopPLogitsWarper(top_p)(None, scores).softmax(-1)


def watched(model: Any) -> list[int]:
    """The rows of every pass through the model's body from now on."""
    n_rows: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: n_rows.append(inputs[0].shape[0]))
    return n_rows


def key(seed: int, problem_id: str, index: int) -> list[int]:
    return Sampling(seed, 1.0, 1.0, 0).key(problem_id, index)


def run(model: Any, prompts: list[list[int]], tokenizer: Any, max_new_tokens: int) -> tuple[list[Completion], list[int]]:
    """Greedy completions, and the rows of each decoding pass."""
    asked = requests({f"p{index}": prompt for index, prompt in enumerate(prompts)})
    with torch.inference_mode():
        context = read_prompts(model, prompts, tokenizer.pad_token_id)
        n_rows = watched(model)
        done = complete(System(model, tokenizer, None, 0, thinking=False), asked, context, max_new_tokens)
    return [row for (row,) in done], n_rows


def test_every_computed_row_emits_a_token(qwen3: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    """Each row's first token comes from the context; every other one costs one row of one pass, and nothing else does."""
    done, n_rows = run(qwen3(), questions[:48], tokenizer, 30)
    emitted = sum(len(row.tokens) for row in done)
    assert sum(n_rows) == emitted - 48
    assert n_rows == sorted(n_rows, reverse=True)
    assert len(set(n_rows)) > 5  # rows did leave on the way


@pytest.mark.slow
def test_completions_of_a_prompt_that_agree_so_far_are_computed_once(
    qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    """Six of each of five prompts: a pass has as many rows as there are distinct beginnings, and no text changes by it."""
    model, G, limit = qwen3("float64"), 6, 12
    keys = [key(0, f"p{i}", g) for i in range(5) for g in range(G)]
    with torch.inference_mode():
        context = read_prompts(model, questions[:5], tokenizer.pad_token_id)
        n_rows = watched(model)
        choose = sampler(keys, 0.3, 1.0, 0, limit)
        together = decode(model, context, choose, {tokenizer.eos_token_id}, limit, each=G)
        seen = list(n_rows)
        for number, tokens in enumerate(together):
            alone = read_prompts(model, [questions[number // G]], tokenizer.pad_token_id)
            one = sampler([keys[number]], 0.3, 1.0, 0, limit)
            assert decode(model, alone, one, {tokenizer.eos_token_id}, limit) == [tokens]
    begun = [
        {(number // G, *tokens[:length]) for number, tokens in enumerate(together) if len(tokens) > length}
        for length in range(1, limit)
    ]
    assert seen == [len(texts) for texts in begun if texts]
    assert 5 < seen[1] < 5 * G  # some have parted by then, some not


def test_a_completion_ends_at_its_first_end_token_and_holds_it(
    qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    done, _ = run(qwen3(), questions[:48], tokenizer, 30)
    eos = tokenizer.eos_token_id
    assert {row.finish for row in done} == {"stop", "length"}
    for row in done:
        if row.finish == "stop":
            assert row.tokens.index(eos) == len(row.tokens) - 1
        else:
            assert eos not in row.tokens
            assert len(row.tokens) == 30


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_a_lower_limit_cuts_the_same_completions(qwen3: Any, tokenizer: Any, questions: list[list[int]], limit: int) -> None:
    model = qwen3("float64")
    whole, _ = run(model, questions[:32], tokenizer, 30)
    cut, _ = run(model, questions[:32], tokenizer, limit)
    assert [row.tokens for row in cut] == [row.tokens[:limit] for row in whole]
    ended = [row.tokens[-1] == tokenizer.eos_token_id for row in cut]
    assert [row.finish for row in cut] == ["stop" if end else "length" for end in ended]


def test_no_pass_is_spent_on_a_token_that_nobody_reads(qwen3: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    for limit in (1, 5):
        done, n_rows = run(qwen3(), questions[:8], tokenizer, limit)
        assert "length" in {row.finish for row in done}
        assert len(n_rows) == limit - 1


def test_greedy_decoding_is_hugging_faces_generate(qwen3: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    model = qwen3("float64")
    done, _ = run(model, questions[:10], tokenizer, 20)
    for prompt, row in zip(questions[:10], done, strict=True):
        expected = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=20
        )
        assert row.tokens == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), SETTINGS)
def test_a_draw_is_the_token_in_whose_share_of_the_line_its_number_falls(
    temperature: float, top_p: float, top_k: int
) -> None:
    """The shares are Hugging Face's probabilities, likeliest token first: an exact test of 9,000 draws."""
    torch.manual_seed(0)
    scores, n = torch.randn(3, V) * 2, 3_000
    keys = [key(seed, "p", 0) for seed in range(n)]
    uniform = np.array([np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).random() for key in keys])
    choose = sampler(keys, temperature, top_p, top_k, 1)
    for row, probability in zip(scores, huggingface_probabilities(scores, temperature, top_p, top_k), strict=True):
        tokens = choose(row.expand(n, V), torch.arange(n), 0, torch.arange(n)).numpy()
        assert (probability[tokens] > 0).all()
        ids = probability.argsort(descending=True)
        ends = probability[ids].double().cumsum(0).numpy()
        share = ids.argsort()[tokens].numpy()  # which share each drawn token has on the line
        assert (uniform < ends[share] + PROBABILITY_TOLERANCE).all()
        assert (uniform > np.concatenate([[0], ends])[share] - PROBABILITY_TOLERANCE).all()


@pytest.mark.slow
def test_the_draws_of_many_seeds_have_those_frequencies() -> None:
    torch.manual_seed(1)
    n = 40_000
    scores = torch.randn(1, V) * 2
    expected = huggingface_probabilities(scores, 0.6, 0.95, 20)[0].double()
    choose = sampler([key(seed, "p", 0) for seed in range(n)], 0.6, 0.95, 20, 1)
    counts = torch.bincount(choose(scores, torch.arange(n), 0, torch.zeros(n, dtype=torch.long)), minlength=V).double()
    kept = expected > 0
    assert counts[~kept].sum() == 0
    chi_squared = ((counts - n * expected)[kept] ** 2 / (n * expected)[kept]).sum()
    # 20 cells at most: the 99.99 % quantile of chi squared with 19 degrees of freedom is 50; the seeds are fixed.
    assert chi_squared < 50


def test_token_t_uses_the_t_th_number_of_its_rows_own_stream() -> None:
    scores = torch.zeros(1, V)
    keys = [key(7, name, index) for name in ("a", "b") for index in range(3)]
    together = sampler(keys, 1.0, 1.0, 0, 12)
    rows = torch.tensor([4, 1])
    for step in (0, 3, 11):
        pair = together(scores.expand(2, V), rows, step, torch.arange(2))
        for row, token in zip(rows.tolist(), pair.tolist(), strict=True):
            # another limit on tokens does not move the stream
            alone = sampler([keys[row]], 1.0, 1.0, 0, 50)
            assert alone(scores, torch.tensor([0]), step, torch.tensor([0])).item() == token


def test_a_rollouts_key_is_seed_problem_and_index_alone() -> None:
    keys = {tuple(key(seed, name, index)) for seed in (0, 1) for name in ("p1", "p2") for index in (0, 1)}
    assert len(keys) == 8
    assert key(3, "gsm8k-test-00012", 5) == key(3, "gsm8k-test-00012", 5)
    # sha256("gsm8k-test-00012") starts with these 8 bytes, on every machine
    assert key(3, "gsm8k-test-00012", 5)[1] == int("5c4cebf4301e5611", 16)
