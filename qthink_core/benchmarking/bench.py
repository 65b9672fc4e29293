"""The benchmark: all rows of the table at the given sizes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from qthink_core.benchmarking import answering, batch_sizes, extraction, growth, training, vllm
from qthink_core.benchmarking.measured import Measured
from qthink_core.benchmarking.scale_sizes import Scale
from qthink_core.benchmarking.workload import SMALL, TINY, Sizes
from qthink_core.models.loading import pick_device

WIDE = SMALL._replace(vocabulary=32768)
NAMED = {"10 M": SMALL, "10 M, V = 32k": WIDE, "tiny": TINY}
# Lengths of GSM8K with Qwen3-1.7B, at about a third; those of the tiny scale as they are.
FULL = Sizes(2, 16, 80, 300, 48, 6, 256, 16, 64, 64)
QUICK = Sizes(1, 16, 40, 100, 24, 6, 256, 16, 32, 24)
OF_TINY: dict[str, Any] = {"prompt": 40, "thought": 24, "answer": 12, "max_new_tokens": 24}
TINY_BATCH_TOKENS = 2048  # of params/tiny.yaml
# Memory is that of rollouts with the lengths of the recipe.
LONG: dict[str, Any] = {"problems": 1, "G": 4, "prompt": 120, "thought": 1000}
# Problems by which growth is measured, in blocks and batches of so many.
NUMBERS, QUICK_NUMBERS, BLOCK = (32, 64, 128, 256), (8, 16, 32), 8
EXAMPLES = {"10 M": 16, "tiny": 32}
TINY_PROBLEMS = 10  # so many more, since they are small
PROBED = {"10 M": 16, "tiny": 100}
SAMPLED = 8  # problems whose rollouts vLLM samples
OPTIONAL = ("vllm",)  # measured only where it is asked for, since it needs packages of its own


class Plan(NamedTuple):
    """What is measured: sizes, number of rounds, whether memory is, and the kinds of work (none: all but OPTIONAL).

    Where a `scale` is given, it is measured on the model of that scale, where it computes.
    """

    sizes: Sizes
    rounds: int
    memory: bool = True
    only: Sequence[str] = ()
    scale: Scale | None = None


def of_tiny(sizes: Sizes) -> Sizes:
    """The sizes for the tiny model: none longer than its scale has them, and its scale's passes if none were asked for."""
    batch_tokens = TINY_BATCH_TOKENS if sizes.batch_tokens == FULL.batch_tokens else sizes.batch_tokens
    own = sizes._replace(batch_tokens=batch_tokens)
    return own._replace(**{name: min(value, getattr(sizes, name)) for name, value in OF_TINY.items()})


