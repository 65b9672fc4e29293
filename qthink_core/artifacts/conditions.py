"""The conditions under which a system answers, by name: as it was trained, or with its latents changed."""

from typing import Literal, get_args

TRAINED = "trained"
# What can take the place of the latents: nothing, zeros, Gaussian noise, those of another question, their mean, or what
# the head makes of the teacher's states (generation/interventions.py).
Replaced = Literal["K=0", "zeros", "noise", "other", "mean", "teacher"]
NONE, ZEROS, NOISE, OTHER, MEAN, TEACHER = REPLACED = get_args(Replaced)
# What the verdict on the latents compares the system with (evidence/verdicts.py).
JUDGED = (NONE, ZEROS, NOISE, OTHER, MEAN)


def steps_condition(K: int) -> str:
    """The name of the condition in which a system takes K latent steps, the trained number or another one."""
    return f"K={K}"
