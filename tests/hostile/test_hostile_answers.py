"""Whatever a model writes: the verdict on record, in bounded time, and nothing done with the machine."""

from pathlib import Path
from typing import get_args

import pytest
from hostile import answers, checks, watched

from qthink_core.benchmarks.graders.contract import Verdict

DECOYS = watched.HERE / "decoys"


def test_the_file_has_the_answers_of_its_program_and_right_ones_are_right() -> None:
    made, kept = list(answers.rows()), answers.read()
    assert [row for row, _ in made] == [row._replace(verdict=None) for row in kept]
    assert len(kept) > 1500
    assert {row.verdict for row in kept} == set(get_args(Verdict))
    wrong = [(row, right) for row, (_, right) in zip(kept, made, strict=True) if right not in (None, row.verdict == "right")]
    assert wrong == []


@pytest.mark.slow
def test_hostile_answers_get_their_verdicts_and_do_nothing_with_and_without_gmpy2(tmp_path: Path) -> None:
    checks.check(False, tmp_path, str(DECOYS))
