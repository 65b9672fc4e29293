"""Problems of a task in one schema from three sources: generated, a folder of files, the hub.

For every source, the benchmark's grader turns a row into a problem and checks that the gold matches itself. Problems are
chosen by a rank that depends only on (seed, id), so neither the order of the rows nor an added row changes it. No torch.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from qthink_core import hub
from qthink_core.artifacts.prepared import TEST, TRAIN, VALIDATION
from qthink_core.benchmarks import source_rows, usable
from qthink_core.benchmarks.data_entries import Entry, Place, columns_of
from qthink_core.benchmarks.generated import Show, worked
from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Problem, Reason
from qthink_core.benchmarks.published_files import check_digest, in_folder, on_hub
from qthink_core.benchmarks.source_rows import Source
from qthink_core.benchmarks.usable import Usable, squeezed
from qthink_core.benchmarks.world import World
from qthink_core.errors import DataError, ParamError

LEAST_TEST = 2  # a standard error needs two


class Gathered(NamedTuple):
    """The problems of each split, sorted by id, what the manifest says about their sources, and what to print, or "".

    `training` holds all problems from which those of training and validation were chosen.
    """

    splits: dict[str, list[Problem]]
    about: dict[str, Any]
    said: str
    training: list[Problem]


def gather(
    task: str,
    entry: Entry,
    source: Literal["generated", "folder", "hub"],
    folder: str,
    n_train: int | Literal["all"],
    n_validation: int,
    n_test: int | Literal["all"],
    max_left_out: int,
    seed: int,
    world: World | None,
    show: Show | None = None,
) -> Gathered:
    """The problems of a task, with no question of the test set in the two other splits; `show` as in `worked`.

    The validation split is taken from the training rows before `n_train` are chosen. Rows that cannot be used are left out;
    so is a training row with a question or an id of the test set. Raises ParamError when a source has fewer problems than
    requested, and DataError where more than `max_left_out` rows of a split are left out, where none is left for training,
    and as `usable.of_entry` does.
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
        return Gathered(splits, {"benchmark": task, "source": source}, "", splits[TRAIN] + splits[VALIDATION])
    whole, test = (
        usable.of_entry(task, entry, split, None if source == "hub" and entry.place(split).repo else Path(folder))
        for split in (TRAIN, TEST)
    )
    whole = whole.without(shared(whole.problems, test))
    usable.check_limit([whole, test], max_left_out, f"Fix or drop them, or raise prepare.max_left_out ({max_left_out})")
    if len(test.problems) < LEAST_TEST:
        raise DataError(
            f"{len(test.problems)} problem of {test.source} can be used, expected {LEAST_TEST} or more to compare systems: "
            "add some"
        )
    enough(whole, n_validation, "prepare.n_validation")
    train, validation = split_validation(whole.problems, n_validation, seed)
    if not train:
        raise DataError(
            f"0 problems of {task} are left for training: its training set has {len(whole.problems)} that can be used, and "
            f"the validation split takes {n_validation} of them: lower prepare.n_validation, or give it more problems"
        )
    enough(whole._replace(problems=train), n_train, "prepare.n_train", f", {n_validation} of validation taken out")
    enough(test, n_test, "prepare.n_test")
    splits = {
        TRAIN: select(train, len(train) if n_train == "all" else n_train, seed),
        VALIDATION: validation,
        TEST: select(test.problems, len(test.problems) if n_test == "all" else n_test, seed),
    }
    found = {TRAIN: whole, TEST: test}
    about = {
        "benchmark": entry.benchmark,
        "source": source,
        "splits": {name: one.described() for name, one in found.items()},
    }
    said = "; ".join(filter(None, (about_rows(name, one, entry.place(name)) for name, one in found.items())))
    return Gathered(splits, about, said, whole.problems)


def enough(found: Usable, n: int | Literal["all"], key: str, but: str = "") -> None:
    """Raises DataError where a split has fewer problems than a parameter asks for; `but` says which ones do not count."""
    if n != "all" and n > len(found.problems):
        raise DataError(
            f"{found.source} has {len(found.problems)} problems that can be used{but}, and {key} asks for {n}: lower it, "
            "or add problems"
        )


def about_rows(split: str, found: Usable, place: Place) -> str:
    """What a user has to know about a split beyond its numbers: rows left out, and another file than the one on record."""
    said = []
    if place.own and not found.about["published"]:
        said.append(
            f"{found.source} has {found.total} rows in place of the {place.rows} published ones, and is used as yours"
        )
    if found.left_out:
        said.append(f"{len(found.left_out)} of {found.total} {split} rows left out ({usable.summary(found.left_out)})")
    return "; ".join(said)


