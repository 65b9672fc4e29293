"""The rows of the table as parameters: three kinds of systems, and what one of them may have of its own."""

from typing import Literal

from pydantic import Field

from qthink_core.settings import Section


class Baseline(Section):
    """The base model itself: whether the prompt asks for thinking or holds an empty think block."""

    thinking: bool


class Finetuned(Section):
    """No latent steps: what the target holds; a target with thinking goes with a prompt that asks for it."""

    target: Literal["think_and_answer", "answer"]
    answer_max_tokens: int | None = Field(default=None, ge=1)


class Distilled(Section):
    """K latent steps: which teacher, and whether every latent step has one or only the last."""

    teacher: Literal["uniform", "reward_weighted"]
    supervision: Literal["per_step", "final_step"]
    gamma: float | None = Field(default=None, ge=0)
    answer_max_tokens: int | None = Field(default=None, ge=1)
