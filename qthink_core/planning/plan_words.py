"""A plan in words: a table that a person reads, what it assumes, and a verdict; and the same as JSON. No torch."""

import json
from collections.abc import Sequence
from typing import Any

from qthink_core.planning import cost
from qthink_core.planning.cost import EXTRACTION, SAMPLING, TRAINING
from qthink_core.planning.plan import CPU, DVC_S, Plan, Row, machine

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365.25 * 86400
HEADER = ("stage", "boxes", "tokens", "FLOP", "disk", "memory", "floor", "time", "on", "from")
# Columns of words; the others are figures, set to the right.
WORDS = {"stage", "on", "from"}
# DVC keeps a second copy of every output where the file system cannot share blocks.
COPIES = 2


def short(n: float, unit: str) -> str:
    """A figure with two or three digits: `143 M`, `493 PFLOP`, `2.9 GB`; `-` for nothing."""
    if n <= 0:
        return "-"
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        # what rounds to 1,000 belongs to the next prefix
        if n < 999.5 or prefix == "E":
            digits = 1 if n < 9.95 and prefix else 0
            return f"{n:,.{digits}f} {prefix}{unit}".rstrip()
        n /= 1000
    raise AssertionError("the loop returns")


def duration(seconds: float) -> str:
    """A time in its two largest units: `45 s`, `12 min`, `3 h 12 min`, `2 d 4 h`, `52 d`, `2.6 years`."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR - 30:
        return f"{seconds / MINUTE:.0f} min"
    if seconds < 2 * DAY:
        return _two(seconds, HOUR, "h", MINUTE, "min")
    if seconds < 10 * DAY:
        return _two(seconds, DAY, "d", HOUR, "h")
    return f"{seconds / DAY:,.0f} d" if seconds < 2 * YEAR else f"{seconds / YEAR:,.1f} years"


def roughly(seconds: float) -> str:
    """A time in one unit, for a sentence: `18 min`, `35 h`, `52 days`, `2.4 years`."""
    for unit, name, end in ((1, "s", 2 * MINUTE), (MINUTE, "min", 2 * HOUR), (HOUR, "h", 3 * DAY), (DAY, "days", 2 * YEAR)):
        if seconds < end:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / YEAR:,.1f} years"


def _two(seconds: float, large: int, its: str, small: int, other: str) -> str:
    whole, rest = divmod(round(seconds / small), large // small)
    return f"{whole} {its} {rest} {other}" if rest else f"{whole} {its}"


def table(plan: Plan) -> str:
    """The rows and their sum, columns aligned."""
    total = ("total", "", "", "", short(plan.disk, "B"), "", duration(sum(row.floor_s for row in plan.rows)))
    lines = [HEADER, *(_cells(row, plan) for row in plan.rows), (*total, duration(plan.seconds), "", "")]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in WORDS else cell.rjust(width)
            for cell, width, name in zip(line, widths, HEADER, strict=True)
        ).rstrip()
        for line in lines
    )


def _cells(row: Row, plan: Plan) -> Sequence[str]:
    busy = f"{row.workers}" if row.fewest == row.workers else f"{row.fewest}-{row.workers}"
    on = "CPU" if row.workers == 0 else f"{busy} of {plan.gpus} GPUs" if plan.gpus > 1 else "GPU"
    reckoned = "log" if row.logged == row.boxes else f"log ({row.logged})" if row.logged else "formula"
    floor = duration(row.floor_s) if row.floor_s else "-"
    figures = (short(row.tokens, ""), short(row.flops, "FLOP"), short(row.disk, "B"), short(row.memory, "B"), floor)
    return row.stage, str(row.boxes), *figures, duration(row.seconds), on, reckoned


def assumptions(plan: Plan) -> str:
    """The lengths, problems and efficiencies that the figures rest on, a line each."""
    run = plan.run
    lines: dict[str, list[str]] = {}
    for task, one in run.lengths.items():
        said = f"prompt {one.prompt:,.0f}, thought {one.thought:,.0f}, answer {one.answer:,.0f}; "
        said += f"answers to questions {one.thinking:,.0f} with thinking, {one.direct:,.0f} without"
        lines.setdefault(said + (" (rollouts made here)" if task in run.counted else " (assumed)"), []).append(task)
    sizes = []
    for task in run.lengths:
        train, test = run.problems[task, "train"], run.problems[task, run.tree["split"]]
        known = "a training set of unknown size" if train is None else f"{train:,} training problems"
        sizes.append(f"{task} {known} and {test or 0:,} questions")
    made = [
        *(f"Tokens of {', '.join(tasks)}: {said}." for said, tasks in lines.items()),
        f"Problems: {', '.join(sizes)}.",
        f"Times of the table are those of one box after the other; DVC's own, {DVC_S} s a box, come on top.",
        f"Speed against the floor: sampling {SAMPLING}, extraction {EXTRACTION}, training {TRAINING}; then the weights and "
        f"{cost.LAYER_PASS_S * 1000:.1f} ms a layer and pass.",
    ]
    limit = run.tree["train"]["prompt_max_tokens"]
    made += [
        f"Prompts of {task} have {one.prompt:,.0f} tokens on average, and training leaves out those of more than "
        f"train.prompt_max_tokens, {limit:,}."
        for task, one in run.lengths.items()
        if one.prompt > limit
    ]
    counted = sum(row.logged for row in plan.rows)
    if counted or plan.left_out:
        others = ", ".join(f"{n} {reason}" for reason, n in sorted(plan.left_out.items()))
        calibrated = f"Calibrated by the last runs of {counted} boxes on this device, as logged here"
        made.append(calibrated + (f"; runs that do not count: {others}." if others else "."))
    missing = [task for task in run.lengths if run.problems[task, "train"] is None]
    if missing:
        made.append(
            f"What {', '.join(missing)} trains on counts as nothing here: its size is on no record; put the file in place "
            "and run `dvc repro prepare`."
        )
    if plan.run.tree["device"] == CPU != plan.device:
        made.append(f"params/{plan.scale}.yaml has device: {CPU}; the times are as if it said cuda.")
    return "\n".join(made)


def verdict(plan: Plan, free: int, instead: Plan | None = None) -> str:
    """How long it takes and whether it fits, in a few sentences; `free` bytes are left on this machine's disk.

    `instead` is the plan on this machine's processor, where it has no such GPU.
    """
    said = [f"About {roughly(plan.wall_s)} on {_where(plan)}."]
    if plan.gpus > 1:
        said.append(
            "Several GPUs work on one box under QTHINK_EXECUTOR=ray and QTHINK_LAUNCH: docs/scale.md has the commands."
        )
    if instead is not None:
        said.append(f"This machine has no NVIDIA GPU: about {roughly(instead.wall_s)} on {_where(instead)}.")
    available = machine(plan.run.tree).memory if plan.device == CPU else cost.GPUS[plan.device].memory
    large = [row for row in plan.rows if row.memory > available]
    for row in large:
        fix = "train.micro_batch" if row.stage in ("finetune", "train") else "its batch"
        said.append(
            f"{row.stage} may need {short(row.memory, 'B')} of memory where its rows are longest, "
            f"{short(available, 'B')} are there: lower {fix}."
        )
    if not large:
        said.append(f"Memory suffices: {short(max(row.memory for row in plan.rows), 'B')} of {short(available, 'B')}.")
    wanted = COPIES * plan.disk
    fits = "fits" if wanted <= free else "does not fit"
    said.append(f"On disk {short(wanted, 'B')} with DVC's copy, {short(free, 'B')} are free here: it {fits}.")
    return "\n".join(said)


def _where(plan: Plan) -> str:
    if plan.device == CPU:
        threads = round(machine(plan.run.tree).peak["float32"] / cost.THREAD_FLOPS)
        words = f"this machine's processor ({threads} {'thread' if threads == 1 else 'threads'} a box"
        return words + (f", {plan.at_once} boxes at once as `make demo` runs them)" if plan.at_once > 1 else ")")
    return f"one {plan.device.upper()}" if plan.gpus == 1 else f"{plan.gpus} x {plan.device.upper()}"


def power_line(plan: Plan) -> str:
    """The smallest differences in accuracy that the questions and trainings of the run would find, and what is assumed."""
    from qthink_core.evidence.power import ASSUMED

    found = ", ".join(
        f"{'more than can be' if one is None else f'{100 * one:.1f} points'} on {task} ({n or 0:,} questions)"
        for task, (n, one) in _powers(plan).items()
    )
    seeds = len(plan.run.tree["seeds"])
    assumed = f"{100 * ASSUMED.discordant:.0f} % of the questions discordant beyond the difference"
    if seeds > 1:
        assumed += f", {100 * ASSUMED.repeated:.0f} % of it alike in all trainings, trainings {100 * ASSUMED.spread:.0f} "
        assumed += "points of standard deviation apart"
    trainings = "one training, so of these weights" if seeds == 1 else f"{seeds} trainings"
    return (
        f"Power: the smallest difference between two systems that 80 % of such runs find is {found}; {trainings}, before "
        f"Holm's correction. Assumed: {assumed}."
    )


def smallest_differences(plan: Plan) -> dict[str, float | None]:
    """The smallest difference in accuracy that is found with 80 % power, by benchmark; None where there is none."""
    return {task: one for task, (_, one) in _powers(plan).items()}


def _powers(plan: Plan) -> dict[str, tuple[int | None, float | None]]:
    # It brings numpy and scipy, a quarter of a second that preflight, which has words from here, does not need.
    from qthink_core.evidence.power import smallest_difference

    tree = plan.run.tree
    sizes = {task: plan.run.problems[task, tree["split"]] for task in plan.run.lengths}
    return {task: (n, smallest_difference(n, len(tree["seeds"])) if n else None) for task, n in sizes.items()}


def as_json(plan: Plan) -> str:
    """The figures in plain units (tokens, FLOP, bytes, seconds), without this machine's disk."""
    found: dict[str, Any] = {
        "scale": plan.scale,
        "device": plan.device,
        "gpus": plan.gpus,
        "seconds": plan.seconds,
        "wall_seconds": plan.wall_s,
        "at_once": plan.at_once,
        "disk": plan.disk,
        "stages": [row._asdict() for row in plan.rows],
        "problems": {f"{task} {split}": n for (task, split), n in plan.run.problems.items()},
        "lengths": {task: one._asdict() for task, one in plan.run.lengths.items()},
        "smallest_differences": smallest_differences(plan),
    }
    return json.dumps(found, indent=1, allow_nan=False)
