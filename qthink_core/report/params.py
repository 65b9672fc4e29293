"""What a report states and compares, as parameters: the rows, and the settings that a table's last line names."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from qthink_core.models.base_source import Base
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.recipe import Distillation, Distilled, Finetuned
from qthink_core.pipeline.systems import Baseline, Seeds, unique


class Systems(Section):
    """The rows of the table."""

    baseline: dict[str, Baseline]
    finetuned: dict[str, Finetuned]
    distilled: dict[str, Distilled]
    trained: list[str]


class Rollout(Section):
    """How many rollouts the teachers average."""

    G: int


class Train(Section):
    """What the rows were trained towards, and for how long."""

    target: str
    answer_max_tokens: int
    cross_entropy: str
    epochs: int


class Evaluate(Section):
    """How rows that think are decoded, and the limit of the answers."""

    thinking: str
    max_new_tokens: int


class Extract(Section):
    """Where the teachers are read."""

    positions: str


class Prepare(Section):
    """Where the problems come from."""

    source: str


class Report(Section):
    """The row that the latents are judged against, and how many questions of a benchmark are shown one by one."""

    control: str
    questions: int = Field(ge=0)


class ReportParams(Section):
    """The rows and columns of a table, and the settings behind it."""

    scale: str
    seed: int = Field(ge=0)
    seeds: Seeds
    split: Literal["test", "validation"]
    base: Base
    tasks: Annotated[list[Literal["gsm8k", "math500", "tooluse"]], Field(min_length=1), AfterValidator(unique)]
    systems: Systems
    K: int
    gamma: float
    rollout: Rollout
    extract: Extract
    train: Train
    distil: Distillation
    evaluate: Evaluate
    prepare: Prepare
    report: Report
