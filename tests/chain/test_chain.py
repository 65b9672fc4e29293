"""The whole graph for real, at the nano scale: unbroken in one copy of the repository, killed at every stage in another."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from workplaces import DISTILLED, FINETUNED, TASK, Workplace, ended, halting_server, is_pending, state, wait_for

from qthink_core.report import markdown
from qthink_core.running import warm

# A quiet machine of two cores needs three minutes for everything here.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]

CODE = "fingerprint"
BEFORE_SYSTEMS = [CODE, "base", *(f"{stage}@{TASK}" for stage in ("prepare", "sample", "reward", "extract", "average"))]
FINETUNING, DISTILLING = f"finetune@{TASK}-{FINETUNED}-0", f"train@{TASK}-{DISTILLED}-0"
SCORES = [f"grade@{TASK}", "report"]
EVERY_INSTANCE = {
    *BEFORE_SYSTEMS,
    FINETUNING,
    DISTILLING,
    f"baseline@{TASK}-base",
    *(f"{stage}@{TASK}-{system}" for stage in ("merge", "evaluate") for system in (FINETUNED, DISTILLED)),
    f"probe@{TASK}-{DISTILLED}",
    *SCORES,
}
# Where a stage of several units is halted: as it is about to record this one (halting/sitecustomize.py).
HALTED = {"sample": 3, "extract": 3, "train": 4, "finetune": 4, "evaluate": 2, "probe": 3}
# Others are halted at their first unit, since they may be too quick to be seen. The last two record none, and take longer.
HALTED |= dict.fromkeys(("base", "prepare", "reward", "average", "merge", "grade"), 1)
UNITLESS = {CODE, "report"}
# Where a kill can fall on any moment from there on: before the record, after it, while DVC hashes, in the next stage.
KILLED_AT_RANDOM = UNITLESS | {stage for stage, unit in HALTED.items() if unit == 1}
LONGEST_WAIT_S = 1.5
# The stages that go on cold after a warm start, one for each kind of computation: decoding, hidden states, training.
COLD = {"sample", "extract", "train"}
DEMO = (sys.executable, "-m", "qthink_core.cli", "run")
UP_TO_DATE = "Data and pipelines are up to date."
# DVC writes dvc.lock in place: killed in that moment it leaves a torn one, and says so.
TORN_LOCK = ("./dvc.lock' validation failed", "./dvc.lock' is invalid")
TORN_LIST = "Unable to read RWLock-file"  # of running commands, which DVC writes in place, too


@dataclass
class Strike:
    """How a running stage was stopped, the units that it had committed by then and those seen when it went on."""

    instance: str
    units: dict[str, int]
    said: str
    status: int
    left_running: bool
    recorded: bool
    refusals: list[subprocess.CompletedProcess[str]]
    resumed: set[tuple[str, int]] = field(default_factory=set)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future]]:
    """Both runs, side by side: each stage of this scale uses one core.

    `qthink run` makes the unbroken one. DVC makes the killed one, whose stages are also forks of a warm server, except those
    in COLD once they go on. The tests compare what both runs made.
    """
    # made here, since mktemp does not allow for two threads
    for_unbroken, for_killed = map(tmp_path_factory.mktemp, ("unbroken", "killed-again-and-again"))

    def unbroken(server: Path) -> Workplace:
        place = Workplace(for_unbroken)
        done = place.run(*DEMO)
        assert done.returncode == 0, done.stdout
        made = re.findall(r"^\[ +\d+/\d+ boxes, .*?\] (\S+): ", done.stdout, re.MULTILINE)
        assert sorted(made) == sorted(EVERY_INSTANCE)
        place.environment[warm.PLACE] = str(server)  # for what the tests then run by DVC
        return place

    def killed(server: Path) -> tuple[Workplace, dict[str, Strike]]:
        place = Workplace(for_killed, TZ="Asia/Kathmandu", LANG="C", **{warm.PLACE: str(server)})
        return place, strike_at_every_stage(place)

    with halting_server() as server, ThreadPoolExecutor(2) as pool:
        yield {"unbroken": pool.submit(unbroken, server), "killed": pool.submit(killed, server)}


@pytest.fixture
def unbroken(runs: dict[str, Future]) -> Workplace:
    """The copy in which nothing went wrong."""
    return runs["unbroken"].result()


@pytest.fixture
def killed(runs: dict[str, Future]) -> Workplace:
    """The copy in which every stage was stopped once and went on."""
    return runs["killed"].result()[0]


@pytest.fixture
def strikes(runs: dict[str, Future]) -> dict[str, Strike]:
    """What happened at each stage of that copy."""
    return runs["killed"].result()[1]


def strike_at_every_stage(place: Workplace) -> dict[str, Strike]:
    """Runs `dvc repro` until it ends, stopping each stage the first time it is seen at work."""
    struck: dict[str, Strike] = {}
    waits = random.Random(0)
    while True:
        # A stage that the killed DVC had just started ends by itself, and would be taken for one of the next run.
        wait_for("the end or the halt of what was running", lambda: all(state(p) == "T" for p in place.running().values()))
        halts = " ".join(f"{stage}:{count}" for stage, count in HALTED.items() if stage not in struck)
        repro = place.start("dvc", "repro", HALT=halts)

        def victim(repro: subprocess.Popen[str] = repro) -> tuple[str, int] | bool:
            new = [(instance, pid) for instance, pid in place.running().items() if instance.partition("@")[0] not in struck]
            return new[0] if new else repro.poll() is not None

        found = wait_for("a new stage or the end", victim)
        if found is True:
            said = repro.communicate()[0]
            if any(text in said for text in TORN_LOCK):
                (place.root / "dvc.lock").unlink()
                continue
            if TORN_LIST in said:
                (place.root / ".dvc/tmp/rwlock").unlink()
                continue
            assert repro.returncode == 0, said
            return struck
        instance, pid = found
        stage = instance.partition("@")[0]
        struck[stage] = strike(place, repro, instance, pid, waits.uniform(0, LONGEST_WAIT_S))
        if stage not in KILLED_AT_RANDOM:
            struck[stage].resumed = resumed(place, struck[stage])


def strike(place: Workplace, repro: subprocess.Popen[str], instance: str, pid: int, wait_s: float) -> Strike:
    """Stops one stage in its own way."""
    refusals: list[subprocess.CompletedProcess[str]] = []
    stage = instance.partition("@")[0]
    if stage in HALTED:
        wait_for("the halt", lambda: state(pid) == "T")
    match stage:
        case "sample":  # DVC dies, while a second run is refused
            refusals = [place.run("dvc", "repro"), place.stage(instance)]
            repro.kill()
        case "extract" | "probe":  # the stage dies
            os.kill(pid, signal.SIGKILL)
        case "train":  # DVC dies between two optimiser steps
            repro.kill()
        case "finetune":  # the system is shut down
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        case "evaluate":  # Ctrl-C, which a terminal sends to DVC and to the stage
            os.killpg(repro.pid, signal.SIGINT)
            wait_for("the signal, which the client passes on", lambda: is_pending(pid, signal.SIGINT))
            os.kill(pid, signal.SIGCONT)
        case "baseline":  # DVC dies after the output is there and before it is recorded
            repro.send_signal(signal.SIGSTOP)
            wait_for("the output", lambda: place.closed(instance))
            repro.kill()
        case _:
            with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                repro.wait(wait_s)
            repro.kill()
    repro.wait(60)
    left_running = not ended(pid, within_s=10)
    if left_running:
        os.kill(pid, signal.SIGKILL)
    said = repro.communicate()[0]
    return Strike(instance, place.units(instance), said, repro.returncode, left_running, place.recorded(instance), refusals)


def resumed(place: Workplace, before: Strike) -> set[tuple[str, int]]:
    """The units of a stopped stage and their inodes as its next run goes on: at the second new one, or at its end."""
    stage = before.instance.partition("@")[0]
    start = {"HALT": f"{stage}:2"} | ({warm.PLACE: ""} if stage in COLD else {})
    repro = place.start("dvc", "repro", before.instance, **start)

    def halted() -> bool:
        pid = place.running().get(before.instance)
        return repro.poll() is not None or (pid is not None and state(pid) == "T")

    wait_for("a halt or the end", halted)
    seen = set(place.units(before.instance).items())
    if repro.poll() is None:
        os.kill(place.running()[before.instance], signal.SIGCONT)
    said = repro.communicate()[0]
    assert repro.returncode == 0, said
    return seen


def test_a_second_run_does_nothing_and_git_sees_the_lock_and_the_results_alone(unbroken: Workplace) -> None:
    assert unbroken.repro() == []
    assert unbroken.run("dvc", "status").stdout.strip() == UP_TO_DATE
    assert unbroken.run("git", "status", "--short").stdout.split() == ["??", "dvc.lock", "??", "results/"]


def test_the_lock_and_the_results_tell_nothing_of_this_machine(unbroken: Workplace) -> None:
    said = unbroken.lock + b"".join(unbroken.results().values())
    for word in (str(unbroken.root), os.uname().nodename, unbroken.environment["HOME"]):
        # a short host name may be a part of other words
        assert not re.search(rb"(?<![\w.-])" + re.escape(word.encode()) + rb"(?![\w.-])", said), word


def test_a_damaged_input_is_refused_by_name_and_brought_back(unbroken: Workplace) -> None:
    block = Path(f"artifacts/rollouts/{TASK}/block-00003.parquet")
    content, times = bytearray((unbroken.root / block).read_bytes()), (unbroken.root / block).stat()
    content[len(content) // 2] ^= 1
    (unbroken.root / block).write_bytes(content)
    os.utime(unbroken.root / block, ns=(times.st_atime_ns, times.st_mtime_ns))  # so that DVC takes it for unchanged
    assert unbroken.run("dvc", "status").stdout.strip() == UP_TO_DATE
    for stage in ("reward", "extract"):
        done = unbroken.stage(f"{stage}@{TASK}")
        assert done.returncode == 65
        fix = re.fullmatch(
            rf"{stage}@{TASK}: {block} does not have the sha256 .*: run `qthink (repair .*)`, then `dvc repro`\n",
            done.stdout,
        )
        assert fix, done.stdout
    said = unbroken.run(sys.executable, "-m", "qthink_core.cli", *fix[1].split()).stdout
    assert f"{block} was damaged or missing: restored from DVC's cache" in said
    content[len(content) // 2] ^= 1
    assert (unbroken.root / block).read_bytes() == content
    assert unbroken.run("dvc", "status").stdout.strip() == UP_TO_DATE


@pytest.mark.parametrize(
    ("line", "reran"), [(b"# a comment\n", []), (b"FURTHER = 1\n", [FINETUNING, DISTILLING])], ids=["comment", "statement"]
)
def test_an_edit_of_the_training_code_reruns_the_trainings_if_it_says_something_and_nothing_after_them(
    unbroken: Workplace, line: bytes, reran: list[str]
) -> None:
    module, before = unbroken.root / "qthink_core/training/loop.py", unbroken.lock
    unbroken.commit("the results")
    module.write_bytes(module.read_bytes() + line)
    assert sorted(unbroken.repro()) == sorted([CODE, *reran])
    old, new = (YAML(typ="safe").load(text)["stages"] for text in (before, unbroken.lock))
    changed = {
        (name, kind, entry["path"])
        for name in old
        for kind in ("deps", "outs")
        for entry in old[name].get(kind, [])
        if entry not in new[name][kind]
    }
    said = {(CODE, "outs", "artifacts/code")} if reran else set()
    said |= {(name, "deps", f"artifacts/code/{name.partition('@')[0]}.json") for name in reran}
    assert changed == {(CODE, "deps", "qthink_core")} | said
    for command in (["git", "checkout", "--quiet", "."], ["dvc", "checkout", "--quiet"]):
        assert unbroken.run(*command).returncode == 0


def test_a_box_that_is_run_alone_after_an_edit_refuses_to_put_the_old_code_into_the_lock(unbroken: Workplace) -> None:
    module, before = unbroken.root / "qthink_core/method/losses.py", unbroken.lock
    content = module.read_bytes()
    module.write_bytes(content + b"FURTHER = 1\n")
    refused = unbroken.run("dvc", "repro", "--force", "--single-item", DISTILLING)
    module.write_bytes(content)
    assert refused.returncode != 0
    again = "run `dvc repro`, or `dvc repro fingerprint` and the same command again"
    again += ", or `qthink repair artifacts/code` if that changes nothing"
    assert (
        f"{DISTILLING}: artifacts/code/train.json records another version of qthink_core/method/losses.py: {again}\n"
        in refused.stdout
    )
    assert unbroken.lock == before
    assert unbroken.run("dvc", "checkout", "--quiet").returncode == 0


def test_a_lock_file_that_dvc_was_killed_in_is_deleted_and_made_again_from_what_dvc_has(unbroken: Workplace) -> None:
    before = unbroken.lock
    # within a key: a file that ends between two boxes is a whole one
    (unbroken.root / "dvc.lock").write_bytes(before[: before.index(b"    outs:", len(before) // 2) + 6])
    refused = unbroken.run("dvc", "repro")
    assert refused.returncode != 0
    assert any(text in refused.stdout for text in TORN_LOCK)
    (unbroken.root / "dvc.lock").unlink()
    assert unbroken.repro() == ["report"], "its files are Git's, so DVC has no copy of them"
    assert YAML(typ="safe").load(unbroken.lock) == YAML(typ="safe").load(before)


def test_an_experiment_with_gamma_reruns_what_depends_on_gamma(unbroken: Workplace) -> None:
    unbroken.commit("the results")
    ran = unbroken.repro("exp", "run", "--set-param", "gamma=1.0")
    after = [f"{stage}@{TASK}-{DISTILLED}" for stage in ("merge", "evaluate", "probe")]
    assert ran == [DISTILLING, *after, *SCORES]
    table = unbroken.run("dvc", "metrics", "diff", "--all").stdout.splitlines()
    rows = [line.split() for line in table[1:]]
    assert [row[:2] for row in rows] == [
        ["results/accuracy.json", f"{TASK}.{system}"] for system in sorted(["base", FINETUNED, DISTILLED])
    ]
    assert "gamma" in unbroken.run("dvc", "params", "diff").stdout
    for command in (["git", "checkout", "--quiet", "."], ["dvc", "checkout", "--quiet"]):
        assert unbroken.run(*command).returncode == 0


def test_stopped_once_at_every_stage_dvc_ends_with_the_lock_and_the_bytes_of_the_unbroken_qthink_run(
    unbroken: Workplace, killed: Workplace, strikes: dict[str, Strike]
) -> None:
    assert set(strikes) == {instance.partition("@")[0] for instance in EVERY_INSTANCE}
    by_dvc, by_qthink_run = (YAML(typ="safe").load(place.lock) for place in (killed, unbroken))
    assert by_dvc == by_qthink_run
    assert killed.results() == unbroken.results()
    assert killed.repro() == []
    assert killed.run("git", "status", "--short").stdout.split() == ["??", "dvc.lock", "??", "results/"]
    # DVC may have been killed while it wrote into its own cache
    assert not [path for path in killed.root.rglob("*.tmp") if ".dvc" not in path.parts]


def test_no_stage_outlives_the_dvc_that_started_it(strikes: dict[str, Strike]) -> None:
    assert [strike.instance for strike in strikes.values() if strike.left_running] == []
    killed_with_dvc = [stage for stage, strike in strikes.items() if strike.status == -signal.SIGKILL]
    assert {"sample", "train", "baseline"} <= set(killed_with_dvc)


@pytest.mark.parametrize("stage", ["sample", "extract", "train", "finetune", "evaluate", "probe", "baseline"])
def test_a_stopped_stage_goes_on_from_its_last_committed_unit(strikes: dict[str, Strike], stage: str) -> None:
    before, seen = strikes[stage].units, strikes[stage].resumed
    new = {unit for unit, _ in seen - before.items()}
    assert before
    if stage == "baseline":  # killed after its last unit, while DVC had yet to record the output
        assert not strikes[stage].recorded
        assert new == set()
    else:
        assert len(new) == 1
        numbered = [unit for unit in before if not unit.endswith("readout")]
        assert min(new) > max(numbered), "a unit that was made again has another inode"
    if stage not in ("train", "finetune"):  # which drop their older checkpoints
        assert before.items() <= seen
    if stage == "finetune":
        # The kernel may hand SIGTERM to another thread than the halted one, which then still records its checkpoint.
        assert len(before) in (1, 2)
    elif stage in HALTED:
        assert len(before) == (1 if stage == "train" else HALTED[stage] - 1)


@pytest.mark.parametrize(("stage", "number"), [("finetune", "SIGTERM"), ("evaluate", "SIGINT")])
def test_a_stage_that_is_asked_to_stop_says_so_in_one_sentence(strikes: dict[str, Strike], stage: str, number: str) -> None:
    strike = strikes[stage]
    sentence = f"{strike.instance}: stopped by {number}; finished units are kept, `dvc repro` continues from there"
    said = strike.said.partition(f"> QTHINK_PARENT=$PPID exec python -m stages.{stage}\n")[2]
    assert said.startswith(sentence + "\n")
    assert "Traceback" not in strike.said
    assert "exited with 75" in strike.said


def test_a_second_run_at_once_is_refused_and_names_the_first(strikes: dict[str, Strike]) -> None:
    by_dvc, by_stage = strikes["sample"].refusals
    assert by_dvc.returncode != 0
    assert re.search(r"is busy, it is being blocked by:\s+\(PID \d+\): .*dvc repro", by_dvc.stdout)
    assert by_stage.returncode == 75
    assert re.fullmatch(
        rf"sample@{TASK}: sample@{TASK} is already running as process \d+: wait until it ends\n", by_stage.stdout
    )


def test_qthink_run_has_nothing_to_do_twice_and_runs_one_task_alone_beside_the_results(unbroken: Workplace) -> None:
    """Whatever the tests above have edited: `qthink run` asks `dvc status`."""
    assert "Nothing to do: all" in unbroken.run(*DEMO).stdout
    params, before = unbroken.root / "params.yaml", unbroken.results()
    text, yaml = params.read_bytes(), YAML()
    tree = yaml.load(text)
    tree["tasks"] = [TASK, "math500"]
    yaml.dump(tree, params)
    done = unbroken.run(*DEMO, TASK)
    params.write_bytes(text)
    assert done.returncode == 0, done.stdout
    table = (unbroken.root / "demo/table.md").read_text()
    assert f"| system | {TASK} (n=16) |" in table
    assert markdown.short(table) in done.stdout
    assert "latents replaced" not in done.stdout
    assert "demo/report.html" in done.stdout
    assert unbroken.results() == before
