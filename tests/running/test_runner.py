"""`qthink run` on the small repository, with DVC and real processes: what runs, what is said, and how it stops."""

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

import forked
import pytest
from graph import STAGES, tree_of
from imports import ROOT
from small_repository import DVC_YAML, PAGE, PARAMS, edit_page, make, make_with_core

from qthink_core.pipeline import process
from qthink_core.planning import schedule
from qthink_core.running import runner

PATIENCE_S = 120.0
BOXES = {"write@gsm8k-short", "write@gsm8k-long", "collect@gsm8k"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small repository under Git and DVC, with commands that name their parent as the real ones do."""
    folder = make_with_core(tmp_path_factory.mktemp("template"))
    (folder / "dvc.yaml").write_text(
        DVC_YAML.replace("cmd: python", "cmd: QTHINK_PARENT=$PPID exec python").replace(
            "      - collected.md: {cache: false}\n", ""
        )
    )
    (folder / ".gitignore").write_text("/artifacts/\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=folder, check=True)
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that repository for one test."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return shutil.copytree(template, tmp_path / "repository")


def start(root: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "qthink_core.cli", "run", *arguments],
        cwd=root,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=process.die_with_parent,
    )


def run(root: Path, *arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a whole run."""
    running = start(root, *arguments)
    try:
        out, err = running.communicate(timeout=PATIENCE_S)
    finally:
        running.kill()
    return running.returncode, out, err


def two_tasks(root: Path) -> None:
    (root / "params.yaml").write_text(PARAMS.replace("[gsm8k]", "[gsm8k, math500]"))
    (root / "texts/math500.txt").write_text("another")


def wait_for(path: Path, running: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def left(root: Path) -> set[int]:
    """The processes that run in a repository."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and (folder / "cwd").readlink() == root.resolve():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def all_gone(root: Path) -> bool:
    end = time.monotonic() + 20
    while left(root) and time.monotonic() < end:
        time.sleep(0.05)
    return not left(root)


@pytest.mark.slow
def test_every_box_is_made_behind_those_that_it_needs_with_a_line_each_and_then_nothing_is_left_to_do(root: Path) -> None:
    code, out, err = run(root)
    assert (code, err) == (0, "")
    said = re.findall(r"^\[ (\d)/3 boxes, \d+ s(?:; about .* left)? \] (\S+): (.*) \(\d+ s\)$", out, re.MULTILINE)
    assert [one[0] for one in said] == ["1", "2", "3"]
    assert {one[1] for one in said} == BOXES
    assert said[-1][1:] == ("collect@gsm8k", "2 names")
    assert (root / "artifacts/collected/gsm8k/names.txt").read_text() == "long short"
    lock = (root / "dvc.lock").read_text()
    order = ["write@gsm8k-short", "write@gsm8k-long", "collect@gsm8k"]
    assert re.findall(r"^  (\S+):$", lock, re.MULTILINE) == order, "however long each box took"
    done = subprocess.run([sys.executable, "-m", "dvc", "status"], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "Data and pipelines are up to date.\n"
    assert run(root) == (0, "Nothing to do: all 3 boxes are up to date.\n", "")


@pytest.mark.slow
def test_what_has_not_changed_counts_as_done_and_what_comes_out_alike_is_unchanged_after_it(root: Path) -> None:
    assert run(root)[0] == 0
    (root / "params.yaml").write_text(PARAMS.replace("one two three", "uno"))
    code, out, _ = run(root)
    assert code == 0
    assert "write@gsm8k-short" not in out
    assert out.startswith("2 of 3 boxes to make, ")
    assert [line.partition("] ")[2].partition(" (")[0] for line in out.splitlines()[1:]] == [
        "write@gsm8k-long: two units",
        "collect@gsm8k: 2 names",
    ]
    assert out.splitlines()[1].startswith("[ 2/3 boxes, ")


@pytest.mark.slow
def test_a_run_beside_another_one_of_dvc_is_refused_and_names_it(root: Path) -> None:
    held = {str(root / "artifacts/written/gsm8k/short"): {"pid": os.getpid(), "cmd": "dvc repro"}}
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    (root / ".dvc/tmp/rwlock").write_text(json.dumps({"write": held}))
    code, out, err = run(root)
    assert (code, out) == (75, "")
    assert re.match(rf"qthink: another run of DVC is at work: .* is busy, .*\(PID {os.getpid()}\): dvc repro", err)


@pytest.mark.slow
def test_what_dvc_was_killed_in_is_removed_or_told_with_the_fix(root: Path) -> None:
    """DVC writes both files in place, so that a kill may leave any part of them."""
    assert run(root)[0] == 0
    (root / ".dvc/tmp/rwlock").write_bytes(b"")
    removed = "removed .dvc/tmp/rwlock, which DVC was killed while it wrote\n"
    assert run(root) == (0, f"{removed}Nothing to do: all 3 boxes are up to date.\n", "")
    lock = root / "dvc.lock"
    content = lock.read_text()
    lock.write_text(content[: content.rindex("outs:") + 3])
    code, _, err = run(root)
    assert code == 65
    fix = "run `git checkout dvc.lock` (or `rm dvc.lock`) and the same command again; what was made is kept"
    assert re.fullmatch(rf"qthink: dvc\.lock is damaged, perhaps .* \(.+\): {re.escape(fix)}\n", err, re.DOTALL)
    lock.unlink()
    code, out, _ = run(root)
    assert (code, out.count("already made")) == (0, 3), out


@pytest.mark.slow
def test_one_task_of_params_as_blocks_runs_its_boxes_alone(root: Path) -> None:
    two_tasks(root)
    (root / "params.yaml").write_text(PARAMS.replace("tasks: [gsm8k]", "tasks:\n- gsm8k\n- math500"))
    code, out, _ = run(root, "math500")
    assert (code, out.count("/3 boxes, ")) == (0, 3)
    assert "@gsm8k" not in out
    assert not (root / "artifacts/written/gsm8k").exists()


@pytest.mark.slow
def test_an_unknown_task_and_a_wrong_parameter_are_told_in_a_line_before_anything_starts(root: Path) -> None:
    assert run(root, "math") == (2, "", "qthink: task 'math' is unknown: params.yaml has gsm8k\n")
    (root / "params.yaml").write_text(PARAMS.replace("seed: 0", "seed: none"))
    code, out, err = run(root)
    assert (code, out) == (2, "")
    assert err.startswith("qthink: params.yaml: seed is 'none': ")
    assert not (root / "artifacts/written").exists()


@pytest.mark.slow
def test_a_box_that_fails_says_why_once_and_what_others_made_is_kept(root: Path) -> None:
    odd = """def run(params, at, work):
    from qthink_core.errors import DataError
    if at.system == "long":
        raise DataError("odd text")
"""
    edit_page(root, PAGE.replace("def run(params, at, work):\n", odd))
    code, out, err = run(root, "--jobs", "1")
    assert code == 65
    assert out.count("write@gsm8k-long: odd text") == 1
    assert err == (
        "qthink: write@gsm8k-long ended with exit code 65; finished work is kept, run the same command to continue\n"
    )
    assert "Traceback" not in out + err
    assert "collect" not in out
    edit_page(root, PAGE)
    assert run(root)[0] == 0


@pytest.fixture
def paused(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A run whose boxes have committed their first units and wait."""
    (root / "pause").touch()
    two_tasks(root)  # boxes enough for the warm server
    running = start(root, "--jobs", "2")
    try:
        wait_for(root / "ready", running)
        # both boxes: a stage commits its unit before it notes that, and a signal must not fall in between
        end = time.monotonic() + PATIENCE_S
        while (root / "computed").read_text().count("first") < 2 and time.monotonic() < end:
            time.sleep(0.01)
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_keeps_units_leaves_no_process_and_goes_on(
    root: Path, paused: subprocess.Popen[str], number: signal.Signals
) -> None:
    paused.send_signal(number)
    out, err = paused.communicate(timeout=PATIENCE_S)
    assert paused.returncode == 75
    assert err == f"qthink: stopped by {number.name}; finished units are kept, run the same command to continue\n"
    assert "Traceback" not in out
    assert all_gone(root)
    assert len(list((root / ".work").glob("*/*/first.unit.json"))) == 2
    if number == signal.SIGTERM:  # what is there is the same after both
        return
    units = (root / "computed").read_text().split()
    (root / "pause").unlink()
    assert run(root)[0] == 0
    assert sorted((root / "computed").read_text().split()) == ["first"] * 4 + ["second"] * 4, units


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process with its parent")
def test_a_killed_run_leaves_no_process(root: Path, paused: subprocess.Popen[str]) -> None:
    assert len(left(root)) > 3
    paused.kill()
    paused.wait()
    assert all_gone(root)
    assert not (root / "artifacts/written").exists()


def test_a_box_needs_those_that_make_what_it_reads_a_folder_of_others_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tree, _ = tree_of("tiny")
    needs = schedule.edges(Path(), tree)
    assert "base" in needs["prepare@gsm8k"]
    assert {f"probe@gsm8k-{one}" for one in tree["systems"]["distilled"]} < needs["grade@gsm8k"]
    assert not {one for one in needs["grade@gsm8k"] if "@math500" in one}
    order = list(needs)
    assert all(order.index(before) < order.index(box) for box, all_before in needs.items() for before in all_before)
    part = runner.of_tasks(needs, ["gsm8k"])
    assert {"base", "grade@gsm8k"} < part.keys()
    assert not {box for box in part if "math500" in box or box == "report"}
    assert set(runner.of_tasks(needs, tree["tasks"])) == set(needs)
    assert {box.partition("@")[0] for box in needs} == set(STAGES)


def test_what_changed_and_all_that_depends_on_it_is_to_be_made() -> None:
    needs = {"a": frozenset(), "b": frozenset("a"), "c": frozenset("b"), "d": frozenset()}
    assert runner.after(needs, {"b"}) == {"b", "c"}
    assert runner.after(needs, {"a", "d"}) == {"a", "b", "c", "d"}
    assert runner.after(needs, set()) == set()


def test_progress_bars_and_what_would_steer_a_terminal_are_not_passed_on() -> None:
    said = b"\rbase:   0%|     | 0/9\rbase: 100%|#####| 9/9\nbase: a note \x1b[31m\n\nbase: made (3 s)\n"
    assert runner.lines(said) == ["base: a note \\x1b[31m", "base: made (3 s)"]


def test_imports_of_dvc_start_no_thread_that_a_fork_would_lack() -> None:
    program = (
        "import os; from qthink_core.running import dvc_jobs; dvc_jobs.load(); print(len(os.listdir('/proc/self/task')))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("seeds", ["0,0", "-1", "2147483648", "0,", "one", "9" * 5000])
def test_seeds_that_params_could_not_have_leave_them_untouched(tmp_path: Path, seeds: str) -> None:
    root = make(tmp_path)
    before = (root / "params.yaml").read_bytes()
    done = forked.qthink("run", f"--seeds={seeds}", cwd=root)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"qthink: --seeds is ")
    assert done.stderr.count(b"\n") == 1
    assert (root / "params.yaml").read_bytes() == before


@pytest.mark.slow
def test_a_box_that_is_killed_is_told_as_one_that_memory_may_have_lacked_for(root: Path) -> None:
    killed = "def run(params, at, work):\n    import os\n    os.kill(os.getpid(), 9)\n"
    edit_page(root, PAGE.replace("def run(params, at, work):\n", killed))
    code, _, err = run(root, "--jobs", "1")
    assert code == 137
    assert "exit code 137: it was killed, perhaps because memory ran out; --jobs 1 runs one box at a time; " in err


def test_a_base_model_of_unknown_shape_does_not_stop_the_run(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "params", tmp_path / "params")
    small = (tmp_path / "params/smol.yaml").read_text()
    wheel = re.search(r"  wheel:\n    package: .*\n    version: .*\n", small)
    assert wheel
    hub = f"  hub:\n    repo: nobody/knows\n    revision: {'0' * 40}\n"
    (tmp_path / "params/smol.yaml").write_text(small.replace(wheel[0], hub))
    common = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(re.sub(r"^scale: \w+", "scale: smol", common, flags=re.MULTILINE))
    assert runner.plan_or_none(tmp_path) is None
    assert runner.expected(None, ["base", "train@gsm8k-uniform-0"]) == {"base": 1.0, "train@gsm8k-uniform-0": 1.0}
    (tmp_path / "params/smol.yaml").write_text(small)
    assert runner.plan_or_none(tmp_path) is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_box_is_forked_waits_until_the_fork_is_known(number: signal.Signals) -> None:
    program = f"""
import os, signal
from qthink_core.running import dvc_jobs
signal.signal({int(number)}, signal.default_int_handler)
try:
    with dvc_jobs.held():
        os.kill(os.getpid(), {int(number)})
        one = dvc_jobs._start(lambda: len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        known = True
except KeyboardInterrupt:
    print(known, os.getpgid(one.pid) == one.pid, os.waitpid(one.pid, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True True 0\n"
