"""Teachers: for each problem and latent step, the average of the hidden states of the problem's rollouts."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from qthink_core.artifacts.teachers import Teacher

UNIFORM, REWARD_WEIGHTED = "uniform", "reward_weighted"


def weights(rewards: Sequence[int], kind: str, no_right_rollout: str) -> tuple[list[int], bool] | None:
    """The weight of each usable rollout, and whether the fallback was used; None when the problem gets no teacher.

    `uniform`: each rollout has weight 1, right or wrong. `reward_weighted`: the weight is r in {0, 1}. When no rollout is
    right, `no_right_rollout` decides: `uniform` falls back to weight 1 each, `skip` gives no teacher (model card;
    decision 5).
    """
    everyone = [1] * len(rewards)
    if not everyone:
        return None
    if kind == UNIFORM:
        return everyone, False
    if any(rewards):
        return list(rewards), False
    return (everyone, True) if no_right_rollout == UNIFORM else None


def average(states: Iterable[Float[np.ndarray, "K D"]], weights: Sequence[int]) -> Float[np.ndarray, "K D"]:
    """The weighted mean sum_g w_g * h_g / sum_g w_g, summed in float64 in the order given and returned as float32.

    In float32, most elements of the sum would depend on the order of the rollouts (decision 6). Dividing before the sum in
    float64 would still make a few elements depend on it, where the mean is halfway between two float32 numbers. A rollout
    of weight 0 is skipped, so that even a NaN in it has no effect.
    """
    total: Float[np.ndarray, "K D"] | None = None
    for state, weight in zip(states, weights, strict=True):
        if weight:
            part = state.astype(np.float64) * weight
            total = part if total is None else total + part
    assert total is not None, "an average needs at least one rollout of positive weight"
    return (total / sum(weights)).astype(np.float32)


def teacher(states: Float[np.ndarray, "G K D"], rewards: Sequence[int], kind: str, no_right_rollout: str) -> Teacher | None:
    """The teacher of one problem from the states of its usable rollouts in canonical order, or None if it gets none."""
    chosen = weights(rewards, kind, no_right_rollout)
    if chosen is None:
        return None
    used = sum(weight > 0 for weight in chosen[0])
    return Teacher(average(states, chosen[0]), used, chosen[1])


def all_teachers(
    states: Mapping[str, Mapping[int, Float[np.ndarray, "K D"]]],
    rewards: Mapping[str, Mapping[int, int]],
    problem_ids: Sequence[str],
    kind: str,
    no_right_rollout: str,
) -> tuple[dict[str, Teacher], dict[str, int]]:
    """The teachers by problem id, and counts of problems, teachers, fallbacks, and problems without a teacher by reason.

    `states` and `rewards` are by problem id and rollout index. A problem has no teacher when none of its rollouts is usable,
    or when none is right and `no_right_rollout` is `skip`.
    """
    made: dict[str, Teacher] = {}
    counts = {
        "problems": 0,
        "teachers": 0,
        "fell_back_to_uniform": 0,
        "no_usable_rollout": 0,
        "no_right_rollout": 0,
    }
    for name in problem_ids:
        counts["problems"] += 1
        if name not in states:
            counts["no_usable_rollout"] += 1
            continue
        usable = sorted(states[name])
        states_GKD = np.stack([states[name][rollout] for rollout in usable])
        one = teacher(states_GKD, [rewards[name][rollout] for rollout in usable], kind, no_right_rollout)
        if one is None:
            counts["no_right_rollout"] += 1
            continue
        counts["teachers"] += 1
        counts["fell_back_to_uniform"] += one.fell_back
        made[name] = one
    return made, counts
