"""Numbers of latent steps, positions and conditions, from the checked parameters."""

from collections.abc import Mapping
from typing import Any


def latent_steps(tree: Mapping[str, Any], system: str) -> int:
    """The latent steps of a row: its own number or the shared one, 0 for a row without latent steps."""
    row = tree["systems"]["distilled"].get(system)
    return 0 if row is None else int(row.get("K") or tree["K"])


def n_positions(tree: Mapping[str, Any]) -> int:
    """How many positions of a rollout `extract` reads: those that rows share, and those of each further pair."""
    return int(tree["K"] + sum(pair["K"] for pair in tree["extract"]["also"]))


def n_conditions(tree: Mapping[str, Any], system: str) -> int:
    """How many answers `probe` gives to a question: one under each condition, one after each number of steps."""
    how = tree["probe"]
    return len(how["conditions"]) + max(how["sweep"] * latent_steps(tree, system), 1)
