"""The report: one table as in the paper, for every benchmark and system, and the files that DVC compares and plots."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts import write_file
from qthink_core.errors import DataError
from qthink_core.grading import Graded, read_grades

SYSTEM_NAMES = {
    "base": "Base, thinking",
    "base_direct": "Base, not thinking",
    "sft": "SFT on think + answer",
    "answer_only": "SFT on the answer only",
    "uniform": "QThink uniform per-step",
    "reward_weighted": "QThink reward-weighted per-step",
    "final_step": "Reward-weighted final-step (CODI)",
}


class Cell(NamedTuple):
    """A system on a benchmark: accuracy in [0, 1], its standard error, questions, mean tokens, share at the limit."""

    accuracy: float
    standard_error: float
    n: int
    mean_tokens: float
    hit_limit: float


def cell(rows: Sequence[Graded]) -> Cell:
    """The cell of all answers of one system to the whole test set; a verdict other than `right` counts as wrong.

    The standard error is that of a proportion, sqrt(p (1 - p) / n). Tokens are those generated: thinking and answer,
    without latent steps.
    """
    n = len(rows)
    accuracy = sum(row.right for row in rows) / n
    return Cell(
        accuracy,
        math.sqrt(accuracy * (1 - accuracy) / n),
        n,
        sum(row.n_tokens for row in rows) / n,
        sum(row.finish == "length" for row in rows) / n,
    )


def read_cells(grades: Mapping[str, Path], systems: Sequence[str]) -> dict[str, dict[str, Cell]]:
    """The cells by benchmark and system; raises DataError when a system was not graded."""
    cells: dict[str, dict[str, Cell]] = {}
    for task, folder in grades.items():
        rows: dict[str, list[Graded]] = {}
        for row in read_grades(folder):
            rows.setdefault(row.system, []).append(row)
        missing = [system for system in systems if system not in rows]
        if missing:
            raise DataError(f"{folder} has no grades of {', '.join(missing)}: run `dvc repro grade@{task}`")
        cells[task] = {system: cell(rows[system]) for system in systems}
    return cells


def read_curves(adapters: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The losses of every training by task and system."""
    return {
        task: {system: json.loads((folder / "losses.json").read_bytes()) for system, folder in systems.items()}
        for task, systems in adapters.items()
    }


def write(
    folder: Path,
    cells: Mapping[str, Mapping[str, Cell]],
    further: Mapping[str, Mapping[str, Mapping[str, float]]],
    curves: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
    settings: Mapping[str, Any],
) -> list[Path]:
    """Writes the table, the metrics and the plots, and returns their paths."""
    made_with = "Made with " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."
    names = {system: SYSTEM_NAMES.get(system, system) for system in next(iter(cells.values()))}
    files = {
        "table.md": (table(cells, names, made_with) + further_scores(further, names)).encode(),
        "accuracy.json": metrics_json(cells),
        "tokens.csv": tokens_csv(cells),
    }
    for task, systems in curves.items():
        for system, losses in systems.items():
            files[f"losses/{task}-{system}.csv"] = losses_csv(losses)
    for name, content in files.items():
        write_file(folder / name, content)
    return [folder / name for name in files]


def table(cells: Mapping[str, Mapping[str, Cell]], names: Mapping[str, str], made_with: str) -> str:
    """The table as Markdown, a row per system and a column per benchmark, and the line that says how it was made."""
    tasks = list(cells)
    head = ["system", *(f"{task} (n={_n(cells[task])})" for task in tasks)]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for system, name in names.items():
        row = [_show(cells[task][system]) for task in tasks]
        lines.append("| " + " | ".join([name, *row]) + " |")
    explained = "Accuracy in per cent ± standard error; mean generated tokens; share of answers that hit the token limit."
    return "\n".join([*lines, "", explained, "", made_with, ""])


def _n(systems: Mapping[str, Cell]) -> int:
    return next(iter(systems.values())).n


def _show(one: Cell) -> str:
    accuracy = f"{100 * one.accuracy:.1f} ± {100 * one.standard_error:.1f}"
    return f"{accuracy}; {one.mean_tokens:.0f} tokens; {100 * one.hit_limit:.1f} %"


def accuracies(cells: Mapping[str, Mapping[str, Cell]]) -> dict[str, dict[str, float]]:
    """{benchmark: {system: accuracy}} for `dvc metrics`."""
    return {task: {system: round(one.accuracy, 6) for system, one in row.items()} for task, row in cells.items()}


def read_further(grades: Mapping[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """The further scores of a benchmark that has some, as shares of all its questions, by benchmark and system."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for task, folder in grades.items():
        held: dict[str, list[dict[str, bool]]] = {}
        for row in read_grades(folder):
            held.setdefault(row.system, []).append(json.loads(row.details))
        keys = sorted({key for rows in held.values() for one in rows for key in one})
        if keys:
            found[task] = {
                system: {key: sum(one.get(key, False) for one in rows) / len(rows) for key in keys}
                for system, rows in held.items()
            }
    return found


def further_scores(further: Mapping[str, Mapping[str, Mapping[str, float]]], names: Mapping[str, str]) -> str:
    """A small table below the main one for each benchmark with several scorers (Tooluse), in per cent of all questions."""
    lines = []
    for task, systems in further.items():
        keys = list(next(iter(systems.values())))
        head = [f"{task}, all scorers", *(key.replace("_", " ") for key in keys)]
        lines += ["", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for system, name in names.items():
            lines.append("| " + " | ".join([name, *(f"{100 * systems[system][key]:.1f}" for key in keys)]) + " |")
    return "\n".join([*lines, ""]) if lines else ""


def tokens_csv(cells: Mapping[str, Mapping[str, Cell]]) -> bytes:
    """One row per benchmark and system, for `dvc plots`."""
    rows = [
        {
            "cell": f"{task} {system}",
            "benchmark": task,
            "system": system,
            "mean_tokens": round(one.mean_tokens, 3),
            "hit_limit": round(one.hit_limit, 6),
            "accuracy": round(one.accuracy, 6),
        }
        for task, systems in cells.items()
        for system, one in systems.items()
    ]
    return to_csv(rows)


def losses_csv(losses: Sequence[Mapping[str, Any]]) -> bytes:
    """One row per step of a training: cross-entropy (nats a token), distillation, and the distance at each latent step."""
    rows = []
    for step in losses:
        distances = {f"distance_{k}": value for k, value in enumerate(step.get("distance", []), 1)}
        found = {"step": step["step"], "cross_entropy": step["cross_entropy"]}
        if "distillation" in step:
            found["distillation"] = step["distillation"]
        rows.append({key: _short(value) for key, value in (found | distances).items()})
    return to_csv(rows)


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """CSV with a header of every column that occurs, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def metrics_json(cells: Mapping[str, Mapping[str, Cell]]) -> bytes:
    """The metrics file, sorted, with a newline at its end."""
    return (json.dumps(accuracies(cells), indent=2, sort_keys=True) + "\n").encode()
