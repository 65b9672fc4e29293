"""The text of a plan: a table, its assumptions, its statistical power, and a summary; or the plan as JSON. No torch."""

import json
from collections.abc import Sequence
from typing import Any

from qthink_core.artifacts.store import of_set
from qthink_core.evidence.significance import POWER
from qthink_core.planning import cost, room
from qthink_core.planning.calibration import CPU
from qthink_core.planning.cost import EXTRACTION, SAMPLING, TRAINING
from qthink_core.planning.run_plan import DVC_S, IMPORTS_S, RunPlan, StagePlan, processor
from qthink_core.planning.workload import also

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365.25 * 86400
HEADER = ("stage", "boxes", "tokens", "FLOP", "disk", "memory", "floor", "time", "on", "from")
# Columns of words; the others are numbers and aligned on the right.
TEXT_COLUMNS = {"stage", "on", "from"}
# What a table may take of a terminal's line.
WIDTH = 80
# What a stage spends most of its time on, by the names of cost.Parts.
BOUNDS = {
    "matrix": "matrix products",
    "bytes": "reading bytes of weights, keys and values",
    "launches": "launches of kernels",
    "start": "the start of processes",
    "other": "downloads, files, grading and pages",
}
# Changes that an advice names at most.
CHANGES = 3


def short(n: float, unit: str) -> str:
    """A number with two or three digits: `143 M`, `493 PFLOP`, `2.9 GB`; `-` for 0."""
    if n <= 0:
        return "-"
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        # a number that rounds to 1,000 takes the next prefix
        if n < 999.5 or prefix == "E":
            digits = 1 if n < 9.95 and prefix else 0
            return f"{n:,.{digits}f} {prefix}{unit}".rstrip()
        n /= 1000
    raise AssertionError("the loop returns")


def duration(seconds: float) -> str:
    """A time in one unit with two or three digits, for the table: `45 s`, `12 min`, `3.2 h`, `28 h`, `52 d`, `2.6 y`."""
    for unit, name, end in ((1, "s", MINUTE), (MINUTE, "min", HOUR), (HOUR, "h", 2 * DAY), (DAY, "d", 2 * YEAR)):
        if seconds < end - unit / 2:
            return _digits(seconds / unit, name)
    return _digits(seconds / YEAR, "y")


def _digits(n: float, unit: str) -> str:
    whole = unit in ("s", "min") or n >= 9.95
    return f"{n:,.{0 if whole else 1}f} {unit}"


def roughly(seconds: float) -> str:
    """A time in one unit, for a sentence: `18 min`, `35 h`, `52 days`, `2.4 years`."""
    for unit, name, end in ((1, "s", 2 * MINUTE), (MINUTE, "min", 2 * HOUR), (HOUR, "h", 3 * DAY), (DAY, "days", 2 * YEAR)):
        if seconds < end:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / YEAR:,.1f} years"


def table(plan: RunPlan) -> str:
    """A line for each stage and one for their sum, columns aligned, at most WIDTH characters wide."""
    total = ("total", "", "", "", short(plan.disk, "B"), "", duration(sum(row.floor_s for row in plan.stages)))
    header = [*HEADER[:-2], "GPUs" if plan.gpus > 1 else "on", HEADER[-1]]
    lines = [header, *(_cells(row, plan) for row in plan.stages), (*total, duration(plan.seconds), "", "")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in TEXT_COLUMNS else cell.rjust(width)
            for cell, width, name in zip(line, widths, HEADER, strict=True)
        ).rstrip()
        for line in lines
    )


def _cells(row: StagePlan, plan: RunPlan) -> Sequence[str]:
    busy = f"{row.workers}" if row.fewest == row.workers else f"{row.fewest}-{row.workers}"
    on = "CPU" if row.workers == 0 else busy if plan.gpus > 1 else "GPU"
    source = "log" if row.logged == row.boxes else f"log {row.logged}" if row.logged else "formula"
    floor = duration(row.floor_s) if row.floor_s else "-"
    memory = short(row.memory, "B") + "!" * (row.memory > plan.memory)
    numbers = (short(row.tokens, ""), short(row.flops, ""), short(row.disk, "B"), memory, floor)
    return row.stage, str(row.boxes), *numbers, duration(row.seconds), on, source


