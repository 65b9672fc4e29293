"""The axes of arrays: one letter each, in annotations (`Float[Tensor, "B K D"]`) and at the end of names (`states_PKD`).

An axis has one length within a call of a function; the tests check the annotations at run time (tests/shape_checks.py).
With an underscore (`_S`), the check ignores the axis, and the function itself raises an error that names the mismatch.
"""

AXES = {
    "A": "heads of queries",
    "B": "rows of a batch",
    "C": "tokens of a context: those in the cache and the new ones",
    "D": "numbers of a hidden state",
    "E": "numbers of a query or a key of one head",
    "F": "numbers of a value of one head",
    "G": "rollouts of one problem",
    "H": "heads of keys and values; several heads of queries may share one",
    "K": "latent steps",
    "L": "places of a padded batch, in one row",
    "M": "queries that read the same keys",
    "N": "rollouts or completions, of all problems",
    "P": "problems",
    "Q": "questions of a test set",
    "R": "positions whose hidden states are read",
    "S": "training runs of a system, one for each seed",
    "T": "tokens",
    "U": "distinct texts among the unfinished completions",
    "V": "tokens of the vocabulary",
    "W": "tokens of the longest row of a batch",
}
