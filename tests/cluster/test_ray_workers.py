"""A Ray cluster of two nodes on this machine: a lost worker or node costs the unit in its hands, and no byte of a result."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dealing
import psutil
import pytest
import small_project
from imports import ROOT
from small_project import TASK, N, contents, units

from qthink_core.artifacts.store import read_manifest
from qthink_core.errors import DataError, ParamError
from qthink_core.pipeline import layout

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(2400)]
pytest.importorskip("ray", reason="Ray is not installed: make test-ray")

PLAN = {one: "" for one in "abcdefghij"}
HALTING = ROOT / "tests" / "cluster" / "halting"
# Idle, a stage of the small project needs half a minute here; a machine whose cores are all taken needs many times that.
PATIENCE_S = 900
AT_ONCE_S = 10
PINNED = (
    "import json, os; from qthink_core.pipeline import process; before = dict(os.environ); process.pin_numerics(3, 'avx2'); "
    "print(json.dumps({name: value for name, value in os.environ.items() if before.get(name) != value}))"
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one CPU each, `first` and `second`, whose environment is not that of a stage.

    Where the stage has `HALTING` in its PYTHONPATH, a worker on the second halts in the middle of a unit, and one on the
    first waits for that.
    """
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    # Ray's own minute was not enough on two cores with ten processes.
    monkeypatch.setenv("RAY_worker_register_timeout_seconds", "600")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    halted = tmp_path / "halted"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAIT", str(halted))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "node_name": "first"})
    made.halted = halted
    add_second(made)
    yield made
    made.shutdown()


def add_second(cluster: Any) -> None:
    """Adds the second node, for the first time or when it was lost."""
    cluster.halted.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALT", str(cluster.halted))
        cluster.second = cluster.add_node(num_cpus=1, node_name="second")


def lose(cluster: Any) -> None:
    """Kills the second node with the worker that halted there."""
    (raylet,) = cluster.second.all_processes["raylet"]
    for process in (raylet.process.pid, int(cluster.halted.read_text())):
        os.kill(process, signal.SIGKILL)


def environment(cluster: Any, *paths: Path) -> dict[str, str]:
    own = {"QTHINK_EXECUTOR": "ray", "QTHINK_RAY_ACTORS": "2", "RAY_ADDRESS": cluster.address} if cluster else {}
    own["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    return os.environ | {"OMP_NUM_THREADS": "1", "MKL_CBWR": "AVX2"} | own


def deal(folder: Path, plan: Mapping[str, str], cluster: Any) -> subprocess.Popen[str]:
    """The program of dealing.py in a folder."""
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "dealing.py", json.dumps(plan)],
        cwd=folder,
        env=environment(cluster, ROOT, ROOT / "tests"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code of a process, and what it said."""
    made, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, made, said


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def deaths(said: str) -> list[tuple[str, str, str]]:
    """(node, unit, reason) of each death that was told."""
    return re.findall(
        r"worker on node (\w+) \([0-9a-f]{8}\) died while it made (\S+): the unit is made again \((.*)\)$", said, re.M
    )


def test_a_worker_that_dies_is_named_and_its_unit_alone_is_made_again(tmp_path: Path, cluster: Any) -> None:
    status, _, said = ended(deal(tmp_path, PLAN | {"d": "die once"}, cluster))
    assert status == 0, said
    ((node, unit, reason),) = deaths(said)
    assert (node in {"first", "second"}, unit) == (True, "d")
    assert reason in {"its process ended, SYSTEM_ERROR", "it does not answer"}
    assert dealing.begun(tmp_path / dealing.LOG) == Counter([*PLAN, "d"])
    assert {name: text for name, text in contents(tmp_path / "made").items() if name.endswith(".txt")} == {
        f"{one}.txt": one.encode() for one in PLAN
    }


def test_a_worker_that_is_ended_because_its_machine_is_out_of_memory_is_one_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends it once half of what it takes is taken, before the machine itself is short; others may be ended with it."""
    from ray.cluster_utils import Cluster

    memory = psutil.virtual_memory()
    if memory.available < 2 * dealing.EATEN:
        pytest.skip(f"needs {2 * dealing.EATEN:,} bytes of free memory, found {memory.available:,}")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "50")
    monkeypatch.setenv("RAY_memory_usage_threshold", str(1 - (memory.available - dealing.EATEN / 2) / memory.total))
    small = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "node_name": "first"})
    try:
        status, _, said = ended(deal(tmp_path, {"a": "", "b": "eat once"}, small))
    finally:
        small.shutdown()
    assert status == 0, said
    assert ("first", "b", "its machine was out of memory") in deaths(said)
    assert {reason for _, _, reason in deaths(said)} == {"its machine was out of memory"}
    assert {name for name in contents(tmp_path / "made") if name.endswith(".txt")} == {"a.txt", "b.txt"}


