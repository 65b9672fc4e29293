"""Fresh clones of one commit end in the same dvc.lock and the same report, whatever the environment is."""

import itertools
from pathlib import Path

import corners
import pytest
from corners import ROWS, Corner, Made

CORNERS = corners.corners()


def test_every_pair_of_levels_occurs_in_the_corners() -> None:
    for left, right in itertools.combinations(range(len(corners.FACTORS)), 2):
        assert {(row[left], row[right]) for row in ROWS} == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corners.origin(tmp_path_factory.mktemp("corners") / "origin")


@pytest.fixture(scope="module")
def reference(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """What the reference makes."""
    return corners.run(source, tmp_path_factory.mktemp("reference"), CORNERS[0])


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("corner", CORNERS[1:], ids=lambda corner: corner.name.replace(" ", "-"))
def test_the_bytes_are_those_of_the_reference(
    source: Path, reference: Made, corner: Corner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = corners.run(source, tmp_path, corner)
    with capsys.disabled():
        equal = "equal" if made[:2] == reference[:2] else "DIFFERENT"
        others = ", ".join(sorted(corner.other)) or "nothing"
        print(f"\n{corner.name}: {equal}, {made.seconds:.0f} s, --jobs {corner.jobs}; other than in the reference: {others}")
    assert made.lock == reference.lock
    assert made.results == reference.results
