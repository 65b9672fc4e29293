"""`qthink plan`: every stage of the graph, from the params files alone, scaled by what was logged; words for a person."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import pytest
from graph import SCALES, STAGES, tree_of
from imports import ROOT

from qthink_core.artifacts import files, store
from qthink_core.errors import DataError, ParamError
from qthink_core.evidence.power import smallest_difference
from qthink_core.models.base_params import Base
from qthink_core.pipeline import graph
from qthink_core.pipeline.graph import Box
from qthink_core.planning import calibration, cost, plan_text, run_plan, schedule, shapes, stage_costs, workload
from qthink_core.planning.run_plan import plan_run

PROGRAM = [sys.executable, "-P", "-m", "qthink_core.cli", "plan"]
# The estimates before anything was logged are to be right within this factor.
BEFORE_A_RUN = 2.0
DEVICES = "h100, h200, a100, l40s, 5090, 4090, 3090, a10, l4, cpu"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the graph and the params files alone."""
    shutil.copytree(ROOT / "params", tmp_path / "params")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text, n = re.subn(rf"^{old}$", new, file.read_text(), flags=re.MULTILINE)
    assert n == 1, f"{file.name} has {n} lines {old}"
    file.write_text(text)


def rows(root: Path, scale: str | None = None, device: str | None = None, gpus: int = 1) -> dict[str, run_plan.StagePlan]:
    return {row.stage: row for row in plan_run(root, scale, device, gpus).stages}


