"""The loss of the method: cross-entropy on the answer plus gamma times the distance to the teacher.

    loss = CE(answer) + gamma * mean_problems reduce_k distance(h_k, t_k)

(model card, section Training). All means are taken over the effective batch. CE is the mean over its answer tokens, or the
mean over its problems of each problem's own mean (decision 20). The distance is the mean over the problems that have a
teacher. `reduce_k` is the mean or the sum over all latent steps (`per_step`), or the last step alone (`final_step`, the
card's "CODI"). With the mean over k, gamma means the same in both; the sum is the other reading of the card (decision 7).
`DISTANCES` lists the distances; the card uses L1.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

FINAL_STEP, TOKENS = "final_step", "tokens"

# From h and t (B, K, D) to a distance of each problem and step (B, K). `Distance` in pipeline/recipe.py lists the names.
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda h, t: (h - t).abs().mean(dim=2),  # mean_d |h_d - t_d|
    "l2": lambda h, t: (h - t).square().mean(dim=2),  # mean_d (h_d - t_d)^2
    "cosine": lambda h, t: 1 - functional.cosine_similarity(h, t, dim=2),  # 1 - h.t / (|h| |t|)
}


class Objective(NamedTuple):
    """The settings of the loss: gamma, which steps are supervised, their reduction, the distance, and what CE averages."""

    gamma: float
    supervision: str
    reduction: str
    distance: str
    cross_entropy: str

    @classmethod
    def on_answers(cls, cross_entropy: str) -> "Objective":
        """The cross-entropy alone, for a system without latent steps."""
        return cls(0.0, "per_step", "mean", "l1", cross_entropy)


class Counts(NamedTuple):
    """The divisors of an effective batch's sums: its answer tokens (or its answers), and its problems with a teacher."""

    answers: int
    taught: int


class Outputs(NamedTuple):
    """What a student computes on a micro-batch: -log p of the answer tokens in nats, the tokens themselves, and h_1..h_K.

    `lengths` is, for each token, the number of tokens in its problem's answer. `latents` is empty where K is 0.
    """

    nats: Float[Tensor, " T"]
    labels: Int[Tensor, " T"]
    lengths: Int[Tensor, " T"]
    latents: Sequence[Float[Tensor, "B D"]]


class Loss(NamedTuple):
    """A micro-batch's share of the loss of its effective batch: the total and its terms.

    `by_step` is the distance at each latent step, without a gradient; None in a training without teachers.
    """

    total: Float[Tensor, ""]
    cross_entropy: Float[Tensor, ""]
    distillation: Float[Tensor, ""]
    by_step: Float[Tensor, " K"] | None


def loss(
    found: Outputs,
    teachers: Float[Tensor, "B K D"] | None,
    has_teacher: Float[Tensor, " B"],
    objective: Objective,
    batch: Counts,
) -> Loss:
    """One micro-batch's share of the loss; the shares of all micro-batches add up to the equation above.

    `has_teacher` is 1 for each problem with a teacher and 0 for each without one. Rows of `teachers` for problems without a
    teacher are ignored.
    """
    ce = cross_entropy(found, objective.cross_entropy) / batch.answers
    if teachers is None:
        return Loss(ce, ce, ce.new_zeros(()), None)
    h, t = torch.stack(list(found.latents), dim=1).float(), teachers.detach()
    distances = DISTANCES[objective.distance](h, t)
    distil = (over_steps(distances, objective) * has_teacher).sum() / batch.taught
    by_step = (distances.detach() * has_teacher[:, None]).sum(0) / batch.taught
    return Loss(ce + objective.gamma * distil, ce, distil, by_step)


def cross_entropy(found: Outputs, mean_over: str) -> Float[Tensor, ""]:
    """The sum of -log p over all answer tokens, in nats; with `problems`, the sum over problems of each answer's mean."""
    if mean_over == TOKENS:
        return found.nats.sum()
    return (found.nats / found.lengths).sum()


def over_steps(distances: Float[Tensor, "B K"], objective: Objective) -> Float[Tensor, " B"]:
    """One number for each problem: the last step's distance, or the mean or sum over all steps."""
    if objective.supervision == FINAL_STEP:
        return distances[:, -1]
    return distances.mean(dim=1) if objective.reduction == "mean" else distances.sum(dim=1)


def counts(answers: Sequence[Sequence[int]], taught: Sequence[bool], mean_over: str) -> Counts:
    """The divisors of an effective batch, from the answer of each problem and whether it has a teacher; at least 1 each."""
    n_answers = sum(len(answer) if mean_over == TOKENS else bool(answer) for answer in answers)
    return Counts(max(n_answers, 1), max(sum(taught), 1))
