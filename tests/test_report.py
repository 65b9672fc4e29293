"""The report: hand-worked cells, the table in full, and files that are the same for the same grades."""

import csv
import io
import json
import math
from pathlib import Path

import pytest

from qthink_core import grading, report
from qthink_core.errors import DataError
from qthink_core.grading import Graded
from qthink_core.report import Cell


def graded(system: str, verdict: str, tokens: int = 10, finish: str = "stop") -> Graded:
    return Graded(system, "p", verdict, None, "{}", tokens, finish)


FOUR = [
    graded("base", "right", 10),
    graded("base", "wrong", 20),
    graded("base", "unparsable", 30, "length"),
    graded("base", "timeout", 41),
]


def test_a_cell_is_accuracy_with_standard_error_mean_tokens_and_the_share_at_the_limit() -> None:
    # 1 of 4: sqrt(1/4 * 3/4 / 4) = sqrt(3) / 8; (10 + 20 + 30 + 41) / 4 = 25.25; 1 of 4 hit the limit
    found = report.cell(FOUR)
    assert found == Cell(0.25, pytest.approx(math.sqrt(3) / 8, rel=1e-15), 4, 25.25, 0.25)


@pytest.mark.parametrize("verdict", ["wrong", "unparsable", "over_limit", "timeout"])
def test_a_verdict_other_than_right_counts_as_wrong_and_stays_in_the_denominator(verdict: str) -> None:
    found = report.cell([graded("base", "right"), graded("base", "right"), graded("base", verdict)])
    assert found.accuracy == 2 / 3
    assert found.n == 3


@pytest.mark.parametrize(("verdict", "accuracy"), [("right", 1.0), ("wrong", 0.0)])
def test_a_system_that_is_always_right_or_always_wrong_has_no_standard_error(verdict: str, accuracy: float) -> None:
    found = report.cell([graded("base", verdict)] * 5)
    assert (found.accuracy, found.standard_error) == (accuracy, 0.0)


def write_grades(folder: Path, rows: list[Graded]) -> Path:
    folder.mkdir(parents=True)
    grading.grades_writer(rows)(folder / "grades.parquet")
    return folder


def test_cells_are_of_each_system_alone_in_the_order_of_the_params(tmp_path: Path) -> None:
    rows = [graded("sft", "right"), *FOUR, graded("sft", "wrong"), graded("uniform", "right")]
    cells = report.read_cells({"gsm8k": write_grades(tmp_path / "gsm8k", rows)}, ["base", "sft"])
    assert list(cells["gsm8k"]) == ["base", "sft"]
    assert cells["gsm8k"]["base"] == report.cell(FOUR)
    assert (cells["gsm8k"]["sft"].accuracy, cells["gsm8k"]["sft"].n) == (0.5, 2)


def test_a_system_without_grades_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    folder = write_grades(tmp_path / "gsm8k", FOUR)
    with pytest.raises(DataError, match=r"gsm8k has no grades of sft, uniform: run `dvc repro grade@gsm8k`$"):
        report.read_cells({"gsm8k": folder}, ["base", "sft", "uniform"])


CELLS = {
    "gsm8k": {"base": Cell(0.25, math.sqrt(3) / 8, 4, 25.25, 0.25), "uniform": Cell(0.832, 0.0103, 1319, 1025.4, 0.0)},
    "math500": {"base": Cell(1 / 3, 0.27217, 3, 1399.5, 1.0), "uniform": Cell(0.0, 0.0, 3, 0.0, 0.0)},
}
CURVES = {
    "gsm8k": {
        "sft": [{"step": 1, "cross_entropy": 2.5}, {"step": 2, "cross_entropy": 1 / 3}],
        "uniform": [{"step": 1, "cross_entropy": 2.0, "distillation": 0.5, "distance": [0.25, 0.75]}],
    }
}

