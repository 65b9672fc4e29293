"""Where the questions of an evaluation come from, and what is said when they cannot be had."""

from pathlib import Path

import forked
import pytest
from question_files import questions, write_rows

from qthink_core import hub
from qthink_core.artifacts import prepared
from qthink_core.artifacts.store import Work
from qthink_core.benchmarks import problems
from qthink_core.errors import DataError, ParamError
from qthink_core.inference.evaluation import audit as _audit  # noqa: F401 - so that the forks need not load it
from qthink_core.inference.evaluation.questions import read

ROWS = [
    {"question": "Ann is 4. How old will she be in 3 years?", "answer": "4 + 3 = 7\n#### 7"},
    {"question": "Bob is 9. How old was he 5 years ago?", "answer": "#### 4"},
]


def test_a_file_has_the_rows_of_the_published_form(tmp_path: Path) -> None:
    found = read("gsm8k", write_rows(tmp_path / "mine.jsonl", ROWS), None)
    assert [(one.id, one.question, one.gold) for one in found.problems] == [
        ("gsm8k-test-00000", ROWS[0]["question"], "7"),
        ("gsm8k-test-00001", ROWS[1]["question"], "4"),
    ]
    assert found.golds == {"gsm8k-test-00000": "7", "gsm8k-test-00001": "4"}


SVAMP = {"Body": "Each pack has 76 pencils. ", "Question": "How many are in 2 packs?", "Answer": 152.0}


def test_a_file_may_have_other_names_for_the_fields(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "svamp.jsonl", [SVAMP, SVAMP | {"Body": "Each pack has 7 pencils."}])
    found = read("gsm8k", file, None, ["question=Body,Question", "answer=Answer"])
    assert [(one.question, one.gold) for one in found.problems] == [
        ("Each pack has 76 pencils. How many are in 2 packs?", "152.0"),
        ("Each pack has 7 pencils. How many are in 2 packs?", "152.0"),
    ]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (["answer"], r"--column is 'answer': expected FIELD=NAME"),
        (["answer=a,"], r"--column is 'answer=a,': expected FIELD=NAME"),
        (["gold=a"], r"--column: columns names 'gold', which is no field of gsm8k \(question, answer\)"),
        (
            ["answer=gold"],
            r"svamp\.jsonl has no column question: it has Body, .*name the right one with --column question=NAME",
        ),
        (["question=Body", "answer=gold"], r"has no column gold: it has .*; name the right one with --column answer=NAME"),
    ],
)
def test_a_column_that_cannot_be_used_is_one_line(tmp_path: Path, columns: list[str], fault: str) -> None:
    file = write_rows(tmp_path / "svamp.jsonl", [SVAMP])
    with pytest.raises((ParamError, DataError), match=fault):
        read("gsm8k", file, None, columns)


def test_a_column_belongs_to_a_file(tmp_path: Path) -> None:
    for data in (None, tmp_path):
        with pytest.raises(ParamError, match="--column answer=a is about a file of rows: name one with --data"):
            read("gsm8k", data, None, ["answer=a"])


def test_the_questions_of_a_run_are_those_of_its_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    row = {"rationale": None, "target_gold": "7", "prompt_thinking": [1], "prompt_direct": [2]}
    rows = [prepared.Prompted(id=f"q{i}", question=f"{i}?", gold=str(i), **row) for i in range(3)]
    work = Work(tmp_path / "work", "0" * 16, "", {})
    work.commit("test", {"test.parquet": prepared.writer(rows)})
    work.publish(Path("artifacts/problems/mine"), "problems", ["test"], {"benchmark": "gsm8k", "source": "folder"})
    found = read("gsm8k", Path("artifacts/problems/mine"), None)
    assert [(one.id, one.question, one.gold) for one in found.problems] == [
        ("q0", "0?", "0"),
        ("q1", "1?", "1"),
        ("q2", "2?", "2"),
    ]
    with pytest.raises(DataError, match=r"holds problems of gsm8k, not of math500"):
        read("math500", Path("artifacts/problems/mine"), None)
    work.publish(Path("artifacts/problems/older"), "problems", ["test"])
    with pytest.raises(DataError, match=r"older does not say the benchmark of its problems: run `dvc repro`"):
        read("gsm8k", Path("artifacts/problems/older"), None)


