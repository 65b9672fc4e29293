"""A part of `make faults` for every run of the tests: a few operations of real stages, struck by each kind of fault."""

from collections.abc import Callable
from typing import Any

import pytest
from faults import disks, operations, power, project
from faults.operations import Tally
from faults.project import ORDER, Project

pytestmark = pytest.mark.slow

LAST = "train"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The pipeline up to a training, undisturbed."""
    project.load(ORDER[: ORDER.index(LAST) + 1])
    found = Project(tmp_path_factory.mktemp("faults"))
    found.make(LAST)
    return found


@pytest.mark.parametrize(
    ("strike", "stage", "how", "strikes"),
    [
        (operations.kills, "sample", {"stride": 6}, 5),
        (operations.kills_in_one_run, "train", {"stride": 12}, 3),
        (operations.stops, "extract", {"stride": 18}, 2),
        (operations.full_disks, "average", {"stride": 14}, 2),
        (disks.limits, "train", {"cases": 2, "seed": 1}, 1),
        (power.losses, "sample", {"start": 3, "stride": 15}, 6),
    ],
)
def test_a_struck_stage_goes_on_to_the_bytes_of_an_undisturbed_one(
    made: Project, strike: Callable[..., Tally], stage: str, how: dict[str, Any], strikes: int
) -> None:
    tally = strike(made, made.box(stage), **how)
    assert tally.faults == []
    assert tally.equal == tally.struck >= strikes
