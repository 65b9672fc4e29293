"""Checkpoints that answer the questions of a benchmark: what an evaluation and the systems of an audit share."""

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig

from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import canonical_json, sha256
from qthink_core.benchmarks import grading
from qthink_core.errors import DataError, ParamError, first_line
from qthink_core.generation import units, vllm_engine
from qthink_core.generation.engine import Engine
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Request
from qthink_core.inference import checkpoint
from qthink_core.inference.checkpoint import Checkpoint
from qthink_core.inference.evaluation import questions
from qthink_core.inference.evaluation.questions import Questions
from qthink_core.inference.evaluation.verdict_file import Key, Line, VerdictFile
from qthink_core.inference.settings import MAX_NEW_TOKENS
from qthink_core.models.loading import QThinkConfig, System
from qthink_core.models.tokenizer import load_tokenizer

BATCH = 32
Say = Callable[[str], None]


@dataclass(frozen=True)
class How:
    """How answers are made; None for `max_new_tokens` is 2,048, or what the model's positions leave if that is less."""

    max_new_tokens: int | None = None
    batch: int = BATCH
    device: str = "cpu"
    dtype: str = "auto"
    engine: str = "hf"

    def check(self) -> None:
        """Raises ParamError for a value that no run could use."""
        if self.batch < 1:
            raise ParamError(f"--batch is {self.batch}: give a number of questions above 0")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ParamError(f"--max-new-tokens is {self.max_new_tokens}: give a number above 0")
        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise ParamError(f"--device is {self.device!r}: give cpu or cuda")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ParamError(f"--device is {self.device}, but torch sees no GPU: give cpu")
        if self.dtype not in checkpoint.DTYPES:
            raise ParamError(f"--dtype is {self.dtype!r}: give one of {', '.join(checkpoint.DTYPES)}")
        if self.engine not in ("hf", "vllm"):
            raise ParamError(f"--engine is {self.engine!r}: give hf or vllm")
        if self.engine == "vllm":
            vllm_engine.check_installed(self.device.partition(":")[0])


class Contestant(NamedTuple):
    """A system under a name: its checkpoint, the prompts of all questions, and the limit of new tokens."""

    name: str
    checkpoint: Checkpoint
    prompts: dict[str, list[int]]
    max_new_tokens: int

    @property
    def config(self) -> QThinkConfig:
        """K, and whether the prompts ask for thinking."""
        return QThinkConfig(self.checkpoint.K, self.checkpoint.thinking)

    def batches(self, size: int) -> dict[str, list[str]]:
        """The ids of each unit by its name, which begins with that of the system."""
        return {f"{self.name}-{name}": ids for name, ids in units.batches(self.prompts, size).items()}

    def about(self) -> dict[str, Any]:
        """What determines the answers besides the questions and `How`."""
        folder, K, thinking, _ = self.checkpoint
        return {
            "model files": digest(folder),
            "K": K,
            "thinking": thinking,
            "max_new_tokens": self.max_new_tokens,
        }


def contestant(name: str, found: Checkpoint, asked: Questions, how: How, steps: int | None = None) -> Contestant:
    """A system that is to answer the questions; `steps` is the largest number of latent steps, by default K.

    Raises DataError when the folder's config or tokenizer cannot be read, and what `questions.prompts` and `questions.room`
    raise.
    """
    folder = found.folder
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = load_tokenizer(folder)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        reason = first_line(error)
        raise DataError(f"{folder} cannot be loaded ({reason}): fetch it again, or take another model") from None
    rendered = questions.prompts(asked.problems, tokenizer, found.thinking, folder)
    taken = found.K if steps is None else steps
    limit = questions.room(folder, config, rendered, taken, how.max_new_tokens, MAX_NEW_TOKENS)
    return Contestant(name, found, rendered, limit)


