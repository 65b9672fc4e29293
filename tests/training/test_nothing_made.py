"""A stage that makes nothing of use fails there, with counts by reason; rollouts of which none is right are of use."""

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_project
from artifact_folders import work
from small_project import TASK, G, N

from qthink_core.artifacts import prepared
from qthink_core.artifacts.store import Manifest, Work, read_manifest
from qthink_core.errors import DataError
from qthink_core.method.targets import Example
from qthink_core.pipeline import layout, ranks, stage
from qthink_core.pipeline.graph import Box
from qthink_core.training import fit


@pytest.fixture
def project(qwen3: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Iterator[Path]:
    """A small project whose base model has random weights: its prompts open a block that it never closes."""
    root = small_project.make(tmp_path / "project", qwen3(tied=True), tokenizer)
    with contextlib.chdir(root):
        edit("params/tiny.yaml", r"max_new_tokens: \d+", "max_new_tokens: 8")
        edit("params.yaml", r"\bG: \d+", f"G: {G}")
        yield root


def edit(file: str, old: str, new: str) -> None:
    text, n = re.subn(old, new, Path(file).read_text())
    assert n, f"{file} has no {old}"
    Path(file).write_text(text)


def run(name: str) -> str:
    """One box, as its stage runs it, without a process of its own."""
    module, box = importlib.import_module(f"stages.{name}"), Box(name, TASK)
    return module.run(stage.read_params(Path(), name), box, Work(Path(".work", str(box)), "0" * 64, "", {}))


@pytest.mark.slow
def test_rollouts_without_a_thought_end_the_run_at_sample(project: Path) -> None:
    rows = prepared.read(layout.problems(TASK), "train")
    closed = [prepared.Prompted(**{**row, "prompt_thinking": row["prompt_direct"]}) for row in rows]
    small_project.put(layout.problems(TASK), "problems", {"train.parquet": prepared.writer(closed)})
    said = rf"thoughts 0 \(.*rollouts {N * G}, tokens \d+\): take a base model that thinks, or set base\.thinking to added"
    with pytest.raises(DataError, match=said):
        run("sample")
    assert not layout.rollouts(TASK).exists()


@pytest.mark.slow
def test_a_run_without_a_right_rollout_goes_on_with_uniform_teachers_and_ends_where_they_are_not_wanted(
    project: Path,
) -> None:
    run("sample")
    assert read_manifest(layout.rollouts(TASK)).counts["thoughts"] > N * G / 2
    assert run("reward") == f"0 of {N * G} rollouts are right"
    run("extract")
    made = re.fullmatch(rf"teachers of {N} problems: (\d+) uniform, (\d+) reward_weighted", run("average"))
    assert made
    assert made[1] == made[2]
    assert int(made[1]) > N / 2
    edit("params.yaml", "no_right_rollout: uniform", "no_right_rollout: skip")
    with pytest.raises(DataError, match=rf"teachers 0 \(no_right_rollout {made[1]}, .*problems {N}\): set average\.no"):
        run("average")


@pytest.mark.slow
def test_think_blocks_that_are_all_cut_end_the_run_at_extract_where_cut_ones_are_dropped(project: Path) -> None:
    edit("params/tiny.yaml", "max_new_tokens: 8", "max_new_tokens: 1")
    edit("params.yaml", "cut_blocks: use", "cut_blocks: drop")
    run("sample")
    with pytest.raises(DataError, match=r"usable 0 \(.*cut \d+.*\): set extract\.cut_blocks to use, raise sample\.max_new_"):
        run("extract")
    assert not layout.hidden_states(TASK).exists()


def test_what_units_made_is_counted_together_and_asked_of_rank_0_alone(tmp_path: Path) -> None:
    place = work(tmp_path)
    place.commit("a", {}, {"usable": 0, "cut": 2})
    place.commit("b", {}, {"usable": 1, "cut": 3})
    place.require(["a", "b"], "usable", "fix")
    with pytest.raises(DataError, match=r"^nothing was made that a later stage can use, usable 0 \(cut 2\): fix$"):
        place.require(["a"], "usable", "fix")
    ranks.JoinedWork(tmp_path / "work", "0" * 64).require(["a"], "usable", "fix")
    assert place.publish(tmp_path / "out", "things", ["a", "b"]).counts == {"usable": 1, "cut": 5}
    assert isinstance(place.publish(tmp_path / "out", "things", []), Manifest)


def test_teachers_of_problems_that_are_not_trained_on_teach_nothing() -> None:
    examples = [Example("p", [1], [2])]
    fit.check_lessons(examples, {"p": None}, Path("teachers"), {})
    with pytest.raises(DataError, match=r"^no training problem has a teacher in teachers \(prompt_too_long 4\): "):
        fit.check_lessons(examples, {"q": None}, Path("teachers"), {"prompt_too_long": 4})
