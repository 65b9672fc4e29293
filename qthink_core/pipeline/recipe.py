"""The training recipe as parameters: what `finetune` and `train` read alike (model card; decision 17)."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from qthink_core.pipeline.parameters import Section

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Value = TypeVar("Value", int, str)
MAX_SEED = 2**31 - 1  # what a column of seeds holds


def unique(values: list[Value]) -> list[Value]:
    """The values as they are; raises ValueError when one appears twice."""
    if len(set(values)) < len(values):
        raise ValueError("each must appear once")
    return values


# The seeds of the trainings: first weights, order of batches, and which right rollout is the target.
Seeds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_SEED)]], Field(min_length=1), AfterValidator(unique)]


class Lora(Section):
    """LoRA adapters (arXiv 2106.09685): rank, alpha, the linear layers that get one, and how they compute.

    `targets`: PEFT's `all-linear`, which is every linear layer but the output head, or some of them by name.

    `merged`: W + s B A once a micro-batch (merged_lora.py), which is faster where a step has little to compute; else
    W x + s B (A x) at each pass. The same function, rounded otherwise.
    """

    r: int = Field(ge=1)
    alpha: int = Field(ge=1)
    merged: bool
    targets: Literal["all-linear"] | Annotated[list[Projection], Field(min_length=1)]


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
    cross_entropy: Literal["tokens", "problems"]
    end_token: Literal["only_if_whole", "always"]
    answer_max_tokens: int = Field(ge=1)
    prompt_max_tokens: int = Field(ge=1)
    lora: Lora

    def with_answers_of(self, tokens: int | None) -> "Recipe":
        """The same recipe with another limit of the answers, for a system that has one of its own."""
        return self if tokens is None else self.model_copy(update={"answer_max_tokens": tokens})


class Drawn(Section):
    """How sampled tokens are drawn (decisions 16 and 19)."""

    temperature: float = Field(gt=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)


class Answering(Drawn):
    """Whether thoughts are sampled, the limits, and the engine; `max_new_tokens` counts thinking and answer."""

    thinking: Literal["greedy", "sampled"]
    max_new_tokens: int = Field(ge=1)
    batch: int = Field(ge=1)
    engine: Literal["hf", "vllm"]


class Distillation(Section):
    """How latent steps are supervised beside gamma, and what they follow."""

    reduction: Literal["mean", "sum"]
    prompt: Literal["direct", "thinking"]
    gradient: Literal["all_steps", "one_step"]
