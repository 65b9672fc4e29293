"""train: QThink itself. K latent steps and a projection head, distilled from the teachers beside the answer's loss."""

from typing import Literal

from pydantic import Field

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.recipe import Distillation, Recipe
from qthink_core.pipeline.systems import Distilled


class Systems(Section):
    """The rows that this stage trains."""

    distilled: dict[str, Distilled]


class Params(Section):
    """What decides the trained weights."""

    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    K: int = Field(ge=1)
    gamma: float = Field(ge=0)
    train: Recipe
    distil: Distillation
    systems: Systems


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Trains one system on one task with one seed."""
    from qthink_core.artifacts import prepared
    from qthink_core.method.targets import ANSWER
    from qthink_core.training.fit import Shape, Sources, fit
    from qthink_core.training.loop import Objective

    system = params.systems.distilled[at.system]
    teachers = layout.teachers(at.task, system.teacher)
    train = prepared.read(layout.problems(at.task), "train")
    counts = fit(
        Sources(layout.BASE, train, layout.rollouts(at.task), layout.rewards(at.task), teachers),
        Shape(K=params.K, target=ANSWER, thinking=params.distil.prompt == "thinking", latents=params.distil),
        params.train.with_answers_of(system.answer_max_tokens),
        Objective(params.gamma if system.gamma is None else system.gamma, system.supervision, params.distil.reduction),
        seed=at.seed,
        device=params.device,
        dtype=params.dtype,
        work=work,
        checkpoint_every=stage.checkpoint_every(),
        show=lambda steps, total: stage.progress(steps, total, str(at), "step"),
    )
    work.publish(layout.adapters(at.task, at.system, at.seed), "adapter", ["trained"])
    return f"trained on {counts['examples']} problems" + stage.nonzero(counts, "examples")


if __name__ == "__main__":
    stage.main("train", run, launchable=True)
