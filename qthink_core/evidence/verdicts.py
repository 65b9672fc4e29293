"""The verdict on the latents of a system, by a rule that was written before any figures were seen.

The conditions are the same trained weights with something else in place of their K latents: no latents (`K=0`), `zeros`,
Gaussian `noise` of the same scale, the latents of another question (`other`), or their mean over questions (`mean`). The
control is `answer_only`, trained on the same targets without latents. The system as trained is compared with these six on
the same questions. The six p-values are corrected together (Holm, 0.05); each outcome is `better`, `worse` or `undecided`.
Comparisons with the same weights use the p-value for these weights. The comparison with the control is about the method, so
its p-value also covers other trainings if there are several (`statistics.Comparison`). Both sides of a comparison are
decoded by the same engine: `probe` answers with the K trained latents (for example `K=6`) and under its other conditions,
`evaluate` answers as trained and for the control.

*Content*, from the same weights:

    worse than K=0                                        harm: the latents do harm
    undecided against K=0                                 nothing: they do nothing measurable
    better than K=0, but not than all four others         positions: the model needs them, not their content
    better than K=0 and than all four others              information: they carry information about the question

A model that was trained with latents may simply fail without them, so the verdict needs the control too. *Verdict*:

    content                   better than the control   undecided              worse
    information               earns                     used but not better    used but worse
    positions                 helps as pauses           used but not better    used but worse
    nothing                   idle                      idle                   idle
    harm                      harmful                   harmful                harmful

Fewer than three trainings show nothing about other trainings, so a verdict that praises or blames is then marked: `earns,
these weights only`. The same holds for `helps as pauses`, `used but worse` and `harmful`. `used but not better` and `idle`
neither praise nor blame.

Without a control, only the content is judged: five comparisons are corrected together, and the verdict is `idle`, `harmful`,
or `used` for information and positions. The sentence then says that the worth of the latents was not judged.

Undecided does not mean equal: with few questions everything is undecided. Other conditions (a sweep over K, teacher states)
are shown next to the verdict but do not affect it.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from qthink_core.artifacts.conditions import JUDGED, MEAN, NOISE, NONE, OTHER, TRAINED, ZEROS, steps_condition
from qthink_core.evidence.significance import ALPHA, MIN_SEEDS, THESE_WEIGHTS
from qthink_core.evidence.statistics import Comparison, compare, holm

ANSWER_ONLY = "answer_only"
SUBSTITUTES = {ZEROS: "zeros", NOISE: "noise", OTHER: "another question's latents", MEAN: "the mean latent"}
BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
INFORMATION, POSITIONS, NOTHING, HARM = "information", "positions", "nothing", "harm"
EARNS, PAUSES, NOT_BETTER, USED_WORSE = "earns", "helps as pauses", "used but not better", "used but worse"
IDLE, HARMFUL = "idle", "harmful"

VERDICTS = {
    **{(content, BETTER): verdict for content, verdict in [(INFORMATION, EARNS), (POSITIONS, PAUSES)]},
    **{(content, UNDECIDED): NOT_BETTER for content in (INFORMATION, POSITIONS)},
    **{(content, WORSE): USED_WORSE for content in (INFORMATION, POSITIONS)},
    **{(content, worth): IDLE for content in (NOTHING,) for worth in (BETTER, UNDECIDED, WORSE)},
    **{(content, worth): HARMFUL for content in (HARM,) for worth in (BETTER, UNDECIDED, WORSE)},
}
PRAISE_OR_BLAME = (EARNS, PAUSES, USED_WORSE, HARMFUL)
HEADLINES = {
    EARNS: "The latents earn their place",
    PAUSES: "The latents help as pauses do",
    NOT_BETTER: "The latents are used, but the system is not distinguishably better than without them",
    USED_WORSE: "The latents are used, but the system is worse than without them",
    IDLE: "The latents are idle",
    HARMFUL: "The latents are harmful",
}
# The words and headlines without a control, where nothing shows whether latents that are used are worth it.
USED = "used"
WITHOUT_CONTROL = {
    **dict.fromkeys((INFORMATION, POSITIONS), (USED, "The latents are used")),
    **{content: (word, HEADLINES[word]) for content, word in ((NOTHING, IDLE), (HARM, HARMFUL))},
}
NOT_JUDGED = (
    "Not judged: whether the system is better for its latents, which needs a control trained on the same targets without "
    "latents."
)
FINDINGS = {
    INFORMATION: "they carry information about the question",
    POSITIONS: "the model needs them, but nothing shows that their content matters",
    NOTHING: "they have no measurable effect",
    HARM: "they cost right answers",
}
AGAINST_OTHERS = {BETTER: "better than with", UNDECIDED: "not distinguishable from", WORSE: "worse than with"}


class Row(NamedTuple):
    """One comparison of the system as trained: with what, its Holm-adjusted p-value, and its outcome."""

    against: str
    comparison: Comparison
    adjusted: float
    outcome: str


class Verdict(NamedTuple):
    """The word (with `these weights only` if it is limited to them), the sentences, both findings, the six comparisons.

    Without a control, `worth` is None and there are five comparisons.
    """

    word: str
    sentence: str
    content: str
    worth: str | None
    rows: list[Row]


def judge(
    right: Mapping[str, Bool[np.ndarray, "S _Q"]], K: int, answer_only_SQ: Bool[np.ndarray, "_S _Q"] | None
) -> Verdict:
    """The verdict on a system of K latent steps from its answers under each condition and the control's, by the rule above.

    Without a control (None), only the content is judged. Raises ValueError when a condition of the rule is missing or
    questions do not match.
    """
    probed = steps_condition(K)
    needed = (TRAINED, probed, *JUDGED)
    missing = [name for name in needed if name not in right]
    if missing:
        raise ValueError(f"no answers under {', '.join(missing)}: the verdict needs {', '.join(needed)}")
    compared = {name: compare(right[probed], right[name]) for name in JUDGED}
    if answer_only_SQ is not None:
        compared[ANSWER_ONLY] = compare(right[TRAINED], answer_only_SQ)
    adjusted = holm([one.p_method if name == ANSWER_ONLY else one.p for name, one in compared.items()])
    rows = [Row(name, one, p, outcome(one, p)) for (name, one), p in zip(compared.items(), adjusted, strict=True)]
    outcomes = {row.against: row.outcome for row in rows}
    few = min(len(right[TRAINED]), *([] if answer_only_SQ is None else [len(answer_only_SQ)]), MIN_SEEDS) < MIN_SEEDS
    if answer_only_SQ is None:
        content, worth = content_of(outcomes), None
        word, headline = WITHOUT_CONTROL[content]
    else:
        content, worth, word = rule(outcomes)
        headline = HEADLINES[word]
    limited = few and word in PRAISE_OR_BLAME
    sentence = _sentence(scoped(headline, limited), content, float(right[probed].mean()), rows, few)
    return Verdict(scoped(word, limited), sentence, content, worth, rows)


def scoped(verdict: str, few: bool) -> str:
    """The word or headline of a verdict, with a limit where `few` trainings do not allow a statement about the method."""
    return f"{verdict}, {THESE_WEIGHTS}" if few else verdict


def outcome(comparison: Comparison, adjusted: float) -> str:
    """`better` or `worse` where the adjusted p-value is below ALPHA, else `undecided`."""
    if adjusted >= ALPHA:
        return UNDECIDED
    return BETTER if comparison.difference > 0 else WORSE


def rule(outcomes: Mapping[str, str]) -> tuple[str, str, str]:
    """Content, worth and verdict from the six outcomes."""
    content, worth = content_of(outcomes), outcomes[ANSWER_ONLY]
    return content, worth, VERDICTS[content, worth]


def content_of(outcomes: Mapping[str, str]) -> str:
    """The content from the five outcomes against the same weights."""
    content = {WORSE: HARM, UNDECIDED: NOTHING, BETTER: INFORMATION}[outcomes[NONE]]
    if content == INFORMATION and any(outcomes[name] != BETTER for name in SUBSTITUTES):
        content = POSITIONS
    return content


def _sentence(headline: str, content: str, accuracy: float, rows: list[Row], few: bool) -> str:
    by_name = {row.against: row for row in rows}
    without, control = by_name[NONE], by_name.get(ANSWER_ONLY)
    others = {
        found: [row for row in rows if row.against in SUBSTITUTES and row.outcome == found] for found in AGAINST_OTHERS
    }
    substitutes = "; ".join(f"{AGAINST_OTHERS[found]} {_listed(group)}" for found, group in others.items() if group)
    last = (control or without).comparison
    n, seeds = last.n, last.seeds
    trainings = "one training" if seeds == 1 else f"{seeds} trainings"
    scope = f": {THESE_WEIGHTS}, a statement about the method needs {MIN_SEEDS}" if few else ""
    worth = NOT_JUDGED
    if control is not None:
        worth = f"Against the same training without latents: {_points(control)}, {_p(control)}."
    return (
        f"{headline}: {FINDINGS[content]}. The system answers {100 * accuracy:.1f} % right, {_points(without)} against the "
        f"same weights without latents; {substitutes}. {worth} ({n} questions, {trainings}{scope})"
    )


def _points(row: Row) -> str:
    one = row.comparison
    return f"{100 * one.difference:+.1f} points [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def _p(row: Row) -> str:
    shown = "p < 0.001" if row.adjusted < 0.001 else f"p = {row.adjusted:.3f}"
    return f"{shown} ({row.outcome})"


def _listed(rows: list[Row]) -> str:
    return ", ".join(f"{SUBSTITUTES[row.against]} ({100 * row.comparison.difference:+.1f})" for row in rows)
