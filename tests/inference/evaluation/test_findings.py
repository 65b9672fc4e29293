"""The verdict of an audit on so few questions that no outcome is possible."""

import pytest

from qthink_core.artifacts.conditions import JUDGED, TRAINED
from qthink_core.benchmarks.graders.contract import Problem
from qthink_core.inference.evaluation.evaluate import MODEL
from qthink_core.inference.evaluation.findings import CONTROL, Audit, findings
from qthink_core.inference.evaluation.page import page
from qthink_core.inference.evaluation.questions import Questions
from qthink_core.inference.evaluation.verdict_file import Line


def audited(n: int, *, right: bool, with_control: bool) -> Audit:
    """An audit of n questions, all right as trained; without its latents and for the control, all right or all wrong."""
    keys = [(MODEL, TRAINED), *((MODEL, name) for name in JUDGED), *([(CONTROL, TRAINED)] if with_control else [])]
    lines = [
        Line(*key, f"q{i}", "right" if right or key == (MODEL, TRAINED) else "wrong", "1", "1", "It is 1.", 4, "stop", {})
        for key in keys
        for i in range(n)
    ]
    asked = Questions("gsm8k", [Problem(f"q{i}", "Who?", "1", None) for i in range(n)], "a file", "")
    return findings(lines, "model", asked, 6, 8, {}, {})


@pytest.mark.parametrize("with_control", [False, True])
@pytest.mark.parametrize("n", range(2, 11))
def test_the_latents_are_called_idle_only_where_another_verdict_was_possible(n: int, with_control: bool) -> None:
    """100 % against 0 % is the largest difference, and the verdict on it shows what n questions can tell."""
    largest = audited(n, right=False, with_control=with_control).verdict
    none = audited(n, right=True, with_control=with_control).verdict
    if all(row.outcome == "undecided" for row in largest.rows):
        assert n < 8
        assert largest.word == none.word == "too few questions to tell"
        assert largest.content == none.content == "undecided"
    else:
        assert n >= 8
        assert "too few" not in largest.word
        assert (none.word, none.content) == ("idle", "nothing")
        assert none.sentence.startswith("The latents are idle: they have no measurable effect.")


def test_the_headline_and_sentence_say_how_many_questions_are_needed() -> None:
    done = audited(6, right=False, with_control=False)
    assert done.verdict.sentence.startswith(
        "Too few questions to tell: no answers to 6 questions could give a p-value below 0.05 after Holm's correction; at "
        "least 8 questions are needed. The system answers 100.0 % right, +100.0 points"
    )
    assert "idle" not in done.text()
    assert b"<h1>Too few questions to tell</h1>" in page(done)
