"""Further test sets: their rows as problems of the task, those that are left out, and a training set that stays as it is."""

import json
from pathlib import Path
from typing import Any

import pytest
from entries import ENTRIES
from imports import ROOT

from qthink_core import hub
from qthink_core.benchmarks import problems, test_sets, usable
from qthink_core.benchmarks.data_entries import SetEntry
from qthink_core.benchmarks.graders import grade
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.errors import DataError
from qthink_core.pipeline import parameters

READY = {name: SetEntry.model_validate(one) for name, one in parameters.read_yaml(ROOT / "params.yaml")["test_sets"].items()}
COMMIT = "740312add88f781978c0658806c59bc2815b9866"
TRAINING = [
    Problem("t-0", "Ann has 2 hens. How many legs do they have?", "4", None),
    Problem("t-1", "HOW many days has a week", "7", None),
]
# A few rows as each set is published, with the numbers of problems, of rows left out by reason, and the golds.
ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, int], list[str]]] = {
    "gsm_hard": (
        [
            {
                "input": "A ship has 9867630 nails. How many after 10 more?",
                "code": "def solution(): ...",
                "target": 9867640.0,
            },
            {"input": "Half of 5?", "target": 2.5},
            {"input": "And all the drops in the sea?", "target": 1e22},
            {"input": "Is it?", "target": float("nan")},
            {"input": "And this?", "target": None},
        ],
        {"not JSON": 1, "missing field": 1},
        ["9867640.0", "2.5", "1e+22"],
    ),
    "svamp": (
        [
            {"ID": "chal-1", "Body": " Ann has 2 hens.", "Question": "How many legs  do they have?", "Answer": "4.0"},
            {
                "ID": "chal-2",
                "Body": "Each pack has 76 pencils. ",
                "Question": "How many are in 2 packs?",
                "Answer": "152.0",
            },
            {"ID": "chal-3", "Body": "", "Question": "How many days has a week?", "Answer": 7},
            {"ID": "chal-4", "Body": None, "Question": "How many?", "Answer": "1"},
            {"ID": "chal-5", "Body": "It is 5.", "Question": 5, "Answer": "5"},
        ],
        {"missing field": 1, "not text": 1, "in the training set": 1},
        ["152.0", "7"],
    ),
    "multiarith": (
        [{"question": f" Add {n} and 1.", "final_ans": str(n + 1)} for n in range(3)],
        {},
        ["1", "2", "3"],
    ),
    "gsm_plus": (
        [
            {
                "question": "How far is 3 km and 4 km?",
                "solution": "3 + 4",
                "answer": "7",
                "perturbation_type": "distraction",
            },
            {"question": "How far is 3 km and some?", "answer": "None", "perturbation_type": "critical thinking"},
            {"question": "How far is 1,000 km?", "answer": "1,000"},
        ],
        {"no gold": 1},
        ["7", "1,000"],
    ),
}


def gather(
    folder: Path, name: str, rows: list[dict[str, Any]], place: SetEntry | None = None, **more: Any
) -> test_sets.Sets:
    """The set `name` of GSM8K with these rows in its file."""
    place = place or READY[name].model_copy(update={"own": True, "rows": len(rows)})
    assert place.file is not None
    file = folder / place.file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = ENTRIES["gsm8k"].model_copy(update={"also": [name]})
    given = {"source": "folder", "folder": str(folder), "n_test": "all", "max_left_out": 100, "seed": 0} | more
    return test_sets.gather("gsm8k", entry, {name: place}, TRAINING, **given)


def test_every_ready_set_is_one_of_these() -> None:
    assert READY.keys() == ROWS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_the_rows_of_a_ready_set_are_problems_of_gsm8k(tmp_path: Path, name: str) -> None:
    rows, left_out, golds = ROWS[name]
    found = gather(tmp_path, name, rows)
    assert [one.gold for one in found.problems[name]] == golds
    assert all(grade("gsm8k", one.gold, f"#### {one.gold}").verdict == "right" for one in found.problems[name])
    assert all(one.id.startswith(f"gsm8k-{name}-") and one.rationale is None for one in found.problems[name])
    about = found.about[name]
    assert (about["left_out"], about["rows"], about["used"]) == (left_out, len(rows), len(golds))
    assert bool(left_out) is (f"of {len(rows)} {name} rows left out (" in found.said)


def test_a_question_in_two_columns_is_their_texts_with_a_space_between(tmp_path: Path) -> None:
    found = gather(tmp_path, "svamp", ROWS["svamp"][0])
    assert [one.question for one in found.problems["svamp"]] == [
        "Each pack has 76 pencils. How many are in 2 packs?",
        "How many days has a week?",
    ]