TABLE = """\
| system | gsm8k (n=4) | math500 (n=3) |
| --- | --- | --- |
| Base, thinking | 25.0 ± 21.7; 25 tokens; 25.0 % | 33.3 ± 27.2; 1400 tokens; 100.0 % |
| QThink uniform per-step | 83.2 ± 1.0; 1025 tokens; 0.0 % | 0.0 ± 0.0; 0 tokens; 0.0 % |

Accuracy in per cent ± standard error; mean generated tokens; share of answers that hit the token limit.

Made with scale tiny, seed 0, K 6, gamma 2.0.
"""


def test_the_report_is_the_table_the_metrics_and_the_plots_and_nothing_else(tmp_path: Path) -> None:
    settings = {"scale": "tiny", "seed": 0, "K": 6, "gamma": 2.0}
    written = report.write(tmp_path, CELLS, {}, CURVES, settings)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert (tmp_path / "table.md").read_text() == TABLE


def test_a_system_of_ones_own_stands_in_the_table_under_its_name(tmp_path: Path) -> None:
    report.write(tmp_path, {"gsm8k": {"mine": CELLS["gsm8k"]["base"]}}, {}, {}, {})
    assert "| mine | 25.0 ± 21.7; 25 tokens; 25.0 % |" in (tmp_path / "table.md").read_text().splitlines()


def test_the_metrics_are_accuracies_by_benchmark_and_system_in_sorted_order() -> None:
    backwards = {task: dict(reversed(row.items())) for task, row in reversed(CELLS.items())}
    text = report.metrics_json(backwards)
    assert text == report.metrics_json(CELLS)
    assert json.loads(text) == {"gsm8k": {"base": 0.25, "uniform": 0.832}, "math500": {"base": 0.333333, "uniform": 0.0}}
    assert text.decode().index('"base"') < text.decode().index('"uniform"')
    assert text.endswith(b"}\n")


def test_the_tokens_file_has_a_row_for_each_cell() -> None:
    rows = list(csv.DictReader(io.StringIO(report.tokens_csv(CELLS).decode())))
    assert [row["cell"] for row in rows] == ["gsm8k base", "gsm8k uniform", "math500 base", "math500 uniform"]
    assert rows[0] == {
        "cell": "gsm8k base",
        "benchmark": "gsm8k",
        "system": "base",
        "mean_tokens": "25.25",
        "hit_limit": "0.25",
        "accuracy": "0.25",
    }


def test_the_losses_of_a_training_have_a_row_for_each_step_and_a_column_for_each_latent_step() -> None:
    assert report.losses_csv(CURVES["gsm8k"]["sft"]).decode() == "step,cross_entropy\n1,2.5\n2,0.333333\n"
    assert report.losses_csv(CURVES["gsm8k"]["uniform"]).decode() == (
        "step,cross_entropy,distillation,distance_1,distance_2\n1,2.0,0.5,0.25,0.75\n"
    )


def test_further_scores_are_shares_of_all_questions_and_stand_below_the_table(tmp_path: Path) -> None:
    def row(system: str, exact: bool, action: bool) -> Graded:
        return Graded(system, "p", "wrong", None, json.dumps({"exact": exact, "action": action}), 1, "stop")

    rows = [row("mine", True, True), row("mine", False, True), row("base", False, False), row("base", False, True)]
    further = report.read_further({"tooluse": write_grades(tmp_path / "tooluse", rows)})
    assert further == {"tooluse": {"mine": {"action": 1.0, "exact": 0.5}, "base": {"action": 0.5, "exact": 0.0}}}
    assert report.further_scores(further, {"base": "Base", "mine": "Mine"}) == (
        "\n| tooluse, all scorers | action | exact |\n| --- | --- | --- |\n| Base | 50.0 | 0.0 |\n| Mine | 100.0 | 50.0 |\n"
    )
    assert report.further_scores({}, {"base": "Base"}) == ""


def test_the_loss_curves_are_read_from_the_artifact_of_each_training(tmp_path: Path) -> None:
    (tmp_path / "losses.json").write_text(json.dumps(CURVES["gsm8k"]["uniform"]))
    assert report.read_curves({"gsm8k": {"uniform": tmp_path}}) == {"gsm8k": {"uniform": CURVES["gsm8k"]["uniform"]}}
