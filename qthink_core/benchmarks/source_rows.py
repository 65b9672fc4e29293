"""The rows of a split, from a file, from a folder that `save_to_disk` wrote, or from the hub; no row is dropped unsaid."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from qthink_core import hub
from qthink_core.artifacts.files import read_object, sha256
from qthink_core.benchmarks.data_entries import Place
from qthink_core.benchmarks.graders.contract import RowError
from qthink_core.benchmarks.json_lines import MAX_LINE_BYTES
from qthink_core.errors import DataError, first_line

Fields = dict[str, Any]
JSON_LINES, PARQUET = (".jsonl", ".json"), ".parquet"
TEXT_TYPE = "arrow.json"
BOM = b"\xef\xbb\xbf"
# What a file may start with that is not JSON lines, and what to do about it.
OTHERS = {
    b"version https://git-lfs": "is a pointer of Git LFS and not the file: run `git lfs pull` where it comes from",
    b"\xff\xfe\0\0": "is UTF-32, expected UTF-8: convert it",
    b"\0\0\xfe\xff": "is UTF-32, expected UTF-8: convert it",
    b"\xff\xfe": "is UTF-16, expected UTF-8: convert it",
    b"\xfe\xff": "is UTF-16, expected UTF-8: convert it",
    **dict.fromkeys((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"), "is compressed: unpack it"),
    b"<": "is a page of the web or XML: fetch the file itself",
    b"PAR1": "is Parquet: give it the suffix .parquet",
    b"[": "holds one JSON list, expected an object on each line: convert it, as `jq -c '.[]'` does",
}
# What `save_to_disk` writes for a data set, and for several splits.
SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")
MAX_NAMED = 20  # columns or files that a message lists


class Source(NamedTuple):
    """The rows of a split in order, each as its columns or as the error that names why it has none.

    `name` is for messages, `about` says for the manifest where the rows come from, and `unit` is what a row is called.
    `columns` are all that a table has, of which only the wanted ones are read; JSON lines have none.
    """

    name: str
    about: dict[str, Any]
    unit: str
    rows: list[Fields | RowError]
    columns: Sequence[str] = ()


def read(place: Place, split: str, folder: Path | None, wanted: Iterable[str], entry: str, hint: str) -> Source:
    """The rows of a place: from the file below `folder` or, where that is None, from the hub if the place names a repo.

    `wanted` are the columns to read, where the source has more; `entry` is the key of the place in the params, for messages,
    and `hint` says where the file is published. Raises DataError where the source is missing, cannot be
    reached or cannot be read as a whole.
    """
    if folder is None:
        assert place.repo is not None
        name = place.split or split
        found = hub.dataset_split(place.repo, place.name, name, place.revision or "")
        about = {"repo": place.repo, "name": place.name, "split": name, "revision": place.revision}
        about |= {"fingerprint": found._fingerprint}
        called = " ".join(filter(None, (place.repo, place.name, name, "at", place.revision)))
        return Source(called, about, "row", list(_columns(found, wanted)), found.column_names)
    if place.file is None:
        raise DataError(f"{entry} names no file, and prepare.source is folder: give it a file, or set prepare.source to hub")
    path = folder / place.file
    splitless = f"so {entry}.split in params.yaml has no effect: leave it out" if place.split and not place.repo else ""
    try:
        if path.is_dir():
            found, one_of_several = saved(path, place.split or split)
            if splitless and not one_of_several:
                raise DataError(f"{path} holds one data set without splits, {splitless}")
            about = {"file": place.file, "fingerprint": found._fingerprint}
            return Source(str(path), about, "row", list(_columns(found, wanted)), found.column_names)
        if not path.is_file():
            raise DataError(f"{path} is missing: put the file there{hint}, or correct {entry} in params.yaml")
        if splitless:
            raise DataError(f"{path} is a file without splits, {splitless}")
        source = read_file(path, wanted)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or first_line(error)}): check its name and its rights, or correct "
            f"{entry} in params.yaml"
        ) from None
    return source._replace(about={"file": place.file} | source.about)


def read_file(path: Path, wanted: Iterable[str]) -> Source:
    """The rows of a Parquet file or of JSON lines; raises DataError where the file as a whole is neither."""
    if path.suffix == PARQUET:
        rows, columns = _parquet(path, wanted)
        return Source(str(path), {"sha256": sha256(path)}, "row", rows, columns)
    if path.suffix not in JSON_LINES:
        raise DataError(f"{path} ends in {path.suffix!r}: expected .jsonl, .json (an object on each line) or .parquet")
    with path.open("rb") as file:
        return Source(str(path), {"sha256": sha256(path)}, "line", list(_json_lines(file, path)))


def saved(path: Path, split: str) -> tuple[Any, bool]:
    """The data set in a folder that `save_to_disk` wrote, and whether it is a split of several."""
    import datasets

    if not any((path / name).exists() for name in SAVED):
        held = [f"{path.name}/{file.name}" for file in sorted(path.iterdir()) if file.suffix in (*JSON_LINES, PARQUET)]
        names = f"name a file in it ({', '.join(held[:MAX_NAMED])})" if held else "name a file"
        raise DataError(f"{path} is a folder that `save_to_disk` did not write: {names}, or save the data set with it")
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # noqa: BLE001 - the library passes on whatever its readers raise
        raise DataError(
            f"{path} cannot be read as a folder of `save_to_disk` ({first_line(error)}): save it again"
        ) from None
    if isinstance(found, datasets.DatasetDict):
        if split not in found:
            raise DataError(f"{path} has no split {split!r}: it has {', '.join(found)}; name one of them as `split`")
        return found[split], True
    return found, False


def content(rows: Iterable[Fields | RowError]) -> str:
    """The sha256 of the fields of all rows, the same for the same content in any form of file or on the hub.

    Each row is one line of JSON with sorted keys, an unreadable one is `null`; fields without a value do not count.
    """
    digest = hashlib.sha256()
    for row in rows:
        held = None if isinstance(row, RowError) else {name: value for name, value in row.items() if value is not None}
        digest.update(json.dumps(held, sort_keys=True, default=repr).encode() + b"\n")
    return digest.hexdigest()


def mapped(source: Source, needed: Sequence[Sequence[str]], columns: Mapping[str, Sequence[str]], fix: str) -> Source:
    """The source with its columns under the names of the benchmark's fields, and no others.

    `columns` has those of every field; `fix` says how to name others, with FIELD in place of the field. Raises DataError
    where there are no rows, or the columns of a field that the benchmark needs are missing in every row, with the columns
    that there are.
    """
    if not source.rows:
        raise DataError(f"{source.name} holds no rows: put problems into it")
    read = [row for row in source.rows if not isinstance(row, RowError)]
    found = source.columns or list(dict.fromkeys(column for row in read for column in row))
    for group in needed:
        if read and not any(set(columns[field]) <= set(found) for field in group):
            listed = ", ".join(found[:MAX_NAMED]) or "none"
            missing = " or ".join(" and ".join(columns[field]) for field in group)
            said = f"{source.name} has no column {missing}: it has {listed}; name the right one"
            raise DataError(f"{said} {fix.replace('FIELD', group[0])}")
    rows = [
        row
        if isinstance(row, RowError)
        else {field: _joined(row, names) for field, names in columns.items() if set(names) & row.keys()}
        for row in source.rows
    ]
    return source._replace(rows=rows)


def _joined(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of a column, or the texts of several with a space between; where one of them is not text, that one."""
    held = [row.get(name) for name in names]
    if len(held) == 1:
        return held[0]
    texts = [one for one in held if isinstance(one, str)]
    if len(texts) < len(held):
        return next(one for one in held if not isinstance(one, str))
    return " ".join(text.strip() for text in texts).strip()


