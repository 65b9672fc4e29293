"""The plan of a run: boxes, tokens, FLOPs, bytes and hours of every stage, from params and what was made here. No torch.

What a stage costs is in stage_costs.py. Here it is summed, put on a device, and scaled by what earlier runs took.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.benchmarks.graders import grader
from qthink_core.errors import ParamError
from qthink_core.models.base_source import Base
from qthink_core.pipeline import checks, graph, parameters, stage
from qthink_core.pipeline.graph import Box
from qthink_core.planning import calibration, cost, progress, schedule, shapes
from qthink_core.planning.cost import Device, Work
from qthink_core.planning.stage_costs import COSTS, GENERATED, PAPER, PUBLISHED_PROMPTS, BoxCost, Lengths, Run

CPU = "cpu"
DEVICES = (*cost.GPUS, CPU)

# Training sets whose files have no record on the benchmark's page; Tooluse's is of unknown size.
TRAINING_SETS = {"math500": 12000}  # PRM800K's split of MATH

# Seconds that a box takes before its work: without torch, with it and a model, and on a GPU (assumed, the others measured).
LIGHT_S, LOADING_S, GPU_LOADING_S = 0.6, 6.0, 30.0
# DVC's own seconds a box, mostly those of reading and writing dvc.lock (docs/decisions.md, Code in the graph).
DVC_S = 0.74

# Stages of which one box can keep several GPUs busy: units dealt to Ray's workers, micro-batches and shards to a launcher's
# ranks.
SHARED = {"sample", "extract", "finetune", "train", "baseline", "evaluate"}


class Row(NamedTuple):
    """A stage in the plan: sums over its boxes, the largest memory of one, and seconds of all, one after the other.

    `workers`: how many GPUs a box keeps busy, 0 for a stage of the processor; `fewest`: the least that one
    does, where boxes differ; `logged`: boxes with a run on record.
    """

    stage: str
    boxes: int
    tokens: float
    flops: float
    disk: float
    memory: float
    floor_s: float
    seconds: float
    workers: int
    fewest: int
    logged: int


class Plan(NamedTuple):
    """The rows from left to right of the graph, and what they were reckoned with; logged runs left out, by reason.

    `at_once`: how many boxes `make demo` runs side by side on a processor; on GPUs it is 1. `needs`: the boxes that each
    waits for.
    """

    scale: str
    device: str
    gpus: int
    at_once: int
    run: Run
    rows: list[Row]
    left_out: dict[str, int]
    needs: dict[str, frozenset[str]]

    @property
    def means(self) -> dict[str, float]:
        """Mean seconds of a stage's boxes."""
        return {row.stage: row.seconds / row.boxes for row in self.rows if row.boxes}

    @property
    def seconds(self) -> float:
        """Seconds of all boxes, one after the other, without DVC's own."""
        return sum(row.seconds for row in self.rows)

    @property
    def wall_s(self) -> float:
        """Seconds until the run ends, boxes side by side and DVC's own seconds included."""
        expected = {box: self.means[Box.parse(box).stage] + DVC_S for box in self.needs}
        return progress.Estimate(expected, self.needs, self.at_once).left(progress.Rest(expected.keys(), {}))

    @property
    def disk(self) -> float:
        """Bytes of all outputs, without DVC's copy of them."""
        return sum(row.disk for row in self.rows)


def make(root: Path, scale: str | None, device: str | None, gpus: int) -> Plan:
    """The plan of the repository in `root`, of its own scale or of another, on a named device.

    Raises ParamError at an unknown scale or device and with every fault of the params files.
    """
    tree = checked(root, scale)
    name = device or (CPU if tree["device"] == CPU else next(iter(cost.GPUS)))
    if name not in DEVICES:
        raise ParamError(f"--device is {name!r}: expected one of {', '.join(DEVICES)}")
    if gpus < 1 or (name == CPU and gpus > 1):
        raise ParamError(f"--gpus is {gpus}: expected 1 or more GPUs, and none beside --device {CPU}")
    stages = graph.stages(root)
    boxes = boxes_of(stages, tree)
    run = planned(root, tree, boxes)
    log = calibration.logged(root, tree["scale"], name)
    ratios = measured(log.runs, run, boxes, name)
    rows = [row_of(one, [at for at in boxes if at.stage == one], run, name, gpus, ratios) for one in stages]
    largest = max(row.memory for row in rows)
    at_once = schedule.side_by_side(tree["cpu_threads"], machine(tree).memory / largest) if name == CPU else 1
    return Plan(tree["scale"], name, gpus, at_once, run, rows, log.left_out, schedule.edges(root, tree))


