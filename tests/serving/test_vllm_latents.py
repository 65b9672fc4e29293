"""Latent steps inside vLLM against those of the engine hf: `make test-vllm`. Skipped where vLLM is not installed."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import requests
from transformers import LlamaConfig, LlamaForCausalLM
from vllm_models import DEVICE, MARGIN, SHAPE, Folders, K, by_hugging_face, make, named

from qthink_core.errors import DataError, ParamError
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.models import loading
from qthink_core.models.loading import System

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT, POSITIONS, BLOCK = 32, 512, 32
Tokens = list[list[int]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Folders:
    return make(tmp_path_factory.mktemp("models"), tokenizer)


@pytest.fixture(scope="module")
def system(folders: Folders) -> System:
    return loading.load_system(folders.latent, DEVICE, "float32")


@pytest.fixture(scope="module")
def asked(questions: list[list[int]]) -> list[list[int]]:
    """100 prompts of ragged lengths. The latents of some lie on both sides of the border of two blocks."""
    prompts = questions[:100]
    assert len({len(one) for one in prompts}) > 10
    assert sum(len(one) < BLOCK < len(one) + K for one in prompts) > 5
    return prompts


@pytest.fixture(scope="module")
def expected(system: System, asked: list[list[int]]) -> Tokens:
    """Greedy tokens of the engine hf, which are not those of the same model without latent steps."""
    tokens, margin = by_hugging_face(system, named(asked, 100), LIMIT)
    assert margin > MARGIN
    assert sum(one != other for one, other in zip(tokens, without(system, asked), strict=True)) > 50
    return tokens


def without(system: System, prompts: Sequence[list[int]]) -> Tokens:
    done = HFEngine(system._replace(K=0), LIMIT).generate(requests(named(prompts, len(prompts))))
    return [one.tokens for (one,) in done]


@contextmanager
def started(folder: Path, **options: Any) -> Iterator[Any]:
    """A `vllm.LLM` inside this process, as a user without this project's code would start it."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    os.environ |= {"VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM

    memory = {"kv_cache_memory_bytes": 2**26} if DEVICE.type == "cpu" else {"gpu_memory_utilization": 0.1}
    settings: dict[str, Any] = {"dtype": "float32", "max_model_len": POSITIONS, "generation_config": "vllm"}
    llm = LLM(model=str(folder), enforce_eager=True, use_tqdm_on_load=False, **(settings | memory | options))
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


def refusal() -> type[Exception]:
    """What vLLM raises for a request that it does not take; its server answers with status 400."""
    from vllm.exceptions import VLLMValidationError

    return VLLMValidationError


def outputs(llm: Any, prompts: Sequence[Sequence[int]], **settings: Any) -> list[Any]:
    from vllm import SamplingParams

    eos = llm.get_tokenizer().eos_token_id
    how = {"temperature": 0.0, "max_tokens": LIMIT, "stop_token_ids": [eos], "ignore_eos": True} | settings
    return llm.generate([{"prompt_token_ids": list(one)} for one in prompts], SamplingParams(**how), use_tqdm=False)


def tokens(llm: Any, prompts: Sequence[Sequence[int]], **settings: Any) -> Tokens:
    return [list(one.outputs[0].token_ids) for one in outputs(llm, prompts, **settings)]


