"""The sections `data` and `test_sets` of the params: where problems come from, and the benchmark whose rules they have."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from qthink_core.benchmarks.graders import BENCHMARKS, grader
from qthink_core.pipeline.kinds import MAX_TEXT, Amount, Count, Repo, Text, harmless, unique
from qthink_core.pipeline.parameters import Section

SHA256 = r"^[0-9a-f]{64}$"
# What `datasets` accepts: a configuration names a folder of its cache, and a split may be a part of one, as in train[:10%].
Config = Annotated[Text, Field(pattern=r"^\w[\w .,+=@()-]*$")]
Split = Annotated[Text, Field(pattern=r"^\w[\w.+-]*(\[[\d%:-]+\])?$")]


class Place(Section):
    """Where a split lies: a file below `prepare.folder`, a split of a hub repository at a commit, or both.

    `rows` and `sha256` (of the file) are compared with what is found. With `own`, a file with another number of rows is
    taken as the user's own.
    """

    whole: ClassVar[bool] = True
    file: Text | None = None
    repo: Repo | None = None
    name: Config | None = None
    split: Split | None = None
    revision: str | None = None
    rows: Count | None = None
    sha256: str | None = Field(default=None, pattern=SHA256)
    own: bool = False

    @model_validator(mode="after")
    def _whole(self) -> "Place":
        if self.file is None and self.repo is None:
            raise ValueError("give a file below prepare.folder, or the repo of a data set on the hub")
        if self.file is not None and (PurePosixPath(self.file).is_absolute() or ".." in PurePosixPath(self.file).parts):
            raise ValueError("a file is named by its path below prepare.folder, whose edits DVC notices")
        given = [name for name in ("name", "revision") if getattr(self, name) is not None]
        if self.repo is None and given:
            belong = "belong" if given[1:] else "belongs"
            raise ValueError(f"{' and '.join(given)} {belong} to a data set on the hub: name its repo, too")
        if self.revision is not None and not re.fullmatch("[0-9a-f]{40}", self.revision):
            raise ValueError("revision is a commit: the 40 hexadecimal digits under 'Files and versions' on the hub")
        if self.sha256 is not None and self.file is None:
            raise ValueError("sha256 is that of a file: name the file, too")
        if self.own and self.rows is None:
            raise ValueError("own is about a file with another number of rows: give rows, too")
        return self


def _placed(value: Any) -> Any:
    """A path alone is short for `{file: path}`."""
    return {"file": value} if isinstance(value, str) else value


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise ValueError(f"expected one of {', '.join(BENCHMARKS)}")
    return name


def columns_of(benchmark: str, columns: Mapping[str, str | list[str]]) -> dict[str, list[str]]:
    """The columns of each field of a benchmark: those that an entry names, else one of the field's own name.

    Raises ValueError where an entry names a field that the benchmark does not have, or no column for one.
    """
    known = grader(benchmark).FIELDS
    for name, given in columns.items():
        if name not in known:
            raise ValueError(f"columns names {name!r}, which is no field of {benchmark} ({', '.join(known)})")
        if not given:
            raise ValueError(f"columns names no column for {name}: give its name, or a list of names")
    named = {field: columns.get(field, field) for field in known}
    return {field: [given] if isinstance(given, str) else given for field, given in named.items()}


Benchmark = Annotated[str, AfterValidator(_known)]
Placed = Annotated[Place, BeforeValidator(_placed)]
Column = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(harmless)]
Columns = dict[str, Column | Annotated[list[Column], AfterValidator(unique)]]


class Entry(Section):
    """The problems of one task: the benchmark with their prompts and grader, and their places.

    `columns` maps a field of the benchmark to its column, where the source has another name for it, or to several, whose
    texts are joined with a space. `also` names entries of `test_sets` that every system of the task answers, too.
    """

    benchmark: Benchmark
    train: Placed
    test: Placed
    columns: Columns = Field(default_factory=dict)
    also: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _columns(self) -> "Entry":
        columns_of(self.benchmark, self.columns)
        return self

    def place(self, split: str) -> Place:
        """The place of the split `train` or `test`."""
        return self.train if split == "train" else self.test


class SetEntry(Place):
    """A set of questions for testing alone: its place, and the benchmark whose grader reads it; `columns` as in `Entry`.

    `max_left_out` is the set's own limit of rows that are left out, in place of `prepare.max_left_out`.
    """

    benchmark: Benchmark
    columns: Columns = Field(default_factory=dict)
    max_left_out: Amount | None = None

    @model_validator(mode="after")
    def _columns(self) -> "SetEntry":
        columns_of(self.benchmark, self.columns)
        return self
