"""`qthink demo` as a command: it prints its address, serves until Ctrl-C, and ends in one line where it cannot."""

import http.client
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import forked
import pytest
from checkpoints import exported, plain
from typer.testing import CliRunner

from qthink_core.cli import page
from qthink_core.cli.program import app

(COMMAND,) = [one.name or "demo" for one in app.registered_commands if one.callback is page.demo]


def started(*arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "qthink_core.cli", COMMAND, *arguments, "--no-browser"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_address_is_printed_once_the_page_is_there_and_ctrl_c_ends_it(
    qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path
) -> None:
    folder = exported(tmp_path / "model", qwen3(), tokenizer, random_head())
    with started(str(folder), "--base", str(plain(tmp_path / "base", qwen3(), tokenizer))) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        assert address.hostname == "127.0.0.1"
        connection = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=60)
        connection.request("GET", "/about")
        assert b"The weights of base, asked to think" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "qthink: Ctrl-C ends the page\n")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ([], 2, "answers without latent steps: name a latent checkpoint, and more than 0 latent steps"),
        (["--latents", "6"], 65, "which 6 latent steps need: take a latent model, or 0 latent steps"),
        (["--revision", "v2"], 2, "is a local folder and has no revision 'v2': leave the revision out"),
        (["--max-new-tokens", "0"], 2, "--max-new-tokens is 0: give a number above 0"),
    ],
)
def test_a_model_or_setting_that_cannot_be_shown_ends_in_one_line(
    qwen3: Any, tokenizer: Any, tmp_path: Path, arguments: list[str], code: int, error: str
) -> None:
    base = str(plain(tmp_path / "base", qwen3(), tokenizer))
    done = forked.qthink(COMMAND, base, *arguments, "--no-browser", "--device", "cpu")
    err = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b"")
    assert err.startswith("qthink: ")
    assert err.endswith(f"{error}\n")
    assert err.count("\n") == 1


def test_a_browser_of_the_terminal_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(page.webbrowser, "open", opened.append)
    monkeypatch.setattr(page.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    page._open("http://127.0.0.1:1/")
    assert not opened
    monkeypatch.setenv("DISPLAY", ":0")
    page._open("http://127.0.0.1:1/")
    assert opened == ["http://127.0.0.1:1/"]


def test_the_help_names_every_option() -> None:
    text = CliRunner().invoke(app, [COMMAND, "--help"], env={"COLUMNS": "120"}).output
    for option in ("--latents", "--base", "--max-new-tokens", "--port", "--device", "--dtype", "--no-browser"):
        assert option in text
