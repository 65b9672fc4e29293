"""What every stage does around its page, tried on a small repository with real processes."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from imports import ROOT
from small_repository import PAGE, PARAMS, edit_page, make

from qthink_core.artifacts import files, store
from qthink_core.errors import DataError, ParamError, StoppedError, StorageError, UnavailableError
from qthink_core.pipeline import graph, process, stage
from qthink_core.pipeline.graph import Box

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
    command = [sys.executable, "-m", f"stages.{Box.parse(box).stage if box else 'write'}"]
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
        ("base", Box("base")),
        ("prepare@math500", Box("prepare", "math500")),
        ("merge@gsm8k-final_step", Box("merge", "gsm8k", "final_step")),
        ("train@gsm8k-final_step-0", Box("train", "gsm8k", "final_step", 0)),
        ("train@gsm8k-final_step-12", Box("train", "gsm8k", "final_step", 12)),
    ],
)
def test_the_name_of_a_box_is_read_and_written_back(text: str, box: Box) -> None:
    assert Box.parse(text) == box
    assert str(box) == text


@pytest.mark.parametrize("text", ["train@../../etc-x", "train@gsm8k-a b", "train@gsm8k-$(id)", "Train@gsm8k", "a/b"])
def test_a_name_that_could_leave_its_folder_is_refused(text: str) -> None:
    with pytest.raises(ParamError, match="use small letters, digits and underscores"):
        Box.parse(text)


@pytest.mark.parametrize(
    "text", ["train@gsm8k-a-b", "train@gsm8k-a--1", "train@gsm8k-a-1-2", "train@gsm8k-a-1.5", "train@gsm8k-a-" + "9" * 5_000]
)
def test_a_training_seed_that_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ParamError, match="a training seed is a whole number, 0 or more"):
        Box.parse(text)


@pytest.mark.parametrize(
    "text", ["train@", "train@-a", "train@gsm8k-", "train@gsm8k-a-", "train@gsm8k-a-00", "train@a-b-\u0663"]
)
def test_a_name_that_is_not_spelt_as_the_graph_spells_it_is_refused(text: str) -> None:
    with pytest.raises(ParamError, match="is not the name of a box"):
        Box.parse(text)


def test_paths_and_keys_of_the_graph_are_filled_in_for_a_box() -> None:
    box, tree = Box("train", "gsm8k", "uniform", 3), {"scale": "tiny", "probe": {"thinker": "base"}}
    assert graph.resolve("models/${item.task}/${item.system}/${item.seed}", box, tree) == "models/gsm8k/uniform/3"
    assert graph.resolve("params/${scale}.yaml", box, tree) == "params/tiny.yaml"
    assert graph.resolve("answers/${probe.thinker}", box, tree) == "answers/base"
    found = graph.declared(ROOT, box, tree)
    assert found["params"]["params.yaml"] == [
        "K",
        "gamma",
        "train",
        "distil",
        "extract.positions",
        "systems.distilled.uniform",
    ]
    assert "artifacts/rollouts/gsm8k" in found["deps"]


def test_every_box_of_a_stage_is_the_product_of_its_matrix() -> None:
    tree = {"tasks": ["a", "b"], "systems": {"x": 1}, "seeds": [0, 7]}
    entry = {"matrix": {"task": "${tasks}", "system": "${systems}", "seed": "${seeds}"}}
    names = [str(one) for one in graph.boxes("train", entry, tree)]
    assert names == ["train@a-x-0", "train@a-x-7", "train@b-x-0", "train@b-x-7"]
    assert list(map(str, graph.boxes("base", {}, tree))) == ["base"]
    other_order = {"matrix": {"seed": "${seeds}", "task": "${tasks}", "system": "${systems}"}}
    assert sorted(str(one) for one in graph.boxes("train", other_order, tree)) == names


def test_a_stage_publishes_its_artifact_and_says_what_it_made(root: Path) -> None:
    code, out, err = run(root)
    assert (code, err) == (0, "")
    assert out.startswith(f"{BOX}: two units (")
    manifest = store.read_manifest(root / OUT, "written")
    assert manifest.counts == {"units": 2}
    assert manifest.inputs == {"texts/gsm8k.txt": files.sha256(root / "texts/gsm8k.txt")}
    assert (root / OUT / "second.txt").read_text() == "text one second"


@pytest.mark.slow
def test_clocks_and_durations_are_logged_and_leave_no_trace_in_the_output(root: Path) -> None:
    run(root)
    first = published(root)
    edit_page(root, PAGE.replace("time.sleep(0.01)", "time.sleep(0.02)"))
    run(root)
    assert published(root) == first
    entries = [json.loads(line) for line in (root / "logs" / "runs.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in entries] == [BOX, BOX]
    assert all(entry["seconds"] > 0 for entry in entries)


@pytest.mark.slow
def test_a_device_whose_memory_is_full_is_told_in_a_line_with_the_batch_to_lower(root: Path) -> None:
    full = PAGE.replace("def run(params, at, work):", "def run(params, at, work):\n    import torch\n    raise torch.{}\n")
    error = 'OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")'
    edit_page(root, full.replace("{}", error))
    code, out, err = run(root)
    assert (code, out) == (UnavailableError.exit_code, "")
    assert err == (
        f"{BOX}: the device's memory is full (CUDA out of memory): end other programs that use it and run the same "
        "command again, or use a device with more memory, after which this box begins again\n"
    )
    with (root / "params/small.yaml").open("a") as file:
        file.write("dtype: bfloat16\nevaluate: {batch: 2}\n")
    with (
        pytest.raises(UnavailableError, match=r"lower evaluate\.batch in params/small\.yaml"),
        stage.device_memory(root, "probe"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match=r"^another$"), stage.device_memory(root, "probe"):
        raise RuntimeError("another")


def test_a_file_system_that_does_not_lock_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(process.fcntl, "flock", refuse)
    with pytest.raises(StorageError, match=r"write\.lock cannot be locked \(Function not implemented\): mount its file"):
        process.lock(tmp_path / "write.lock", BOX).__enter__()


def test_counts_are_told_by_name_but_not_those_that_are_nothing_or_were_said() -> None:
    assert stage.nonzero({"examples": 4, "target_cut": 0, "target_missing": 2}, "examples") == ", target_missing 2"


def logged(root: Path) -> dict[str, Any]:
    return json.loads((root / "logs" / "runs.jsonl").read_text().splitlines()[-1])


def test_a_run_is_logged_with_what_the_next_plan_must_know_of_it(root: Path) -> None:
    run(root)
    found = logged(root)
    assert {key: found[key] for key in ("stage", "scale", "device", "processes", "executor", "resumed")} == {
        "stage": BOX,
        "scale": "small",
        "device": "cpu",
        "processes": 1,
        "executor": "here",
        "resumed": False,
    }
    assert found["params"]["systems"]["short"] == {"words": "one"}
    assert found["params"]["cpu_threads"] == 1


@pytest.mark.slow
def test_seconds_of_the_processor_are_logged_beside_those_of_the_clock(root: Path) -> None:
    """A box that sleeps a second and then has a child compute for one."""
    burn = "import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass"
    busy = (
        f"    import subprocess, sys\n    time.sleep(1)\n    subprocess.run([sys.executable, '-c', {burn!r}], check=True)\n"
    )
    edit_page(root, PAGE.replace("def run(params, at, work):\n", f"def run(params, at, work):\n{busy}"))
    run(root)
    slept = logged(root)
    edit_page(root, PAGE)
    run(root)
    quick = logged(root)
    assert slept["cpu_seconds"] - quick["cpu_seconds"] == pytest.approx(1, abs=0.5)
    assert slept["seconds"] - quick["seconds"] > 1.5


@pytest.mark.slow
def test_a_run_that_went_on_from_finished_units_is_logged_as_such(root: Path, paused: subprocess.Popen[str]) -> None:
    paused.kill()
    paused.wait()
    (root / "pause").unlink()
    assert run(root)[0] == 0
    assert logged(root)["resumed"] is True


@pytest.mark.slow
def test_other_code_changes_no_byte_of_the_same_output(root: Path) -> None:
    run(root)
    first = published(root)
    edit_page(root, PAGE + "FURTHER = 1\n")
    assert run(root)[0] == 0
    assert (root / "computed").read_text().split() == ["first", "second"] * 2, "the stage did run again"
    assert published(root) == first


@pytest.mark.slow
def test_a_comment_written_while_a_stage_is_stopped_loses_none_of_its_units(
    root: Path, paused: subprocess.Popen[str]
) -> None:
    paused.kill()
    paused.wait()
    (root / "pause").unlink()
    edit_page(root, PAGE + "# a comment\n")
    assert run(root)[0] == 0
    assert (root / "computed").read_text().split() == ["first", "second"]


@pytest.mark.slow
def test_a_stage_refuses_to_run_while_dvc_compares_other_code_than_the_one_that_is_there(root: Path) -> None:
    (root / "stages" / "write.py").write_text(PAGE + "FURTHER = 1\n")
    again = "run `dvc repro`, or `dvc repro fingerprint` and the same command again"
    again += ", or `qthink repair artifacts/code` if that changes nothing"
    refused = f"{BOX}: artifacts/code/write.json records another version of stages/write.py: {again}\n"
    assert run(root) == (DataError.exit_code, "", refused)
    assert not (root / "computed").exists()
    (root / "artifacts/code/write.json").unlink()
    assert run(root) == (DataError.exit_code, "", f"{BOX}: artifacts/code/write.json is missing: {again}\n")
    edit_page(root, PAGE + "FURTHER = 1\n")
    assert run(root)[0] == 0


def identity(root: Path) -> tuple[str, str, dict[str, str]]:
    return stage.identity(root, Box.parse(BOX))


def test_the_settings_digest_is_of_parameters_and_inputs_but_not_of_code(root: Path) -> None:
    fingerprint, settings, inputs = identity(root)
    (root / "stages" / "write.py").write_text(PAGE + "# a comment\n")
    assert identity(root) == (fingerprint, settings, inputs)
    (root / "stages" / "write.py").write_text(PAGE + "FURTHER = 1\n")
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


def test_the_users_own_folder_counts_for_what_is_under_way_and_not_for_what_was_made(root: Path) -> None:
    dvc, params, own = root / "dvc.yaml", root / "params.yaml", root / "mine"
    dvc.write_text(
        dvc.read_text()
        .replace("      - seed\n", "      - seed\n      - prepare\n", 1)
        .replace("write.json\n", "write.json\n      - ${prepare.folder}\n", 1)
    )
    params.write_text(PARAMS + "prepare: {folder: mine, n: 1}\n")
    own.mkdir()
    before = identity(root)
    assert set(before[2]) == {"texts/gsm8k.txt"}
    (own / "x.jsonl").write_text("{}")
    after = identity(root)
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    own.rename(root / "elsewhere")
    params.write_text(PARAMS + f"prepare: {{folder: {root / 'elsewhere'}, n: 1}}\n")
    assert identity(root)[1:] == before[1:]
    params.write_text(PARAMS + "prepare: {folder: mine, n: 2}\n")
    assert identity(root)[1] != before[1]


def test_a_further_test_set_counts_for_what_is_under_way_and_not_for_what_is_made_beside_it(root: Path) -> None:
    dvc, params = root / "dvc.yaml", root / "params.yaml"
    dvc.write_text(
        dvc.read_text().replace("      - seed\n", '      - seed\n      - test_sets\n      - "data.${item.task}"\n', 1)
    )
    known = "test_sets: {{svamp: {{rows: {rows}}}}}\ndata: {{gsm8k: {{test: {test}, also: [{also}]}}}}\n"
    found = []
    for rows, test, also in ((1, "x", ""), (2, "x", ""), (1, "x", "svamp"), (1, "y", "")):
        params.write_text(PARAMS + known.format(rows=rows, test=test, also=also))
        found.append(identity(root))
    assert len({fingerprint for fingerprint, _, _ in found}) == 4
    settings = [one for _, one, _ in found]
    assert settings[0] == settings[1] == settings[2] != settings[3]


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


@pytest.mark.slow
def test_a_second_run_is_refused_at_once_and_names_the_first(root: Path, paused: subprocess.Popen[str]) -> None:
    code, _, err = run(root)
    assert code == StoppedError.exit_code == 75
    assert err.startswith(f"{BOX}: {BOX} is already running as process {paused.pid}: wait until it ends")
    assert finish(root, paused) == (0, "")


@pytest.mark.slow
def test_another_box_of_the_same_stage_may_run_beside(root: Path, paused: subprocess.Popen[str]) -> None:
    other = start(root, "write@gsm8k-long")
    assert finish(root, paused)[0] == 0
    other.communicate(timeout=PATIENCE_S)
    assert other.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_stage_keeps_its_units_says_how_to_go_on_and_does(
    root: Path, paused: subprocess.Popen[str], number: signal.Signals
) -> None:
    paused.send_signal(number)
    out, err = paused.communicate(timeout=PATIENCE_S)
    assert (paused.returncode, out) == (75, "")
    assert err == f"{BOX}: stopped by {number.name}; finished units are kept, `dvc repro` continues from there\n"
    assert not (root / OUT).exists()
    (root / "pause").unlink()
    assert run(root)[0] == 0
    assert (root / "computed").read_text().split() == ["first", "second"], "the first unit was not made twice"


STOP = f"{BOX}: stopped by SIGTERM; finished units are kept, `dvc repro` continues from there\n"


@pytest.mark.parametrize(
    "around",
    [
        "    type('Own', (), {'its': type('Name', (), {'__set_name__': lambda *_: signal.raise_signal(15)})()})\n",
        """\
    try:
        try:
            signal.raise_signal(15)
        except BaseException as error:
            raise ImportError("no such library") from error
    except Exception as error:
        from qthink_core.errors import DataError
        raise DataError(str(error)) from None