def program(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = forked.qthink("plan", *arguments, cwd=cwd)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def manifest(folder: Path, counts: dict[str, int], about: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True)
    made = store.Manifest(folder.name, str(folder), "", counts=counts, about=about or {})
    (folder / store.MANIFEST).write_bytes(files.sealed(vars(made)))


def source(root: Path, scale: str) -> dict[str, Any]:
    """What the manifest of a scale's base model says of where it came from."""
    return Base.model_validate(graph.checked_parameters(root, scale)["base"]).source


def log(root: Path, seconds: dict[str, float], params: dict[str, dict[str, Any]], scale: str = "tiny") -> None:
    """A run of these boxes on the processor: their seconds, and the parameters of each."""
    for box, one in seconds.items():
        run_of(root, box, one, scale, "cpu", params.get(box, {}))


@pytest.mark.parametrize("scale", SCALES)
def test_every_stage_and_every_box_of_the_graph_is_in_the_plan(root: Path, scale: str) -> None:
    found = plan_run(root, scale, None, 1)
    tree, _ = tree_of(scale)
    assert [row.stage for row in found.stages] == list(STAGES)
    assert {row.stage: row.boxes for row in found.stages} == {
        name: len(graph.boxes(name, entry, tree)) for name, entry in STAGES.items()
    }
    assert all(row.seconds > 0 for row in found.stages)


def test_a_stage_without_a_cost_is_said(root: Path) -> None:
    edit(root / "dvc.yaml", "stages:", "stages:\n  polish: {cmd: x, outs: [y]}")
    with pytest.raises(ParamError, match="stage polish"):
        plan_run(root, None, None, 1)


def test_the_recipe_on_gsm8k_has_the_figures_of_the_cost_model(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    found = rows(root, "paper")
    assert found["sample"].tokens == 143_481_600
    assert found["sample"].floor_s / 60 == pytest.approx(67.3, abs=0.1)
    assert found["extract"].floor_s == pytest.approx(349, abs=0.5)
    # a prompt and 2,048 tokens of a rollout are kept beside a pass and the weights
    layer = 131_072 * (8 * 2048 + 3 * 6144) * 2
    assert found["extract"].memory == pytest.approx(1_720_451_072 * 2 + layer + (120 + 2048) * 114_688)
    assert found["extract"].disk == 2_938_503_168
    assert found["train"].boxes == 4
    # prompt 120, answer 200, K = 6
    assert found["train"].floor_s / 4 == pytest.approx(61.3 * 326 / 320, abs=0.1)
    # 58 blocks of 2,048 rollouts and one of 784, of which 85 % of 80 GB hold 782: each step reads the weights
    places = (0.85 * 80e9 - 2 * 1_720_451_072) / (720 * 114_688)
    assert places == pytest.approx(781.8, abs=0.1)
    steps = 58 * workload.block_steps(2048, places, 1200.0, 2048) + workload.block_steps(784, places, 1200.0, 2048)
    read = steps * (1_720_451_072 * 2 / 3.35e12 + 28 * 8e-5)
    assert found["sample"].seconds == pytest.approx(30 + 67.265 * 60 / 0.35 + read, rel=1e-3)
    # 21 batches of 64 questions, until the longest has 1.7 x 1,025 replayed tokens behind 6 launched steps of 28 layers
    work = 1319 * 1025 * (2 * 1_720_451_072 / 989e12 + (126 + 512.5) * 114_688 / 3.35e12)
    read, launched = 21 * (6 + 1742.5) * 1_720_451_072 * 2 / 3.35e12, 21 * 28 * (6 * 6e-4 + 1742.5 * 8e-5)
    assert found["evaluate"].boxes == 6
    latent = stage_costs.COSTS["evaluate"](plan_run(root, "paper", None, 1).workload, Box("evaluate", "gsm8k", "uniform"))
    assert cost.seconds(latent.compute, cost.GPUS["h100"], "bfloat16", 0.35) == pytest.approx(work / 0.35 + read + launched)
    edit(root / "params/paper.yaml", "  block_problems: 128 .*\n  engine: vllm .*", "  block_problems: 8\n  engine: hf")
    # 935 blocks of 128 rows, launched until the longest has 2,040 tokens, of 28 layers
    launched = 935 * 2040 * (28 * 6e-4 + 1_720_451_072 * 2 / 3.35e12)
    assert rows(root, "paper")["sample"].seconds == pytest.approx(30 + 67.265 * 60 / 0.35 + launched, rel=1e-3)


def test_the_recipe_reads_gigabytes_that_a_gpu_may_not_have(root: Path) -> None:
    # vLLM keeps what finds room, in 85 % of the memory, and lets the others wait: one row of 790 + 2,048 tokens of Tooluse
    paged, weights = rows(root, "paper"), 1_720_451_072 * 2
    assert paged["sample"].memory == pytest.approx((2838 * 114_688 + weights + 151_936 * 4) / 0.85)
    # beside latent steps in 60 %; the rest of what the first copy of the weights leaves free holds 64 rows of 1.7 x 790
    # tokens and 6 latents, of which a layer keeps eight vectors of 2,048 and three of 6,144 while they are read
    beside = 64 * ((1343 + 6) * 114_688 + 1343 * (8 * 2048 + 3 * 6144) * 2)
    assert paged["evaluate"].memory == pytest.approx(weights + beside / 0.4)
    # without latents, what the engine holds decides
    assert paged["baseline"].memory == pytest.approx(weights + (2838 * 114_688 + weights + 151_936 * 4) / 0.85)
    edit(root / "params/paper.yaml", "  block_problems: 128 .*\n  engine: vllm .*", "  block_problems: 8\n  engine: hf")
    found = rows(root, "paper")
    # 128 rows of that length, the weights, and logits
    cache = 128 * 2838 * 114_688
    assert found["sample"].memory == pytest.approx(cache + 1_720_451_072 * 2 + 128 * 151_936 * 4)
    said = plan_text.summary(plan_run(root, "paper", "4090", 1), free=10**15, missing=-1)
    assert "sample may need 45 GB of memory where its rows are longest, 24 GB are available" in said


def test_what_rules_the_time_of_each_stage_of_the_recipe(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    plan = plan_run(root, "paper", "h100", 1)
    found = {row.stage: row for row in plan.stages}
    # 349 s of products at half the peak, and 120,464,760 tokens in passes of 131,072 through 28 layers
    launches = 120_464_760 / 131_072 * 28 * 6e-4
    assert found["extract"].parts == pytest.approx((2 * found["extract"].floor_s, 0, launches, 30, 0))
    # 67.3 min of the floor of `sample` are 499 s of products, the rest is reading keys and values, and weights for each step
    assert found["sample"].parts.matrix == pytest.approx(4.93706e17 / 989e12 / 0.35, rel=1e-5)
    assert found["sample"].seconds == pytest.approx(sum(found["sample"].parts))
    bounds = {name: row.bound for name, row in found.items()}
    assert {name: bounds[name] for name in ("sample", "extract", "train", "merge", "prepare")} == {
        "sample": "bytes",
        "extract": "matrix",
        "train": "launches",
        "merge": "other",
        "prepare": "start",
    }
    assert "matrix products in extract, finetune; " in plan_text.bounds(plan)
    (said,) = (one for one in json.loads(plan_text.as_json(plan))["stages"] if one["stage"] == "extract")
    assert said["bound"] == "matrix"
    assert said["parts"] == pytest.approx(found["extract"].parts._asdict())


EDITS = {
    "more problems": ("params/paper.yaml", "  n_train: all .*", "  n_train: 14946", {"sample": 2, "extract": 2, "train": 2}),
    "more rollouts": ("params.yaml", "  G: 16 .*", "  G: 32", {"sample": 2, "extract": 1.99, "train": 1}),
    "more epochs": ("params/paper.yaml", "  epochs: 3 .*", "  epochs: 6", {"sample": 1, "extract": 1, "train": 2}),
    "more seeds": ("params.yaml", r"seeds: \[0\] .*", "seeds: [0, 1]", {"sample": 1, "train": 2, "evaluate": 2}),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_of_the_params_files_moves_what_it_should(root: Path, what: str) -> None:
    file, old, new, factors = EDITS[what]
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    before = rows(root, "paper")
    edit(root / file, old, new)
    after = rows(root, "paper")
    for name, times in factors.items():
        # the prompts of twice as many rollouts are read once
        assert after[name].flops == pytest.approx(times * before[name].flops, rel=3e-3 if times == 1.99 else 1e-6), name


def test_twice_the_latent_steps_are_twice_the_states_on_disk_and_not_twice_the_reading(root: Path) -> None:
    before = rows(root)
    edit(root / "params.yaml", "K: 6 .*", "K: 12")
    after = rows(root)
    assert after["extract"].disk == 2 * before["extract"].disk
    assert after["extract"].tokens == before["extract"].tokens
    assert after["train"].seconds > before["train"].seconds


def test_gpus_share_a_box_but_for_its_start_and_only_where_the_stage_can(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    one, many = (rows(root, "paper", "h100", gpus) for gpus in (1, 8))
    for name, boxes in {"sample": 1, "extract": 1, "finetune": 2, "train": 4, "baseline": 2, "evaluate": 6}.items():
        assert (one[name].workers, many[name].workers, many[name].fewest) == (1, 8, 8)
        loading = boxes * run_plan.GPU_LOADING_S
        # 59 blocks and 21 batches: the GPU with most of them has 8 and 3; a step has 32 micro-batches
        share = {"sample": 8 / 59, "extract": 8 / 59, "baseline": 3 / 21, "evaluate": 3 / 21}.get(name, 1 / 8)
        assert many[name].seconds - loading == pytest.approx((one[name].seconds - loading) * share)
        assert many[name].floor_s == pytest.approx(one[name].floor_s / 8)
    assert (one["probe"].workers, many["probe"].workers) == (1, 1)
    assert many["probe"].seconds == one["probe"].seconds
    assert many["merge"].seconds == one["merge"].seconds
    assert many["merge"].workers == 0


def test_no_more_gpus_work_on_a_box_than_it_has_units(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [math500, tooluse]")
    one, many = (rows(root, "paper", "h100", gpus) for gpus in (1, 64))
    # 12,000 problems in 94 blocks of 128; a step of 128 rows in 32 micro-batches of 4; 500 and 68 questions in 8 and 2
    # batches of 64. Tooluse, whose training set is of unknown size, has nothing to train on.
    shared = {"sample": (64, 64), "train": (32, 32), "evaluate": (2, 8)}
    assert {name: (many[name].fewest, many[name].workers) for name in shared} == shared
    boxes = 8 * run_plan.GPU_LOADING_S
    assert many["train"].seconds - boxes == pytest.approx((one["train"].seconds - boxes) / 32)
    table = plan_text.table(plan_run(root, "paper", "h100", 64)).splitlines()
    assert [line.split("  ")[-2].strip() for line in table if line.startswith("evaluate")] == ["2-8"]


def test_the_prompts_of_a_task_have_the_length_of_its_published_ones(root: Path) -> None:
    made = plan_run(root, "paper", None, 1)
    assert {task: one.prompt for task, one in made.workload.lengths.items()} == {
        "gsm8k": 120,
        "math500": 120,
        "tooluse": 790,
    }
    words = "Prompts of tooluse have 790 tokens on average, and training leaves out those of more than"
    assert words not in plan_text.assumptions(made)
    edit(root / "params.yaml", "  prompt_max_tokens: .*", "  prompt_max_tokens: 512")
    assert words in plan_text.assumptions(plan_run(root, "paper", None, 1))
    edit(root / "params/paper.yaml", "  source: hub .*", "  source: generated")
    for name in ("n_train", "n_test"):
        edit(root / "params/paper.yaml", f"  {name}: all .*", f"  {name}: 100")
    edit(root / "params/paper.yaml", "world: null .*", "world: {changes: 4, largest: 14, largest_operand: 5}")
    assert plan_run(root, "paper", None, 1).workload.lengths["tooluse"].prompt == 120


def test_a_size_that_nobody_published_is_said_and_taken_from_what_was_prepared(root: Path) -> None:
    said = plan_text.assumptions(plan_run(root, "paper", None, 1))
    assert "tooluse a training set of unknown size and 68 questions" in said
    assert "The training problems of tooluse count as 0" in said
    manifest(root / "artifacts/base", {}, {"source": source(root, "paper")})
    manifest(root / "artifacts/problems/tooluse", {"train": 4046, "test": 68})
    found = plan_run(root, "paper", None, 1)
    assert found.workload.problems["tooluse", "train"] == 4046
    assert "unknown" not in plan_text.assumptions(found)
    assert "count as 0" not in plan_text.assumptions(found)


def test_the_lengths_of_rollouts_made_here_are_taken_and_those_of_another_model_are_not(root: Path) -> None:
    assumed = plan_run(root, "tiny", None, 1).workload
    manifest(root / "artifacts/base", {}, {"source": source(root, "tiny")})
    manifest(root / "artifacts/rollouts/gsm8k", {"rollouts": 100, "tokens": 4000})
    half = plan_run(root, "tiny", None, 1).workload.lengths["gsm8k"]
    assert half == assumed.lengths["gsm8k"]._replace(thought=33, thinking=40)
    manifest(root / "artifacts/answers/gsm8k/base_direct", {"answers": 10, "tokens": 80})
    run = plan_run(root, "tiny", None, 1).workload
    assert run.lengths["gsm8k"] == assumed.lengths["gsm8k"]._replace(thought=32, answer=8, thinking=40, direct=8)
    assert run.lengths["math500"] == assumed.lengths["math500"]
    assert run.counted == {"gsm8k"}
    assert plan_run(root, "smol", None, 1).workload.counted == frozenset()


def test_no_rollout_is_longer_than_the_limit(root: Path) -> None:
    edit(root / "params/paper.yaml", "  max_new_tokens: 2048 # decision 16", "  max_new_tokens: 1100")
    lengths = plan_run(root, "paper", None, 1).workload.lengths["gsm8k"]
    assert (lengths.thought, lengths.answer) == (1000, 100)


def test_a_box_that_was_logged_takes_what_it_took(root: Path) -> None:
    before = rows(root)
    took = {"sample@gsm8k": 50.0, "sample@math500": 60.0, "sample@tooluse": 70.0}
    log(root, took, {})
    after = rows(root)
    assert after["sample"].seconds == pytest.approx(180)
    assert after["sample"].logged == 3
    assert after["extract"] == before["extract"]


def test_the_last_run_of_a_box_counts(root: Path) -> None:
    log(root, {"report": 90.0}, {})
    log(root, {"report": 9.0}, {})
    assert rows(root)["report"].seconds == pytest.approx(9)


def test_a_box_without_a_run_is_scaled_as_its_stage_was(root: Path) -> None:
    before = rows(root)["sample"].seconds
    log(root, {"sample@gsm8k": before}, {})  # thrice the estimate of one of three boxes
    assert rows(root)["sample"].seconds == pytest.approx(3 * before)


def test_a_run_with_other_parameters_scales_the_estimate(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    small = rows(root)["sample"].seconds
    edit(root / "params/tiny.yaml", "  n_train: 1600", "  n_train: 16000")
    large = rows(root)["sample"].seconds
    log(root, {"prepare@gsm8k": 4.0, "sample@gsm8k": 1.7 * small}, {"prepare@gsm8k": {"prepare": {"n_train": 1600}}})
    assert rows(root)["sample"].seconds == pytest.approx(1.7 * large)


def test_a_box_is_scaled_by_its_own_run_and_a_box_without_one_by_the_median_of_its_stage() -> None:
    ratios = {"sample@gsm8k": 0.1, "sample@math500": 2.0, "sample@tooluse": 3.0, "extract@gsm8k": 9.0}
    assert calibration.factor(ratios, "sample@gsm8k") == 0.1
    assert calibration.factor(ratios, "sample@other") == 2.0
    assert calibration.factor(ratios, "train@gsm8k-uniform-0") == 1.0


def test_runs_of_another_scale_and_runs_on_a_processor_say_nothing_of_a_gpu(root: Path) -> None:
    took = {"sample@gsm8k": 1e6}
    before = rows(root, "tiny", "h100"), rows(root, "smol", "cpu")
    log(root, took, {"sample@gsm8k": {"device": "cpu"}})
    assert (rows(root, "tiny", "h100"), rows(root, "smol", "cpu")) == before


H100 = "NVIDIA H100 80GB HBM3"


def run_of(root: Path, box: str, seconds: float, scale: str, device: str, params: dict[str, Any], **more: Any) -> None:
    """One line of the log, as a stage writes it."""
    (root / "logs").mkdir(exist_ok=True)
    line = {"stage": box, "ended": "", "seconds": seconds, "cpu_seconds": seconds}
    line |= {"scale": scale, "device": device, "params": params}
    with (root / calibration.LOG).open("a") as file:
        file.write(json.dumps(line | {"processes": 1, "executor": "here", "resumed": False} | more) + "\n")


def test_a_run_on_a_gpu_scales_the_plan_for_that_gpu_and_for_no_other(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    before = {device: rows(root, "paper", device)["sample"] for device in ("h100", "a100", "cpu")}
    run_of(root, "sample@gsm8k", 36_000, "paper", H100, {"device": "cuda"})
    after = {device: rows(root, "paper", device)["sample"] for device in ("h100", "a100", "cpu")}
    assert after["h100"].seconds == pytest.approx(36_000)
    assert after["h100"].logged == 1
    assert (after["a100"], after["cpu"]) == (before["a100"], before["cpu"])
    said = plan_text.assumptions(plan_run(root, "paper", "a100", 1))
    assert f"runs that were not used: 1 on {H100}." in said
    assert "Calibrated by the last logged runs of 1 boxes" in plan_text.assumptions(plan_run(root, "paper", "h100", 1))


def test_a_stage_that_never_uses_the_gpu_is_scaled_whatever_the_gpu(root: Path) -> None:
    run_of(root, "report", 9.0, "paper", "cpu", {"cpu_threads": 8})
    assert [rows(root, "paper", device)["report"].seconds for device in ("h100", "4090")] == pytest.approx([9, 9])


def test_the_parameters_of_a_logged_run_are_its_own(root: Path) -> None:
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k]")
    small = rows(root)["sample"].seconds
    edit(root / "params/tiny.yaml", "  n_train: 1600", "  n_train: 16000")
    large = rows(root)["sample"].seconds
    run_of(root, "prepare@gsm8k", 4.0, "tiny", "cpu", {"prepare": {"n_train": 1600}})
    run_of(root, "sample@gsm8k", 1.7 * small, "tiny", "cpu", {"device": "cpu"})
    assert rows(root)["sample"].seconds == pytest.approx(1.7 * large)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"resumed": True}, "1 resumed"),
        ({"processes": 8}, "1 by several processes"),
        ({"executor": "ray"}, "1 by several processes"),
        ({"scale": "smol"}, "1 at scale smol"),
        ({"device": H100}, f"1 on {H100}"),
    ],
)
def test_a_run_that_cannot_stand_for_the_next_one_is_left_out_and_said(root: Path, more: dict[str, Any], said: str) -> None:
    run_of(root, "sample@gsm8k", 50.0, "tiny", "cpu", {"device": "cpu"})
    before = rows(root)
    run_of(root, "sample@gsm8k", 1.0, **{"scale": "tiny", "device": "cpu", "params": {"device": "cpu"}} | more)
    assert rows(root) == before
    assert f"runs that were not used: {said}." in plan_text.assumptions(plan_run(root, None, None, 1))


@pytest.mark.parametrize(
    ("box", "device", "params", "seconds"),
    [
        ("report", "cpu", {"cpu_threads": 1}, 40.0),
        ("report", "cpu", {"cpu_threads": 2}, 100.0),  # seconds of the processor are those of both threads
        ("sample@gsm8k", H100, {"cpu_threads": 1, "device": "cuda"}, 100.0),
        ("base", "cpu", {"cpu_threads": 1, "base": {"pretrain": {"steps": 300}}}, 40.0),
        ("base", "cpu", {"cpu_threads": 1, "base": {"hub": {"repo": "x"}}}, 100.0),  # it waits for the network
    ],
)
def test_a_box_on_one_thread_took_the_seconds_of_the_processor_and_any_other_those_of_the_clock(
    box: str, device: str, params: dict[str, Any], seconds: float
) -> None:
    run = {"stage": box, "device": device, "params": params, "seconds": 100.0, "cpu_seconds": 40.0}
    assert calibration.took(run) == seconds


def test_contended_boxes_of_two_tasks_are_not_added_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks side by side on a loaded machine: the clock says 100 s for a box of 40 s of the processor."""
    edit(root / "params.yaml", "tasks: .*", "tasks: [gsm8k, math500]")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    alone = {"cpu_threads": 1}
    for box in map(str, schedule.first_outputs(root, graph.checked_parameters(root))):
        run_of(root, box, 100.0, "tiny", "cpu", alone, cpu_seconds=40.0)
    made = plan_run(root, None, None, 1)
    boxes = sum(row.boxes for row in made.stages)
    assert made.at_once == 2
    assert made.seconds == pytest.approx(40 * boxes)
    assert made.wall_s == pytest.approx((40 + run_plan.DVC_S) * boxes / 2)
    assert f"About {plan_text.roughly(made.wall_s)} on this machine's processor (1 thread a box, 2 boxes at once as" in (
        plan_text.summary(made, free=10**15, missing=-1)
    )


def test_a_run_on_the_processor_saves_the_imports_of_every_box_that_loads_torch_and_was_not_logged(root: Path) -> None:
    before = {row.stage: row for row in plan_run(root, None, None, 1).stages}
    assert before["evaluate"].warm_saves == before["evaluate"].boxes * run_plan.IMPORTS_S
    assert before["report"].warm_saves == 0  # it loads no torch
    log(root, {"sample@gsm8k": 50.0}, {})
    made = plan_run(root, None, None, 1)
    (sample,) = [row for row in made.stages if row.stage == "sample"]
    assert sample.warm_saves == 2 * run_plan.IMPORTS_S
    assert made.means["sample"] == pytest.approx((sample.seconds - 2 * run_plan.IMPORTS_S) / 3)
    assert not any(row.warm_saves for row in plan_run(root, None, "h100", 1).stages)
    assert not any(row.warm_saves for row in plan_run(root, "paper", "cpu", 1).stages), "qthink run computes on cuda there"


def test_the_run_lasts_no_less_than_its_longest_chain_of_boxes(root: Path) -> None:
    made = plan_run(root, None, None, 1)
    one = {stage: mean + run_plan.DVC_S for stage, mean in made.means.items()}
    crowd = made._replace(at_once=1000)
    assert crowd.wall_s < made._replace(at_once=1).wall_s
    assert crowd.wall_s >= sum(one[stage] for stage in ("base", "sample", "extract", "train", "evaluate", "report"))


@pytest.mark.parametrize(
    ("cores", "threads", "fit", "at_once"),
    [
        (2, 1, math.inf, 2),
        (8, 1, 25.0, 8),
        (8, 4, 25.0, 2),
        (1, 2, 25.0, 1),
        (2, 1, 25 / 15, 1),  # 15 GB a box of 25 GB
        (8, 1, 25 / 12, 2),
        (8, 1, 25 / 40, 1),
    ],
)
def test_as_many_boxes_run_at_once_as_have_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, fit: float, at_once: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert schedule.side_by_side(threads, fit) == at_once


def test_a_small_memory_leaves_one_box_at_once_and_a_gpu_has_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    largest = max(row.memory for row in plan_run(root, None, None, 1).stages)
    monkeypatch.setattr(run_plan, "processor", lambda _: cost.cpu(1, 1.9 * largest))
    assert plan_run(root, None, None, 1).at_once == 1
    monkeypatch.setattr(run_plan, "processor", lambda _: cost.cpu(1, 2.1 * largest))
    assert plan_run(root, None, None, 1).at_once == 2
    assert plan_run(root, None, "h100", 1).at_once == 1


@pytest.mark.parametrize(
    ("name", "device", "same"),
    [
        (H100, "h100", True),
        ("NVIDIA GeForce RTX 4090", "4090", True),
        ("NVIDIA A100-SXM4-80GB", "a100", True),
        (H100, "a100", False),
        ("NVIDIA GH1000", "h100", False),
        ("cpu", "cpu", True),
        ("cuda", "cpu", False),
        ("cpu", "h100", False),
    ],
)
def test_a_gpus_name_holds_the_short_name_of_the_plan_as_a_word(name: str, device: str, same: bool) -> None:
    assert calibration.same_device(name, device) is same


def test_parameters_that_dvc_keeps_apart_by_file_are_put_together() -> None:
    files = [{"train": {"lr": 1}, "systems.finetuned.sft": {"target": "answer"}}, {"train": {"epochs": 8}}]
    tree = calibration.with_params(calibration.with_params({"K": 6}, files[0]), files[1])
    assert tree == {"K": 6, "train": {"lr": 1, "epochs": 8}, "systems": {"finetuned": {"sft": {"target": "answer"}}}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"stage": "report"}',
        '{"stage": "report", "seconds": NaN}',
        "1e999",
        '{"stage": "x", "seconds": 1, "cpu_seconds": 1, "params": {}}',
        '{"stage": "report", "seconds": 1, "cpu_seconds": -1, "scale": "tiny", "device": "cpu", "executor": "here", '
        '"params": {}, "resumed": false, "processes": 1}',
    ],
)
def test_a_torn_log_is_named_by_line(root: Path, line: str) -> None:
    log(root, {"report": 9.0}, {})
    with (root / calibration.LOG).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"runs\.jsonl line 2 is not the record of a run"):
        plan_run(root, None, None, 1)


# Seconds of the processor of all boxes of a stage at the committed settings, on one thread, each box cold (`dvc repro`): the
# imports of torch and transformers, some 6 s a box, are in them. A warm `qthink run` imports once.
TOOK = {
    "base": 44,
    "sample": 65,
    "extract": 36,
    "average": 5,
    "finetune": 110,
    "train": 300,
    "merge": 90,
    "baseline": 45,
    "evaluate": 100,
    "report": 4,
}


def test_before_a_run_the_tiny_scale_is_estimated_within_a_factor_of_two(root: Path) -> None:
    found = rows(root, "tiny", "cpu")
    for name, took in TOOK.items():
        assert took / BEFORE_A_RUN <= found[name].seconds <= took * BEFORE_A_RUN, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "h300"], f"qthink: --device is 'h300': expected one of {DEVICES}\n"),
        (["--device", "H300\x1b"], f"qthink: --device is 'H300\\x1b': expected one of {DEVICES}\n"),
        (["--memory", "0"], "qthink: --memory is 0: expected the GB of the device, more than 0\n"),
        (["--scale", "huge"], f"qthink: --scale is 'huge': expected one of the files in params/: {', '.join(SCALES)}\n"),
        (["--gpus", "0"], "qthink: --gpus is 0: expected 1 or more; leave it out with --device cpu\n"),
        (["--gpus", "2"], "qthink: --gpus is 2: expected 1 or more; leave it out with --device cpu\n"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(root: Path, arguments: list[str], said: str) -> None:
    done = program(*arguments, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_faults_of_the_params_files_are_listed_a_line_each(root: Path) -> None:
    edit(root / "params.yaml", "K: 6 .*", "K: six")
    edit(root / "params/paper.yaml", "  batch: 128 .*", "  batch: 0")
    done = program("--scale", "paper", cwd=root)
    assert done.returncode == 2
    assert [line[:21] for line in done.stderr.splitlines()] == ["qthink: params.yaml: ", "qthink: params/paper."]


def test_an_unknown_base_is_read_from_the_folder_that_was_made_of_it_and_never_from_another_models(root: Path) -> None:
    config = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 100,
    }
    base = root / "artifacts/base"
    tiny = source(root, "tiny")
    edit(root / "params/paper.yaml", "    repo: Qwen/Qwen3-1.7B .*", "    repo: someone/else")
    with pytest.raises(
        ParamError,
        match=r"the shape of someone/else is unknown until it has a config\.json: run `dvc repro base`, or `hf download",
    ):
        plan_run(root, "paper", None, 1)
    manifest(base, {}, {"source": tiny})
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(ParamError, match=r"the shape of someone/else is unknown until it has a config\.json"):
        plan_run(root, "paper", None, 1)
    shutil.rmtree(base)
    manifest(base, {}, {"source": source(root, "paper")})
    (base / "config.json").write_text(json.dumps(config))
    assert plan_run(root, "paper", None, 1).workload.shape == (2, 64, 4, 4, 16, 128, 100, False)
    (base / "config.json").write_text(json.dumps(config | {"hidden_size": "x"}))
    with pytest.raises(DataError, match=r"config\.json does not describe the shape|config\.json has sizes"):
        plan_run(root, "paper", None, 1)


def test_an_unknown_base_of_the_hub_is_read_from_the_cache_at_its_commit(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    edit(root / "params/paper.yaml", "    repo: Qwen/Qwen3-1.7B .*", "    repo: someone/else")
    config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    revision = tree_of("paper")[0]["base"]["hub"]["revision"]
    for commit, found in (("0" * 40, False), (revision, True)):
        snapshot = tmp_path / "cache/models--someone--else/snapshots" / commit
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(json.dumps(config | {"vocab_size": 100}))
        if found:
            assert plan_run(root, "paper", None, 1).workload.shape == (2, 64, 4, 4, 16, 128, 100, False)
        else:
            with pytest.raises(ParamError, match="the shape of someone/else is unknown"):
                plan_run(root, "paper", None, 1)


def test_a_smaller_qwen3_is_planned_by_its_own_shape_whatever_lies_in_artifacts(root: Path) -> None:
    before = rows(root, "paper", "4090")
    edit(root / "params/paper.yaml", "    repo: Qwen/Qwen3-1.7B .*", "    repo: Qwen/Qwen3-0.6B")
    manifest(root / "artifacts/base", {}, {"source": source(root, "tiny")})
    (root / "artifacts/base/config.json").write_text('{"num_hidden_layers": 3, "hidden_size": 96}')
    after = rows(root, "paper", "4090")
    # 28 layers of 2 * 1,024 * 128 * 24 + 3 * 1,024 * 3,072 weights, and 151,936 * 1,024 of the output head
    assert after["sample"].flops / after["sample"].tokens == 2 * (28 * 15_728_640 + 155_582_464)
    assert after["sample"].flops / before["sample"].flops == pytest.approx(596 / 1720, rel=1e-3)


@pytest.mark.parametrize(
    ("repo", "billions"),
    [("Qwen/Qwen3-0.6B", 0.44), ("Qwen/Qwen3-1.7B", 1.4), ("Qwen/Qwen3-4B", 3.6), ("Qwen/Qwen3-8B", 6.95)],
)
def test_a_known_shape_has_the_weights_that_its_card_counts_without_the_embedding(repo: str, billions: float) -> None:
    assert cost.body(shapes.KNOWN[repo]) / 1e9 == pytest.approx(billions, abs=0.05)


def test_the_shape_of_the_tiny_model_is_the_one_that_is_trained(tokenizer: Any) -> None:
    assert len(tokenizer) == shapes.TINY_VOCABULARY


@pytest.mark.slow
def test_no_library_of_models_is_loaded_for_a_plan(root: Path) -> None:
    text = "import sys; from pathlib import Path; from qthink_core.planning import plan_text, run_plan\n"
    text += "found = run_plan.plan_run(Path(), 'paper', None, 1); plan_text.table(found), plan_text.as_json(found)\n"
    text += "assert not {'torch', 'transformers', 'scipy.stats', 'pyarrow', 'peft', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", text], check=True, cwd=root, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_the_table_is_aligned_and_the_program_prints_it_with_assumptions_and_a_verdict(root: Path) -> None:
    done = program("--scale", "paper", "--device", "cpu", cwd=root)
    assert done.stderr == ""
    table, assumed, power, verdict = done.stdout.split("\n\n")
    header, *lines = table.splitlines()
    assert [line.split()[0] for line in lines] == [*STAGES, "total"]
    column = header.index("on")
    assert all(line[column - 2 : column].isspace() for line in lines[:-1])
    assert "thought 1,000" in assumed
    found = smallest_difference(68, 1)
    assert found is not None
    assert f"{100 * found:.1f} points on tooluse (68 questions); one training, so about these weights only" in power
    assert "(1,319 questions)" in power
    assert "(500 questions)" in power
    assert re.match(r"About [\d.]+ years on this machine's processor", verdict)
    assert "free here" in verdict


ASKED = [("tiny", None, 1), ("smol", None, 1), ("paper", "h100", 1), ("paper", "4090", 1), ("paper", "cpu", 1)]


@pytest.mark.parametrize(("scale", "device", "gpus"), [*ASKED, ("paper", "h100", 8), ("paper", "h100", 64)])
def test_the_table_fits_a_terminal(root: Path, scale: str, device: str | None, gpus: int) -> None:
    table = plan_text.table(plan_run(root, scale, device, gpus))
    assert max(map(len, table.splitlines())) <= plan_text.WIDTH


def test_a_table_with_the_longest_figures_fits_a_terminal(root: Path) -> None:
    made = plan_run(root, "paper", "h100", 1024)
    long = {"tokens": 8.88e14, "flops": 8.88e20, "disk": 8.88e14, "memory": 8.88e14, "boxes": 88_888, "logged": 888}
    times = {"floor_s": 700 * plan_text.DAY, "seconds": 60 * plan_text.YEAR}
    stages = [row._replace(**(long | times | ({"fewest": 8, "workers": 888} if row.workers else {}))) for row in made.stages]
    table = plan_text.table(made._replace(stages=stages))
    assert "8-888  log 888" in table
    assert max(map(len, table.splitlines())) <= plan_text.WIDTH


def test_a_device_is_named_in_any_case(root: Path) -> None:
    assert plan_run(root, "paper", "H100", 8) == plan_run(root, "paper", "h100", 8)


@pytest.mark.slow
@pytest.mark.parametrize(("device", "code"), [("H100", 0), ("4090", 69)])
def test_a_plan_whose_memory_is_too_small_is_printed_and_ends_with_exit_code_69(root: Path, device: str, code: int) -> None:
    done = program("--scale", "paper", "--device", device, cwd=root)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.startswith("stage ")
    large = re.findall(r"^(\w+) may need .*: lower (\S+) in params/paper.yaml\.$", done.stdout, re.MULTILINE)
    expected = [("train", "train.micro_batch"), ("evaluate", "evaluate.batch")]
    assert set(expected if code else []) <= set(large)
    assert bool(large) == bool(code)
    as_json = program("--scale", "paper", "--device", device, "--json", cwd=root)
    assert as_json.returncode == code
    assert json.loads(as_json.stdout)["too_large"] == [stage for stage, _ in large]


@pytest.mark.slow
def test_a_disk_that_is_too_small_ends_the_plan_of_this_machine_with_exit_code_69(root: Path) -> None:
    edit(root / "params/tiny.yaml", "  n_train: 1600", "  n_train: 2000000000")
    done = program(cwd=root)
    assert done.returncode == 69
    assert "are free here: it does not fit." in done.stdout
    # for another machine than this one, whose disk is unknown
    assert program("--device", "h100", cwd=root).returncode == (69 if Path("/dev/nvidia0").exists() else 0)


@pytest.mark.slow
def test_the_figures_for_programs_are_those_of_the_plan_and_leave_this_machines_disk_out(root: Path) -> None:
    done = program("--json", "--scale", "paper", "--gpus", "8", cwd=root)
    found = json.loads(done.stdout)
    made = plan_run(root, "paper", "h100", 8)
    assert (found["scale"], found["device"], found["gpus"]) == ("paper", "h100", 8)
    assert found["seconds"] == pytest.approx(made.seconds)
    assert list(found["cards"]) == list(cost.GPUS)
    assert found["cards"]["h100"]["wall_seconds"] == pytest.approx(plan_run(root, "paper", "h100", 1).wall_s)
    assert [name for name, one in found["cards"].items() if not one["too_large"]] == ["h100", "h200", "a100"]
    assert found["dearest"] == "probe"
    assert found["cheaper"][0]["key"] == "probe.sweep"
    sizes = {"gsm8k": 1319, "math500": 500, "tooluse": 68}
    assert found["smallest_differences"] == {task: pytest.approx(smallest_difference(n, 1)) for task, n in sizes.items()}
    assert [row["stage"] for row in found["stages"]] == list(STAGES)
    assert "free" not in done.stdout


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (0, "-"),
        (7, "7 B"),
        (999.4, "999 B"),
        (999.6, "1.0 kB"),
        (2_938_503_168, "2.9 GB"),
        (9.96e9, "10 GB"),
        (1.2e18, "1.2 EB"),
    ],
)
def test_figures_are_short(n: float, said: str) -> None:
    assert plan_text.short(n, "B") == said


@pytest.mark.parametrize(
    ("seconds", "said", "rough"),
    [
        (45, "45 s", "45 s"),
        (725, "12 min", "12 min"),
        (3569, "59 min", "59 min"),
        (3571, "1.0 h", "60 min"),
        (11_520, "3.2 h", "3 h"),
        (28 * 3600, "28 h", "28 h"),
        (2 * 86400, "2.0 d", "48 h"),
        (52 * 86400, "52 d", "52 days"),
        (3 * 365.25 * 86400, "3.0 y", "3.0 years"),
        (88.4 * 365.25 * 86400, "88 y", "88.4 years"),
    ],
)
def test_times_are_short(seconds: float, said: str, rough: str) -> None:
    assert (plan_text.duration(seconds), plan_text.roughly(seconds)) == (said, rough)


def test_the_stages_of_the_cost_model_are_those_of_the_graph() -> None:
    assert list(stage_costs.COSTS) == list(STAGES)
