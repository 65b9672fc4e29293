"""A comparison of two runs: accuracies, verdicts on the latents, mean tokens and parameters that differ.

Results repeat up to rounding, which a training amplifies: on another processor a cell can differ by some questions.
Accuracies are therefore compared as in the table (evidence/statistics.py): by exact paired tests on the same questions, with
the variance between trainings if there are several, and Holm's correction over all cells of both runs that can be tested.
"""

import contextlib
import functools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.errors import printable
from qthink_core.evidence.significance import ALPHA
from qthink_core.pipeline import parameters
from qthink_core.pipeline.graph import parameter_classes
from qthink_core.report import revisions
from qthink_core.report.revisions import OF_SET, Run, Verdicts

# Parameters of `prepare` that do not affect the questions of the tasks themselves.
NO_QUESTION = ("cpu_threads", "cpu_kernels", "test_sets")
OTHER_QUESTIONS, OTHER_SEEDS, ONE_SIDE = "other questions", "other training seeds", "in one run only"


class Cell(NamedTuple):
    """The accuracies of a system on a task before and after, None in a run without it.

    `p` is corrected for the number of cells; it is None if the two cannot be tested, and `untested` says why.
    """

    task: str
    system: str
    before: float | None
    after: float | None
    p: float | None = None
    untested: str = ""

    @property
    def difference(self) -> float | None:
        """The accuracy after minus the accuracy before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the difference is distinguishable from zero; None if that was not tested."""
        return None if self.p is None else self.p < ALPHA


class Change(NamedTuple):
    """Another value that differs between the runs; None on a side where it is missing."""

    name: tuple[str, ...]
    before: Any
    after: Any


class Compared(NamedTuple):
    """All cells of two runs, and the verdicts, mean tokens and parameters that differ, with the total numbers."""

    before: str
    after: str
    cells: list[Cell]
    verdicts: list[Change]
    n_verdicts: int
    tokens: list[Change]
    n_tokens: int
    parameters: list[Change]


def compare(root: Path, before: str, after: str | None) -> Compared:
    """A revision compared with another one, or with the workspace if `after` is None.

    Raises ParamError for a revision that does not exist, and DataError for one whose results are incomplete.
    """
    sides = [
        revisions.revision(root, before),
        revisions.workspace(root) if after is None else revisions.revision(root, after),
    ]
    return of_runs(*(revisions.read(root, one) for one in sides))


def of_runs(before: Run, after: Run) -> Compared:
    """The comparison of two runs."""
    words = words_of(before), words_of(after)
    tokens = _flat(before.tokens), _flat(after.tokens)
    settings = _settings(before.params), _settings(after.params)
    return Compared(
        before.name,
        after.name,
        cells(before.verdicts, after.verdicts, other_questions(before, after)),
        changes(*words),
        len({**words[0], **words[1]}),
        changes(*tokens),
        len({**tokens[0], **tokens[1]}),
        changes(*settings),
    )


def cells(
    before: Mapping[str, Verdicts], after: Mapping[str, Verdicts], other_questions: Collection[str] = ()
) -> list[Cell]:
    """The cells of both runs; tasks with other questions are not tested, and p-values are corrected over the rest."""
    import numpy as np

    from qthink_core.evidence import statistics

    found: list[Cell] = []
    tested, p_values = [], []
    for task in {**before, **after}:
        sides = [run[task].right if task in run else {} for run in (before, after)]
        for system in dict.fromkeys(name for side in sides for name, condition in side if not condition):
            rows = [side.get((system, "")) for side in sides]
            means = [None if one is None else float(np.mean(one)) for one in rows]
            left, right = rows
            why = ""
            if left is None or right is None:
                why = ONE_SIDE
            elif task in other_questions or before[task].ids != after[task].ids:
                why = OTHER_QUESTIONS
            elif len(left) != len(right):
                why = OTHER_SEEDS
            else:
                tested.append(len(found))
                p_values.append(statistics.compare(np.array(right), np.array(left)).p_method)
            found.append(Cell(task, system, means[0], means[1], untested=why))
    for index, p in zip(tested, statistics.holm(p_values), strict=True):
        found[index] = found[index]._replace(p=p)
    return found


def other_questions(before: Run, after: Run) -> list[str]:
    """The tasks whose questions may differ despite equal ids, because parameters that affect the questions differ."""
    wanted = parameters.patterns(parameter_classes()["prepare"]) | {("split",)}
    trees = [parameters.prune(run.params, wanted) for run in (before, after)]
    sets = [tree.get("test_sets") for tree in trees]
    unread = (*NO_QUESTION, *(f"data.{task}.also" for tree in trees for task in tree.get("data") or {}))
    left, right = (functools.reduce(parameters.without, unread, tree) for tree in trees)
    both = [task for task in before.verdicts if task in after.verdicts]
    return [task for task in both if left != right or (OF_SET in task and sets[0] != sets[1])]


