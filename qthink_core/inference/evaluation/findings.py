"""What the answers of an audit show: the accuracy of each system and condition, and the verdict on the latents."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from qthink_core.artifacts.conditions import NONE, TRAINED, steps_condition
from qthink_core.evidence import verdicts
from qthink_core.evidence.findings import Cell
from qthink_core.evidence.significance import ALPHA
from qthink_core.evidence.statistics import Comparison, compare
from qthink_core.evidence.verdicts import Verdict
from qthink_core.inference.evaluation.evaluate import MODEL, cell
from qthink_core.inference.evaluation.questions import Questions
from qthink_core.inference.evaluation.verdict_file import Line

CONTROL, BASE, BASE_DIRECT = "control", "base", "base_direct"
CANNOT = (
    "An audit is about these weights on these questions, with greedy decoding. Undecided does not mean equal: with few "
    "questions every comparison is undecided. Latents that carry information need not be a reasoning process, and a model "
    "that was trained with latents may fail without them whether or not they are worth their cost."
)
TOO_FEW = "too few questions to tell"
NEED_CONTROL = "--control names such a checkpoint."
NEED_BASE = "Not measured: how much the base model loses when it does not think. --base names the base model."


class Audit(NamedTuple):
    """The findings of an audit; `cells` and `swept` are of the audited model, by condition and by number of latent steps.

    `others` holds the cells of the control and of the base, with and without thinking, and `against` the model as trained
    minus each of these, without correction, because only the control has a part in the verdict.
    """

    model: str
    task: str
    source: str
    K: int
    max_new_tokens: int
    verdict: Verdict
    cells: dict[str, Cell]
    swept: dict[int, Cell]
    others: dict[str, Cell]
    against: dict[str, Comparison]
    limits: list[str]
    named: Mapping[str, str | None]
    settings: Mapping[str, Any]
    golds: Mapping[str, str]
    asked: Mapping[str, str]
    lines: Sequence[Line]

    @property
    def n(self) -> int:
        """The number of questions."""
        return self.cells[TRAINED].n

    def as_json(self) -> dict[str, Any]:
        """The findings as plain values, without questions and answers."""
        verdict = self.verdict
        return {
            "model": self.model,
            "benchmark": self.task,
            "data": self.source,
            "questions": self.n,
            "latent_steps": self.K,
            "max_new_tokens": self.max_new_tokens,
            "verdict": {
                "word": verdict.word,
                "sentence": verdict.sentence,
                "content": verdict.content,
                "worth": verdict.worth,
                "comparisons": [
                    {
                        "against": row.against,
                        **{name: getattr(row.comparison, name) for name in ("difference", "low", "high", "p")},
                        "adjusted_p": row.adjusted,
                        "outcome": row.outcome,
                    }
                    for row in verdict.rows
                ],
            },
            "conditions": {name: one._asdict() for name, one in self.cells.items()},
            "others": {name: one._asdict() for name, one in self.others.items()},
            "against_others": {
                name: {part: getattr(one, part) for part in ("difference", "low", "high")}
                for name, one in self.against.items()
            },
            "limits": self.limits,
            "settings": dict(self.settings),
        }

    def text(self) -> str:
        """The table of conditions and the verdict, for a terminal of 80 columns."""
        held = {row.against: row for row in self.verdict.rows}
        rows = [("condition", "right %", "95 % interval", "trained minus it", "p", "outcome")]
        for name, one in [*self.cells.items(), *self.others.items()]:
            row = held.get(verdicts.ANSWER_ONLY if name == CONTROL else name)
            other = row.comparison if row else self.against.get(name)
            rows.append(
                (
                    name,
                    f"{100 * one.accuracy:.1f}",
                    f"[{100 * one.low:.1f}, {100 * one.high:.1f}]",
                    "" if other is None else f"{100 * other.difference:+.1f}",
                    "" if row is None else "< 0.001" if row.adjusted < 0.001 else f"{row.adjusted:.3f}",
                    "" if row is None else row.outcome,
                )
            )
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        table = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*table, "", self.verdict.sentence, *self.limits])


def findings(
    lines: Sequence[Line],
    model: str,
    asked: Questions,
    K: int,
    max_new_tokens: int,
    named: Mapping[str, str | None],
    settings: Mapping[str, Any],
) -> Audit:
    """The findings from the lines of a whole verdict file."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        groups.setdefault((line.system, line.condition), []).append(line)
    by_id = {key: sorted(found, key=lambda line: line.id) for key, found in groups.items()}
    right = {key: _right(found) for key, found in by_id.items()}
    own = {condition: values for (system, condition), values in right.items() if system == MODEL}
    control = right.get((CONTROL, TRAINED))
    verdict = _told(verdicts.judge(own | {steps_condition(K): own[TRAINED]}, K, control))
    latents = {condition: _steps(condition, K) for condition in own}
    cells = {condition: cell(by_id[MODEL, condition], latents[condition]) for condition in sorted(own, key=_place)}
    # K=0 is a replacement and a number of steps
    swept = {latents[name]: one for name, one in cells.items() if name == TRAINED or re.fullmatch(r"K=\d+", name)}
    others = {system: cell(found, 0) for (system, _), found in by_id.items() if system != MODEL}
    against = {system: compare(own[TRAINED], right[system, TRAINED]) for system in others}
    limits = ([NEED_CONTROL] if control is None and verdict.word == verdicts.USED else []) + (
        [] if BASE in others else [NEED_BASE]
    )
    return Audit(
        model,
        asked.task,
        asked.source,
        K,
        max_new_tokens,
        verdict,
        cells,
        dict(sorted(swept.items())),
        others,
        against,
        [*limits, CANNOT],
        named,
        settings,
        asked.golds,
        {one.id: one.question for one in asked.problems},
        lines,
    )


def _told(verdict: Verdict) -> Verdict:
    """The verdict, or TOO_FEW where so few questions cannot give an outcome, whatever the answers are.

    The smallest p-value of McNemar's exact test on n questions is 2 / 2^n. Holm's correction multiplies the
    smallest of m p-values by m.
    """
    m, n = len(verdict.rows), verdict.rows[0].comparison.n
    if _least_p(m, n) < ALPHA:
        return verdict
    needed = next(count for count in itertools.count(n) if _least_p(m, count) < ALPHA)
    headline = f"{verdicts.HEADLINES[verdicts.IDLE]}: {verdicts.FINDINGS[verdicts.NOTHING]}."
    told = (
        f"{TOO_FEW.capitalize()}: no answers to {n} questions could give a p-value below {ALPHA} after Holm's correction; "
        f"at least {needed} questions are needed."
    )
    sentence = told + verdict.sentence.removeprefix(headline)
    return verdict._replace(word=TOO_FEW, content=verdicts.UNDECIDED, sentence=sentence)


def _least_p(m: int, n: int) -> float:
    return m * 2.0 ** (1 - n)


def _right(lines: Sequence[Line]) -> Bool[np.ndarray, "1 Q"]:
    return np.array([[line.verdict == "right" for line in lines]])


def _steps(condition: str, K: int) -> int:
    found = re.fullmatch(r"K=(\d+)", condition)
    return int(found[1]) if found else K


def _place(condition: str) -> tuple[int, int]:
    known = (TRAINED, NONE, *verdicts.SUBSTITUTES)
    return (0, known.index(condition)) if condition in known else (1, _steps(condition, 0))
