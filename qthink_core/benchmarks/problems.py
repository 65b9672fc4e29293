"""Problems of a benchmark in one schema from three sources: generated, a folder of published files, the hub.

For every source, the benchmark's grader turns a row into a problem and checks that the gold matches itself. Problems are
chosen by a rank that depends only on (seed, id), so neither the order of the rows nor an added row changes it. No torch.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from qthink_core import hub
from qthink_core.artifacts.prepared import TEST, TRAIN, VALIDATION
from qthink_core.benchmarks.generated import Show, worked
from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.benchmarks.published_files import check_digest, in_folder, on_hub, read_rows
from qthink_core.benchmarks.world import World
from qthink_core.errors import DataError, ParamError


def gather(
    task: str,
    source: Literal["generated", "folder", "hub"],
    n_train: int | Literal["all"],
    n_validation: int,
    n_test: int | Literal["all"],
    seed: int,
    folder: Path | None,
    world: World | None,
    show: Show | None = None,
) -> dict[str, list[Problem]]:
    """The problems of each split, sorted by id, with no question of the test set in the two others; `show` as in `worked`.

    Published benchmarks have no validation split: it is taken from the training file before `n_train` are chosen. Raises
    ParamError when a source has fewer problems than requested, and DataError as `published` does, or when no problem is left
    for training.
    """
    if source == "generated":
        if n_train == "all" or n_test == "all":
            raise ParamError("prepare asks for `all` generated problems, which have no limit: give n_train and n_test")
        if world is None:
            raise ParamError("prepare.source is generated: give `world` in the params file of the scale")
        splits = {
            TRAIN: generated(task, TRAIN, n_train, seed, world, show),
            VALIDATION: generated(task, VALIDATION, n_validation, seed, world, show),
            TEST: generated(task, TEST, n_test, seed, world, show),
        }
        check_disjoint(splits[TRAIN] + splits[VALIDATION], splits[TEST])
        return splits
    if source == "folder" and folder is None:
        raise ParamError("prepare takes its problems from a folder: name the folder, as in `export QTHINK_DATA=path`")
    place = folder if source == "folder" else None
    whole, test = published(task, TRAIN, place), published(task, TEST, place)
    check_disjoint(whole, test)
    train, validation = split_validation(whole, n_validation, seed)
    if not train:
        raise DataError(
            f"0 problems of {task} are left for training: its training file holds {len(whole)}, and the validation split "
            f"takes {n_validation} of them: lower prepare.n_validation, or put more problems into the file"
        )
    return {
        TRAIN: select(train, len(train) if n_train == "all" else n_train, seed),
        VALIDATION: validation,
        TEST: select(test, len(test) if n_test == "all" else n_test, seed),
    }


def generated(task: str, split: str, n: int, seed: int, world: World, show: Show | None = None) -> list[Problem]:
    """n generated problems of a split."""
    rows = [item.row for item in worked(task, split, n, seed, world, show)]
    return _problems(task, split, rows, f"generated {task} {split}", "problem")


def published(task: str, split: str, folder: Path | None) -> list[Problem]:
    """All problems of a published split in file order, from a folder or, if None, from the hub.

    The folder holds gsm8k/{train,test}.jsonl, math500/{train,test}.jsonl and tooluse/{train,test}.json, all with
    one JSON object per line. A file must match its recorded sha256, if there is one. Raises DataError naming file, line and
    id for a row that is unreadable, has no answer, repeats an id or has a gold that does not match itself, and for a file
    that is missing or not the published one.
    """
    if folder is None:
        record = on_hub(task, split)
        path = hub.dataset_file(record.repo, record.revision, record.file)
        expected: str | None = record.sha256
    else:
        path, expected = in_folder(task, split, folder)
    known = grader(task).FILES.get(split)
    unit = "row" if path.suffix == ".parquet" else "line"
    problems = _problems(task, split, read_rows(path), str(path), unit)
    if known is not None and len(problems) != known.records:
        raise DataError(f"{path} has {len(problems)} problems, the published file {known.records}: fetch it again")
    check_digest(path, expected)
    return problems


def check_disjoint(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    """Raises DataError naming both problems when an id or a question (ignoring whitespace) is in train and in test."""
    ids = {problem.id for problem in train}
    rows = {_squeezed(problem.question): row for row, problem in enumerate(train, 1)}
    for row, problem in enumerate(test, 1):
        if problem.id in ids:
            raise DataError(
                f"id {problem.id} is in the training set and, as row {row}, in the test set: drop it from training"
            )
        twin = rows.get(_squeezed(problem.question))
        if twin is not None:
            raise DataError(
                f"{train[twin - 1].id} (row {twin} of the training set) asks the question of {problem.id} "
                f"(row {row} of the test set): drop it from training"
            )


def overlap(splits: Mapping[str, Sequence[Problem]]) -> dict[str, int]:
    """How many test questions are also in the other splits: `overlap` exactly, `near_overlap` up to case and punctuation.

    `gather` rejects exact overlap among all problems of a source; both numbers count only the problems that were kept.
    """
    others = [problem.question for split, found in splits.items() if split != TEST for problem in found]
    tests = [problem.question for problem in splits[TEST]]
    exact, near = ({same(question) for question in others} for same in (_squeezed, _letters))
    return {
        "overlap": sum(_squeezed(question) in exact for question in tests),
        "near_overlap": sum(_letters(question) in near for question in tests),
    }


def select(problems: Sequence[Problem], n: int, seed: int) -> list[Problem]:
    """n of the problems by their rank under the seed, sorted by id; raises ParamError when there are fewer."""
    return _lowest(problems, n, f"select {seed}")[0]


def split_validation(train: Sequence[Problem], n_validation: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(the other problems, n_validation of them by rank), sorted by id; raises ParamError like `select`."""
    validation, rest = _lowest(train, n_validation, f"validation {seed}")
    return rest, validation


def _problems(task: str, split: str, rows: Iterable[Mapping[str, object]], source: str, unit: str) -> list[Problem]:
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for index, row in enumerate(rows):
        place = f"{source}, {unit} {index + 1}"
        try:
            problem = grader(task).problem(row, index, split)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        if problem.id in seen:
            raise DataError(f"{place}: id {problem.id} is also that of {unit} {seen[problem.id]}: drop one of them")
        seen[problem.id] = index + 1
        problems.append(problem)
    return problems


def _squeezed(question: str) -> str:
    return " ".join(question.split())


def _letters(question: str) -> str:
    """The question without case and the punctuation of prose; operators stay, because 1+1 is not 1-1."""
    return "".join(re.findall(r"[^\s.,;:!?'\"’“”$]", question.casefold()))


def _lowest(problems: Sequence[Problem], n: int, label: str) -> tuple[list[Problem], list[Problem]]:
    """(the n problems of lowest rank, the others), both sorted by id."""
    if n > len(problems):
        raise ParamError(f"{n} problems are asked for but the source has {len(problems)}: lower the number")
    ranked = sorted(problems, key=lambda problem: hashlib.sha256(f"{label} {problem.id}".encode()).digest())
    by_id = [sorted(part, key=lambda problem: problem.id) for part in (ranked[:n], ranked[n:])]
    return by_id[0], by_id[1]
