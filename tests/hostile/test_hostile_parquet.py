"""Parquet files whose columns have extension types: refused by name, and what they hold for Python is not loaded."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile.folders import Trap

from qthink_core.artifacts.tables import Table
from qthink_core.benchmarks import source_rows
from qthink_core.errors import DataError

PICKLED = "arrow.py_extension_type"  # pyarrow before 14.0.1 unpickles what such a column brings along
REFUSED = (
    r"^.*train\.parquet has the extension type '{}' in the column question, expected text and numbers: write the column"
)
TEXTS = pa.array(["1 + 1?", "1 + 2?"])


def extended(kind: pa.DataType, name: str, content: bytes) -> pa.Field:
    return pa.field("question", kind, metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": content})


def written(folder: Path, field: pa.Field, column: pa.Array) -> Path:
    answers = pa.array(["#### 2", "#### 3"])
    table = pa.Table.from_arrays([column, answers], schema=pa.schema([field, pa.field("answer", pa.string())]))
    pq.write_table(table, folder / "train.parquet")
    return folder / "train.parquet"


class Misread(pa.ExtensionType):
    """A registered type whose reader cannot read what a file says of it."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "test.misread")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, content: bytes) -> Any:
        raise KeyError(content.decode())


@pytest.fixture
def misread() -> Iterator[None]:
    pa.register_extension_type(Misread())
    yield
    pa.unregister_extension_type("test.misread")


def test_a_column_that_brings_a_pickle_is_refused_and_the_pickle_is_not_loaded(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    trap = pickle.dumps(Trap(canary))
    path = written(tmp_path, extended(pa.string(), PICKLED, trap), TEXTS)
    with pytest.raises(DataError, match=REFUSED.format(PICKLED)):
        source_rows.read_file(path, ("question", "answer"))
    # a column that nothing reads does no harm
    assert source_rows.read_file(path, ("answer",)).rows == [{"answer": "#### 2"}, {"answer": "#### 3"}]
    ours = Table(pa.schema([("question", pa.string()), ("answer", pa.string())]), dict)
    assert len(ours.read(path)) == 2
    assert not canary.exists()
    pickle.loads(trap)  # noqa: S301 - it would have worked
    assert canary.exists()


@pytest.mark.parametrize(
    ("kind", "column", "name", "content"),
    [
        (pa.string(), TEXTS, "evil.type", b"\xff\0"),
        (pa.int8(), pa.array([0, 1], pa.int8()), "arrow.bool8", b""),
        (pa.string(), TEXTS, "arrow.opaque", b'{"type_name": "x", "vendor_name": "y"}'),
        (pa.list_(extended(pa.string(), "evil.type", b"")), pa.array([["a"], ["b"]]), "evil.type", b""),
    ],
    ids=["unknown", "of Arrow", "of another system", "inside a list"],
)
def test_an_extension_type_is_refused_by_its_name(
    kind: pa.DataType, column: pa.Array, name: str, content: bytes, tmp_path: Path
) -> None:
    field = pa.field("question", kind) if pa.types.is_list(kind) else extended(kind, name, content)
    with pytest.raises(DataError, match=REFUSED.format(name)):
        source_rows.read_file(written(tmp_path, field, column.cast(kind)), ("question", "answer"))


def test_a_column_of_json_is_text(tmp_path: Path) -> None:
    path = written(tmp_path, extended(pa.string(), "arrow.json", b""), TEXTS)
    assert [row["question"] for row in source_rows.read_file(path, ("question",)).rows] == TEXTS.to_pylist()  # type: ignore[index]


@pytest.mark.usefixtures("misread")
def test_a_type_that_its_own_reader_cannot_read_is_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, extended(pa.string(), "test.misread", b"no\nkey"), TEXTS)
    with pytest.raises(DataError, match=r"train\.parquet has a type of column that cannot be read \(KeyError: ") as error:
        source_rows.read_file(path, ("answer",))
    assert str(error.value).isprintable()
