import itertools
import re
from collections import Counter

import numpy as np
import pytest
from imports import ROOT

from qthink_core.artifacts.conditions import JUDGED, NONE, TRAINED
from qthink_core.evidence import verdicts
from qthink_core.evidence.statistics import wilson
from qthink_core.evidence.verdicts import ANSWER_ONLY, BETTER, SUBSTITUTES, UNDECIDED, WORSE, judge, rule

N = 200
K, PROBED = 6, "K=6"
SAME, LESS, MORE = 100, 60, 140  # questions right, of 200, the first ones: 40 discordant ones are p = 2e-12


def right(count: int, S: int = 1) -> np.ndarray:
    return np.tile(np.arange(N) < count, (S, 1))


def judged(none: int, control: int, S: int = 1, **substitutes: int) -> verdicts.Verdict:
    """The verdict on a system with 100 of 200 right in each of S trainings, from the number right under the rest."""
    conditions = {TRAINED: SAME, PROBED: SAME, NONE: none, **dict.fromkeys(SUBSTITUTES, LESS), **substitutes}
    return judge({name: right(count, S) for name, count in conditions.items()}, K, right(control, S))


def every_outcome() -> list[dict[str, str]]:
    names = (NONE, *SUBSTITUTES, ANSWER_ONLY)
    return [dict(zip(names, found, strict=True)) for found in itertools.product([BETTER, UNDECIDED, WORSE], repeat=6)]


def test_the_parameters_insist_on_the_conditions_of_the_rule() -> None:
    assert (NONE, *SUBSTITUTES) == JUDGED


def test_every_outcome_has_one_verdict() -> None:
    """3^6 outcomes: a third each worse and undecided against K=0; of the rest, one in 81 is better than every substitute."""
    assert Counter(rule(outcomes)[2] for outcomes in every_outcome()) == {
        "harmful": 243,
        "idle": 243,
        "earns": 1,
        "helps as pauses": 80,
        "used but not better": 81,
        "used but worse": 81,
    }


def test_the_table_in_the_docstring_is_the_rule() -> None:
    table = (verdicts.__doc__ or "").partition("    content      ")[2].splitlines()
    rows = [re.split(r"  +", line.strip()) for line in table[1:5]]
    assert {
        (row[0], worth): word for row in rows for worth, word in zip([BETTER, UNDECIDED, WORSE], row[1:], strict=True)
    } == (verdicts.VERDICTS)


@pytest.mark.parametrize(
    ("none", "control", "substitutes", "content", "word"),
    [
        (LESS, LESS, {}, "information", "earns"),
        (LESS, SAME, {}, "information", "used but not better"),
        (LESS, MORE, {}, "information", "used but worse"),
        (LESS, LESS, {"mean": SAME}, "positions", "helps as pauses"),
        (LESS, LESS, {"zeros": MORE}, "positions", "helps as pauses"),
        (LESS, SAME, dict.fromkeys(SUBSTITUTES, SAME), "positions", "used but not better"),
        (LESS, MORE, {"noise": SAME}, "positions", "used but worse"),
        (SAME, LESS, {}, "nothing", "idle"),
        (SAME, SAME, dict.fromkeys(SUBSTITUTES, SAME), "nothing", "idle"),
        (MORE, LESS, {}, "harm", "harmful"),
        (MORE, MORE, dict.fromkeys(SUBSTITUTES, MORE), "harm", "harmful"),
    ],
)
def test_answers_give_the_content_and_the_verdict(
    none: int, control: int, substitutes: dict[str, int], content: str, word: str
) -> None:
    found = judged(none, control, S=3, **substitutes)
    assert (found.content, found.word) == (content, word)
    assert found.sentence.startswith(verdicts.HEADLINES[word])


def test_the_sentence_states_the_figures() -> None:
    # 100 right against 60: +20 points; Newcombe's interval has phi (60 * 100 - 100) / (100 sqrt(60 * 140))
    (low, high), (low_less, high_less) = wilson(100, 200), wilson(60, 200)
    phi = (60 * 100 - 100) / (100 * np.sqrt(60 * 140))

    def together(one: float, other: float) -> float:
        return float(np.sqrt(one**2 - 2 * phi * one * other + other**2))

    below, above = together(0.5 - low, high_less - 0.3), together(high - 0.5, 0.3 - low_less)
    interval = f"[{100 * (0.2 - below):+.1f}, {100 * (0.2 + above):+.1f}]"
    assert judged(LESS, SAME, mean=99, noise=MORE).sentence == (
        "The latents are used, but the system is not distinguishably better than without them: "
        "the model needs them, but nothing shows that their content matters. "
        f"The system answers 50.0 % right, +20.0 points {interval} against the same weights without latents; "
        "better than with zeros (+20.0), another question's latents (+20.0); "
        "not distinguishable from the mean latent (+0.5); "
        "worse than with noise (-20.0). "
        "Against the same training without latents: +0.0 points [-1.0, +1.0], p = 1.000 (undecided). "
        "(200 questions, one training: these weights only, a statement about the method needs 3)"
    )


def test_six_comparisons_are_corrected_together() -> None:
    # 8 discordant questions, all one way: p = 2 / 2^8 = 0.0078, below 0.05 alone and 0.047 after six; 7 are 0.0156 and 0.094
    eight, seven = ({name: SAME - fewer for name in SUBSTITUTES} for fewer in (8, 7))
    assert judged(SAME - 8, SAME - 8, **eight).content == "information"
    assert judged(SAME - 7, SAME - 7, **seven).word == "idle"
    assert [row.adjusted for row in judged(SAME - 8, SAME - 8, **eight).rows] == pytest.approx([6 * 2 / 2**8] * 6)


