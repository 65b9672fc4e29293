"""prepare: the problems of one task and its further test sets in one schema, with prompts rendered once as token ids."""

from typing import Annotated, Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.benchmarks.data_entries import Entry, SetEntry
from qthink_core.benchmarks.world import World
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import MAX_COUNT, Amount, Count, Text, Threads
from qthink_core.pipeline.parameters import Section


class Prepare(Section):
    """The source of the problems, the number of each split (`all` keeps all), and how many of its rows may be left out."""

    source: Literal["generated", "folder", "hub"]
    folder: Text
    n_train: Count | Literal["all"]
    n_validation: Amount
    n_test: Annotated[int, Field(ge=2, le=MAX_COUNT)] | Literal["all"]
    max_left_out: Amount


class Params(Section):
    """The parameters that determine the prepared problems."""

    seed: Amount
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    prepare: Prepare
    world: World | None
    data: dict[str, Entry]
    test_sets: dict[str, SetEntry]


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Writes one Parquet file per split and per test set, and counts the test questions that other splits contain, too."""
    stage.preflight(at)
    from qthink_core.artifacts import prepared, store
    from qthink_core.benchmarks import problems, rendering, test_sets
    from qthink_core.models.tokenizer import load_tokenizer

    how, entry = params.prepare.model_dump(), params.data[at.task]
    found = problems.gather(
        at.task,
        entry,
        seed=params.seed,
        world=params.world,
        show=lambda items, total: stage.progress(items, total, str(at), "problem"),
        **how,
    )
    of_sets = {key: how[key] for key in ("source", "folder", "n_test", "max_left_out")}
    sets = test_sets.gather(at.task, entry, params.test_sets, found.training, seed=params.seed, **of_sets)
    benchmark, splits = found.about["benchmark"], found.splits
    tokenizer = load_tokenizer(layout.BASE)
    longest = []
    further = {store.of_set(name, "test"): rows for name, rows in sets.problems.items()}
    for unit, chosen in (splits | further).items():
        shown = stage.progress(chosen, len(chosen), f"{at} {unit}", "prompt")
        rows = rendering.prompted(benchmark, shown, tokenizer)
        longest.append(rendering.longest_prompt(rows))
        work.commit(unit, {f"{unit}.parquet": prepared.writer(rows)}, {unit: len(rows)})
    shared = problems.overlap(splits)
    work.commit("overlap", {}, shared)
    work.publish(layout.problems(at.task), "problems", [*splits, "overlap"], found.about)
    work.publish(layout.test_sets(at.task), "test sets", list(further), {"sets": sets.about})
    sizes = ", ".join(f"{len(chosen)} {split}" for split, chosen in splits.items())
    others = "".join(f", {len(chosen)} of {name}" for name, chosen in sets.problems.items())
    said = f"{sizes} problems{others}, prompts of up to {max(longest)} tokens"
    overlap = f"{shared['overlap']} test questions are in other splits, {shared['near_overlap']} nearly"
    return "; ".join(filter(None, (said, overlap, found.said, sets.said)))


if __name__ == "__main__":
    stage.main("prepare", run)
