"""This run beside the committed one: the same bytes, or which cells differ by more than chance, and which verdicts.

Results repeat to rounding, and a training amplifies rounding: on another processor a cell can be off by some questions. So
accuracies are compared as the table's are (statistics.py): exact paired tests on the same questions, the trainings counted
where there are several, Holm's correction over all cells.
"""

import csv
import io
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

BACK = (
    "dvc.lock and results/ hold this run now. To be able to come back to it: git commit -m 'This machine' dvc.lock results. "
    "To have the committed figures again: git restore dvc.lock results."
)
# After the boxes of some tasks alone, whose table goes to a folder of its own.
PART = (
    "dvc.lock holds the boxes of this run now, {folder}/ its table, and results/ is as it was. "
    "To have the committed dvc.lock again: git restore dvc.lock."
)


class Cell(NamedTuple):
    """A system on a task whose accuracy differs; shares, and the corrected p-value."""

    task: str
    system: str
    ours: float
    committed: float
    p: float


def compared(root: Path, folder: Path, results: Path, tasks: Sequence[str], control: str, K: Mapping[str, int]) -> str:
    """Sentences on how the run in `folder` compares with `results` as the last commit has them."""
    if git(root, "rev-parse", "--verify", "HEAD") is None:
        return "Nothing is committed here that this run could be compared with."
    if git(root, "diff", "--quiet", "HEAD", "--", "params.yaml", "params") is None:
        return "The parameters are not the committed ones, so this run was not compared with the committed one."
    same = git(root, "diff", "--quiet", "HEAD", "--", "dvc.lock", str(results)) is not None
    files = {task: git(root, "show", f"HEAD:./{results}/verdicts/{task}.csv") for task in tasks}
    if same and None not in files.values():
        return "All outputs are the committed ones to the byte."
    back = BACK if folder == results else PART.format(folder=folder)
    pairs = [
        (task, parsed((root / folder / "verdicts" / f"{task}.csv").read_bytes()), parsed(text))
        for task, text in files.items()
        if text is not None
    ]
    if len(pairs) < len(files) or any(ours.ids != theirs.ids or not alike(ours, theirs) for _, ours, theirs in pairs):
        return f"The committed results are of other tasks, systems, seeds or questions: not compared. {back}"
    return f"{cells(pairs)} {words(pairs, control, K)}\n{back}"


class Verdicts(NamedTuple):
    """The questions of a task, and right or not by system and condition: a row per training seed, a column per question."""

    ids: list[str]
    right: Mapping[tuple[str, str], list[list[bool]]]


def parsed(text: bytes) -> Verdicts:
    """The verdicts in a file of results/verdicts (report_data.verdicts_csv); condition `` is the system as trained."""
    head, *rows = csv.reader(io.StringIO(text.decode()))
    right: dict[tuple[str, str], list[list[bool]]] = {}
    for column, name in enumerate(head[1:], 1):
        system, _, rest = name.partition(":")
        seed, _, condition = rest.partition(":")
        if not seed.isdecimal():
            condition = rest
        right.setdefault((system, condition), []).append([row[column] == "r" for row in rows])
    return Verdicts([row[0] for row in rows], right)


def alike(ours: Verdicts, theirs: Verdicts) -> bool:
    """Whether both are of the same systems, conditions and numbers of seeds."""
    return {key: len(rows) for key, rows in ours.right.items()} == {key: len(rows) for key, rows in theirs.right.items()}


def cells(pairs: Sequence[tuple[str, Verdicts, Verdicts]]) -> str:
    """How many accuracies of the table differ, and which of them by more than chance."""
    found, count = differing(pairs)
    if not found:
        return f"All {count} accuracies are the committed ones, though not every byte is."
    start = f"{len(found)} of {count} accuracies {'differs' if len(found) == 1 else 'differ'} from the committed ones"
    beyond = [one for one in found if one.p < 0.05]
    if not beyond:
        return f"{start}, none distinguishably (paired tests, Holm's correction over all {count}, 0.05)."
    listed = [f"{one.task} {one.system} {100 * one.ours:.1f} % (committed {100 * one.committed:.1f} %)" for one in beyond]
    return f"{start}, distinguishably (paired tests, Holm's correction over all {count}, 0.05): {', '.join(listed)}."


def differing(pairs: Sequence[tuple[str, Verdicts, Verdicts]]) -> tuple[list[Cell], int]:
    """The cells whose accuracies differ, with p-values corrected over all cells, and how many cells there are."""
    import numpy as np

    from qthink_core.evidence.statistics import compare, holm

    keys = [(task, system, ours, theirs) for task, ours, theirs in pairs for system, name in ours.right if not name]
    tests = [
        compare(np.array(ours.right[system, ""]), np.array(theirs.right[system, ""])) for _, system, ours, theirs in keys
    ]
    adjusted = holm([one.p_method for one in tests])
    found = [
        Cell(task, system, float(np.mean(ours.right[system, ""])), float(np.mean(theirs.right[system, ""])), p)
        for (task, system, ours, theirs), p in zip(keys, adjusted, strict=True)
    ]
    return [one for one in found if one.ours != one.committed], len(found)


def words(pairs: Sequence[tuple[str, Verdicts, Verdicts]], control: str, K: Mapping[str, int]) -> str:
    """Which verdicts on the latents are others than the committed ones."""
    both = [(task, judged(ours, control, K), judged(theirs, control, K)) for task, ours, theirs in pairs]
    others = [
        f"{task} {system} {word} (committed: {theirs[system]})"
        for task, ours, theirs in both
        for system, word in ours.items()
        if word != theirs[system]
    ]
    count = sum(len(ours) for _, ours, _ in both)
    if not others:
        return f"All {count} verdicts on the latents are the committed ones."
    return f"{len(others)} of {count} verdicts on the latents differ: {', '.join(others)}."


def judged(found: Verdicts, control: str, K: Mapping[str, int]) -> dict[str, str]:
    """The verdict's word for each latent system; K has their latent steps."""
    import numpy as np

    from qthink_core.artifacts.completions import TRAINED
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


def git(root: Path, *arguments: str) -> bytes | None:
    """What a Git command says; None where it fails or there is no Git."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
