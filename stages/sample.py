"""sample: G rollouts of each training problem from the base model, in blocks of whole problems."""

from functools import partial
from typing import Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Amount, Batch, Threads, Tokens
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Drawn


class RolloutParams(Drawn):
    """The sampling parameters of the method."""

    G: int = Field(ge=1, le=65_536)


class Sample(Section):
    """The scale's limits and engine."""

    max_new_tokens: Tokens
    block_problems: Batch
    engine: Literal["hf", "vllm"]


class Params(Section):
    """The parameters that determine the tokens of the rollouts."""

    seed: Amount
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    rollout: RolloutParams
    sample: Sample


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Makes a unit for each block; after a kill, the next run makes the missing units."""
    from qthink_core.artifacts import prepared
    from qthink_core.generation import makers, units
    from qthink_core.generation.requests import Sampling
    from qthink_core.pipeline import executor

    how, drawn = params.sample, params.rollout
    prompts = {row["id"]: row["prompt_thinking"] for row in prepared.read(layout.problems(at.task), "train")}
    sampling = Sampling(params.seed, drawn.temperature, drawn.top_p, drawn.top_k)
    plan = units.plan_rollouts(layout.BASE, prompts, how.block_problems, drawn.G, sampling)
    setting = makers.Setting(how.engine, params.device, params.dtype, units.longest(plan), how.max_new_tokens)
    blocks = executor.run(
        partial(makers.rollout_maker, layout.BASE, setting),
        plan,
        work,
        show=lambda items, total: stage.progress(items, total, str(at), "block"),
        device=params.device,
    )
    work.require(blocks, "thoughts", "take a base model that thinks, or set base.thinking to added")
    made = work.publish(layout.rollouts(at.task), "rollouts", blocks, {"G": params.rollout.G})
    return f"{made.counts['rollouts']} rollouts of {len(prompts)} problems, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("sample", run)