def assumptions(plan: RunPlan) -> str:
    """The lengths, problems and efficiencies that the plan assumes, one per line."""
    load = plan.workload
    launch = cost.CPU_LAYER_PASS_S if plan.device == CPU else cost.GPU_LAYER_PASS_S
    lines: dict[str, list[str]] = {}
    for task, one in load.lengths.items():
        text = f"prompt {one.prompt:,.0f}, thought {one.thought:,.0f}, answer {one.answer:,.0f}; "
        text += f"answers to questions {one.thinking:,.0f} with thinking, {one.direct:,.0f} without"
        lines.setdefault(text + (" (from rollouts in this folder)" if task in load.counted else " (assumed)"), []).append(
            task
        )
    sizes: list[str] = []
    unknown: list[str] = []
    for task in load.lengths:
        train, test = load.problems[task, "train"], load.problems[task, load.tree["split"]]
        known = "a training set of unknown size" if train is None else f"{train:,} training problems"
        further = {name: load.problems[task, of_set(name, "test")] for name in also(load.tree, task)}
        sets = "".join(f", {n or 0:,} of {name}" for name, n in further.items())
        sizes.append(f"{task} {known} and {test or 0:,} questions{sets}")
        unknown += [f"the questions of {name}" for name, n in further.items() if n is None]
    made = [
        *(f"Tokens of {', '.join(tasks)}: {text}." for text, tasks in lines.items()),
        f"Problems: {', '.join(sizes)}.",
        "Times in the table are for boxes that start cold, one after another, as `dvc repro` runs them, without DVC's own "
        f"{DVC_S} s a box. `qthink run` starts boxes on the processor warm, which saves up to {IMPORTS_S:.0f} s each.",
        f"Speed as a share of the floor's: sampling {SAMPLING}, extraction {EXTRACTION}, training {TRAINING}; plus the "
        f"time to read the weights, and {launch * 1000:.1f} ms for each layer and pass that Python launches.",
    ]
    made += [bounds(plan), *block_lines(plan)]
    limit = load.tree["train"]["prompt_max_tokens"]
    made += [
        f"Prompts of {task} have {one.prompt:,.0f} tokens on average, and training leaves out those of more than "
        f"train.prompt_max_tokens, {limit:,}."
        for task, one in load.lengths.items()
        if one.prompt > limit
    ]
    counted = sum(row.logged for row in plan.stages)
    if counted or plan.left_out:
        others = ", ".join(f"{n} {reason}" for reason, n in sorted(plan.left_out.items()))
        calibrated = f"Calibrated by the last logged runs of {counted} boxes on this device"
        made.append(calibrated + (f"; logged runs that were not used: {others}." if others else "."))
    missing = [task for task in load.lengths if load.problems[task, "train"] is None]
    unknown = [f"the training problems of {', '.join(missing)}"] * bool(missing) + list(dict.fromkeys(unknown))
    if unknown:
        said = " and ".join(unknown)
        made.append(
            f"{said[0].upper()}{said[1:]} count as 0, because their number is unknown: put the file in place and run "
            "`dvc repro prepare`."
        )
    if plan.workload.tree["device"] == CPU != plan.device:
        made.append(f"params/{plan.scale}.yaml has device: {CPU}; the times assume cuda.")
    return "\n".join(made)


def bounds(plan: RunPlan) -> str:
    """What rules the time of each stage, in one sentence."""
    ruled: dict[str, list[str]] = {}
    for row in plan.stages:
        ruled.setdefault(BOUNDS[row.bound], []).append(row.stage)
    listed = "; ".join(f"{what} in {', '.join(stages)}" for what, stages in ruled.items())
    return f"Most of the time is {listed}."


def block_lines(plan: RunPlan) -> list[str]:
    """What the blocks of rollouts of each task cost with vLLM, one sentence each; tasks of the same figures together."""
    said: dict[str, list[str]] = {}
    for one in room.blocks(plan):
        text = f"{one.problems:,} problems keep {100 * one.busy:.0f} % of {one.places:,.0f} places in use and take "
        text += f"{duration(one.seconds)}, which a kill costs at most; twice as many save "
        text += f"{duration(one.twice_saves_s) if one.twice_saves_s > 0 else 'nothing'}."
        said.setdefault(text, []).append(one.task)
    return [f"Blocks of rollouts with vLLM, {', '.join(tasks)}: {text}" for text, tasks in said.items()]


def summary(plan: RunPlan, free: float, missing: float, instead: RunPlan | None = None) -> str:
    """How long the run takes and whether it fits, in a few sentences.

    `free` bytes are free on this machine's disk, and it lacks `missing` (room.missing_disk). `instead` is the plan on this
    machine's processor, where it has no GPU.
    """
    lines = [f"About {roughly(plan.wall_s)} on {_where(plan)}."]
    if plan.gpus > 1:
        lines.append("Several GPUs share a box with QTHINK_EXECUTOR=ray or QTHINK_LAUNCH: docs/scale.md has the commands.")
    if instead is not None:
        lines.append(f"This machine has no NVIDIA GPU: about {roughly(instead.wall_s)} on {_where(instead)}.")
    large = plan.too_large
    lines += [
        f"{row.stage} may need {short(row.memory, 'B')} of memory where its rows are longest, "
        f"{short(plan.memory, 'B')} are available: {room.remedy(row.stage, plan.workload.tree)}."
        for row in large
    ]
    if not large:
        lines.append(
            f"The memory is enough: {short(max(row.memory for row in plan.stages), 'B')} of {short(plan.memory, 'B')}."
        )
    fits = "fits" if missing <= 0 else "does not fit"
    wanted = short(room.COPIES * plan.disk, "B")
    lines.append(f"On disk {wanted} with DVC's copy, {short(free, 'B')} are free here: it {fits}.")
    return "\n".join(lines)


