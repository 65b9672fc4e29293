"""prepare: the problems of one task, split and in one schema, with prompts that are rendered once as token ids."""

from typing import Annotated, Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.benchmarks.data_entries import Entry
from qthink_core.benchmarks.world import World
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.parameters import Section


class Prepare(Section):
    """The source of the problems, the number of each split (`all` keeps all), and how many of its rows may be left out."""

    source: Literal["generated", "folder", "hub"]
    folder: str = Field(min_length=1)
    n_train: Annotated[int, Field(ge=1)] | Literal["all"]
    n_validation: int = Field(ge=0)
    n_test: Annotated[int, Field(ge=2)] | Literal["all"]
    max_left_out: int = Field(ge=0)


class Params(Section):
    """The parameters that determine the prepared problems."""

    seed: int = Field(ge=0)
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]
    prepare: Prepare
    world: World | None
    data: dict[str, Entry]


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Writes one Parquet file per split, and counts the test questions that other splits contain, too."""
    stage.preflight(at)
    from qthink_core.artifacts import prepared
    from qthink_core.benchmarks import problems, rendering
    from qthink_core.models.tokenizer import load_tokenizer

    found = problems.gather(
        at.task,
        params.data[at.task],
        seed=params.seed,
        world=params.world,
        show=lambda items, total: stage.progress(items, total, str(at), "problem"),
        **params.prepare.model_dump(),
    )
    benchmark, splits = found.about["benchmark"], found.splits
    tokenizer = load_tokenizer(layout.BASE)
    longest = []
    for split, chosen in splits.items():
        shown = stage.progress(chosen, len(chosen), f"{at} {split}", "prompt")
        rows = rendering.prompted(benchmark, shown, tokenizer)
        longest.append(rendering.longest_prompt(rows))
        work.commit(split, {f"{split}.parquet": prepared.writer(rows)}, {split: len(rows)})
    shared = problems.overlap(splits)
    work.commit("overlap", {}, shared)
    work.publish(layout.problems(at.task), "problems", [*splits, "overlap"], found.about)
    sizes = ", ".join(f"{len(chosen)} {split}" for split, chosen in splits.items())
    said = f"{sizes} problems, prompts of up to {max(longest)} tokens"
    overlap = f"{shared['overlap']} test questions are in other splits, {shared['near_overlap']} nearly"
    return "; ".join(filter(None, (said, overlap, found.said)))


if __name__ == "__main__":
    stage.main("prepare", run)
