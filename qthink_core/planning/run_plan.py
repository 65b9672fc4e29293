"""The plan of a run: boxes, tokens, FLOPs, bytes and hours of every stage, from params and earlier artifacts. No torch.

stage_costs.py has the cost of a box. This module sums the costs, turns them into time on a device, and scales them by the
times of earlier runs.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.errors import ParamError
from qthink_core.pipeline import graph
from qthink_core.pipeline.graph import Box
from qthink_core.planning import calibration, cost, progress, schedule
from qthink_core.planning.calibration import CPU
from qthink_core.planning.cost import Compute, Device
from qthink_core.planning.settings import checked_with
from qthink_core.planning.stage_costs import COSTS, BoxCost
from qthink_core.planning.workload import Workload, size_of, workload_of

DEVICES = (*cost.GPUS, CPU)

# Seconds that a box takes before its work: without torch, with torch and a model, on a GPU (assumed, the others measured).
LIGHT_S, LOADING_S, GPU_LOADING_S = 0.6, 6.0, 30.0
# Of those, the imports of torch, transformers and PEFT, which the warm server of `qthink run` saves on the processor.
IMPORTS_S = 5.0
# DVC's own seconds for a box, mostly for reading and writing dvc.lock (docs/decisions/engineering.md, Code in the graph).
DVC_S = 0.74

# Stages in which one box can keep several GPUs busy: units go to Ray's workers, micro-batches and shards to the ranks of a
# launcher.
SHARED = {"sample", "extract", "finetune", "train", "baseline", "evaluate"}


class StagePlan(NamedTuple):
    """A stage in the plan: sums over its boxes, the largest memory of a box, and seconds of all boxes one after another.

    `seconds` assumes cold starts, as in `dvc repro`; `warm_saves` is the time that `qthink run` saves. `workers`: how many
    GPUs a box keeps busy, 0 for a stage that runs on the processor; `fewest`: the smallest such number where boxes differ;
    `logged`: the number of boxes with a run in the log. `parts`: what the formulas spend the seconds of all boxes on, before
    any calibration; `bound`: the name of the largest part.
    """

    stage: str
    boxes: int
    tokens: float
    flops: float
    disk: float
    memory: float
    floor_s: float
    seconds: float
    warm_saves: float
    workers: int
    fewest: int
    logged: int
    parts: cost.Parts

    @property
    def bound(self) -> str:
        """What rules the time of the stage."""
        return self.parts.bound


class RunPlan(NamedTuple):
    """The stages in the order of the graph, the workload that they were computed from, and logged runs left out, by reason.

    `memory`: the device's, in bytes. `at_once`: how many boxes `qthink run` runs side by side on a processor; on GPUs it is
    1. `needs`: the boxes that each box waits for.
    """

    scale: str
    device: str
    gpus: int
    memory: float
    at_once: int
    workload: Workload
    stages: list[StagePlan]
    left_out: dict[str, int]
    needs: dict[str, frozenset[str]]

    @property
    def means(self) -> dict[str, float]:
        """Mean seconds of a stage's boxes in `qthink run`, without DVC's own."""
        return {row.stage: (row.seconds - row.warm_saves) / row.boxes for row in self.stages if row.boxes}

    @property
    def seconds(self) -> float:
        """Seconds of all boxes, started cold one after the other, without DVC's own."""
        return sum(row.seconds for row in self.stages)

    @property
    def wall_s(self) -> float:
        """Seconds until `qthink run` ends, boxes side by side and DVC's own seconds included."""
        expected = {box: self.means[Box.parse(box).stage] + DVC_S for box in self.needs}
        return progress.Estimate(expected, self.needs, self.at_once).left(progress.Rest(expected.keys(), {}))

    @property
    def disk(self) -> float:
        """Bytes of all outputs, without DVC's copy of them."""
        return sum(row.disk for row in self.stages)

    @property
    def too_large(self) -> list[StagePlan]:
        """The stages whose largest box needs more memory than the device has."""
        return [row for row in self.stages if row.memory > self.memory]


