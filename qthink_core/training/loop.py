"""The training loop: steps over effective batches, each in micro-batches; a resumed run ends with the same bytes.

Under a launcher, each rank computes some of a step's micro-batches, and the sums of all ranks are added up. The order of
the examples is the same for any number of ranks.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qthink_core.artifacts.store import Work
from qthink_core.errors import DataError, NumericError, ParamError
from qthink_core.method.losses import Objective, counts, loss
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.models.lr_schedule import warmup_cosine
from qthink_core.pipeline import ranks
from qthink_core.pipeline.recipe import Recipe
from qthink_core.training.checkpoints import restore, save

# `accelerate launch` sets one of these to `true` when it is configured to split the model over the ranks.
SPLIT = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM")


def plan(n_examples: int, recipe: Recipe, seed: int) -> list[list[int]]:
    """The example indices of every optimiser step.

    Each epoch is a permutation seeded by (seed, epoch), cut into batches. The last batch of an epoch may be smaller.
    """
    steps = []
    for epoch in range(recipe.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(n_examples).tolist()
        steps += [order[start : start + recipe.batch] for start in range(0, n_examples, recipe.batch)]
    return steps


def lr_factor(step: int, total: int, warmup: float) -> float:
    """The factor of the learning rate at a step 0..total-1: linear warm-up over `warmup * total` steps, then cosine to 0."""
    return warmup_cosine(step, total, math.ceil(warmup * total))


def micro_batches(batch: Sequence[int], examples: Sequence[Example], size: int) -> list[list[int]]:
    """The batch in groups of at most `size` examples of similar length, so that little padding is computed."""
    order = sorted(batch, key=lambda i: (len(examples[i].prompt) + len(examples[i].target), i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def deal(groups: Sequence[Sequence[int]], rank: int, world: int) -> list[Sequence[int]]:
    """The micro-batches of one rank, shortest first.

    They are dealt from the longest to the shortest: to rank 0 up to the last rank, then back from the last to rank 0.
    """
    seats = [*range(world), *reversed(range(world))]
    return [group for place, group in enumerate(groups) if seats[(len(groups) - 1 - place) % (2 * world)] == rank]


def train(
    student: Student,
    examples: Sequence[Example],
    teachers: Mapping[str, Any],
    recipe: Recipe,
    objective: Objective,
    *,
    seed: int,
    pad_id: int,
    work: Work,
    checkpoint_every: int,
    show: Callable[[Iterator[int], int], Iterator[int]],
) -> list[dict[str, Any]]:
    """The losses of every step, after training the student in place.

    The loss of a step is `losses.loss`, divided by the counts of the effective batch, so the split into micro-batches and
    ranks changes only rounding. Training resumes from the newest complete checkpoint in `work`, which rank 0 writes and all
    ranks load. Raises NumericError on all ranks, naming the step and its problems, when a loss or gradient is not finite;
    that step is not taken. Raises DataError when ranks find different checkpoints, and ParamError under a launcher that
    splits the model (DeepSpeed, FSDP, Megatron).
    """
    check_launcher()
    steps = plan(len(examples), recipe, seed)
    trained, top_lr = student.trained(), recipe.lr * recipe.lr_multiplier
    optimizer = torch.optim.AdamW(trained.values(), lr=top_lr, weight_decay=recipe.weight_decay, fused=True)
    with ranks.first():  # rank 0 deletes damaged checkpoints before the others look
        losses = restore(work, trained, optimizer)
    start = len(losses)
    if ranks.total([start])[0] != start * ranks.world():
        raise DataError(f"not all ranks resume at step {start} from the checkpoint in {work.folder}: run `dvc repro` again")
    for parameter in trained.values():
        ranks.copy_(parameter.data)
        parameter.grad = None  # an earlier use of the student may have left one
    student.train()
    if not student.fast and ranks.rank() == 0:
        print(f"micro-batches are padded, as the attention of a {type(student.model).__name__} needs it", flush=True)
    for step in show(iter(range(start, len(steps))), len(steps) - start):
        for group in optimizer.param_groups:
            group["lr"] = top_lr * lr_factor(step, len(steps), recipe.warmup)
        batch = micro_batches(steps[step], examples, recipe.micro_batch)
        with ranks.as_one(NumericError):
            found = backward(student, examples, teachers, batch, objective, pad_id, step)
        if ranks.world() > 1:
            found = add_up(student, found, student.K if teachers else 0)
        norm = torch.nn.utils.clip_grad_norm_(list(trained.values()), recipe.clip)
        if not torch.isfinite(norm):
            names = ", ".join(examples[i].problem_id for i in steps[step][:4])
            what = f"the gradient of step {step} is not finite (batch of {names} ...): lower train.lr"
            raise NumericError(what, everywhere=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append({"step": step} | found)
        if (step + 1) % checkpoint_every == 0 and step + 1 < len(steps) and ranks.rank() == 0:
            save(work, trained, optimizer, losses)
    return losses


def check_launcher() -> None:
    """Raises ParamError under a launcher that is configured to split the model, because here every rank holds all of it."""
    for name in SPLIT:
        if os.environ.get(name) == "true":
            kind = name.removeprefix("ACCELERATE_USE_")
            raise ParamError(f"training cannot use {kind}: launch without it, e.g. by `accelerate launch --multi_gpu`")


def backward(
    student: Student,
    examples: Sequence[Example],
    teachers: Mapping[str, Any],
    batch: Sequence[Sequence[int]],
    objective: Objective,
    pad_id: int,
    step: int,
) -> dict[str, Any]:
    """The losses of one effective batch, given as micro-batches, after adding its gradient to the parameters.

    `cross_entropy` is in nats (decision 20), `distillation` is the distillation term without gamma, and `distance` has one
    value per latent step. Under a launcher, losses and gradient are those of this rank's micro-batches; `add_up` sums them
    over the ranks. Raises NumericError naming the step and the problems when a loss or gradient is not finite.
    """
    everyone = [examples[i] for group in batch for i in group]
    whole = counts(
        [row.target for row in everyone], [row.problem_id in teachers for row in everyone], objective.cross_entropy
    )
    total_ce, total_distil, distance_K = 0.0, 0.0, None
    mine = deal(batch, ranks.rank(), ranks.world())
    for group in mine:
        rows = [examples[i] for i in group]
        states_BKD, has_teacher = gather_teachers(rows, teachers, student.model.device)
        outputs = student([row.prompt for row in rows], [row.target for row in rows], pad_id)
        part = loss(outputs, states_BKD, has_teacher, objective, whole)
        if not torch.isfinite(part.total):
            names = ", ".join(row.problem_id for row in rows)
            raise NumericError(
                f"the loss of step {step} is {part.total.item()} on {names}: lower train.lr, or check these problems"
            )
        part.total.backward()
        total_ce += part.cross_entropy.item()
        total_distil += part.distillation.item()
        if part.by_step is not None:
            distance_K = part.by_step if distance_K is None else distance_K + part.by_step
    found: dict[str, Any] = {"cross_entropy": total_ce}
    if distance_K is not None:
        found |= {"distillation": total_distil, "distance": distance_K.tolist()}
    # With one process, the check of the norm is enough. After a sum over ranks, the problems could not be named.
    if ranks.world() > 1 and not _finite(student):
        names = ", ".join(examples[i].problem_id for group in mine for i in group)
        raise NumericError(f"the gradient of step {step} is not finite on {names}: lower train.lr")
    return found


def _finite(student: Student) -> bool:
    return all(value.grad is None or bool(value.grad.isfinite().all()) for value in student.trained().values())


def add_up(student: Student, found: Mapping[str, Any], K: int) -> dict[str, Any]:
    """The losses summed over the ranks, after summing the gradients in place; a rank may have no micro-batch.

    This is a sum and not a mean, because each term is already divided by the counts of the whole batch.
    """
    parameters = list(student.trained().values())
    flat = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in parameters])
    ranks.sum_(flat)
    for one, gradient in zip(parameters, flat.split([one.numel() for one in parameters]), strict=True):
        one.grad = gradient.view_as(one)
    own = [found["cross_entropy"], found.get("distillation", 0.0), *found.get("distance", [0.0] * K)]
    cross_entropy, distil, *distance = ranks.total(own)
    return {"cross_entropy": cross_entropy} | ({"distillation": distil, "distance": distance} if K else {})


def gather_teachers(
    rows: Sequence[Example], teachers: Mapping[str, Any], device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """The teachers (B, K, D) of a micro-batch and the mask (B,) of problems with a teacher; the other rows are zeros.

    The first is None in a training without teachers.
    """
    has = torch.tensor([float(row.problem_id in teachers) for row in rows], device=device)
    if not teachers:
        return None, has
    like = next(iter(teachers.values()))
    states = np.stack([teachers.get(row.problem_id, np.zeros_like(like)) for row in rows])
    return torch.from_numpy(states).float().to(device), has