""",
    ],
    ids=["a class that is made", "a library"],
)
def test_a_stop_that_is_wrapped_in_another_exception_is_a_stop(root: Path, around: str) -> None:
    began = "def run(params, at, work):\n"
    edit_page(root, PAGE.replace(began, f"{began}    import signal\n{around}"))
    assert run(root) == (75, "", STOP)


def test_a_signal_that_comes_while_python_ends_leaves_what_is_made(root: Path) -> None:
    late = """\
    import signal, sys

    class Late:
        def __del__(self, strike=signal.raise_signal):
            strike(15)

    sys.late = Late()
"""
    edit_page(root, PAGE.replace("def run(params, at, work):\n", f"def run(params, at, work):\n{late}"))
    code, out, err = run(root)
    assert (code, err) == (0, "")
    assert out.startswith(f"{BOX}: ")
    assert (root / OUT / "manifest.json").exists()


def test_a_signal_that_python_drops_in_a_destructor_stops_the_stage_a_moment_later(root: Path) -> None:
    """What a destructor raises is not passed on by Python, an exception of the handler of a signal neither."""
    own = """\
    import signal

    class Own:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    Own()
    time.sleep(30)
"""
    edit_page(root, PAGE.replace("def run(params, at, work):\n", f"def run(params, at, work):\n{own}"))
    code, out, err = run(root)
    assert (code, out, err) == (75, "", STOP)


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


# The shell is gone before the stage begins; orphans come to this program, which ends with the stage's exit code.
ORPHANED = """
import ctypes, os, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
wait = "while [ ! -e go ]; do sleep 0.01; done"
subprocess.run(["sh", "-c", f'({wait}; QTHINK_PARENT=$$ exec "$0" -m stages.write) &', sys.executable], check=True)
open("go", "w").close()
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_stage_whose_parent_died_before_it_could_ask_ends_and_does_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    command = [sys.executable, "-c", ORPHANED]
    environ = environment(BOX) | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=root, env=environ, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (75, "")
    said = r"^write@gsm8k-short: process \d+, which started this stage, has ended: run `dvc repro` again\n$"
    assert re.match(said, done.stderr), done.stderr
    assert sorted(root.rglob("*")) == sorted([*before, root / "go"])


