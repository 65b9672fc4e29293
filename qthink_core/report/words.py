"""The sentences that table and page share: what the run shows, about what, and what it could have found."""

from collections.abc import Mapping, Sequence

from qthink_core.artifacts.seconds import REPORT, Measured
from qthink_core.evidence.findings import Cell, Comparison, Findings
from qthink_core.evidence.statistics import MIN_SEEDS, THESE_WEIGHTS

# A difference counts as distinguishable from zero below this corrected p.
ALPHA = 0.05


def distinguishable(row: Comparison) -> bool:
    """Whether the difference is, after correction."""
    return row.adjusted_p < ALPHA


def few(row: Comparison) -> bool:
    """Whether a side was trained so seldom that the difference says nothing about its method."""
    return row.trainings is not None and row.trainings < MIN_SEEDS


def scope(rows: Sequence[Comparison]) -> str:
    """What the differences are about where trainings are few, else ""."""
    return f"{THESE_WEIGHTS}: a statement about the method takes {MIN_SEEDS} trainings" if any(map(few, rows)) else ""


def summary(findings: Findings) -> str:
    """One sentence on what the run shows: latent systems against both controls, or all accuracies where one is missing."""
    cells = findings.cells
    ns = sorted({cell.n for row in cells.values() for cell in row.values()})
    seeds = max(cell.seeds for row in cells.values() for cell in row.values())
    n = f"{ns[0]:,}" if len(ns) == 1 else f"{ns[0]:,} to {ns[-1]:,}"
    where = f"{_counted(len(cells), 'benchmark')} of {n} questions and {_counted(seeds, 'training seed')}"
    latent = [system for system, one in findings.systems.items() if one.latent]
    ours = [row[system] for row in cells.values() for system in latent if system in row]
    controls = [name for name in (findings.control, findings.direct) if name is not None]
    met = {name: _against(findings, latent, name) for name in controls}
    if len(controls) < 2 or not all(met.values()):
        return f"{_counted(len(findings.systems), 'system')} on {where}: accuracies from {_range(_all(cells))} %."
    names = {name: findings.systems[name].name for name in controls}
    outcomes = ", and ".join(_outcome(gains, names[name]) for name, gains in met.items())
    rows = [
        row for row in findings.comparisons if {row.left, row.right} & set(latent) and {row.left, row.right} & {*controls}
    ]
    about = f" ({THESE_WEIGHTS})" if any(few(row) and distinguishable(row) for row in rows) else ""
    rest = [[cell for system, cell in row.items() if system not in latent] for row in cells.values()]
    tops = [max(row, key=lambda cell: cell.accuracy) for row in rest]
    theirs = ", ".join(f"{names[name]} {_range([row[name] for row in cells.values()])} %" for name in controls)
    return (
        f"On {where}, {outcomes}{about}: latent systems answer {_range(ours)} % right, {theirs}, "
        f"and the best system without latents {_range(tops)} %."
    )


def _against(findings: Findings, latent: Sequence[str], other: str) -> list[float]:
    """What each latent system gains over another one, benchmark by benchmark; 0 where the two cannot be told apart."""
    return [
        (row.difference if row.right == other else -row.difference) if distinguishable(row) else 0.0
        for row in findings.comparisons
        if (row.left in latent and row.right == other) or (row.right in latent and row.left == other)
    ]


def _outcome(gains: Sequence[float], name: str) -> str:
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    if not any(gains):
        return f"no latent system can be told apart from {name}"
    if better == len(gains):
        return f"every latent system is better than {name}"
    if worse == len(gains):
        return f"every latent system is worse than {name}"
    return (
        f"of {len(gains)} results of latent systems {better or 'none'} {'is' if better == 1 else 'are'} better than "
        f"{name}, {worse or 'none'} worse, and {len(gains) - better - worse} cannot be told apart from it"
    )


def power(findings: Findings) -> str:
    """The smallest differences that the run would have found, and what that rests on; "" where nothing was compared."""
    if not findings.power:
        return ""
    rows, m = findings.power, len(findings.comparisons)
    alone = ", ".join(f"{_points(one.alone)} on {task} (n={one.n:,})" for task, one in rows.items())
    first = ", ".join(_points(one.corrected) for one in rows.values())
    shares = ", ".join(f"{100 * one.scatter.discordant:.1f}" for one in rows.values())
    systems = ", ".join(findings.systems[one.system].name for one in rows.values())
    seeds = min(one.seeds for one in rows.values())
    if seeds == 1:
        about = "one training, so about these weights"
    else:
        spreads = ", ".join(f"{100 * one.scatter.spread:.1f}" for one in rows.values())
        about = f"{seeds} trainings, {spreads} points of standard deviation between them"
        about += ", so about these weights" if seeds < MIN_SEEDS else ""
    return (
        f"Power: the smallest difference between a latent system and the control that would be found in 80 % of such runs "
        f"(paired, two-sided, {ALPHA}) is at most {alone}; {first} if it is the only one of the {m} and Holm's correction "
        f"is over all. The systems that need most, beside the control: {systems}, with {shares} % of the questions "
        f"discordant beyond the difference itself, {about}. A smaller difference may well be there and stay undecided."
    )


# Clocks differ from machine to machine, and outputs must not.
SECONDS = f"Seconds an answer were measured where the answers were made, so they are not in this file but in {REPORT}."


def seconds_table(findings: Findings, measured: Mapping[tuple[str, str], Measured]) -> str:
    """Seconds an answer beside tokens and latent passes, as Markdown; what was not answered here has none."""
    tasks = list(findings.cells)
    head = ["seconds an answer", *tasks]
    rows = [
        [system.name, *(_took(findings.cells[task][name], measured.get((task, name))) for task in tasks)]
        for name, system in findings.systems.items()
    ]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    devices = ", ".join(dict.fromkeys(one.device for one in measured.values()))
    about = f"Measured on {devices}, without the loading of the model; the answers of a batch share its time."
    lines.append("\n" + (about if measured else "No answer was made here: they came out of DVC's cache."))
    return "\n".join(lines) + "\n"


def _took(cell: Cell, measured: Measured | None) -> str:
    passes = f"{cell.mean_tokens:.0f} tokens" + f" + {cell.latents} latent" * bool(cell.latents)
    return f"{'not measured here' if measured is None else f'{measured.each:.3g}'} ({passes})"


def _points(share: float | None) -> str:
    return "more than can be" if share is None else f"{100 * share:.1f} points"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _all(cells: Mapping[str, Mapping[str, Cell]]) -> list[Cell]:
    return [cell for row in cells.values() for cell in row.values()]


def _range(cells: Sequence[Cell]) -> str:
    low, high = (f"{100 * pick(cell.accuracy for cell in cells):.1f}" for pick in (min, max))
    return low if low == high else f"{low}–{high}"
