import math
from typing import get_args

import pytest
import torch
from torch.nn import functional

from qthink_core.method.losses import DISTANCES, Counts, Loss, Objective, Outputs, counts, loss
from qthink_core.pipeline.recipe import Distance

# B=2 problems, K=2 steps, D=2
LATENTS = [torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[3.0, -1.0], [1.0, 1.0]])]
TEACHERS = torch.tensor([[[0.0, 4.0], [3.0, 0.0]], [[0.5, -0.5], [5.0, 1.0]]])
# L1: |1-0|+|2-4| = 3, |3-3|+|-1-0| = 1;  |0-0.5|+|0+0.5| = 1, |1-5|+|1-1| = 4;  each over D = 2
DISTANCES_BY_HAND = [[1.5, 0.5], [0.5, 2.0]]
CARD = Objective(2.0, "per_step", "mean", "l1", "tokens")
# Three answer tokens of a vocabulary of two: softmax(0, ln 3) = (1/4, 3/4), softmax(0, 0) = (1/2, 1/2).
LOGITS = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)], [0.0, 0.0]])
NATS = [math.log(4 / 3), math.log(4), math.log(2)]
BOTH, ONE = torch.ones(2), Counts(1, 1)


def outputs(latents: list[torch.Tensor] = LATENTS, logits: torch.Tensor = LOGITS) -> Outputs:
    """Two tokens of an answer of four, the other two of which are in another micro-batch, and an answer of one token."""
    labels, lengths = torch.tensor([1, 0, 1])[: len(logits)], torch.tensor([4, 4, 1])[: len(logits)]
    return Outputs(functional.cross_entropy(logits, labels, reduction="none"), labels, lengths, latents)


def found(objective: Objective, batch: Counts = ONE, has_teacher: torch.Tensor = BOTH) -> Loss:
    return loss(outputs(), TEACHERS, has_teacher, objective, batch)


def test_the_loss_is_cross_entropy_plus_gamma_times_the_distance_over_the_counts_of_the_whole_batch() -> None:
    one = found(CARD, Counts(answers=10, taught=4))
    assert one.cross_entropy.item() == pytest.approx(sum(NATS) / 10)
    assert one.distillation.item() == pytest.approx((1.0 + 1.25) / 4)
    assert one.total.item() == pytest.approx(sum(NATS) / 10 + 2.0 * 2.25 / 4)
    assert one.by_step.tolist() == pytest.approx([2.0 / 4, 2.5 / 4])


def test_a_problem_without_a_teacher_adds_no_distance() -> None:
    one = found(CARD, Counts(10, 4), has_teacher=torch.tensor([1.0, 0.0]))
    assert one.distillation.item() == pytest.approx(1.0 / 4)
    assert one.by_step.tolist() == pytest.approx([1.5 / 4, 0.5 / 4])


def test_without_teachers_the_loss_is_the_cross_entropy() -> None:
    one = loss(outputs([]), None, torch.zeros(2), CARD, Counts(10, 1))
    assert one.total.item() == one.cross_entropy.item() == pytest.approx(sum(NATS) / 10)
    assert one.distillation.item() == 0.0
    assert one.by_step is None


@pytest.mark.parametrize(
    ("supervision", "reduction", "expected"),
    [
        ("per_step", "mean", 1.0 + 1.25),
        ("per_step", "sum", 2.0 + 2.5),
        # the last step alone, of which mean and sum are the same
        ("final_step", "mean", 0.5 + 2.0),
        ("final_step", "sum", 0.5 + 2.0),
    ],
)
def test_distillation_by_hand(supervision: str, reduction: str, expected: float) -> None:
    one = found(CARD._replace(supervision=supervision, reduction=reduction))
    assert one.distillation.item() == expected
    assert one.by_step.tolist() == [2.0, 2.5]  # all steps are shown, whichever are supervised


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("l1", DISTANCES_BY_HAND),
        # (1 + 4)/2, (0 + 1)/2;  (0.25 + 0.25)/2, (16 + 0)/2
        ("l2", [[2.5, 0.5], [0.25, 8.0]]),
        # cosines: 8/(sqrt 5 * 4), 9/(sqrt 10 * 3); a latent of zeros has cosine 0; 6/(sqrt 2 * sqrt 26)
        ("cosine", [[1 - 2 / 5**0.5, 1 - 3 / 10**0.5], [1.0, 1 - 6 / 52**0.5]]),
    ],
)
def test_a_distance_by_hand(distance: str, expected: list[list[float]]) -> None:
    h = torch.stack(LATENTS, dim=1)
    for row, want in zip(DISTANCES[distance](h, TEACHERS).tolist(), expected, strict=True):
        assert row == pytest.approx(want, rel=1e-6)
    one = found(CARD._replace(distance=distance))
    assert one.distillation.item() == pytest.approx(sum(map(sum, expected)) / 2, rel=1e-6)


