"""Decoder layers in fewer calls have the states of their own code, and a layer that would not have them keeps its own."""

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from qthink_core.method.last_layer import wanted_positions
from qthink_core.numerics import short_layers
from qthink_core.numerics.products import chosen_for_speed
from qthink_core.numerics.short_layers import ShortLayers

# The design's bound for float32 sums in another order, relative to the largest value.
TOLERANCE = 3e-6
SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
# How many of two layers are computed in the short way. Those of other models differ in a factor, a rotation or a norm.
SHORT = {
    "qwen3": ({}, 2),
    "qwen2": ({}, 2),
    "llama": ({}, 2),
    "mistral": ({"sliding_window": None}, 2),
    "smollm3": ({"no_rope_layers": [1, 0]}, 1),
    "granite": ({"residual_multiplier": 0.5}, 0),
    "olmo2": ({}, 0),
    "gemma": ({}, 0),
    "cohere": ({}, 0),
    "phi3": ({}, 0),
}
measured = pytest.mark.skipif(not chosen_for_speed(), reason="short layers are not used on this processor")


def model(kind: str = "qwen3", **config: Any) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**SIZES, **config)).eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
    return made


def states(made: Any) -> torch.Tensor:
    ids, at = torch.arange(3, 14)[None], torch.arange(20, 31)[None]
    with torch.inference_mode():
        return made.get_decoder()(input_ids=ids, position_ids=at, use_cache=False).last_hidden_state


@measured
@pytest.mark.parametrize("kind", SHORT)
def test_the_layers_that_are_short_have_the_states_of_their_own_code(kind: str) -> None:
    config, number = SHORT[kind]
    made = model(kind, **config)
    short, expected = ShortLayers(made), states(made)
    assert len(short.layers) == number
    with short.used():
        found = states(made)
        assert sum("forward" in vars(layer) for layer in made.get_decoder().layers) == number
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert not any("forward" in vars(layer) for layer in made.get_decoder().layers)


@measured
def test_a_last_layer_that_computes_wanted_positions_alone_and_a_cache_of_transformers_work_in_short_layers() -> None:
    made, at = model(), torch.tensor([2, 10])
    ids = torch.arange(3, 14)[None]
    with torch.inference_mode():
        expected = made(input_ids=ids, use_cache=True)
        with ShortLayers(made).used():
            with wanted_positions(made, at):
                found = states(made)[0, at]
            again = made(input_ids=ids, use_cache=True)
    torch.testing.assert_close(found, states(made)[0, at], rtol=0, atol=TOLERANCE * found.abs().max().item())
    assert torch.equal(again.logits, expected.logits)
    assert torch.equal(again.past_key_values.layers[1].keys, expected.past_key_values.layers[1].keys)


@pytest.mark.parametrize("why", ["float64", "not chosen for speed", "a forward in place of the layer's own"])
def test_other_models_and_processors_keep_their_own_layers(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = model()
    if why == "float64":
        made = made.double()
    elif why == "not chosen for speed":
        monkeypatch.setattr(short_layers, "chosen_for_speed", lambda: False)
    else:
        for layer in made.model.layers:
            layer.forward = layer.forward
    assert not ShortLayers(made).layers
