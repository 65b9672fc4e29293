"""The plan's memory of a training against what autograd keeps of a real student, each tensor's storage counted once.

The plan counts padded batches, since it does not know which models are read without padding; those keep less.
"""

import gpu_measures
import pytest
import torch

from qthink_core.method.losses import Counts, Objective, loss
from qthink_core.method.student import Student
from qthink_core.planning import cost, shapes
from qthink_core.planning.cost import Shape

EVERY = gpu_measures.TARGETS
SHAPE = Shape(layers=3, hidden=160, heads=6, kv_heads=2, head_dim=32, intermediate=416, vocabulary=701)
R, TARGET_TOKENS = 4, 7
# What the formula leaves out: one number a token, or a token and head, of each norm and of the softmax (64 of some 12,000
# bytes a token and layer), and, once for all layers, the cosines and sines (128 bytes a token) and the head's own inputs.
# It takes the mask of the latent passes for that of one long pass. Together 1.1 % and less at this size.
LEFT_OUT = 0.02


def kept(shape: Shape, dtype: torch.dtype, K: int, targets: list[str], prompts: list[int]) -> int:
    """Bytes that a forward pass keeps for the backward one, weights aside."""
    model = gpu_measures.model_of(shape, "cpu", dtype)
    student = Student(model, K=K, seed=0, lora_r=R, lora_alpha=8, lora_targets=targets).train()
    weights = {one.untyped_storage().data_ptr() for one in student.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    teachers = torch.zeros(len(prompts), K, SHAPE.hidden) if K else None
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = student([[5] * length for length in prompts], [[6] * TARGET_TOKENS] * len(prompts), 0)
        loss(outputs, teachers, torch.ones(len(prompts)), Objective(2.0, "per_step", "mean", "l1", "tokens"), Counts(1, 1))
    return sum(storage.nbytes() for at, storage in found.items() if at not in weights)


@pytest.mark.slow
@pytest.mark.parametrize("K", [0, 3])
@pytest.mark.parametrize("targets", [EVERY, ["q_proj", "v_proj"]], ids=["every", "two"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_formula_counts_what_autograd_keeps(
    dtype: torch.dtype, targets: list[str], K: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what one more layer adds; of all layers it is a bound, as the last one keeps little of the prompt."""
    fast = kept(SHAPE, dtype, K, targets, [40, 37, 39])
    monkeypatch.setattr(Student, "fast", False)
    longest = 40
    shapes_ = SHAPE, SHAPE._replace(layers=SHAPE.layers + 1)
    measured = [kept(shape, dtype, K, targets, [longest, longest - 3, longest - 1]) for shape in shapes_]
    formula = [
        cost.training_memory(shape, 3, longest, TARGET_TOKENS, K, logits=0, r=R, targets=targets, width=dtype.itemsize)
        for shape in shapes_
    ]
    assert formula[1] - formula[0] == pytest.approx(measured[1] - measured[0], rel=LEFT_OUT)
    # a forward pass keeps the log-probabilities alone; the backward one adds the two gradients
    found = measured[0] - 3 * TARGET_TOKENS * SHAPE.vocabulary * 4
    assert formula[0] * (1 - 1 / SHAPE.layers) < found < formula[0] * (1 + LEFT_OUT)
    assert 0.6 * measured[0] < fast < measured[0]


def test_float32_adapters_nearly_double_what_a_token_of_the_recipe_keeps() -> None:
    shape = shapes.KNOWN["Qwen/Qwen3-1.7B"]
    # bfloat16: 4 of 2048 around attention, 3 of 6144; float32: norms of 2 x 2048, 2048 and 1024
    model = 2 * (4 * 2048 + 3 * 6144) + 4 * (2 * 2048 + 2048 + 1024)
    # seven inputs, six of 2048 and one of 6144, and 7 x 32 numbers between the two matrices of an adapter
    adapters = 4 * (6 * 2048 + 6144 + 7 * 32)
    assert cost.kept_bytes(shape, 32, EVERY, 2) == model + adapters == 156_544
    assert cost.kept_bytes(shape, 32, [], 2) == model


def test_the_logits_of_the_targets_are_there_three_times_in_float32() -> None:
    shape = shapes.KNOWN["Qwen/Qwen3-1.7B"]
    with_logits, without = (cost.training_memory(shape, 4, 512, 256, 6, n, 32, EVERY, 2) for n in (256, 0))
    assert with_logits - without == 4 * 256 * 151_936 * 12