def jobs(plan: Plan, peak: float) -> dict[str, list[Callable[[], list[Measured]]]]:
    """The measurements by kind of work, each to be called once; `peak` is the device's FLOP/s."""
    if plan.scale is not None:
        return jobs_of_scale(plan, plan.scale, peak)
    sizes, rounds, tiny = plan.sizes, plan.rounds, of_tiny(plan.sizes)
    many = tiny._replace(problems=tiny.problems * TINY_PROBLEMS)
    batches = sorted({max(sizes.questions // 2, 1), sizes.questions})
    # The goals hold for these sizes of batches.
    goals = {32: 10.0, 64: 12.0}

    def read(name: str, how: Sizes, goal: float | None) -> Callable[[], list[Measured]]:
        long = how._replace(**LONG) if plan.memory and name != "tiny" else None
        return lambda: [extraction.measured(name, NAMED[name], how, rounds, peak, goal, long)]

    def answered(name: str, how: Sizes, n: int, goal: float | None) -> Callable[[], list[Measured]]:
        return lambda: [answering.answers(name, NAMED[name], how._replace(questions=n), rounds, peak, goal)]

    def stepped(name: str, how: Sizes, goals: tuple[float | None, float | None], micro: int) -> Callable[[], list[Measured]]:
        size = how._replace(problems=EXAMPLES[name], micro_batch=micro)
        return lambda: training.steps(name, NAMED[name], size, rounds, peak, goals, merged=True)

    def probed(name: str, how: Sizes, goal: float | None) -> Callable[[], list[Measured]]:
        asked = how._replace(questions=min(PROBED[name], sizes.questions))
        return lambda: [answering.probes(name, NAMED[name], asked, rounds, goal)]

    merging = tiny._replace(problems=EXAMPLES["tiny"] // 2, micro_batch=EXAMPLES["tiny"] // 2)
    return {
        "extraction": [read("10 M", sizes, 1.65), read("10 M, V = 32k", sizes, 3.2), read("tiny", many, None)],
        "answers": [
            *[answered("10 M", sizes, n, goals.get(n)) for n in batches],
            *[answered("tiny", tiny, n, None) for n in batches],
        ],
        "training": [
            stepped("10 M", sizes, (3.5, 8.0), sizes.micro_batch),
            stepped("tiny", tiny, (None, None), EXAMPLES["tiny"]),
        ],
        "merged": [lambda: [training.merged_step("tiny", TINY, merging, rounds, 1.5)]],
        "probes": [probed("10 M", sizes, 3.0), probed("tiny", tiny, 3.0)],
        "vllm": [
            lambda: [vllm.rollouts("10 M", SMALL, sizes._replace(problems=SAMPLED), rounds)],
            *[lambda K=K: [vllm.answers("10 M", SMALL, sizes, K, rounds)] for K in (0, sizes.K)],
        ],
    }


def jobs_of_scale(plan: Plan, scale: Scale, peak: float) -> dict[str, list[Callable[[], list[Measured]]]]:
    """The measurements on the model of a scale; the goals are for other models."""
    sizes, rounds, name, shape = plan.sizes, plan.rounds, scale.name, scale.shape
    long = sizes._replace(**LONG) if plan.memory else None
    asked, probed = sorted({max(sizes.questions // 2, 1), sizes.questions}), min(PROBED["10 M"], sizes.questions)
    stepped = sizes._replace(problems=EXAMPLES["10 M"])
    none = (None, None)

    def answered(n: int) -> Callable[[], list[Measured]]:
        return lambda: [answering.answers(name, shape, sizes._replace(questions=n), rounds, peak, None)]

    return {
        "extraction": [lambda: [extraction.measured(name, shape, sizes, rounds, peak, None, long)]],
        "answers": [answered(n) for n in asked],
        "training": [lambda: training.steps(name, shape, stepped, rounds, peak, none, scale.merged)],
        "merged": [lambda: [training.merged_step(name, shape, stepped, rounds, None)]] if scale.merged else [],
        "probes": [lambda: [answering.probes(name, shape, sizes._replace(questions=probed), rounds, None)]],
        "vllm": [
            lambda: [vllm.rollouts(name, shape, sizes._replace(problems=SAMPLED), rounds)],
            *[lambda K=K: [vllm.answers(name, shape, sizes, K, rounds)] for K in (0, sizes.K)],
        ],
    }


def measure(plan: Plan) -> Iterator[Measured]:
    """The rows of the table, one after the other."""
    torch.set_num_threads(plan.sizes.on.threads)
    pick_device(plan.sizes.on.name)
    found = jobs(plan, plan.sizes.on.matrix_peak())
    for kind, measurements in found.items():
        for one in measurements if kind in (plan.only or set(found) - set(OPTIONAL)) else []:
            yield from one()


def compare(plan: Plan, values: Sequence[int]) -> Iterator[batch_sizes.Choice]:
    """Values of `extract.batch_tokens` on the models of the table, or on that of the plan's scale."""
    pick_device(plan.sizes.on.name)
    if plan.scale is not None:
        yield batch_sizes.choose(plan.scale.name, plan.scale.shape, plan.sizes, values, plan.rounds, plan.memory)
        return
    tiny = of_tiny(plan.sizes)
    many = tiny._replace(problems=tiny.problems * TINY_PROBLEMS)
    for name, shape in NAMED.items():
        sizes = many if name == "tiny" else plan.sizes
        yield batch_sizes.choose(name, shape, sizes, values, plan.rounds, plan.memory)


def grow(plan: Plan) -> Iterator[growth.Grown]:
    """The curves of the tiny model; small sizes where there is one round."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    sizes = of_tiny(plan.sizes)._replace(micro_batch=BLOCK, questions=BLOCK)
    yield from growth.curve(TINY, sizes, NUMBERS if plan.rounds > 1 else QUICK_NUMBERS)
