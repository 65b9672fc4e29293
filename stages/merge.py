"""merge: adapter and base as one checkpoint in the published layout, ready to be used and scored."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Seeds


class Params(Section):
    """What decides the exported bytes."""

    seeds: Seeds
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]
    dtype: Literal["float32", "bfloat16"]


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Merges in float32, casts, and writes one system's folder: the first seed's checkpoint, the others' inside it."""
    from qthink_core.models.export import inside, merge
    from qthink_core.models.loading import of_seed

    units = [f"model-{seed}" for seed in params.seeds]
    for unit, seed in stage.progress(zip(units, params.seeds, strict=True), len(units), str(at), "seed"):
        if not work.done(unit):
            files = merge(layout.BASE, layout.adapters(at.task, at.system, seed), params.dtype, work.scratch())
            work.commit(unit, inside(of_seed(Path(), seed, params.seeds), files))
    made = work.publish(layout.model(at.task, at.system), "model", units)
    size = sum(file["bytes"] for file in made.files.values())
    return f"{layout.model(at.task, at.system)}, {size / 1e6:.1f} MB"


if __name__ == "__main__":
    stage.main("merge", run)
