"""This run compared with the committed one: the same bytes, or which accuracies and verdicts differ by more than chance.

The tests are those of report/compare.py.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from qthink_core.evidence.significance import ALPHA
from qthink_core.pipeline.code import STAGE
from qthink_core.report import compare
from qthink_core.report.revisions import Verdicts, git, verdicts_of
from qthink_core.running.dvc_jobs import LOCK, outputs

BACK = (
    "dvc.lock and results/ hold this run now. To keep it: git commit -m 'This machine' dvc.lock results. "
    "To restore the committed figures: git restore dvc.lock results."
)
# For a run of some tasks, whose table goes to a separate folder.
PART = (
    "dvc.lock holds the boxes of this run now, {folder}/ holds its table, and results/ is unchanged. "
    "To restore the committed dvc.lock: git restore dvc.lock."
)


def compared(root: Path, folder: Path, results: Path, tasks: Sequence[str], control: str, K: Mapping[str, int]) -> str:
    """Sentences that compare the run in `folder` with the `results` of the last commit."""
    if git(root, "rev-parse", "--verify", "HEAD") is None:
        return "There is no commit to compare this run with."
    if git(root, "diff", "--quiet", "HEAD", "--", "params.yaml", "params") is None:
        return (
            "The parameters differ from the committed ones, so this run was not compared with the committed one: "
            "`qthink compare` lists what differs."
        )
    unchanged = git(root, "diff", "--quiet", "HEAD", "--", str(results)) is not None
    before, now = git(root, "show", f"HEAD:./{LOCK}") or b"", (root / LOCK).read_bytes()
    files = {task: git(root, "show", f"HEAD:./{results}/verdicts/{task}.csv") for task in tasks}
    if unchanged and made(before) == made(now) != {} and None not in files.values():
        equal = "All outputs equal the committed ones, byte for byte."
        again = f"{LOCK} differs elsewhere, such as in digests of code: commit it with that code, or `git restore {LOCK}`."
        return equal if before == now else f"{equal} {again}"
    if not any(files.values()):
        return f"The last commit holds no {results}/verdicts of these tasks to compare this run with."
    back = BACK if folder == results else PART.format(folder=folder)
    theirs = {task: verdicts_of(text) for task, text in files.items() if text is not None}
    ours = {task: verdicts_of((root / folder / "verdicts" / f"{task}.csv").read_bytes()) for task in tasks}
    if theirs.keys() != ours.keys() or not all(alike(ours[task], theirs[task]) for task in tasks):
        return f"The committed results have other tasks, systems, seeds or questions, so they were not compared. {back}"
    return f"{accuracies(theirs, ours)} {verdicts(theirs, ours, control, K)}\n{back}"


def made(lock: bytes) -> dict[bytes, bytes]:
    """The outputs in a dvc.lock that are results; those of `fingerprint` are digests of the code."""
    return {box: found for box, found in outputs(lock).items() if box != STAGE.encode()}


def alike(ours: Verdicts, theirs: Verdicts) -> bool:
    """Whether both have the same questions, systems, conditions and numbers of seeds."""
    seeds = [{key: len(rows) for key, rows in one.right.items()} for one in (ours, theirs)]
    return ours.ids == theirs.ids and seeds[0] == seeds[1]


def accuracies(committed: Mapping[str, Verdicts], ours: Mapping[str, Verdicts]) -> str:
    """A sentence on how many accuracies of the table differ, and which of them by more than chance."""
    found = compare.cells(committed, ours)
    differing = [one for one in found if one.before != one.after]
    count = len(found)
    if not differing:
        return f"All {count} accuracies equal the committed ones, though not every byte does."
    start = (
        f"{len(differing)} of {count} accuracies {'differs' if len(differing) == 1 else 'differ'} from the committed ones"
    )
    tests = f"(paired tests, Holm's correction over all {count}, {ALPHA})"
    beyond = [
        f"{one.task} {one.system} {100 * (one.after or 0):.1f} % (committed {100 * (one.before or 0):.1f} %)"
        for one in differing
        if one.beyond_chance
    ]
    return f"{start}, distinguishably {tests}: {', '.join(beyond)}." if beyond else f"{start}, none distinguishably {tests}."


def verdicts(committed: Mapping[str, Verdicts], ours: Mapping[str, Verdicts], control: str, K: Mapping[str, int]) -> str:
    """A sentence on the verdicts on the latents that differ from the committed ones."""
    before, after = (compare.judged_words(run, control, K) for run in (committed, ours))
    others = [f"{' '.join(one.name)} {one.after} (committed: {one.before})" for one in compare.changes(before, after)]
    if not others:
        return f"All {len(after)} verdicts on the latents equal the committed ones."
    differ = "differs" if len(others) == 1 else "differ"
    return f"{len(others)} of {len(after)} verdicts on the latents {differ}: {', '.join(others)}."
