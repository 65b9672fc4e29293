"""-log p in blocks: values and gradients are those of all logits at once."""

from typing import Any

import pytest
import torch
from test_packing import PACKED, model_of
from torch.nn import functional

from qthink_core.method.fast_training import answer_tokens
from qthink_core.method.fast_training.answer_tokens import negative_log_likelihood
from qthink_core.method.hidden_states import logits
from qthink_core.numerics.products import faster

# The design's bound for float32 sums in another order, relative to the largest value.
TOLERANCE = 3e-6
T = 300  # five blocks of the fewest rows, the last of which is not full


def both(model: Any, dtype: torch.dtype, n: int = T) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Values, and gradients of a sum in which each token has its own weight: in blocks, and of all logits at once."""
    torch.manual_seed(1)
    hidden, labels, weights = torch.randn(n, 32, dtype=dtype), torch.randint(0, 50, (n,)), torch.rand(n)
    model, found = model.to(dtype), []
    for compute in (
        lambda h: negative_log_likelihood(model, h, labels),
        lambda h: functional.cross_entropy(logits(model, h), labels, reduction="none"),
    ):
        leaf = hidden.clone().requires_grad_()
        values = compute(leaf)
        (values * weights).sum().backward()
        found.append((values.detach(), leaf.grad))
    return found


@pytest.mark.parametrize("architecture", [*PACKED, "Gemma2"])
def test_values_and_gradients_are_those_of_all_logits_at_once(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_tokens, "LOGITS", 1)
    model = model_of(architecture).requires_grad_(False)
    blocks = list[int]()
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: blocks.append(len(inputs[0])))
    in_blocks, at_once = both(model, torch.float32)
    assert blocks == [64, 64, 64, 64, 44, 300]
    for found, expected in zip(in_blocks, at_once, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.skipif(not faster(), reason="oneDNN is not faster on this processor, so it is not used")
def test_the_head_computes_by_onednn_from_so_many_rows_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = list[int](), answer_tokens.fixed
    monkeypatch.setattr(answer_tokens, "fixed", lambda *given: made.append(1) or real(*given))
    model = model_of("Qwen3").requires_grad_(False)
    both(model, torch.float32, answer_tokens.ENOUGH - 1)
    assert made == []
    both(model, torch.float32, answer_tokens.ENOUGH)
    assert made == [1, 1]


def test_a_trained_head_gets_its_gradient() -> None:
    model = model_of("Qwen3")
    both(model, torch.float32)
    once = model.lm_head.weight.grad.clone() / 2  # `both` added the same gradient twice
    model.zero_grad()
    torch.manual_seed(1)
    hidden, labels, weights = torch.randn(T, 32), torch.randint(0, 50, (T,)), torch.rand(T)
    scores = functional.linear(hidden, model.lm_head.weight)
    (functional.cross_entropy(scores, labels, reduction="none") * weights).sum().backward()
    torch.testing.assert_close(once, model.lm_head.weight.grad, rtol=0, atol=TOLERANCE * once.abs().max().item())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-7), (torch.float64, 1e-6)])
def test_values_are_in_float32_whatever_the_model_computes_in(dtype: torch.dtype, tolerance: float) -> None:
    in_blocks, at_once = both(model_of("Qwen3").requires_grad_(False), dtype)
    assert in_blocks[0].dtype == torch.float32
    assert in_blocks[1].dtype == dtype
    largest = [one.abs().max().item() for one in at_once]
    torch.testing.assert_close(in_blocks[0], at_once[0], rtol=0, atol=tolerance * largest[0])
    torch.testing.assert_close(in_blocks[1], at_once[1], rtol=0, atol=tolerance * largest[1])


def test_without_answers_there_are_no_values_and_a_gradient_of_zeros() -> None:
    model = model_of("Qwen3").requires_grad_(False)
    hidden = torch.randn(0, 32, requires_grad=True)
    negative_log_likelihood(model, hidden, torch.zeros(0, dtype=torch.long)).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, 32)