class Needs(NamedTuple):
    """Bytes of all outputs, and of the device's memory for the largest box of each stage that computes there."""

    disk: float
    memory: dict[str, float]


def needs(root: Path, tree: Mapping[str, Any]) -> Needs:
    """What checked parameters ask of disk and device; raises ParamError where the base model's shape is not known."""
    boxes = boxes_of(graph.stages(root), tree)
    run = planned(root, tree, boxes)
    costs = [(at.stage, COSTS[at.stage](run, at)) for at in boxes]
    memory: dict[str, float] = {}
    for name, one in costs:
        if one.gpu:
            memory[name] = max(one.memory, memory.get(name, 0.0))
    return Needs(sum(one.disk for _, one in costs), memory)


def boxes_of(stages: Mapping[str, Mapping[str, Any]], tree: Mapping[str, Any]) -> dict[Box, Path]:
    """Every box of the graph with the first folder or file that it makes; raises ParamError at a stage of unknown cost."""
    unknown = sorted(set(stages) - set(COSTS))
    if unknown:
        raise ParamError(f"dvc.yaml has stage {unknown[0]}, whose cost is not known: give it a function in stage_costs")
    return {at: out_of(entry, at, tree) for one, entry in stages.items() for at in graph.boxes(one, entry, tree)}


def checked(root: Path, scale: str | None) -> dict[str, Any]:
    """The parameters of a scale, without a fault; raises ParamError with every one, a line each."""
    common = parameters.read_yaml(root / "params.yaml")
    if scale is None or scale == common.get("scale"):
        tree, origin = parameters.load(root)
    else:
        scales = sorted(path.stem for path in (root / "params").glob("*.yaml"))
        if scale not in scales:
            raise ParamError(f"--scale is {scale!r}: expected one of {', '.join(scales)}")
        file = f"params/{scale}.yaml"
        sized = parameters.read_yaml(root / file)
        origin = dict.fromkeys(parameters.leaves(common), "params.yaml") | dict.fromkeys(parameters.leaves(sized), file)
        tree = calibration.with_params(common | {"scale": scale}, sized)
    found = checks.faults(tree, origin, stage.stage_sections())
    if found:
        raise ParamError("\n".join(found))
    return tree


def out_of(entry: Mapping[str, Any], at: Box, tree: Mapping[str, Any]) -> Path:
    """The first folder or file that a box makes."""
    out = entry["outs"][0]
    return Path(graph.resolve(out if isinstance(out, str) else next(iter(out)), at, tree))


def planned(root: Path, tree: Mapping[str, Any], boxes: Mapping[Box, Path]) -> Run:
    """The run with the lengths that a run of the same base model left behind, else with those that are assumed."""
    source = Base.model_validate(tree["base"])
    same = made_base(root, boxes, source)
    shape = shapes.of_base(source, same)
    counts = {at: calibration.counts(root / path) if same else {} for at, path in boxes.items()}
    generated = {
        (at.task, at.system): found["tokens"] / found["answers"]
        for at, found in counts.items()
        if at.stage in ("baseline", "evaluate") and found.get("answers")
    }
    problems: dict[tuple[str, str], int | None] = {}
    lengths: dict[str, Lengths] = {}
    counted: set[str] = set()
    for task in tree["tasks"]:
        known = counts.get(Box("prepare", task), {})
        problems |= {(task, split): size_of(tree["prepare"], task, split, known) for split in ("train", "test")}
        problems[task, "validation"] = tree["prepare"]["n_validation"]
        assumed = GENERATED if source.pretrain else PAPER
        if tree["prepare"]["source"] != "generated":
            assumed = assumed._replace(prompt=PUBLISHED_PROMPTS.get(task, assumed.prompt))
        mean = with_counts(assumed, task, tree, counts, generated)
        counted |= {task} if mean != assumed else set()
        lengths[task] = within(mean, tree["sample"]["max_new_tokens"])
    return Run(tree, shape, lengths, problems, generated, frozenset(counted))


def made_base(root: Path, boxes: Mapping[Box, Path], source: Base) -> Path | None:
    """The folder of the base model that was made from this source; None where there is none, or another model's."""
    made = root / next(path for at, path in boxes.items() if at.stage == "base")
    return made if calibration.about(made).get("source") == source.source else None


def size_of(prepare: Mapping[str, Any], task: str, split: str, known: Mapping[str, int]) -> int | None:
    """Problems of a split: as params say, as published less what validation takes, or as prepared; None: nobody knows."""
    wanted = prepare[f"n_{split}"]
    if wanted != "all":
        return int(wanted)
    file = grader(task).FILES.get(split)
    published = file.records if file else TRAINING_SETS.get(task)
    if published is None:
        return known.get(split)
    return max(published - (prepare["n_validation"] if split == "train" else 0), 0)


