"""Merged adapters against PEFT's own passes: the same losses and gradients, and nothing of it left behind."""

from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear

from qthink_core.method.fast_training.merged_lora import FEW, merged_weights, narrow_is_less
from qthink_core.method.losses import Objective
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.training.loop import backward

K, D = 6, 32
# The same function in another order. Float32 rounds each of seven passes; a gradient is relative to the largest one.
LOSS_TOLERANCE = {"float64": 1e-6, "float32": 1e-5}
GRADIENT_TOLERANCE = {"float64": 3e-6, "float32": 1.2e-4}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n_latent", [K, 0])
def test_losses_and_gradients_are_those_of_unmerged_adapters(
    student: Any, questions: list[list[int]], tokenizer: Any, dtype: str, n_latent: int
) -> None:
    rng = np.random.default_rng(0)
    rows = [Example(f"p{i}", questions[i], rng.integers(0, 256, i + 2).tolist()) for i in range(8)]
    teachers = {row.problem_id: rng.standard_normal((K, D)).astype(np.float32) for row in rows} if n_latent else {}
    objective = Objective(2.0, "per_step", "mean", "l1", "tokens")
    made, found = student(n_latent, dtype), []
    for made.merged in (False, True):
        losses = backward(made, rows, teachers, [[0, 1, 2], [3, 4, 5, 6, 7]], objective, 0, 0)
        found.append((losses, {name: one.grad.clone() for name, one in made.trained().items()}))
        made.zero_grad()
    (losses, gradients), (merged_losses, merged_gradients) = found
    for key, value in losses.items():
        assert merged_losses[key] == pytest.approx(value, rel=LOSS_TOLERANCE[dtype])
    largest = max(one.abs().max().item() for one in gradients.values())
    assert largest > 1e-3
    for name, one in gradients.items():
        assert one.abs().max() > 0
        torch.testing.assert_close(merged_gradients[name], one, rtol=0, atol=GRADIENT_TOLERANCE[dtype] * largest)


@pytest.mark.parametrize("r", [9, 10])
def test_a_layer_multiplies_by_w_plus_s_b_a_and_a_and_b_get_the_gradient_by_hand(qwen3: Any, r: int) -> None:
    """y = x (W + s B A)^T and L = sum(y g): dL/dB = s g^T (x A^T), dL/dA = s (g B)^T x, with s = alpha / r = 2.

    Over several calls, of which those with few tokens are gathered; what they are called with has a gradient, too. With
    rank 10 the whole weight's gradient is less work: 2 * 10 * (48 + 32) > 48 * 32.
    """
    made = Student(qwen3(), K=0, seed=0, lora_r=r, lora_alpha=2 * r, lora_targets=["down_proj"]).double()
    layer = made.model.model.layers[0].mlp.down_proj
    layer.lora_B["default"].weight.data.normal_()
    assert narrow_is_less(layer) == (r == 9)
    weight, A, B = layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.manual_seed(0)
    sizes = [5, FEW + 1, 2 * FEW, FEW]
    x, g = torch.randn(sum(sizes), 48, dtype=torch.float64), torch.randn(sum(sizes), 32, dtype=torch.float64)
    x.requires_grad_()
    for calls in (sizes, sizes[:1], sizes[1:2]):
        some, of_y = (whole.split([*calls, len(x) - sum(calls)])[: len(calls)] for whole in (x, g))
        read, given = torch.cat(some), torch.cat(of_y)
        made.zero_grad()
        x.grad = None
        with merged_weights(made.adapted):
            y = torch.cat([layer(one) for one in some])
        torch.testing.assert_close(y, read @ (weight + 2 * B @ A).T)
        (y * given).sum().backward()
        torch.testing.assert_close(B.grad, 2 * given.T @ (read @ A.T))
        torch.testing.assert_close(A.grad, 2 * (given @ B).T @ read)
        torch.testing.assert_close(x.grad[: len(read)], given @ (weight + 2 * B @ A))
    assert weight.grad is None


def test_the_merged_weight_is_made_once_for_all_passes(
    student: Any, questions: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, merged, called = student(K), list[Any](), list[int]()
    made.merged = True
    make = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, name: merged.append(layer) or make(layer, name))
    made.model.model.layers[1].self_attn.q_proj.register_forward_pre_hook(lambda *_: called.append(1))
    made(questions[:2], [[1, 2], [3]], 0)
    assert len(called) == K + 1
    assert len(merged) == len(set(merged)) == 2 * 7


def test_parameters_and_their_names_are_as_before_also_after_an_error(student: Any) -> None:
    made = student(2)
    before = dict(made.adapted.named_parameters())
    with merged_weights(made.adapted):
        assert "forward" in vars(made.model.model.layers[0].self_attn.q_proj)
    with pytest.raises(ZeroDivisionError), merged_weights(made.adapted):
        raise ZeroDivisionError
    after = dict(made.adapted.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is one for name, one in before.items())
    assert "forward" not in vars(made.model.model.layers[0].self_attn.q_proj)


def test_a_bfloat16_weight_is_rounded_once(qwen3: Any, student: Any) -> None:
    made = student(0, base=qwen3())
    made.model.to(torch.bfloat16)
    layer = made.model.model.layers[0].self_attn.q_proj
    for part in (layer.lora_A["default"], layer.lora_B["default"]):
        part.float()
    exact = layer.base_layer.weight.float() + layer.get_delta_weight("default")
    with merged_weights(made.adapted):
        assert torch.equal(layer(torch.eye(exact.shape[1], dtype=torch.bfloat16)).T, exact.bfloat16())
