from typing import Any

from qthink_core.evidence.fairness import footnotes, marks

FAIR: dict[str, Any] = {"answer_max_tokens": 256, "epochs": 3, "seeds": [0, 1, 2], "max_new_tokens": 2048}
LATENT: dict[str, Any] = {**FAIR, "gamma": 2.0, "K": 6}


def test_the_published_final_step_run_is_marked_for_its_shorter_answers_and_its_gamma() -> None:
    found = marks(
        {
            "sft": FAIR,
            "uniform": LATENT,
            "reward_weighted": LATENT,
            "final_step": LATENT | {"answer_max_tokens": 128, "gamma": 1.0},
        }
    )
    assert found == {
        "sft": [],
        "uniform": [],
        "reward_weighted": [],
        "final_step": ["trained with answers of at most 128 tokens, the others 256", "gamma 1.0, the others 2.0"],
    }


def test_systems_that_share_all_they_have_are_not_marked() -> None:
    assert marks({"base": {"max_new_tokens": 2048}, "sft": FAIR, "uniform": LATENT}) == {
        "base": [],
        "sft": [],
        "uniform": [],
    }
    assert marks({}) == {}


def test_of_equally_common_values_that_of_the_first_row_is_the_reference() -> None:
    two, three = {"epochs": 2}, {"epochs": 3}
    marked = ["trained for 3 epochs, others 2"]
    assert marks({"a": two, "b": three, "c": three, "d": two}) == {"a": [], "b": marked, "c": marked, "d": []}
    assert marks({"b": three, "a": two})["a"] == ["trained for 2 epochs, the others 3"]


def test_the_most_common_value_is_the_reference_wherever_it_stands() -> None:
    found = marks({"a": {"seeds": [0]}, "b": {"seeds": [0, 1]}, "c": {"seeds": [0, 1]}, "d": {"seeds": [1]}})
    assert found == {"a": ["seeds 0, others 0, 1"], "b": [], "c": [], "d": ["seeds 1, others 0, 1"]}


def test_a_setting_counts_among_those_that_have_it() -> None:
    """Three systems without latents do not outvote the two that have a gamma."""
    found = marks({"base": {}, "sft": {}, "answer_only": {}, "uniform": {"gamma": 2.0}, "final_step": {"gamma": 1.0}})
    assert found["final_step"] == ["gamma 1.0, the others 2.0"]
    assert not found["base"]


def test_a_setting_without_words_of_its_own_is_named() -> None:
    assert marks({"a": {"weight_decay": 0.0}, "b": {"weight_decay": 0.01}})["b"] == ["weight decay 0.01, the others 0.0"]


def test_equal_marks_share_a_footnote_in_the_order_of_the_rows() -> None:
    signs, lines = footnotes(
        {"a": [], "b": ["gamma 1.0, others 2.0"], "c": ["K 3, others 6"], "d": ["gamma 1.0, others 2.0"]}
    )
    assert signs == {"b": "¹", "c": "²", "d": "¹"}
    assert lines == ["¹ gamma 1.0, others 2.0", "² K 3, others 6"]
    assert footnotes({"a": []}) == ({}, [])
