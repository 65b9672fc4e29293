"""What every stage does around its page, tried on a small repository with one stage and real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import ROOT
from small_repository import PAGE, PARAMS, make

from qthink_core import artifacts, stage
from qthink_core.errors import DataError, ParamError, StoppedError
from qthink_core.stage import Instance

BOX = "write@gsm8k-short"
OUT = Path("artifacts/written/gsm8k/short")
# A stage starts in half a second; a machine under load may take many times as long.
PATIENCE_S = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path)


def environment(box: str) -> dict[str, str]:
    return os.environ | {"DVC_STAGE": box, "PYTHONPATH": str(ROOT)}


def start(root: Path, box: str = BOX) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stages.write"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=root, env=environment(box), text=True, stdout=pipe, stderr=pipe)


def run(root: Path, box: str = BOX) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a whole run."""
    process = start(root, box)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


@pytest.fixture
def paused(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A stage that has committed its first unit and waits."""
    (root / "pause").touch()
    process = start(root)
    wait_for(root / "ready", process)
    yield process
    process.kill()
    process.communicate()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def finish(root: Path, process: subprocess.Popen[str]) -> tuple[int, str]:
    (root / "pause").unlink()
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


def published(root: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((root / OUT).iterdir())}


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("base", Instance("base")),
        ("prepare@math500", Instance("prepare", "math500")),
        ("merge@gsm8k-final_step", Instance("merge", "gsm8k", "final_step")),
        ("train@gsm8k-final_step-0", Instance("train", "gsm8k", "final_step", 0)),
        ("train@gsm8k-final_step-12", Instance("train", "gsm8k", "final_step", 12)),
    ],
)
def test_the_name_of_a_box_is_read_and_written_back(text: str, box: Instance) -> None:
    assert Instance.parse(text) == box
    assert str(box) == text


@pytest.mark.parametrize("text", ["train@../../etc-x", "train@gsm8k-a b", "train@gsm8k-$(id)", "Train@gsm8k", "a/b"])
def test_a_name_that_could_leave_its_folder_is_refused(text: str) -> None:
    with pytest.raises(ParamError, match="use small letters, digits and underscores"):
        Instance.parse(text)


@pytest.mark.parametrize("text", ["train@gsm8k-a-b", "train@gsm8k-a--1", "train@gsm8k-a-1-2", "train@gsm8k-a-1.5"])
def test_a_training_seed_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ParamError, match="a training seed is a whole number, 0 or more"):
        Instance.parse(text)


def test_paths_and_keys_of_the_graph_are_filled_in_for_a_box() -> None:
    box, tree = Instance("train", "gsm8k", "uniform", 3), {"scale": "tiny", "probe": {"thinker": "base"}}
    assert stage.resolve("models/${item.task}/${item.system}/${item.seed}", box, tree) == "models/gsm8k/uniform/3"
    assert stage.resolve("params/${scale}.yaml", box, tree) == "params/tiny.yaml"
    assert stage.resolve("answers/${probe.thinker}", box, tree) == "answers/base"
    found = stage.declared(ROOT, box, tree)
    assert found["params"]["params.yaml"] == ["K", "gamma", "train", "distil", "systems.distilled.uniform"]
    assert "artifacts/rollouts/gsm8k" in found["deps"]


def test_every_box_of_a_stage_is_the_product_of_its_matrix() -> None:
    tree = {"tasks": ["a", "b"], "systems": {"x": 1}, "seeds": [0, 7]}
    entry = {"matrix": {"task": "${tasks}", "system": "${systems}", "seed": "${seeds}"}}
    names = [str(one) for one in stage.instances("train", entry, tree)]
    assert names == ["train@a-x-0", "train@a-x-7", "train@b-x-0", "train@b-x-7"]
    assert list(map(str, stage.instances("base", {}, tree))) == ["base"]


def test_a_stage_publishes_its_artifact_and_says_what_it_made(root: Path) -> None:
    code, out, err = run(root)
    assert (code, err) == (0, "")
    assert out.startswith(f"{BOX}: two units (")
    manifest = artifacts.read_manifest(root / OUT, "written")
    assert manifest.counts == {"units": 2}
    assert manifest.inputs == {"texts/gsm8k.txt": artifacts.sha256(root / "texts/gsm8k.txt")}
    assert (root / OUT / "second.txt").read_text() == "text one second"


def test_clocks_and_durations_are_logged_and_leave_no_trace_in_the_output(root: Path) -> None:
    run(root)
    first = published(root)
    (root / "stages" / "write.py").write_text(PAGE.replace("time.sleep(0.01)", "time.sleep(0.02)"))
    run(root)
    assert published(root) == first
    entries = [json.loads(line) for line in (root / "logs" / "runs.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in entries] == [BOX, BOX]
    assert all(entry["seconds"] > 0 for entry in entries)


def test_a_comment_in_the_code_changes_no_byte_of_the_output(root: Path) -> None:
    run(root)
    first = published(root)
    (root / "stages" / "write.py").write_text(PAGE + "# a comment\n")
    assert run(root)[0] == 0
    assert (root / "computed").read_text().split() == ["first", "second"] * 2, "the stage did run again"
    assert published(root) == first


def identity(root: Path) -> tuple[str, str, dict[str, str]]:
    return stage.identity(root, Instance.parse(BOX))


def test_the_settings_digest_is_of_parameters_and_inputs_but_not_of_code(root: Path) -> None:
    fingerprint, settings, inputs = identity(root)
    (root / "stages" / "write.py").write_text(PAGE + "# a comment\n")
    assert identity(root)[0] != fingerprint
    assert identity(root)[1:] == (settings, inputs)
    (root / "stages" / "write.py").write_text(PAGE)
    for file, old, new in (
        ("params.yaml", "seed: 0", "seed: 1"),
        ("params.yaml", "words: one}", "words: uno}"),
        ("params/small.yaml", "cpu_threads: 1", "cpu_threads: 2"),
        ("texts/gsm8k.txt", "text", "another text"),
    ):
        before = (root / file).read_text()
        (root / file).write_text(before.replace(old, new))
        assert identity(root)[0] != fingerprint
        assert identity(root)[1] != settings
        (root / file).write_text(before)
    assert identity(root) == (fingerprint, settings, inputs)


def test_another_systems_parameters_and_undeclared_ones_change_no_fingerprint(root: Path) -> None:
    before = identity(root)
    (root / "params.yaml").write_text(
        PARAMS.replace("one two three", "uno").replace("tasks: [gsm8k]", "tasks: [gsm8k, math500]")
    )
    assert identity(root) == before


def test_a_stage_runs_by_dvc_only(root: Path) -> None:
    code, out, err = run(root, "")
    assert (code, out) == (2, "")
    assert err == "qthink: stages/write.py is a part of the graph: run it with `dvc repro write`\n"


def test_a_box_without_parameters_of_its_own_is_refused(root: Path) -> None:
    code, _, err = run(root, "write@gsm8k-medium")
    assert code == 2
    assert err == "write@gsm8k-medium: systems.medium is missing from the params files\n"


def test_a_missing_input_ends_with_the_command_that_makes_it(root: Path) -> None:
    (root / "texts" / "gsm8k.txt").unlink()
    code, _, err = run(root)
    assert code == DataError.exit_code == 65
    assert "texts/gsm8k.txt is missing" in err
    assert "dvc repro" in err
    assert "Traceback" not in err


def test_a_second_run_is_refused_at_once_and_names_the_first(root: Path, paused: subprocess.Popen[str]) -> None:
    code, _, err = run(root)
    assert code == StoppedError.exit_code == 75
    assert err.startswith(f"{BOX}: {BOX} is already running as process {paused.pid}: let it end")
    assert finish(root, paused) == (0, "")


def test_another_box_of_the_same_stage_may_run_beside(root: Path, paused: subprocess.Popen[str]) -> None:
    other = start(root, "write@gsm8k-long")
    assert finish(root, paused)[0] == 0
    other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_stage_keeps_its_units_says_how_to_go_on_and_does(
    root: Path, paused: subprocess.Popen[str], number: signal.Signals
) -> None:
    paused.send_signal(number)
    out, err = paused.communicate(timeout=PATIENCE_S)
    assert (paused.returncode, out) == (75, "")
    assert err == f"{BOX}: stopped by {number.name}; finished units are kept, `dvc repro` goes on from there\n"
    assert not (root / OUT).exists()
    (root / "pause").unlink()
    assert run(root)[0] == 0
    assert (root / "computed").read_text().split() == ["first", "second"], "the first unit was not made twice"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "seed: 0", "seed: 1"),
        ("stages/write.py", "two units", "2 units"),
        ("texts/gsm8k.txt", "text", "word"),
    ],
    ids=["parameters", "code", "input"],
)
def test_an_edit_in_the_middle_of_a_run_makes_it_fail(
    root: Path, paused: subprocess.Popen[str], file: str, old: str, new: str
) -> None:
    (root / file).write_text((root / file).read_text().replace(old, new))
    code, err = finish(root, paused)
    assert code == 65
    assert err == f"{BOX}: parameters, inputs or code of {BOX} changed while it ran: run `dvc repro` again\n"
    assert not (root / "logs").exists()


def test_an_edit_of_another_systems_parameters_in_the_middle_of_a_run_is_no_fault(
    root: Path, paused: subprocess.Popen[str]
) -> None:
    (root / "params.yaml").write_text(PARAMS.replace("one two three", "uno"))
    assert finish(root, paused) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_stage_dies_with_the_process_that_started_it_however_that_dies(root: Path) -> None:
    program = "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]); print(child.pid, flush=True); child.wait()"
    (root / "pause").touch()
    parent = subprocess.Popen(
        [sys.executable, "-c", program, sys.executable, "-m", "stages.write"],
        cwd=root,
        env=environment(BOX),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child = int(parent.stdout.readline())
    try:
        wait_for(root / "ready", parent)
        assert running(child)
        parent.kill()
        end = time.monotonic() + PATIENCE_S
        while running(child):
            assert time.monotonic() < end, "the stage lives on without the process that started it"
            time.sleep(0.01)
    finally:
        (root / "pause").unlink()
        parent.communicate(timeout=PATIENCE_S)
    assert not (root / OUT).exists()
    assert run(root)[0] == 0, "the lock went with the process that held it"


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # a container without an init process leaves the dead as zombies
    return state != "Z"


def test_inputs_of_different_lineage_are_not_mixed(tmp_path: Path) -> None:
    root = tmp_path

    def make(place: str, content: bytes, inputs: dict[str, str]) -> None:
        work = artifacts.Work(root / ".work" / place, "0" * 64, "settings", inputs)
        work.commit("unit", {"content": content})
        work.publish(root / place, "content", ["unit"])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        root = Path()
        make("problems", b"one", {})
        make("rollouts", b"of one", {"problems": artifacts.digest(Path("problems"))})
        stage.check_lineage(root, ["problems", "rollouts"])
        make("problems", b"two", {})
        said = r"^rollouts was made from another problems than the one at hand: run `dvc repro`$"
        with pytest.raises(DataError, match=said):
            stage.check_lineage(root, ["problems", "rollouts"])


def test_a_bad_number_of_steps_between_checkpoints_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QTHINK_CHECKPOINT_EVERY", "7")
    assert stage.checkpoint_every() == 7
    for text in ("0", "-1", "often", "1.5", ""):
        monkeypatch.setenv("QTHINK_CHECKPOINT_EVERY", text)
        with pytest.raises(ParamError, match="at least 1"):
            stage.checkpoint_every()
