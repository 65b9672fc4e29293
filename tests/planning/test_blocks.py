"""Blocks of rollouts in vLLM and conditions that `probe` decodes together: their steps, memory, and what a plan says."""

import functools
import heapq
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT

from qthink_core.pipeline.graph import Box
from qthink_core.planning import plan_text, room, stage_costs
from qthink_core.planning.run_plan import plan_run
from qthink_core.planning.workload import SPREAD, block_steps

MEAN, LIMIT = 1200.0, 2048
GSM8K = "tasks=[gsm8k]"
HALF = ["params/tiny.yaml:dtype=bfloat16", "params/tiny.yaml:train.lora.merged=false"]


def simulated(rows: int, places: int, mean: float, limit: int, seed: int) -> float:
    """Steps of one block: each rollout takes the place that falls free first."""
    draw, busy = random.Random(seed), [0.0] * min(rows, places)
    for _ in range(rows):
        length = min(limit, mean * draw.lognormvariate(-(SPREAD**2) / 2, SPREAD))
        heapq.heapreplace(busy, busy[0] + length)
    return max(busy)


@pytest.mark.parametrize(
    ("rows", "places", "mean", "limit", "within"),
    [
        # at the recipe's limit, which cuts one rollout in ten: fewer rows than places, just more of them, and many more
        *[(rows, places, MEAN, LIMIT, 0.05) for rows, places in [(256, 600), (1024, 782), (1024, 233), (4096, 782)]],
        # a limit that no rollout reaches: the longest one decides
        *[(rows, places, 300.0, LIMIT, 0.12) for rows, places in [(256, 600), (1024, 233), (4096, 782)]],
    ],
)
def test_a_block_takes_the_steps_of_a_simulation(rows: int, places: int, mean: float, limit: int, within: float) -> None:
    found = [simulated(rows, places, mean, limit, seed) for seed in range(8)]
    # the simulation has this mean before the cut, which takes 3 % of the tokens
    assert block_steps(rows, places, mean, limit) == pytest.approx(sum(found) / len(found), rel=within)


some = st.integers(1, 5000)


@given(rows=some, more=some, places=some, mean=st.floats(6, LIMIT))
def test_a_larger_block_takes_more_steps_and_fewer_a_rollout(rows: int, more: int, places: int, mean: float) -> None:
    small, large = (block_steps(n, places, mean, LIMIT) for n in (rows, rows + more))
    assert small <= large * (1 + 1e-9)
    # no fewer than a full engine takes, and than one rollout
    assert small >= max(mean, rows * mean / places) * (1 - 1e-9)
    if places < rows:
        assert large / (rows + more) <= small / rows * (1 + 1e-9)


@functools.cache
def figures(scale: str, device: str, *settings: str) -> room.Blocks:
    (found,) = room.blocks(plan_run(ROOT, scale, device, 1, None, [GSM8K, *settings]))
    return found


def test_a_plan_says_how_full_vllm_is_what_a_kill_costs_and_what_larger_blocks_save() -> None:
    for problems, busy in ((64, 0.54), (128, 0.70), (256, 0.82)):
        one, other = (
            figures("paper", "h100", f"params/paper.yaml:sample.block_problems={n}") for n in (problems, 2 * problems)
        )
        assert (one.problems, one.places) == (problems, pytest.approx(781.8, abs=0.1))
        assert one.busy == pytest.approx(busy, abs=0.005)
        # a second of the whole is a second of its blocks; the last one of 7,473 problems is smaller
        assert one.twice_saves_s == pytest.approx((one.seconds - other.seconds / 2) * 7473 / problems)
    made = plan_run(ROOT, "paper", "h100", 1, None, [GSM8K])
    (line,) = plan_text.block_lines(made)
    assert line in plan_text.assumptions(made).splitlines()
    assert line == (
        "Blocks of rollouts with vLLM, gsm8k: 128 problems keep 70 % of 782 places in use and take 4 min, which a kill "
        "costs at most; twice as many save 2 min."
    )
    assert plan_text.block_lines(plan_run(ROOT, "tiny", None, 1)) == []


