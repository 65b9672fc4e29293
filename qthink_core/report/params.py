"""The parameters of the report, and the outline of its contents that follows from them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from qthink_core.evidence import published
from qthink_core.models.base_params import Base
from qthink_core.pipeline.kinds import Amount, unique
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.recipe import Distillation, Distilled, Finetuned
from qthink_core.pipeline.systems import Baseline, Seeds

SYSTEM_NAMES = {
    "base": "Base, thinking",
    "base_direct": "Base, not thinking",
    "sft": "SFT on think + answer",
    "answer_only": "SFT on the answer only",
    "uniform": "QThink uniform per-step",
    "reward_weighted": "QThink reward-weighted per-step",
    "undistilled": "Latents without distillation (gamma 0)",
    "final_step": "Reward-weighted final-step (CODI)",
}


class Systems(Section):
    """The rows of the table."""

    baseline: Annotated[dict[str, Baseline], Field(min_length=1)]
    finetuned: Annotated[dict[str, Finetuned], Field(min_length=1)]
    distilled: Annotated[dict[str, Distilled], Field(min_length=1)]
    trained: list[str]


class Rollout(Section):
    """How many rollouts the teachers average over."""

    G: int


class Train(Section):
    """The data that the rows were trained on, and for how long."""

    target: str
    answer_max_tokens: int
    cross_entropy: str
    epochs: int


class Evaluate(Section):
    """How rows that think are decoded, and the limit of the answers."""

    thinking: str
    max_new_tokens: int


class Extract(Section):
    """The positions at which the teachers are read."""

    positions: str


class Prepare(Section):
    """Where the problems come from."""

    source: str


class Report(Section):
    """The row against which the latents are judged, and how many single questions of each benchmark are shown."""

    control: str
    questions: int = Field(ge=0, le=10_000)


class ReportParams(Section):
    """The rows and columns of a table, and the settings behind it."""

    scale: str
    seed: Amount
    seeds: Seeds
    split: Literal["test", "validation"]
    base: Base
    tasks: Annotated[list[str], Field(min_length=1), AfterValidator(unique)]
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


class Outline(NamedTuple):
    """What the report shows.

    `settings`: those of each system that a fair comparison should share; `made_with`: those of the run; `model`: the base
    model in words; `published_model`: whether the published results are of it; `questions`: the number of single questions
    shown for each benchmark.
    """

    settings: Mapping[str, Mapping[str, Any]]
    made_with: Mapping[str, Any]
    model: str
    published_model: bool
    K: int
    control: str
    direct: str | None
    split: str
    questions: int
    distance: str

    def steps(self, system: str) -> int:
        """The latent steps of a row that takes some: its own number or the shared one."""
        return int(self.settings.get(system, {}).get("K", self.K))


def outline(params: ReportParams) -> Outline:
    """What the parameters of the report ask for."""
    hub = params.base.hub
    published_model = hub is not None and hub.repo.endswith(f"/{published.MODEL}")
    return Outline(
        settings=settings(params),
        made_with=made_with(params),
        model=params.base.description,
        published_model=published_model,
        K=params.K,
        control=params.report.control,
        direct=next((name for name, one in params.systems.baseline.items() if not one.thinking), None),
        split=params.split,
        questions=params.report.questions,
        distance=params.distil.distance,
    )


def settings(params: ReportParams) -> dict[str, dict[str, Any]]:
    """The settings that the rows of a fair comparison should share, by system, in the order of the rows."""
    shared: dict[str, Any] = {"max_new_tokens": params.evaluate.max_new_tokens}
    trained = shared | {
        "answer_max_tokens": params.train.answer_max_tokens,
        "epochs": params.train.epochs,
        "target": params.train.target,
    }
    latent = {
        "gamma": params.gamma,
        "K": params.K,
        "positions": params.extract.positions,
        "distance": params.distil.distance,
    }
    own = {
        **{name: shared for name in params.systems.baseline},
        **{name: trained | _own(one) for name, one in params.systems.finetuned.items()},
        **{name: trained | latent | _own(one) for name, one in params.systems.distilled.items()},
    }
    return {name: own[name] for name in (*params.systems.baseline, *params.systems.trained)}


def _own(system: Finetuned | Distilled) -> dict[str, Any]:
    """The settings that a row sets itself although a fair comparison should share them."""
    return system.model_dump(include={"gamma", "answer_max_tokens", "K", "positions", "distance"}, exclude_none=True)


def made_with(params: ReportParams) -> dict[str, Any]:
    """The settings of the run, by their names in the report."""
    return {
        "scale": params.scale,
        "problems": params.prepare.source,
        "split": params.split,
        "seed": params.seed,
        "training seeds": ", ".join(map(str, params.seeds)),
        "K": params.K,
        "G": params.rollout.G,
        "gamma": params.gamma,
        "epochs": params.train.epochs,
        "target": params.train.target,
        "training answers of at most": params.train.answer_max_tokens,
        "cross-entropy mean over": params.train.cross_entropy,
        "evaluated answers of at most": params.evaluate.max_new_tokens,
        "rows that think decoded": params.evaluate.thinking,
        "positions": params.extract.positions,
        "latent prompt": params.distil.prompt,
        "gradient through": params.distil.gradient.replace("_", " "),
        "reduction": params.distil.reduction,
        "distance": params.distil.distance,
    }
