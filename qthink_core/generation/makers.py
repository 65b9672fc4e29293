"""Makers of rollouts and answers: the functions that turn a unit of work into its file (pipeline/executor.py)."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from qthink_core.artifacts import answers, rollouts
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.generation import engine, units
from qthink_core.generation.engine import Engine
from qthink_core.generation.units import Unit
from qthink_core.method.think import marks, thoughts
from qthink_core.models.loading import pick_device
from qthink_core.models.tokenizer import load_tokenizer
from qthink_core.pipeline import seconds
from qthink_core.pipeline.executor import Made, Make


class Setting(NamedTuple):
    """The engine (`hf` or `vllm`), the device, the dtype, and the limits in tokens."""

    engine: str
    device: str
    dtype: str
    longest_prompt: int
    max_new_tokens: int


@contextmanager
def engines(setting: Setting) -> Iterator[Callable[[Unit], Engine]]:
    """A function that returns the engine of a unit's system; one engine stays open, until a unit has another model."""
    kept: dict[Path, Engine] = {}
    place = pick_device(setting.device)
    with ExitStack() as open_one:

        def engine_of(unit: Unit) -> Engine:
            if unit.model not in kept:
                kept.clear()
                open_one.close()
                opening = engine.opened(
                    setting.engine,
                    unit.model,
                    unit.config,
                    place,
                    setting.dtype,
                    setting.longest_prompt,
                    setting.max_new_tokens,
                )
                kept[unit.model] = open_one.enter_context(opening)
            return kept[unit.model]

        yield engine_of


@contextmanager
def rollout_maker(base: Path, setting: Setting) -> Iterator[Make]:
    """A function that makes the rollouts of a block with the model in `base`, and counts those with a thought."""
    delimiters = marks(load_tokenizer(base))
    with engines(setting) as engine_of:

        def make(name: str, unit: Unit) -> Made:
            rows = units.rollouts_of(unit.requests, engine_of(unit).generate(unit.requests))
            prompts = {one.problem_id: one.prompt for one in unit.requests}
            counts = rollouts.counts(rows) | {"thoughts": thoughts(rows, prompts, delimiters)}
            return {f"{name}.parquet": rollouts.writer(rows)}, counts

        yield make


@contextmanager
def answer_maker(setting: Setting, log: Path) -> Iterator[Make]:
    """A function that makes the answers to a batch, and records the seconds in `log`, without those of loading the model."""
    place = named(pick_device(setting.device))
    with engines(setting) as engine_of:

        def make(name: str, unit: Unit) -> Made:
            asked = engine_of(unit)
            started = time.perf_counter()
            done = asked.generate(unit.requests)
            spent = time.perf_counter() - started
            rows = units.answers_of(unit.requests, done, unit.seed, TRAINED)
            seconds.record(log, name, len(rows), spent, place)
            return {f"{name}.parquet": answers.writer(rows)}, answers.counts(rows)

        yield make


def named(device: torch.device) -> str:
    """The name of the device: `cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
