"""The questions that a checkpoint is measured on: those of a benchmark, from the hub, a folder or a file."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core import hub
from qthink_core.artifacts import prepared
from qthink_core.artifacts.files import canonical_json
from qthink_core.artifacts.prepared import TEST
from qthink_core.artifacts.store import MANIFEST, read_manifest
from qthink_core.benchmarks import problems, published_files, rendering
from qthink_core.benchmarks.data_entries import columns_of
from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.errors import DataError, ParamError, first_line
from qthink_core.inference.shown import count

SEED = 0  # of the choice of questions, and of the noise in an audit


class Questions(NamedTuple):
    """Questions of a benchmark, sorted by id, their source in words, and the digest of their ids, texts and golds."""

    task: str
    problems: list[Problem]
    source: str
    digest: str

    def about(self) -> dict[str, Any]:
        """What a run keeps of its questions; the digest alone tells whether those of another run are the same."""
        return {"number": len(self.problems), "source": self.source, "digest": self.digest}

    @property
    def golds(self) -> dict[str, str]:
        """The gold of each question by id."""
        return {one.id: one.gold for one in self.problems}


def read(task: str, data: Path | None, limit: int | None, columns: Sequence[str] = ()) -> Questions:
    """The test questions of a benchmark, or `limit` of them, chosen by a rank that depends only on their ids.

    `data` is a folder of published files (docs/data.md), a folder of prepared problems (`artifacts/problems/TASK`), or a
    file with rows as the benchmark publishes them (JSON lines or Parquet); None is the hub. `columns` say where a file has
    other names for the benchmark's fields, as in `answer=target` or `question=Body,Question`. Raises ParamError for a limit
    below 1 or above the number of questions, and for columns that cannot be used, and DataError where the data are missing,
    damaged or of another benchmark, or the hub cannot be reached.
    """
    check_limit(limit)
    named = _columns(task, columns)
    if named and (data is None or not data.is_file()):
        raise ParamError(f"--column {columns[0]} is about a file of rows: name one with --data")
    if data is None:
        found, source = _on_hub(task), "the hub"
    elif not data.exists():
        raise DataError(
            f"{data} does not exist: name a folder that holds {grader(task).FILES[TEST].path}, a file of such rows, or the "
            f"prepared problems of a run (artifacts/problems/{task})"
        )
    else:
        source = str(data)
        if data.is_file():
            found = problems.in_file(task, TEST, data, named)
        elif (data / MANIFEST).is_file():
            found = _of_run(task, data)
        else:
            found = problems.published(task, TEST, data)
    if not found:
        raise DataError(f"{source} holds no questions: name another folder or file with --data")
    if limit is not None and limit > len(found):
        raise ParamError(f"--limit is {limit}, but {source} has {count(len(found), 'question')}: lower it, or leave it out")
    kept = problems.select(found, len(found) if limit is None else limit, SEED)
    listing = [[one.id, one.question, one.gold] for one in kept]
    return Questions(task, kept, source, hashlib.sha256(canonical_json(listing)).hexdigest())


def check_limit(limit: int | None) -> None:
    """Raises ParamError for a number of questions below 1."""
    if limit is not None and limit < 1:
        raise ParamError(f"--limit is {limit}: give a number of questions above 0")


def _columns(task: str, given: Sequence[str]) -> dict[str, str | list[str]]:
    """The columns by field; raises ParamError where one has another form or names a field that there is not."""
    named: dict[str, str | list[str]] = {}
    for one in given:
        field, _, names = one.partition("=")
        if not all(names.split(",")):
            raise ParamError(f"--column is {one!r:.80}: expected FIELD=NAME, or FIELD=NAME,NAME for texts to be joined")
        named[field] = names.split(",")
    try:
        columns_of(task, named)
    except ValueError as error:
        raise ParamError(f"--column: {error}") from None
    return named


def _on_hub(task: str) -> list[Problem]:
    if (task, TEST) not in published_files.HUB_FILES:
        raise DataError(
            f"{task} is not on the hub in its published form: take {Path(grader(task).FILES[TEST].path).name} from "
            f"{published_files.PUBLISHED_IN[task]}, and name the file with --data"
        )
    record = published_files.on_hub(task, TEST)
    try:
        hub.dataset_file(record.repo, record.revision, record.file)
    except DataError as error:
        raise DataError(
            f"{record.repo} is not in the local cache and could not be downloaded ({first_line(error.__cause__ or error)}): "
            "go online once, or name a folder or a file with --data"
        ) from None
    return problems.published(task, TEST, None)


def _of_run(task: str, folder: Path) -> list[Problem]:
    read_manifest(folder, "problems")
    made = prepared.benchmark(folder)
    if made != task:
        raise DataError(f"{folder} holds problems of {made}, not of {task}: name a folder of {task}")
    return [Problem(row["id"], row["question"], row["gold"], row["rationale"]) for row in prepared.read(folder, TEST)]


def prompts(questions: Sequence[Problem], tokenizer: Any, thinking: bool, folder: Path) -> dict[str, list[int]]:
    """The prompts of the questions by id, as token ids, with the chat template of the checkpoint in `folder`.

    Raises DataError when there is no chat template, and as `rendering.prompts` does.
    """
    if not tokenizer.chat_template:
        raise DataError(f"{folder} has no chat template (chat_template.jinja): take an instruction-tuned model")
    made = rendering.prompts(tokenizer, [one.question for one in questions], thinking)
    return {one.id: prompt for one, prompt in zip(questions, made, strict=True)}


def room(
    folder: Path, config: Any, rendered: Mapping[str, Sequence[int]], steps: int, max_new_tokens: int | None, usual: int
) -> int:
    """The limit of new tokens of every answer: the one asked for, or `usual`, or fewer if the model has fewer positions.

    Raises ParamError for a limit below 1, or above what the longest prompt and `steps` latent steps leave, and DataError
    naming the question whose prompt fills the model's positions.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ParamError(f"--max-new-tokens is {max_new_tokens}: give a number above 0")
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return max_new_tokens or usual
    longest = max(rendered, key=lambda name: len(rendered[name]))
    left = positions - len(rendered[longest]) - steps
    filled = f"{longest} has a prompt of {len(rendered[longest])} tokens, with {count(steps, 'latent step')}, and {folder}"
    if left < 1:
        raise DataError(f"{filled} has only {positions} positions: drop the question, or take another model")
    if max_new_tokens is not None and max_new_tokens > left:
        raise ParamError(f"{filled} has {left} positions left for an answer: lower --max-new-tokens to that")
    return max_new_tokens or min(usual, left)
