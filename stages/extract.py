"""extract: the hidden states at K positions of each rollout's think block."""

from functools import partial
from typing import Literal

from qthink_core.artifacts.pairs import Pair, Rule
from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Count, LatentSteps, Threads
from qthink_core.pipeline.parameters import Section


class Also(Section):
    """A pair of a row of the table that differs from the shared one: the number of positions, and their rule."""

    K: LatentSteps
    positions: Rule


class Extract(Section):
    """Which positions of which think blocks are read, the tokens in a pass through the model, and the stored dtype."""

    positions: Rule
    also: list[Also]
    cut_blocks: Literal["use", "drop"]
    batch_tokens: Count
    store: Literal["float32", "float16"]


class Params(Section):
    """The parameters that determine the hidden states."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    K: LatentSteps
    extract: Extract


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Makes a shard of hidden states for each block of rollouts; after a kill, the next run makes the missing shards."""
    from qthink_core.artifacts import rollouts
    from qthink_core.models import loading
    from qthink_core.pipeline import executor
    from qthink_core.training import shards

    problems, how = layout.problems(at.task), params.extract
    pairs = [Pair(params.K, how.positions), *(Pair(one.K, one.positions) for one in how.also)]
    reading = how.model_dump(include={"cut_blocks", "batch_tokens", "store"})
    units = executor.run(
        partial(shards.maker, layout.BASE, problems, params.device, params.dtype, pairs=pairs, **reading),
        {block.stem: block for block in rollouts.files(layout.rollouts(at.task))},
        work,
        show=lambda items, total: stage.progress(items, total, str(at), "shard"),
        device=params.device,
    )
    fix = "set extract.cut_blocks to use, raise sample.max_new_tokens, or take a base model that thinks"
    work.require(units, "usable", fix)
    about = {"K": params.K, "D": loading.hidden_size(layout.BASE), "store": how.store}
    also = "".join(f", and {one.K} {one.positions}" for one in how.also)
    made = work.publish(layout.hidden_states(at.task), "hidden_states", units, about)
    return f"hidden states of {made.counts['usable']} rollouts at {params.K} positions{also}"


if __name__ == "__main__":
    stage.main("extract", run, launchable=True)