def test_where_a_whole_block_finds_room_a_larger_one_may_save_nothing() -> None:
    made = plan_run(ROOT, "qwen25_math", "h100", 1, None, [GSM8K])
    assert figures("qwen25_math", "h100").twice_saves_s < 0
    assert plan_text.block_lines(made)[0].endswith("; twice as many save nothing.")


@pytest.mark.parametrize(("scale", "device"), [("paper", "h100"), ("paper", "h200"), ("paper", "a100"), ("small", "4090")])
def test_a_kill_costs_less_than_ten_minutes_of_rollouts_on_the_cards_that_a_scale_is_made_for(
    scale: str, device: str
) -> None:
    assert figures(scale, device).seconds < 600


def test_the_table_of_blocks_on_the_page_is_that_of_the_plan() -> None:
    page = (ROOT / "docs/scale.md").read_text()
    rows = re.findall(r"^\| (paper|small) \| (\w+) \| (\d+) \| (\d+) % \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 8
    for scale, name, problems, busy, took, block in rows:
        setting = f"params/{scale}.yaml:sample.block_problems={problems}"
        found = figures(scale, name.casefold(), setting)
        (sample,) = (
            one for one in plan_run(ROOT, scale, name.casefold(), 1, None, [GSM8K, setting]).stages if one.stage == "sample"
        )
        expected = (f"{100 * found.busy:.0f}", f"{sample.seconds / 3600:.2f} h", f"{found.seconds / 60:.1f} min")
        assert (busy, took, block) == expected, (scale, name, problems)


def probe(scale: str, *settings: str) -> stage_costs.BoxCost:
    load = plan_run(ROOT, scale, None, 1, None, [GSM8K, *settings]).workload
    return stage_costs.COSTS["probe"](load, Box("probe", "gsm8k", "uniform"))


def test_conditions_that_are_decoded_together_share_the_passes_and_need_the_memory() -> None:
    # 12 conditions of 400 questions in 4 batches of 100: S tokens and each pass through 2 layers
    S, layers, fed = 7 * 1.7, 2, 6 + 2 * 6
    kv, logits = 2 * 2 * 3 * 32 * 4, 629 * 4
    for rows, together in ((100, 1), (199, 1), (200, 2), (500, 5), (1200, 12), (5000, 12)):
        found = probe("tiny", f"params/tiny.yaml:probe.rows={rows}")
        assert found.compute.passes == pytest.approx(layers * 4 * (fed + -(-12 // together) * S)), rows
        assert found.compute.tokens == 12 * 400 * 7
        weights = found.memory - together * 100 * ((6 + 48) * kv + logits) - 100 * 30 * kv
        assert weights == pytest.approx(probe("tiny", "params/tiny.yaml:probe.rows=1").memory - 100 * (84 * kv + logits))
    # in half precision each condition is decoded alone
    few, many = (probe("paper", f"params/paper.yaml:probe.rows={rows}") for rows in (64, 4096))
    assert few == many


def test_the_last_smaller_batch_takes_more_conditions_at_once() -> None:
    # 3 batches of 100 questions with 4 conditions at once, and one of 50 with 8
    settings = ("params/tiny.yaml:probe.rows=400", "params/tiny.yaml:prepare.n_test=350")
    assert probe("tiny", *settings).compute.passes == pytest.approx(2 * (4 * 18 + (3 * 3 + 2) * 7 * 1.7))


@pytest.mark.parametrize(
    ("settings", "named"),
    [([], "probe.rows"), (["params/tiny.yaml:probe.rows=199"], "evaluate.batch"), (HALF, "evaluate.batch")],
)
def test_the_advice_of_probe_names_the_number_that_its_memory_follows(settings: list[str], named: str) -> None:
    load = plan_run(ROOT, "tiny", None, 1, None, [GSM8K, *settings]).workload
    assert room.remedy("probe", load.tree) == f"lower {named} in params/tiny.yaml"
    tried = dict(room.changes("probe", load))
    assert ("probe.rows" in tried) is (load.tree["dtype"] == "float32")
