"""The training recipe and the trained rows of the table, as parameters (model card; decisions 17 and 18)."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qthink_core.artifacts.pairs import Pair, Rule
from qthink_core.pipeline.kinds import MAX_COUNT, Batch, LatentSteps, Rate, Tokens, Weight, unique
from qthink_core.pipeline.parameters import Section

Projection = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# method/losses.py has a function for each.
Distance = Literal["l1", "l2", "cosine"]


class Lora(Section):
    """LoRA adapters (arXiv 2106.09685): rank, alpha, the linear layers that get one, and how they compute.

    `targets`: PEFT's `all-linear`, which is every linear layer but the output head, or some of them by name.

    `merged`: W + s B A once for each micro-batch (method/fast_training/merged_lora.py), which is faster but needs
    memory for two copies of the weights; else W x + s B (A x) at each pass. Both are the same function with different
    rounding.
    """

    r: int = Field(ge=1, le=65_536)
    alpha: int = Field(ge=1, le=MAX_COUNT)
    merged: bool
    targets: Literal["all-linear"] | Annotated[list[Projection], Field(min_length=1), AfterValidator(unique)]


class Recipe(Section):
    """AdamW with linear warm-up and cosine decay; `batch` is the effective batch, whatever the devices.

    The learning rate is `lr * lr_multiplier`: `lr` is the method's value for its model of width 2,048, and the
    multiplier adapts it to the width of the scale's model.
    """

    lr: Rate
    lr_multiplier: float = Field(ge=1e-6, le=1e6)
    epochs: int = Field(ge=1, le=10_000)
    batch: Batch
    micro_batch: Batch
    warmup: float = Field(ge=0, lt=1)
    weight_decay: Weight
    clip: float = Field(ge=1e-9, le=1e9)
    target: Literal["rollout", "gold"]
    cross_entropy: Literal["tokens", "problems"]
    end_token: Literal["only_if_whole", "always"]
    answer_max_tokens: Tokens
    prompt_max_tokens: Tokens
    lora: Lora

    def with_answers_of(self, tokens: int | None) -> "Recipe":
        """The recipe with a row's own limit on answers; None leaves it unchanged."""
        return self if tokens is None else self.model_copy(update={"answer_max_tokens": tokens})


class Distillation(Section):
    """How latent steps are supervised, apart from gamma, and which prompt they follow."""

    distance: Distance
    reduction: Literal["mean", "sum"]
    prompt: Literal["direct", "thinking"]
    gradient: Literal["all_steps", "one_step"]


class Finetuned(Section):
    """A row without latent steps: what its target contains. A target with thinking gets a prompt that asks for thinking."""

    target: Literal["think_and_answer", "answer"]
    answer_max_tokens: Tokens | None = None


class Distilled(Section):
    """A row with latent steps: its teacher, and whether every latent step has one or only the last.

    The other fields override, for this row alone, settings that all rows share; the table marks them (decision 18).
    """

    teacher: Literal["uniform", "reward_weighted"]
    supervision: Literal["per_step", "final_step"]
    gamma: Weight | None = None
    answer_max_tokens: Tokens | None = None
    K: LatentSteps | None = None
    positions: Rule | None = None
    distance: Distance | None = None

    def pair(self, shared: Pair) -> Pair:
        """The number and rule of this row's positions."""
        return Pair(self.K or shared.K, self.positions or shared.positions)
