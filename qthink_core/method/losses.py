"""The loss of the method: cross-entropy on the answer plus gamma times the L1 distance to the teacher.

    loss = CE(answer) + gamma * reduce_k mean_d |h_k - t_k|

(model card, section Training). `per_step` takes every latent step; `final_step`, the card's "CODI", only the last. The
mean over k keeps gamma's meaning the same in both; the sum is the other reading (decision 7). CE is the mean over all answer
tokens of the effective batch, or over its problems of the mean over each one's tokens (decision 20).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

PER_STEP, FINAL_STEP = "per_step", "final_step"
TOKENS, PROBLEMS = "tokens", "problems"


def answer_cross_entropy(
    logits: Float[Tensor, "T V"], labels: Int[Tensor, " T"], lengths: Int[Tensor, " T"] | None = None
) -> Float[Tensor, ""]:
    """The summed cross-entropy, in nats, over answer tokens; the caller divides by the tokens of the effective batch.

    With `lengths`, of each token the number in its problem's answer, a sum over problems of their means: the caller divides
    by the problems of the batch that have an answer.
    """
    if lengths is None:
        return functional.cross_entropy(logits.float(), labels, reduction="sum")
    return (functional.cross_entropy(logits.float(), labels, reduction="none") / lengths).sum()


def step_distances(latents: Sequence[Float[Tensor, "B D"]], teachers: Float[Tensor, "B K D"]) -> Float[Tensor, "B K"]:
    """mean_d |h_k - t_k| for each problem and step; the teacher carries no gradient."""
    student_BKD = torch.stack(list(latents), dim=1).float()
    return (student_BKD - teachers.detach()).abs().mean(dim=2)


def distillation(distances: Float[Tensor, "B K"], supervision: str, reduction: str) -> Float[Tensor, " B"]:
    """One number a problem: the last step's distance, or the mean or sum over all steps."""
    if supervision == FINAL_STEP:
        return distances[:, -1]
    return distances.mean(dim=1) if reduction == "mean" else distances.sum(dim=1)
