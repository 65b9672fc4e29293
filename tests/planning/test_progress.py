"""How much is left: by hand for a few boxes, and in words."""

import pytest

from qthink_core.planning.progress import Estimate, Rest, about, duration, line

# a, then b and c beside each other, then d
NEEDS = {"a": frozenset(), "b": frozenset("a"), "c": frozenset("a"), "d": frozenset("bc")}
EXPECTED = {"a": 10.0, "b": 4.0, "c": 6.0, "d": 1.0}


def estimate(jobs: int) -> Estimate:
    return Estimate(EXPECTED, NEEDS, jobs)


def test_the_path_of_a_box_is_the_longest_chain_that_begins_with_it() -> None:
    assert estimate(2).paths == {"a": 17.0, "b": 5.0, "c": 7.0, "d": 1.0}


def test_one_job_has_the_sum_before_it_and_several_no_less_than_the_longest_chain() -> None:
    everything = Rest(set(EXPECTED), {})
    assert estimate(1).left(everything) == 21.0
    assert estimate(2).left(everything) == 17.0  # 21 / 2 is less than a, c, d one after another


def test_the_rest_is_scaled_by_what_the_finished_boxes_took() -> None:
    found = estimate(1)
    # a tenth of 21 expected seconds counts as done in time
    found.finished("a", 20.0)
    assert found.left(Rest({"b", "c", "d"}, {})) == pytest.approx(22.1 / 12.1 * (4 + 6 + 1))
    found.finished("b", 2.0)
    assert found.left(Rest({"c", "d"}, {})) == pytest.approx(24.1 / 16.1 * (6 + 1))


def test_a_running_box_has_left_what_it_has_not_yet_run_and_never_less_than_nothing() -> None:
    found = estimate(2)
    found.finished("a", 10.0)
    assert found.left(Rest({"d"}, {"b": 1.0, "c": 1.0})) == 6.0  # 5 of c, then d
    assert found.left(Rest({"d"}, {"b": 100.0, "c": 100.0})) == 1.0
    assert found.left(Rest(set(), {"d": 5.0})) == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (190.2, "3 min 10 s"), (3599, "59 min 59 s"), (3900, "1 h 5 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "5 s"), (13, "15 s"), (58, "1 min"), (164, "2 min 40 s"), (166, "2 min 50 s"), (700, "12 min")],
)
def test_an_estimate_is_said_no_finer_than_it_is_known(seconds: float, words: str) -> None:
    assert about(seconds) == f"about {words}"


def test_the_line_says_what_is_done_and_what_is_left_until_nothing_is() -> None:
    assert line(4, 81, 190, 160) == "[  4/81 boxes, 3 min 10 s; about 2 min 40 s left ]"
    assert line(81, 81, 400, 0) == "[ 81/81 boxes, 6 min 40 s ]"
