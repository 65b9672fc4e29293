"""The benchmark: all rows of the table at the given sizes."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
BATCH_GOALS = {32: 10.0, 64: 12.0}  # of answers, in batches of so many
SAMPLED = 8  # problems whose rollouts vLLM samples
OPTIONAL = ("vllm",)  # measured only where it is asked for, since it needs packages of its own
Job = Callable[[], Measured | list[Measured]]


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


def jobs(plan: Plan, peak: float) -> dict[str, list[Job]]:
    """The measurements by kind of work, each to be called once; `peak` is the device's FLOP/s.

    They are those of the models of the table or, without goals, of the plan's scale.
    """
    sizes, rounds, scale = plan.sizes, plan.rounds, plan.scale
    name, shape, merged = ("10 M", SMALL, True) if scale is None else (scale.name, scale.shape, scale.merged)
    long = sizes._replace(**LONG) if plan.memory else None
    batches = [sizes._replace(questions=n) for n in sorted({max(sizes.questions // 2, 1), sizes.questions})]
    examples = sizes._replace(problems=EXAMPLES["10 M"])
    probed = sizes._replace(questions=min(PROBED["10 M"], sizes.questions))

    def goal(ratio: float | None) -> float | None:
        return ratio if scale is None else None

    read, answer, probe = extraction.measured, answering.answers, answering.probes
    step, merge = training.steps, training.merged_step
    found: dict[str, list[Job]] = {
        "extraction": [partial(read, name, shape, sizes, rounds, peak, goal(1.65), long)],
        "answers": [
            partial(answer, name, shape, one, rounds, peak, goal(BATCH_GOALS.get(one.questions))) for one in batches
        ],
        "training": [partial(step, name, shape, examples, rounds, peak, (goal(3.5), goal(8.0)), merged)],
        "merged": [partial(merge, name, shape, examples, rounds, None)] if scale is not None and merged else [],
        "probes": [partial(probe, name, shape, probed, rounds, goal(3.0))],
        "vllm": [
            partial(vllm.rollouts, name, shape, sizes._replace(problems=SAMPLED), rounds),
            *[partial(vllm.answers, name, shape, sizes, K, rounds) for K in (0, sizes.K)],
        ],
    }
    if scale is not None:
        return found
    tiny = of_tiny(sizes)
    many = tiny._replace(problems=tiny.problems * TINY_PROBLEMS)
    examples = tiny._replace(problems=EXAMPLES["tiny"], micro_batch=EXAMPLES["tiny"])
    half = tiny._replace(problems=EXAMPLES["tiny"] // 2, micro_batch=EXAMPLES["tiny"] // 2)
    probed = tiny._replace(questions=min(PROBED["tiny"], sizes.questions))
    found["extraction"] += [
        partial(read, "10 M, V = 32k", WIDE, sizes, rounds, peak, 3.2, long),
        partial(read, "tiny", TINY, many, rounds, peak, None),
    ]
    found["answers"] += [
        partial(answer, "tiny", TINY, tiny._replace(questions=one.questions), rounds, peak, None) for one in batches
    ]
    found["training"] += [partial(step, "tiny", TINY, examples, rounds, peak, (None, None), True)]
    found["merged"] += [partial(merge, "tiny", TINY, half, rounds, 1.5)]
    found["probes"] += [partial(probe, "tiny", TINY, probed, rounds, 3.0)]
    return found


def measure(plan: Plan) -> Iterator[Measured]:
    """The rows of the table, one after the other."""
    torch.set_num_threads(plan.sizes.on.threads)
    pick_device(plan.sizes.on.name)
    found = jobs(plan, plan.sizes.on.matrix_peak())
    for kind, measurements in found.items():
        for one in measurements if kind in (plan.only or set(found) - set(OPTIONAL)) else []:
            made = one()
            yield from made if isinstance(made, list) else [made]


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
