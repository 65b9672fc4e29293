"""Copies of the repository at the nano scale, each with its own Git, DVC cache and home, and what happens in them."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from graph import copy_repository
from ruamel.yaml import YAML

from qthink_core.running import warm

NANO = Path(__file__).with_name("nano.yaml")
HALTING = Path(__file__).with_name("halting")
TASK = "gsm8k"
FINETUNED, DISTILLED = "answer_only", "final_step"
# One system of each kind: what the others have of their own is a matter of the core's tests.
SYSTEMS = {
    "baseline": {"base": {"thinking": True}},
    "finetuned": {FINETUNED: {"target": "answer"}},
    "distilled": {DISTILLED: {"teacher": "reward_weighted", "supervision": "final_step"}},
    "trained": [FINETUNED, DISTILLED],
}
PATIENCE_S = 240.0


def wait_for(what: str, happens: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """What `happens` returns once that is true; looks every two milliseconds."""
    end = time.monotonic() + patience_s
    while not (found := happens()):
        assert time.monotonic() < end, f"{what} did not happen in {patience_s} s"
        time.sleep(0.002)
    return found


def state(pid: int) -> str:
    """The kernel's letter for a process: R or S at work, T halted; Z where it has ended, asked for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def alive(pid: int) -> bool:
    """Whether a process has not ended."""
    return state(pid) != "Z"


def ended(pid: int, within_s: float) -> bool:
    """Whether a process ends in time."""
    limit = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.01)
    return not alive(pid)


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a halted process has a signal that it will see when it goes on."""
    (bits,) = re.findall(r"^ShdPnd:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(bits, 16) >> (number - 1) & 1)


@contextlib.contextmanager
def halting_server() -> Iterator[Path]:
    """A warm server whose forks can be halted as cold stages can."""
    with contextlib.ExitStack() as ends:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(HALTING))
            place = ends.enter_context(warm.server(1, "avx2"))
        yield place


class Workplace:
    """A copy of the repository, and commands in it under an environment that holds nothing of this machine's user."""

    def __init__(
        self, folder: Path, scale: Path = NANO, changes: Mapping[str, Any] = MappingProxyType({}), **environment: str
    ) -> None:
        self.root = folder / "repository"
        self.environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(folder / "home"),
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
            "DVC_NO_ANALYTICS": "1",
            "QTHINK_CHECKPOINT_EVERY": "1",
            "PYTHONPATH": str(HALTING),  # no quick start beside it: Python takes one sitecustomize only
        } | environment
        for made in (self.root, folder / "home"):
            made.mkdir()
        copy_repository(self.root)
        (self.root / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(self.root / "results", ignore_errors=True)
        yaml = YAML()
        params = yaml.load(self.root / "params.yaml")
        params |= {"scale": scale.stem, "tasks": [TASK], "systems": SYSTEMS}
        yaml.dump(merged(params, changes), self.root / "params.yaml")
        yaml.dump(merged(yaml.load(self.root / "params/tiny.yaml"), yaml.load(scale)), self.root / f"params/{scale.name}")
        for setting in ("user.name=chain", "user.email=chain@localhost"):
            self.run("git", "config", *setting.split("="))
        self.commit("the copy")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The ended command with all that it said in `stdout`."""
        return subprocess.run(
            command,
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """The running command, in a process group of its own as a terminal gives it one."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def stage(self, instance: str) -> subprocess.CompletedProcess[str]:
        """A stage run by hand, as DVC would."""
        return self.run(sys.executable, "-m", f"stages.{instance.partition('@')[0]}", DVC_STAGE=instance)

    def repro(self, *arguments: str) -> list[str]:
        """The stage boxes that `dvc repro` (or `dvc exp run ...`) ran, in order; fails when it fails."""
        done = self.run("dvc", *(arguments or ("repro",)))
        assert done.returncode == 0, done.stdout
        return re.findall(r"^Running stage '(.+)':$", done.stdout, re.MULTILINE)

    def commit(self, message: str) -> None:
        """Commits everything that Git does not ignore, if anything changed."""
        for command in (["add", "--all"], ["commit", "--quiet", "--allow-empty", "--message", message]):
            done = self.run("git", *command)
            assert done.returncode == 0, done.stdout

    @property
    def lock(self) -> bytes:
        """dvc.lock."""
        return (self.root / "dvc.lock").read_bytes()

    def results(self) -> dict[str, bytes]:
        """The files of the report."""
        files = sorted(file for file in (self.root / "results").rglob("*") if file.is_file())
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files}

    def running(self) -> dict[str, int]:
        """The stage boxes that run now, and their process ids, by the locks that they hold."""
        found = {}
        for lock in (self.root / ".work").glob("*.lock"):
            text = lock.read_text()
            if text and alive(int(text)):
                found[lock.stem] = int(text)
        return found

    def units(self, instance: str) -> dict[str, int]:
        """The committed units of an instance and the inodes of their records: a unit that is made again has another."""
        found = {}
        for record in (self.root / ".work" / instance).glob("*/*.unit.json"):
            try:
                found[record.name.removesuffix(".unit.json")] = record.stat().st_ino
            except FileNotFoundError:  # an older checkpoint that goes
                continue
        return found

    def recorded(self, instance: str) -> bool:
        """Whether DVC has noted in dvc.lock that the instance ran."""
        return f"\n  {instance}:\n".encode() in self.lock if (self.root / "dvc.lock").exists() else False

    def closed(self, instance: str) -> bool:
        """Whether the instance's output is there, though DVC may not have recorded it yet."""
        return any((self.root / ".work" / instance).glob("*/closed.json"))


def merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """The left tree with the leaves of the right one in it."""
    both = dict(left)
    for key, value in right.items():
        both[key] = merged(both[key], value) if isinstance(value, Mapping) else value
    return both
