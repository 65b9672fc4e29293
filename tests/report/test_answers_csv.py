"""`qthink csv`: questions and answers as CSV that no spreadsheet calculates and no terminal obeys."""

import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from artifact_folders import published
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT
from small_run import answered, identifier, rows, substituted

from qthink_core.artifacts import prepared
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.grades import grades_writer
from qthink_core.errors import DataError, ParamError
from qthink_core.report import answers
from qthink_core.report.answers import safe

TASK = "gsm8k"
VERDICTS = {
    ("base", None, TRAINED): "rwu",
    ("uniform", 3, TRAINED): "rrr",
    ("uniform", 0, TRAINED): "rww",
    **substituted("uniform", 3, "www"),
    **substituted("uniform", 0, "wwr"),
}
QUESTIONS = ["How many?", '=HYPERLINK("http://example.org")', "line one\nline two, \x1b[31mred"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the artifacts of one task, of the systems `base` and `uniform` alone."""
    root = tmp_path_factory.mktemp("answers")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "params", root / "params")
    folder = root / "artifacts"
    found = rows(TASK, VERDICTS)
    problems = [
        prepared.Prompted(
            id=identifier(TASK, number),
            question=question,
            gold="-7",
            rationale=None,
            target_gold="-7",
            prompt_thinking=[1],
            prompt_direct=[2],
        )
        for number, question in enumerate(QUESTIONS)
    ]
    published(folder / "problems", TASK, {"p": {"test.parquet": prepared.writer(problems)}})
    bags = rows(TASK, {("base", None, TRAINED): "wr", ("uniform", 0, TRAINED): "rr"})
    asked = [row | {"question": f"Bag of {row['id']}?"} for row in problems[:2]]
    grades = {"grades.parquet": grades_writer(found), "bags.grades.parquet": grades_writer(bags)}
    published(folder / "grades", TASK, {"grades": grades})
    published(folder / "test_sets", TASK, {"bags": {"bags.test.parquet": prepared.writer(asked)}}, {"sets": {"bags": {}}})
    for system in ("base", "uniform"):
        own = [row for row in found if row.system == system]
        more = answered(folder / "bags" / TASK, system, [row for row in bags if row.system == system], {})
        others = {"bags": {"bags.batch-00000.parquet": (more / "batch-00000.parquet").read_bytes()}}
        answered(folder / "answers" / TASK, system, [row for row in own if row.condition == TRAINED], others)
    shutil.rmtree(folder / "bags")
    answered(folder / "probes" / TASK, "uniform", [row for row in found if row.condition != TRAINED], {})
    return root


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def of(root: Path, system: str = "base", seed: int | None = None, condition: str = TRAINED) -> list[dict[str, str]]:
    return table(answers.to_csv(root, TASK, system, seed, condition))


def test_a_row_has_question_gold_answer_verdict_and_tokens(root: Path) -> None:
    found = of(root)
    assert found[0] == {
        "problem_id": "gsm8k-test-00000",
        "question": "How many?",
        "gold": "'-7",
        "answer": "right trained | <b>",
        "verdict": "right",
        "extracted": "r",
        "tokens": "3",
        "finish": "stop",
    }
    assert [row["verdict"] for row in found] == ["right", "wrong", "unparsable"]
    assert (found[2]["extracted"], found[2]["finish"]) == ("", "length")


@pytest.mark.parametrize("name", ["problems/gsm8k/test.parquet", "grades/gsm8k/grades.parquet"])
def test_a_damaged_artifact_is_refused(root: Path, name: str) -> None:
    path = root / "artifacts" / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match=f"{name} does not have the sha256 of its manifest: run `qthink repair "):
        of(root)
    path.write_bytes(content)


def test_without_a_seed_it_is_the_lowest_and_any_other_can_be_asked_for(root: Path) -> None:
    assert [row["verdict"] for row in of(root, "uniform")] == ["right", "wrong", "wrong"]
    assert [row["verdict"] for row in of(root, "uniform", seed=3)] == ["right", "right", "right"]
    assert [row["verdict"] for row in of(root, "uniform", condition="zeros")] == ["wrong", "wrong", "right"]
    assert of(root, "uniform", seed=3, condition="K=0")[0]["answer"] == "wrong K=0 | <b>"


def test_the_answers_to_a_further_test_set_are_those_of_that_set_alone(root: Path) -> None:
    found = table(answers.to_csv(root, TASK, "base", None, TRAINED, "bags"))
    assert [(row["question"], row["verdict"], row["tokens"]) for row in found] == [
        ("Bag of gsm8k-test-00000?", "wrong", "3"),
        ("Bag of gsm8k-test-00001?", "right", "4"),
    ]
    assert len(of(root)) == 3


def test_questions_that_look_like_formulas_or_steer_a_terminal_do_neither(root: Path) -> None:
    text = answers.to_csv(root, TASK, "base", None, TRAINED)
    assert [row["question"] for row in table(text)] == [
        "How many?",
        """'=HYPERLINK("http://example.org")""",
        "line one\nline two, ⟨U+001B⟩[31mred",
    ]
    assert all(one == "\n" or one.isprintable() for one in text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\n=1", "'\n=1"),
        ("\t=1", "⟨U+0009⟩=1"),
        ("\r=1", "⟨U+000D⟩=1"),
        ("＝1", "'＝1"),
        ("1-1", "1-1"),
        ("", ""),
        ("\u202e=\x00\ud800", "⟨U+202E⟩=⟨U+0000⟩⟨U+D800⟩"),
    ],
)
def test_a_cell_that_could_be_a_formula_begins_with_an_apostrophe(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(st.lists(st.text(), min_size=8, max_size=8))
def test_any_text_is_one_quoted_cell_that_encodes_shows_and_calculates_nothing(texts: list[str]) -> None:
    written = answers.written([texts])
    written.encode()
    head, row = csv.reader(io.StringIO(written))
    assert (tuple(head), row) == (answers.COLUMNS, [safe(one) for one in texts])
    assert all(not cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row)
    assert all(one == "\n" or one.isprintable() for one in written)
    assert written.startswith('"')
    assert written.endswith('"\n')


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"task": "gsm9k"}, ParamError, "there is no task 'gsm9k': params.yaml has gsm8k, math500, tooluse"),
        ({"system": "unknown"}, ParamError, "there is no system 'unknown': params.yaml has base, "),
        ({"system": "uniform", "seed": 7}, ParamError, "there is no training seed 7 of uniform: it has the seeds 0, 3"),
        ({"seed": 0}, ParamError, "there is no training seed 0 of base: it has no training, so leave out --seed"),
        ({"condition": "zeros"}, ParamError, "base takes no latent steps, so 'zeros' was not tried: leave out --condition"),
        (
            {"system": "uniform", "condition": "twos"},
            ParamError,
            "there is no condition 'twos' of uniform: there is trained, K=0, mean, noise, other, zeros",
        ),
        ({"test_set": "svamp"}, ParamError, "there is no test set 'svamp': data.gsm8k.also has bags"),
        (
            {"system": "uniform", "condition": "zeros", "test_set": "bags"},
            ParamError,
            "no condition but trained was tried on bags: leave out --condition",
        ),
        ({"system": "sft"}, DataError, "artifacts/answers/gsm8k/sft is missing: run `dvc repro grade@gsm8k`"),
        ({"task": "math500"}, DataError, "artifacts/problems/math500 is missing: run `dvc repro grade@math500`"),
    ],
)
def test_what_the_run_does_not_have_is_named_with_what_it_has(
    root: Path, asked: Mapping[str, Any], error: type[Exception], said: str
) -> None:
    given = {"task": TASK, "system": "base", "seed": None, "condition": TRAINED, **asked}
    with pytest.raises(error) as found:
        answers.to_csv(root, **given)
    assert str(found.value).startswith(said)
    assert "\n" not in str(found.value)


def command(root: Path, *arguments: str) -> tuple[int, str, str]:
    """Where the locale has ASCII alone."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    program = [sys.executable, "-m", "qthink_core.cli", "csv", *arguments]
    done = subprocess.run(program, cwd=root, capture_output=True, env=environment)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
def test_the_command_writes_utf_8_to_standard_output(root: Path) -> None:
    expected = answers.to_csv(root, TASK, "uniform", 3, TRAINED)
    assert "⟨U+001B⟩" in expected
    assert command(root, TASK, "uniform", "--seed", "3") == (0, expected, "")


@pytest.mark.slow
def test_the_command_says_what_is_wrong_in_one_line(root: Path) -> None:
    code, out, err = command(root, TASK, "\x1b[31m")
    assert (code, out) == (2, "")
    assert err.startswith(r"qthink: there is no system '\x1b[31m': params.yaml has base, ")
    assert err.count("\n") == 1
