"""Room for a run: the parameter that an advice names exists, and the disk that a run still needs."""

import ast
import re
from pathlib import Path

import pytest
from graph import SCALES, STAGES, tree_of
from imports import ROOT

from qthink_core.pipeline import parameters
from qthink_core.pipeline.graph import parameter_classes
from qthink_core.planning import cost, plan_text, room
from qthink_core.planning.run_plan import card, demands_of, plan_run

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


def test_without_the_sweep_the_small_scale_takes_three_fifths_of_the_time_and_the_plan_says_so() -> None:
    swept, plain = (
        plan_run(ROOT, "small", "4090", 1, None, ["tasks=[gsm8k]", f"params/small.yaml:probe.sweep={n}"]) for n in (2, 0)
    )
    assert room.dearest(swept).stage == "probe"
    first, *others = room.cheaper(ROOT, swept)
    assert first == room.Cheaper("probe.sweep", 0, "params/small.yaml", plain.wall_s)
    # 18 answers to a question in place of 7
    assert plain.wall_s / swept.wall_s == pytest.approx(0.63, abs=0.01)
    assert [one.key for one in others] == ["prepare.n_test"], "twice the batch does not fit into 24 GB"
    said = plan_text.advice(swept, [first, *others])
    part, whole, less = (plan_text.duration(one) for one in (room.dearest(swept).seconds, swept.seconds, plain.wall_s))
    assert said.startswith(
        f"The dearest stage is probe, {part} of {whole}: the run takes about {less} with -S params/small.y"
    )


@pytest.mark.parametrize("scale", SCALES)
def test_a_change_that_is_named_has_the_effect_that_is_named(scale: str) -> None:
    found = plan_run(ROOT, scale, None, 1)
    for one in room.cheaper(ROOT, found):
        parameters.value(parameters.read_yaml(ROOT / one.file), one.key)  # of a key that the file lacks it raises
        again = plan_run(ROOT, scale, None, 1, None, [one.setting])
        assert again.wall_s == pytest.approx(one.wall_s)
        assert one.wall_s < 0.95 * found.wall_s


EXPECTED = {
    ("sample", "params/small.yaml:sample.engine=hf"): [
        ("sample.engine", "vllm"),
        ("prepare.n_train", 768),
        ("sample.block_problems", 128),
    ],
    ("sample", "K=6"): [("prepare.n_train", 768), ("sample.block_problems", 128)],
    ("train", "seeds=[0,1]"): [("prepare.n_train", 768), ("train.epochs", 1), ("train.micro_batch", 2), ("seeds", [0])],
    ("probe", "params/small.yaml:probe.sweep=2"): [("probe.sweep", 0), ("prepare.n_test", 256), ("evaluate.batch", 128)],
    ("evaluate", "params/small.yaml:prepare.n_test=all"): [("prepare.n_test", 659), ("evaluate.batch", 128)],
    ("merge", "K=6"): [],
    ("base", "K=6"): [],
}


@pytest.mark.parametrize(("stage", "setting"), EXPECTED)
def test_what_is_tried_for_a_stage_is_what_its_time_depends_on(stage: str, setting: str) -> None:
    load = plan_run(ROOT, "small", "4090", 1, None, ["tasks=[gsm8k]", setting]).workload
    assert list(room.changes(stage, load)) == EXPECTED[stage, setting]


def test_no_number_of_problems_is_named_that_a_task_does_not_have() -> None:
    # of 1,319, 500 and 68 questions, half the most is more than the least; the training problems of Tooluse are unknown
    load = plan_run(ROOT, "paper", "h100", 1).workload
    assert [key for stage in STAGES for key, _ in room.changes(stage, load) if key.startswith("prepare.")] == []
    load = plan_run(ROOT, "paper", "h100", 1, None, ["tasks=[gsm8k,math500]"]).workload
    assert ("prepare.n_train", 6000) in room.changes("train", load)
    assert "prepare.n_test" not in dict(room.changes("probe", load))


def test_the_plan_names_the_time_on_every_gpu_that_has_the_memory_and_the_others_apart() -> None:
    plans = room.elsewhere(ROOT, plan_run(ROOT, "qwen3_4b", "h100", 1, None, ["tasks=[gsm8k]"]))
    assert [one.device for one in plans] == list(cost.GPUS)
    said = plan_text.cards(plans)
    assert f"H100 {plan_text.duration(plans[0].wall_s)}" in said
    assert said.endswith(" Too little memory: 5090 (32 GB), 4090 (24 GB), 3090 (24 GB), A10 (24 GB), L4 (24 GB).")
    assert "4090" not in said.partition(" Too little memory")[0]


@pytest.mark.parametrize(
    ("gigabytes", "name"),
    [(None, "h100"), (24, "4090"), (40, "5090"), (48, "l40s"), (80, "h100"), (1000, "h200"), (8, "4090")],
)
def test_a_memory_without_a_device_is_that_of_the_gpu_that_has_it_or_comes_closest(gigabytes: int | None, name: str) -> None:
    assert card(gigabytes and gigabytes * 1e9) == name


def test_a_given_memory_takes_the_place_of_the_cards_own() -> None:
    small, other = (plan_run(ROOT, "small", None, 1, n * 1e9, ["tasks=[gsm8k]"]) for n in (24, 16))
    assert (small.device, small.too_large, other.device) == ("4090", [], "4090")
    assert [row.stage for row in other.too_large] == ["probe"]
    said = plan_text.summary(other, free=10**15, missing=-1)
    assert said.startswith(f"About {plan_text.roughly(other.wall_s)} on one 4090 with 16 GB.\n")
    marked = [line.split()[0] for line in plan_text.table(other).splitlines() if "!" in line]
    assert marked == ["probe"]
    assert "probe may need 18 GB of memory where its rows are longest, 16 GB are available: lower evaluate.batch" in said
    # fewer rollouts find room at once, so the weights are read more often
    assert other.stages[3].seconds > small.stages[3].seconds
