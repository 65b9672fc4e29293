"""base: the base model at hand, in one folder. Pre-trained on the spot, from the hub, a local folder or a wheel."""

from typing import Literal

from pydantic import Field, model_validator

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.settings import Section


class Pretrain(Section):
    """A small Qwen3 trained from nothing on generated problems (qthink_core/pretraining.py)."""

    hidden_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=2)
    intermediate_size: int = Field(ge=1)
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    lr: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    without_thinking: float = Field(ge=0, le=1)


class Hub(Section):
    """A repository of the hub at a commit."""

    repo: str
    revision: str = Field(pattern="^[0-9a-f]{40}$")


class Wheel(Section):
    """A GGUF file inside an installed Python package."""

    package: str
    version: str


class Base(Section):
    """Where the model comes from: exactly one of four; `thinking: added` gives think tokens to a model without them."""

    thinking: Literal["native", "added"]
    pretrain: Pretrain | None = None
    hub: Hub | None = None
    folder: str | None = None
    wheel: Wheel | None = None

    @model_validator(mode="after")
    def one_source(self) -> "Base":
        """Refused here, before anything heavy is imported."""
        given = self.model_dump(exclude={"thinking"}, exclude_none=True)
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'nothing'} is given, expected one of pretrain, hub, folder, wheel")
        return self


class Params(Section):
    """What decides the base model's bytes."""

    seed: int = Field(ge=0)
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    base: Base


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Puts the model into its folder, as one unit."""
    from qthink_core.obtaining import obtain

    base = params.base
    found = obtain(
        pretrain=base.pretrain.model_dump() if base.pretrain else None,
        hub=base.hub.model_dump() if base.hub else None,
        folder=base.folder,
        wheel=base.wheel.model_dump() if base.wheel else None,
        thinking=base.thinking,
        seed=params.seed,
        out=work.scratch(),
        show=lambda steps, total: stage.progress(steps, total, str(at), "step"),
    )
    work.commit("model", found.files)
    work.publish(layout.BASE, "base", ["model"], found.about)
    return f"{found.about['architecture']} of {found.about['parameters'] / 1e6:.1f} M parameters"


if __name__ == "__main__":
    stage.main("base", run)
