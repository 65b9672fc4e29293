"""The training recipe as parameters: what `finetune` and `train` read alike (model card; ruling 17)."""

from typing import Literal

from pydantic import Field

from qthink_core.settings import Section


class Lora(Section):
    """LoRA adapters (arXiv 2106.09685): rank, alpha, and the linear layers that get one."""

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    targets: list[Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]] = Field(min_length=1)


class Recipe(Section):
    """AdamW with linear warm-up and cosine decay; `batch` is the effective batch, whatever the devices.

    The learning rate is `lr * lr_multiplier`: `lr` is the method's value for its 2,048-wide model, the multiplier
    belongs to the scale's width.
    """

    lr: float = Field(gt=0)
    lr_multiplier: float = Field(gt=0)
    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    warmup: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    clip: float = Field(gt=0)
    target: Literal["rollout", "gold"]
    end_token: Literal["only_if_whole", "always"]
    answer_max_tokens: int = Field(ge=1)
    prompt_max_tokens: int = Field(ge=1)
    lora: Lora


class Distillation(Section):
    """How latent steps are supervised beside gamma, and how the projection head starts."""

    reduction: Literal["mean", "sum"]
    head_output: Literal["unit", "embedding"]
