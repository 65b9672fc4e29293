"""The axes of arrays: one letter each, in annotations (`Float[Tensor, "B K D"]`) and at the end of names (`states_PKD`).

An axis has one length within a call of a function; the tests check the annotations at run time (tests/shape_checks.py).
With an underscore (`_S`), the check ignores the axis, and the function itself raises an error that names the mismatch.
"""

AXES = {
    "B": "rows of a batch",
    "C": "tokens of a context: those in the cache and the new ones",
    "D": "numbers of a hidden state",
    "G": "rollouts of one problem",
    "K": "latent steps",
    "N": "rollouts or completions, of all problems",
    "P": "problems",
    "Q": "questions of a test set",
    "R": "positions whose hidden states are read",
    "S": "training runs of a system, one for each seed",
    "T": "tokens",
    "U": "distinct texts among the unfinished completions",
    "V": "tokens of the vocabulary",
}