def digest(folder: Path) -> str:
    """The digest of a checkpoint's files: weights, projection head, configs, tokenizer and chat template."""
    return hashlib.sha256(canonical_json({path.name: sha256(path) for path in checkpoint.files(folder)})).hexdigest()


def load(found: Checkpoint, how: How) -> System:
    """The system of a checkpoint; raises what `checkpoint.load` raises."""
    system = checkpoint.load(found, how.dtype, how.device)
    if system.tokenizer.pad_token_id is None:  # any token can pad, because the mask hides it
        system.tokenizer.pad_token = system.tokenizer.eos_token
    return system


@contextlib.contextmanager
def opened(one: Contestant, how: How) -> Iterator[Engine]:
    """The engine with the checkpoint loaded; raises what `load` and `vllm_engine.opened` raise."""
    if how.engine == "hf":
        yield HFEngine(load(one.checkpoint, how), one.max_new_tokens)
        return
    folder = one.checkpoint.folder
    dtype, system = how.dtype, None
    if one.checkpoint.K:
        system = load(one.checkpoint, how)
        dtype = str(system.model.dtype).removeprefix("torch.")
    elif dtype == "auto":
        held = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).dtype
        if held is None:
            raise ParamError(f"the config.json of {folder} does not name a dtype: give --dtype")
        dtype = str(held).removeprefix("torch.")
    longest = max(map(len, one.prompts.values()))
    device = torch.device(how.device)
    ends = checkpoint.more_ends(folder)
    with vllm_engine.opened(folder, one.config, device, dtype, longest, one.max_new_tokens, system, ends) as engine:
        yield engine


def keys(one: Contestant, size: int, conditions: Sequence[str] = (TRAINED,)) -> dict[str, list[Key]]:
    """The places of a system's answers by unit: under each condition, then by question."""
    return {
        unit: [Key(one.name, condition, name) for condition in conditions for name in ids]
        for unit, ids in one.batches(size).items()
    }


def lines(name: str, asked: Questions, ids: Sequence[str], answers: Sequence[Answer]) -> list[Line]:
    """The graded answers of one unit of a system, in the order of the answers."""
    golds = {one: gold for one, gold in asked.golds.items() if one in set(ids)}
    graded = grading.grade_answers(asked.task, golds, [(name, answers)])
    return [
        Line(
            name,
            row.condition,
            row.problem_id,
            row.verdict,
            row.extracted,
            golds[row.problem_id],
            answer.text,
            row.n_tokens,
            row.finish,
            json.loads(row.details),
        )
        for row, answer in zip(graded, answers, strict=True)
    ]


def answer_missing(one: Contestant, asked: Questions, how: How, file: VerdictFile, show: "Progress") -> None:
    """Answers the units of a system that the verdict file lacks, as trained; the model is not loaded if it lacks none."""
    plan = one.batches(how.batch)
    missing = [name for name in file.missing if name in plan]
    if not missing:
        return
    with opened(one, how) as engine:
        for name in missing:
            started = time.perf_counter()
            requests = [Request(each, one.prompts[each]) for each in plan[name]]
            answers = units.answers_of(requests, engine.generate(requests), None, TRAINED)
            spent = time.perf_counter() - started
            file.add(name, lines(one.name, asked, plan[name], answers), spent)
            show(len(answers))


class Progress:
    """A progress bar on a terminal, or a line every half minute in a log, with the time left; counts answers."""

    def __init__(self, what: str, total: int, done: int) -> None:
        from tqdm import tqdm

        pause = 0.2 if sys.stderr.isatty() else 30.0
        self.bar = tqdm(desc=what, total=total, initial=done, unit="answer", mininterval=pause, delay=pause)

    def __call__(self, answers: int) -> None:
        self.bar.update(answers)

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()


def counted(plan: Mapping[str, Sequence[Key]], names: Sequence[str] | None = None) -> int:
    """The number of answers of the units of a plan, or of the named ones."""
    return sum(len(plan[name]) for name in (plan if names is None else names))
