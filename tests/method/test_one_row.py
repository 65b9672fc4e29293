"""A micro-batch as one row against the same in padded batches: loss and gradients of many architectures, and who may."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from test_packing import NOT_PACKED, PACKED, SIZES, model_of

from qthink_core.method.fast_training import one_row
from qthink_core.method.losses import Objective
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.training.loop import backward

K = 3
# In float64 only the norms, which compute in float32 whatever the model is in, differ by rounding.
TOLERANCE = 3e-6
# In float32 throughout, as tests/method/test_student.py has it. Experts have no float64.
FLOAT32_TOLERANCE = 3e-5
RNG = np.random.default_rng(0)
EXAMPLES = [
    Example(f"p{i}", *(RNG.integers(3, 50, n).tolist() for n in sizes))
    for i, sizes in enumerate([(9, 4), (1, 1), (5, 0), (17, 12), (6, 3), (5, 5)])
]
TEACHERS = {f"p{i}": RNG.standard_normal((K, 32)).astype(np.float32) for i in (0, 2, 3, 5)}


def student_of(model: Any, n_latent: int = K, dtype: torch.dtype = torch.float64, **settings: Any) -> Student:
    """A student whose adapters are as if trained."""
    made = Student(model, K=n_latent, seed=0, lora_r=2, lora_alpha=4, lora_targets="all-linear", **settings)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.trained().items():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return made.to(dtype).train()


def found(made: Student, micro: int = 6) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The losses of all examples, and the gradients."""
    made.zero_grad()
    groups = [list(range(start, min(start + micro, 6))) for start in range(0, 6, micro)]
    objective = Objective(2.0, "per_step", "mean", "l1", "tokens")
    losses = backward(made, EXAMPLES, TEACHERS if made.K else {}, groups, objective, 0, 0)
    return losses, {name: one.grad.clone() for name, one in made.trained().items()}


def assert_the_same_as_padded(made: Student, monkeypatch: pytest.MonkeyPatch, tolerance: float = TOLERANCE) -> None:
    losses, gradients = found(made)
    monkeypatch.setattr(Student, "fast", False)
    expected_losses, expected = found(made)
    assert losses.keys() == expected_losses.keys()
    for name, loss in expected_losses.items():
        assert losses[name] == pytest.approx(loss, rel=tolerance)
    largest = max(float(one.abs().max()) for one in expected.values())
    assert largest > 1e-3
    for name, one in expected.items():
        torch.testing.assert_close(gradients[name], one, rtol=0, atol=tolerance * largest, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "architecture", [pytest.param(one, marks=[pytest.mark.slow] * one.endswith("Moe")) for one in PACKED]
)
def test_loss_and_gradients_are_those_of_padded_batches(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    experts = architecture.endswith("Moe")
    made = student_of(model_of(architecture), dtype=torch.float32 if experts else torch.float64)
    assert made.fast
    assert_the_same_as_padded(made, monkeypatch, FLOAT32_TOLERANCE if experts else TOLERANCE)


@pytest.mark.parametrize("settings", [{"n_latent": 0}, {"n_latent": 1}, {"one_step": True}, {"merged": True}])
def test_so_they_are_of_other_students_and_with_more_attention_batches(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_row, "LEAST", 1)
    assert_the_same_as_padded(student_of(model_of("Qwen3"), **settings), monkeypatch)


@pytest.mark.parametrize("n_latent", [0, K])
def test_micro_batches_change_nothing_and_one_of_empty_targets_has_no_cross_entropy(n_latent: int) -> None:
    made = student_of(model_of("Qwen3"), n_latent)
    (whole, gradients), (parts, split) = found(made), found(made, 1)
    assert parts["cross_entropy"] == pytest.approx(whole["cross_entropy"], rel=TOLERANCE)
    for name, one in gradients.items():
        torch.testing.assert_close(split[name], one, rtol=0, atol=TOLERANCE)
    outputs = made([EXAMPLES[2].prompt], [[]], 0)
    assert (outputs.nats.shape, outputs.labels.shape, len(outputs.latents)) == ((0,), (0,), n_latent)


def test_models_with_another_attention_or_with_dropout_are_padded() -> None:
    for architecture in NOT_PACKED:
        assert not student_of(model_of(architecture)).fast
    made = student_of(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SIZES, attention_dropout=0.1)))
    assert not made.fast
    made.model.config.attention_dropout = 0.0
    assert made.fast


def test_every_token_has_its_place_in_the_attention_batch_and_padding_gets_no_gradient() -> None:
    states = torch.arange(8.0)[:, None, None].requires_grad_()
    batch = one_row.batch_of([3, 1, 4], torch.device("cpu"))
    inside = one_row.padded(states, batch)
    assert inside[:, 0, :, 0].tolist() == [[0, 1, 2, 0], [3, 0, 0, 0], [4, 5, 6, 7]]
    assert torch.equal(one_row.unpadded(inside, batch), states)
    one_row.unpadded(inside, batch).sum().backward()
    assert torch.equal(states.grad, torch.ones(8, 1, 1))
    whole = one_row.batch_of([4, 4], torch.device("cpu"))
    assert whole.take is whole.place is None


def test_lengths_that_differ_are_apart_on_a_processor_where_there_is_enough_to_compute() -> None:
    lengths, cpu = [10, 12, 13, 40, 41, 80], torch.device("cpu")
    assert one_row.sizes_of(lengths, one_row.LEAST, cpu) == [2, 1, 2, 1]
    assert one_row.sizes_of(lengths, one_row.LEAST // 36, cpu) == [4, 1, 1]  # 35 tokens are too few, 75 and 41 are not
    assert one_row.sizes_of(lengths, 1, cpu) == one_row.sizes_of(lengths, one_row.LEAST, torch.device("cuda")) == [6]


def test_the_model_attends_as_before_at_the_end_and_after_an_error() -> None:
    model = model_of("Qwen3")
    made = student_of(model)
    with pytest.raises(IndexError):
        made([[1000]], [[1]], 0)
    row = one_row.OneRow(model, [2])
    with pytest.raises(RuntimeError):
        row.read(torch.zeros(3, 32, dtype=torch.float64), [2])
    assert model.config._attn_implementation == "sdpa"
