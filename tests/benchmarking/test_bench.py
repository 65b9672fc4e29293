"""Both sides of every measurement give the same result, and counts are exact. No test looks at seconds."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imports import ROOT
from typer.testing import CliRunner

from qthink_core.benchmarking import answering, bench, extraction, measured, timing, training
from qthink_core.benchmarking.measured import Measured
from qthink_core.benchmarking.scale_sizes import Scale
from qthink_core.benchmarking.timing import Device, Ratio
from qthink_core.benchmarking.workload import EOS, Sizes, examples_of, problems_of, prompts_of, rows_of
from qthink_core.cli import __main__ as cli
from qthink_core.planning.cost import Shape

NANO = Shape(2, 32, 2, 1, 16, 48, 64)
SIZES = Sizes(3, 4, 10, 20, 6, 6, 200, 2, 7, 12)
# The design's bound for float32 sums in another order.
TOLERANCE = 3e-6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_extraction_and_one_forward_per_rollout_read_the_same_states_of_counted_tokens() -> None:
    row = extraction.measured("nano", NANO, SIZES, 1, 1e9, None)
    assert row.difference < TOLERANCE
    problems = problems_of(NANO, SIZES)
    thoughts = sum(len(thought) for one in problems for thought in one.thoughts)
    assert row.counts["tokens_needed"] == sum(len(one.prompt) for one in problems) + thoughts
    whole = sum(SIZES.G * len(one.prompt) for one in problems) + thoughts
    assert (row.counts["naive_tokens"], row.counts["naive_logits_rows"]) == (whole, whole)
    assert (row.counts["naive_forward_calls"], row.counts["logits_rows"]) == (SIZES.problems * SIZES.G, 0)
    assert row.counts["processed_per_needed"] == row.counts["tokens_processed"] / row.counts["tokens_needed"]


def test_the_naive_states_are_those_of_the_last_layer_at_the_rows_positions() -> None:
    model, rows, one_by_one, own = extraction.sides(NANO, SIZES)
    out = model(input_ids=torch.tensor([rows[5].tokens]), output_hidden_states=True)
    expected = out.hidden_states[-1][0, rows[5].positions].detach()
    for found in (one_by_one()[5], own()[5]):
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_latent_answers_are_those_of_the_cards_loop_and_no_row_is_computed_in_vain() -> None:
    row = answering.answers("nano", NANO, SIZES, 1, 1e9, None)
    assert row.difference == 0
    system, prompts = answering.system_of(NANO, SIZES), prompts_of(NANO, SIZES, SIZES.questions)
    lengths = [len(one) for one in answering.naive_answers(system, prompts, SIZES)]
    assert len(set(lengths)) > 2
    read = 1 + SIZES.K
    assert row.counts["tokens_emitted"] == row.counts["row_steps"] == sum(lengths)
    assert row.counts["forward_calls"] == read + max(lengths) - 1
    assert row.counts["naive_forward_calls"] == sum(read + n - 1 for n in lengths)
    assert row.counts["naive_logits_rows"] == sum(map(len, prompts.values())) + sum(SIZES.K + n - 1 for n in lengths)


def test_an_answer_of_two_tokens_after_two_latent_steps_needs_504_flops_of_a_layer_of_34_weights() -> None:
    shape = Shape(1, 2, 1, 1, 2, 3, 5)
    read, after_attention, head = 3 + 2 + 1, 4 + 18, 10  # the second token of the answer is not read
    weights = 34 * read - after_attention * (3 - 1) + head * 2
    assert answering.flops(shape, [[1, 2, 3]], [[4, 4]], 2) == 2 * weights + 4 * 2 * read**2 / 2 == 504


@pytest.mark.slow
@pytest.mark.parametrize("merged", [False, True])
def test_a_training_step_has_the_gradient_of_one_example_at_a_time_with_either_teacher(merged: bool) -> None:
    step = training.Step(NANO, SIZES, merged)
    found, work = step.gradient(step.own)
    examples = examples_of(problems_of(NANO, SIZES._replace(G=1)))
    answers, prompts = (sum(map(len, part)) for part in zip(*((one.target, one.prompt) for one in examples), strict=True))
    passes = SIZES.K + 1  # the prompt, then the latent steps, of which the last takes the answer along
    assert (work.logits_rows, work.forward_calls) == (answers, math.ceil(len(examples) / SIZES.micro_batch) * passes)
    whole = prompts + len(examples) * SIZES.K + answers - len(examples)
    assert work.tokens == whole  # no padding
    thoughts = sum(len(one.tokens) for one in step.rows)
    for online in (False, True):
        expected, naively = step.gradient(lambda online=online: step.naive(online))
        assert max(float(one.abs().max()) for one in expected.values()) > 1e-2
        assert training.difference(found, expected) < TOLERANCE
        assert naively.tokens == naively.logits_rows == whole + online * thoughts
        assert naively.forward_calls == len(examples) * (passes + 1 + online)


@pytest.mark.slow
def test_merged_lora_has_the_gradient_of_peft() -> None:
    sizes = SIZES._replace(problems=2, K=3)
    row = training.merged_step("nano", NANO, sizes, 1, None)
    assert 0 < row.difference < TOLERANCE
    assert row.counts["forward_calls"] == sizes.K + 1


@pytest.mark.slow
def test_probes_give_the_answers_of_each_condition_on_its_own_and_read_the_prompts_once() -> None:
    sizes = SIZES._replace(K=3, questions=3, max_new_tokens=5)
    row = answering.probes("nano", NANO, sizes, 1, None)
    assert row.difference == 0
    # six replacements, and one to K latent steps
    assert (row.counts["conditions"], row.counts["row_steps_per_token"]) == (6 + sizes.K, 1.0)
    probe = answering.Probe(NANO, sizes)
    found = probe.own()
    width = max(map(len, probe.prompts.values()))
    passes = [max(map(len, rows)) - 1 for rows in found.values()]
    given = len(answering.CONDITIONS) - 1  # K=0 has no vectors to read
    steps = sum(range(1, sizes.K + 1))
    assert row.counts["naive_forward_calls"] == len(found) + given + steps + sum(passes)
    n = sizes.questions
    assert row.counts["naive_tokens"] == n * (len(found) * width + given * sizes.K + steps + sum(passes))
    emitted = row.counts["tokens_emitted"] - n * len(found)
    prompts = sum(map(len, probe.prompts.values()))
    assert row.counts["tokens_processed"] == prompts + n * (given * sizes.K + sizes.K) + emitted
    # all conditions are decoded at once
    assert row.counts["forward_calls"] == 1 + given + sizes.K + max(passes)
    assert len({tuple(map(tuple, rows)) for rows in found.values()}) > 5  # the conditions matter


def test_the_naive_batch_cuts_each_answer_after_its_end_token() -> None:
    answers = [row for rows in answering.Probe(NANO, SIZES).naive().values() for row in rows]
    assert {row.count(EOS) for row in answers} == {0, 1}
    assert all(row[-1] == EOS for row in answers if EOS in row)


def test_workloads_are_the_same_for_a_seed_and_have_the_sizes_that_were_asked_for() -> None:
    problems, sizes = problems_of(NANO, SIZES), SIZES._replace(problems=50)
    assert problems == problems_of(NANO, SIZES) != problems_of(NANO, SIZES._replace(seed=1))
    many = problems_of(NANO, sizes)
    means = [
        np.mean([len(part) for part in parts]) for parts in zip(*((one.prompt, one.answer) for one in many), strict=True)
    ]
    np.testing.assert_allclose(means, [sizes.prompt, sizes.answer], rtol=0.15)
    thoughts = [len(thought) for one in many for thought in one.thoughts]
    np.testing.assert_allclose(np.mean(thoughts), sizes.thought, rtol=0.1)
    assert min(thoughts) >= sizes.K
    assert all(row.positions[-1] == len(row.tokens) - 1 for row in rows_of(many, sizes.K))


def test_a_round_runs_naive_own_own_naive_and_the_median_round_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], list[str]()
    durations = iter([3, 1, 1, 5, 2, 1, 1, 2, 9, 1, 2, 9])

    def way(name: str) -> Callable[[], None]:
        def run() -> None:
            calls.append(name)
            clock[0] += next(durations)

        return run

    monkeypatch.setattr(timing.time, "process_time", lambda: clock[0])
    assert timing.paired(way("naive"), way("own"), 3, Device()) == Ratio(4.0, 2.0, 6.0, 4.0, 1.0)
    assert calls == ["naive", "own", "own", "naive"] * 3


ROW = Measured("reading", "nano", "one by one", Ratio(1.5, 1.4, 1.7, 3.0, 2.0), 2e-7, {"tokens": 1234, "share": 1.5}, 2.0)


@pytest.mark.slow
def test_a_scale_is_measured_in_its_dtype_with_the_same_counts_and_no_goals(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 is the dtype of GPUs. There the rounding of sums in another order may change any answer."""
    sizes = SIZES._replace(on=Device("cpu", "bfloat16", 1), questions=4, max_new_tokens=5)
    scale = Scale("nano", NANO, False, sizes.on, {})
    plan = bench.Plan(sizes, 1, memory=False, scale=scale)
    monkeypatch.setattr(Device, "matrix_peak", lambda _: 1e9)
    rows = list(bench.measure(plan))
    assert [row.work.partition(",")[0] for row in rows] == [
        "extraction",
        *["latent answers"] * 2,
        *["training step"] * 2,
        "probes",
    ]
    assert {row.model for row in rows} == {"nano"}
    assert [row.goal for row in rows] == [None] * 6
    assert all(row.tokens_s is not None and row.tokens_s > 0 for row in rows)
    reading = rows[0]
    exact = extraction.measured("nano", NANO, sizes._replace(on=Device()), 1, 1e9, None)
    assert reading.counts == exact.counts
    assert exact.difference < 1e-5 < reading.difference < 0.05
    assert all(row.difference < 0.05 for row in rows[3:5])


