"""merge: adapter and base become one checkpoint in the published layout, ready to be used and scored."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.settings import Section


class Params(Section):
    """What decides the exported bytes."""

    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    dtype: Literal["float32", "bfloat16"]


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Merges in float32, casts, and writes one system's folder."""
    from qthink_core.export import merge

    files = merge(layout.BASE, layout.adapters(at.task, at.system), params.dtype, work.scratch())
    work.commit("model", files)
    made = work.publish(layout.model(at.task, at.system), "model", ["model"])
    size = sum(file["bytes"] for file in made.files.values())
    return f"{layout.model(at.task, at.system)}, {size / 1e6:.1f} MB"


if __name__ == "__main__":
    stage.main("merge", run)
