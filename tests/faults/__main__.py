"""`make faults`: strikes every stage and whole runs, and prints a table of what came of it; ends with 1 if anything differs.

PYTHONPATH=tests python -m faults --kills 120 --seed 0
"""

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from faults import disks, groups, operations, power, project, two_ranks
from faults.operations import Tally
from faults.project import ORDER, Project

from qthink_core.running import warm

# Random kills of one run; the last run of the harness may have more.
MOST = 15
STOPS = 12
FOLDER = Path(tempfile.gettempdir()) / f"faults-{os.getpid()}"
PROJECTS: dict[int, Project] = {}


def own_folder(name: str) -> Path:
    """A new folder for this process."""
    folder = FOLDER / f"{name}-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(parents=True)
    return folder


def own_project() -> Project:
    """The project of this process, with everything made once."""
    if os.getpid() not in PROJECTS:
        made = Project(own_folder("project"))
        made.make()
        PROJECTS[os.getpid()] = made
    return PROJECTS[os.getpid()]


def at_stage(strike: Callable[..., Tally], stage: str, how: dict[str, int]) -> Tally:
    """The strikes of one kind at one stage."""
    here = own_project()
    return strike(here, here.box(stage), **how)


def on_tmpfs(stages: Iterable[str], cases: int, seed: int) -> Tally:
    """Full disks at these stages, on a project of its own."""
    folder, tally = own_folder("tmpfs"), Tally("full tmpfs at random bytes")
    with disks.tmpfs(folder) as mounted:
        if mounted:
            here = Project(folder)
            here.make()
            for stage in stages:
                tally.add(disks.full(here, here.box(stage), cases, seed))
    return tally


def run_killed(command: tuple[str, ...], kind: str, seed: int, truth: groups.Truth, server: str) -> Tally:
    """One run that is killed at random moments."""
    own = {warm.PLACE: server} if server else {}
    struck = groups.Struck(own_folder("killed"), command, seed, **own)
    name = "qthink run" if command == groups.QTHINK else "dvc repro"
    tally = Tally(f"SIGKILL at random moments, {name}{' alone' if kind == 'parent' else ', process group'}")
    struck.until_complete(tally, groups.killed(kind, random.Random(seed), struck.place.root), MOST)
    struck.compare(tally, truth, tally.struck)
    return finished(struck, tally)


def run_stopped(command: tuple[str, ...], seed: int, truth: groups.Truth, server: str) -> Tally:
    """One run that is stopped at random moments."""
    struck = groups.Struck(own_folder("stopped"), command, seed, **({warm.PLACE: server} if server else {}))
    tally = Tally("SIGTERM or Ctrl-C at random moments, whole run")
    struck.until_complete(tally, groups.stopped(random.Random(seed), struck.place.root, command), STOPS)
    struck.compare(tally, truth, tally.struck)
    return finished(struck, tally)


def finished(struck: groups.Struck, tally: Tally) -> Tally:
    """The tally, after saying which files of DVC's own were torn; the run's folder goes."""
    torn = {name: count for name, count in struck.torn.items() if count}
    print(f"{struck.name}: {tally.struck} strikes in {tally.seconds:.0f} s, torn files of DVC: {torn or 'none'}", flush=True)
    shutil.rmtree(struck.place.root.parent, ignore_errors=True)
    return tally


def second_run() -> Tally:
    """A second run beside the first."""
    faults = groups.second_run_is_refused(own_folder("second"))
    return Tally("second `dvc repro` at once: refused", struck=1, equal=int(not faults), cases=1, faults=faults)


def runs(seed: int, truth: groups.Truth, server: str) -> list[tuple[Callable[..., Tally], tuple]]:
    """The struck runs: with stages that start cold, with forks of a server, by DVC and by `qthink run`."""
    chosen: list[tuple[Callable[..., Tally], tuple]] = [
        (run_killed, (groups.DVC, "group", seed, truth, "")),
        (run_killed, (groups.QTHINK, "group", seed + 1, truth, "")),
        (run_killed, (groups.QTHINK, "parent", seed + 2, truth, "")),
        (run_killed, (groups.DVC, "parent", seed + 3, truth, server)),
    ]
    chosen += [(run_killed, (groups.DVC, ("group", "parent")[n % 2], seed + 4 + n, truth, server)) for n in range(4)]
    chosen += [(run_stopped, (groups.DVC, seed, truth, server)), (run_stopped, (groups.QTHINK, seed + 1, truth, ""))]
    return [*chosen, (second_run, ())]