def test_a_row_says_what_falls_short_of_its_goal() -> None:
    assert ROW.missed() == ["1.50x of 2x"]
    assert ROW._replace(goal=1.5).missed() == ROW._replace(goal=None).missed() == []
    assert ROW._replace(goal=None, bounds={"share": 1.02}).missed() == ["share 1.5, wanted at most 1.02"]
    text = measured.as_text([ROW])
    assert "| reading | nano | one by one | 1.50x | 1.40 to 1.70 | 2x |  |  | 2e-07 |" in text
    assert "one by one: tokens 1,234, share 1.500" in text
    assert text.endswith("one by one: 1.50x of 2x")
    assert measured.as_text([ROW._replace(goal=1.5)]).endswith("All goals are reached.")
    assert measured.as_text([ROW._replace(goal=None)]).endswith("one by one: tokens 1,234, share 1.500")


@pytest.mark.parametrize("json_too", [False, True])
def test_the_command_prints_a_table_or_json_and_writes_only_where_it_is_asked_to(
    json_too: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plans: list[Any] = []
    monkeypatch.setattr(bench, "measure", lambda plan: plans.append(plan) or iter([ROW]))
    monkeypatch.setattr("qthink_core.pipeline.process.pin_numerics", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    arguments = ["bench", "--quick", "--seed", "3", "--rollouts", "2", *(["--json"] if json_too else [])]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    assert plans == [bench.Plan(bench.QUICK._replace(seed=3, G=2), 1)]
    if json_too:
        found = json.loads(done.stdout)
        assert found["sizes"]["G"] == 2
        assert found["rows"][0]["ratio"]["median"] == 1.5
        assert found["rows"][0]["missed"] == ["1.50x of 2x"]
    else:
        assert done.stdout == measured.as_text([ROW]) + "\n"
    CliRunner().invoke(cli.app, [*arguments, "--output", "table.txt"])
    assert Path("table.txt").read_text() == done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "speed"], "--only is 'speed': choose from extraction, answers, training, merged, probes, vllm"),
        (["--output", "none/table.md"], "--output is none/table.md, in a folder that does not exist: make it first"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "qthink_core.cli", "bench", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"qthink: {said}\n")


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


