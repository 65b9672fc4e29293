"""One module per benchmark, and the dispatch between them.

The docstring of each module documents its source, licence, prompt, extraction and equality. Each module defines `FIELDS`
(those of a row that it reads), `NEEDED` (of each group a row has at least one), `FILES`, `problem`, `gold`, `gold_answer`,
`extract` and `grade`. Model text is treated as hostile: nothing in it is evaluated,
lengths are limited before anything is parsed, and computer algebra runs in a process that can be killed.
"""

from collections.abc import Mapping
from typing import Protocol

from qthink_core.benchmarks.graders import gsm8k, math500, tooluse
from qthink_core.benchmarks.graders.contract import Grade, Problem, PublishedFile, Verdict
from qthink_core.benchmarks.graders.text import without_thought
from qthink_core.errors import ParamError

__all__ = ["BENCHMARKS", "Grade", "Problem", "PublishedFile", "Verdict", "grade", "grader", "without_thought"]


class Grader(Protocol):
    """The interface of a benchmark's module; contract.py has the types."""

    FIELDS: tuple[str, ...]
    NEEDED: tuple[tuple[str, ...], ...]
    FILES: dict[str, PublishedFile]

    def problem(self, row: Mapping[str, object], index: int, split: str, task: str = ...) -> Problem: ...
    def gold(self, given: object, where: str) -> str: ...
    def gold_answer(self, problem: Problem) -> str: ...
    def extract(self, answer: str) -> str | None: ...
    def grade(self, gold: str, answer: str) -> Grade: ...


_GRADERS: dict[str, Grader] = {"gsm8k": gsm8k, "math500": math500, "tooluse": tooluse}

BENCHMARKS = tuple(_GRADERS)


def grader(task: str) -> Grader:
    """The module of a benchmark; raises ParamError where the name is unknown."""
    if task not in _GRADERS:
        raise ParamError(f"no benchmark is called {task!r}: choose one of {', '.join(BENCHMARKS)}")
    return _GRADERS[task]


def grade(task: str, gold: str, answer: str) -> Grade:
    """The grade of a model's text, thought included, against a gold; any text gets a verdict."""
    return grader(task).grade(gold, answer)
