"""evaluate: what a trained system answers to the questions that are scored, as its exported checkpoints."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.recipe import Seeds
from qthink_core.settings import Section


class Evaluate(Section):
    """A greedy evaluation: its limits and who decodes; `max_new_tokens` counts thinking and answer."""

    max_new_tokens: int = Field(ge=1)
    batch: int = Field(ge=1)
    engine: Literal["hf", "vllm"]


class Params(Section):
    """What decides the answers; K and thinking come from the exported model itself."""

    seeds: Seeds
    split: Literal["test", "validation"]
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    evaluate: Evaluate


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Commits batch after batch, seed after seed; a killed run goes on with the next one."""
    from qthink_core import answerers, models, prepared
    from qthink_core.answering import answer_all

    how, device, units = params.evaluate, models.pick_device(params.device), []
    problems = prepared.read(layout.problems(at.task), params.split)
    for seed in params.seeds:
        folder = models.of_seed(layout.model(at.task, at.system), seed, params.seeds)
        system = models.load_system(folder, device, params.dtype)
        with answerers.opened(how.engine, folder, system, problems, how.max_new_tokens) as answer:
            units += answer_all(
                system,
                problems,
                seed=seed,
                batch=how.batch,
                max_new_tokens=how.max_new_tokens,
                answer=answer,
                work=work,
                show=lambda items, total: stage.progress(items, total, str(at), "batch"),
            )
    made = work.publish(layout.answers(at.task, at.system), "answers", units, {"K": system.K})
    return f"{made.counts['answers']} answers, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("evaluate", run)
