"""Pairs of a number of positions K and the rule that places them. Pairs name hidden states and teachers in artifacts."""

from pathlib import Path
from typing import Literal, NamedTuple

# The choices of `extract.positions`; method/positions.py has a function for each.
Rule = Literal["even", "running"]


class Pair(NamedTuple):
    """K positions by a rule; the latent steps of a row of the table learn to match the hidden states there."""

    K: int
    positions: str

    @property
    def folder(self) -> str:
        """The name of this pair's folder inside an artifact, unless it is the shared pair."""
        return f"K{self.K}-{self.positions}"

    def inside(self, artifact: Path, shared: "Pair") -> Path:
        """The folder of this pair in an artifact: the top for the shared pair, `folder` inside it for any other."""
        return artifact if self == shared else artifact / self.folder
