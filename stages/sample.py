"""sample: G rollouts of each training problem from the base model, in blocks of whole problems."""

from functools import partial
from typing import Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.parameters import Section


class RolloutParams(Section):
    """The sampling parameters of the method."""

    G: int = Field(ge=1)
    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)


class Sample(Section):
    """The limits of this scale, and who samples."""

    max_new_tokens: int = Field(ge=1)
    block_problems: int = Field(ge=1)
    engine: Literal["hf", "vllm"]


class Params(Section):
    """What decides the rollouts' tokens."""

    seed: int = Field(ge=0)
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    rollout: RolloutParams
    sample: Sample


def run(params: Params, at: stage.Box, work: Work) -> str:
    """A unit for each block; a killed run goes on with those that are missing."""
    from qthink_core.artifacts import prepared
    from qthink_core.generation import rollout_blocks
    from qthink_core.pipeline import executor

    how = params.sample
    prompts = {row["id"]: row["prompt_thinking"] for row in prepared.read(layout.problems(at.task), "train")}
    plan = rollout_blocks.plan(prompts, how.block_problems)
    longest = rollout_blocks.longest(plan)
    settings = {"seed": params.seed, "max_new_tokens": how.max_new_tokens, **params.rollout.model_dump()}
    units = executor.run(
        partial(rollout_blocks.maker, layout.BASE, params.device, params.dtype, how.engine, longest, settings),
        plan,
        work,
        show=lambda items, total: stage.progress(items, total, str(at), "block"),
        device=params.device,
    )
    work.require(units, "thoughts", "take a base model that thinks, or set base.thinking to added")
    made = work.publish(layout.rollouts(at.task), "rollouts", units, {"G": params.rollout.G})
    return f"{made.counts['rollouts']} rollouts of {len(prompts)} problems, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("sample", run)
