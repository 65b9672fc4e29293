"""Answers by vLLM on real models, against Hugging Face's: `make test-vllm`. Skipped where vLLM is not installed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import answer, requests, sample
from vllm_models import DEVICE, MARGIN, Folders, by_hugging_face, make, named

from qthink_core.errors import DataError, NumericError, ParamError, UnavailableError
from qthink_core.generation import engine, vllm_engine
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.generation.requests import Sampling
from qthink_core.generation.vllm_engine import VLLMEngine
from qthink_core.models import loading
from qthink_core.models.loading import QThinkConfig

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LIMIT, SEED = 32, 3
BASE = QThinkConfig(0, False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Folders:
    return make(tmp_path_factory.mktemp("models"), tokenizer)


@pytest.mark.parametrize("kind", ["latent", "base"])
def test_answers_are_those_of_hugging_face_token_for_token(folders: Folders, questions: list[list[int]], kind: str) -> None:
    folder = getattr(folders, kind)
    latent = kind == "latent"
    system = (
        loading.load_system(folder, DEVICE, "float32") if latent else loading.base_system(folder, DEVICE, "float32", False)
    )
    prompts = named(questions, 100)
    expected = answer(HFEngine(system, LIMIT), prompts, SEED)
    tokens, margin = by_hugging_face(system, prompts, LIMIT)
    assert tokens == [row.tokens for row in expected]
    assert margin > MARGIN
    longest = max(map(len, prompts.values()))
    with engine.opened("vllm", folder, QThinkConfig(system.K, False), DEVICE, "float32", longest, LIMIT) as vllm:
        assert answer(vllm, prompts, SEED) == expected
        few = {name: prompts[name] for name in list(prompts)[40:43]}
        assert answer(vllm, few, SEED) == expected[40:43]
        if latent:
            refused_widths_and_states(vllm, few)
    assert {row.finish for row in expected} == {"stop", "length"}
    if latent:
        without = answer(HFEngine(system._replace(K=0), LIMIT), prompts, SEED)
        assert sum(a.tokens != b.tokens for a, b in zip(expected, without, strict=True)) > 50


def test_a_sampled_answer_depends_on_seed_question_and_training_and_not_on_its_batch(
    folders: Folders, questions: list[list[int]]
) -> None:
    prompts, drawn = named(questions, 12), Sampling(seed=0, temperature=0.6, top_p=0.95, top_k=20)
    longest = max(map(len, prompts.values()))
    with engine.opened("vllm", folders.base, QThinkConfig(0, True), DEVICE, "float32", longest, LIMIT) as vllm:

        def tokens(seed: int | None, sampling: Sampling | None) -> list[list[int]]:
            return [row.tokens for row in answer(vllm, prompts, seed, sampling)]

        found = tokens(None, drawn)
        alone = [answer(vllm, {name: prompts[name]}, None, drawn)[0].tokens for name in list(prompts)[5:7]]
        assert alone == found[5:7]
        for other in (tokens(0, drawn), tokens(None, drawn._replace(seed=1)), tokens(None, None)):
            assert sum(one != two for one, two in zip(found, other, strict=True)) > 6
        assert found == [row.tokens for row in sample(vllm, prompts, 1, drawn)]


def refused_widths_and_states(vllm: VLLMEngine, prompts: dict[str, list[int]]) -> None:
    """What vLLM itself would accept: vectors of another width, and a NaN."""
    vllm.hidden_size = 32
    with pytest.raises(DataError, match="the latents are 64 wide, but the embeddings of vLLM's model are 32: load both"):
        vllm.generate(requests(prompts))
    vllm.hidden_size = 64
    assert vllm.system is not None
    assert vllm.system.head is not None
    with torch.no_grad():
        vllm.system.head.mlp[3].bias[0] = float("nan")
    with pytest.raises(NumericError, match=f"{next(iter(prompts))} has a latent that is not finite at step 1"):
        vllm.generate(requests(prompts))


def test_a_logit_that_is_not_finite_is_an_error_that_names_problem_completion_and_token(
    folders: Folders, tokenizer: Any, questions: list[list[int]], tmp_path: Path
) -> None:
    shutil.copytree(folders.base, tmp_path / "model")
    model = loading.load_model(tmp_path / "model", DEVICE, "float32")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    prompts, drawn = named(questions, 2), Sampling(seed=0, temperature=1.0, top_p=0.95, top_k=20)
    longest = max(map(len, prompts.values()))
    with (
        engine.opened("vllm", tmp_path / "model", BASE, DEVICE, "float32", longest, 12) as vllm,
        pytest.raises(NumericError, match="completion 0 of p000 has a logit that is not finite before token 1: check"),
    ):
        vllm.generate(requests(prompts, 4, drawn))


def test_a_model_with_too_few_positions_is_refused(folders: Folders) -> None:
    with (
        pytest.raises(
            DataError, match=r"has 512 positions, but prompts, latents and completions take up to 1003: lower max"
        ),
        engine.opened("vllm", folders.base, BASE, DEVICE, "float32", 3, 1000),
    ):
        raise AssertionError


@pytest.mark.skipif(DEVICE.type == "cuda", reason="needs a machine without a GPU")
def test_memory_that_is_too_small_for_one_sequence_is_an_error_of_one_line(
    folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "CPU_CACHE_BYTES", 2**14)
    with (
        pytest.raises(
            UnavailableError, match=r"^vLLM has too little memory for the model .* and one sequence of 500 tokens \(.*\)"
        ),
        vllm_engine.opened(folders.base, BASE, DEVICE, "float32", 100, 400),
    ):
        raise AssertionError


@pytest.mark.skipif(DEVICE.type == "cuda", reason="needs a machine without a GPU")
def test_a_vllm_for_another_device_is_refused(folders: Folders) -> None:
    with (
        pytest.raises(ParamError, match=r"device is cuda, but the installed vllm was built for cpu: run .*\[vllm\]"),
        vllm_engine.opened(folders.base, BASE, torch.device("cuda"), "float32", 32, 32),
    ):
        raise AssertionError