def plan_run(
    root: Path,
    scale: str | None,
    device: str | None,
    gpus: int,
    memory: float | None = None,
    settings: Sequence[str] = (),
) -> RunPlan:
    """The plan of the repository in `root`, at the scale of params.yaml or at another, on a named device.

    `memory`: bytes in place of those that the device has. Without a name, the device is that of the scale: the processor, or
    the GPU that `card` chooses. `settings` are those of the command line (settings.checked_with). Raises ParamError at an
    unknown scale, device, setting or stage, and with every fault of the params files.
    """
    tree = checked_with(root, scale, settings)
    name = device.casefold() if device is not None else (CPU if tree["device"] == CPU else card(memory))
    if name not in DEVICES:
        raise ParamError(f"--device is {device!r:.80}: expected one of {', '.join(DEVICES)}")
    if gpus < 1 or (name == CPU and gpus > 1):
        raise ParamError(f"--gpus is {gpus}: expected 1 or more; leave it out with --device {CPU}")
    if memory is not None and not 0 < memory < math.inf:
        raise ParamError(f"--memory is {memory / 1e9:g}: expected the GB of the device, more than 0")
    return plan_tree(root, tree, name, gpus, memory)


def card(memory: float | None) -> str:
    """The first GPU of the table; for a memory, the fastest that has it or comes closest from below, or the smallest."""
    if memory is None:
        return next(iter(cost.GPUS))
    least = min(one.memory for one in cost.GPUS.values())
    fitting = [name for name, one in cost.GPUS.items() if one.memory <= max(memory, least)]
    return max(fitting, key=lambda name: (cost.GPUS[name].memory, cost.GPUS[name].bandwidth))


def plan_tree(root: Path, tree: Mapping[str, Any], name: str, gpus: int, memory: float | None = None) -> RunPlan:
    """The plan of checked parameters on a device of DEVICES; raises ParamError at a stage or base model that is unknown."""
    stages = graph.stages(root)
    require_costs(stages)
    boxes = schedule.first_outputs(root, tree)
    on = processor(tree) if name == CPU else cost.GPUS[name]
    held = memory or on.memory
    load = workload_of(root, tree, boxes)._replace(room=held, seats=on.seats)
    log = calibration.read_log(root, tree["scale"], name)
    ratios = measured(log.runs, load, boxes, name)
    rows = [plan_stage(one, [at for at in boxes if at.stage == one], load, name, gpus, ratios) for one in stages]
    largest = max(row.memory for row in rows)
    at_once = schedule.side_by_side(tree["cpu_threads"], held / largest) if name == CPU else 1
    return RunPlan(tree["scale"], name, gpus, held, at_once, load, rows, log.left_out, schedule.edges(root, tree))


class Demands(NamedTuple):
    """Bytes of all outputs, and bytes of the device's memory for the largest box of each stage that computes there."""

    disk: float
    memory: dict[str, float]


def demands_of(root: Path, tree: Mapping[str, Any]) -> Demands:
    """The disk and device memory that parameters demand; raises ParamError where the base model's shape is unknown."""
    require_costs(graph.stages(root))
    boxes = schedule.first_outputs(root, tree)
    load = workload_of(root, tree, boxes)
    costs = [(at.stage, COSTS[at.stage](load, at)) for at in boxes]
    memory: dict[str, float] = {}
    for name, one in costs:
        if one.gpu:
            memory[name] = max(one.memory, memory.get(name, 0.0))
    return Demands(sum(one.disk for _, one in costs), memory)


def require_costs(stages: Iterable[str]) -> None:
    """Raises ParamError at a stage of dvc.yaml whose cost is unknown."""
    unknown = sorted(set(stages) - set(COSTS))
    if unknown:
        raise ParamError(f"dvc.yaml has stage {unknown[0]}, whose cost is unknown: give it a function in stage_costs")


