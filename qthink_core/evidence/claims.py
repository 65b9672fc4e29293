"""The model card's claims as experiments: what was published, which two systems of ours test it, and whether it holds.

The rule was written before any figures were seen. A claim states that `left` is right more often than `right`, or that it
generates fewer tokens. The verdict is `holds` if the difference of the two on the same questions has the claimed sign, and
`opposite` if it has the other sign, with p < 0.05 after Holm's correction over all rows that can be decided. This p covers
other questions and other trainings (`statistics.Comparison.p_method`). Every other row is `undecided`. A row with fewer than
three trainings of a trained system cannot be decided and does not count in the correction. Only the sign is judged, not the
size; the report shows the published difference next to ours.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Real

from qthink_core.evidence import published
from qthink_core.evidence.significance import ALPHA, MIN_SEEDS
from qthink_core.evidence.statistics import Comparison, compare, compare_means, holm

HOLDS, OPPOSITE, UNDECIDED = "holds", "opposite", "undecided"
POINTS, TOKENS = "points", "tokens"
UNTRAINED = ("base", "base_direct")


class Claim(NamedTuple):
    """A published claim, the pair of systems that tests it, its unit, and what else differed in the published pair.

    A caveat may contain `{K}`, the latent steps of the run. `stated` has differences by benchmark that were published
    without the two figures behind them.
    """

    id: str
    words: str
    left: str
    right: str
    unit: str = POINTS
    caveat: str = ""
    stated: tuple[tuple[str, float], ...] = ()

    def published(self, task: str) -> float | None:
        """left - right as published, in percentage points or tokens; None if it was not published."""
        left, right = (self._figure(task, system) for system in (self.left, self.right))
        return dict(self.stated).get(task) if left is None or right is None else round(left - right, 1)

    def _figure(self, task: str, system: str) -> float | None:
        found = published.RESULTS.get(task, {}).get(system)
        if found is None:
            return None
        return 100 * found.accuracy if self.unit == POINTS else found.mean_tokens


CONFOUNDED = "the published final-step run had answers of at most 128 tokens and gamma 1.0, the other run 256 and 2.0"
NO_CONTROL = "not published: the model card has no such control"
PASSES_STAY = "the {K} latent passes of every answer are not counted as tokens"
CLAIMS = (
    Claim(
        "per_step",
        "supervising every latent step beats supervising the last one alone, with the same teacher",
        "reward_weighted",
        "final_step",
        caveat=CONFOUNDED,
    ),
    Claim(
        "per_step_uniform",
        "the full method beats final-step distillation (CODI)",
        "uniform",
        "final_step",
        caveat=f"the teachers differ too, and {CONFOUNDED}",
    ),
    Claim("uniform", "averaging all rollouts beats averaging only the right ones", "uniform", "reward_weighted"),
    Claim(
        "longer_answers",
        "training on answers of 256 tokens beats 128",
        "uniform",
        "short_answers",
        caveat="published only as a difference, without the two accuracies",
        stated=(("gsm8k", 3.0),),
    ),
    Claim(
        "latents",
        "latents beat the same training without them",
        "uniform",
        "answer_only",
        caveat=NO_CONTROL,
    ),
    Claim(
        "distillation",
        "distilled latents beat latents without distillation (gamma 0)",
        "uniform",
        "undistilled",
        caveat=NO_CONTROL,
    ),
    Claim("beyond_sft", "latents beat SFT on think + answer", "uniform", "sft"),
    Claim(
        "tokens_base",
        "latents generate fewer tokens than the thinking base",
        "uniform",
        "base",
        TOKENS,
        PASSES_STAY,
    ),
    Claim(
        "tokens_sft",
        "latents generate fewer tokens than SFT on think + answer",
        "uniform",
        "sft",
        TOKENS,
        PASSES_STAY,
    ),
)


class Row(NamedTuple):
    """A claim on a benchmark: the published difference and ours with its interval, in `unit`; None if it is missing.

    `p` is adjusted, and None in a row that cannot be decided; `seeds` counts the trainings of the side with fewer.
    """

    claim: Claim
    task: str
    published: float | None
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    seeds: int
    verdict: str
    note: str


def verdicts(
    claims: Iterable[Claim],
    right: Mapping[str, Mapping[str, Bool[np.ndarray, "_S _Q"]]],
    tokens: Mapping[str, Mapping[str, Real[np.ndarray, "_S _Q"]]],
) -> list[Row]:
    """A row per claim and benchmark of the run, by the rule above; `right` and `tokens` map benchmark, then system.

    If a system of a claim is missing, the note says what to run. Raises ValueError when questions or seeds of two systems do
    not match.
    """
    rows = [
        _row(claim, task, (right if claim.unit == POINTS else tokens).get(task, {})) for claim in claims for task in right
    ]
    decidable = [index for index, (row, _) in enumerate(rows) if not row.note]
    adjusted = holm([one.p_method for row, one in rows if one is not None and not row.note])
    done = [row for row, _ in rows]
    for index, p in zip(decidable, adjusted, strict=True):
        done[index] = done[index]._replace(p=p, verdict=_verdict(done[index], p))
    return done


def on_seeds(seeds: Iterable[int]) -> str:
    """What to run for the rows that have too few seeds, or "" if there are none; a row with 0 seeds lacks its systems."""
    few = any(0 < count < MIN_SEEDS for count in seeds)
    return (
        f"With fewer than {MIN_SEEDS} seeds a claim stays undecided; to decide it: dvc exp run -S 'seeds=[0,1,2]'."
        if few
        else ""
    )


def _row(claim: Claim, task: str, systems: Mapping[str, np.ndarray]) -> tuple[Row, Comparison | None]:
    """The row before its verdict; a note says why it cannot have one."""
    empty = Row(claim, task, claim.published(task), None, None, None, None, 0, UNDECIDED, "")
    missing = [name for name in (claim.left, claim.right) if name not in systems]
    if missing:
        return empty._replace(note=f"needs {' and '.join(missing)}: add to systems in params.yaml, then run dvc repro"), None
    left, other = systems[claim.left], systems[claim.right]
    seeds = min(len(systems[name]) for name in (claim.left, claim.right) if name not in UNTRAINED)
    one, scale = (compare(left, other), 100) if claim.unit == POINTS else (compare_means(left, other), 1)
    few = f"{seeds} of the {MIN_SEEDS} seeds needed" if seeds < MIN_SEEDS else ""
    return (
        empty._replace(difference=scale * one.difference, low=scale * one.low, high=scale * one.high, seeds=seeds, note=few),
        one,
    )


def _verdict(row: Row, p: float) -> str:
    if p >= ALPHA or not row.difference:
        return UNDECIDED
    return HOLDS if (row.difference > 0) == (row.claim.unit == POINTS) else OPPOSITE