def test_a_training_question_is_left_out_of_the_set_and_one_that_nearly_is_one_is_counted(tmp_path: Path) -> None:
    found = gather(tmp_path, "svamp", ROWS["svamp"][0])
    assert found.about["svamp"]["near_overlap"] == 1
    assert "1 of svamp are nearly in training" in found.said
    (gone,) = test_sets.trained(
        usable.Usable(
            "", [TRAINING[0]._replace(id="s-0", question="Ann has 2 hens.\nHow many legs do they have? ")], [], {}, {}
        ),
        TRAINING,
    ).values()
    assert gone == ("in the training set", "asks the question of t-0 of the training set: drop it from one of them")


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_a_set_has_as_many_questions_as_the_test_split_may_have_by_the_same_rank(tmp_path: Path, n: int) -> None:
    rows = [{"question": f"Add {i} and 1.", "final_ans": str(i + 1)} for i in range(5)]
    every = gather(tmp_path, "multiarith", rows).problems["multiarith"]
    some = gather(tmp_path, "multiarith", rows, n_test=n).problems["multiarith"]
    assert some == problems.select(every, min(n, 5), 0)


def test_a_set_has_a_limit_of_its_own_for_what_is_left_out(tmp_path: Path) -> None:
    rows = [*ROWS["gsm_plus"][0], *({"question": f"{n}?", "answer": "None"} for n in range(9))]
    own = READY["gsm_plus"].model_copy(update={"rows": None, "max_left_out": 9})
    with pytest.raises(
        DataError, match=r"10 of 12 rows of .*test\.jsonl cannot .*raise test_sets\.gsm_plus\.max_left_out \(9\)"
    ):
        gather(tmp_path, "gsm_plus", rows, own)
    shared = own.model_copy(update={"max_left_out": None})
    with pytest.raises(DataError, match=r"raise prepare\.max_left_out \(5\)"):
        gather(tmp_path, "gsm_plus", rows, shared, max_left_out=5)
    enough = own.model_copy(update={"max_left_out": 10})
    assert len(gather(tmp_path, "gsm_plus", rows, enough, max_left_out=5).problems["gsm_plus"]) == 2


@pytest.mark.parametrize(
    ("name", "rows", "fault"),
    [
        (
            "svamp",
            [{"Question": "How many?", "Answer": "1"}],
            r"no column Body and Question: .* as test_sets\.svamp\.columns",
        ),
        ("gsm_hard", [{"question": "How many?", "target": 1}], r"no column input: .* as test_sets\.gsm_hard\.columns"),
        ("multiarith", ROWS["multiarith"][0][:1], r"1 of 1 rows .*, expected 2 or more: .* out of data\.gsm8k\.also"),
    ],
)
def test_a_set_that_cannot_be_asked_is_one_line_with_its_key(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], fault: str
) -> None:
    with pytest.raises(DataError, match=fault) as found:
        gather(tmp_path, name, rows)
    assert "\n" not in str(found.value)


def test_another_number_of_rows_than_the_record_is_damaged_unless_the_set_may_be_yours(tmp_path: Path) -> None:
    rows = [{"input": f"Add {n} and 1.", "target": n + 1} for n in range(3)]
    with pytest.raises(DataError, match=r"has 3 problems, test_sets\.gsm_hard in params\.yaml says 1319: fetch it again"):
        gather(tmp_path, "gsm_hard", rows, READY["gsm_hard"])
    found = gather(tmp_path, "multiarith", ROWS["multiarith"][0], READY["multiarith"])
    assert "has 3 rows in place of the 180 published ones, and is used as yours" in found.said


def test_no_set_is_asked_of_a_task_that_names_none() -> None:
    found = test_sets.gather("gsm8k", ENTRIES["gsm8k"], READY, TRAINING, "folder", "/nowhere", "all", 0, 0)
    assert found == test_sets.Sets({}, {}, "")


@pytest.mark.parametrize(("name", "split"), [("gsm_hard", "train"), ("svamp", "test")])
def test_a_set_on_the_hub_is_loaded_at_its_commit_with_the_columns_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, split: str
) -> None:
    import datasets

    kept = [row for row in ROWS[name][0] if row.get("Body") != "It is 5." and row.get("target") == row.get("target")]
    rows = [{key: value if key == "target" else str(value) for key, value in row.items() if key != "code"} for row in kept]
    asked = []

    def of_hub(*place: Any) -> Any:
        asked.append(place)
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(hub, "dataset_split", of_hub)
    place = READY[name].model_copy(update={"rows": None, "own": False, "revision": COMMIT})
    entry = ENTRIES["gsm8k"].model_copy(update={"also": [name]})
    found = test_sets.gather("gsm8k", entry, {name: place}, TRAINING, "hub", "/nowhere", "all", 9, 0)
    assert asked == [(place.repo, None, split, COMMIT)]
    assert [one.gold for one in found.problems[name]][:2] == ROWS[name][2][:2]
    assert (found.about[name]["repo"], found.about[name]["revision"]) == (place.repo, COMMIT)
