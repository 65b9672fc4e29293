"""The report: the findings of a run, read from its artifacts and written as a table, a page and files for programs."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts import answers, prepared, readout
from qthink_core.artifacts.conditions import TRAINED
from qthink_core.artifacts.files import write_file
from qthink_core.artifacts.grades import graded_sets, read_grades
from qthink_core.evidence import analysis, scores
from qthink_core.evidence.fairness import marks
from qthink_core.evidence.findings import Answered, Cell, Findings, Question, System
from qthink_core.report.exports import called, losses_csv, metrics_json, tokens_csv, verdicts_csv, with_sets
from qthink_core.report.markdown import markdown
from qthink_core.report.page import page
from qthink_core.report.params import SYSTEM_NAMES, Outline


class Folders(NamedTuple):
    """Where the artifacts of one benchmark are: folders of problems, test sets and grades, the others by system.

    Adapters are by system and training seed.
    """

    problems: Path
    test_sets: Path
    grades: Path
    adapters: Mapping[str, Mapping[int, Path]]
    answers: Mapping[str, Path]
    probes: Mapping[str, Path]


def find(folders: Mapping[str, Folders], outline: Outline) -> Findings:
    """All findings of a run; `folders` are by task.

    Raises DataError when a system of the outline has no grades, or the control is not in the run.
    """
    tasks = {task: scores.read(one.grades, list(outline.settings)) for task, one in folders.items()}
    latent = {system for one in folders.values() for system in one.probes}
    compared = analysis.comparisons(tasks)
    return Findings(
        scale=outline.made_with["scale"],
        setting=f"{outline.model} on {problems(folders)}",
        made_with=outline.made_with,
        K=outline.K,
        distance=outline.distance,
        systems=systems(outline, latent),
        cells={task: cells(found, latent, outline) for task, found in tasks.items()},
        control=outline.control if outline.control in outline.settings else None,
        direct=outline.direct if outline.direct in outline.settings else None,
        repeats_published=outline.published_model and all(prepared.published(one.problems) for one in folders.values()),
        comparisons=compared,
        power=analysis.power(tasks, latent, outline.control, len(compared)),
        curves={task: curves(one) for task, one in folders.items()},
        conditions={
            task: {name: analysis.conditions(tasks[task], name, outline.steps(name), outline.control) for name in one.probes}
            for task, one in folders.items()
            if one.probes
        },
        claims=analysis.claimed(tasks, outline.steps),
        questions=[
            question
            for task, one in folders.items()
            for question in questions(task, one, tasks[task], outline.split, outline.questions)
        ],
        further=analysis.further(tasks),
        test_sets={
            task: {name: cells(found, latent, outline) for name, found in of_sets(one, outline.settings).items()}
            for task, one in folders.items()
            if graded_sets(one.grades)
        },
    )


def cells(found: scores.Task, latent: Collection[str], outline: Outline) -> dict[str, Cell]:
    """The cell of each system as trained."""
    return {
        name: scores.cell(by_condition[TRAINED], outline.steps(name) if name in latent else 0)
        for name, by_condition in found.scores.items()
    }


def of_sets(folders: Folders, systems: Iterable[str]) -> dict[str, scores.Task]:
    """The scores on each further test set of a task."""
    return {name: scores.read(folders.grades, list(systems), name) for name in graded_sets(folders.grades)}


def problems(folders: Mapping[str, Folders]) -> str:
    """What kind of problems these are, in words."""
    if all(prepared.about(one.problems)["source"] == "generated" for one in folders.values()):
        return "generated problems"
    own = [task for task, one in folders.items() if not prepared.published(one.problems)]
    return f"problems of the user's own ({', '.join(own)})" if own else "the published problems"


def systems(outline: Outline, latent: set[str]) -> dict[str, System]:
    """The rows of the table: names, which of them take latent steps, and the settings in which they differ."""
    differs = marks(outline.settings)
    return {
        name: System(SYSTEM_NAMES.get(name, name), name in latent, differs[name], own.get("K"), own.get("distance"))
        for name, own in outline.settings.items()
    }


def curves(folders: Folders) -> dict[str, list[dict[str, Any]]]:
    """The losses of every trained system, from its lowest training seed."""
    return {name: read_losses(by_seed[min(by_seed)]) for name, by_seed in folders.adapters.items()}


def read_losses(adapter: Path) -> list[dict[str, Any]]:
    """The losses of every step of a training."""
    return json.loads((adapter / "losses.json").read_bytes())


def questions(task: str, folders: Folders, found: scores.Task, split: str, count: int) -> list[Question]:
    """The first questions by id, with every system's answer from its lowest seed and the readout of each latent step."""
    asked = {row["id"]: row for row in prepared.read(folders.problems, split)}
    by_system = {system: answers_of_lowest_seed(folder) for system, folder in folders.answers.items()}
    verdicts = {
        (row.system, row.problem_id): (row.verdict, row.extracted)
        for row in read_grades(folders.grades)
        if row.condition == TRAINED and row.seed == found.seeds[row.system][0]
    }
    readouts = {system: readout.read(folder, found.first_seed(system)) for system, folder in folders.probes.items()}

    def answered(system: str, one: str) -> Answered:
        answer = by_system[system][one]
        read = readouts.get(system, {}).get(one, ())
        return Answered(answer.text, *verdicts[system, one], len(answer.tokens), answer.finish, read)

    return [
        Question(
            task,
            one,
            asked[one]["question"],
            asked[one]["gold"],
            {system: answered(system, one) for system in by_system},
        )
        for one in found.ids[:count]
    ]


def answers_of_lowest_seed(folder: Path) -> dict[str, answers.Answer]:
    """The answers of a system's lowest training seed, by problem."""
    rows = answers.read(folder)
    return {row.problem_id: row for row in rows if row.seed == rows[0].seed}


def write(folder: Path, findings: Findings, folders: Mapping[str, Folders]) -> list[Path]:
    """Writes the table, the page, the metrics, the plots and every verdict; returns their paths, the table first."""
    files = {
        "table.md": markdown(findings).encode(),
        "report.html": page(findings),
        "accuracy.json": metrics_json(with_sets(findings)),
        "tokens.csv": tokens_csv(with_sets(findings)),
    }
    for task, one in folders.items():
        files[f"verdicts/{task}.csv"] = verdicts_csv(scores.read(one.grades, list(findings.systems)))
        for name, found in of_sets(one, findings.systems).items():
            files[f"verdicts/{called(task, name)}.csv"] = verdicts_csv(found)
        for system, by_seed in one.adapters.items():
            for seed, adapter in by_seed.items():
                files[f"losses/{task}-{system}-{seed}.csv"] = losses_csv(read_losses(adapter))
    for name, content in files.items():
        write_file(folder / name, content)
    return [folder / name for name in files]
