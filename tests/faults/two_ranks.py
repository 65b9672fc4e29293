"""Stages of two ranks, of which either is killed: the other must end and name what happened, and the next run go on."""

import socket
import time
from collections.abc import Callable

from faults.injection import kill_at_exchange
from faults.operations import STOPPED, Tally, goes_on, units
from faults.project import Ended, Project

from qthink_core.pipeline.graph import Box

ENDS_WITHIN_S = 60.0


def run(project: Project, box: Box, before: dict[int, Callable[[], None]] | None = None) -> list[Ended]:
    """How both ranks of a box ended."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    meeting |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    started = [
        project.start(box, (before or {}).get(rank, lambda: None), RANK=str(rank), LOCAL_RANK=str(rank), **meeting)
        for rank in (0, 1)
    ]
    return [project.ended(*one) for one in started]


def kills(project: Project, box: Box, start: int = 1, stride: int = 1) -> Tally:
    """SIGKILL of rank 0, and then of rank 1, at every `stride`-th exchange of tensors."""
    tally, began = Tally("SIGKILL of one of two ranks", cases=1), time.monotonic()
    project.reset(box)
    if any(one.code for one in run(project, box)):
        raise RuntimeError(f"{box} fails under two ranks though nothing disturbed it")
    truth = project.tree(box)
    for rank in (0, 1):
        number = start
        while True:
            project.reset(box)
            where = f"{box}: rank {rank} killed at exchange {number}"
            both = run(project, box, {rank: kill_at_exchange(number)})
            if both[rank].code == 0:
                break
            tally.struck += 1
            other = both[1 - rank]
            if other.code not in (0, STOPPED) or "Traceback" in other.said or other.seconds > ENDS_WITHIN_S:
                tally.faults.append(
                    f"{where}: the other ended with {other.code} in {other.seconds:.0f} s: {other.said[-600:]}"
                )
            tally.resumed += goes_on(box, units(project.work(box)))
            project.remove_outs(box)
            again = run(project, box)
            if any(one.code for one in again) or project.tree(box) != truth:
                tally.faults.append(f"{where}: the next run ended with {[one.code for one in again]} or in other bytes")
            else:
                tally.equal += 1
            number += stride
    tally.seconds = time.monotonic() - began
    return tally