def test_a_unit_that_kills_its_worker_three_times_ends_the_run_and_is_named(tmp_path: Path, cluster: Any) -> None:
    status, _, said = ended(deal(tmp_path, {"a": "", "b": "die"}, cluster))
    assert status == 1
    assert [unit for _, unit, _ in deaths(said)] == ["b", "b"]
    last = said.splitlines()[-1]
    assert re.match(
        r"worker on node \w+ \(\w+\) died while it made b \(.*\), the 3rd death with this unit: give a worker", last
    )
    assert dealing.begun(tmp_path / dealing.LOG) == Counter(a=1, b=3)


def test_a_unit_that_is_refused_ends_the_run_as_it_does_in_one_process(tmp_path: Path, cluster: Any) -> None:
    alone, dealt = tmp_path / "alone", tmp_path / "dealt"
    found = []
    for folder, of in ((alone, None), (dealt, cluster)):
        folder.mkdir()
        status, _, said = ended(deal(folder, PLAN | {"d": "refuse"}, of))
        found.append((status, said.splitlines()[-1]))
        assert dealing.begun(folder / dealing.LOG)["d"] == 1
    assert found[0] == found[1] == (70, "d is not finite")


def test_workers_compute_in_the_folder_and_with_the_numerics_of_the_process_that_deals(tmp_path: Path, cluster: Any) -> None:
    assert ended(deal(tmp_path, PLAN, cluster))[0] == 0
    made = dealing.entries(tmp_path / dealing.LOG)
    assert len({entry["process"] for entry in made}) == 2
    assert {entry["folder"] for entry in made} == {str(tmp_path)}
    for name, value in (("OMP_NUM_THREADS", "1"), ("MKL_CBWR", "AVX2")):
        assert {entry["environment"][name] for entry in made} == {value}


def test_a_cluster_that_does_not_answer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from qthink_core.pipeline import ray_workers

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    begun = time.monotonic()
    with pytest.raises(ParamError, match=rf"^no Ray cluster answers at RAY_ADDRESS, {address} \(.*refused\): start it"):
        list(ray_workers.made(dealing.maker, {"a": ""}, Path("work"), "cpu"))
    assert time.monotonic() - begun < AT_ONCE_S


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_workers_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from qthink_core.pipeline import ray_workers

    monkeypatch.setenv("QTHINK_RAY_ACTORS", text)
    with pytest.raises(ParamError, match=rf"^QTHINK_RAY_ACTORS is '{text}': give a whole number of workers, at least 1$"):
        list(ray_workers.made(dealing.maker, {"a": ""}, Path("work"), "cpu"))


class Resources:
    """A cluster of so many CPUs and GPUs, to be asked for its size alone."""

    def __init__(self, **found: float) -> None:
        self.cluster_resources = lambda: found


