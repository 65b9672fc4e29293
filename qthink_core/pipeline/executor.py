"""Executors: which processes make the units of a stage. The environment selects one; all give the same output.

`here`: this process, one unit after another. `ranks`: the processes of a launcher, each with a share of the units. `ray`:
the workers of a Ray cluster, which get units as they become free (ray_workers.py).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from qthink_core.artifacts.files import Writer
from qthink_core.artifacts.store import Work
from qthink_core.errors import ParamError
from qthink_core.pipeline import ranks

HERE, RANKS, RAY = "here", "ranks", "ray"
# A unit that was made: its files by name, and its counts.
Made = tuple[Mapping[str, Writer | bytes], Mapping[str, int]]
# make(unit, payload); a maker loads what its units need, such as the model, and releases it at its end.
Make = Callable[[str, Any], Made]
Maker = Callable[[], AbstractContextManager[Make]]
Show = Callable[[Iterable[tuple[str, Made]], int], Iterable[tuple[str, Made]]]


def chosen() -> str:
    """The executor: `ranks` under a launcher, else what QTHINK_EXECUTOR says; raises ParamError for an unknown one."""
    text = os.environ.get("QTHINK_EXECUTOR", HERE)
    if text not in (HERE, RAY):
        raise ParamError(f"QTHINK_EXECUTOR is {text!r}: choose {HERE} (this process) or {RAY} (workers of a Ray cluster)")
    return RANKS if ranks.world() > 1 else text


def run(maker: Maker, plan: Mapping[str, Any], work: Work, show: Show, device: str) -> list[str]:
    """Commits the missing units of the plan, and returns the names of all its units in order.

    `plan` maps the name of each unit to its payload, which is small and can be sent to another process. `maker` can be sent
    too: each process that makes units opens it once, and none opens it if no unit is missing. Units may be committed in any
    order, but are published in the order of the plan. No unit may depend on another one. Under a launcher each rank commits
    its own share and returns when all ranks have done so; only rank 0 may publish.
    """
    how = chosen()
    missing = {name: payload for name, payload in plan.items() if not work.done(name)}
    if how == RANKS:
        # all ranks must see the same list of missing units, so no rank may commit before all have listed them
        ranks.barrier()
        missing = share(missing, ranks.rank(), ranks.world())
    for name, (files, counts) in show(_made(how, maker, missing, work, device), len(missing)):
        work.commit(name, files, counts)
    if how == RANKS:
        ranks.barrier()
    return list(plan)


def share(units: Mapping[str, Any], rank: int, world: int) -> dict[str, Any]:
    """The units of one rank: every `world`-th unit, starting with number `rank`."""
    return {name: payload for number, (name, payload) in enumerate(units.items()) if number % world == rank}


def _made(how: str, maker: Maker, units: Mapping[str, Any], work: Work, device: str) -> Iterator[tuple[str, Made]]:
    if not units:
        return
    if how == RAY:
        from qthink_core.pipeline import ray_workers

        yield from ray_workers.made(maker, units, work.folder, device)
    else:
        with maker() as make:
            for name, payload in units.items():
                yield name, make(name, payload)
