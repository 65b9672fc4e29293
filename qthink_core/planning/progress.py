"""The progress of a run of many boxes: how many are done, and the time left, estimated from the finished ones."""

from collections.abc import Mapping, Set
from typing import NamedTuple

# The share of all work that counts as done in the expected time, because the first small box predicts large ones badly.
PRIOR = 0.1


class Rest(NamedTuple):
    """The unfinished boxes: those that wait, and those that run, with the seconds since their start."""

    waiting: Set[str]
    running: Mapping[str, float]


class Estimate:
    """The seconds left, from the expected seconds of each box and the measured seconds of the finished boxes.

    `needs` are the boxes that a box waits for. Expected seconds need only be right relative to each other: they are scaled
    by measured/expected of the finished boxes, to which PRIOR is added from the start.
    """

    def __init__(self, expected: Mapping[str, float], needs: Mapping[str, Set[str]], jobs: int) -> None:
        self.expected = dict(expected)
        self.needs = needs
        self.jobs = jobs
        self.took: dict[str, float] = {}
        self.paths: dict[str, float] = {}
        for box in expected:
            self.path(box)

    def path(self, box: str) -> float:
        """Expected seconds from the start of a box to the end of the longest chain of boxes that begins with it."""
        if box not in self.paths:
            after = [self.path(other) for other in self.expected if box in self.needs.get(other, ())]
            self.paths[box] = self.expected[box] + max(after, default=0.0)
        return self.paths[box]

    def finished(self, box: str, seconds: float) -> None:
        """Records the seconds that a box took."""
        self.took[box] = seconds

    def left(self, rest: Rest) -> float:
        """Seconds until the last box ends: the work divided by the number of jobs, but at least the longest chain."""
        prior = PRIOR * sum(self.expected.values())
        scale = (sum(self.took.values()) + prior) / (sum(self.expected[box] for box in self.took) + prior)
        still = {box: max(self.expected[box] * scale - seconds, 0.0) for box, seconds in rest.running.items()}
        work = sum(still.values()) + scale * sum(self.expected[box] for box in rest.waiting)
        chains = [scale * self.paths[box] for box in rest.waiting]
        chains += [scale * (self.paths[box] - self.expected[box]) + seconds for box, seconds in still.items()]
        return max(work / self.jobs, *chains, 0.0)


def duration(seconds: float) -> str:
    """Seconds in words: `45 s`, `3 min 10 s`, `1 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """An estimate in words, rounded to 5 s, or to 10 s from a minute up, or to a minute from ten minutes up."""
    step = 5 if seconds < 60 else 10 if seconds < 600 else 60
    return f"about {duration(max(step, step * round(seconds / step)))}"


def line(done: int, boxes: int, elapsed: float, left: float) -> str:
    """`[ 34/81 boxes, 3 min 10 s; about 2 min 40 s left ]`."""
    rest = f"; {about(left)} left" if done < boxes else ""
    return f"[ {done:{len(str(boxes))}}/{boxes} boxes, {duration(elapsed)}{rest} ]"
