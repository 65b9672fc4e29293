"""merge: adapter and base model merged into one checkpoint in the published layout, ready for use and evaluation."""

from pathlib import Path
from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Seeds, of_seed


class Params(Section):
    """The parameters that determine the exported bytes."""

    seeds: Seeds
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    dtype: Literal["float32", "bfloat16"]


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Merges one system in float32, casts it, and writes its folder: the first seed at the top, the others inside."""
    from qthink_core.models import model_card
    from qthink_core.models.export import inside, merge

    units = [f"model-{seed}" for seed in params.seeds]
    for unit, seed in stage.progress(zip(units, params.seeds, strict=True), len(units), str(at), "seed"):
        if not work.done(unit):
            adapter = layout.adapters(at.task, at.system, seed)
            files = merge(layout.BASE, adapter, params.dtype, work.scratch()) | model_card.files(layout.BASE, adapter)
            work.commit(unit, inside(of_seed(Path(), seed, params.seeds), files))
    made = work.publish(layout.model(at.task, at.system), "model", units)
    size = sum(file["bytes"] for file in made.files.values())
    return f"{layout.model(at.task, at.system)}, {size / 1e6:.1f} MB"


if __name__ == "__main__":
    stage.main("merge", run)
