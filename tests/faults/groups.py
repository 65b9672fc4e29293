"""Whole runs by `dvc repro` and `qthink run` in processes of their own, struck at random times until they complete."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chain.workplaces import Workplace, alive, ended
from faults.operations import STOPPED, STOPS_WITHIN_S, Tally
from faults.project import MICRO, PARAMS
from ruamel.yaml import YAML

DVC, QTHINK = ("dvc", "repro"), (sys.executable, "-m", "qthink_core.cli", "run")
BEGUN = "boxes to make"
NO_ORPHAN_AFTER_S = 5.0
# How many boxes a run may finish before it is struck, and then the longest wait in seconds.
BOXES, WAIT_S = (0, 1, 1), 2.0
# DVC writes these files in place: killed in that moment it leaves a torn one, and says so.
TORN = {
    "dvc.lock": re.compile(r"dvc\.lock' (validation failed|is invalid)|dvc\.lock'.*corrupted"),
    ".dvc/tmp/rwlock": re.compile(r"RWLock-file"),
}


@dataclass
class Truth:
    """What an undisturbed run leaves: dvc.lock, read, and the files of the report."""

    lock: Any
    results: Mapping[str, bytes]

    @classmethod
    def of(cls, place: Workplace) -> "Truth":
        """What a run left."""
        return cls(YAML(typ="safe").load(place.lock), place.results())


def undisturbed(folder: Path) -> Truth:
    """Makes the whole pipeline by `qthink run`."""
    place = Workplace(folder, MICRO, PARAMS)
    done = place.run(*QTHINK)
    if done.returncode:
        raise RuntimeError(f"qthink run ended with {done.returncode} though nothing disturbed it:\n{done.stdout}")
    return Truth.of(place)


def recorded(place: Workplace) -> int:
    """How many boxes DVC has noted in dvc.lock."""
    lock = place.root / "dvc.lock"
    return len(re.findall(rb"^  \S+:$", lock.read_bytes(), re.MULTILINE)) if lock.exists() else 0


def processes(root: Path) -> list[int]:
    """The living processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")).is_relative_to(root) and alive(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def strike_group(run: subprocess.Popen[str]) -> None:
    """Kills the run and what is in its process group."""
    os.killpg(run.pid, signal.SIGKILL)


def strike_parent(run: subprocess.Popen[str]) -> None:
    """Kills DVC or `qthink run` alone; the stages under it have to notice."""
    run.kill()


class Struck:
    """One run that is struck again and again, until it completes."""

    def __init__(self, folder: Path, command: tuple[str, ...], seed: int, **environment: str) -> None:
        self.place = Workplace(folder, MICRO, PARAMS, **environment)
        self.command, self.chance = command, random.Random(seed)
        self.name = f"{'dvc repro' if command == DVC else 'qthink run'}, seed {seed}"
        self.torn = dict.fromkeys(TORN, 0)

    def until_complete(self, tally: Tally, strike: Callable[[subprocess.Popen[str]], str | None], most: int) -> None:
        """Starts the run and strikes it at a random moment, again and again, at most `most` times; then lets it complete."""
        began, struck = time.monotonic(), 0
        while True:
            before = recorded(self.place)
            run = self.place.start(*self.command)
            if struck < most:
                self._wait(run, before + self.chance.choice(BOXES))
            if struck == most or run.poll() is not None:
                said = run.communicate()[0]
                if run.returncode == 0:
                    break
                if not self._repaired(said):
                    tally.faults.append(f"{self.name}: ended with {run.returncode} after {struck} strikes: {said[-1500:]}")
                    return
                continue
            found = strike(run)
            struck += 1
            tally.resumed += before > 0
            if found:
                tally.faults.append(f"{self.name}, strike {struck}: {found}")
        tally.struck += struck
        tally.cases += 1
        tally.seconds += time.monotonic() - began

    def _wait(self, run: subprocess.Popen[str], boxes: int) -> None:
        while recorded(self.place) < boxes and run.poll() is None:
            time.sleep(0.02)
        end = time.monotonic() + self.chance.uniform(0, WAIT_S)
        while time.monotonic() < end and run.poll() is None:
            time.sleep(0.01)

    def _repaired(self, said: str) -> bool:
        """Deletes the file of DVC's own that a kill has torn, as docs/running.md says."""
        for name, words in TORN.items():
            if words.search(said) and (self.command == DVC or name == "dvc.lock"):  # `qthink run` removes the other itself
                self.torn[name] += 1
                (self.place.root / name).unlink()
                return True
        return False

    def compare(self, tally: Tally, truth: Truth, strikes: int) -> None:
        """The lock and the report are those of the undisturbed run, and nothing is left to do or left behind."""
        faults = []
        if YAML(typ="safe").load(self.place.lock) != truth.lock:
            faults.append("another dvc.lock")
        faults += [
            f"other bytes in {name}" for name, text in self.place.results().items() if truth.results.get(name) != text
        ]
        if self.place.run("dvc", "status").stdout.strip() != "Data and pipelines are up to date.":
            faults.append("dvc status finds changes")
        faults += [f"left behind {path}" for path in self.place.root.rglob("*.tmp") if ".dvc" not in path.parts]
        tally.faults += [f"{self.name}: {one}" for one in faults]
        tally.equal += strikes if not faults else 0