def test_there_is_a_worker_for_each_gpu_or_for_as_many_cpus_as_it_has_threads_and_always_one() -> None:
    from qthink_core.pipeline.ray_workers import wanted

    machine = Resources(CPU=64.0, GPU=8.0)
    assert [wanted(machine, "cuda", 4, limit) for limit in (None, 2, 99)] == [8, 2, 8]
    assert [wanted(machine, "cpu", 4, limit) for limit in (None, 2, 99)] == [16, 2, 99]
    assert [wanted(Resources(), device, 4, None) for device in ("cpu", "cuda")] == [1, 1]


def test_all_that_pins_numerics_is_carried_to_the_workers() -> None:
    from qthink_core.pipeline.ray_workers import CARRIED

    done = subprocess.run([sys.executable, "-c", PINNED], cwd=ROOT, env={"PATH": ""}, capture_output=True, check=True)
    pinned = json.loads(done.stdout)
    assert pinned["OMP_NUM_THREADS"] == "3"
    assert [name for name in pinned if not name.startswith(CARRIED)] == []


def test_a_node_that_does_not_see_the_project_is_named(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qthink_core.pipeline import ray_workers

    for name, value in environment(cluster, ROOT / "tests").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    missing = tmp_path / "elsewhere" / "work"
    expected = rf"^worker on node \w+ \(\w{{8}}\) cannot see {missing}: put the project on a file system of all nodes$"
    with pytest.raises(DataError, match=expected):
        list(ray_workers.made(dealing.maker, {"a": ""}, missing, "cpu"))


@pytest.fixture
def project(tmp_path: Path, qwen3: Any, tokenizer: Any) -> Callable[[str], Path]:
    """Makes small projects by name."""
    return lambda name: small_project.make(tmp_path / name, qwen3(tied=True), tokenizer)


def stage(root: Path, name: str, cluster: Any, *paths: Path) -> subprocess.Popen[str]:
    return small_project.start(root, name, environment(cluster, *paths))


def test_sample_and_extract_lose_a_node_each_and_publish_the_bytes_of_a_local_run(
    project: Callable[[str], Path], cluster: Any
) -> None:
    local, dealt = project("local"), project("dealt")
    for name, out in (("sample", layout.rollouts(TASK)), ("extract", layout.hidden_states(TASK))):
        status, _, said = ended(stage(local, name, None))
        assert status == 0, said
        running = stage(dealt, name, cluster, HALTING)
        until(cluster.halted.exists, running)
        kept = units(dealt, name)
        lose(cluster)
        status, _, said = ended(running)
        assert status == 0, said
        ((node, unit, reason),) = deaths(said)
        assert (node, reason in {"the node was lost", "it does not answer"}) == ("second", True)
        after = units(dealt, name)
        assert f"{unit}.unit.json" in after.keys() - kept.keys()
        assert {one: after[one] for one in kept} == kept, "what was committed is not made again"
        assert contents(dealt / out) == contents(local / out)
        cluster.remove_node(cluster.second, allow_graceful=False)
        add_second(cluster)
    found = read_manifest(dealt / layout.hidden_states(TASK))
    assert found.counts["usable"] > N, "there was something to read"


def test_a_stopped_stage_lets_the_workers_go_and_goes_on_without_ray(project: Callable[[str], Path], cluster: Any) -> None:
    local, dealt = project("local"), project("dealt")
    assert ended(stage(local, "sample", None))[0] == 0
    running = stage(dealt, "sample", cluster)
    until(lambda: len(units(dealt, "sample")) >= 3, running)
    running.send_signal(signal.SIGTERM)
    status, _, said = ended(running)
    assert (status, said.splitlines()[-1]) == (
        75,
        "sample@gsm8k: stopped by SIGTERM; finished units are kept, `dvc repro` continues from there",
    )
    kept = units(dealt, "sample")
    status, _, said = ended(stage(dealt, "sample", None))
    assert status == 0, said
    after = units(dealt, "sample")
    assert {one: after[one] for one in kept} == kept
    assert len(after) > len(kept)
    assert contents(dealt / layout.rollouts(TASK)) == contents(local / layout.rollouts(TASK))
