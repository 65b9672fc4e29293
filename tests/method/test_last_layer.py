"""The shortened last layer gives the states of the whole one, for every architecture that we know to be used."""

from typing import Any

import pytest
import torch
import transformers

from qthink_core.method.hidden_states import last_hidden, pad
from qthink_core.method.latent_steps import read_prompts

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
# Phi3 has no q_proj of its own, Qwen2 biases, Gemma2 and Olmo2 norms behind the MLP, Cohere attention and MLP side by side.
ARCHITECTURES = ["Qwen3", "Llama", "Qwen2", "Mistral", "Gemma2", "Olmo2", "Phi3", "Qwen3Moe", "Cohere"]
# The same products over fewer rows: float32 rounding of two layers, relative to the largest value.
TOLERANCE = 1e-5


def model_of(architecture: str) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SIZES)
    return getattr(transformers, f"{architecture}ForCausalLM")(config).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n", [1, 3])
def test_the_last_positions_have_the_states_and_the_gradient_of_a_whole_pass(architecture: str, n: int) -> None:
    model = model_of(architecture)
    ids, mask = pad([[3, 4, 5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16, 17]], 0, "left")
    weight = torch.randn(3, n, 32, generator=torch.Generator().manual_seed(1))
    found = []
    for read in (None, n):
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        states = last_hidden(model, inputs_embeds=embedded, mask=mask, read=read)[:, -n:]
        assert states.shape == (3, n, 32)
        (states * weight).sum().backward()
        found.append((states.detach(), embedded.grad))
    for whole, short in zip(*found, strict=True):
        assert whole.abs().max() > 1e-2
        torch.testing.assert_close(short, whole, rtol=0, atol=TOLERANCE * whole.abs().max().item())


def test_the_cache_is_that_of_a_whole_pass(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3("float64")
    with torch.no_grad():
        context = read_prompts(model, questions[:5], 0)
        ids, mask = pad(questions[:5], 0, "left")
        whole = transformers.DynamicCache(config=model.config)
        last_hidden(model, input_ids=ids, mask=mask, cache=whole)
    for short, layer in zip(context.cache.layers, whole.layers, strict=True):
        torch.testing.assert_close(short.keys, layer.keys, rtol=0, atol=0)
        torch.testing.assert_close(short.values, layer.values, rtol=0, atol=0)


def test_the_last_layer_computes_one_position_of_a_prompt_and_all_keys(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    rows: dict[str, int] = {}
    for number, layer in enumerate(model.model.layers):
        for name, part in {"k": layer.self_attn.k_proj, "gate": layer.mlp.gate_proj, "o": layer.self_attn.o_proj}.items():
            part.register_forward_hook(lambda _, i, out, key=f"{name}{number}": rows.update({key: out[..., 0].numel()}))
    with torch.no_grad():
        read_prompts(model, questions[:5], 0)
    everything = 5 * max(len(prompt) for prompt in questions[:5])
    assert rows == {"k0": everything, "gate0": everything, "o0": everything, "k1": everything, "gate1": 5, "o1": 5}


def test_a_pass_afterwards_is_whole_again(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    ids, mask = pad(questions[:3], 0, "left")
    with torch.no_grad():
        before = last_hidden(model, input_ids=ids, mask=mask)
        last_hidden(model, input_ids=ids, mask=mask, read=1)
        assert torch.equal(last_hidden(model, input_ids=ids, mask=mask), before)
