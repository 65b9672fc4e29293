"""Packs: every sequence once, within the limit, each prompt read once, and the states of each sequence alone."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.method.extraction import Row
from qthink_core.method.hidden_states import can_pack, read_positions
from qthink_core.method.packing.layouts import Batch, Span, alike, layout
from qthink_core.method.packing.reading import _Reader, packed
from qthink_core.method.packing.windows import PASSES, Part, windows
from qthink_core.method.positions import evenly

K = 3
# The design's bound for float32 sums in another order, for states near 1; relative to the largest value.
TOLERANCE = 3e-6
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
PACKED = ["Qwen3", "Llama", "Qwen2", "Olmo2", "Phi3", "Qwen3Moe", "Cohere", "Granite"]
NOT_PACKED = ["Mistral", "Gemma2"]


def rows_of(prompts: list[int], thoughts: list[list[int]], seed: int = 0) -> list[Row]:
    """Rollouts of prompts with these lengths; all tokens are random."""
    rng = np.random.default_rng(seed)
    found = []
    for number, (n, lengths) in enumerate(zip(prompts, thoughts, strict=True)):
        prompt = [number + 3, *rng.integers(3, 50, n - 1).tolist()]
        for index, length in enumerate(lengths):
            rollout = Rollout([], "", "stop", problem_id=f"p{number}", rollout=index)
            tokens = [*prompt, *rng.integers(3, 50, length).tolist()]
            found.append(Row(rollout, length, tokens, [n + at for at in evenly(length, K)], n))
    return found


ROWS = rows_of([5, 9, 1], [[4, 17, 6, 5], [1, 30], [8]])


def model_of(architecture: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SIZES)
    return getattr(transformers, f"{architecture}ForCausalLM")(config).eval()


@pytest.mark.parametrize("architecture", [*PACKED, *NOT_PACKED])
@pytest.mark.parametrize("batch_tokens", [3, 45, 1000])
def test_the_states_are_those_of_each_sequence_alone(architecture: str, batch_tokens: int) -> None:
    model = model_of(architecture)
    assert can_pack(model) == (architecture in PACKED)
    found = read_positions(model, ROWS, K, batch_tokens, "float32")
    with torch.no_grad():
        for row, states in zip(ROWS, found, strict=True):
            out = model(input_ids=torch.tensor([row.tokens]), output_hidden_states=True)
            expected = out.hidden_states[-1][0, row.positions].numpy()
            np.testing.assert_allclose(states, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(
    "setting",
    [
        {"attn_logit_softcapping": 5.0},
        {"sliding_window": 8},
        {"layer_types": ["full_attention", "sliding_attention"]},
        {"rope_parameters": {"rope_type": "dynamic"}},
    ],
)
def test_a_model_with_another_attention_is_not_packed(setting: dict[str, Any]) -> None:
    model = model_of("Llama")
    assert can_pack(model)
    for name, value in setting.items():
        setattr(model.config, name, value)
    assert not can_pack(model)
    model = model_of("Llama")
    model.config._attn_implementation = "eager"
    assert not can_pack(model)


def test_no_token_is_read_twice_or_in_vain() -> None:
    model, calls, last = model_of("Qwen3"), list[int](), list[int]()
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].shape[1]))
    model.model.layers[-1].mlp.gate_proj.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0].shape[1]))
    read_positions(model, ROWS, K, 1000, "float32")
    assert calls == [5 + 4 + 17 + 6 + 5 + 9 + 1 + 30 + 1 + 8] == [86]
    # the thought of one token has one position, three times
    assert last == [7 * K - 2]
    read_positions(model, ROWS, K, 5, "float32")
    # a window is read layer by layer, in passes of five tokens
    assert calls[1:] == [5 + 17 + 6 + 5 + 4, 9 + 30 + 1, 1 + 8]
    found = [parts for window in windows(ROWS, 5) for parts in window]
    wanted = [[at for part in parts for at in ROWS[part.row].positions if part.start <= at < part.stop] for parts in found]
    without = [at for at in wanted if not at]
    assert len(last[1:]) == len(found) > len(without) > 0
    assert sum(last[1:]) == 7 * K - 2 + len(without)  # a model need not be able to compute nothing


def test_a_pass_is_full_and_what_does_not_fit_goes_on_in_the_next() -> None:
    first = [
        [Part(0, 0, 5), Part(1, 5, 16)],
        [Part(1, 16, 22), Part(2, 5, 11), Part(3, 5, 9)],
        [Part(3, 9, 10), Part(0, 5, 9)],
    ]
    assert windows(ROWS[:4], 16) == [first]


def test_a_window_ends_with_a_sequence_and_has_more_passes_than_the_limit_only_for_a_longer_one() -> None:
    found = windows(ROWS[:4], 2)
    assert [[part for parts in window for part in parts][-1].stop for window in found] == [5, 22, 9]
    assert [len(window) for window in found] == [3, 9, 8]
    assert len(found[1]) > PASSES


def test_prompts_of_the_same_tokens_are_one_and_one_that_begins_another_is_not() -> None:
    rows = [row._replace(prompt=2) for row in ROWS[:2]]
    parts = [Part(1, 5, 22), Part(0, 5, 9), Part(2, 0, 2), Part(3, 2, 22), Part(2, 2, 9)]
    assert windows([*ROWS[:2], *rows], 1000) == [[[Part(0, 0, 5), *parts]]]


def visible(batches: list[Batch], kept: np.ndarray, every: np.ndarray) -> list[list[int]]:
    """The tokens that each query of the batches attends to, one query after the other."""
    found = []
    for batch in batches:
        keys = kept[batch.keys] if isinstance(batch.keys, tuple) else every[batch.keys.numpy()]
        n = batch.queries.shape[1]
        seen = batch.mask()
        mask = np.tri(n, dtype=bool)[None] if seen is None else seen[:, 0].numpy()
        found += [keys[b][mask[b % len(mask), q]].tolist() for b in range(len(keys)) for q in range(n)]
    return found


@given(
    st.lists(st.tuples(st.integers(1, 12), st.lists(st.integers(1, 30), min_size=1, max_size=6)), min_size=1, max_size=6),
    st.integers(1, 120),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_every_token_attends_to_all_tokens_before_it_in_its_sequence_and_to_no_other(
    sizes: list[tuple[int, list[int]]], batch_tokens: int, masked: bool
) -> None:
    rows = rows_of([prompt for prompt, _ in sizes], [thoughts for _, thoughts in sizes])
    read = windows(rows, batch_tokens)
    todo, ends = [parts for window in read for parts in window], set(np.cumsum([len(window) for window in read]) - 1)
    assert sum(part.stop - part.start for parts in todo for part in parts) == sum(n + sum(own) for n, own in sizes)
    kept, states = np.full(100, -1), dict[tuple[int, int], list[int]]()
    for number, parts in enumerate(todo):
        following = todo[number + 1][0] if number + 1 < len(todo) else None
        made = layout(rows, parts, following, masked)
        assert len(made.ids) == batch_tokens or number in ends
        if made.grows:
            kept[made.grows] = made.ids[: made.grows.stop - made.grows.start]
        every = np.concatenate([kept[: made.held], made.ids.numpy()])
        seen = visible(made.inner.batches, kept, every)
        sources = zip(((row, at) for row, start, stop in parts for at in range(start, stop)), made.inner.source, strict=True)
        assert all(seen[source] == rows[row].tokens[: at + 1] for (row, at), source in sources)
        seen = visible(made.last.batches, kept, every)
        for row, step, which in zip(made.rows, made.steps, made.which, strict=True):
            states[row, step] = seen[made.last.source[which]]
            assert made.ids[made.read[which]] == rows[row].tokens[rows[row].positions[step]]
        if made.kept is not None:
            kept[: len(made.kept)] = every[made.kept]
        if number in ends:
            kept[made.carried :] = -1  # the next window has those of its prompt alone
    assert states == {(n, k): row.tokens[: row.positions[k] + 1] for n, row in enumerate(rows) for k in range(K)}


def test_a_block_without_a_usable_thought_needs_no_pass() -> None:
    assert list(packed(model_of("Qwen3"), [], 1000)) == []


def test_the_attention_of_a_model_is_its_own_again_even_after_an_error() -> None:
    model = model_of("Qwen3")
    with pytest.raises(IndexError):
        list(packed(model, [ROWS[0]._replace(tokens=[1000] * 9)], 1000))
    assert model.config._attn_implementation == "sdpa"
    ids = torch.tensor([ROWS[0].tokens])
    before = model_of("Qwen3")(input_ids=ids).logits
    assert torch.equal(model(input_ids=ids).logits, before)


def test_spans_of_similar_size_share_an_attention_batch() -> None:
    spans = [Span(np.arange(n), np.arange(n), np.arange(n)) for n in (40, 8, 10, 11, 50, 60)]
    assert alike(spans, masked=True) == [[1, 2, 3], [0, 4, 5]]
    # keys that an earlier pass has read are not gathered
    assert alike([*spans, spans[2]._replace(keys=None)], masked=True) == [[1, 2], [6], [3], [0, 4, 5]]


def test_nothing_keeps_the_keys_and_values_of_a_model_that_has_been_read() -> None:
    model = model_of("Qwen3")
    made, kept = list[Any](), list[Any]()
    for _ in packed(model, ROWS, 30):
        made += [one for one in gc.get_objects() if isinstance(one, _Reader)]
    kept = [weakref.ref(one) for one in made]
    del made
    assert [one() for one in kept] == [None] * len(kept) != []


def test_between_windows_only_the_keys_and_values_of_their_prompt_are_held() -> None:
    model, reader = model_of("Qwen3"), None
    read = windows(ROWS[:4], 2)
    todo = [parts for window in read for parts in window]
    following = iter([*(parts[0] for parts in todo[1:]), None])
    reader = _Reader(model, max(parts[0].stop for parts in todo))
    held = []
    for window in read:
        reader.read([layout(ROWS[:4], parts, next(following)) for parts in window])
        held.append({len(states) for both in reader.prompts.values() for states in both})
    assert held == [{5}, {5}, {0}]
    assert len(reader.prompts) == len(model.model.layers)
    # the room is that of one layer
    assert [states.shape[0] for states in reader.kept] == [22, 22]


def test_the_embeddings_that_a_models_forward_goes_on_with_are_not_written_over() -> None:
    model, made = model_of("Qwen3"), list[tuple[torch.Tensor, torch.Tensor]]()
    model.model.embed_tokens.register_forward_hook(lambda _, inputs, output: made.append((inputs[0], output)))
    read_positions(model, ROWS, K, 30, "float32")
    assert made
    assert all(torch.equal(model.model.embed_tokens.weight[ids], output) for ids, output in made)