def test_the_params_offer_the_distances_that_the_loss_has() -> None:
    assert get_args(Distance) == tuple(DISTANCES)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_distance_of_a_teacher_to_itself_is_0_and_has_a_finite_gradient(distance: str) -> None:
    h = TEACHERS.clone().requires_grad_()
    apart = DISTANCES[distance](h, TEACHERS)
    apart.sum().backward()
    assert apart.abs().max() < 1e-6
    assert h.grad.isfinite().all()


def test_the_mean_over_problems_weighs_each_token_by_its_problems_length() -> None:
    """Two of four tokens of a problem, and the only one of another: ln(4/3)/4 + ln(4)/4 + ln(2)."""
    one = found(CARD._replace(cross_entropy="problems"))
    assert one.cross_entropy.item() == pytest.approx(NATS[0] / 4 + NATS[1] / 4 + NATS[2], rel=1e-6)


def test_no_answer_token_costs_nothing() -> None:
    for mean_over in ("tokens", "problems"):
        objective = CARD._replace(cross_entropy=mean_over)
        one = loss(outputs([], torch.zeros(0, 7)), None, torch.zeros(1), objective, Counts(1, 1))
        assert one.total.item() == 0.0


def test_a_batch_counts_answer_tokens_or_answers_and_taught_problems_and_never_divides_by_0() -> None:
    answers, taught = [[1, 2, 3], [], [4]], [True, True, False]
    assert counts(answers, taught, "tokens") == Counts(4, 2)
    assert counts(answers, taught, "problems") == Counts(2, 2)
    assert counts([[]], [False], "tokens") == counts([[]], [False], "problems") == Counts(1, 1)


def test_the_loss_is_computed_in_float32_whatever_the_model_computes_in() -> None:
    teachers = TEACHERS + 2**-12  # a difference that bfloat16 cannot hold beside 5.0
    low = outputs([step.bfloat16() for step in LATENTS], LOGITS.bfloat16().float())
    exact = outputs(LATENTS, LOGITS.bfloat16().float())
    one, other = (loss(each, teachers, BOTH, CARD, Counts(3, 2)) for each in (low, exact))
    assert one.total.dtype == torch.float32
    assert torch.equal(one.total, other.total)


def test_the_teacher_has_no_gradient_and_every_step_has_one() -> None:
    latents, teachers = [step.clone().requires_grad_() for step in LATENTS], TEACHERS.clone().requires_grad_()
    loss(outputs(latents), teachers, BOTH, CARD._replace(gamma=1.0), Counts(1, 1)).total.backward()
    assert teachers.grad is None
    # sign(h - t) / (K * D); at a difference of 0 it is 0
    assert [step.grad.tolist() for step in latents] == [[[0.25, -0.25], [-0.25, 0.25]], [[0.0, -0.25], [-0.25, 0.0]]]


def test_final_step_supervision_leaves_the_other_steps_alone() -> None:
    latents = [step.clone().requires_grad_() for step in LATENTS]
    loss(
        outputs(latents), TEACHERS, BOTH, Objective(1.0, "final_step", "mean", "l1", "tokens"), Counts(1, 1)
    ).total.backward()
    assert latents[0].grad.abs().max() == 0
    assert latents[1].grad.tolist() == [[0.0, -0.5], [-0.5, 0.0]]
