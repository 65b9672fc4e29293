"""Packs: every sequence once, within the limit, each prompt read once, and the states of each sequence alone."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.method import packing
from qthink_core.method.extraction import Row
from qthink_core.method.hidden_states import read_positions
from qthink_core.method.packing import can_pack, layout, packs
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
@pytest.mark.parametrize("batch_tokens", [1, 45, 1000])
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
    [{"attn_logit_softcapping": 5.0}, {"sliding_window": 8}, {"layer_types": ["full_attention", "sliding_attention"]}],
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


def test_a_prompt_is_read_once_and_no_token_in_vain() -> None:
    model, calls = model_of("Qwen3"), list[tuple[int, ...]]()
    model.model.layers[0].register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape[:2])))
    last: list[int] = []
    model.model.layers[-1].mlp.gate_proj.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0].shape[1]))
    read_positions(model, ROWS, K, 1000, "float32")
    assert calls == [(1, 5 + 4 + 17 + 6 + 5 + 9 + 1 + 30 + 1 + 8)]
    # the thought of one token has one position, three times
    assert last == [7 * K - 2]


def test_prompts_of_the_same_tokens_are_one_and_one_that_begins_another_is_not() -> None:
    rows = [row._replace(prompt=2) for row in ROWS[:2]]
    assert packs([*ROWS[:2], *rows], 1000) == [packing.Pack([0, 1, 2, 3], [[0, 1], [2, 3]])]


def test_a_pack_is_full_at_its_limit_and_not_beyond() -> None:
    assert [len(packs(ROWS[:4], limit)) for limit in (37, 36)] == [1, 2]  # 5 + 4 + 17 + 6 + 5 tokens
    assert [len(packs(ROWS, limit)) for limit in (86, 85)] == [1, 2]


def test_a_prompt_with_more_sequences_than_fit_has_packs_of_its_own() -> None:
    # 5 + 4 + 17 + 6 + 5 tokens do not fit into 30, so 17 + 6 and 5 + 4 are read with the prompt each
    found = packs(ROWS, 30)
    assert [pack.members for pack in found] == [[1, 2], [3, 0], [5], [4], [6]]
    assert [len(layout(ROWS, pack).ids) for pack in found][:2] == [28, 14]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.lists(st.integers(1, 30), min_size=1, max_size=6)), min_size=1, max_size=6),
    st.integers(1, 120),
)
@settings(deadline=None, max_examples=60)
def test_packs_hold_every_sequence_once_within_the_limit_and_every_output_has_its_place(
    sizes: list[tuple[int, list[int]]], batch_tokens: int
) -> None:
    rows = rows_of([prompt for prompt, _ in sizes], [thoughts for _, thoughts in sizes])
    found = packs(rows, batch_tokens)
    assert sorted(index for pack in found for index in pack.members) == list(range(len(rows)))
    for pack in found:
        assert sorted(pack.members) == sorted(index for group in pack.groups for index in group)
        made = layout(rows, pack)
        assert len(made.ids) <= batch_tokens or len(pack.members) == 1
        # each token of the pack is the one that its place in the attention batches holds
        flat = torch.cat([batch.flatten() for batch in made.batches])
        assert torch.equal(flat[made.source], torch.arange(len(made.ids)))
        for member, at in zip(pack.members, made.wanted, strict=True):
            assert made.ids[at].tolist() == [rows[member].tokens[position] for position in rows[member].positions]
            assert made.positions[at].tolist() == list(rows[member].positions)
    whole = [sum(thoughts) + prompt <= batch_tokens for prompt, thoughts in sizes]
    if all(whole):
        read = sum(len(layout(rows, pack).ids) for pack in found)
        assert read == sum(prompt + sum(thoughts) for prompt, thoughts in sizes)


def test_the_attention_of_a_model_is_its_own_again_even_after_an_error() -> None:
    model = model_of("Qwen3")
    (pack,) = packs(ROWS, 1000)
    made = layout(ROWS, pack)
    with pytest.raises(IndexError):
        packing.packed_states(model, made._replace(ids=made.ids + 1000))
    assert model.config._attn_implementation == "sdpa"
    ids = torch.tensor([ROWS[0].tokens])
    before = model_of("Qwen3")(input_ids=ids).logits
    assert torch.equal(model(input_ids=ids).logits, before)


def test_sequences_of_similar_length_share_an_attention_batch() -> None:
    lengths = dict(enumerate([40, 8, 10, 11, 50, 51]))
    assert packing.alike(list(lengths), lengths) == [[1, 2], [3], [0, 4], [5]]
