"""The training recipe and the trained rows of the table, as parameters (model card; decisions 17 and 18)."""

from typing import Annotated, Literal

from pydantic import Field

from qthink_core.artifacts.pairs import Pair, Rule
from qthink_core.pipeline.parameters import Section

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# method/losses.py has a function for each.
Distance = Literal["l1", "l2", "cosine"]


class Lora(Section):
    """LoRA adapters (arXiv 2106.09685): rank, alpha, the linear layers that get one, and how they compute.

    `targets`: PEFT's `all-linear`, which is every linear layer but the output head, or some of them by name.

    `merged`: W + s B A once for each micro-batch (merged_lora.py), which is faster where a step has little to compute; else
    W x + s B (A x) at each pass. The same function, with other rounding.
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
        """The same recipe with another limit of the answers, for a row that has its own."""
        return self if tokens is None else self.model_copy(update={"answer_max_tokens": tokens})


class Distillation(Section):
    """How latent steps are supervised, beside gamma, and what they follow."""

    distance: Distance
    reduction: Literal["mean", "sum"]
    prompt: Literal["direct", "thinking"]
    gradient: Literal["all_steps", "one_step"]


class Finetuned(Section):
    """No latent steps: what the target holds; a target with thinking goes with a prompt that asks for it."""

    target: Literal["think_and_answer", "answer"]
    answer_max_tokens: int | None = Field(default=None, ge=1)


class Distilled(Section):
    """Latent steps: which teacher, and whether every latent step has one or only the last.

    The others are settings of this row alone, in place of those that all rows share; the table marks them (decision 18).
    """

    teacher: Literal["uniform", "reward_weighted"]
    supervision: Literal["per_step", "final_step"]
    gamma: float | None = Field(default=None, ge=0)
    answer_max_tokens: int | None = Field(default=None, ge=1)
    K: int | None = Field(default=None, ge=1)
    positions: Rule | None = None
    distance: Distance | None = None

    def pair(self, shared: Pair) -> Pair:
        """The number and rule of this row's positions."""
        return Pair(self.K or shared.K, self.positions or shared.positions)
