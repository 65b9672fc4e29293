"""A line of the table: what was measured, against what, and whether the goal is reached."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from qthink_core.benchmarking.timing import Ratio


class Measured(NamedTuple):
    """One kind of work on one model against another way.

    `difference` is the largest between the two results: of states or gradients, as a share of the largest number, or the
    number of unequal answers. `counts` are exact, but for those in MiB. `goal` is the least ratio that is wanted, and
    `bounds` are the largest counts that are wanted. `of_ceiling` is the share of the fastest matrix product, and `tokens_s`
    are the tokens that were needed, or for answers those that were written, in a second of our way.
    """

    work: str
    model: str
    against: str
    ratio: Ratio
    difference: float
    counts: dict[str, float]
    goal: float | None = None
    bounds: dict[str, float] = {}  # noqa: RUF012 - never changed
    of_ceiling: float | None = None
    tokens_s: float | None = None

    def missed(self) -> list[str]:
        """What falls short of its goal, in words."""
        ratio, goal = self.ratio.median, self.goal
        slow = [f"{ratio:.2f}x of {goal:g}x"] if goal is not None and ratio < goal else []
        return slow + [
            f"{name.replace('_', ' ')} {self.counts[name]:.3g}, wanted at most {most:.3g}"
            for name, most in self.bounds.items()
            if name in self.counts and self.counts[name] > most
        ]


def as_json(rows: Sequence[Measured]) -> list[dict[str, Any]]:
    """The rows as objects of JSON."""
    return [row._asdict() | {"ratio": row.ratio._asdict(), "missed": row.missed()} for row in rows]


def as_text(rows: Sequence[Measured]) -> str:
    """The rows as a table in Markdown, followed by the counts and by what falls short of its goal."""
    lines = ["| work | model | against | ratio | rounds | goal | tokens/s | of ceiling | differs by |", "| --- " * 9 + "|"]
    for row in rows:
        goal = "" if row.goal is None else f"{row.goal:g}x"
        share = "" if row.of_ceiling is None else f"{row.of_ceiling:.2f}"
        speed = "" if row.tokens_s is None else f"{row.tokens_s:,.0f}"
        span = f"{row.ratio.low:.2f} to {row.ratio.high:.2f}"
        cells = [row.work, row.model, row.against, f"{row.ratio.median:.2f}x", span, goal, speed, share]
        lines.append(f"| {' | '.join(cells)} | {row.difference:.1g} |")
    exact = [f"- {row.work}, {row.model}, against {row.against}: {counts(row)}" for row in rows]
    short = [f"- {row.work}, {row.model}, against {row.against}: {what}" for row in rows for what in row.missed()]
    end = ["", "Short of the goal:", "", *short] if short else []
    if not short and any(row.goal is not None for row in rows):
        end = ["", "All goals are reached."]
    return "\n".join([*lines, "", "Counts:", "", *exact, *end])


def counts(row: Measured) -> str:
    """The counts of a row in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {figure(value)}" for name, value in row.counts.items())


def figure(value: float) -> str:
    """A count with separators, or a quotient with three decimals."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
