"""`qthink ask` and `qthink answer` as their users run them: processes, and one line when something is wrong."""

import json
import subprocess
from pathlib import Path

import forked
import pytest
from checkpoints import exported

from qthink_core import LatentReasoner
from qthink_core.report.display import plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lively import lively_qwen3
    from worlds import STYLE, WORLD

    from qthink_core.method.projection_head import ProjectionHead
    from qthink_core.models.tiny_tokenizer import build

    tokenizer = build(WORLD, STYLE)
    return exported(tmp_path_factory.mktemp("ask") / "model", lively_qwen3(tokenizer), tokenizer, ProjectionHead(32))


def qthink(*words: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    return forked.qthink(*words, "--device", "cpu", given=given)


def test_ask_streams_the_answer_and_counts_on_standard_error(folder: Path) -> None:
    expected = LatentReasoner.from_pretrained(folder).generate("Who?", max_new_tokens=8)
    run = qthink("ask", str(folder), "-", "--max-new-tokens", "8", "--show-latents", given=b"Who?\n")
    assert run.returncode == 0, run.stderr
    assert run.stdout.decode() == plain(expected.text) + "\n"
    *latents, counts = run.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in latents] == [f"latent {k}" for k in range(1, 7)]
    assert counts.startswith(f"[6 latent steps, {expected.new_tokens} tokens, ")


def test_one_latent_step_and_one_token_are_not_plural(folder: Path) -> None:
    run = qthink("ask", str(folder), "Who?", "--max-new-tokens", "1", "--latents", "1")
    assert run.stderr.decode().startswith("[1 latent step, 1 token, ")


def test_ask_prints_the_response_as_json_and_takes_another_number_of_latents(folder: Path) -> None:
    run = qthink("ask", str(folder), "Who?", "--max-new-tokens", "8", "--json", "--latents", "0")
    found = json.loads(run.stdout)
    expected = LatentReasoner.from_pretrained(folder, K=0).generate("Who?", max_new_tokens=8)
    assert (found["text"], found["token_ids"], found["latent_steps"]) == (expected.text, expected.token_ids, 0)


def test_answers_go_on_after_a_bad_line_was_fixed_and_can_be_graded(folder: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "answers.jsonl", [{"question": text, "gold": "7"} for text in ("Who?", "Why?", "What?")]
    lines = [json.dumps(row).encode() + b"\n" for row in rows]
    words = ("answer", str(folder), "--out", str(out), "--max-new-tokens", "8", "--batch", "2")
    run = qthink(*words, given=lines[0] + b"{broken\n" + lines[2])
    assert run.returncode == 65
    assert run.stderr.decode().splitlines()[-1].startswith("qthink: line 2 is not JSON")
    assert len(out.read_text().splitlines()) == 1
    assert qthink(*words, given=b"".join(lines)).returncode == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["question"] for row in found] == ["Who?", "Why?", "What?"]
    streamed = qthink("answer", str(folder), "--max-new-tokens", "8", "--batch", "2", given=b"".join(lines)).stdout
    assert [json.loads(line)["answer"] for line in streamed.splitlines()] == [row["answer"] for row in found]
    graded = forked.qthink("grade", "--benchmark", "gsm8k", given=out.read_bytes()).stdout
    assert len(graded.splitlines()) == 3


def test_a_mistake_is_one_line_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    for words, code, message in (
        (("ask", str(tmp_path), "Who?"), 65, "has no config.json"),
        (("ask", str(folder), "Who?", "--latents", "-1"), 2, "-1 latent steps were asked for"),
        (("ask", str(folder), "Who?", "--max-new-tokens", "-5"), 2, "max_new_tokens is -5"),
        (("answer", str(folder), "--max-new-tokens", "-5"), 2, "max_new_tokens is -5"),
    ):
        run = qthink(*words)
        assert run.returncode == code, run.stderr
        assert run.stdout == b""
        (line,) = run.stderr.decode().splitlines()
        assert line.startswith("qthink: ")
        assert message in line
