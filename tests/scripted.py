"""A reasoner whose answers are written in a test, for what a model would say only by chance, or without an end."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

PIECE_S = 0.005


class Scripted:
    """Answers questions from a mapping, piece by piece, and counts the answers that are made at the same time."""

    def __init__(self, answers: Mapping[str, Iterable[str]], readout: Sequence[Any] = (), seconds: float = PIECE_S) -> None:
        self.answers, self.readout, self.seconds = answers, readout, seconds
        self.running = self.most = self.started = 0
        self.closed = threading.Event()

    def stream(self, question: str, **settings: Any) -> "Stream":
        """The answer to a question, as `LatentReasoner.stream` gives it."""
        self.running += 1
        self.started += 1
        self.most = max(self.most, self.running)
        return Stream(self, self.answers[question])


class Stream(Iterator[str]):
    """An answer in the making."""

    def __init__(self, reasoner: Scripted, pieces: Iterable[str]) -> None:
        self.reasoner, self.pieces, self.readout = reasoner, iter(pieces), reasoner.readout
        self.response = SimpleNamespace(new_tokens=3, latent_steps=len(self.readout), seconds=0.125, finish="stop")

    def __next__(self) -> str:
        time.sleep(self.reasoner.seconds)
        return next(self.pieces)

    def close(self) -> None:
        """Ends the answer."""
        self.reasoner.running -= 1
        self.reasoner.closed.set()