def test_a_stage_runs_under_the_parent_that_its_command_names(root: Path) -> None:
    process = subprocess.run(
        ["sh", "-c", 'QTHINK_PARENT=$PPID exec "$0" -m stages.write', sys.executable],
        cwd=root,
        env=environment(BOX),
        timeout=PATIENCE_S,
        check=False,
    )
    assert process.returncode == 0
    assert (root / OUT).exists()


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
        work = store.Work(root / ".work" / place, "0" * 64, "settings", inputs)
        work.commit("unit", {"content": content})
        work.publish(root / place, "content", ["unit"])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        root = Path()
        make("problems", b"one", {})
        make("rollouts", b"of one", {"problems": store.digest(Path("problems"))})
        stage.check_lineage(root, ["problems", "rollouts"])
        make("problems", b"two", {})
        said = r"^rollouts was made from another version of problems than the present one: run `dvc repro`$"
        with pytest.raises(DataError, match=said):
            stage.check_lineage(root, ["problems", "rollouts"])


def test_a_file_whose_name_has_control_characters_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, odd = Path("artifacts/x"), r"artifacts/x/a\\n\\x1b\[31mb"
    folder.mkdir(parents=True)
    (folder / "a\n\x1b[31mb").touch()
    with pytest.raises(DataError, match=rf"^{odd} belongs to no artifact in artifacts/x: delete it$"):
        stage.check_lineage(Path(), ["artifacts/x"])
    work = store.Work(Path(".work/x"), "0" * 64, "settings", {})
    work.commit("unit", {"content": b""})
    work.publish(Path("made"), "content", ["unit"])
    shutil.copytree("made", folder, dirs_exist_ok=True)
    with pytest.raises(DataError, match=rf"^{odd} is not a file of the artifact in artifacts/x: delete it$"):
        stage.check_lineage(Path(), ["artifacts/x"])


