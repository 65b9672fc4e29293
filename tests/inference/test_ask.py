"""`qthink ask` and `qthink answer` as their users run them: processes, and one line when something is wrong."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import forked
import pytest
from checkpoints import exported

from qthink_core import LatentReasoner
from qthink_core.cli import grade, pipeline
from qthink_core.inference.evaluation import audit as _audit  # noqa: F401 - so that the forks need not load it
from qthink_core.inference.evaluation import questions
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


@pytest.mark.slow
def test_ask_streams_the_answer_and_counts_on_standard_error(folder: Path) -> None:
    expected = LatentReasoner.from_pretrained(folder).generate("Who?", max_new_tokens=8)
    run = qthink("ask", str(folder), "-", "--max-new-tokens", "8", "--show-latents", given=b"Who?\n")
    assert run.returncode == 0, run.stderr
    assert run.stdout.decode() == plain(expected.text) + "\n"
    *latents, counts = run.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in latents] == [f"latent {k}" for k in range(1, 7)]
    assert counts.startswith(f"[6 latent steps, {expected.new_tokens} tokens, ")


@pytest.mark.slow
def test_one_latent_step_and_one_token_are_not_plural(folder: Path) -> None:
    run = qthink("ask", str(folder), "Who?", "--max-new-tokens", "1", "--latents", "1")
    assert run.stderr.decode().startswith("[1 latent step, 1 token, ")


@pytest.mark.slow
def test_ask_prints_the_response_as_json_and_takes_another_number_of_latents(folder: Path) -> None:
    run = qthink("ask", str(folder), "Who?", "--max-new-tokens", "8", "--json", "--latents", "0")
    found = json.loads(run.stdout)
    expected = LatentReasoner.from_pretrained(folder, K=0).generate("Who?", max_new_tokens=8)
    assert (found["text"], found["token_ids"], found["latent_steps"]) == (expected.text, expected.token_ids, 0)


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_answer_ends_before_a_stop_text(folder: Path) -> None:
    words, given = ("answer", str(folder), "--max-new-tokens", "8"), b'{"question": "Who?"}\n'
    whole = json.loads(qthink(*words, given=given).stdout)["answer"]
    stop = whole[len(whole) // 2]
    found = json.loads(qthink(*words, "--stop", "no such text", "--stop", stop, given=given).stdout)
    assert (found["answer"], found["finish"]) == (whole.partition(stop)[0], "stop")


@pytest.mark.slow
def test_answers_are_not_continued_with_other_weights_at_the_same_path_or_in_other_batches(
    folder: Path, tmp_path: Path
) -> None:
    model, out = shutil.copytree(folder, tmp_path / "model"), tmp_path / "answers.jsonl"
    words = ("answer", str(model), "--out", str(out), "--max-new-tokens", "2")
    given = b'{"question": "Who?"}\n'
    assert qthink(*words, given=given).returncode == 0
    before = out.read_bytes()
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    for options, changed, name in (((), weights, "other model files)"), (("--batch", "3"), None, "batch 16, now 3)")):
        kept = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(changed or kept)
        run = qthink(*words, *options, given=given + given)
        (model / "model.safetensors").write_bytes(kept)
        assert run.returncode == 2, run.stderr
        assert f"was made by another run ({name}" in run.stderr.decode().splitlines()[-1]
        assert out.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kept", "questions", "said"),
    [
        (0, 3, ["3 questions, 0 already answered", "3 answers, 3 cut at the token limit"]),
        (2, 3, ["3 questions, 2 already answered", "1 answer, 1 cut at the token limit"]),
        (0, 1, ["1 question, 0 already answered", "1 answer, 1 cut at the token limit"]),
        (0, 0, ["0 questions, 0 already answered", "0 answers, 0 cut at the token limit"]),
    ],
)
def test_answer_says_how_many_questions_it_has_and_at_the_end_what_it_has_done(
    folder: Path, tmp_path: Path, kept: int, questions: int, said: list[str]
) -> None:
    given = [b'{"question": "Who?"}\n'] * questions
    words = ("answer", str(folder), "--out", str(tmp_path / "out"), "--max-new-tokens", "1", "--batch", "2")
    if kept:
        assert qthink(*words, given=b"".join(given[:kept])).returncode == 0
    run = qthink(*words, given=b"".join(given))
    assert (run.returncode, run.stdout) == (0, b"")
    first, last = run.stderr.decode().splitlines()
    assert first == f"qthink: {said[0]}"
    assert re.fullmatch(rf"qthink: {said[1]}, \d+\.\d s", last)
    streamed = qthink(*words[:2], *words[4:], given=b"".join(given))
    assert len([json.loads(line) for line in streamed.stdout.splitlines()]) == questions


@pytest.mark.slow
def test_ctrl_c_says_that_the_same_command_continues_where_it_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LatentReasoner, "respond", interrupted)
    monkeypatch.setattr(questions, "read", interrupted)
    said = "qthink: stopped; the same command continues"
    answers = ("answer", str(folder))
    on_benchmark = (str(folder), "--benchmark", "gsm8k")
    monkeypatch.setattr(LatentReasoner, "stream", interrupted)
    monkeypatch.setattr(grade, "_grade", interrupted)
    monkeypatch.setattr(pipeline, "repository", interrupted)
    for words, code, expected in (
        ((*answers, "--out", str(tmp_path / "answers.jsonl")), 75, said),
        (answers, 130, "\nqthink: stopped"),
        (("ask", str(folder), "Who?"), 130, "\nqthink: stopped"),
        (("evaluate", *on_benchmark), 75, said),
        (("audit", *on_benchmark), 75, said),
        (("grade", "--benchmark", "gsm8k"), 130, "\nqthink: stopped"),
        (("run",), 75, said),
    ):
        run = forked.qthink(*words, given=b'{"question": "Who?"}\n')
        assert run.returncode == code, run.stderr
        assert run.stderr.decode().endswith(f"{expected}\n")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("ask", "TMP", "Who?"), 65, "has no config.json"),
        (("ask", "MODEL", "Who?", "--latents", "-1"), 2, "-1 latent steps were asked for"),
        (("ask", "MODEL", "Who?", "--max-new-tokens", "-5"), 2, "--max-new-tokens is -5"),
        (("ask", "MODEL", "Who?", "--max-new-tokens", "999"), 2, "positions left for an answer: allow no more new"),
        (("ask", "MODEL", "Who?", "--top-p", "0.5"), 2, "--top-p is 0.5 but --temperature is 0"),
        (("ask", "MODEL", "Who?", "--top-k", "5"), 2, "--top-k is 5 but --temperature is 0"),
        (("answer", "MODEL", "--seed", "1"), 2, "--seed is 1 but --temperature is 0"),
        (("ask", "models/gsm8k/nope", "Who?"), 65, "there is no folder models/gsm8k/nope here, and it is not owner/name"),
        (("ask", "MODEL", "abc\udce9"), 65, "the question is not valid Unicode (character 4)"),
        (("answer", "MODEL", "--stop", "\udce9"), 65, "--stop is not valid Unicode (character 1)"),
        (("ask", "MODEL", ""), 2, "the question is empty"),
        (("ask", "MODEL", "-"), 65, "standard input has no question"),
        (("answer", "MODEL", "--stop", ""), 2, "--stop has an empty text"),
        (("answer", "MODEL", "--out", "TMP"), 2, "is a folder: name a file with --out"),
        (("answer", "MODEL", "--max-new-tokens", "-5"), 2, "--max-new-tokens is -5"),
        (("answer", "MODEL", "--out", "TMP/no/a.jsonl"), 2, "no of --out does not exist: make it first"),
    ],
)
def test_a_mistake_is_one_line_without_a_traceback(
    folder: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    run = qthink(*(word.replace("MODEL", str(folder)).replace("TMP", str(tmp_path)) for word in words))
    assert run.returncode == code, run.stderr
    assert run.stdout == b""
    (line,) = run.stderr.decode().splitlines()
    assert line.startswith("qthink: ")
    assert message in line
