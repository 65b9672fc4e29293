"""extract: hidden states at K positions of each rollout's think block."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work, listed
from qthink_core.settings import Section


class Extract(Section):
    """Which positions of which blocks are read, the padded tokens of a batch, and the type that is stored."""

    positions: Literal["even", "running"]
    cut_blocks: Literal["use", "drop"]
    batch_tokens: int = Field(ge=1)
    store: Literal["float32", "float16"]


class Params(Section):
    """What decides the hidden states."""

    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    K: int = Field(ge=1)
    extract: Extract


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """One shard of hidden states for each block of rollouts; a killed run goes on with the next one."""
    from qthink_core import extraction, models, prepared, rollouts
    from qthink_core.hidden_states import read_positions

    folder, how = layout.rollouts(at.task), params.extract
    marks = rollouts.marks(models.load_tokenizer(layout.BASE))
    model = models.load_model(layout.BASE, models.pick_device(params.device), params.dtype)
    prompts = {row["id"]: row["prompt_thinking"] for row in prepared.read(layout.problems(at.task), "train")}
    names = [name.removesuffix(".parquet") for name in listed(folder, ".parquet")]
    missing = [name for name in names if not work.done(name)]
    for name in stage.progress(missing, len(missing), str(at), "shard"):
        block = rollouts.read(folder / f"{name}.parquet")
        rows, counts = extraction.select(block, prompts, marks, params.K, how.cut_blocks, how.positions)
        states = read_positions(model, rows, params.K, params.extract.batch_tokens, params.extract.store)
        work.commit(name, extraction.writers(name, rows, states), counts)
    about = {"K": params.K, "D": model.config.hidden_size, "store": params.extract.store}
    made = work.publish(layout.hidden_states(at.task), "hidden_states", names, about)
    return f"hidden states of {made.counts['usable']} rollouts at {params.K} positions"


if __name__ == "__main__":
    stage.main("extract", run)
