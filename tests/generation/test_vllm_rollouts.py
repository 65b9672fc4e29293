"""Rollouts by vLLM on a real model: `make test-vllm`. Skipped where vLLM is not installed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import sample
from vllm_models import DEVICE, make, named

from qthink_core.artifacts import rollouts
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.store import Work
from qthink_core.generation import engine
from qthink_core.generation.engine import Engine
from qthink_core.generation.requests import Sampling
from qthink_core.generation.units import plan_rollouts, rollouts_of
from qthink_core.generation.vllm_engine import CPU_STEP_TOKENS
from qthink_core.models.loading import QThinkConfig

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

G, LIMIT = 4, 12
SAMPLING = Sampling(seed=0, temperature=1.0, top_p=0.95, top_k=20)


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, questions: list[list[int]]) -> Iterator[Engine]:
    """One engine for all tests."""
    folder, longest = make(tmp_path_factory.mktemp("models"), tokenizer).base, max(map(len, questions))
    with engine.opened("vllm", folder, QThinkConfig(0, True), DEVICE, "float32", longest, LIMIT) as opened:
        yield opened


def sampled(vllm: Engine, prompts: dict[str, list[int]], block: int, n: int = G, seed: int = 0) -> dict[Any, Rollout]:
    """The rollouts of all prompts, in blocks of the plan, by problem and index."""
    plan = plan_rollouts(Path("base"), prompts, block, n, SAMPLING._replace(seed=seed))
    rows = [row for unit in plan.values() for row in rollouts_of(unit.requests, vllm.generate(unit.requests))]
    return {(row.problem_id, row.rollout): row for row in rows}


def test_a_block_holds_g_rollouts_a_problem_with_tokens_text_and_the_reason_why_they_ended(
    vllm: Engine, tokenizer: Any, questions: list[list[int]]
) -> None:
    prompts, eos = named(questions, 9), tokenizer.eos_token_id
    rows = sample(vllm, prompts, G, SAMPLING)
    assert [(row.problem_id, row.rollout) for row in rows] == [(name, index) for name in prompts for index in range(G)]
    assert {row.finish for row in rows} == {"stop", "length"}
    for row in rows:
        assert row.text == tokenizer.decode(row.tokens, skip_special_tokens=True)
        if row.finish == "stop":
            assert row.tokens.index(eos) == len(row.tokens) - 1
        else:
            assert eos not in row.tokens
            assert len(row.tokens) == LIMIT


def test_rollouts_are_what_the_contract_of_their_file_says(vllm: Engine, questions: list[list[int]], tmp_path: Path) -> None:
    rows = sample(vllm, named(questions, 5), G, SAMPLING)
    rollouts.writer(rows)(tmp_path / "block-00000.parquet")
    assert rollouts.read(tmp_path / "block-00000.parquet") == rows


def test_a_rollout_does_not_depend_on_block_size_neighbours_or_their_number(
    vllm: Engine, questions: list[list[int]]
) -> None:
    prompts = named(questions, 13)
    alone = sampled(vllm, prompts, block=1)
    assert sampled(vllm, prompts, block=5) == alone
    assert sampled(vllm, dict(reversed(prompts.items())), block=13) == alone
    few = {name: prompts[name] for name in ("p011", "p003")}
    assert sampled(vllm, few, block=2).items() <= alone.items()
    more = sampled(vllm, prompts, block=4, n=6)
    assert alone.items() <= more.items()


def test_a_block_may_have_more_prompt_tokens_than_the_model_reads_in_a_step(
    vllm: Engine, questions: list[list[int]]
) -> None:
    """Otherwise vLLM reads a prompt in parts, which a seeded request does not survive on a CPU."""
    prompts = named(questions, 13)
    n = CPU_STEP_TOKENS // sum(map(len, prompts.values())) + 2
    many = sampled(vllm, prompts, block=13, n=n)
    assert len(many) == 13 * n
    assert sampled(vllm, prompts, block=1).items() <= many.items()


def test_rollout_i_has_the_seed_of_its_problem_plus_i(vllm: Engine, questions: list[list[int]]) -> None:
    """vLLM gives child i of a request with n = G the request's seed + i; each child alone, by its own seed, is the same."""
    prompts = named(questions, 5)
    rows = sampled(vllm, prompts, block=5)
    for name, index in rows:
        (alone,) = sample(vllm, {name: prompts[name]}, 1, SAMPLING._replace(first=index))
        assert alone.tokens == rows[name, index].tokens


def test_another_seed_another_problem_and_another_index_give_other_rollouts(
    vllm: Engine, questions: list[list[int]]
) -> None:
    prompts = named(questions, 6)
    first, other = sampled(vllm, prompts, block=6), sampled(vllm, prompts, block=6, seed=1)
    assert sum(first[key].tokens != other[key].tokens for key in first) > len(first) / 2
    many = sampled(vllm, prompts, block=6, n=8)
    for name in prompts:
        assert len({tuple(many[name, index].tokens) for index in range(8)}) > 4
    same = sample(vllm, {"one": questions[0], "two": questions[0]}, 8, SAMPLING)
    assert [row.tokens for row in same[:8]] != [row.tokens for row in same[8:]]


def test_a_killed_run_resumes_to_the_same_bytes(vllm: Engine, questions: list[list[int]], tmp_path: Path) -> None:
    prompts = named(questions, 12)

    def run(folder: Path, blocks: int | None = None) -> dict[str, bytes]:
        work = Work(folder, "f" * 64, "settings", {})
        plan = plan_rollouts(Path("base"), prompts, 5, G, SAMPLING)
        for name in [name for name in plan if not work.done(name)][:blocks]:
            rows = rollouts_of(plan[name].requests, vllm.generate(plan[name].requests))
            work.commit(name, {f"{name}.parquet": rollouts.writer(rows)}, rollouts.counts(rows))
        return {path.name: path.read_bytes() for path in sorted(work.folder.iterdir())}

    unbroken = run(tmp_path / "unbroken")
    assert len(run(tmp_path / "killed", blocks=1)) == 2
    assert run(tmp_path / "killed") == unbroken
