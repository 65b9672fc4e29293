"""fingerprint: the digests of each other stage's code, so that an edit reruns only the stages that it can change."""

from pathlib import Path
from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import code, graph, layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.pipeline.parameters import Section


class Params(Section):
    """The parameters that every stage reads."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Reads the source files and writes a file of digests for each stage."""
    said = {name: code.of_stage(Path(), name) for name in graph.stages(Path()) if name != at.stage}
    code.write(layout.CODE, said)
    return f"{len({path for one in said.values() for path in one})} files of code in {len(said)} stages"


if __name__ == "__main__":
    stage.main("fingerprint", run)