def words_of(run: Run) -> dict[tuple[str, ...], str]:
    """The verdict's word by task and latent system.

    A system without a condition of the rule has none, and neither has a task without the control.
    """
    control = (run.params.get("report") or {}).get("control")
    found: dict[tuple[str, ...], str] = {}
    for task, one in run.verdicts.items():
        for system in {name for name, _ in one.right}:
            K = run.latents.get(task, {}).get(system) or run.params.get("K")
            only = one._replace(right={key: rows for key, rows in one.right.items() if key[0] in (system, control)})
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found |= judged_words({task: only}, control, {system: K})
    return dict(sorted(found.items()))


def judged_words(run: Mapping[str, Verdicts], control: Any, K: Any) -> dict[tuple[str, ...], str]:
    """The verdict's word by task and latent system; raises KeyError and ValueError as `judged` does."""
    return {(task, system): word for task, one in run.items() for system, word in judged(one, control, K).items()}


def judged(found: Verdicts, control: str, K: Mapping[str, int]) -> dict[str, str]:
    """The verdict's word for each latent system; `K` has the latent steps of each.

    Raises KeyError when the control is missing, and ValueError when a condition of the rule is.
    """
    import numpy as np

    from qthink_core.artifacts.conditions import TRAINED
    from qthink_core.evidence import verdicts

    return {
        system: verdicts.judge(
            {name or TRAINED: np.array(rows) for (other, name), rows in found.right.items() if other == system},
            K[system],
            np.array(found.right[control, ""]),
        ).word
        for system, condition in found.right
        if condition == verdicts.NONE
    }


def changes(before: Mapping[tuple[str, ...], Any], after: Mapping[tuple[str, ...], Any]) -> list[Change]:
    """The entries that differ between the two sides."""
    names = [name for name in {**before, **after} if name not in before or name not in after or before[name] != after[name]]
    return [Change(name, before.get(name), after.get(name)) for name in names]


def _flat(tokens: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, ...], float]:
    return {(task, system): value for task, row in tokens.items() for system, value in row.items()}


def _settings(tree: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Parameters as JSON text, so that a null differs from a missing parameter."""
    return {(".".join(leaf),): _as_json(parameters.value(tree, ".".join(leaf))) for leaf in parameters.leaves(tree)}


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def text(found: Compared) -> str:
    """The comparison in sentences and Markdown tables, without control characters."""
    differing = [one for one in found.cells if one.before != one.after]
    beyond = [one for one in differing if one.beyond_chance]
    tested = sum(one.p is not None for one in found.cells)
    count = _of(len(differing), len(found.cells), "accuracies")
    if differing and tested:
        count += f", {len(beyond)} beyond chance (paired tests, Holm's correction over all {tested} tested, {ALPHA})"
    rows = [
        [one.task, one.system, _share(one.before), _share(one.after), _points(one.difference), _beyond(one)]
        for one in differing
    ]
    parts = [
        f"{found.before} compared with {found.after}",
        _listed(count, ["benchmark", "system", "before", "after", "difference", "beyond chance"], rows),
        _changed(_of(len(found.verdicts), found.n_verdicts, "verdicts on the latents"), found.verdicts),
        _changed(_of(len(found.tokens), found.n_tokens, "mean numbers of tokens"), found.tokens),
        _changed(_parameters(len(found.parameters)), found.parameters, "parameter"),
    ]
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in parts)


def _of(differing: int, count: int, what: str) -> str:
    return f"{differing or 'None'} of {count} {what} differ" + "s" * (differing == 1)


def _parameters(count: int) -> str:
    return "1 parameter differs" if count == 1 else f"{count or 'No'} parameters differ"


def _changed(count: str, rows: Sequence[Change], *head: str) -> str:
    head = head or ("benchmark", "system")
    return _listed(count, [*head, "before", "after"], [[*one.name, _value(one.before), _value(one.after)] for one in rows])


def _listed(count: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(line)} |" for line in rows]
    return "\n".join([f"{count}.", *(["", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines] if lines else [])])


def _value(value: Any) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _points(difference: float | None) -> str:
    return "–" if difference is None else f"{100 * difference:+.1f}"


def _beyond(cell: Cell) -> str:
    return f"not tested: {cell.untested}" if cell.p is None else "yes" if cell.beyond_chance else "no"


def as_json(found: Compared) -> str:
    """The comparison for programs: shares, corrected p-values, and null for what is missing in one run or was not tested."""
    return json.dumps(
        {
            "before": found.before,
            "after": found.after,
            "accuracies": [
                {
                    "benchmark": one.task,
                    "system": one.system,
                    "before": one.before,
                    "after": one.after,
                    "difference": one.difference,
                    "p": one.p,
                    "beyond_chance": one.beyond_chance,
                    "untested": one.untested or None,
                }
                for one in found.cells
                if one.before != one.after
            ],
            "verdicts": [_entry(one, "benchmark", "system") for one in found.verdicts],
            "tokens": [_entry(one, "benchmark", "system") for one in found.tokens],
            "parameters": [
                {"name": one.name[0]}
                | {side: json.loads(value) for side, value in (("before", one.before), ("after", one.after)) if value}
                for one in found.parameters
            ],
        },
        indent=2,
    )


def _entry(one: Change, *names: str) -> dict[str, Any]:
    return dict(zip(names, one.name, strict=True)) | {"before": one.before, "after": one.after}
