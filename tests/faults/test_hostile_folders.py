"""Every hostile model folder in every command that loads one."""

import re
from pathlib import Path
from typing import Any

import forked
import pytest
from hostile import folders as hostile

from qthink_core.errors import DataError
from qthink_core.models import base_model
from qthink_core.models.base_params import Base
from qthink_core.planning import source_checks

pytestmark = pytest.mark.faults
CASES = hostile.FOLDERS | hostile.READ
COMMANDS = {
    "ask": ["ask", "{model}", "Why?"],
    "answer": ["answer", "{model}"],
    "demo": ["demo", "{model}", "--port", "0"],
    "evaluate": ["evaluate", "{model}", "--benchmark", "gsm8k", "--data", "{data}"],
    "audit": ["audit", "{model}", "--benchmark", "gsm8k", "--data", "{data}", "--latents", "0"],
}
good, folder = hostile.good, hostile.folder


# An audit refuses a checkpoint without latent steps before it reads what is in its files.
@pytest.mark.parametrize(
    ("case", "command"), [(case, one) for case in CASES for one in COMMANDS if one != "audit" or case in hostile.FOLDERS]
)
def test_a_command_refuses_a_hostile_folder_in_one_line(case: str, command: str, folder: Path, tmp_path: Path) -> None:
    spoil, said = CASES[case]
    spoil(folder)
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n{"question": "1 + 2?", "answer": "#### 3"}\n')
    words = [word.format(model=folder, data=data) for word in COMMANDS[command]]
    done = forked.qthink(*words, given=b'{"question": "Why?"}\n', cwd=tmp_path)
    assert done.returncode == DataError.exit_code, done.stderr
    # `answer` counts its questions first
    *_, last = done.stderr.decode().splitlines()
    assert last.startswith("qthink: ")
    assert re.search(said.removesuffix("$"), last)
    assert "Traceback" not in done.stderr.decode()
    assert not (tmp_path / "CANARY").exists()


@pytest.mark.parametrize("case", CASES)
def test_base_and_preflight_refuse_a_hostile_folder(case: str, folder: Path, tmp_path: Path) -> None:
    spoil, said = CASES[case]
    spoil(folder)
    source: dict[str, Any] = dict.fromkeys(("pretrain", "world", "hub", "wheel"))
    with pytest.raises(DataError, match=said):
        base_model.build(
            **source,
            folder=str(folder),
            thinking="added",
            seed=0,
            out=tmp_path / "base",
            show=lambda steps, _: iter(steps),
            show_problems=lambda items, _: iter(items),
        )
    checks = list(source_checks.base_model(Base(folder=str(folder), thinking="added")))
    weights = (case in hostile.READ and "header" in hostile.READ[case][1] + case) or case == "tensors that overlap"
    assert weights or not checks[0].passed  # type: ignore[union-attr]


def test_the_commands_take_the_good_folder(folder: Path, tmp_path: Path) -> None:
    done = forked.qthink("ask", str(folder), "Why?", "--max-new-tokens", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
