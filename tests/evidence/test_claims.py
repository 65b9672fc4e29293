from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from qthink_core.evidence import claims
from qthink_core.evidence.claims import CLAIMS, Claim, Row, verdicts

BY_ID = {claim.id: claim for claim in CLAIMS}
N = 200


def right(*counts: int) -> np.ndarray:
    """A row per seed with the first so many of 200 questions right."""
    return np.arange(N) < np.array(counts)[:, None]


def one(claim: str, right: dict[str, np.ndarray], tokens: dict[str, np.ndarray] | None = None) -> Row:
    (row,) = verdicts([BY_ID[claim]], {"gsm8k": right}, {"gsm8k": tokens or {}})
    return row


@pytest.mark.parametrize(
    ("claim", "task", "published"),
    [
        ("per_step", "gsm8k", 2.3),  # 82.7 - 80.4
        ("per_step", "math500", None),
        ("per_step_uniform", "gsm8k", 2.8),  # 83.2 - 80.4
        ("per_step_uniform", "math500", 15.6),  # 43.6 - 28.0
        ("per_step_uniform", "tooluse", 5.9),  # 48.5 - 42.6
        ("uniform", "gsm8k", 0.5),  # 83.2 - 82.7
        ("longer_answers", "gsm8k", 3.0),  # "+3pp", card
        ("longer_answers", "math500", None),
        ("latents", "gsm8k", None),
        ("beyond_sft", "gsm8k", 2.5),  # 83.2 - 80.7
        ("beyond_sft", "math500", 5.4),  # 43.6 - 38.2
        ("beyond_sft", "tooluse", 2.9),  # 48.5 - 45.6
        ("tokens_base", "gsm8k", -374),  # 1,025 - 1,399
        ("tokens_sft", "gsm8k", -254),  # 1,025 - 1,279
        ("tokens_sft", "tooluse", None),
    ],
)
def test_published_differences_by_hand(claim: str, task: str, published: float | None) -> None:
    assert BY_ID[claim].published(task) == published


def test_claims_are_about_systems_of_the_params() -> None:
    params = YAML(typ="safe").load(Path(__file__).parents[2] / "params.yaml")["systems"]
    known = {*params["baseline"], *params["trained"], "short_answers"}
    assert {name for claim in CLAIMS for name in (claim.left, claim.right)} <= known
    assert set(claims.UNTRAINED) == set(params["baseline"])
    assert len(BY_ID) == len(CLAIMS)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [([140, 141, 139], "holds"), ([60, 61, 59], "opposite"), ([100, 104, 98], "undecided"), ([100, 100, 100], "undecided")],
)
def test_a_verdict_is_the_sign_of_a_difference_that_is_not_chance(ours: list[int], verdict: str) -> None:
    row = one("latents", {"uniform": right(*ours), "answer_only": right(100, 99, 101)})
    assert row.verdict == verdict
    assert row.difference == pytest.approx(100 * (sum(ours) - 300) / 3 / N)
    assert row.low is not None
    assert row.high is not None
    assert row.low <= row.difference <= row.high
    assert (row.seeds, row.note) == (3, "")


def test_three_seeds_that_disagree_decide_nothing() -> None:
    """+40, +5 and -5 points: of these models the difference is certain, of the method it is not."""
    row = one("latents", {"uniform": right(180, 110, 90), "answer_only": right(100, 100, 100)})
    assert row.verdict == "undecided"
    assert row.p is not None
    assert row.p > 0.05


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing_and_say_so(seeds: int) -> None:
    row = one("latents", {"uniform": right(*[180] * seeds), "answer_only": right(*[20] * seeds)})
    assert (row.verdict, row.p, row.seeds) == ("undecided", None, seeds)
    assert row.note == f"{seeds} of the 3 seeds needed"
    assert row.difference == pytest.approx(80)


def test_a_trained_system_of_one_seed_decides_nothing_beside_three_of_the_other() -> None:
    row = one("latents", {"uniform": right(180, 181, 179), "answer_only": right(20)})
    assert (row.verdict, row.seeds) == ("undecided", 1)


def test_a_base_model_needs_no_seeds_of_its_own() -> None:
    rng = np.random.default_rng(0)
    base, saved = rng.integers(900, 1500, (1, N)), rng.integers(200, 400, (3, N))
    row = one("tokens_base", {}, {"base": base, "uniform": base - saved})
    assert (row.verdict, row.seeds, row.published) == ("holds", 3, -374)
    assert row.difference == pytest.approx(-saved.mean())
    more = one("tokens_base", {}, {"base": base, "uniform": base + saved})
    assert more.verdict == "opposite"


def test_a_claim_whose_systems_are_not_there_says_what_to_run() -> None:
    row = one("longer_answers", {"uniform": right(100, 100, 100)})
    assert (row.verdict, row.difference, row.published) == ("undecided", None, 3.0)
    assert row.note == "needs short_answers: add to systems in params.yaml, then run dvc repro"


def test_rows_are_corrected_for_those_that_can_be_decided() -> None:
    # 10 discordant questions of three equal seeds: p = 2 / 2^10, below the t-test's; two decidable rows, so times 2
    systems = {"uniform": right(110, 110, 110), "answer_only": right(100, 100, 100), "sft": right(100, 100, 100)}
    rows = verdicts([BY_ID[name] for name in ("latents", "beyond_sft", "longer_answers")], {"gsm8k": systems}, {})
    alone = one("latents", systems)
    assert alone.p is not None
    assert [row.p for row in rows] == [pytest.approx(2 * alone.p), pytest.approx(2 * alone.p), None]


def test_every_claim_has_a_row_on_every_benchmark_of_the_run() -> None:
    systems: dict[str, Any] = {"uniform": right(100)}
    rows = verdicts(CLAIMS, {"gsm8k": systems, "tooluse": systems}, {})
    assert [(row.claim.id, row.task) for row in rows] == [
        (claim.id, task) for claim in CLAIMS for task in ("gsm8k", "tooluse")
    ]
    assert all(row.note.startswith("needs ") and row.verdict == "undecided" for row in rows)


def test_a_claim_of_fewer_tokens_and_one_of_more_right_turn_on_opposite_signs() -> None:
    tokens = {"uniform": 1000.0 + right(100, 101, 99), "sft": 1000.0 + right(140, 141, 139)}
    assert one("tokens_sft", {}, tokens).verdict == "holds"
    assert one("beyond_sft", {"uniform": right(100, 101, 99), "sft": right(140, 141, 139)}).verdict == "opposite"


def test_a_claim_is_in_points_unless_it_says_tokens() -> None:
    assert Claim("id", "words", "uniform", "base").published("gsm8k") == 5.9  # 83.2 - 77.3
