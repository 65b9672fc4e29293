"""Answers by vLLM on real models, against Hugging Face's: `make test-vllm`. Skipped where vLLM is not installed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm_models import DEVICE, Folders, make, named

from qthink_core.errors import DataError, NumericError, ParamError, UnavailableError
from qthink_core.generation import answerers, answering, samplers, vllm_engine
from qthink_core.generation.decoding import Sampling, decode, greedy
from qthink_core.method.latent_steps import latent_steps, read_prompts
from qthink_core.models import loading
from qthink_core.models.loading import System

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

LIMIT = 32
# Both engines compute in float32 with other kernels: logits differ by some 1e-5. Where the two likeliest tokens are further
# apart than this, equal tokens are not luck.
MARGIN = 1e-4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Folders:
    return make(tmp_path_factory.mktemp("models"), tokenizer)


def by_hugging_face(system: System, prompts: dict[str, list[int]], limit: int) -> tuple[list[list[int]], float]:
    """Greedy tokens of the engine hf, and how far the two likeliest tokens were apart at least."""
    gaps: list[float] = []

    def choose(scores: torch.Tensor, rows: torch.Tensor, step: int, at: torch.Tensor) -> torch.Tensor:
        first, second = scores.topk(2, dim=-1).values.unbind(-1)
        gaps.append((first - second).min().item())
        return greedy(scores, rows, step, at)

    with torch.inference_mode():
        context = read_prompts(system.model, list(prompts.values()), system.tokenizer.pad_token_id)
        context, _ = latent_steps(system.model, system.head, context, system.K)
        done = decode(system.model, context, choose, system.tokenizer.eos_token_id, limit)
    return [row.tokens for row in done], min(gaps)


@pytest.mark.parametrize("kind", ["latent", "base"])
def test_answers_are_those_of_hugging_face_token_for_token(folders: Folders, questions: list[list[int]], kind: str) -> None:
    folder = getattr(folders, kind)
    latent = kind == "latent"
    system = (
        loading.load_system(folder, DEVICE, "float32") if latent else loading.base_system(folder, DEVICE, "float32", False)
    )
    problems = [{"id": name, "prompt_direct": prompt} for name, prompt in named(questions, 100).items()]
    prompts = answering.asked(system, problems)
    expected = answering.answer(system, prompts, LIMIT, seed=3)
    tokens, margin = by_hugging_face(system, prompts, LIMIT)
    assert tokens == [row.tokens for row in expected]
    assert margin > MARGIN
    with answerers.opened("vllm", folder, system, max(map(len, prompts.values())), LIMIT) as answer:
        assert answer(system, prompts, LIMIT, 3) == expected
        few = {name: prompts[name] for name in list(prompts)[40:43]}
        assert answer(system, few, LIMIT, 3) == expected[40:43]
        if latent:
            refused_widths_and_states(answer, system, few)
    assert {row.finish for row in expected} == {"stop", "length"}
    if latent:
        without = answering.answer(system._replace(K=0), prompts, LIMIT, seed=3)
        assert sum(a.tokens != b.tokens for a, b in zip(expected, without, strict=True)) > 50


def test_only_thoughts_are_sampled_and_by_seed_question_and_training_alone(
    folders: Folders, questions: list[list[int]]
) -> None:
    system = loading.base_system(folders.base, DEVICE, "float32", True)
    prompts, drawn = named(questions, 12), Sampling(seed=0, temperature=0.6, top_p=0.95, top_k=20)
    with answerers.opened("vllm", folders.base, system, max(map(len, prompts.values())), LIMIT, drawn) as answer:
        found = {row.problem_id: row.tokens for row in answer(system, prompts, LIMIT)}
        one = list(prompts)[5]
        assert answer(system, {one: prompts[one]}, LIMIT)[0].tokens == found[one]
        trained = {row.problem_id: row.tokens for row in answer(system, prompts, LIMIT, 0)}
        assert sum(found[name] != trained[name] for name in prompts) > 6
        direct = system._replace(thinking=False)
        assert answer(direct, prompts, LIMIT) == answering.answer(direct, prompts, LIMIT)


def refused_widths_and_states(answer: Any, system: System, prompts: dict[str, list[int]]) -> None:
    """What vLLM would take without a word: vectors of another width, and a NaN."""
    narrow = answer.func, answer.args[0]._replace(hidden_size=32)
    with pytest.raises(DataError, match="the latents have 64 numbers where the engine's model has 32: load both"):
        narrow[0](narrow[1], system, prompts, LIMIT)
    bias = system.head.mlp[3].bias
    before = bias[0].item()
    with torch.no_grad():
        bias[0] = float("nan")
    with pytest.raises(NumericError, match=f"{next(iter(prompts))} has a latent that is not finite at step 1"):
        answer(system, prompts, LIMIT)
    with torch.no_grad():
        bias[0] = before


def test_a_logit_that_is_not_finite_is_an_error_that_names_rollout_and_token(
    folders: Folders, tokenizer: Any, questions: list[list[int]], tmp_path: Path
) -> None:
    shutil.copytree(folders.base, tmp_path / "model")
    model = loading.load_model(tmp_path / "model", DEVICE, "float32")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    prompts = named(questions, 2)
    with (
        samplers.opened("vllm", tmp_path / "model", DEVICE, "float32", max(map(len, prompts.values())), 12) as sample_block,
        pytest.raises(NumericError, match="rollout 0 of p000 has a logit that is not finite before token 1: check"),
    ):
        sample_block(prompts, G=4, seed=0, temperature=1.0, top_p=0.95, top_k=20, max_new_tokens=12)


def test_a_model_with_too_few_positions_is_refused(folders: Folders) -> None:
    with (
        pytest.raises(
            DataError, match=r"has 512 positions, but prompts, latents and completions take up to 1003: lower max"
        ),
        samplers.opened("vllm", folders.base, DEVICE, "float32", 3, 1000),
    ):
        raise AssertionError


@pytest.mark.skipif(DEVICE.type == "cuda", reason="needs a machine without a GPU")
def test_memory_that_holds_no_sequence_is_told_in_a_line(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "CPU_CACHE_BYTES", 2**14)
    with (
        pytest.raises(
            UnavailableError, match=r"^vLLM finds no room for the model in .* and one sequence of 500 tokens \(.*\)"
        ),
        vllm_engine.opened(folders.base, DEVICE, "float32", 500, embeddings=False),
    ):
        raise AssertionError


@pytest.mark.skipif(DEVICE.type == "cuda", reason="needs a machine without a GPU")
def test_a_vllm_for_another_device_is_refused(folders: Folders) -> None:
    with (
        pytest.raises(ParamError, match=r"device is cuda, but the vllm .* was built for cpu: run .*\[vllm\]"),
        vllm_engine.opened(folders.base, torch.device("cuda"), "float32", 64, embeddings=False),
    ):
        raise AssertionError
