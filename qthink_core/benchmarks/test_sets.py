"""Further test sets of a task: questions that its systems answer and nobody trains on, read by the benchmark's grader.

They come from a folder or from the hub, like the published splits. No torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from qthink_core.benchmarks import problems, usable
from qthink_core.benchmarks.data_entries import Entry, SetEntry
from qthink_core.benchmarks.graders.contract import Problem, Reason
from qthink_core.benchmarks.usable import Usable, squeezed
from qthink_core.errors import DataError

LEAST = 2  # questions of a set, as of every scored split


class Sets(NamedTuple):
    """The problems of each test set, sorted by id, what the manifest says about each, and what to print, or ""."""

    problems: dict[str, list[Problem]]
    about: dict[str, dict[str, Any]]
    said: str


def gather(
    task: str,
    entry: Entry,
    known: Mapping[str, SetEntry],
    training: Sequence[Problem],
    source: Literal["generated", "folder", "hub"],
    folder: str,
    n_test: int | Literal["all"],
    max_left_out: int,
    seed: int,
) -> Sets:
    """The problems of the sets that the entry names in `also`: of each at most `n_test`, by their rank under the seed.

    A question of `training`, all rows from which the training problems are chosen, is left out of the set: this changes no
    training, and no system is scored on what it may have learnt by heart. One that differs only in case and punctuation is
    kept and counted as `near_overlap`. Raises DataError where a set as a whole cannot be read (`usable.of_place`), where
    more rows of it are left out than its limit, and where fewer than two are left.
    """
    chosen: dict[str, list[Problem]] = {}
    about: dict[str, dict[str, Any]] = {}
    said: list[str] = []
    for name in entry.also:
        place = known[name]
        found = usable.of_set(task, name, place, None if source == "hub" and place.repo else Path(folder))
        found = found.without(trained(found, training))
        limit, key = max_left_out, "prepare.max_left_out"
        if place.max_left_out is not None:
            limit, key = place.max_left_out, f"test_sets.{name}.max_left_out"
        usable.check_limit([found], limit, f"Fix or drop them, or raise {key} ({limit})")
        if len(found.problems) < LEAST:
            left = f"{len(found.problems)} of {found.total} rows of {found.source} can be used as questions"
            raise DataError(f"{left}, expected {LEAST} or more: add rows, or take {name} out of data.{task}.also")
        n = len(found.problems) if n_test == "all" else min(n_test, len(found.problems))
        chosen[name] = problems.select(found.problems, n, seed)
        near = problems.nearly_in(chosen[name], training)
        about[name] = found.described() | {"near_overlap": near}
        said.append(problems.about_rows(name, found, place))
        said.append(f"{near} of {name} are nearly in training" if near else "")
    return Sets(chosen, about, "; ".join(filter(None, said)))


def trained(found: Usable, training: Sequence[Problem]) -> dict[str, tuple[Reason, str]]:
    """Why questions of a set must be left out, by id: the training set asks them, too (ignoring whitespace)."""
    asked = {squeezed(problem.question): problem.id for problem in training}
    return {
        one.id: ("in the training set", f"asks the question of {twin} of the training set: drop it from one of them")
        for one in found.problems
        if (twin := asked.get(squeezed(one.question))) is not None
    }
