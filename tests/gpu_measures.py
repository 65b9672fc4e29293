"""A model of random weights through sampling, extraction, a training step and answering, by the project's own functions,
with figures: tokens a second, share of the device's matrix peak, memory; and how far bfloat16 is from float32.

On a GPU the shape is Qwen3-1.7B's (tests/gpu); the ordinary suite runs the same functions on a tiny one on the processor.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from engines import answer, sample
from transformers import Qwen3ForCausalLM
from worlds import STYLE, WORLD

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.benchmarking.workload import FIRST, config_of
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Sampling
from qthink_core.method import losses, positions
from qthink_core.method.extraction import Row
from qthink_core.method.hidden_states import last_hidden, logits, pad, read_positions
from qthink_core.method.projection_head import ProjectionHead
from qthink_core.method.student import Student
from qthink_core.models import tiny_tokenizer
from qthink_core.models.loading import System
from qthink_core.planning import cost
from qthink_core.planning.cost import Shape

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Size(NamedTuple):
    """How much is computed: P problems of G rollouts, tokens of prompt, rollout and answer, K steps, side of a product."""

    P: int
    G: int
    prompt: int
    rollout: int
    answer: int
    K: int
    matmul: int


class Figures(NamedTuple):
    """What one kind of work took: tokens a second, its FLOPs against the measured peak, and the most memory in bytes."""

    tokens_s: float
    of_peak: float
    memory: int


def model_of(shape: Shape, device: str, dtype: torch.dtype, seed: int = 0) -> Qwen3ForCausalLM:
    """A Qwen3 of a shape with random weights, the same for the same seed and device."""
    torch.manual_seed(seed)
    with torch.device(device):  # a processor would take long to draw the weights of a large one
        model = Qwen3ForCausalLM(config_of(shape))
    return model.to(dtype).eval()


def questions(shape: Shape, size: Size, seed: int = 0) -> dict[str, list[int]]:
    """Random prompts of one length."""
    tokens = np.random.default_rng(seed).integers(FIRST, shape.vocabulary, (size.P, size.prompt)).tolist()
    return {f"p{i}": row for i, row in enumerate(tokens)}


def timed(device: str, compute: Callable[[], Any]) -> tuple[Any, float, int]:
    """(what it returns, its seconds, the most bytes that the device held); 0 bytes on a processor, which does not say."""
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    begun = time.perf_counter()
    found = compute()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return found, seconds, torch.cuda.max_memory_allocated() if on_gpu else 0


def matrix_peak(device: str, dtype: torch.dtype, side: int, rounds: int = 5) -> float:
    """FLOP/s of the best of some large square products: the device's own ceiling in this type."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = [timed(device, lambda: left @ right)[1] for _ in range(rounds + 1)][1:]
    return 2 * side**3 / min(times)


def sampled(model: Any, shape: Shape, size: Size, peak: float) -> tuple[list[Rollout], Figures]:
    """G rollouts of each prompt by the recipe's settings, and their figures."""
    system = System(model, tiny_tokenizer.build(WORLD, STYLE.opening), None, 0, thinking=True)
    sampling = Sampling(seed=0, temperature=0.6, top_p=0.95, top_k=20)
    rows, seconds, memory = timed(
        str(model.device), lambda: sample(HFEngine(system, size.rollout), questions(shape, size), size.G, sampling)
    )
    tokens = sum(len(row.tokens) for row in rows)
    work = cost.decoding(shape, len(rows), size.prompt, tokens / len(rows), 2)
    return rows, Figures(tokens / seconds, work.flops / seconds / peak, memory)


