"""probe: the answers of a latent system when its latents are replaced, left out or changed in number: do they matter?"""

from typing import Literal

from pydantic import Field

from qthink_core.artifacts.pairs import Pair, Rule
from qthink_core.artifacts.store import Work
from qthink_core.pipeline import layout, stage
from qthink_core.pipeline.kinds import Batch, Count, Threads, Tokens
from qthink_core.pipeline.parameters import Section
from qthink_core.pipeline.systems import Conditions, Seeds, of_seed


class Probe(Section):
    """The replacements of the latents, the swept numbers of steps (1..sweep*K), and the tokens in a latent's readout.

    `rows` is the largest number of answers that are generated at once, if one condition has not more.
    """

    conditions: Conditions
    sweep: int = Field(ge=0, le=1000)
    rows: Batch
    thinker: str
    top: int = Field(ge=1, le=1000)


class Extract(Section):
    """How the thinker's hidden states are read."""

    positions: Rule
    cut_blocks: Literal["use", "drop"]
    batch_tokens: Count


class Evaluate(Section):
    """The limits of the greedy answers; `max_new_tokens` counts thought and answer."""

    max_new_tokens: Tokens
    batch: Batch


class Params(Section):
    """The parameters that determine the answers; K comes from the exported model."""

    seeds: Seeds
    split: Literal["test", "validation"]
    cpu_threads: Threads
    cpu_kernels: Literal["avx2", "native"]
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    probe: Probe
    extract: Extract
    evaluate: Evaluate


def run(params: Params, at: stage.Box, work: Work) -> str:
    """Reads the thinker's states at K positions of its think blocks, then answers batch by batch under every condition."""
    from qthink_core.artifacts import answers, prepared
    from qthink_core.generation.interventions import intervene_all, teachers_of
    from qthink_core.models import loading

    device, units = loading.pick_device(params.device), []
    config = loading.read_config(layout.model(at.task, at.system))
    problems = prepared.read(layout.problems(at.task), params.split)
    thoughts = answers.read(layout.answers(at.task, params.probe.thinker))
    teachers = teachers_of(
        loading.base_system(layout.BASE, device, params.dtype, thinking=True),
        problems,
        thoughts,
        pair=Pair(config.K, config.positions or params.extract.positions),
        cut_blocks=params.extract.cut_blocks,
        batch_tokens=params.extract.batch_tokens,
    )
    for seed in params.seeds:
        units += intervene_all(
            loading.load_system(of_seed(layout.model(at.task, at.system), seed, params.seeds), device, params.dtype),
            problems,
            teachers,
            conditions=params.probe.conditions,
            sweep=params.probe.sweep,
            top=params.probe.top,
            batch=params.evaluate.batch,
            rows=params.probe.rows,
            max_new_tokens=params.evaluate.max_new_tokens,
            seed=seed,
            work=work,
            show=lambda items, total: stage.progress(items, total, str(at), "batch"),
        )
    made = work.publish(layout.probes(at.task, at.system), "answers", units, {"thinker": params.probe.thinker})
    return f"{made.counts['answers']} answers with other latents, {made.counts['without_teacher']} lack a teacher"


if __name__ == "__main__":
    stage.main("probe", run)
