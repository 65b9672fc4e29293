"""The questions of a task with the answers of one system, as CSV for a spreadsheet.

Model text is hostile: control characters, direction marks and invisible characters are replaced by their code points
(display.plain), and a cell that a spreadsheet could take for a formula begins with an apostrophe.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qthink_core.artifacts import answers, grades, prepared
from qthink_core.artifacts.answers import Answer
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.store import MAIN, MANIFEST, of_set, read_manifest
from qthink_core.errors import DataError, ParamError
from qthink_core.pipeline.stage import read_params
from qthink_core.report.display import plain

COLUMNS = ("problem_id", "question", "gold", "answer", "verdict", "extracted", "tokens", "finish")
# Excel and LibreOffice evaluate a cell that begins with one of these, also in their wide forms and after blanks.
FORMULA = tuple("=+-@＝＋－＠")


def to_csv(root: Path, task: str, system: str, seed: int | None, condition: str, test_set: str = MAIN) -> str:
    """A header and a row per question: id, question, gold, answer, verdict, extracted answer, tokens, reason of its end.

    Without a `seed`, the answers are those of the lowest training seed. With a `test_set` the questions are those of that
    set. Raises ParamError for a task, system, seed, condition or set that the run does not have, and DataError when an
    artifact is missing or damaged.
    """
    params = read_params(root, "report")
    folders = params.folders()
    _known("task", task, folders, "params.yaml")
    own = folders[task]
    _known("system", system, own.answers, "params.yaml")
    if condition != TRAINED and system not in own.probes:
        raise ParamError(f"{system} takes no latent steps, so {condition!r:.80} was not tried: leave out --condition")
    folder = own.answers[system] if condition == TRAINED else own.probes[system]
    further = test_set != MAIN
    problems = own.test_sets if further else own.problems
    for needed in (problems, own.grades, folder):
        if not (root / needed / MANIFEST).is_file():
            raise DataError(f"{needed} is missing: run `dvc repro grade@{task}`")
        read_manifest(root / needed)
    if further:
        _known("test set", test_set, dict.fromkeys(grades.graded_sets(root / own.grades)), f"data.{task}.also")
        if condition != TRAINED:
            raise ParamError(f"no condition but {TRAINED} was tried on {test_set}: leave out --condition")
    rows = _of_seed(answers.read(root / folder, test_set), system, seed, condition)
    graded = {
        row.problem_id: row
        for row in grades.read_grades(root / own.grades, test_set)
        if (row.system, row.seed, row.condition) == (system, rows[0].seed, condition)
    }
    asked = of_set(test_set, prepared.TEST) if further else params.split
    questions = {row["id"]: row for row in prepared.read(root / problems, asked)}
    if not {row.problem_id for row in rows} <= graded.keys() & questions.keys():
        raise DataError(f"{own.grades} and {folder} have different questions or seeds: run `dvc repro grade@{task}`")
    return written([_row(row, questions[row.problem_id], graded[row.problem_id]) for row in rows])


def _known(what: str, name: str, known: Mapping[str, Any], where: str) -> None:
    if name not in known:
        raise ParamError(f"there is no {what} {name!r:.80}: {where} has {', '.join(known) or 'none'}")


def _of_seed(rows: Sequence[Answer], system: str, seed: int | None, condition: str) -> list[Answer]:
    conditions = sorted({row.condition for row in rows})
    if condition not in conditions:
        raise ParamError(
            f"there is no condition {condition!r:.80} of {system}: there is {', '.join([TRAINED, *conditions])}"
        )
    rows = [row for row in rows if row.condition == condition]
    seeds = sorted({row.seed for row in rows if row.seed is not None})
    if seed is not None and seed not in seeds:
        found = f"the seeds {', '.join(map(str, seeds))}" if seeds else "no training, so leave out --seed"
        raise ParamError(f"there is no training seed {seed} of {system}: it has {found}")
    chosen = seed if seed is not None else rows[0].seed
    return [row for row in rows if row.seed == chosen]


def _row(answer: Answer, problem: prepared.Prompted, grade: grades.Graded) -> tuple[str, ...]:
    return (
        answer.problem_id,
        problem["question"],
        problem["gold"],
        answer.text,
        grade.verdict,
        grade.extracted or "",
        str(len(answer.tokens)),
        answer.finish,
    )


def written(rows: Sequence[Sequence[str]]) -> str:
    """The rows as CSV; every cell is quoted, so that no other separator splits it, and safe to open."""
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([COLUMNS, *([safe(cell) for cell in row] for row in rows)])
    return file.getvalue()


def safe(text: str) -> str:
    """The text with invisible and control characters as code points, and an apostrophe before a possible formula."""
    shown = plain(text)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown
