"""The rows of the table as parameters: three kinds of systems, and what one of them may have of its own."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qthink_core.artifacts.conditions import JUDGED, Replaced
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.recipe import unique


def judgeable(conditions: list[str]) -> list[str]:
    """The conditions as they are; raises ValueError when one lacks that the verdict needs."""
    missing = [name for name in JUDGED if name not in conditions]
    if missing:
        raise ValueError(f"the verdict on the latents needs {', '.join(missing)} as well")
    return conditions


# What is put into the latents' places (interventions.py).
Conditions = Annotated[list[Replaced], AfterValidator(unique), AfterValidator(judgeable)]


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