def with_counts(
    assumed: Lengths,
    task: str,
    tree: Mapping[str, Any],
    counts: Mapping[Box, Mapping[str, int]],
    generated: Mapping[tuple[str, str], float],
) -> Lengths:
    """The lengths with the mean completion of the rollouts made here, and an answer of the base model without thinking."""
    rollouts = counts.get(Box("sample", task), {})
    if not rollouts.get("rollouts"):
        return assumed
    both = rollouts["tokens"] / rollouts["rollouts"]
    plain = [name for name, one in tree["systems"]["baseline"].items() if not one["thinking"]]
    direct = next((generated[task, name] for name in plain if (task, name) in generated), None)
    answer = min(assumed.answer if direct is None else direct, both)
    spoken = assumed.direct if direct is None else direct
    return assumed._replace(thought=both - answer, answer=answer, thinking=both, direct=spoken)


def within(lengths: Lengths, limit: int) -> Lengths:
    """The lengths when no rollout has more tokens than a limit; the thought comes first."""
    thought = min(lengths.thought, limit)
    return lengths._replace(thought=thought, answer=min(lengths.answer, limit - thought))


def measured(runs: Mapping[str, calibration.Logged], run: Run, boxes: Mapping[Box, Path], device: str) -> dict[str, float]:
    """Measured by estimated seconds of the boxes that were logged here, each estimated with the parameters it ran with."""
    before: Mapping[str, Any] = run.tree
    for one in runs.values():
        before = calibration.with_params(before, one.params)
    ratios = {}
    for at in boxes:
        if str(at) in runs:
            tree = calibration.with_params(before, runs[str(at)].params)
            sizes = {
                (task, split): size if (size := size_of(tree["prepare"], task, split, {})) is not None else known
                for (task, split), known in run.problems.items()
                if split != "validation"
            }
            old = run._replace(tree=tree, problems=dict(run.problems) | sizes)
            ratios[str(at)] = runs[str(at)].seconds / box_seconds(COSTS[at.stage](old, at), old, device)
    return ratios


def machine(tree: Mapping[str, Any]) -> Device:
    """This machine's processor, on as many threads as params ask for and it has."""
    return cost.cpu(min(tree["cpu_threads"], os.cpu_count() or 1), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def box_seconds(box: BoxCost, run: Run, device: str) -> float:
    """Estimated seconds of a box, where nothing was measured."""
    if box.gpu and device != CPU:
        work = cost.seconds(box.work, cost.GPUS[device], run.tree["dtype"], box.efficiency)
        return GPU_LOADING_S + work + box.other_s
    work = cost.seconds(box.work, machine(run.tree), run.tree["dtype"], box.efficiency)
    return (LIGHT_S if box.light else LOADING_S) + work + box.other_s


def row_of(name: str, boxes: Sequence[Box], run: Run, device: str, gpus: int, ratios: Mapping[str, float]) -> Row:
    """A stage's row: its boxes run one after another, as DVC runs them, each on as many GPUs as it has units for, where the
    stage can.
    """
    costs = [COSTS[name](run, at) for at in boxes]
    times = [
        box_seconds(one, run, device) * calibration.factor(ratios, str(at)) for at, one in zip(boxes, costs, strict=True)
    ]
    on_gpu = device != CPU and any(one.gpu for one in costs)
    shares = [min(gpus, max(one.units, 1)) if on_gpu and name in SHARED else 1 for one in costs]
    # a box of unknown size has nothing to deal, and says nothing
    dealt = [share for share, one in zip(shares, costs, strict=True) if one.units] or [1]
    alone = GPU_LOADING_S if on_gpu else 0.0
    on = cost.GPUS[device] if on_gpu else machine(run.tree)
    floors = [cost.floor_s(one.work, on, run.tree["dtype"]) for one in costs]
    work = sum((one.work for one in costs), Work())
    return Row(
        name,
        len(boxes),
        work.tokens,
        work.flops,
        sum(one.disk for one in costs),
        max((one.memory for one in costs), default=0.0),
        sum(floor / share for floor, share in zip(floors, shares, strict=True)),
        sum(alone + (time - alone) / share for time, share in zip(times, shares, strict=True)),
        max(dealt) if on_gpu else 0,
        min(dealt) if on_gpu else 0,
        sum(str(at) in ratios for at in boxes),
    )
