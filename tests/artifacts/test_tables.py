"""Tables: every artifact's file is the Parquet of its rows and nothing else, and comes back row for row."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qthink_core.artifacts import answers, grades, hidden_states, prepared, readout, rollouts, teachers
from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.grades import Graded, Reward
from qthink_core.artifacts.readout import Read
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.tables import Table, array_writer
from qthink_core.errors import DataError

INTS, TEXT, LIST = pa.int32(), pa.string(), pa.list_(pa.int32())
COMPLETION = {"tokens": LIST, "text": TEXT, "finish": TEXT}
REQUIRED = {"id": TEXT, "question": TEXT, "gold": TEXT, "target_gold": TEXT, "prompt_thinking": LIST, "prompt_direct": LIST}

Case = tuple[Table[Any], Callable[[Any], Writer], dict[str, pa.DataType], Sequence[Any]]
CASES: dict[str, Case] = {
    "rollouts": (
        rollouts.TABLE,
        rollouts.writer,
        {"problem_id": TEXT, "rollout": INTS, **COMPLETION},
        [
            Rollout([1, 2], "four", "stop", problem_id="p0", rollout=0),
            Rollout([], "é", "length", problem_id="p0", rollout=1),
        ],
    ),
    "answers": (
        answers.TABLE,
        answers.writer,
        {"problem_id": TEXT, "seed": INTS, "condition": TEXT, **COMPLETION},
        [
            Answer([1, 2], "four", "stop", problem_id="p1", seed=None, condition="trained"),
            Answer([], "", "no_teacher", problem_id="p0", seed=3, condition="teacher"),
        ],
    ),
    "rewards": (
        grades.REWARDS,
        grades.rewards_writer,
        {"problem_id": TEXT, "rollout": INTS, "verdict": TEXT},
        [Reward("p1", 0, "right"), Reward("p0", 1, "wrong")],
    ),
    "grades": (
        grades.GRADES,
        grades.grades_writer,
        {
            "system": TEXT,
            "seed": INTS,
            "condition": TEXT,
            "problem_id": TEXT,
            "verdict": TEXT,
            "extracted": TEXT,
            "details": TEXT,
            "n_tokens": INTS,
            "finish": TEXT,
        },
        [
            Graded("sft", 1, "trained", "p1", "right", "4", "{}", 3, "stop"),
            Graded("base", None, "trained", "p0", "unparsable", None, '{"name": 0.5}', 9, "length"),
        ],
    ),
    "readouts": (
        readout.TABLE,
        readout.writer,
        {"problem_id": TEXT, "seed": INTS, "step": INTS, "rank": INTS, "token": TEXT, "probability": pa.float32()},
        [Read("p0", 3, 1, 1, " 12", 0.5), Read("p0", 3, 1, 2, "\n", 0.25), Read("p1", 3, 1, 1, "", 1.0)],
    ),
    "teachers": (
        teachers.TABLE,
        teachers.TABLE.writer,
        {"problem_id": TEXT, "n_rollouts": INTS, "fell_back": pa.bool_()},
        [
            {"problem_id": "p1", "n_rollouts": 3, "fell_back": True},
            {"problem_id": "p0", "n_rollouts": 1, "fell_back": False},
        ],
    ),
    "shards": (
        hidden_states.INDEX,
        hidden_states.INDEX.writer,
        {"problem_id": TEXT, "rollout": INTS, "think_tokens": INTS},
        [hidden_states.Source("p1", 0, 30)],
    ),
}


def plainly(fields: list[pa.Field], rows: Sequence[Any], path: Path) -> bytes:
    """The bytes that pyarrow writes of the rows."""
    columns = [row if isinstance(row, dict) else {one.name: getattr(row, one.name) for one in fields} for row in rows]
    pq.write_table(pa.Table.from_pylist(columns, schema=pa.schema(fields)), path)
    return path.read_bytes()


@pytest.mark.parametrize("name", CASES)
def test_a_file_has_the_bytes_of_its_rows_and_comes_back(tmp_path: Path, name: str) -> None:
    table, writer, columns, rows = CASES[name]
    for count in (0, len(rows)):
        writer(rows[:count])(tmp_path / "written")
        fields = [pa.field(*one) for one in columns.items()]
        assert (tmp_path / "written").read_bytes() == plainly(fields, rows[:count], tmp_path / "plain")
        assert table.read(tmp_path / "written") == table.sorted(rows[:count])


def test_prepared_problems_have_the_bytes_of_their_rows_and_come_back_by_id(tmp_path: Path) -> None:
    one = {"question": "2 + 2?", "gold": "4", "target_gold": "#### 4", "prompt_thinking": [1, 2], "prompt_direct": [1]}
    rows = [prepared.Prompted(id=name, rationale=text, **one) for name, text in (("b", None), ("a", "Add."))]
    names = ["id", "question", "gold", "rationale", "target_gold", "prompt_thinking", "prompt_direct"]
    fields = [pa.field(name, REQUIRED.get(name, TEXT), nullable=name == "rationale") for name in names]
    prepared.writer(rows)(tmp_path / "test.parquet")
    assert (tmp_path / "test.parquet").read_bytes() == plainly(fields, rows, tmp_path / "plain")
    assert prepared.read(tmp_path, "test") == rows[::-1]


def test_rows_of_several_files_come_in_the_tables_order(tmp_path: Path) -> None:
    found = [
        Answer([1], "", "stop", problem_id=name, seed=seed, condition=condition)
        for seed in (None, 0, 2)
        for condition in ("K=0", "trained")
        for name in ("p0", "p1")
    ]
    for number, rows in enumerate((found[7:], found[3:7][::-1], found[:3])):
        answers.writer(rows)(tmp_path / str(number))
    assert answers.TABLE.read(*(tmp_path / str(number) for number in range(3))) == found


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_other_columns_is_refused(tmp_path: Path, name: str) -> None:
    table, _, columns, rows = CASES[name]
    fields = [pa.field(one, kind) for one, kind in columns.items()]
    plainly(fields[:-1], rows, tmp_path / "old")
    expected = rf"old has the columns \[.*\], not \['{fields[0].name}', .*'{fields[-1].name}'\]: run `dvc repro`$"
    with pytest.raises(DataError, match=expected):
        table.read(tmp_path / "old")


def test_an_array_keeps_its_name_type_and_values(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float16).reshape(1, 2, 3)
    array_writer(values)(tmp_path / "states")
    np.save(tmp_path / "plain.npy", values)
    assert (tmp_path / "states").read_bytes() == (tmp_path / "plain.npy").read_bytes()
