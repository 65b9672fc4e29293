"""vLLM's server with latent steps, asked by the official client: `make test-vllm`. Skipped where vLLM is not installed."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from engines import requests
from vllm_models import DEVICE, Folders, make, named

from qthink_core.generation.hf_engine import HFEngine
from qthink_core.models import loading

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(1200)]

LIMIT, CLIENTS, ROUNDS = 32, 32, 2
TEMPLATE = {"add_generation_prompt": True, "enable_thinking": False, "return_dict": False}
# A server takes half a minute to start on two cores, and many minutes where others use them.
PATIENCE_S = 900.0


class Server(NamedTuple):
    """A client of the server, its address, and the questions with their prompts and expected tokens."""

    client: Any
    url: str
    questions: list[str]
    prompts: list[list[int]]
    expected: list[list[int]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Folders:
    return make(tmp_path_factory.mktemp("models"), tokenizer)


def command(folder: Path, port: int) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "qthink"]
    sizes = ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--generation-config", "vllm"]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), *place, *sizes]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    return kept | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_USE_V2_MODEL_RUNNER": "0"}


@pytest.fixture(scope="module")
def server(folders: Folders, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    openai, httpx = pytest.importorskip("openai"), pytest.importorskip("httpx")
    texts = [f"{name} has {number} apples, buys 3. How many?" for name in ("Ann", "Bob") for number in range(50)]
    chats = [[{"role": "user", "content": text}] for text in texts]
    prompts = [tokenizer.apply_chat_template(chat, **TEMPLATE) for chat in chats]
    system = loading.load_system(folders.latent, DEVICE, "float32")
    expected = [one.tokens for (one,) in HFEngine(system, LIMIT).generate(requests(named(prompts, 100)))]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen(command(folders.latent, port), env=environment(), stdout=out, stderr=out)
    try:
        end = time.monotonic() + PATIENCE_S
        while not answers(httpx, url):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.5)
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)
        yield Server(client, url, texts, prompts, expected)
    finally:
        process.terminate()
        process.wait(60)


def answers(httpx: Any, url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


def chat(server: Server, index: int, stream: bool = False, **extra: Any) -> Any:
    messages = [{"role": "user", "content": server.questions[index]}]
    settings = {"temperature": 0, "max_tokens": LIMIT, "extra_body": {"return_token_ids": True} | extra}
    return server.client.chat.completions.create(model="qthink", messages=messages, stream=stream, **settings)


def streamed(server: Server, index: int) -> list[int]:
    """The token ids of a streamed answer."""
    return [
        token
        for chunk in chat(server, index, stream=True)
        if chunk.choices
        for token in getattr(chunk.choices[0], "token_ids", None) or []
    ]


def test_a_chat_gets_the_answer_of_the_engine_hf_and_its_counts(server: Server) -> None:
    for index in range(5):
        done = chat(server, index)
        assert done.choices[0].token_ids == server.expected[index]
        assert done.usage.prompt_tokens == len(server.prompts[index])
        assert done.usage.completion_tokens == len(server.expected[index])
    done = server.client.completions.create(
        model="qthink", prompt=server.prompts[:8], temperature=0, max_tokens=LIMIT, extra_body={"return_token_ids": True}
    )
    assert [choice.token_ids for choice in done.choices] == server.expected[:8]


def test_the_snippet_of_the_docs_runs(server: Server, folders: Folders, tokenizer: Any) -> None:
    page = (Path(__file__).parents[2] / "docs/use/vllm.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (question,) = re.findall(r'"content": "(.*?)"', snippet)
    assert "http://localhost:8000" in snippet
    program = [sys.executable, "-c", snippet.replace("http://localhost:8000", server.url)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    system = loading.load_system(folders.latent, DEVICE, "float32")
    asked = requests({"question": tokenizer.apply_chat_template([{"role": "user", "content": question}], **TEMPLATE)})
    answers = [HFEngine(system._replace(K=K), 64).generate(asked)[0][0] for K in (system.K, 0)]
    assert answers[0].tokens != answers[1].tokens
    for printed, answer in zip(done.stdout.split(" CompletionUsage("), answers, strict=True):
        # up to the first byte that is not text, which vLLM holds back
        assert answer.text.partition("\ufffd")[0] in printed
    assert f"completion_tokens={len(answers[0].tokens)}," in done.stdout


def test_no_streaming_client_of_32_is_lost_and_one_that_hangs_up_disturbs_no_other(server: Server) -> None:
    def client(number: int) -> list[bool]:
        same = []
        for index in range(number, CLIENTS * ROUNDS + number):
            if number % 8 == 0:
                leaving = chat(server, index % 100, stream=True, ignore_eos=True, max_tokens=400)
                next(iter(leaving))
                leaving.close()
            same.append(streamed(server, index % 100) == server.expected[index % 100])
        return same

    with ThreadPoolExecutor(CLIENTS) as clients:
        same = [one for found in clients.map(client, range(CLIENTS)) for one in found]
    assert len(same) == CLIENTS * CLIENTS * ROUNDS
    assert all(same)


def test_a_refused_request_is_an_answer_of_one_line(server: Server) -> None:
    openai = pytest.importorskip("openai")
    long = server.client.chat.completions.create
    refused = {
        "does not end in an empty think block": lambda: chat(server, 0, chat_template_kwargs={"enable_thinking": True}),
        "latents is 'all': expected a number": lambda: chat(server, 0, vllm_xargs={"latents": "all"}),
        "maximum context length is 512 tokens": lambda: long(
            model="qthink", messages=[{"role": "user", "content": "a " * 500_000}], max_tokens=8
        ),
    }
    for words, ask in refused.items():
        with pytest.raises(openai.BadRequestError) as found:
            ask()
        message = found.value.body["message"]
        assert words in message
        assert "\n" not in message
    assert chat(server, 0).choices[0].token_ids == server.expected[0]


def test_a_server_with_a_damaged_head_ends_with_one_line(folders: Folders, tmp_path: Path) -> None:
    shutil.copytree(folders.latent, tmp_path / "model")
    (tmp_path / "model" / loading.HEAD).write_bytes(b"not a head")
    done = subprocess.run(command(tmp_path / "model", 1), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"qthink: {tmp_path}/model/{loading.HEAD} is not a PyTorch state dict")
    assert "Traceback" not in done.stderr
