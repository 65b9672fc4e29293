"""Rollouts by vLLM on a real model: `make test-vllm`. Skipped where vLLM is not installed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vllm_models import DEVICE, make, named

from qthink_core.artifacts import rollouts
from qthink_core.artifacts.rollouts import Rollout
from qthink_core.artifacts.store import Work
from qthink_core.generation import samplers, vllm_engine
from qthink_core.generation.decoding import request_seed

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

G = 4
SETTINGS: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "top_k": 20, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any, questions: list[list[int]]) -> Iterator[Any]:
    """`sample_block` of one engine for all tests."""
    folder, prompts = make(tmp_path_factory.mktemp("models"), tokenizer).base, named(questions, len(questions))
    longest = max(map(len, prompts.values()))
    with samplers.opened("vllm", folder, DEVICE, "float32", longest, SETTINGS["max_new_tokens"]) as sample_block:
        yield sample_block


def sampled(sample: Any, prompts: dict[str, list[int]], block: int, n: int = G, seed: int = 0) -> dict[Any, Rollout]:
    """The rollouts of all prompts, in blocks of the plan, by problem and index."""
    rows = [
        row
        for ids in rollouts.blocks(list(prompts), block)
        for row in sample({name: prompts[name] for name in ids}, G=n, seed=seed, **SETTINGS)
    ]
    return {(row.problem_id, row.rollout): row for row in rows}


def test_a_block_holds_g_rollouts_a_problem_with_tokens_text_and_the_reason_why_they_ended(
    sample: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    prompts, eos = named(questions, 9), tokenizer.eos_token_id
    rows = sample(prompts, G=G, seed=0, **SETTINGS)
    assert [(row.problem_id, row.rollout) for row in rows] == [(name, index) for name in prompts for index in range(G)]
    assert {row.finish for row in rows} == {"stop", "length"}
    for row in rows:
        assert row.text == tokenizer.decode(row.tokens, skip_special_tokens=True)
        if row.finish == "stop":
            assert row.tokens.index(eos) == len(row.tokens) - 1
        else:
            assert eos not in row.tokens
            assert len(row.tokens) == SETTINGS["max_new_tokens"]


def test_rollouts_are_what_the_contract_of_their_file_says(sample: Any, questions: list[list[int]], tmp_path: Path) -> None:
    rows = sample(named(questions, 5), G=G, seed=0, **SETTINGS)
    rollouts.writer(rows)(tmp_path / "block-00000.parquet")
    assert rollouts.read(tmp_path / "block-00000.parquet") == rows


def test_a_rollout_does_not_depend_on_block_size_neighbours_or_their_number(sample: Any, questions: list[list[int]]) -> None:
    prompts = named(questions, 13)
    alone = sampled(sample, prompts, block=1)
    assert sampled(sample, prompts, block=5) == alone
    assert sampled(sample, dict(reversed(prompts.items())), block=13) == alone
    few = {name: prompts[name] for name in ("p011", "p003")}
    assert sampled(sample, few, block=2).items() <= alone.items()
    more = sampled(sample, prompts, block=4, n=6)
    assert alone.items() <= more.items()


def test_rollout_i_has_the_seed_of_its_problem_plus_i(sample: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    """vLLM gives child i of a request with n = G the request's seed + i; each child alone, by its own seed, is the same."""
    prompts, engine = named(questions, 5), sample.args[0]
    rows = sampled(sample, prompts, block=5)
    how = {key: value for key, value in SETTINGS.items() if key != "max_new_tokens"}
    for name, index in rows:
        (done,) = vllm_engine.generate(
            engine,
            [{"prompt_token_ids": prompts[name]}],
            [{"n": 1, "seed": request_seed(0, name) + index, **how}],
            tokenizer.eos_token_id,
            SETTINGS["max_new_tokens"],
            [name],
        )
        assert done[0].tokens == rows[name, index].tokens


def test_another_seed_another_problem_and_another_index_give_other_rollouts(sample: Any, questions: list[list[int]]) -> None:
    prompts = named(questions, 6)
    first, other = sampled(sample, prompts, block=6), sampled(sample, prompts, block=6, seed=1)
    assert sum(first[key].tokens != other[key].tokens for key in first) > len(first) / 2
    many = sampled(sample, prompts, block=6, n=8)
    for name in prompts:
        assert len({tuple(many[name, index].tokens) for index in range(8)}) > 4
    same = sample({"one": questions[0], "two": questions[0]}, G=8, seed=0, **SETTINGS)
    assert [row.tokens for row in same[:8]] != [row.tokens for row in same[8:]]


def test_a_killed_run_resumes_to_the_same_bytes(sample: Any, questions: list[list[int]], tmp_path: Path) -> None:
    prompts = named(questions, 12)

    def run(folder: Path, blocks: int | None = None) -> dict[str, bytes]:
        work = Work(folder, "f" * 64, "settings", {})
        plan = {f"block-{number:05d}": ids for number, ids in enumerate(rollouts.blocks(list(prompts), 5))}
        for name in [name for name in plan if not work.done(name)][:blocks]:
            rows = sample({one: prompts[one] for one in plan[name]}, G=G, seed=0, **SETTINGS)
            work.commit(name, {f"{name}.parquet": rollouts.writer(rows)}, rollouts.counts(rows))
        return {path.name: path.read_bytes() for path in sorted(work.folder.iterdir())}

    unbroken = run(tmp_path / "unbroken")
    assert len(run(tmp_path / "killed", blocks=1)) == 2
    assert run(tmp_path / "killed") == unbroken
