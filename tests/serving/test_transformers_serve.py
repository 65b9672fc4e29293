"""`transformers serve` on an exported folder, asked by the client of OpenAI: `make test-serve`. Skipped without them."""

import re
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import exported
import pytest
import torch
from engines import answer
from imports import ROOT
from lively import lively_qwen3
from worlds import WORLD

from qthink_core.benchmarks.problems import generated
from qthink_core.benchmarks.rendering import render
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.method.projection_head import ProjectionHead
from qthink_core.models import loading

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytestmark = [pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(1200)]

K, LIMIT, N, N_TRIED = 6, 16, 8, 40
START_S = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    torch.manual_seed(1)
    head = ProjectionHead(32)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(std=0.3)
    return exported.write(tmp_path_factory.mktemp("serve") / "exported", lively_qwen3(tokenizer), tokenizer, head.eval(), K)


@contextmanager
def server(folder: Path, *options: str) -> Iterator[Any]:
    """A client of a server of the folder, which is ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder, "--trust-remote-code", "--device", "cpu"]
    log = (folder.parent / f"serve-{port}.log").open("w+")
    process = subprocess.Popen([*command, "--port", str(port), *options], stdout=log, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + START_S
        while True:
            assert process.poll() is None, Path(log.name).read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except OSError:
                assert time.monotonic() < until, Path(log.name).read_text()
                time.sleep(0.5)
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=300)
        client.log = Path(log.name)
        yield client
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Any]:
    with server(folder) as found:
        yield found


@pytest.fixture(scope="module")
def asked(folder: Path, tokenizer: Any) -> dict[str, str]:
    """The engine's answers to questions; most change without latent steps.

    The server reads special tokens and think tags in an answer as marks of its parts, so answers of random weights that have
    some are left out.
    """
    questions = [problem.question for problem in generated("gsm8k", "test", N_TRIED, seed=11, world=WORLD)]
    prompts = {question: render(tokenizer, question, thinking=False) for question in questions}
    system = loading.load_system(folder, torch.device("cpu"), "float32")
    found, direct = (
        {row.problem_id: tokenizer.decode(row.tokens).removesuffix(tokenizer.eos_token) for row in answer(one, prompts)}
        for one in (HFEngine(system, LIMIT), HFEngine(system._replace(K=0), LIMIT))
    )
    marks = (*tokenizer.all_special_tokens, "<think>", "</think>")
    fit = [question for question in questions if not any(mark in found[question] for mark in marks)][:N]
    assert len(fit) == N
    assert sum(found[question] != direct[question] for question in fit) > N / 2
    return {question: found[question] for question in fit}


def ask(client: Any, folder: Path, question: str, **options: Any) -> Any:
    return client.chat.completions.create(
        model=str(folder),
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=LIMIT,
        **options,
    )


def streamed(client: Any, folder: Path, question: str, **options: Any) -> str:
    chunks = [chunk.choices[0] for chunk in ask(client, folder, question, stream=True, **options) if chunk.choices]
    assert chunks[-1].finish_reason is not None
    return whole("".join(chunk.delta.content or "" for chunk in chunks))


def whole(text: str) -> str:
    """The text without the blank lines after the think block, which the server streams, and half a character at its end."""
    return text.strip().rstrip("\ufffd")


def test_answers_are_the_engines_streamed_or_not(client: Any, folder: Path, asked: dict[str, str]) -> None:
    for question, expected in asked.items():
        assert ask(client, folder, question).choices[0].message.content.strip() == expected.strip()
        assert streamed(client, folder, question) == whole(expected)


def test_a_megabyte_is_refused_and_the_next_question_answered(client: Any, folder: Path, asked: dict[str, str]) -> None:
    with pytest.raises(openai.InternalServerError):
        ask(client, folder, "x " * 500_000)
    question, expected = next(iter(asked.items()))
    # the server closes the refused client's connection, so the next request may need a second one
    assert streamed(client.with_options(max_retries=1), folder, question) == whole(expected)
    assert re.search(r"ValueError: \d+ tokens and 6 latent steps fill the 512 positions", client.log.read_text())


def test_the_client_of_the_page_prints_the_answer_twice(
    client: Any, folder: Path, tokenizer: Any, tmp_path: Path, capsys: Any
) -> None:
    """The block of docs/use/serve.md, with this server and this folder."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/use/serve.md").read_text(), re.DOTALL)
    for old, new in (("http://localhost:8000/v1", str(client.base_url)), ("models/gsm8k/uniform", str(folder))):
        assert old in block
        block = block.replace(old, new)
    (question,) = re.findall(r'"content": "(.*?)"', block)
    (tmp_path / "client.py").write_text(block)
    runpy.run_path(str(tmp_path / "client.py"))
    system = loading.load_system(folder, torch.device("cpu"), "float32")
    (row,) = answer(HFEngine(system, 48), {"q": render(tokenizer, question, thinking=False)})
    expected = whole(tokenizer.decode(row.tokens, skip_special_tokens=True))
    assert "".join(capsys.readouterr().out.replace("\ufffd", "").split()) == "".join(
        (expected * 2).replace("\ufffd", "").split()
    )


def test_clients_at_once_get_the_same_answers(client: Any, folder: Path, asked: dict[str, str]) -> None:
    with ThreadPoolExecutor(N) as pool:
        found = list(pool.map(lambda question: streamed(client, folder, question), asked))
    assert found == [whole(expected) for expected in asked.values()]


def test_a_stop_string_ends_an_answer(client: Any, folder: Path, asked: dict[str, str]) -> None:
    question, expected = next((one, text) for one, text in asked.items() if text.isprintable() and len(text) > 20)
    stop = expected[12:15]
    for found in (
        ask(client, folder, question, stop=[stop]).choices[0].message.content,
        streamed(client, folder, question, stop=[stop]),
    ):
        assert stop in found
        assert expected.strip().startswith(found.strip())
        assert len(found.strip()) < len(expected.strip())


def test_a_client_that_hangs_up_costs_nobody_else_an_answer(client: Any, folder: Path, asked: dict[str, str]) -> None:
    question, expected = next(iter(asked.items()))
    stream = ask(client, folder, question, stream=True)
    next(iter(stream))
    stream.close()
    assert streamed(client, folder, question) == whole(expected)


def test_a_text_completion_takes_the_latent_steps_too(
    client: Any, folder: Path, asked: dict[str, str], tokenizer: Any
) -> None:
    question, expected = next(iter(asked.items()))
    prompt = tokenizer.decode(render(tokenizer, question, thinking=False))
    found = client.completions.create(model=str(folder), prompt=prompt, temperature=0, max_tokens=LIMIT)
    assert found.choices[0].text.strip() == expected.strip()


def test_continuous_batching_is_refused_with_the_reason_in_the_servers_log(folder: Path) -> None:
    with server(folder, "--continuous-batching") as client:
        with pytest.raises(openai.InternalServerError):
            ask(client, folder, "How many?")
        until = time.monotonic() + 60
        while "continuous batching would leave the latent steps out: start without" not in client.log.read_text():
            assert time.monotonic() < until, client.log.read_text()
            time.sleep(0.2)