@pytest.mark.parametrize("S", [1, 2, 3])
def test_below_three_trainings_praise_and_blame_are_of_these_weights_only(S: int) -> None:
    words = {
        "earns": judged(LESS, LESS, S),
        "helps as pauses": judged(LESS, LESS, S, mean=SAME),
        "used but worse": judged(LESS, MORE, S),
        "harmful": judged(MORE, LESS, S),
        "used but not better": judged(LESS, SAME, S),
        "idle": judged(SAME, LESS, S),
    }
    assert set(words) == set(verdicts.HEADLINES)
    scoped = ["earns", "helps as pauses", "used but worse", "harmful"] if S < 3 else []
    assert {name: one.word for name, one in words.items()} == {
        name: f"{name}, these weights only" if name in scoped else name for name in words
    }
    assert all(("these weights only" in one.sentence) == (S < 3) for one in words.values())


def test_one_training_of_the_control_says_nothing_of_the_method_either() -> None:
    conditions = {name: right(LESS, 3) for name in (NONE, *SUBSTITUTES)} | dict.fromkeys((TRAINED, PROBED), right(SAME, 3))
    assert judge(conditions, K, right(LESS)).word == "earns, these weights only"


def test_the_page_on_results_has_every_word_of_the_rule() -> None:
    section = (ROOT / "docs/results.md").read_text().partition("## Do the latents do anything?")[2].partition("\n## ")[0]
    words = re.findall(r"^\| ([a-z ]+) \| ", section.partition("| verdict |")[2], re.MULTILINE)
    assert words == list(verdicts.HEADLINES)
    assert "these weights only" in section


def test_worth_counts_the_trainings_and_content_does_not() -> None:
    """Seeds of +60, +5 and -5 points against the control: better as trained (p < 1e-9), but no sign of a better method."""
    conditions = {name: right(0, S=3) for name in (NONE, *SUBSTITUTES)}
    trained = np.vstack([right(180), right(70), right(50)])
    control = np.vstack([right(60), right(60), right(60)])
    found = judge({TRAINED: trained, PROBED: trained, **conditions}, K, control)
    worth = found.rows[-1]
    assert worth.comparison.p < 1e-9
    assert (found.content, found.worth, found.word) == ("information", UNDECIDED, "used but not better")
    assert "(200 questions, 3 trainings)" in found.sentence


def test_other_conditions_have_no_part_in_the_verdict() -> None:
    conditions = {name: right(LESS) for name in (NONE, *SUBSTITUTES)} | {TRAINED: right(SAME), PROBED: right(SAME)}
    shown = {"teacher": right(MORE), "K=1": right(MORE), "K=12": right(0)}
    assert judge(conditions | shown, K, right(LESS)) == judge(conditions, K, right(LESS))


def content_alone(none: int, S: int = 1, **substitutes: int) -> verdicts.Verdict:
    """The verdict without a control."""
    conditions = {TRAINED: SAME, PROBED: SAME, NONE: none, **dict.fromkeys(SUBSTITUTES, LESS), **substitutes}
    return judge({name: right(count, S) for name, count in conditions.items()}, K, None)


@pytest.mark.parametrize(
    ("none", "substitutes", "content", "word", "headline"),
    [
        (LESS, {}, "information", "used", "The latents are used: they carry information"),
        (LESS, {"mean": SAME}, "positions", "used", "The latents are used: the model needs them, but"),
        (SAME, {}, "nothing", "idle", "The latents are idle: they have no measurable effect"),
        (MORE, {}, "harm", "harmful", "The latents are harmful: they cost right answers"),
    ],
)
def test_without_a_control_the_content_alone_is_judged(
    none: int, substitutes: dict[str, int], content: str, word: str, headline: str
) -> None:
    found = content_alone(none, S=3, **substitutes)
    assert (found.content, found.worth, found.word) == (content, None, word)
    assert found.sentence.startswith(headline)
    assert "Not judged: whether the system is better for its latents, which needs a control" in found.sentence
    assert [row.against for row in found.rows] == list(JUDGED)
    # one training limits blame, and says so of everything
    once = content_alone(none, **substitutes)
    assert once.word == (f"{word}, these weights only" if word == "harmful" else word)
    assert once.sentence.endswith("(200 questions, one training: these weights only, a statement about the method needs 3)")


def test_without_a_control_five_comparisons_are_corrected_together() -> None:
    # 7 discordant questions, all one way: p = 2 / 2^7 = 0.0156, above 0.05 after five; 8 are 0.0078 and 0.039
    eight, seven = ({name: SAME - fewer for name in SUBSTITUTES} for fewer in (8, 7))
    assert [row.adjusted for row in content_alone(SAME - 8, **eight).rows] == pytest.approx([5 * 2 / 2**8] * 5)
    assert content_alone(SAME - 8, **eight).content == "information"
    assert content_alone(SAME - 7, **seven).word == "idle"


def test_a_verdict_without_all_its_conditions_is_refused() -> None:
    with pytest.raises(ValueError, match="no answers under K=6, K=0, noise, other, mean: the verdict needs"):
        judge({TRAINED: right(SAME), "zeros": right(SAME)}, K, right(SAME))


def test_either_side_of_a_comparison_is_of_one_engine() -> None:
    """Where `evaluate` decodes otherwise than `probe`: its answers meet the control's, `probe`'s those of other latents."""
    conditions = {name: right(LESS) for name in (NONE, *SUBSTITUTES)} | {TRAINED: right(MORE), PROBED: right(SAME)}
    differences = {row.against: row.comparison.difference for row in judge(conditions, K, right(0)).rows}
    assert differences == {**dict.fromkeys((NONE, *SUBSTITUTES), (SAME - LESS) / N), ANSWER_ONLY: MORE / N}
