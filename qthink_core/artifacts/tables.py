"""Tables: the rows of an artifact in Parquet files; each kind of table defines its columns, record and order once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qthink_core.artifacts.files import Writer
from qthink_core.errors import DataError

Row = TypeVar("Row")


@dataclass(frozen=True)
class Table(Generic[Row]):
    """A kind of Parquet file.

    `record` makes a row from keyword arguments named like the columns: a class with those fields, or `dict`. `order` is the
    sort key of the rows that are read; None keeps the order in which they were written.
    """

    schema: pa.Schema
    record: Callable[..., Row]
    order: Callable[[Row], Any] | None = None

    def writer(self, rows: Iterable[Row]) -> Writer:
        """A writer of the rows in the order given."""
        table = pa.Table.from_pylist([self._columns(row) for row in rows], schema=self.schema)
        return lambda path: pq.write_table(table, path)

    def _columns(self, row: Row) -> dict[str, Any]:
        return dict(row) if isinstance(row, Mapping) else {name: getattr(row, name) for name in self.schema.names}

    def read(self, *paths: Path) -> list[Row]:
        """The rows of one or more files, sorted by `order`; raises DataError when a file has other columns."""
        rows = [self.record(**row) for path in paths for row in self._read(path).to_pylist()]
        return self.sorted(rows)

    def _read(self, path: Path) -> pa.Table:
        table = pq.read_table(path)
        if not table.schema.equals(self.schema):
            raise DataError(f"{path} has the columns {table.schema.names}, not {self.schema.names}: run `dvc repro`")
        return table

    def sorted(self, rows: Iterable[Row]) -> list[Row]:
        """The rows sorted by `order`."""
        return list(rows) if self.order is None else sorted(rows, key=self.order)


def array_writer(values: np.ndarray) -> Writer:
    """A writer of an array as .npy."""

    def write(path: Path) -> None:
        # np.save appends .npy to the name of a path, but not to that of an open file
        with path.open("wb") as file:
            np.save(file, values, allow_pickle=False)

    return write
