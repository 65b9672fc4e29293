"""Rows from files and folders: read in any form, with every one that cannot be used counted by its reason and named."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from entries import ENTRIES, MINE, RAW, ROWS, TEST, gather, lines, mine

from qthink_core import hub
from qthink_core.benchmarks import source_rows
from qthink_core.benchmarks.data_entries import Entry
from qthink_core.benchmarks.graders import grader, gsm8k, math500
from qthink_core.benchmarks.graders.text import solution_box
from qthink_core.errors import DataError

DATA = Path(__file__).parents[2] / "../shared/data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="the published files are not in ../shared/data")


def trained_on(file: str) -> Entry:
    """The entry with another training file."""
    return MINE.model_copy(update={"train": MINE.train.model_copy(update={"file": file})})


def parquet(folder: Path, rows: list[dict[str, Any]]) -> str:
    # With a column of a type that JSON does not have.
    pq.write_table(pa.Table.from_pylist([row | {"image": b"\xff"} for row in rows]), folder / "train.parquet")
    return "train.parquet"


def saved(folder: Path, rows: list[dict[str, Any]]) -> str:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(folder / "train")
    return "train"


def saved_with_splits(folder: Path, rows: list[dict[str, Any]]) -> str:
    import datasets

    splits = {"train": datasets.Dataset.from_list(rows), "other": datasets.Dataset.from_list(TEST)}
    datasets.DatasetDict(splits).save_to_disk(folder / "several")
    return "several"


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "a BOM": lambda text: b"\xef\xbb\xbf" + text,
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "BOM and CRLF": lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
    "blank last lines": lambda text: text + b"\n \r\n\n",
    "no last line break": lambda text: text.rstrip(b"\n"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_editors_do_to_a_file_changes_no_problem(tmp_path: Path, form: str) -> None:
    plain, other = mine(tmp_path, lines(ROWS)), mine(tmp_path, FORMS[form](lines(ROWS)))
    assert other.splits == plain.splits
    content = [one.about["splits"]["train"]["content"] for one in (plain, other)]
    assert content[0] == content[1]
    assert len(plain.splits["train"]) == 6
    assert other.said == ""


@pytest.mark.parametrize("write", [parquet, saved, saved_with_splits])
def test_every_form_of_the_same_rows_gives_the_same_problems_and_the_same_digest(tmp_path: Path, write: Any) -> None:
    plain = mine(tmp_path, lines(ROWS))
    found = mine(tmp_path, b"", trained_on(write(tmp_path, ROWS)))
    assert found.splits == plain.splits
    facts = [one.about["splits"]["train"] for one in (plain, found)]
    assert facts[0]["content"] == facts[1]["content"]
    assert facts[1]["rows"] == 6
    assert ("fingerprint" in facts[1]) == (write is not parquet)
    held = "".join(json.dumps(row, sort_keys=True) + "\n" for row in ROWS)
    assert facts[0]["content"] == hashlib.sha256(held.encode()).hexdigest()


def test_above_the_limit_one_line_has_all_the_numbers_and_the_first_rows(tmp_path: Path) -> None:
    text = lines(ROWS) + b"{\n" * 4 + b'{"question": "x", "answer": "?"}\n'
    with pytest.raises(DataError) as refusal:
        mine(tmp_path, text, max_left_out=4)
    said = str(refusal.value)
    assert f"5 of 11 rows of {tmp_path}/train.jsonl cannot be used (4 not JSON, 1 no gold; first: line 7 (" in said
    assert said.count("line 7") == 2  # among the first rows, and with its fault
    assert [said.count(f"line {n} ") for n in (8, 9, 10)] == [1, 1, 0]
    assert "\n" not in said
    assert mine(tmp_path, text, max_left_out=5).about["splits"]["train"]["left_out"] == {"not JSON": 4, "no gold": 1}


@pytest.mark.parametrize("answer", ["18", 18, "$18", "1,800", "-3", "0.5", 0.5])
def test_an_answer_that_is_a_number_alone_is_a_gold_without_a_solution(tmp_path: Path, answer: object) -> None:
    (one,) = mine(tmp_path, lines([{"question": "How many?", "answer": answer}])).splits["train"]
    assert (one.gold, one.rationale) == (str(answer), None)
    assert gsm8k.gold_answer(one) == f"#### {answer}"
    assert gsm8k.grade(one.gold, gsm8k.gold_answer(one)).verdict == "right"


def test_columns_have_the_names_that_the_entry_says_and_a_wrong_one_is_named_with_those_there_are(tmp_path: Path) -> None:
    renamed = [{"q": row["question"], "a": row["answer"], "answer": "5 or 6"} for row in ROWS]
    (tmp_path / "test.jsonl").write_bytes(lines([{"q": row["question"], "a": row["answer"]} for row in TEST]))
    (tmp_path / "train.jsonl").write_bytes(lines(renamed))
    entry = MINE.model_copy(update={"columns": {"question": "q", "answer": "a"}})
    assert [one.gold for one in gather("mine", "folder", tmp_path, entry).splits["train"]] == ["0", "2", "4", "6", "8", "10"]
    said = (
        r"train\.jsonl has no column question: it has q, a, answer; name the right one as data\.mine\.columns: \{question: "
    )
    with pytest.raises(DataError, match=said):
        gather("mine", "folder", tmp_path, MINE)
    entry = trained_on(parquet(tmp_path, renamed))
    with pytest.raises(DataError, match=r"train\.parquet has no column question: it has q, a, answer, image; name"):
        gather("mine", "folder", tmp_path, entry)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:90d9\n", "is a pointer of Git LFS"),
        ("train.jsonl", b'[{"question": "x"}]', "holds one JSON list, expected an object on each line"),
        ("train.jsonl", '{"a": 1}'.encode("utf-16"), "is UTF-16"),
        ("train.jsonl", '{"a": 1}'.encode("utf-32"), "is UTF-32"),
        *(
            ("train.jsonl", start, "is compressed")
            for start in (b"\x1f\x8b\x08", b"PK\x03\x04", b"BZh9", b"\xfd7zXZ\0", b"(\xb5/\xfd")
        ),
        ("train.jsonl", b"\n<!DOCTYPE html>", "is a page of the web or XML"),
        ("train.jsonl", b"PAR1", "is Parquet: give it the suffix"),
        ("train.jsonl", b"", "holds no rows"),
        ("train.jsonl", b"\n\n", "holds no rows"),
        ("train.parquet", b"PAR1 torn", "is not a whole Parquet file"),
        ("train.csv", b"question,answer\n", r"ends in '\.csv': expected \.jsonl, \.json"),
        (
            "train/x.jsonl",
            b"",
            r"is a folder that `save_to_disk` did not write: name a file in it \(train/x\.jsonl\), or save",
        ),
        pytest.param("train/state.json", b"", "cannot be read as a folder of `save_to_disk`", marks=pytest.mark.slow),
        ("elsewhere.jsonl", b"", "is missing: put the file there, or correct data.mine.train"),
    ],
)
def test_a_source_that_cannot_be_read_at_all_is_one_line_with_the_fix(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    (tmp_path / "test.jsonl").write_bytes(lines(TEST))
    file = {"elsewhere.jsonl": "train.jsonl"}.get(name, name.partition("/")[0])
    entry = trained_on(file)
    with pytest.raises(DataError, match=said) as refusal:
        gather("mine", "folder", tmp_path, entry)
    assert "\n" not in str(refusal.value)


def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"x\.jsonl cannot be read \(File name too long\): check its name and its rights, or"
    ):
        mine(tmp_path, b"", trained_on("x" * 300 + ".jsonl"))


@pytest.mark.parametrize(
    "text", [b"question,answer\nx,1\n", b"{'question': 'x', 'answer': '1'}\n", b'{"question": "x", "answer": "?"}\n']
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_one_usable_row_is_refused_with_the_fault_of_the_first(
    tmp_path: Path, text: bytes, split: str
) -> None:
    for name, rows in (("train", ROWS), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_bytes(text if name == split else lines(rows))
    place = rf"line 1(: | \(mine-{split}-00000\): )"
    said = rf"{split}\.jsonl.*{place}.*fix or drop it\. Not one row is left, so correct the file, or its entry in params"
    with pytest.raises(DataError, match=said) as refusal:
        gather("mine", "folder", tmp_path, MINE)
    assert "\n" not in str(refusal.value)
    assert "max_left_out" not in str(refusal.value)


def test_systems_are_compared_on_two_problems_or_more(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(lines(ROWS))
    for n, rows in ((1, TEST[:1]), (1, [*TEST[:1], {"question": "What?", "answer": "?"}]), (2, TEST[:2])):
        (tmp_path / "test.jsonl").write_bytes(lines(rows))
        if n == 2:
            assert len(gather("mine", "folder", tmp_path, MINE).splits["test"]) == 2
            continue
        with pytest.raises(
            DataError, match=r"1 problem of .*test\.jsonl can be used, expected 2 or more to compare systems"
        ):
            gather("mine", "folder", tmp_path, MINE)


@pytest.mark.parametrize("write", [parquet, saved, saved_with_splits])
def test_a_split_is_named_where_there_are_several_and_nowhere_else(tmp_path: Path, write: Any) -> None:
    place = MINE.train.model_copy(update={"file": write(tmp_path, ROWS), "split": "other"})
    entry = MINE.model_copy(update={"train": place})
    if write is saved_with_splits:
        with pytest.raises(DataError, match=r"3 of 3 rows of .*several cannot be used \(3 in the test set"):
            mine(tmp_path, b"", entry)
        return
    with pytest.raises(
        DataError, match=r"without splits, so data\.mine\.train\.split in params\.yaml has no effect: leave it out$"
    ):
        mine(tmp_path, b"", entry)


def test_a_damaged_copy_of_the_file_on_record_is_refused_and_one_of_another_size_is_the_users_own(tmp_path: Path) -> None:
    def of_record(rows: int, sha256: str, own: bool = True) -> Entry:
        place = {"file": "train.jsonl", "rows": rows, "sha256": sha256, "own": own}
        return Entry.model_validate(MINE.model_dump(exclude_none=True) | {"train": place})

    text = lines(ROWS)
    digest = hashlib.sha256(text).hexdigest()
    assert mine(tmp_path, text, of_record(6, digest)).about["splits"]["train"]["published"] is True
    own = mine(tmp_path, text, of_record(7, "0" * 64))
    assert own.about["splits"]["train"]["published"] is False
    assert "train.jsonl has 6 rows in place of the 7 published ones, and is used as yours" in own.said
    with pytest.raises(DataError, match=rf"train\.jsonl has sha256 {digest}, data\.mine\.train in params\.yaml says 0000"):
        mine(tmp_path, text, of_record(6, "0" * 64))
    with pytest.raises(DataError, match=r"has 6 problems, data\.mine\.train in params\.yaml says 7: fetch it again"):
        mine(tmp_path, text, of_record(7, digest, own=False))
    math = RAW["math500"]["train"]  # of PRM800K's pointer
    assert (math["rows"], math["own"]) == (12000, True)
    assert math["sha256"] == "90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076"


@pytest.mark.parametrize(
    ("solution", "box"),
    [
        (r"so $\boxed{2}$.", "2"),
        (r"so $\boxed 2$.", "2"),
        (r"so $x = \boxed 12.$", "12"),
        (r"so $\boxed\frac12$", r"\frac12"),
        (r"so $\fbox{5}$.", "5"),
        (r"so $\fbox 5$.", "5"),
        (r"$\boxed{1}$ or, $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"$\fbox{1}$, $\boxed{2}$, $\fbox{3}$", "2"),
        (r"$\boxed {\{1,2\}}$", r"\{1,2\}"),
        (r"$\boxed{\text{(A) }\boxed{3}}$", "3"),
        (r"$\boxed{", None),
        (r"$\boxed{ }$", None),
        (r"$\boxedx 2$", None),
        ("so 2.", None),
        (r"\boxed{" * 20_000, None),
    ],
)
def test_the_box_of_a_solution_has_the_forms_of_math(solution: str, box: str | None) -> None:
    assert solution_box(solution) == box


@pytest.mark.parametrize(
    ("row", "gold", "reason"),
    [
        ({"solution": r"$\boxed 4$", "answer": "4"}, "4", None),
        ({"solution": r"$\fbox{4}$"}, "4", None),
        ({"solution": r"$\boxed{3}$ and $\boxed{4}$"}, "4", None),
        ({"answer": "4"}, "4", None),
        ({"solution": r"$\boxed{3}$ and $\boxed{4}$", "answer": "3"}, None, "gold does not match its answer"),
        ({"solution": "It is 4.", "answer": "4"}, None, "no box"),
        ({"solution": "It is 4."}, None, "no box"),
        ({}, None, "missing field"),
    ],
)
def test_a_row_of_math_has_the_last_box_of_its_solution_as_its_gold(
    tmp_path: Path, row: dict[str, str], gold: str | None, reason: str | None
) -> None:
    other = {"problem": "What is $1+1$?", "solution": r"$\boxed{2}$"}
    (tmp_path / "train.jsonl").write_bytes(lines([{"problem": "What is $2+2$?"} | row, other]))
    (tmp_path / "test.jsonl").write_bytes(
        lines([other | {"problem": f"What is $1\\times 2{n}$?"} for n in ("", "\\cdot 1")])
    )
    entry = Entry.model_validate(MINE.model_dump(exclude_none=True) | {"benchmark": "math500"})
    found = gather("mine", "folder", tmp_path, entry)
    golds = {one.id: one.gold for one in found.splits["train"]}
    assert golds == ({"mine-train-00000": gold} if gold else {}) | {"mine-train-00001": "2"}
    assert found.about["splits"]["train"]["left_out"] == ({reason: 1} if reason else {})
    for one in found.splits["train"]:
        assert math500.grade(one.gold, one.rationale or math500.gold_answer(one)) is not None


def test_text_in_parquet_that_is_not_utf_8_costs_its_row_alone(tmp_path: Path) -> None:
    column = pa.array([b"What?", b"\xff", b"Who?"], pa.binary()).view(pa.string())
    table = pa.table({"question": column, "answer": ["1", "2", "3"]})
    pq.write_table(table, tmp_path / "train.parquet")
    source = source_rows.read_file(tmp_path / "train.parquet", ("question", "answer"))
    assert [getattr(row, "reason", row) for row in source.rows] == [
        {"question": "What?", "answer": "1"},
        "not UTF-8",
        {"question": "Who?", "answer": "3"},
    ]


def test_a_date_that_python_has_not_costs_its_row_alone_and_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    far = pa.table({"question": ["x", "y"], "answer": pa.array([2**60, 0], pa.timestamp("us"))})
    pq.write_table(far, tmp_path / "far.parquet")
    rows = source_rows.read_file(tmp_path / "far.parquet", ("question", "answer")).rows
    assert getattr(rows[0], "reason", None) == "not text"
    assert isinstance(rows[1], dict)
    pq.write_table(
        pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["question", "question"]), tmp_path / "two.parquet"
    )
    with pytest.raises(DataError, match=r"two\.parquet has 2 columns question: keep one$"):
        source_rows.read_file(tmp_path / "two.parquet", ("question", "answer"))


def on_hub(monkeypatch: pytest.MonkeyPatch, rows: dict[str, list[dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """A hub with these rows by split, and what it is asked for."""
    import datasets

    asked = []

    def split(*place: Any) -> Any:
        asked.append(place)
        return datasets.Dataset.from_list(rows[place[2]])

    monkeypatch.setattr(hub, "dataset_split", split)
    return asked


COMMIT = "740312add88f781978c0658806c59bc2815b9866"


def test_what_is_on_no_hub_comes_from_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = on_hub(monkeypatch, {"few": [row | {"more": 1} for row in ROWS]})
    place = {"repo": "me/mine", "name": "main", "split": "few", "revision": COMMIT, "file": "other.jsonl", "rows": 6}
    entry = Entry.model_validate(MINE.model_dump(exclude_none=True) | {"train": place})
    plain = mine(tmp_path, lines(ROWS))
    found = gather("mine", "hub", tmp_path, entry)
    assert asked == [("me/mine", "main", "few", COMMIT)]
    assert found.splits == plain.splits
    facts = found.about["splits"]
    assert facts["test"] == plain.about["splits"]["test"]
    assert facts["train"] | {"repo": "me/mine", "name": "main", "split": "few", "revision": COMMIT} == facts["train"]
    assert facts["train"]["content"] == plain.about["splits"]["train"]["content"]
    assert facts["train"]["published"] is False
    assert len(facts["train"]["fingerprint"]) == 16
    few = entry.model_copy(update={"train": entry.train.model_copy(update={"rows": 7})})
    with pytest.raises(
        DataError, match=rf"me/mine main few at {COMMIT} has 6 problems, data\.mine\.train in params\.yaml says 7"
    ):
        gather("mine", "hub", tmp_path, few)


@pytest.mark.slow
@with_data
@pytest.mark.parametrize("task", ["gsm8k", "math500", "tooluse"])
def test_the_published_rows_are_known_by_their_content_wherever_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    rules, name = ENTRIES[task].benchmark, ENTRIES[task].test.file
    assert name is not None
    rows = [json.loads(line) for line in (DATA / name).read_bytes().splitlines()]
    other = {name: value for name, value in rows[0].items() if name != "unique_id"}
    on_hub(monkeypatch, {"test": rows, "train": [other | {grader(rules).FIELDS[0]: "Another?"}]})
    place = {"repo": "a/copy", "revision": COMMIT}
    entry = Entry.model_validate({"benchmark": rules, "train": place, "test": place})
    facts = gather(task, "hub", tmp_path, entry).about["splits"]["test"]
    assert facts["content"] == grader(rules).FILES["test"].content
    assert (facts["published"], facts["rows"], facts["used"]) == (True, len(rows), len(rows))
    rows[0][grader(rules).NEEDED[0][0]] += " "
    assert gather(task, "hub", tmp_path, entry).about["splits"]["test"]["published"] is False
