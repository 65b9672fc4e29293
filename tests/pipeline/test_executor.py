"""Executors: what is made does not show who made it; no unit is made twice, none by two, none that is there already."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import dealing
import pytest
from artifact_folders import work
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT

from qthink_core.errors import NumericError, ParamError
from qthink_core.pipeline import executor
from qthink_core.pipeline.executor import Made, Make

PLAN = {"b": "", "a": "", "d": "", "c": "", "e": ""}


def run(folder: Path, plan: Mapping[str, str], totals: list[int] | None = None) -> list[str]:
    def show(items: Iterable[tuple[str, Made]], total: int) -> Iterable[tuple[str, Made]]:
        if totals is not None:
            totals.append(total)
        return items

    return executor.run(partial(dealing.maker, folder / dealing.LOG), plan, work(folder), show, "cpu")


def start(folder: Path, plan: Mapping[str, str], **environment: str) -> subprocess.Popen[str]:
    """The same as a process of its own, in the folder."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ["PYTHONPATH"]])
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "dealing.py", json.dumps(plan)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths} | environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks(folder: Path, plan: Mapping[str, str], world: int) -> None:
    """A launcher's processes, which all end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(world)}
    started = [start(folder, plan, RANK=str(rank), LOCAL_RANK=str(rank), **meeting) for rank in range(world)]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_units_are_committed_in_the_order_of_the_plan_and_those_that_are_there_are_left_alone(tmp_path: Path) -> None:
    totals: list[int] = []
    assert run(tmp_path, {"a": ""}, totals) == ["a"]
    assert run(tmp_path, PLAN, totals) == list(PLAN)
    assert [entry["unit"] for entry in dealing.entries(tmp_path / dealing.LOG)] == ["a", "b", "d", "c", "e"]
    assert totals == [1, 4]
    manifest = work(tmp_path).publish(tmp_path / "made", "letters", list(PLAN))
    assert manifest.counts == {"letters": 5}


@pytest.mark.slow
def test_no_model_is_loaded_where_nothing_is_missing(tmp_path: Path) -> None:
    run(tmp_path, PLAN)

    def maker() -> AbstractContextManager[Make]:
        raise AssertionError("opened")

    assert executor.run(maker, PLAN, work(tmp_path), lambda items, total: items, "cpu") == list(PLAN)


@pytest.mark.slow
def test_what_was_made_before_a_unit_that_is_refused_is_kept(tmp_path: Path) -> None:
    with pytest.raises(NumericError, match=r"^d is not finite$"):
        run(tmp_path, PLAN | {"d": "refuse"})
    assert [name for name in PLAN if work(tmp_path).done(name)] == ["b", "a"]


@given(st.lists(st.text(), unique=True), st.integers(1, 9))
def test_every_unit_is_in_one_share_and_shares_differ_by_one_unit_at_most(names: list[str], world: int) -> None:
    units = {name: number for number, name in enumerate(names)}
    shares = [executor.share(units, rank, world) for rank in range(world)]
    assert sorted(pair for share in shares for pair in share.items()) == sorted(units.items())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_make_each_missing_unit_once_and_publish_the_bytes_of_one_process(tmp_path: Path, world: int) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for folder in (alone, together):
        folder.mkdir()
    process = start(alone, PLAN)
    assert process.wait(timeout=60) == 0
    # one unit is there already, and one is damaged
    process = start(together, {"a": "", "c": ""})
    assert process.wait(timeout=60) == 0
    (together / "work" / ("0" * 16) / "c.txt").write_text("x")
    (together / dealing.LOG).unlink()
    ranks(together, PLAN, world)
    assert contents(together / "made") == contents(alone / "made")
    made = dealing.entries(together / dealing.LOG)
    assert sorted(entry["unit"] for entry in made) == ["b", "c", "d", "e"]
    assert len({entry["process"] for entry in made}) == world


@pytest.mark.parametrize("text", ["", "Ray", "ranks", "local"])
def test_an_unknown_executor_is_refused_with_the_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("QTHINK_EXECUTOR", text)
    expected = rf"^QTHINK_EXECUTOR is '{text}': choose here \(this process\) or ray \(workers of a Ray cluster\)$"
    with pytest.raises(ParamError, match=expected):
        run(tmp_path, PLAN)
    assert not (tmp_path / dealing.LOG).exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_its_executor_is_refused_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QTHINK_EXECUTOR", "ray")
    with pytest.raises(ParamError, match=r"^QTHINK_EXECUTOR is ray but Ray is not installed: `pip install .* '.\[ray\]'`$"):
        run(tmp_path, PLAN)
