"""Training: the effective batch as params give it, in micro-batches; any checkpoint resumes to the same bytes.

Under a launcher each rank computes some of a step's micro-batches and adds up with the others; the plan stays the same.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qthink_core.artifacts.files import canonical_json
from qthink_core.artifacts.store import Work
from qthink_core.errors import DataError, NumericError, ParamError
from qthink_core.method.losses import PROBLEMS, distillation
from qthink_core.method.student import Student
from qthink_core.method.targets import Example
from qthink_core.models.lr_schedule import warmup_cosine
from qthink_core.pipeline import ranks
from qthink_core.pipeline.recipe import Recipe


class Objective(NamedTuple):
    """The distillation term: its weight, which steps it supervises, and how it reduces over them (losses.py)."""

    gamma: float
    supervision: str
    reduction: str


def plan(n_examples: int, recipe: Recipe, seed: int) -> list[list[int]]:
    """The example indices of every optimiser step: each epoch a permutation seeded by (seed, epoch), cut into batches.

    The last batch of an epoch holds what is left.
    """
    steps = []
    for epoch in range(recipe.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(n_examples).tolist()
        steps += [order[start : start + recipe.batch] for start in range(0, n_examples, recipe.batch)]
    return steps


def lr_factor(step: int, total: int, warmup: float) -> float:
    """The learning rate's factor at a step 0..total-1: linear warm-up over `warmup * total` steps, then cosine to 0."""
    return warmup_cosine(step, total, math.ceil(warmup * total))


def micro_batches(batch: Sequence[int], examples: Sequence[Example], size: int) -> list[list[int]]:
    """The batch in groups of at most `size`, like lengths together so that little padding is computed."""
    order = sorted(batch, key=lambda i: (len(examples[i].prompt) + len(examples[i].target), i))
    return [order[start : start + size] for start in range(0, len(order), size)]


def deal(groups: Sequence[Sequence[int]], rank: int, world: int) -> list[Sequence[int]]:
    """A rank's micro-batches out of those of a step, shortest first: all take one from the long end, then back again."""
    seats = [*range(world), *reversed(range(world))]
    return [group for place, group in enumerate(groups) if seats[(len(groups) - 1 - place) % (2 * world)] == rank]


def accelerator(device: str) -> Accelerator:
    """Accelerate on the device of params; what its launcher or settings say about precision and compiling stays out."""
    return Accelerator(cpu=device == "cpu", mixed_precision="no", dynamo_backend="no")


