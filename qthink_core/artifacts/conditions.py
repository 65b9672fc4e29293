"""The names of the conditions under which a system answers: as trained, or with its latents replaced."""

from typing import Literal, get_args

TRAINED = "trained"
# What replaces the latents: nothing, zeros, Gaussian noise, the latents of another question, their mean, or the output of
# the head for the teacher's states (generation/interventions.py).
Replaced = Literal["K=0", "zeros", "noise", "other", "mean", "teacher"]
NONE, ZEROS, NOISE, OTHER, MEAN, TEACHER = REPLACED = get_args(Replaced)
# The conditions that the verdict on the latents compares the trained system with (evidence/verdicts.py).
JUDGED = (NONE, ZEROS, NOISE, OTHER, MEAN)


def steps_condition(K: int) -> str:
    """The name of the condition in which a system takes K latent steps, where K may differ from the trained number."""
    return f"K={K}"
