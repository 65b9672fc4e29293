"""finetune: the trained rows without latent steps: SFT on the same rollouts, on thought and answer or the answer alone."""

from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Threads
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.recipe import Finetuned, Recipe


class Systems(Section):
    """The rows of the table that this stage trains."""

    finetuned: dict[str, Finetuned]


class Params(Section):
    """The parameters that determine the trained weights; gamma and K are not among them."""

    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    train: Recipe
    systems: Systems


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Trains one system on one task with one seed."""
    from qthink_core.artifacts import prepared
    from qthink_core.method.losses import Objective
    from qthink_core.method.targets import THINK_AND_ANSWER
    from qthink_core.training.fit import Shape, Sources, fit

    system = params.systems.finetuned[at.system]
    train = prepared.read(layout.problems(at.task), "train")
    counts = fit(
        Sources(layout.BASE, train, layout.rollouts(at.task), layout.rewards(at.task), teachers=None),
        Shape(K=0, target=system.target, thinking=system.target == THINK_AND_ANSWER),
        params.train.with_answers_of(system.answer_max_tokens),
        Objective.on_answers(params.train.cross_entropy),
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
    stage.main("finetune", run, launchable=True)
