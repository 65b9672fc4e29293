"""baseline: what the base model answers to the questions, with thinking and without: the zero lines of the table."""

from typing import Literal

from pydantic import Field

from qthink_core import layout, stage
from qthink_core.artifacts import Work
from qthink_core.settings import Section
from qthink_core.systems import Baseline


class Systems(Section):
    """The rows that this stage makes."""

    baseline: dict[str, Baseline]


class Evaluate(Section):
    """A greedy evaluation: its limits and who decodes; `max_new_tokens` counts thinking and answer."""

    max_new_tokens: int = Field(ge=1)
    batch: int = Field(ge=1)
    engine: Literal["hf", "vllm"]


class Params(Section):
    """What decides the answers."""

    split: Literal["test", "validation"]
    cpu_threads: int = Field(ge=1)
    cpu_kernels: Literal["portable", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    evaluate: Evaluate
    systems: Systems


def run(params: Params, at: stage.Instance, work: Work) -> str:
    """Commits batch after batch; a killed run goes on with the next one."""
    from qthink_core import answerers, models, prepared
    from qthink_core.answering import answer_all

    how, thinking = params.evaluate, params.systems.baseline[at.system].thinking
    system = models.base_system(layout.BASE, models.pick_device(params.device), params.dtype, thinking)
    problems = prepared.read(layout.problems(at.task), params.split)
    with answerers.opened(how.engine, layout.BASE, system, problems, how.max_new_tokens) as answer:
        units = answer_all(
            system,
            problems,
            seed=None,
            batch=how.batch,
            max_new_tokens=how.max_new_tokens,
            answer=answer,
            work=work,
            show=lambda items, total: stage.progress(items, total, str(at), "batch"),
        )
    made = work.publish(layout.answers(at.task, at.system), "answers", units, {"K": 0})
    return f"{made.counts['answers']} answers, {made.counts['tokens']} tokens"


if __name__ == "__main__":
    stage.main("baseline", run)
