"""Inputs from public reports against comparable projects, with the verdicts that were settled for them."""

import json
from pathlib import Path

import pytest

from qthink_core.benchmarks.graders import grade

CASES = Path(__file__).parents[3] / "../shared/cases/graders"


@pytest.mark.skipif(not CASES.is_dir(), reason="the reported cases are not in ../shared/cases")
@pytest.mark.parametrize("benchmark", ["gsm8k", "tooluse"])
def test_every_reported_case_gets_its_settled_verdict(benchmark):
    cases = [json.loads(line) for line in (CASES / f"{benchmark}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert cases
    graded = [(case, grade(benchmark, case["gold"], case["answer"])) for case in cases]
    assert [(case, found) for case, found in graded if (found.verdict == "right") != (case["verdict"] == "right")] == []
