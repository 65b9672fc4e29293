"""RMS norms with a gradient of their own: which modules they are, and that values and gradients are those of autograd."""

from typing import Any

import pytest
import torch
from test_packing import model_of
from torch import nn

from qthink_core.method.fast_training.norms import own_gradients, rms_norms

# The design's bound for float32 sums in another order, relative to the largest value.
TOLERANCE = 3e-6


def frozen(architecture: str) -> Any:
    model = model_of(architecture)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.requires_grad_(False)


# two norms a layer and the last one; Qwen3 has two more a layer, for queries and keys
@pytest.mark.parametrize(("architecture", "n"), [("Qwen3", 9), ("Llama", 5), ("Granite", 5), ("Cohere", 0), ("Gemma2", 0)])
def test_norms_are_found_by_what_they_compute(architecture: str, n: int) -> None:
    """Cohere has layer norms, and Gemma adds 1 to the weights of its norms."""
    assert len(rms_norms(frozen(architecture))) == n


def test_trained_norms_and_half_precision_are_left_as_they_are() -> None:
    model = frozen("Llama")
    model.model.norm.requires_grad_(True)
    assert model.model.norm not in [module for module, _ in rms_norms(model)]
    assert rms_norms(frozen("Llama").bfloat16()) == []
    # of norms that were found, those that have another dtype since
    model = frozen("Llama")
    norms = rms_norms(model)
    model.bfloat16()
    with own_gradients(norms):
        assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_values_and_gradients_are_those_of_autograd(scale: float) -> None:
    model = frozen("Qwen3")
    norm = model.model.norm
    torch.manual_seed(3)
    inputs, weights, found = torch.randn(2, 5, 32) * scale, torch.randn(2, 5, 32), []
    norms = rms_norms(model)
    for used in ([], norms):
        leaf = inputs.clone().requires_grad_()
        with own_gradients(used):
            values = norm(leaf)
        (values * weights).sum().backward()
        found.append((values.detach(), leaf.grad))
    for expected, own in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=0, atol=TOLERANCE * expected.abs().max().item())
    assert not any("forward" in vars(module) for module, _ in norms)
