import math

import pytest
import torch

from qthink_core.method.losses import answer_cross_entropy, distillation, step_distances

# B=2 problems, K=2 steps, D=2
LATENTS = [torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, -1.0], [1.0, 1.0]])]
TEACHERS = torch.tensor([[[0.0, 4.0], [3.0, 0.0]], [[0.5, -0.5], [5.0, 1.0]]])
# |1-0|+|2-4| = 3, |3-3|+|-1-0| = 1;  |0-0.5|+|0+0.5| = 1, |1-5|+|1-1| = 4;  each over D = 2
DISTANCES = [[1.5, 0.5], [0.5, 2.0]]


def test_the_distance_of_a_step_is_the_mean_absolute_difference_over_the_hidden_size() -> None:
    assert step_distances(LATENTS, TEACHERS).tolist() == DISTANCES


@pytest.mark.parametrize(
    ("supervision", "reduction", "expected"),
    [
        ("per_step", "mean", [1.0, 1.25]),
        ("per_step", "sum", [2.0, 2.5]),
        # the last step alone, of which mean and sum are the same
        ("final_step", "mean", [0.5, 2.0]),
        ("final_step", "sum", [0.5, 2.0]),
    ],
)
def test_distillation_by_hand(supervision: str, reduction: str, expected: list[float]) -> None:
    assert distillation(torch.tensor(DISTANCES), supervision, reduction).tolist() == expected


def test_cross_entropy_is_the_sum_over_answer_tokens_in_nats() -> None:
    # softmax(0, ln 3) = (1/4, 3/4), softmax(0, 0) = (1/2, 1/2)
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [0.0, 0.0]])
    loss = answer_cross_entropy(logits, torch.tensor([1, 0, 1]))
    assert loss.item() == pytest.approx(math.log(4 / 3) + math.log(4) + math.log(2), rel=1e-6)


def test_the_mean_over_problems_weighs_each_token_by_its_problems_length() -> None:
    """Two of four tokens of a problem, and the only one of another: ln(4/3)/4 + ln(4)/4 + ln(2)."""
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [0.0, 0.0]])
    loss = answer_cross_entropy(logits, torch.tensor([1, 0, 1]), torch.tensor([4, 4, 1]))
    assert loss.item() == pytest.approx(math.log(4 / 3) / 4 + math.log(4) / 4 + math.log(2), rel=1e-6)


def test_no_answer_token_costs_nothing() -> None:
    assert answer_cross_entropy(torch.zeros(0, 7), torch.zeros(0, dtype=torch.long)).item() == 0.0


def test_the_loss_is_computed_in_float32_whatever_the_model_computes_in() -> None:
    latents = [step.bfloat16() for step in LATENTS]
    teachers = TEACHERS + 2**-12  # a difference that bfloat16 cannot hold beside 5.0
    assert step_distances(latents, teachers).dtype == torch.float32
    assert torch.equal(step_distances(latents, teachers), step_distances(LATENTS, teachers))
    assert answer_cross_entropy(torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([0])).dtype == torch.float32


def test_the_teacher_has_no_gradient_and_every_step_has_one() -> None:
    latents = [step.clone().requires_grad_() for step in LATENTS]
    teachers = TEACHERS.clone().requires_grad_()
    distillation(step_distances(latents, teachers), "per_step", "mean").sum().backward()
    assert teachers.grad is None
    # sign(h - t) / (K * D); at a difference of 0 it is 0
    assert [step.grad.tolist() for step in latents] == [[[0.25, -0.25], [-0.25, 0.25]], [[0.0, -0.25], [-0.25, 0.0]]]


def test_final_step_supervision_leaves_the_other_steps_alone() -> None:
    latents = [step.clone().requires_grad_() for step in LATENTS]
    distillation(step_distances(latents, TEACHERS), "final_step", "mean").sum().backward()
    assert latents[0].grad.abs().max() == 0
    assert latents[1].grad.tolist() == [[0.0, -0.5], [-0.5, 0.0]]
