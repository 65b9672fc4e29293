"""All hostile answers, those that reach the limits of time and memory too, with gmpy2 where it is installed."""

import importlib.util
from pathlib import Path

import pytest
from hostile import checks, watched

pytestmark = pytest.mark.faults


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("gmpy2", ["installed", "a decoy"])
def test_every_hostile_answer_gets_its_verdict_and_does_nothing(
    gmpy2: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if gmpy2 == "installed" and importlib.util.find_spec("gmpy2") is None:
        pytest.skip("gmpy2 is not installed: pip install gmpy2")
    decoys = [] if gmpy2 == "installed" else [str(watched.HERE / "decoys")]
    dearest = checks.check(True, tmp_path, *decoys)
    with capsys.disabled():
        print(f"\nthe dearest answer took {dearest:.2f} s of the processor")