def killed(kind: str, chance: random.Random, root: Path) -> Callable[[subprocess.Popen[str]], str | None]:
    """A strike by SIGKILL: of the process group, or of the parent alone, after which the next run starts at once."""

    def strike(run: subprocess.Popen[str]) -> str | None:
        strike_parent(run) if kind == "parent" else strike_group(run)
        run.wait()
        run.stdout.close()  # type: ignore[union-attr]
        if kind == "parent" and chance.random() < 0.5:
            return None  # the next run starts at once, beside what may still be ending
        left = [one for one in processes(root) if not ended(one, NO_ORPHAN_AFTER_S)]
        return f"left {len(left)} processes running after {NO_ORPHAN_AFTER_S:.0f} s" if left else None

    return strike


def stopped(chance: random.Random, root: Path, command: tuple[str, ...]) -> Callable[[subprocess.Popen[str]], str | None]:
    """A strike by SIGTERM to the stage (or to `qthink run`), or by Ctrl-C to the group."""

    def strike(run: subprocess.Popen[str]) -> str | None:
        number = chance.choice((signal.SIGTERM, signal.SIGINT))
        began = time.monotonic()
        os.killpg(run.pid, number)
        try:
            said = run.communicate(timeout=2 * STOPS_WITHIN_S)[0]
        except subprocess.TimeoutExpired:
            strike_group(run)
            return f"{number.name}: still running after {2 * STOPS_WITHIN_S:.0f} s"
        took = time.monotonic() - began
        if took > STOPS_WITHIN_S:
            return f"{number.name}: took {took:.0f} s"
        begun = BEGUN in said  # before that, Python is importing, and the system ends it at once
        if command == QTHINK and begun and run.returncode not in (0, STOPPED):
            return f"{number.name}: qthink run ended with {run.returncode}: {said[-800:]}"
        left = [one for one in processes(root) if not ended(one, NO_ORPHAN_AFTER_S)]
        return f"{number.name}: left {len(left)} processes running" if left else None

    return strike


def second_run_is_refused(folder: Path) -> list[str]:
    """Faults of a second `dvc repro` while a stage of the first is at work: it must be refused, and change nothing."""
    place = Workplace(folder, MICRO, PARAMS)
    first = place.start(*DVC)
    try:
        while not (found := place.running()):
            time.sleep(0.002)
            if first.poll() is not None:
                return [f"the first run ended with {first.returncode}: {first.communicate()[0][-800:]}"]
        (box, pid), *_ = found.items()
        os.kill(pid, signal.SIGSTOP)
        second, alone = place.run(*DVC), place.stage(box)
        faults = (
            []
            if second.returncode and "is busy" in second.stdout
            else [f"a second dvc repro ended with {second.returncode}"]
        )
        if alone.returncode != STOPPED or f"is already running as process {pid}" not in alone.stdout:
            faults.append(f"a second {box} ended with {alone.returncode}: {alone.stdout[-400:]}")
        return faults
    finally:
        strike_group(first)
        first.communicate()
