from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from artifact_folders import published

from qthink_core.artifacts import teachers
from qthink_core.method.teachers import REWARD_WEIGHTED, UNIFORM, all_teachers, average, teacher, weights

K, D, G = 6, 32, 16


def states(seed: int = 0, n: int = G) -> np.ndarray:
    """Hidden states as they are: of mean 0 and size 1 to 30."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, K, D)) * rng.uniform(1, 30, D)).astype(np.float32)


def test_a_wrong_rollout_weighs_as_much_as_a_right_one() -> None:
    assert weights([1, 0, 0, 1], UNIFORM, "skip") == ([1, 1, 1, 1], False)
    assert weights([0, 0, 0, 0], UNIFORM, "skip") == ([1, 1, 1, 1], False)


def test_reward_weighting_averages_right_rollouts_alone() -> None:
    assert weights([1, 0, 0, 1], REWARD_WEIGHTED, "skip") == ([1, 0, 0, 1], False)
    assert weights([0, 1], REWARD_WEIGHTED, "uniform") == ([0, 1], False)


def test_without_a_right_rollout_the_teacher_is_uniform_or_missing_as_asked() -> None:
    assert weights([0, 0], REWARD_WEIGHTED, "uniform") == ([1, 1], True)
    assert weights([0, 0], REWARD_WEIGHTED, "skip") is None
    assert weights([], UNIFORM, "uniform") is None
    assert weights([], REWARD_WEIGHTED, "uniform") is None


def test_an_average_by_hand() -> None:
    two = np.array([[[1.0, 2.0]], [[4.0, -2.0]], [[7.0, 9.0]]], np.float32)
    made = teacher(two, [1, 0, 0], UNIFORM, "skip")
    assert made is not None
    assert made.states.tolist() == [[4.0, 3.0]]
    made = teacher(two, [1, 0, 1], REWARD_WEIGHTED, "skip")
    assert made is not None
    assert made.states.tolist() == [[4.0, 5.5]]
    assert made.n_rollouts == 2


@pytest.mark.parametrize("n", [16, 15, 3])
def test_the_order_of_rollouts_does_not_change_a_bit_and_in_float32_it_would(n: int) -> None:
    of_G = states(n, n=n)
    orders = [np.random.default_rng(seed).permutation(n) for seed in range(50)]
    made = average(of_G, [1] * n)
    assert made.dtype == np.float32
    assert all(np.array_equal(average(of_G[order], [1] * n), made) for order in orders)
    in_float32 = [np.add.reduce(of_G[order], axis=0, dtype=np.float32) / np.float32(n) for order in orders]
    changed = np.mean([in_float32[0] != other for other in in_float32[1:]])
    assert changed > 0.1  # between two orders; the design measured 0.72 over all


@pytest.mark.parametrize("n", [16, 15, 3])
def test_the_average_is_the_exact_one(n: int) -> None:
    """In fractions, rounded once; at 15 rollouts one mean of this draw lies halfway between two float32 numbers."""
    of_G = states(3, n=n)
    exact = [float(sum(map(Fraction, column)) / n) for column in of_G.reshape(n, -1).astype(float).T.tolist()]
    assert average(of_G, [1] * n).ravel().tolist() == np.array(exact).astype(np.float32).tolist()


def test_states_stored_in_float16_are_averaged_in_float64_too() -> None:
    of_G = states().astype(np.float16)
    assert np.array_equal(average(of_G, [1] * G), of_G.astype(np.float64).mean(axis=0).astype(np.float32))


def test_the_mean_divides_by_the_rollouts_used_never_by_g() -> None:
    usable = {3: states()[0], 11: states()[1]}  # two of sixteen have a think block
    made, counts = all_teachers({"p": usable}, {"p": dict.fromkeys(range(G), 0)}, ["p"], UNIFORM, "skip")
    assert np.array_equal(made["p"].states, ((usable[3].astype(np.float64) + usable[11]) / 2).astype(np.float32))
    assert made["p"].n_rollouts == 2
    assert counts["teachers"] == 1


def test_rewards_are_matched_by_rollout_index_not_by_place() -> None:
    usable = {11: states()[0], 3: states()[1]}
    rewards = dict.fromkeys(range(G), 0) | {0: 1, 1: 1, 11: 1}  # 0 and 1 are right but have no block
    made, _ = all_teachers({"p": usable}, {"p": rewards}, ["p"], REWARD_WEIGHTED, "skip")
    assert np.array_equal(made["p"].states, usable[11])
    assert made["p"].n_rollouts == 1


def test_a_nan_in_a_rollout_of_weight_0_does_not_matter_and_elsewhere_it_shows() -> None:
    of_G = states(n=3)
    of_G[1] = np.nan
    made = teacher(of_G, [1, 0, 1], REWARD_WEIGHTED, "skip")
    assert made is not None
    assert np.isfinite(made.states).all()
    assert np.isnan(average(of_G, [1, 1, 1])).all()


@pytest.mark.parametrize(
    ("kind", "fallback", "expected"),
    [
        (UNIFORM, "uniform", {"teachers": 2, "fell_back_to_uniform": 0, "no_right_rollout": 0}),
        (REWARD_WEIGHTED, "uniform", {"teachers": 2, "fell_back_to_uniform": 1, "no_right_rollout": 0}),
        (REWARD_WEIGHTED, "skip", {"teachers": 1, "fell_back_to_uniform": 0, "no_right_rollout": 1}),
    ],
)
def test_problems_without_a_teacher_are_counted_by_reason(kind: str, fallback: str, expected: dict[str, int]) -> None:
    found = {"right": {0: states()[0], 2: states()[1]}, "wrong": {1: states()[2]}}
    rewards = {name: {0: 0, 1: 0, 2: int(name == "right")} for name in ("right", "wrong", "blockless")}
    made, counts = all_teachers(found, rewards, ["blockless", "right", "wrong"], kind, fallback)
    assert counts == {"problems": 3, "no_usable_rollout": 1} | expected
    assert len(made) == expected["teachers"]
    assert sum(one.fell_back for one in made.values()) == expected["fell_back_to_uniform"]


def test_written_teachers_are_read_by_the_training_under_their_problems(tmp_path: Path) -> None:
    found = {name: {0: states(index)[0], 1: states(index)[1]} for index, name in enumerate("ab")}
    made, _ = all_teachers(found, {name: {0: 1, 1: 0} for name in "ab"}, ["a", "b"], UNIFORM, "skip")
    read = teachers.read(published(tmp_path, "teachers", {"uniform": teachers.writers(made)}))
    assert sorted(read) == ["a", "b"]
    assert all(np.array_equal(read[name], made[name].states) for name in "ab")


def test_no_teacher_at_all_is_an_empty_artifact(tmp_path: Path) -> None:
    assert teachers.read(published(tmp_path, "teachers", {"uniform": teachers.writers({})})) == {}