def test_a_limit_chooses_by_rank_and_not_by_place(tmp_path: Path) -> None:
    rows = questions(30)
    whole = read("gsm8k", write_rows(tmp_path / "a.jsonl", rows), None)
    few = read("gsm8k", tmp_path / "a.jsonl", 5)
    assert few.problems == problems.select(whole.problems, 5, 0)
    assert few.problems != whole.problems[:5]
    assert few.digest != whole.digest


@pytest.mark.parametrize(
    ("limit", "kind", "message"),
    [
        (0, ParamError, "--limit is 0"),
        (-3, ParamError, "--limit is -3"),
        (3, ParamError, r"^--limit is 3, but .*mine\.jsonl has 2 questions: lower it, or leave it out$"),
    ],
)
def test_a_limit_is_a_number_of_questions_that_there_are(
    tmp_path: Path, limit: int, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        read("gsm8k", write_rows(tmp_path / "mine.jsonl", ROWS), limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ('{"question": "x?", "answer": "#### 1"}\n{"question"', r"line 2 \(gsm8k-test-00001\): the line is not JSON"),
        ('{"question": "x?"}\n', "has no column answer: it has question"),
        (
            '{"question": "x?", "answer": "one"}\n',
            r"line 1 \(gsm8k-test-00000\): .* has the gold 'one', expected one number",
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.jsonl").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read("gsm8k", tmp_path / "mine.jsonl", None)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist: name a folder that holds gsm8k/test\.jsonl"):
        read("gsm8k", tmp_path / "nowhere", None)
    with pytest.raises(DataError, match=r"test\.jsonl is missing: put the file there"):
        read("gsm8k", tmp_path, None)
    with pytest.raises(DataError, match=r"tooluse is not on the hub in its published form: .* name the file with --data"):
        read("tooluse", None, None)

    def unreachable(*_: object) -> Path:
        raise DataError("gone") from OSError("no route to host")

    monkeypatch.setattr(hub, "dataset_file", unreachable)
    with pytest.raises(DataError, match=r"\(no route to host\): go online once, or name a folder or a file with --data"):
        read("gsm8k", None, None)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("evaluate . --benchmark gsm8k --data DATA --limit -1", 2, "--limit is -1: give a number of questions above 0"),
        ("audit . --benchmark gsm8k --data DATA --latents 6", 65, "has no config.json: give a model's folder"),
        ("evaluate . --benchmark gsm8k --data nowhere --limit 0", 2, "--limit is 0: give a number of questions above 0"),
        ("evaluate . --benchmark gsm8k --data nowhere --batch 0", 2, "--batch is 0"),
        ("evaluate . --benchmark gsm8k --data nowhere --latents -1", 2, "-1 latent steps were asked for"),
        ("audit . --benchmark gsm8k --data nowhere --limit -1", 2, "--limit is -1"),
        ("audit . --benchmark gsm8k --data nowhere --sweep -1", 2, "--sweep is -1"),
        ("audit . --benchmark gsm8k --data nowhere --max-new-tokens 0", 2, "--max-new-tokens is 0"),
        (
            "evaluate . --benchmark gsm8k --data \udce9",
            65,
            "the name of a folder or file is not valid Unicode (character 1)",
        ),
    ],
)
def test_the_command_ends_in_one_line(tmp_path: Path, words: str, code: int, message: str) -> None:
    data = str(write_rows(tmp_path / "mine.jsonl", ROWS))
    done = forked.qthink(*words.replace("DATA", data).split(), cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, b"", 1)
    assert message in done.stderr.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]