@pytest.mark.slow
@on_linux
def test_an_earlier_peak_of_the_process_does_not_count() -> None:
    # the allocator maps arrays of more than 32 MiB anew and returns them at once
    earlier = np.ones(1 << 28, np.int8)
    del earlier
    grown = extraction.grown_by(lambda: np.ones(1 << 26, np.int8))
    assert 0.9 < grown / (1 << 26) < 1.5


@pytest.mark.slow
@on_linux
def test_memory_is_that_of_the_work_alone() -> None:
    few, more = (
        extraction.extra_bytes("naive", NANO._replace(vocabulary=20_000), SIZES._replace(problems=1, G=1, thought=thought))
        for thought in (100, 1000)
    )
    tokens = len(rows_of(problems_of(NANO, SIZES._replace(problems=1, G=1, thought=1000)), 6)[0].tokens)
    logits = 4 * 20_000 * tokens
    assert logits < more < 4 * logits
    assert few < more / 2


def test_every_kind_of_work_that_the_command_names_is_measured_and_no_other() -> None:
    from qthink_core.cli.bench import KINDS

    plan = bench.Plan(bench.QUICK, 1)
    assert tuple(bench.jobs(plan, 1e9)) == KINDS
    tiny = bench.FULL._replace(prompt=40, thought=24, answer=12, max_new_tokens=24, batch_tokens=2048)
    assert bench.of_tiny(bench.FULL) == tiny
    assert bench.of_tiny(bench.FULL._replace(batch_tokens=100)).batch_tokens == 100
