"""Room for a run: the parameter that an advice names exists, and the disk that a run still needs."""

import ast
import re
from pathlib import Path

import pytest
from graph import SCALES, STAGES, tree_of
from imports import ROOT

from qthink_core.pipeline import parameters
from qthink_core.pipeline.graph import parameter_classes
from qthink_core.planning import room
from qthink_core.planning.run_plan import demands_of

LOWER = re.compile(r"lower ([\w.]+) in (params/\w+\.yaml)")


def test_where_rows_wait_for_room_it_is_their_length_that_is_to_be_lowered() -> None:
    paper, tiny = tree_of("paper")[0], tree_of("tiny")[0]
    assert (paper["sample"]["engine"], tiny["sample"]["engine"]) == ("vllm", "hf")
    named = {stage: room.remedy(stage, paper) for stage in ("sample", "baseline", "evaluate", "train")}
    assert named == {
        "sample": "lower sample.max_new_tokens in params/paper.yaml",
        "baseline": "lower evaluate.max_new_tokens in params/paper.yaml",
        "evaluate": "lower evaluate.batch in params/paper.yaml",
        "train": "lower train.micro_batch in params/paper.yaml",
    }
    assert room.remedy("sample", tiny) == "lower sample.block_problems in params/tiny.yaml"


def test_a_base_that_is_trained_here_has_a_batch_and_one_that_is_taken_needs_another_device() -> None:
    assert room.remedy("base", tree_of("tiny")[0]) == "lower base.pretrain.batch in params/tiny.yaml"
    assert room.remedy("base", tree_of("paper")[0]) == "use a device with more memory"
    assert room.remedy("merge", tree_of("paper")[0]) == "use a device with more memory"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("stage", STAGES)
def test_the_parameter_to_lower_is_in_the_file_that_the_advice_names(stage: str, scale: str) -> None:
    named = LOWER.fullmatch(room.remedy(stage, tree_of(scale)[0]))
    if named:
        value = parameters.value(parameters.read_yaml(ROOT / named[2]), named[1])
        assert isinstance(value, int), f"{named[1]} is {value!r}"


def test_every_stage_that_computes_on_the_device_has_a_batch_to_lower() -> None:
    assert set(room.BATCH) - {"base"} == set(demands_of(ROOT, tree_of("paper")[0]).memory)


KNOWN = {".".join(path) for section in parameter_classes().values() for path in parameters.patterns(section)}
SECTIONS = {name.partition(".")[0] for name in KNOWN if "." in name}
# A dotted name in a text: not a part of a path or of a file's name.
DOTTED = re.compile(rf"(?<![\w./-])((?:{'|'.join(sorted(SECTIONS))})\.[a-z_]+(?:\.[a-z_]+)*)(?![\w/(])")
FILES = {"csv", "html", "json", "jsonl", "md", "parquet", "py", "yaml"}


def named(path: Path) -> set[str]:
    """The parameters that the texts of a module name."""
    texts = [one.value for one in ast.walk(ast.parse(path.read_text())) if isinstance(one, ast.Constant)]
    found = {name.rstrip(".") for text in texts if isinstance(text, str) for name in DOTTED.findall(text)}
    return {name for name in found if name.rpartition(".")[2] not in FILES}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "qthink_core").rglob("*.py")), ids=lambda path: path.stem)
def test_a_parameter_that_a_text_names_is_one_that_a_stage_reads(path: Path) -> None:
    assert not {name for name in named(path) if not any(one == name or one.startswith(f"{name}.") for one in KNOWN)}


def test_a_text_that_names_another_parameter_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "advice.py").write_text("""fix = f"lower {1} or sample.block_problem. See results/report.json"\n""")
    assert named(tmp_path / "advice.py") == {"sample.block_problem"}
    assert "sample.block_problem" not in KNOWN


def test_a_disk_lacks_what_outputs_and_their_copies_take_beyond_those_that_exist(tmp_path: Path) -> None:
    assert room.missing_disk(tmp_path, outputs=30, free=60) == 0
    assert room.missing_disk(tmp_path, outputs=30, free=50) == 10
    (tmp_path / "models/gsm8k").mkdir(parents=True)
    (tmp_path / "models/gsm8k/weights").write_bytes(bytes(7))
    (tmp_path / "results").write_bytes(bytes(100))  # no output of a run in one of its folders
    assert room.missing_disk(tmp_path, outputs=30, free=50) == 3