def generated(task: str, split: str, n: int, seed: int, world: World, show: Show | None = None) -> list[Problem]:
    """n generated problems of a split."""
    rows: list[Any] = [item.row for item in worked(task, split, n, seed, world, show)]
    return _all(task, split, Source(f"generated {task} {split}", {}, "problem", rows))


def published(benchmark: str, split: str, folder: Path | None) -> list[Problem]:
    """All problems of a benchmark's published split in file order, from a folder or, if None, from the hub.

    The folder holds gsm8k/{train,test}.jsonl, math500/{train,test}.jsonl and tooluse/{train,test}.json, all with
    one JSON object per line. A file must match its recorded sha256, if there is one. Raises DataError where a file is
    missing or not the published one, and as `in_file` does.
    """
    if folder is None:
        record = on_hub(benchmark, split)
        path = hub.dataset_file(record.repo, record.revision, record.file)
        expected: str | None = record.sha256
    else:
        path, expected = in_folder(benchmark, split, folder)
    known = grader(benchmark).FILES.get(split)
    source = _source(benchmark, path, {})
    if known is not None and len(source.rows) != known.records:
        raise DataError(f"{path} has {len(source.rows)} problems, the published file {known.records}: fetch it again")
    check_digest(path, expected)
    return _all(benchmark, split, source)


def in_file(benchmark: str, split: str, path: Path, columns: Mapping[str, str | list[str]] | None = None) -> list[Problem]:
    """All problems of one file, in order; `columns` as in an entry of the params.

    Raises DataError with the numbers and the first of the rows that are none.
    """
    return _all(benchmark, split, _source(benchmark, path, columns or {}))


def _source(benchmark: str, path: Path, columns: Mapping[str, str | list[str]]) -> Source:
    named = columns_of(benchmark, columns)
    read = source_rows.read_file(path, [column for names in named.values() for column in names])
    return source_rows.mapped(read, grader(benchmark).NEEDED, named, "with --column FIELD=NAME")


def _all(benchmark: str, split: str, source: Source) -> list[Problem]:
    found = usable.usable(benchmark, benchmark, split, source)
    usable.check_limit([found], 0, "Every row has to be usable")
    return found.problems


def shared(train: Sequence[Problem], test: Usable) -> dict[str, tuple[Reason, str]]:
    """Why training problems must be left out, by id: their id or question (ignoring whitespace) is also in the test set."""
    asked = {squeezed(problem.question): problem.id for problem in test.problems}
    found: dict[str, tuple[Reason, str]] = {}
    for problem in train:
        twin = problem.id if problem.id in test.places else asked.get(squeezed(problem.question))
        if twin is not None:
            found[problem.id] = "in the test set", f"is {twin} of the test set ({test.places[twin]}): drop it from training"
    return found


def check_disjoint(train: Sequence[Problem], test: Sequence[Problem]) -> None:
    """Raises DataError naming a problem whose id or question (ignoring whitespace) is in train and in test."""
    found = shared(train, Usable("", list(test), [], {}, {problem.id: f"row {n}" for n, problem in enumerate(test, 1)}))
    for name, (_, said) in found.items():
        raise DataError(f"{name} of the training set {said}")


def overlap(splits: Mapping[str, Sequence[Problem]]) -> dict[str, int]:
    """How many test questions are also in the other splits: `overlap` exactly, `near_overlap` up to case and punctuation.

    `gather` leaves out what overlaps exactly among all problems of a source; both numbers count only the problems that were
    kept.
    """
    others = [problem for split, found in splits.items() if split != TEST for problem in found]
    exact = {squeezed(problem.question) for problem in others}
    return {
        "overlap": sum(squeezed(problem.question) in exact for problem in splits[TEST]),
        "near_overlap": nearly_in(splits[TEST], others),
    }


def nearly_in(asked: Sequence[Problem], others: Iterable[Problem]) -> int:
    """How many of the questions are also among the others, up to case and punctuation."""
    near = {_letters(problem.question) for problem in others}
    return sum(_letters(problem.question) in near for problem in asked)


def select(problems: Sequence[Problem], n: int, seed: int) -> list[Problem]:
    """n of the problems by their rank under the seed, sorted by id; raises ParamError when there are fewer."""
    return _lowest(problems, n, f"select {seed}")[0]


def split_validation(train: Sequence[Problem], n_validation: int, seed: int) -> tuple[list[Problem], list[Problem]]:
    """(the other problems, n_validation of them by rank), sorted by id; raises ParamError like `select`."""
    validation, rest = _lowest(train, n_validation, f"validation {seed}")
    return rest, validation


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
