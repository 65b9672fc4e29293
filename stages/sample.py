"""sample: G rollouts of each training problem from the base model, in blocks of whole problems."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.settings import Section


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
    cpu_kernels: Literal["portable", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    rollout: RolloutParams
    sample: Sample


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Commits block after block; a killed run goes on with the next one."""
    from qthink_core import models, prepared, rollouts, samplers

    how, device = params.sample, models.pick_device(params.device)
    prompts = {row["id"]: row["prompt_thinking"] for row in prepared.read(layout.problems(at.task), "train")}
    plan = rollouts.blocks(list(prompts), how.block_problems)
    names = [f"block-{number:05d}" for number in range(len(plan))]
    missing = [(name, ids) for name, ids in zip(names, plan, strict=True) if not work.done(name)]
    with samplers.opened(how.engine, layout.BASE, device, params.dtype, prompts, how.max_new_tokens) as sample_block:
        for name, ids in stage.progress(missing, len(missing), f"{at}", "block"):
            rows = sample_block(
                {one: prompts[one] for one in ids},
                seed=params.seed,
                max_new_tokens=how.max_new_tokens,
                **params.rollout.model_dump(),
            )
            work.commit(name, {f"{name}.parquet": rollouts.writer(rows)}, rollouts.counts(rows))
    made = work.publish(layout.rollouts(at.task), "rollouts", names, {"G": params.rollout.G})
    return f"{made.counts['rollouts']} rollouts of {len(prompts)} problems, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("sample", run)