def test_small_chunks_cached_prefixes_and_preemption_change_nothing(
    folders: Folders, system: System, asked: list[list[int]], expected: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of 24 tokens, so that every prompt is cut, and 12 blocks, so that requests are preempted while they run.

    A process has one engine at a time, so this one comes before that of the other tests.
    """
    from vllm.v1.core.sched.scheduler import Scheduler

    preempted: list[int] = []
    preempt = Scheduler._preempt_request

    def counted(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        preempted.append(request.num_computed_tokens - request.num_prompt_tokens)
        preempt(self, request, *args, **kwargs)

    monkeypatch.setattr(Scheduler, "_preempt_request", counted)
    tight = {"max_num_batched_tokens": 24, "max_num_seqs": 8, "block_size": BLOCK, "num_gpu_blocks_override": 13}
    with started(folders.latent, max_model_len=128, **tight) as llm:
        assert tokens(llm, asked) == expected
        assert len(preempted) > 5
        assert max(preempted) > 0  # in the middle of an answer
        for prompt, answer in zip(asked[:20], expected[:20], strict=True):
            assert tokens(llm, [prompt]) == [answer]
            (again,) = outputs(llm, [prompt])
            assert list(again.outputs[0].token_ids) == answer
            # the block of the prompt's last token is computed again, for its hidden state
            assert again.num_cached_tokens == (len(prompt) - 1) // BLOCK * BLOCK
        # A prompt that fills its block, after a longer one that begins with it: no pass has ended at its last token.
        full = [[*[7] * (BLOCK - len(one)), *one] for one in asked if len(one) < BLOCK][:5]
        answers, _ = by_hugging_face(system, named(full, 5), LIMIT)
        for prompt, answer in zip(full, answers, strict=True):
            tokens(llm, [[*prompt, *prompt]])
            assert tokens(llm, [prompt]) == [answer]


def test_a_llama_takes_latent_steps_too(folders: Folders, asked: list[list[int]], tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)  # no two tokens are nearly as likely as each other
    size = {"num_hidden_layers": 2, "intermediate_size": 48, "max_position_embeddings": POSITIONS, "bos_token_id": None}
    config = LlamaConfig(vocab_size=len(tokenizer), **(SHAPE | size))
    for made in (LlamaForCausalLM(config), tokenizer):
        made.save_pretrained(tmp_path)
    for name in (loading.HEAD, loading.CONFIG):
        shutil.copy(folders.latent / name, tmp_path)
    llama = loading.load_system(tmp_path, DEVICE, "float32")
    expected, margin = by_hugging_face(llama, named(asked, 100), LIMIT)
    assert margin > MARGIN
    assert expected != without(llama, asked)
    with started(tmp_path) as llm:
        assert tokens(llm, asked) == expected


@pytest.fixture(scope="module")
def roomy(folders: Folders) -> Iterator[Any]:
    """An engine with vLLM's own settings."""
    with started(folders.latent) as llm:
        yield llm


def test_answers_are_those_of_the_engine_hf_and_show_no_placeholder(
    roomy: Any, asked: list[list[int]], expected: Tokens
) -> None:
    found = outputs(roomy, asked)
    assert [list(one.outputs[0].token_ids) for one in found] == expected
    assert [list(one.prompt_token_ids) for one in found] == asked
    assert {one.outputs[0].finish_reason for one in found} == {"stop", "length"}
    assert tokens(roomy, asked[40:43]) == expected[40:43]


def test_a_request_may_choose_its_number_of_steps(roomy: Any, system: System, asked: list[list[int]]) -> None:
    assert tokens(roomy, asked, extra_args={"latents": 0}) == without(system, asked)
    few = asked[:10]
    three, _ = by_hugging_face(system._replace(K=3), named(few, 10), LIMIT)
    assert tokens(roomy, few, extra_args={"latents": 3}) == three


def test_samples_differ_and_penalties_find_no_placeholder(roomy: Any, asked: list[list[int]]) -> None:
    for one in outputs(roomy, asked[:5], n=4, temperature=1.0):
        assert len({tuple(child.token_ids) for child in one.outputs}) == 4
    assert tokens(roomy, asked[:5], repetition_penalty=1.3, frequency_penalty=0.5) != tokens(roomy, asked[:5])


def test_a_chat_asks_for_no_thinking_unless_it_is_told_to(roomy: Any, asked: list[list[int]], tokenizer: Any) -> None:
    from vllm import SamplingParams

    messages = [{"role": "user", "content": "Ann has 3 apples, buys 3. How many?"}]
    (one,) = roomy.chat(messages, SamplingParams(temperature=0, max_tokens=LIMIT), use_tqdm=False)
    assert list(one.prompt_token_ids) == tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, enable_thinking=False, return_dict=False
    )
    thinking = {"chat_template_kwargs": {"enable_thinking": True}, "use_tqdm": False}
    with pytest.raises(refusal(), match="does not end in an empty think block"):
        roomy.chat(messages, SamplingParams(max_tokens=4), **thinking)
    (one,) = roomy.chat(messages, SamplingParams(max_tokens=4, extra_args={"latents": 0}), **thinking)
    assert len(one.outputs[0].token_ids) > 0


def test_latents_take_positions_of_the_model(roomy: Any, asked: list[list[int]]) -> None:
    """The prompt, the K latents and at least one token of the answer must fit."""
    full = [*[7] * (POSITIONS - K - 1 - len(asked[0])), *asked[0]]
    (one,) = outputs(roomy, [full], max_tokens=9)
    assert (len(one.outputs[0].token_ids), one.outputs[0].finish_reason) == (1, "length")
    with pytest.raises(refusal(), match=f"has {len(full) + 1} tokens and 6 latent steps follow, but the model has 512"):
        outputs(roomy, [[7, *full]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extra_args": {"latents": -1}}, "latents is -1: expected a number of steps from 0 to 64"),
        ({"extra_args": {"latents": True}}, "latents is True: expected"),
        ({"prompt_logprobs": 1}, "log-probabilities of the prompt are not available with latent steps"),
        pytest.param(
            {"seed": 1},
            r"a seed \(on a CPU\) is not available with latent steps",
            marks=pytest.mark.skipif(DEVICE.type != "cpu", reason="a GPU takes seeds"),
        ),
    ],
)
def test_a_request_that_cannot_be_had_is_refused_and_the_engine_goes_on(
    roomy: Any, asked: list[list[int]], expected: Tokens, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(refusal(), match=message):
        outputs(roomy, asked[:1], **settings)
    assert tokens(roomy, asked[:1]) == expected[:1]


def test_an_engine_that_cannot_take_latent_steps_does_not_start(folders: Folders, tmp_path: Path) -> None:
    with (
        pytest.raises(
            ParamError, match=r"do not work with --enable-prompt-embeds: leave it out, or serve .* '{\"latents\": 0}'"
        ),
        started(folders.latent, enable_prompt_embeds=True),
    ):
        raise AssertionError
    for name in os.listdir(folders.latent):
        (tmp_path / name).symlink_to(folders.latent / name)
    (tmp_path / loading.HEAD).unlink()
    (tmp_path / loading.HEAD).write_bytes(b"not a head")
    with pytest.raises(DataError, match="is not a PyTorch state dict"), started(tmp_path):
        raise AssertionError
