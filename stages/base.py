"""base: the base model in one folder, pre-trained here or taken from the hub, a local folder or a wheel."""

from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.benchmarks.world import World
from qthink_core.models.base_params import Base
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Amount, Threads
from qthink_core.pipeline.parameters import Section


class Params(Section):
    """The parameters that determine the base model's bytes."""

    seed: Amount
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    base: Base
    world: World | None


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Makes the base model, as one unit."""
    stage.preflight(at)
    from qthink_core.models import base_model

    base = params.base
    found = base_model.build(
        pretrain=base.pretrain.model_dump() if base.pretrain else None,
        hub=base.hub.model_dump() if base.hub else None,
        folder=base.folder,
        world=params.world,
        wheel=base.wheel.model_dump() if base.wheel else None,
        thinking=base.thinking,
        seed=params.seed,
        out=work.scratch(),
        show=lambda steps, total: stage.progress(steps, total, str(at), "step"),
        show_problems=lambda items, total: stage.progress(items, total, str(at), "problem"),
    )
    work.commit("model", found.files)
    work.publish(layout.BASE, "base", ["model"], found.about | {"source": base.source})
    changes = "".join(f"; {change}" for change in found.about.get("changes", []))
    return f"{found.about['architecture']} of {found.about['parameters'] / 1e6:.1f} M parameters{changes}"


if __name__ == "__main__":
    stage.main("base", run)
