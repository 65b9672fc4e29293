"""Pairs: how many positions of a thought are read, and by which rule. They name hidden states and teachers in artifacts."""

from pathlib import Path
from typing import Literal, NamedTuple

# The choices of `extract.positions`; method/positions.py has a function for each.
Rule = Literal["even", "running"]


class Pair(NamedTuple):
    """K positions by a rule: what a row's latent steps learn to match."""

    K: int
    positions: str

    @property
    def folder(self) -> str:
        """The folder, inside an artifact, of a pair that is not the shared one, which lies at the top."""
        return f"K{self.K}-{self.positions}"

    def inside(self, artifact: Path, shared: "Pair") -> Path:
        """Where this pair lies in an artifact whose top is of the shared pair."""
        return artifact if self == shared else artifact / self.folder
