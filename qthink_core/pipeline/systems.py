"""Parameters of the table's rows that several stages read: training seeds, base rows, sampling, and probed conditions.

Parameters that only trainings read are in recipe.py, so an edit there, such as a new distance, does not change the code of
stages that score.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qthink_core.artifacts.conditions import JUDGED, Replaced
from qthink_core.pipeline.kinds import MAX_COUNT, MAX_TOKENS, Amount, Batch, Tokens, unique
from qthink_core.pipeline.parameters import Section

MAX_SEED = MAX_COUNT


def judgeable(conditions: list[str]) -> list[str]:
    """The conditions as they are; raises ValueError when one is missing that the verdict needs."""
    missing = [name for name in JUDGED if name not in conditions]
    if missing:
        raise ValueError(f"the verdict on the latents needs {', '.join(missing)} as well")
    return conditions


# Training seeds decide the initial weights, the order of batches, and which right rollout is the target.
Seeds = Annotated[list[Amount], Field(min_length=1), AfterValidator(unique)]
# What replaces the latents (generation/interventions.py).
Conditions = Annotated[list[Replaced], AfterValidator(unique), AfterValidator(judgeable)]


class Drawn(Section):
    """How rows that think sample their tokens, where they sample (decisions 16 and 19)."""

    temperature: float = Field(ge=0.01, le=100)
    top_p: float = Field(ge=1e-6, le=1)
    top_k: int = Field(ge=0, le=MAX_TOKENS)


class Answering(Drawn):
    """Whether thoughts are sampled, the limits, and the engine; `max_new_tokens` covers thinking and answer together."""

    thinking: Literal["greedy", "sampled"]
    max_new_tokens: Tokens
    batch: Batch
    engine: Literal["hf", "vllm"]


class Baseline(Section):
    """The base model itself: whether the prompt asks for thinking or holds an empty think block."""

    thinking: bool


def of_seed(folder: Path, seed: int, seeds: Sequence[int]) -> Path:
    """The folder of one training seed's export: `folder` itself for the first seed, a folder inside it for the others."""
    return folder if seed == seeds[0] else folder / f"seed-{seed}"
