"""train: QThink itself, K latent steps with a projection head, trained on the answer and on the distance to teachers."""

from typing import Literal

from qthink_core.artifacts.pairs import Pair, Rule
from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import LatentSteps, Threads, Weight
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.recipe import Distillation, Distilled, Recipe


class Systems(Section):
    """The rows of the table that this stage trains."""

    distilled: dict[str, Distilled]


class Extract(Section):
    """The rule for the positions of the shared teachers; a row may have its own rule."""

    positions: Rule


class Params(Section):
    """The parameters that determine the trained weights."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    K: LatentSteps
    gamma: Weight
    train: Recipe
    distil: Distillation
    extract: Extract
    systems: Systems


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Trains one system on one task with one seed."""
    from qthink_core.artifacts import prepared
    from qthink_core.method.losses import Objective
    from qthink_core.method.targets import ANSWER
    from qthink_core.training.fit import Shape, Sources, fit

    system, distil = params.systems.distilled[at.system], params.distil
    shared = Pair(params.K, params.extract.positions)
    pair = system.pair(shared)
    teachers = pair.inside(layout.teachers(at.task, system.teacher), shared)
    train = prepared.read(layout.problems(at.task), "train")
    counts = fit(
        Sources(layout.BASE, train, layout.rollouts(at.task), layout.rewards(at.task), teachers),
        Shape(
            K=pair.K,
            target=ANSWER,
            thinking=distil.prompt == "thinking",
            one_step=distil.gradient == "one_step",
            positions=system.positions,
        ),
        params.train.with_answers_of(system.answer_max_tokens),
        Objective(
            gamma=params.gamma if system.gamma is None else system.gamma,
            supervision=system.supervision,
            reduction=distil.reduction,
            distance=system.distance or distil.distance,
            cross_entropy=params.train.cross_entropy,
        ),
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