@pytest.mark.parametrize("place", [f".work/{BOX}.lock/x", f".work/{BOX}", "logs", "artifacts/written/gsm8k"])
def test_a_folder_or_a_file_in_the_place_of_the_other_is_one_line(root: Path, place: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text("")
    code, _, err = run(root)
    assert code == StorageError.exit_code
    named = place.removesuffix("/x")
    assert re.fullmatch(rf"{BOX}: {named}\S* failed \(.*\): fix this and run `dvc repro` again\n", err)


@pytest.mark.parametrize(
    ("old", "new", "at"),
    [
        ("stages:", "stage:", "stages"),
        ("stages:\n", "stages:\n  other:\n", "stages"),
        ("      task: ${tasks}\n", "      task:\n", "stages.prepare.matrix"),
        ("      task: ${tasks}\n", "      task: 3\n", "stages.prepare.matrix"),
        ("      - artifacts/code/base.json\n", "      - 3\n", "stages.base.deps"),
        ("    cmd: QTHINK_PARENT=$PPID exec python -m stages.prepare\n", "", "stages.prepare.cmd"),
        ("    outs:\n      - artifacts/base\n", "    outs: {artifacts/base: 1}\n", "stages.base.outs"),
    ],
)
def test_a_graph_of_another_form_is_refused_with_its_key(old: str, new: str, at: str, tmp_path: Path) -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert old in text
    (tmp_path / "dvc.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ParamError, match=rf"^dvc\.yaml has something else than expected at {at}: correct it, or run `git"):
        graph.stages(tmp_path)


def test_a_bad_number_of_steps_between_checkpoints_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QTHINK_CHECKPOINT_EVERY", "7")
    assert stage.checkpoint_every() == 7
    for text in ("0", "-1", "often", "1.5", "", "²", "9" * 5_000, "7\n"):
        monkeypatch.setenv("QTHINK_CHECKPOINT_EVERY", text)
        with pytest.raises(ParamError, match="at least 1"):
            stage.checkpoint_every()


def put(*places: str) -> None:
    """Artifacts at these places below the working folder."""
    for place in places:
        work = store.Work(Path(".work", place.replace("/", "-")), "0" * 64, "settings", {})
        work.commit("unit", {"content": place.encode()})
        work.publish(Path(place), "content", ["unit"])


def left(folder: str) -> list[str]:
    """The places of the artifacts that are there."""
    return sorted(str(file.parent) for file in Path(folder).rglob(store.MANIFEST))


def removed(box: str) -> list[str]:
    return graph.remove_orphans(Path(), Box.parse(box))


@pytest.fixture
def here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small repository as the working folder."""
    monkeypatch.chdir(root)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph and the parameters of this repository, and nothing else, as the working folder."""
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    shutil.copytree(ROOT / "params", "params")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, name)


@pytest.mark.slow
def test_what_a_system_left_behind_that_has_gone_from_params_is_removed_before_a_stage_reads_its_folder(root: Path) -> None:
    for box in (BOX, "write@gsm8k-long"):
        assert run(root, box)[0] == 0
    code, out, _ = run(root, "collect@gsm8k")
    assert (code, out.splitlines()[0][:25]) == (0, "collect@gsm8k: 2 names (0")
    (root / "params.yaml").write_text(PARAMS.replace("  long: {words: one two three}\n", ""))
    code, out, err = run(root, "collect@gsm8k")
    assert (code, err) == (0, "")
    line = "removed artifacts/written/gsm8k/long, which no box of the graph makes any more (DVC's cache keeps it)"
    assert out.splitlines()[0] == f"collect@gsm8k: {line}"
    assert out.splitlines()[1].startswith("collect@gsm8k: 1 names (")
    assert (root / "artifacts/collected/gsm8k/names.txt").read_text() == "short"
    whole = store.digest(root / "artifacts/written/gsm8k")
    assert store.read_manifest(root / "artifacts/collected/gsm8k").inputs == {"artifacts/written/gsm8k": whole}
    code, out, _ = run(root, "collect@gsm8k")
    assert (code, len(out.splitlines())) == (0, 1)


@pytest.mark.usefixtures("here")
def test_what_the_graph_makes_and_what_is_no_input_of_the_stage_stays() -> None:
    written, elsewhere = "artifacts/written", ["artifacts/written/math500/gone", "artifacts/other/gsm8k/gone"]
    put(f"{written}/gsm8k/short", f"{written}/gsm8k/long", f"{written}/gsm8k/gone", *elsewhere, "artifacts/collected/gsm8k")
    assert removed(BOX) == []
    assert removed("collect@gsm8k") == [f"{written}/gsm8k/gone"]
    assert left(written) == [f"{written}/gsm8k/long", f"{written}/gsm8k/short", f"{written}/math500/gone"]
    assert left("artifacts/other") + left("artifacts/collected") == [
        "artifacts/other/gsm8k/gone",
        "artifacts/collected/gsm8k",
    ]


@pytest.mark.usefixtures("here")
def test_a_folder_of_several_artifacts_has_all_that_the_graph_makes_there() -> None:
    at = stage.Box("collect", "gsm8k")
    put("artifacts/written/gsm8k/short", "artifacts/written/gsm8k/long")
    stage.check_complete(Path(), at)
    manifest = Path("artifacts/written/gsm8k/long/manifest.json")
    os.truncate(manifest, (256 << 20) + 1)
    with pytest.raises(DataError, match=r"long/manifest\.json is damaged \(has 268,435,457 bytes"):
        stage.check_complete(Path(), at)
    manifest.unlink()
    missing = "artifacts/written/gsm8k/long is missing or holds no manifest.json: run `dvc repro`"
    with pytest.raises(DataError, match=f"^{missing}$"):
        stage.check_complete(Path(), at)


@pytest.mark.usefixtures("here")
def test_what_is_no_artifact_of_that_very_place_is_not_removed() -> None:
    put("artifacts/written/gsm8k/short", "artifacts/elsewhere")
    folder = Path("artifacts/written/gsm8k")
    kept = {
        "notes/mine.txt": b"mine",
        "foreign/manifest.json": b"{}",
        "torn/manifest.json": b"",
        "list/manifest.json": b"[1]",
    }
    kept["other/manifest.json"] = files.sealed({"version": 3})
    for name, content in kept.items():
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(content)
    shutil.copytree("artifacts/elsewhere", folder / "copy")
    assert removed("collect@gsm8k") == []
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert (folder / "copy" / "content").read_bytes() == b"artifacts/elsewhere"


@pytest.mark.usefixtures("here")
def test_a_user_folder_that_is_an_input_by_itself_is_not_removed() -> None:
    text = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(text.replace("/collect.json\n", "/collect.json\n      - data\n"))
    put("data", "data/set", "artifacts/written/gsm8k/short")
    assert removed("collect@gsm8k") == []
    assert left("data") == ["data", "data/set"]


@pytest.mark.usefixtures("here")
def test_nothing_behind_a_link_is_removed_but_a_linked_disk_is_a_folder_like_any(tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    put("artifacts/written/gsm8k/short", "artifacts/written/gsm8k/linked", "artifacts/written/gsm8k/gone")
    outside.mkdir()
    Path("artifacts/written/gsm8k/linked").rename(outside / "linked")
    Path("artifacts/written/gsm8k/linked").symlink_to(outside / "linked")
    Path("artifacts/written/gsm8k/gone/linked").symlink_to(outside / "linked")
    assert removed("collect@gsm8k") == ["artifacts/written/gsm8k/gone"]
    assert (outside / "linked" / "content").exists()
    assert Path("artifacts/written/gsm8k/linked").is_symlink()
    put("artifacts/written/gsm8k/gone")
    Path("artifacts").rename(outside / "artifacts")
    Path("artifacts").symlink_to(outside / "artifacts")
    assert removed("collect@gsm8k") == ["artifacts/written/gsm8k/gone"]
    assert sorted(path.name for path in (outside / "artifacts/written/gsm8k").iterdir()) == ["linked", "short"]


@pytest.mark.usefixtures("here")
def test_a_file_of_an_artifact_that_is_called_like_a_manifest_is_no_artifact() -> None:
    put("artifacts/written/gsm8k/short")
    work = store.Work(Path(".work/long"), "0" * 64, "settings", {})
    inner = files.sealed(vars(store.Manifest("content", "artifacts/written/gsm8k/long/deep", "settings")))
    work.commit("unit", {"deep/manifest.json": inner})
    work.publish(Path("artifacts/written/gsm8k/long"), "content", ["unit"])
    assert removed("collect@gsm8k") == []
    store.read_manifest(Path("artifacts/written/gsm8k/long"))


@pytest.mark.usefixtures("real")
def test_a_seed_that_has_gone_from_params_leaves_no_adapter_to_be_merged() -> None:
    place = "artifacts/adapters/gsm8k/uniform"
    put(f"{place}/0", f"{place}/7", "artifacts/adapters/gsm8k/sft/7", "artifacts/base")
    assert removed("train@gsm8k-uniform-0") == []
    assert removed("merge@gsm8k-uniform") == [f"{place}/7"]
    assert left("artifacts") == ["artifacts/adapters/gsm8k/sft/7", f"{place}/0", "artifacts/base"]


@pytest.mark.usefixtures("real")
def test_an_artifact_in_whose_folder_others_are_made_now_is_removed_around_them() -> None:
    """An adapter was its system's folder before there were seeds."""
    place = "artifacts/adapters/gsm8k/uniform"
    put(place)
    Path(place, "more", "0").mkdir(parents=True)
    Path(place, "more", "file").write_text("of the old one")
    put("artifacts/base")
    Path(place, "linked").symlink_to(Path("artifacts/base").resolve())
    put(f"{place}/0")
    assert removed("merge@gsm8k-uniform") == [place]
    assert [path.name for path in Path(place).iterdir()] == ["0"]
    assert left("artifacts") == [f"{place}/0", "artifacts/base"]


@pytest.mark.usefixtures("real")
def test_a_system_that_has_gone_from_params_leaves_nothing_to_be_graded_or_reported() -> None:
    gone = [f"artifacts/{kind}/gsm8k/gone" for kind in ("answers", "probes")]
    put(*gone, "artifacts/answers/gsm8k/base", "artifacts/answers/gsm8k/uniform", "artifacts/probes/gsm8k/uniform")
    put("artifacts/answers/math500/gone", "artifacts/problems/gsm8k")
    assert removed("grade@gsm8k") == gone
    put(
        "artifacts/adapters/gsm8k/gone/0",
        "artifacts/adapters/gsm8k/sft/0",
        "artifacts/grades/gsm9k",
        "artifacts/grades/gsm8k",
    )
    left_behind = ["artifacts/adapters/gsm8k/gone/0", "artifacts/answers/math500/gone", "artifacts/grades/gsm9k"]
    assert removed("report") == left_behind
    kept = ["adapters/gsm8k/sft/0", "answers/gsm8k/base", "answers/gsm8k/uniform", "grades/gsm8k", "probes/gsm8k/uniform"]
    assert left("artifacts") == sorted(f"artifacts/{one}" for one in [*kept, "problems/gsm8k"])


@pytest.mark.usefixtures("real")
def test_another_systems_model_and_the_checkpoints_inside_a_model_stay() -> None:
    put("models/gsm8k/gone", "artifacts/problems/gsm8k")
    work = store.Work(Path(".work/model"), "0" * 64, "settings", {})
    work.commit("unit", {"model.safetensors": b"", "seed-5/model.safetensors": b""})
    work.publish(Path("models/gsm8k/uniform"), "model", ["unit"])
    assert removed("evaluate@gsm8k-uniform") == []
    assert removed("evaluate@gsm8k-gone") == []
    assert left("models") == ["models/gsm8k/gone", "models/gsm8k/uniform"]
    assert Path("models/gsm8k/uniform/seed-5/model.safetensors").exists()
