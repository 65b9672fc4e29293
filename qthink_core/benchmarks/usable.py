"""The rows of a split that can be used, and those that are left out, each with its place and reason."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts.prepared import TEST
from qthink_core.benchmarks import published_files, source_rows
from qthink_core.benchmarks.data_entries import Entry, Place, SetEntry, columns_of
from qthink_core.benchmarks.graders import grader
from qthink_core.benchmarks.graders.contract import Problem, Reason, RowError
from qthink_core.benchmarks.source_rows import Source
from qthink_core.errors import DataError, printable

NAMED = 3  # rows that a message names


class LeftOut(NamedTuple):
    """A row that was left out: where it lies, its id, and the reason in a word and in a sentence."""

    place: str
    id: str
    reason: Reason
    said: str

    def __str__(self) -> str:
        return f"{self.place} ({self.id:.60}): {self.reason}"


class Usable(NamedTuple):
    """The problems of a split in the order of its rows, the rows that were left out, and what the manifest says about both.

    `source` names the split in messages; `places` has the place of each problem by id.
    """

    source: str
    problems: list[Problem]
    left_out: list[LeftOut]
    about: dict[str, Any]
    places: Mapping[str, str]

    @property
    def total(self) -> int:
        """The number of rows that were read."""
        return len(self.problems) + len(self.left_out)

    def without(self, reasons: Mapping[str, tuple[Reason, str]]) -> "Usable":
        """The same with the problems of these ids left out, too, each for a reason."""
        gone = [LeftOut(self.places[name], name, *why) for name, why in reasons.items()]
        kept = [problem for problem in self.problems if problem.id not in reasons]
        return self._replace(problems=kept, left_out=self.left_out + gone)

    def described(self) -> dict[str, Any]:
        """What the manifest says: the source, its rows, those left out by reason, and those used."""
        return self.about | {"rows": self.total, "left_out": counts(self.left_out), "used": len(self.problems)}


def counts(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """The number of rows by reason, the most frequent first."""
    return dict(Counter(one.reason for one in left_out).most_common())


def summary(left_out: Sequence[LeftOut]) -> str:
    """The numbers by reason and the first rows, in one line."""
    numbers = ", ".join(f"{n} {reason}" for reason, n in counts(left_out).items())
    return f"{numbers}; {'first: ' if len(left_out) > NAMED else ''}{', '.join(map(str, left_out[:NAMED]))}"


def of_entry(task: str, entry: Entry, split: str, folder: Path | None) -> Usable:
    """The usable problems of a split of a task, as `of_place` finds them."""
    return of_place(task, entry.benchmark, split, entry.place(split), entry.columns, f"data.{task}", folder)


def of_set(task: str, name: str, place: SetEntry, folder: Path | None) -> Usable:
    """The usable problems of a test set for a task, as `of_place` finds them."""
    return of_place(task, place.benchmark, name, place, place.columns, f"test_sets.{name}", folder)


def of_place(
    task: str,
    benchmark: str,
    split: str,
    place: Place,
    columns: Mapping[str, str | list[str]],
    key: str,
    folder: Path | None,
) -> Usable:
    """The usable problems of a split or test set at a place; `folder` holds its file, None stands for the hub.

    `key` is that of the entry in the params. Raises DataError where the source as a whole is missing, damaged, not the one
    on record, or lacks a column.
    """
    named = columns_of(benchmark, columns)
    hint = published_files.hint(benchmark, place.file)
    here = key if isinstance(place, SetEntry) else f"{key}.{split}"
    wanted = [column for names in named.values() for column in names]
    source = source_rows.read(place, TEST if isinstance(place, SetEntry) else split, folder, wanted, here, hint)
    source = source_rows.mapped(source, grader(benchmark).NEEDED, named, f"as {key}.columns: {{FIELD: ...}}")
    own = _check_record(source, place, here)
    found = usable(task, benchmark, split, source)
    published = not own and _is_published(benchmark, split, source, place, found.about["content"])
    return found._replace(about=found.about | {"published": published})


def usable(task: str, benchmark: str, split: str, source: Source) -> Usable:
    """The problems of the rows, and the rows left out."""
    problems: list[Problem] = []
    left_out: list[LeftOut] = []
    ids: dict[str, str] = {}
    questions: dict[str, str] = {}
    for index, row in enumerate(source.rows):
        place, name = f"{source.unit} {index + 1}", f"{task}-{split}-{index:05d}"
        try:
            if isinstance(row, RowError):
                raise row
            given = row.get("unique_id")
            name = printable(given) if isinstance(given, str) and given.strip() else name
            problem = grader(benchmark).problem(row, index, split, task)
            question = squeezed(problem.question)
            if problem.id in ids:
                raise RowError("doubled id", f"id {problem.id} is also that of {ids[problem.id]}: drop one of them")
            if question in questions:
                raise RowError("doubled question", f"asks the question of {questions[question]}: drop one of them")
        except DataError as error:
            reason = error.reason if isinstance(error, RowError) else "no gold"
            left_out.append(LeftOut(place, name, reason, str(error)))
            continue
        ids[problem.id], questions[question] = place, place
        problems.append(problem)
    about = source.about | {"content": source_rows.content(source.rows)}
    return Usable(source.name, problems, left_out, about, ids)


def check_limit(found: Sequence[Usable], limit: int, fix: str) -> None:
    """Raises DataError, with all counts and the first rows, where more rows were left out than the limit, or all of them."""
    none_left = [one for one in found if one.left_out and not one.problems]
    over = none_left or [one for one in found if len(one.left_out) > limit]
    if not over:
        return
    if none_left:
        fix = "Not one row is left, so correct the file, or its entry in params.yaml"
    (first, *others), *more = (one.left_out for one in over)
    if not others and not more:
        raise DataError(f"{over[0].source}, {first.place} ({first.id:.60}): {first.said}. {fix}")
    said = "; ".join(
        f"{len(one.left_out)} of {one.total} rows of {one.source} cannot be used ({summary(one.left_out)})" for one in over
    )
    raise DataError(f"{said}. The first, {first.place}: {first.said}. {fix}")


def squeezed(question: str) -> str:
    """The question with single spaces: texts that differ in spaces alone ask the same."""
    return " ".join(question.split())


def _check_record(source: Source, place: Place, key: str) -> bool:
    """Whether the source is the user's own in place of the one on record; raises DataError where it is a damaged one."""
    n, digest = len(source.rows), source.about.get("sha256")
    if place.rows is not None and n != place.rows:
        if place.own:
            return True
        raise DataError(f"{source.name} has {n} problems, {key} in params.yaml says {place.rows}: fetch it again")
    if place.sha256 is not None and digest is not None and digest != place.sha256:
        raise DataError(f"{source.name} has sha256 {digest}, {key} in params.yaml says {place.sha256}: fetch it again")
    return False


def _is_published(benchmark: str, split: str, source: Source, place: Place, content: str) -> bool:
    """Whether these are the published rows: by their content, by the file's sha256, or by a commit that is on record."""
    record = grader(benchmark).FILES.get(split)
    if record is not None and content == record.content:
        return True
    if place.sha256 is not None and source.about.get("sha256") == place.sha256:
        return True
    known = published_files.HUB_FILES.get((benchmark, split))
    return (
        known is not None
        and record is not None
        and (known.repo, known.revision) == (source.about.get("repo"), source.about.get("revision"))
        and len(source.rows) == record.records
    )
