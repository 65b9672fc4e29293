"""The report's files for programs: metrics, data of plots, and every verdict, from which the report can be recomputed."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from qthink_core.artifacts.conditions import TRAINED
from qthink_core.evidence import scores
from qthink_core.evidence.analysis import place
from qthink_core.evidence.findings import Cell, Findings
from qthink_core.report.revisions import OF_SET

LETTERS = {"right": "r", "wrong": "w", "unparsable": "u", "over_limit": "o", "timeout": "t"}


def called(task: str, test_set: str) -> str:
    """The name of a task's test set in files for programs, where it is a benchmark of its own; no task has a hyphen."""
    return f"{task}{OF_SET}{test_set}"


def with_sets(findings: Findings) -> dict[str, Mapping[str, Cell]]:
    """The cells by benchmark and system, with each further test set as a benchmark after the others."""
    sets = {called(task, name): row for task, found in findings.test_sets.items() for name, row in found.items()}
    return {**findings.cells, **sets}


def metrics_json(cells: Mapping[str, Mapping[str, Cell]]) -> bytes:
    """{benchmark: {system: accuracy}} for `dvc metrics`, sorted, ending in a newline."""
    found = {task: {system: round(one.accuracy, 6) for system, one in row.items()} for task, row in cells.items()}
    return (json.dumps(found, indent=2, sort_keys=True) + "\n").encode()


def tokens_csv(cells: Mapping[str, Mapping[str, Cell]]) -> bytes:
    """One row per benchmark and system, for `dvc plots`."""
    rows = [
        {
            "cell": f"{task} {system}",
            "benchmark": task,
            "system": system,
            "mean_tokens": round(one.mean_tokens, 3),
            "latent_passes": one.latents,
            "hit_limit": round(one.hit_limit, 6),
            "accuracy": round(one.accuracy, 6),
        }
        for task, systems in cells.items()
        for system, one in systems.items()
    ]
    return to_csv(rows)


def verdicts_csv(task: scores.Task) -> bytes:
    """Every verdict, a row per question and a column per system, seed and condition: r, w, u, o or t (LETTERS)."""
    columns = {
        ":".join(filter(None, (system, "" if seed is None else str(seed), "" if name == TRAINED else name))): one.verdicts[
            row
        ]
        for system, by_condition in task.scores.items()
        for name, one in sorted(by_condition.items(), key=lambda item: place(item[0]))
        for row, seed in enumerate(task.seeds[system])
    }
    rows = [
        {"problem_id": one} | {column: LETTERS[found[index]] for column, found in columns.items()}
        for index, one in enumerate(task.ids)
    ]
    return to_csv(rows)


def losses_csv(losses: Sequence[Mapping[str, Any]]) -> bytes:
    """One row per step of a training: cross-entropy (nats per token), distillation, and the distance at each latent step."""
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
