"""The axes of arrays. Each has one letter, in annotations (`Float[Tensor, "B K D"]`) and at the end of names (`states_PKD`).

Within a call of a function, an axis has one length: the tests check the annotations at run time (tests/shape_checks.py).
With an underscore (`_S`), the function itself compares the lengths and says what does not match.
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
    "S": "trainings of a system, one for each seed",
    "T": "tokens",
    "U": "distinct texts among the unfinished completions",
    "V": "tokens of the vocabulary",
}