def _json_lines(file: BinaryIO, path: Path) -> Iterator[Fields | RowError]:
    """A row for each line; lines at the end that are blank are none."""
    start = file.read(32).removeprefix(BOM).lstrip()
    for mark, fault in OTHERS.items():
        if start.startswith(mark):
            raise DataError(f"{path} {fault}")
    file.seek(0)
    blank = 0
    for number, line in enumerate(_lines(file)):
        if line is not None and not (line.removeprefix(BOM) if number == 0 else line).strip():
            blank += 1
            continue
        yield from (RowError("empty line", "the line is empty: drop it") for _ in range(blank))
        blank = 0
        yield _object(line.removeprefix(BOM) if number == 0 and line else line)


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines, or None in place of one that is too long."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while not line.endswith(b"\n") and line:
            line = file.readline(MAX_LINE_BYTES)
        yield None


def _object(line: bytes | None) -> Fields | RowError:
    if line is None:
        return RowError("too long", f"the line has more than {MAX_LINE_BYTES:,} bytes: shorten or drop it")
    try:
        return read_object(line)
    except ValueError as error:
        said = str(error)
        return RowError("not UTF-8" if said.startswith("is not UTF-8") else "not JSON", f"the line {said}: fix or drop it")


def _parquet(path: Path, wanted: Iterable[str]) -> tuple[list[Fields | RowError], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        for name in wanted:
            if names.count(name) > 1:
                raise DataError(f"{path} has {names.count(name)} columns {name}: keep one")
        kept = [name for name in names if name in set(wanted)]
        for name in kept:
            if other := next(_extensions(file.schema_arrow.field(name)), None):
                found = f"the extension type {other!r:.60} in the column {name}"
                raise DataError(f"{path} has {found}, expected text and numbers: write the column as text")
        return [row for batch in file.iter_batches(columns=kept) for row in _batch(batch)], names
    except DataError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file ({first_line(error)}): fetch it again") from None
    except Exception as error:  # noqa: BLE001 - libraries register types with Arrow, and read what the file says of one
        said = f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{path} has a type of column that cannot be read ({said}): write its columns as text") from None


def _extensions(field: Any) -> Iterator[str]:
    """The names of the extension types in a field of an Arrow schema, registered or not, but for JSON, which is text."""
    name = getattr(field.type, "extension_name", None) or (field.metadata or {}).get(b"ARROW:extension:name", b"").decode(
        errors="replace"
    )
    if name not in ("", TEXT_TYPE):
        yield name
    for number in range(field.type.num_fields):
        yield from _extensions(field.type.field(number))


def _columns(dataset: Any, wanted: Iterable[str]) -> Iterator[Fields | RowError]:
    """The rows of a data set of `datasets`; other columns may be large, or of types that Python has no value for."""
    kept = [name for name in dataset.column_names if name in set(wanted)]
    for batch in dataset.select_columns(kept).with_format("arrow").iter(batch_size=1000):
        yield from _batch(batch)


def _batch(batch: Any) -> Iterator[Fields | RowError]:
    """The rows of an Arrow table; text that is not UTF-8, or a date beyond those of Python, is found when it is read."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    for index in range(batch.num_rows):
        try:
            yield batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield RowError("not UTF-8", f"the row is not UTF-8 (byte {error.start + 1}): fix or drop it")
        except (ValueError, OverflowError) as error:
            yield RowError("not text", f"the row holds a value that cannot be read ({first_line(error)}): fix or drop it")