def train(
    student: Student,
    examples: Sequence[Example],
    teachers: Mapping[str, Any],
    recipe: Recipe,
    objective: Objective,
    *,
    seed: int,
    accelerator: Accelerator,
    pad_id: int,
    work: Work,
    checkpoint_every: int,
    show: Callable[[Iterator[int], int], Iterator[int]],
) -> list[dict[str, Any]]:
    """Trains the student in place and returns the losses of every step.

    A step's loss is CE / (target tokens of the effective batch) + gamma * distillation / (problems with a teacher in it);
    with `recipe.cross_entropy: problems` CE is a sum of problems' means, divided by the problems with a target. So
    micro-batches and ranks do not change it beyond rounding. Resumes from the newest whole checkpoint in `work`, which
    rank 0 writes and all load. Raises NumericError naming the step and its problems, on all ranks alike, when a loss or
    gradient is not finite; no such step is taken. Raises ParamError under a launcher that splits the model (DeepSpeed, FSDP)
    or whose processes are not those of `ranks` (MPI).
    """
    known = accelerator.distributed_type in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if not known or accelerator.num_processes != ranks.world():
        kind = accelerator.distributed_type.value
        raise ParamError(
            f"training cannot use {accelerator.num_processes} processes of type {kind}: "
            "launch plain ranks, e.g. by `accelerate launch --multi_gpu`"
        )
    steps = plan(len(examples), recipe, seed)
    trained, top_lr = student.trained(), recipe.lr * recipe.lr_multiplier
    optimizer = torch.optim.AdamW(trained.values(), lr=top_lr, weight_decay=recipe.weight_decay, fused=True)
    with ranks.first():  # it drops what is damaged
        losses = restore(work, trained, optimizer)
    start = len(losses)
    if ranks.total([start])[0] != start * ranks.world():
        raise DataError(f"step {start} is not where all ranks found the checkpoint of {work.folder}: run `dvc repro` again")
    for parameter in trained.values():
        ranks.copy_(parameter.data)
        parameter.grad = None  # whoever made the student may have left one
    # `evaluation_mode` keeps it out of DistributedDataParallel; the gradients are added up by `add_up`.
    module = accelerator.prepare_model(student, evaluation_mode=True)
    optimizer = accelerator.prepare_optimizer(optimizer)
    module.train()
    for step in show(iter(range(start, len(steps))), len(steps) - start):
        for group in optimizer.param_groups:
            group["lr"] = top_lr * lr_factor(step, len(steps), recipe.warmup)
        batch = micro_batches(steps[step], examples, recipe.micro_batch)
        with ranks.as_one(NumericError):
            per_problem = recipe.cross_entropy == PROBLEMS
            found = backward(module, examples, teachers, batch, objective, accelerator, pad_id, step, per_problem)
        if ranks.world() > 1:
            found = add_up(module, found, module.K if teachers else 0)
        norm = accelerator.clip_grad_norm_(trained.values(), recipe.clip)
        if norm is not None and not torch.isfinite(norm):
            names = ", ".join(examples[i].problem_id for i in steps[step][:4])
            what = f"the gradient of step {step} is not finite (batch of {names} ...): lower train.lr"
            raise NumericError(what, everywhere=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append({"step": step} | found)
        if (step + 1) % checkpoint_every == 0 and step + 1 < len(steps) and ranks.rank() == 0:
            save(work, trained, optimizer, losses)
    return losses


def backward(
    module: Student,
    examples: Sequence[Example],
    teachers: Mapping[str, Any],
    batch: Sequence[Sequence[int]],
    objective: Objective,
    accelerator: Accelerator,
    pad_id: int,
    step: int,
    per_problem: bool = False,
) -> dict[str, Any]:
    """Adds the gradient of one effective batch, given as micro-batches, and returns its losses.

    `cross_entropy` in nats a token, with `per_problem` the mean over problems; `distillation` as the loss sees it,
    `distance` for each latent step. Under a launcher that is the part of this rank, which computes the micro-batches that
    are dealt to it; `add_up` makes them whole.
    """
    everyone = [examples[i] for group in batch for i in group]
    n_answers = max(sum(bool(row.target) if per_problem else len(row.target) for row in everyone), 1)
    n_taught = max(sum(row.problem_id in teachers for row in everyone), 1)
    total_ce, total_distil, distance_K = 0.0, 0.0, None
    mine = deal(batch, ranks.rank(), ranks.world())
    for group in mine:
        rows = [examples[i] for i in group]
        states_BKD, has_teacher = gather_teachers(rows, teachers, accelerator.device)
        parts = module([row.prompt for row in rows], [row.target for row in rows], states_BKD, pad_id, per_problem)
        ce = parts.cross_entropy / n_answers
        distil = ce.new_zeros(())
        if parts.distances is not None:
            each = distillation(parts.distances, objective.supervision, objective.reduction)
            distil = (each * has_teacher).sum() / n_taught
            sums_K = (parts.distances.detach() * has_teacher[:, None]).sum(0) / n_taught
            distance_K = sums_K if distance_K is None else distance_K + sums_K
        loss = ce + objective.gamma * distil
        if not torch.isfinite(loss):
            names = ", ".join(row.problem_id for row in rows)
            raise NumericError(
                f"the loss of step {step} is {loss.item()} on {names}: lower train.lr or look at these problems"
            )
        accelerator.backward(loss)
        total_ce += ce.item()
        total_distil += distil.item()
    found: dict[str, Any] = {"cross_entropy": total_ce}
    if distance_K is not None:
        found |= {"distillation": total_distil, "distance": distance_K.tolist()}
    # Of one process the norm tells it; a sum over ranks would not tell whose it was.
    if ranks.world() > 1 and not _finite(module):
        names = ", ".join(examples[i].problem_id for group in mine for i in group)
        raise NumericError(f"the gradient of step {step} is not finite on {names}: lower train.lr")
    return found


def _finite(module: Student) -> bool:
    return all(value.grad is None or bool(value.grad.isfinite().all()) for value in module.trained().values())


def add_up(module: Student, found: Mapping[str, Any], K: int) -> dict[str, Any]:
    """Adds up, over the ranks, the gradients of the trained parameters in place and the losses; a rank may have had no part.

    A sum, not a mean: each term is already divided by the counts of the whole batch.
    """
    parameters = list(module.trained().values())
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
    """The teachers (B, K, D) of a micro-batch, zeros where a problem has none, and the mask (B,) of those that have."""
    has = torch.tensor([float(row.problem_id in teachers) for row in rows], device=device)
    if not teachers:
        return None, has
    like = next(iter(teachers.values()))
    states = np.stack([teachers.get(row.problem_id, np.zeros_like(like)) for row in rows])
    return torch.from_numpy(states).float().to(device), has


def _moments(name: str) -> dict[str, str]:
    return {key: f"optimizer.{key}.{name}" for key in ("exp_avg", "exp_avg_sq", "step")}


def save(work: Work, trained: Mapping[str, nn.Parameter], optimizer: Any, losses: list[dict[str, Any]]) -> None:
    """Commits weights, AdamW moments and losses as one unit, then drops the older checkpoints."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        tensors[f"weight.{name}"] = parameter.detach().cpu().contiguous()
        for key, stored in _moments(name).items():
            tensors[stored] = optimizer.state[parameter][key].detach().cpu().contiguous()

    def write(path: Path) -> None:
        save_file(tensors, path)

    older = checkpoints(work)
    unit = f"checkpoint-{len(losses):07d}"
    work.commit(unit, {f"{unit}.safetensors": write, f"{unit}.losses.json": canonical_json(losses)})
    for name in older:
        work.drop(name)


def checkpoints(work: Work) -> list[str]:
    """The units of whole, undamaged checkpoints, oldest first."""
    names = sorted(path.name.removesuffix(".unit.json") for path in work.folder.glob("checkpoint-*.unit.json"))
    return [name for name in names if work.done(name)]


def restore(work: Work, trained: Mapping[str, nn.Parameter], optimizer: Any) -> list[dict[str, Any]]:
    """Loads the newest whole checkpoint, whose hashes were verified, and returns its losses; [] where there is none.

    No random state is stored: every draw is derived from (seed, step).
    """
    found = checkpoints(work)
    if not found:
        return []
    tensors = load_file(work.path(f"{found[-1]}.safetensors"))
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weight.{name}"])
            optimizer.state[parameter] = {
                key: tensors[stored].to(parameter.device)  # the fused AdamW keeps its step there, too
                for key, stored in _moments(name).items()
            }
    return json.loads(work.path(f"{found[-1]}.losses.json").read_bytes())
