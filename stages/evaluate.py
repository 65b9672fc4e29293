"""evaluate: the answers of a trained system's exported checkpoints to the questions and to further test sets."""

from functools import partial
from typing import Literal

from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Amount, Threads
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Answering, Seeds, of_seed


class Params(Section):
    """The parameters that determine the answers; K and thinking come from the exported model."""

    seed: Amount
    seeds: Seeds
    split: Literal["test", "validation"]
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    evaluate: Answering


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Makes a unit for each batch of each seed; after a kill, the next run makes the missing units."""
    from qthink_core.artifacts import prepared
    from qthink_core.generation import makers, units
    from qthink_core.generation.requests import Sampling
    from qthink_core.models import loading
    from qthink_core.pipeline import executor, seconds

    how = params.evaluate
    asked = prepared.questions(layout.problems(at.task), layout.test_sets(at.task), params.split)
    sampling = Sampling(params.seed, how.temperature, how.top_p, how.top_k) if how.thinking == "sampled" else None
    plan: dict[str, units.Unit] = {}
    for seed in params.seeds:
        folder = of_seed(layout.model(at.task, at.system), seed, params.seeds)
        config = loading.read_config(folder)
        for test_set, rows in asked.items():
            plan |= units.plan_answers(folder, config, seed, rows, how.batch, sampling, test_set)
    setting = makers.Setting(how.engine, params.device, params.dtype, units.longest(plan), how.max_new_tokens)
    batches = executor.run(
        partial(makers.answer_maker, setting, seconds.folder(str(at), work.resumed)),
        plan,
        work,
        show=lambda items, total: stage.progress(items, total, str(at), "batch"),
        device=params.device,
    )
    made = work.publish(layout.answers(at.task, at.system), "answers", batches, {"K": config.K})
    return f"{made.counts['answers']} answers, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("evaluate", run)