def at_operations(stride: int, seed: int) -> list[tuple[Callable[..., Tally], tuple]]:
    """The strikes inside stages: every operation is struck by a kill and by a power cut, every third by the other faults."""
    tasks: list[tuple[Callable[..., Tally], tuple]] = [(on_tmpfs, (ORDER[1:], 3, seed))]
    tasks += [
        (at_stage, (two_ranks.kills, stage, {"stride": one * stride}))
        for stage, one in {"train": 3, "finetune": 5, "extract": 2}.items()
    ]
    for stage in ORDER:
        every = [(operations.kills, 1), (power.losses, 1), (operations.stops, 3), (operations.full_disks, 3)]
        every.append((operations.kills_in_one_run, 3))
        tasks += [(at_stage, (strike, stage, {"stride": one * stride})) for strike, one in every]
        tasks.append((at_stage, (disks.limits, stage, {"cases": 3, "seed": seed})))
    return tasks


def table(tallies: Iterable[Tally], seconds: float) -> str:
    """The figures as a table of Markdown."""
    rows: dict[str, Tally] = {}
    for one in sorted(tallies, key=lambda one: one.kind):
        rows.setdefault(one.kind, Tally(one.kind)).add(one)
    lines = [
        "| fault | stages or runs | strikes | went on from finished work | ended in equal bytes |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind, one in rows.items():
        share = f"{one.equal} ({100 * one.equal / one.struck:.0f} %)" if one.struck else "not possible here"
        lines.append(f"| {kind} | {one.cases} | {one.struck} | {one.resumed} | {share} |")
    struck, equal = (sum(getattr(one, name) for one in rows.values()) for name in ("struck", "equal"))
    lines += ["", f"{struck} strikes, {equal} ended in equal bytes, {seconds / 60:.1f} minutes on {os.cpu_count()} cores."]
    return "\n".join(lines)


def main() -> None:
    """Reads the command line, strikes, and prints."""
    words = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    words.add_argument("--kills", type=int, default=120, help="SIGKILLs at random moments, at least (120)")
    words.add_argument("--seed", type=int, default=0, help="of all random moments (0)")
    words.add_argument("--stride", type=int, default=1, help="strike each operation (1), or every second one (2) ...")
    words.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once (one a core)")
    words.add_argument("--only", choices=("runs", "operations"), help="whole runs alone, or single stages alone")
    chosen = words.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
    began = time.monotonic()
    print(f"seed {chosen.seed}, folder {FOLDER}", flush=True)
    project.load()
    tallies: list[Tally] = []
    try:
        with warm.server(1, "avx2") as server, multiprocessing.get_context("fork").Pool(chosen.jobs, ignore_stops) as pool:
            tasks = []
            if chosen.only != "operations":
                truth = groups.undisturbed(own_folder("undisturbed"))
                tasks += runs(chosen.seed, truth, str(server))
            if chosen.only != "runs":
                tasks += at_operations(chosen.stride, chosen.seed)
            waiting = [pool.apply_async(function, arguments, callback=tallies.append) for function, arguments in tasks]
            try:
                for one in waiting:
                    told(one.get())
            except KeyboardInterrupt:
                print("stopped: the table is of what was struck so far", flush=True)
                chosen.kills = 0
            extra = chosen.seed + 100
            while chosen.only != "operations" and (missing := chosen.kills - random_kills(tallies)) > 0:
                print(f"{missing} random kills are missing: another run", flush=True)
                tallies.append(told(pool.apply(run_killed, (groups.DVC, "group", extra, truth, str(server)))))
                extra += 1
    finally:
        disks.unmount(FOLDER)
        shutil.rmtree(FOLDER, ignore_errors=True)
    print(f"\n{table(tallies, time.monotonic() - began)}")
    faults = [one for tally in tallies for one in tally.faults]
    if faults:
        sys.exit("\n".join(["", f"{len(faults)} faults:", *faults]))


def ignore_stops() -> None:
    """Leaves Ctrl-C to the parent of the pool; what is started here must not ignore it."""
    signal.signal(signal.SIGINT, lambda *_: None)


def told(tally: Tally) -> Tally:
    """The tally, after a line about it."""
    print(
        f"{tally.kind}: {tally.equal} of {tally.struck} equal, {tally.seconds:.0f} s", *tally.faults, sep="\n  ", flush=True
    )
    return tally


def random_kills(tallies: Iterable[Tally]) -> int:
    """SIGKILLs at random moments so far."""
    return sum(one.struck for one in tallies if one.kind.startswith("SIGKILL at random"))


if __name__ == "__main__":
    project.pin()
    main()
