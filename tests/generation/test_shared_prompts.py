"""Rows that share their prompt have the states of whole sequences, and move no prompt."""

import logging
from typing import Any

import pytest
import torch
import transformers

from qthink_core.generation import reading
from qthink_core.generation.reading import branch, read, together
from qthink_core.generation.shared_prompts import SharedPrompts
from qthink_core.method.hidden_states import last_hidden
from qthink_core.method.latent_steps import Context, read_prompts

# Float64 rounding over two layers.
EXACT = 1e-10


def step(model: Any, context: Context, tokens: torch.Tensor) -> Context:
    """The context after new tokens (N, T)."""
    mask = torch.cat([context.mask, torch.ones_like(tokens)], dim=1)
    hidden = last_hidden(model, input_ids=tokens, mask=mask, cache=context.cache)
    return Context(context.cache, mask, hidden[:, -1])


def select(context: Context, rows: list[int]) -> Context:
    context.cache.batch_select_indices(torch.tensor(rows))
    return Context(context.cache, context.mask[rows], context.hidden[rows])


def same(model: Any, context: Context, texts: list[list[int]]) -> None:
    """The hidden state of each row is that of its whole text."""
    for hidden, text in zip(context.hidden, texts, strict=True):
        ids = torch.tensor([text])
        expected = last_hidden(model, input_ids=ids, mask=torch.ones_like(ids))[0, -1]
        torch.testing.assert_close(hidden, expected, rtol=0, atol=EXACT)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("tokens", "spread"),
    # a pack for each prompt; one for all, with an attention batch for each length, as committed, or for all
    [(1, 1.25), (2048, 1.0), (2048, 1.25), (2048, 100.0)],
)
def test_rows_are_doubled_moved_and_dropped_and_have_the_states_of_whole_sequences(
    qwen3: Any, questions: list[list[int]], tokens: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_TOKENS", tokens)
    monkeypatch.setattr(reading, "SPREAD", spread)
    model, prompts = qwen3("float64"), [row[:n] for row, n in zip(questions, (9, 20, 1, 14, 20), strict=False)]
    context, texts, number = read(model, prompts, 0), [list(one) for one in prompts], 0
    same(model, context, texts)
    for rows, T in (([0, 1, 2, 3, 4, 0, 0, 3], 1), ([0, 7, 2, 3, 5], 2), ([4, 1, 3, 3, 0], 1), ([2, 0], 3), ([1], 1)):
        context = select(context, rows)
        new = [[100 + number + row + t for t in range(T)] for row in range(len(rows))]
        texts, number = [[*texts[row], *more] for row, more in zip(rows, new, strict=True)], number + 10
        context = step(model, context, torch.tensor(new))
        same(model, context, texts)
    assert len(context.cache.keys[0]) == 1  # the prompt of the row that is left


@torch.inference_mode()
def test_rows_with_unlike_numbers_of_tokens_behind_one_prompt_are_joined(qwen3: Any, questions: list[list[int]]) -> None:
    model, prompts = qwen3("float64"), [row[:n] for row, n in zip(questions, (9, 14, 4), strict=False)]
    begun = read(model, prompts, 0)
    parts = [
        branch(begun),
        step(model, branch(begun, [2, 0]), torch.tensor([[7, 8, 9], [10, 11, 12]])),
        step(model, branch(begun), torch.tensor([[3], [4], [5]])),
    ]
    texts = [*prompts, [*prompts[2], 7, 8, 9], [*prompts[0], 10, 11, 12], *([*one, n + 3] for n, one in enumerate(prompts))]
    made = together(parts)
    for new in ([[20 + row] for row in range(8)], [[30 + row, 40 + row] for row in range(8)]):
        texts = [[*text, *more] for text, more in zip(texts, new, strict=True)]
        made = step(model, made, torch.tensor(new))
        same(model, made, texts)
    same(model, step(model, begun, torch.tensor([[1], [2], [3]])), [[*one, n + 1] for n, one in enumerate(prompts)])


@torch.inference_mode()
def test_the_rows_of_a_prompt_do_not_copy_it(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    context = read(model, questions[:3], 0)
    places = [states.data_ptr() for states in (*context.cache.keys, *context.cache.values)]
    context = step(model, select(context, [0, 1, 2, 2, 1, 0, 0]), torch.arange(7)[:, None])
    assert [states.data_ptr() for states in (*context.cache.keys, *context.cache.values)] == places
    assert [states.shape[0] for states in context.cache.keys] == [3, 3]
    assert [layer.keys.shape[2] for layer in context.cache.own] == [1, 1]


def test_a_model_with_another_attention_is_read_in_padded_rows_and_the_log_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "pad_token_id": 0}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "sliding_window": 4}
    model = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, **heads)).eval()
    prompts = [[3, 4, 5, 6, 7, 8], [9, 10]]
    reading._say.cache_clear()
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        found, again = (read(model, prompts, 0) for _ in range(2))
        expected = read_prompts(model, prompts, 0)
    assert not isinstance(found.cache, SharedPrompts)
    assert torch.equal(found.hidden, expected.hidden)
    assert torch.equal(again.hidden, expected.hidden)
    said = "MistralForCausalLM has an attention of its own, so prompts are padded and each answer keeps a copy of its prompt"
    assert [record.message for record in caplog.records] == [said]
