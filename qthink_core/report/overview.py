"""The overview in table and page: the matrix of differences, every claim on one line, the best system."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from qthink_core.evidence.claims import UNDECIDED
from qthink_core.evidence.findings import Claim, Comparison, Conditions, Findings
from qthink_core.report.sentences import distinguishable


class Difference(NamedTuple):
    """The accuracy of a row's system minus that of a column's, as a share, and whether it is distinguishable from zero."""

    difference: float
    distinguishable: bool


class Matrix(NamedTuple):
    """The systems compared on a benchmark, and the differences by row and column; a pair that was not compared is absent."""

    systems: list[str]
    differences: dict[tuple[str, str], Difference]


def conditions(systems: Mapping[str, Conditions]) -> list[str]:
    """The conditions of all systems, in order; systems with other numbers of latent steps have other conditions."""
    names = dict.fromkeys(name for one in systems.values() for name in one.cells)
    swept = {name: int(name.removeprefix("K=")) for name in names if re.fullmatch(r"K=[1-9]\d*", name)}
    return [*(name for name in names if name not in swept), *sorted(swept, key=swept.__getitem__)]


def of_task(findings: Findings, task: str) -> list[Comparison]:
    """The comparisons on one benchmark."""
    return [row for row in findings.comparisons if row.task == task]


def matrix(findings: Findings, task: str) -> Matrix:
    """The differences on a benchmark, each in both directions, in the order of the table's rows."""
    rows = of_task(findings, task)
    compared = {name for row in rows for name in (row.left, row.right)}
    differences = {}
    for row in rows:
        differences[row.left, row.right] = Difference(row.difference, distinguishable(row))
        differences[row.right, row.left] = Difference(-row.difference, distinguishable(row))
    return Matrix([name for name in findings.systems if name in compared], differences)


def best(findings: Findings, task: str) -> str | None:
    """The system that is distinguishably better than every other one on the benchmark, or None."""
    found = matrix(findings, task).differences
    for system in findings.cells[task]:
        others = [found.get((system, other)) for other in findings.cells[task] if other != system]
        if others and all(one is not None and one.distinguishable and one.difference > 0 for one in others):
            return system
    return None


class ClaimLine(NamedTuple):
    """A claim with its rows by benchmark."""

    words: str
    rows: Sequence[Claim]

    @property
    def decided(self) -> bool:
        """Whether it holds, or its opposite does, on some benchmark."""
        return any(row.verdict != UNDECIDED for row in self.rows)


def claim_lines(claims: Iterable[Claim]) -> list[ClaimLine]:
    """One line for each claim; claims that are decided on some benchmark come first."""
    by_words: dict[str, list[Claim]] = {}
    for row in claims:
        by_words.setdefault(row.words, []).append(row)
    lines = [ClaimLine(words, rows) for words, rows in by_words.items()]
    return sorted(lines, key=lambda line: not line.decided)
