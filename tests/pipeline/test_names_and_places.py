"""Names that DVC or a file system cannot carry, and problems that cannot be had, are refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
from graph import tree_of

from qthink_core.pipeline import checks
from qthink_core.pipeline.graph import Box, parameter_classes

SECTIONS = parameter_classes()
FORM = "expected a small letter, then small letters, digits and underscores, at most 40 in all: rename it"
# What YAML makes of a name that was written without quotes: `1e5`, `007`, `true`, `null`, `2026-01-31`.
UNFIT: list[Any] = [
    *("per-step", "v1.0", "a/b", "..", "a b", "a@b", "K=0", "Upper", "ü", "1st", "_x", "", "a\nb", "${x}", "x" * 41),
    *(1e5, 7, True, None),
]
COMMIT = "740312add88f781978c0658806c59bc2815b9866"


def said(tree: dict[str, Any]) -> list[str]:
    return checks.faults(tree, tree_of("tiny")[1], SECTIONS)


def with_system(tree: dict[str, Any], group: str, name: Any) -> dict[str, Any]:
    systems = tree["systems"]
    more = {"baseline": {"thinking": True}, "finetuned": {"target": "answer"}}
    value = more.get(group, {"teacher": "uniform", "supervision": "per_step"})
    trained = systems["trained"] if group == "baseline" else [*systems["trained"], name]
    return tree | {"systems": systems | {group: systems[group] | {name: value}, "trained": trained}}


@pytest.mark.parametrize("name", UNFIT, ids=repr)
@pytest.mark.parametrize(
    "place", ["tasks", "data", "test_sets", "systems.baseline", "systems.finetuned", "systems.distilled", "scale"]
)
def test_a_name_that_boxes_or_folders_cannot_carry_is_refused_with_the_form(place: str, name: Any) -> None:
    tree = tree_of("tiny")[0]
    entry = tree["data"]["gsm8k"]
    altered = {
        "tasks": lambda: tree | {"tasks": [name], "data": tree["data"] | {name: entry}},
        "data": lambda: tree | {"data": tree["data"] | {name: entry}},
        "test_sets": lambda: tree | {"test_sets": tree["test_sets"] | {name: tree["test_sets"]["svamp"]}},
        "scale": lambda: tree | {"scale": name},
    }.get(place, lambda: with_system(tree, place.partition(".")[2], name))()
    assert [one for one in said(altered) if f"{place} has the name {str(name)!r:.60}, {FORM}" in one]


@pytest.mark.parametrize("name", ["on", "yes", "y", "null_", "true_", "e5", "x" * 40, "a_1"])
def test_a_name_of_the_form_is_one_that_a_box_can_have(name: str) -> None:
    tree = tree_of("tiny")[0]
    assert said(with_system(tree, "distilled", name)) == []
    assert Box.parse(f"train@gsm8k-{name}-0") == Box("train", "gsm8k", name, 0)


@pytest.mark.parametrize(
    ("group", "name", "fault"),
    [
        (
            "distilled",
            "base",
            "systems.distilled.base has the name of the base model's row, which is not trained",
        ),
        ("finetuned", "base_direct", "has the name of the base model's row"),
        ("distilled", "sft", "systems.distilled.sft has the name of a row of systems.finetuned: rename one of them"),
        ("baseline", "uniform", "has the name of a row of systems.baseline: rename one of them"),
        ("finetuned", "nul", "systems.finetuned has the name 'nul', which Windows reserves: rename it"),
    ],
)
def test_a_name_that_means_something_else_is_refused(group: str, name: str, fault: str) -> None:
    assert any(fault in one for one in said(with_system(tree_of("tiny")[0], group, name)))


def placed(source: str, tasks: list[str], folder: str = "data", **data: Any) -> dict[str, Any]:
    tree = tree_of("tiny")[0]
    prepare = tree["prepare"] | {"source": source, "folder": folder}
    return tree | {"prepare": prepare, "tasks": tasks, "data": tree["data"] | data}


def with_prepare(**values: Any) -> dict[str, Any]:
    tree = tree_of("tiny")[0]
    return tree | {"prepare": tree["prepare"] | values}


HERE = (str(Path.cwd()), str(Path.cwd().parent), str(Path.cwd() / "artifacts"))
OWN = {"benchmark": "gsm8k", "train": "mine/train.jsonl", "test": {"file": "mine/test.jsonl"}}
ON_HUB = OWN | {"train": {"repo": "me/mine", "revision": COMMIT}}


def also(source: str, *names: Any, split: str = "test", benchmark: str = "gsm8k", **sets: Any) -> dict[str, Any]:
    """A run on `mine`, whose systems answer further test sets."""
    tree = placed(source, ["mine"], mine=OWN | {"benchmark": benchmark, "also": list(names)})
    return tree | {"split": split, "test_sets": tree["test_sets"] | sets}


BAGS = {"benchmark": "gsm8k", "file": "bags.jsonl"}


def own(part: dict[str, Any]) -> dict[str, Any]:
    return placed("hub", ["mine"], mine=OWN | part)


@pytest.mark.parametrize("source", ["folder", "hub"])
def test_a_task_of_the_users_own_is_an_entry_of_data(source: str) -> None:
    assert said(placed(source, ["mine", "gsm8k"], mine=OWN | {"columns": {"question": "q", "answer": ["a", "b"]}})) == []


@pytest.mark.parametrize(("source", "names"), [("folder", ["svamp", "bags"]), ("hub", ["bags"]), ("generated", [])])
def test_a_task_may_have_further_test_sets(source: str, names: list[str]) -> None:
    tree = also(source, *names, bags=BAGS | {"columns": {"question": ["story", "ask"]}})
    assert said(tree if names else tree | {"tasks": ["gsm8k"]}) == []


@pytest.mark.parametrize(
    ("tree", "fault"),
    [
        (placed("folder", ["mine"]), "tasks names mine, which has no entry in data: add data.mine (docs/data.md)"),
        (placed("generated", ["mine"], mine=OWN), "tasks names mine, but prepare.source is generated, which makes only"),
        (placed("folder", ["mine"], mine=ON_HUB), "data.mine.train names no file, but prepare.source is folder: add"),
        (
            placed("hub", ["gsm8k_aug"]),
            "data.gsm8k_aug.train has no revision, the commit of whynlp/gsm8k-aug that you choose: add the 40 hexadecimal "
            "digits under 'Files and versions' at huggingface.co/datasets/whynlp/gsm8k-aug",
        ),
        (own({"benchmark": "gsm9k"}), "benchmark is 'gsm9k': expected one of gsm8k, math500"),
        (own({"train": {}}), "data.mine.train is {}: give a file below prepare.folder, or"),
        (own({"train": 3}), "data.mine.train is 3: "),
        (own({"train": "/etc/x.jsonl"}), "a file is named by its path below prepare.folder"),
        (own({"train": "../x.jsonl"}), "a file is named by its path below prepare.folder"),
        (own({"train": {"repo": "a/b", "revision": "main"}}), "revision is a commit: the 40"),
        (
            placed("hub", ["mine"], mine=OWN | {"train": {"file": "x", "name": "main"}}),
            "name belongs to a data set on the hub",
        ),
        (own({"train": {"file": "x", "rows": 0}}), "data.mine.train.rows is 0: "),
        (
            placed("hub", ["mine"], mine=OWN | {"train": {"file": "x", "sha256": "90d9"}}),
            "data.mine.train.sha256 is '90d9': ",
        ),
        (
            placed("hub", ["mine"], mine=OWN | {"train": {"file": "x", "own": True}}),
            "own is about a file with another number",
        ),
        (
            placed("hub", ["mine"], mine=OWN | {"train": {"file": "x", "fil": "y"}}),
            "data.mine.train.fil is 'y': extra inputs are",
        ),
        (
            placed("hub", ["mine"], mine=OWN | {"columns": {"questoin": "q"}}),
            "columns names 'questoin', which is no field of",
        ),
        (placed("hub", ["mine"], mine={"benchmark": "gsm8k", "train": "x"}), "data.mine.test is missing"),
        (
            also("folder", "svmp"),
            "data.mine.also names svmp, which has no entry in test_sets: did you mean svamp? Else add test_sets.svmp",
        ),
        (also("folder", "svamp", "svamp"), "data.mine.also names svamp 2 times: keep one"),
        (
            also("folder", "svamp", benchmark="math500"),
            "also names svamp, whose benchmark is gsm8k and not math500: remove it",
        ),
        (
            placed("generated", ["gsm8k"], gsm8k=OWN | {"also": ["svamp"]}),
            "data.gsm8k.also names svamp, but prepare.source is generated, which makes no further test sets: set "
            "prepare.source in params/tiny.yaml to folder or hub, or also to []",
        ),
        (also("folder", "svamp", split="validation"), "split: validation asks no test question: set also to [] or split"),
        (
            also("hub", "svamp"),
            "test_sets.svamp has no revision, the commit of ChilleD/SVAMP that you choose: add the 40 hexadecimal digits",
        ),
        (
            also("folder", "bags", bags={"benchmark": "gsm8k", "repo": "me/bags"}),
            "test_sets.bags names no file, but prepare.source is folder: add its file, or set prepare.source to hub",
        ),
        (
            also("folder", bags=BAGS | {"columns": {"q": "x"}}),
            "columns names 'q', which is no field of gsm8k (question, answer)",
        ),
        (also("folder", bags=BAGS | {"columns": {"question": []}}), "columns names no column for question"),
        (also("folder", bags=BAGS | {"max_left_out": -1}), "test_sets.bags.max_left_out is -1: "),
        (placed("folder", ["gsm8k"], folder="~/data"), "prepare.folder is '~/data': write the home folder out"),
        *(
            (placed("folder", ["gsm8k"], folder=folder), f"prepare.folder is {folder!r}, which holds what the stages make")
            for folder in (".", "..", "../..", "artifacts/problems", "./models", "data/..", "/", *HERE)
        ),
        *(
            (placed("generated", ["gsm8k"]) | {"base": {"thinking": "native", "folder": folder}}, f"base.folder is {said}")
            for folder, said in (
                ("artifacts/base", "'artifacts/base', which holds what the stages make: copy the model to another"),
                ("models/gsm8k/uniform", "'models/gsm8k/uniform', which holds"),
                ("~/mine", "'~/mine': write the home folder out"),
                ("", "'': string should have at least 1 character"),
            )
        ),
        *(
            (with_prepare(source="generated", **{name: "all"}), f"prepare.{name} is 'all', but prepare.source is generated")
            for name in ("n_train", "n_test")
        ),
        (tree_of("tiny")[0] | {"world": None}, "prepare.source is generated, but there is no world: add one"),
        (placed("hub", ["mine"], mine=OWN | {"columns": {"question": ""}}), "columns names no column for question: give"),
        (own({"train": ""}), "data.mine.train is '': string should have at least"),
    ],
)
def test_problems_that_cannot_be_had_are_one_line_before_anything_runs(tree: dict[str, Any], fault: str) -> None:
    (found,) = said(tree)
    assert fault in found


def test_a_name_without_the_form_is_one_fault_at_each_place_that_has_it_and_no_other() -> None:
    for name in (1e5, None, "a\nb", "per-step"):
        found = said(placed("generated", [name], **{str(name): OWN}))  # type: ignore[list-item]
        assert not [one for one in found if "tasks names" in one or "\n" in one]
        assert sum(f"has the name {str(name)!r}, expected a small letter" in one for one in found) == 2


def test_the_variable_that_once_named_the_folder_is_said_not_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QTHINK_DATA", "/somewhere")
    (found,) = said(placed("folder", ["gsm8k"]))
    assert found.startswith("the environment sets QTHINK_DATA, which is not read")
    assert "`dvc exp run -S prepare.folder=PATH`" in found
    assert said(placed("generated", ["gsm8k"])) == []
