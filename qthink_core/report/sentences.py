"""The sentences that table and page share: what the run shows, its scope, and what the run could have detected."""

from collections.abc import Mapping, Sequence

from qthink_core.evidence.findings import Cell, Comparison, Findings
from qthink_core.evidence.significance import ALPHA, MIN_SEEDS, THESE_WEIGHTS
from qthink_core.pipeline.seconds import REPORT

# Times differ from machine to machine, and outputs must not.
SECONDS = f"Seconds per answer depend on the machine, so they are in {REPORT} and not in this file."

TEST_SETS = (
    "Accuracy in per cent ± standard error [95 % interval], and the standard deviation over training seeds, if there are "
    "several, in brackets. No system was trained on these questions. Verdicts, claims and differences are about the "
    "benchmarks alone."
)


def distinguishable(row: Comparison) -> bool:
    """Whether the difference is distinguishable from zero after correction."""
    return row.adjusted_p < ALPHA


def few(row: Comparison) -> bool:
    """Whether a side has too few trainings for a statement about its method."""
    return row.trainings is not None and row.trainings < MIN_SEEDS


def scope(rows: Sequence[Comparison]) -> str:
    """The scope of the differences if there are too few trainings, else ""."""
    return f"{THESE_WEIGHTS}: a statement about the method needs {MIN_SEEDS} trainings" if any(map(few, rows)) else ""


def summary(findings: Findings) -> str:
    """What the run shows: latent systems against both controls, or all accuracies when a control is missing."""
    cells = findings.cells
    where = _where(findings)
    latent = [system for system, one in findings.systems.items() if one.latent]
    controls = [name for name in (findings.control, findings.direct) if name is not None]
    met = {name: _against(findings, latent, name) for name in controls}
    if len(controls) < 2 or not all(met.values()):
        return f"{_counted(len(findings.systems), 'system')} on {where}: accuracy {_range(_all(cells))} %."
    names = {name: findings.systems[name].name for name in controls}
    outcomes = ", and ".join(_outcome(gains, names[name]) for name, gains in met.items())
    rows = [
        row for row in findings.comparisons if {row.left, row.right} & set(latent) and {row.left, row.right} & {*controls}
    ]
    about = f" ({THESE_WEIGHTS})" if any(few(row) and distinguishable(row) for row in rows) else ""
    ours = [row[system] for row in cells.values() for system in latent if system in row]
    rest = [[cell for system, cell in row.items() if system not in latent] for row in cells.values()]
    tops = [max(row, key=lambda cell: cell.accuracy) for row in rest]
    theirs = "; ".join(f"{names[name]} {_range([row[name] for row in cells.values()])} %" for name in controls)
    return (
        f"On {where}, {outcomes}{about}. "
        f"Right answers: latent systems {_range(ours)} %; {theirs}; the best system without latents {_range(tops)} %."
    )


def _where(findings: Findings) -> str:
    ns = sorted({cell.n for cell in _all(findings.cells)})
    seeds = max(cell.seeds for cell in _all(findings.cells))
    n = f"{ns[0]:,}" if len(ns) == 1 else f"{ns[0]:,} to {ns[-1]:,}"
    return f"{_counted(len(findings.cells), 'benchmark')} of {n} questions, with {_counted(seeds, 'training seed')}"


def _against(findings: Findings, latent: Sequence[str], other: str) -> list[float]:
    """The gain of each latent system over another one, by benchmark; 0 where the two are not distinguishable."""
    return [
        (row.difference if row.right == other else -row.difference) if distinguishable(row) else 0.0
        for row in findings.comparisons
        if (row.left in latent and row.right == other) or (row.right in latent and row.left == other)
    ]


def _outcome(gains: Sequence[float], name: str) -> str:
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    if not any(gains):
        return f"no latent system is distinguishable from {name}"
    if better == len(gains):
        return f"every latent system is better than {name}"
    if worse == len(gains):
        return f"every latent system is worse than {name}"
    return (
        f"of {len(gains)} results of latent systems {better} {_are(better)} better than {name}, {worse} {_are(worse)} worse "
        f"and {len(gains) - better - worse} {_are(len(gains) - better - worse)} not distinguishable from it"
    )


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def power(findings: Findings) -> str:
    """The smallest differences that the run could have detected, with the assumptions; "" when nothing was compared."""
    if not findings.power:
        return ""
    rows, m = findings.power, len(findings.comparisons)
    alone = ", ".join(f"{_points(one.alone)} on {task} (n={one.n:,})" for task, one in rows.items())
    first = ", ".join(_points(one.corrected) for one in rows.values())
    shares = ", ".join(f"{100 * one.scatter.discordant:.1f}" for one in rows.values())
    systems = ", ".join(findings.systems[one.system].name for one in rows.values())
    seeds = min(one.seeds for one in rows.values())
    if seeds == 1:
        about = "one training, so this is about these weights"
    else:
        spreads = ", ".join(f"{100 * one.scatter.spread:.1f}" for one in rows.values())
        about = f"{seeds} trainings with a standard deviation of {spreads} points between them"
        about += ", so this is about these weights" if seeds < MIN_SEEDS else ""
    return (
        f"Power: the smallest difference between a latent system and the control that 80 % of such runs would find "
        f"(paired, two-sided, {ALPHA}) is at most {alone}. With Holm's correction, if it is the only difference among the "
        f"{m}: {first}. The latent systems that need the largest difference: {systems}; {shares} % of their questions are "
        f"discordant with the control beyond the difference itself ({about}). A smaller difference can exist and stay "
        f"undecided."
    )


def _points(share: float | None) -> str:
    return "more than possible" if share is None else f"{100 * share:.1f} points"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _all(cells: Mapping[str, Mapping[str, Cell]]) -> list[Cell]:
    return [cell for row in cells.values() for cell in row.values()]


def _range(cells: Sequence[Cell]) -> str:
    low, high = (f"{100 * pick(cell.accuracy for cell in cells):.1f}" for pick in (min, max))
    return low if low == high else f"{low}–{high}"
