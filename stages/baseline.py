"""baseline: what the base model answers to the questions, with thinking and without: the zero lines of the table."""

from functools import partial
from typing import Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Baseline, Drawn


class Systems(Section):
    """The rows that this stage makes."""

    baseline: dict[str, Baseline]


class Evaluate(Drawn):
    """How rows that think are decoded, the limits, and who decodes; `max_new_tokens` counts thinking and answer."""

    thinking: Literal["greedy", "sampled"]
    max_new_tokens: int = Field(ge=1)
    batch: int = Field(ge=1)
    engine: Literal["hf", "vllm"]


class Params(Section):
    """What decides the answers."""

    seed: int = Field(ge=0)
    split: Literal["test", "validation"]
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    evaluate: Evaluate
    systems: Systems


def run(params: Params, at: stage.Box, work: Work) -> str:
    """A unit for each batch; a killed run goes on with those that are missing."""
    from qthink_core.artifacts import prepared, seconds
    from qthink_core.generation import answer_batches
    from qthink_core.generation.decoding import Sampling
    from qthink_core.models import loading
    from qthink_core.pipeline import executor

    how, thinking = params.evaluate, params.systems.baseline[at.system].thinking
    problems = prepared.read(layout.problems(at.task), params.split)
    plan = answer_batches.plan(layout.BASE, loading.QThinkConfig(0, thinking), None, problems, how.batch)
    load, longest = partial(loading.base_system, thinking=thinking), answer_batches.longest(plan)
    sampling = Sampling(params.seed, how.temperature, how.top_p, how.top_k) if how.thinking == "sampled" else None
    log = seconds.folder(str(at), work.resumed)
    units = executor.run(
        partial(
            answer_batches.maker, load, params.device, params.dtype, how.engine, longest, how.max_new_tokens, sampling, log
        ),
        plan,
        work,
        show=lambda items, total: stage.progress(items, total, str(at), "batch"),
        device=params.device,
    )
    made = work.publish(layout.answers(at.task, at.system), "answers", units, {"K": 0})
    return f"{made.counts['answers']} answers, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("baseline", run)