def advice(plan: RunPlan, changes: Sequence[room.Cheaper]) -> str:
    """The dearest stage with what would make it cheaper, in one sentence each."""
    row = room.dearest(plan)
    said = f"The dearest stage is {row.stage}, {duration(row.seconds)} of {duration(plan.seconds)}"
    if not changes:
        return f"{said}."
    listed = ", or ".join(f"{duration(one.wall_s)} with -S {one.setting}" for one in changes[:CHANGES])
    return f"{said}: the run takes about {listed}."


def cards(plans: Sequence[RunPlan]) -> str:
    """The time of the run on each GPU, and which of them have too little memory for it."""
    times = ", ".join(f"{one.device.upper()} {duration(one.wall_s)}" for one in plans if not one.too_large)
    small = ", ".join(f"{one.device.upper()} ({short(one.memory, 'B')})" for one in plans if one.too_large)
    said = f"On one GPU by the same formulas: {times}." if times else ""
    return f"{said} Too little memory: {small}.".strip() if small else said


def _where(plan: RunPlan) -> str:
    if plan.device == CPU:
        threads = round(processor(plan.workload.tree).peak["float32"] / cost.THREAD_FLOPS)
        where = f"this machine's processor ({threads} {'thread' if threads == 1 else 'threads'} a box"
        return where + (f", {plan.at_once} boxes at once as `qthink run` runs them)" if plan.at_once > 1 else ")")
    other = "" if plan.memory == cost.GPUS[plan.device].memory else f" with {short(plan.memory, 'B')}"
    return (f"one {plan.device.upper()}" if plan.gpus == 1 else f"{plan.gpus} x {plan.device.upper()}") + other


def power_line(plan: RunPlan) -> str:
    """The smallest differences in accuracy that the questions and trainings of the run can detect, with the assumptions."""
    from qthink_core.evidence.power import ASSUMED

    found = ", ".join(
        f"{'none' if one is None else f'{100 * one:.1f} points'} on {task} ({n or 0:,} questions)"
        for task, (n, one) in _powers(plan).items()
    )
    seeds = len(plan.workload.tree["seeds"])
    assumed = f"{100 * ASSUMED.discordant:.0f} % of the questions discordant beyond the difference"
    if seeds > 1:
        assumed += f", {100 * ASSUMED.repeated:.0f} % of that variance shared by all trainings, {100 * ASSUMED.spread:.0f} "
        assumed += "points of standard deviation between trainings"
    trainings = "one training, so about these weights only" if seeds == 1 else f"{seeds} trainings"
    return (
        f"Power: the smallest difference between two systems that {100 * POWER:.0f} % of such runs detect is {found}; "
        f"{trainings}, before Holm's correction. Assumed: {assumed}."
    )


def smallest_differences(plan: RunPlan) -> dict[str, float | None]:
    """The smallest difference in accuracy that is detected with 80 % power, by benchmark; None where no difference is."""
    return {task: one for task, (_, one) in _powers(plan).items()}


def _powers(plan: RunPlan) -> dict[str, tuple[int | None, float | None]]:
    # numpy and scipy take a quarter of a second, and preflight, which imports this module, does not need them
    from qthink_core.evidence.power import smallest_difference

    tree = plan.workload.tree
    sizes = {task: plan.workload.problems[task, tree["split"]] for task in plan.workload.lengths}
    return {task: (n, smallest_difference(n, len(tree["seeds"])) if n else None) for task, n in sizes.items()}


def as_json(plan: RunPlan, changes: Sequence[room.Cheaper] = (), plans: Sequence[RunPlan] = ()) -> str:
    """The plan as JSON in plain units (tokens, FLOP, bytes, seconds), without this machine's disk.

    `changes` and `plans` are what makes the dearest stage cheaper and the same run on other GPUs.
    """
    found: dict[str, Any] = {
        "scale": plan.scale,
        "device": plan.device,
        "gpus": plan.gpus,
        "seconds": plan.seconds,
        "wall_seconds": plan.wall_s,
        "at_once": plan.at_once,
        "disk": plan.disk,
        "memory": plan.memory,
        "too_large": [row.stage for row in plan.too_large],
        "dearest": room.dearest(plan).stage,
        "cheaper": [one._asdict() for one in changes],
        "cards": {one.device: {"wall_seconds": one.wall_s, "too_large": bool(one.too_large)} for one in plans},
        "stages": [row._asdict() | {"parts": row.parts._asdict(), "bound": row.bound} for row in plan.stages],
        "problems": {f"{task} {split}": n for (task, split), n in plan.workload.problems.items()},
        "lengths": {task: one._asdict() for task, one in plan.workload.lengths.items()},
        "smallest_differences": smallest_differences(plan),
    }
    return json.dumps(found, indent=1, allow_nan=False)