def extracted(model: Any, rollouts: list[Rollout], shape: Shape, size: Size, peak: float) -> tuple[np.ndarray, Figures]:
    """The states (N, K, D) at K even positions of each rollout, as if all of it were thought, and the figures."""
    prompts = questions(shape, size)
    rows = [
        Row(
            one,
            len(one.tokens),
            [*prompts[one.problem_id], *one.tokens],
            [size.prompt + at for at in positions.evenly(len(one.tokens), size.K)],
            size.prompt,
        )
        for one in rollouts
    ]
    longest = max(len(row.tokens) for row in rows)
    device = str(model.device)
    states, seconds, memory = timed(
        device, lambda: read_positions(model, rows, size.K, batch_tokens=16 * longest, dtype="float32")
    )
    thought = sum(len(row.tokens) - size.prompt for row in rows) / len(rows)
    work = cost.extraction(shape, len(prompts), len(rows) // len(prompts), size.prompt, thought, size.K, passes=1)
    return states, Figures(work.tokens / seconds, work.flops / seconds / peak, memory)


def trained(model: Any, states: np.ndarray, shape: Shape, size: Size, peak: float) -> tuple[float, float, Figures]:
    """(loss before and after one optimiser step on a micro-batch, figures of the step); teachers are the states' means."""
    device = str(model.device)
    prompts = list(questions(shape, size).values())
    targets = np.random.default_rng(1).integers(FIRST, shape.vocabulary, (size.P, size.answer)).tolist()
    means = states.reshape(size.P, size.G, size.K, -1).mean(1)
    teachers = torch.from_numpy(means).float().to(device)
    has_teacher, objective = torch.ones(size.P, device=device), losses.Objective(2.0, "per_step", "mean", "l1", "tokens")
    student = Student(model, K=size.K, seed=0, lora_r=32, lora_alpha=16, lora_targets=TARGETS).train()
    optimizer = torch.optim.AdamW(student.trained().values(), lr=1e-3)

    def loss() -> torch.Tensor:
        outputs = student(prompts, targets, 0)
        return losses.loss(outputs, teachers, has_teacher, objective, losses.Counts(size.P * size.answer, size.P)).total

    def step() -> float:
        found = loss()
        found.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return found.item()

    before, seconds, memory = timed(device, step)
    with torch.no_grad():
        after = loss().item()
    work = cost.training(shape, size.P, size.prompt + size.K + size.answer, passes=size.K + 1)
    return before, after, Figures(work.tokens / seconds, work.flops / seconds / peak, memory)


def answered(model: Any, shape: Shape, size: Size, peak: float) -> tuple[list[Any], Figures]:
    """Greedy answers behind K latent steps, and their figures."""
    device = str(model.device)
    torch.manual_seed(1)
    head = ProjectionHead(shape.hidden).to(device, model.dtype).eval()
    system = System(model, tiny_tokenizer.build(WORLD, STYLE.opening), head, size.K, thinking=False)
    rows, seconds, memory = timed(device, lambda: answer(HFEngine(system, size.answer), questions(shape, size)))
    tokens = sum(len(row.tokens) for row in rows)
    work = cost.decoding(shape, len(rows), size.prompt + size.K, tokens / len(rows), 2)
    return rows, Figures(tokens / seconds, work.flops / seconds / peak, memory)


class Agreement(NamedTuple):
    """bfloat16 against float32, of the same weights: relative RMS error of last hidden states and of logits, and the share
    of positions at which both would choose the same token.
    """

    hidden: float
    logits: float
    same_token: float


def agreement(shape: Shape, device: str, size: Size) -> Agreement:
    """How far bfloat16 is from float32 on the prompts."""
    ids, mask = pad(list(questions(shape, size).values()), 0, "left", device)
    model = model_of(shape, device, torch.float32)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        with torch.inference_mode():
            hidden = last_hidden(model, input_ids=ids, mask=mask)
            found.append((hidden.double(), logits(model, hidden).double()))
    (hidden, scores), (rounded_hidden, rounded_scores) = found
    return Agreement(
        error(rounded_hidden, hidden),
        error(rounded_scores, scores),
        (scores.argmax(-1) == rounded_scores.argmax(-1)).double().mean().item(),
    )


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference by that of the exact values."""
    return ((found - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()