def measured(runs: Mapping[str, calibration.Logged], load: Workload, boxes: Iterable[Box], device: str) -> dict[str, float]:
    """Measured over estimated seconds of each logged box; the estimate uses the parameters that it ran with."""
    before: Mapping[str, Any] = load.tree
    for one in runs.values():
        before = calibration.with_params(before, one.params)
    ratios = {}
    for at in boxes:
        if str(at) in runs:
            tree = calibration.with_params(before, runs[str(at)].params)
            sizes = {
                (task, split): size
                if (size := size_of(tree["prepare"], tree["data"][task], split, {})) is not None
                else known
                for (task, split), known in load.problems.items()
                if split in ("train", "test")
            }
            old = load._replace(tree=tree, problems=dict(load.problems) | sizes)
            ratios[str(at)] = runs[str(at)].seconds / box_seconds(COSTS[at.stage](old, at), old, device)
    return ratios


def processor(tree: Mapping[str, Any]) -> Device:
    """This machine's processor with the threads that params ask for, at most as many as it has."""
    return cost.cpu(min(tree["cpu_threads"], os.cpu_count() or 1), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def box_parts(box: BoxCost, load: Workload, device: str) -> cost.Parts:
    """Estimated seconds of a box that starts cold by what they are spent on, before any calibration."""
    on_gpu = box.gpu and device != CPU
    on = cost.GPUS[device] if on_gpu else processor(load.tree)
    start = GPU_LOADING_S if on_gpu else LIGHT_S if box.light else LOADING_S
    return cost.parts(box.compute, on, load.tree["dtype"], box.efficiency) + cost.Parts(start=start, other=box.other_s)


def box_seconds(box: BoxCost, load: Workload, device: str) -> float:
    """Estimated seconds of a box that starts cold, before any calibration."""
    return sum(box_parts(box, load, device))


def plan_stage(
    name: str, boxes: Sequence[Box], load: Workload, device: str, gpus: int, ratios: Mapping[str, float]
) -> StagePlan:
    """A stage whose boxes run one after another, as DVC runs them, each on as many GPUs as it has units and can share.

    A box is done when the GPU with most units is.
    """
    costs = [COSTS[name](load, at) for at in boxes]
    times = [
        box_seconds(one, load, device) * calibration.factor(ratios, str(at)) for at, one in zip(boxes, costs, strict=True)
    ]
    on_gpu = device != CPU and any(one.gpu for one in costs)
    shares = [min(gpus, max(one.units, 1)) if on_gpu and name in SHARED else 1 for one in costs]
    most = [-(-max(one.units, 1) // share) / max(one.units, 1) for one, share in zip(costs, shares, strict=True)]
    # a box of unknown size has no units, so the number of GPUs that it can use is unknown
    dealt = [share for share, one in zip(shares, costs, strict=True) if one.units] or [1]
    alone = GPU_LOADING_S if on_gpu else 0.0
    on = cost.GPUS[device] if on_gpu else processor(load.tree)
    floors = [cost.floor_s(one.compute, on, load.tree["dtype"]) for one in costs]
    compute = sum((one.compute for one in costs), Compute())
    # the time of a logged box already includes its start, warm or cold
    cold = [at for at, one in zip(boxes, costs, strict=True) if not one.light and str(at) not in ratios]
    return StagePlan(
        name,
        len(boxes),
        compute.tokens,
        compute.flops,
        sum(one.disk for one in costs),
        max((one.memory for one in costs), default=0.0),
        sum(floor / share for floor, share in zip(floors, shares, strict=True)),
        sum(alone + (time - alone) * share for time, share in zip(times, most, strict=True)),
        IMPORTS_S * len(cold) if device == load.tree["device"] == CPU else 0.0,
        max(dealt) if on_gpu else 0,
        min(dealt) if on_gpu else 0,
        sum(str(at) in ratios for at in boxes),
        sum((box_parts(one, load, device) for one in costs), cost.Parts()),
    )
