"""`qthink answer`: one line out for each line in, in order, and after a stop the same command answers the rest."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qthink_core import LatentReasoner
from qthink_core.errors import DataError, ParamError, StoppedError
from qthink_core.inference.answered_lines import ADDED, answered, continued, number_of_lines, opened, resume
from qthink_core.inference.settings import Settings

HOW = Settings(max_new_tokens=6, top=0)
RUN = {"model": "m", "latents": 6} | HOW._asdict()
TEXTS = ["Who?", "Compute (((2+3)-1)+4).", "Why?", "How many apples does Tom have?", "What now?"]


def numbered(rows: Iterable[Any]) -> list[tuple[int, bytes]]:
    return [(number, json.dumps(row).encode() + b"\n") for number, row in enumerate(rows, 1)]


def written(*arguments: Any) -> Iterator[str]:
    return (one.line for one in answered(*arguments))


def asked() -> list[tuple[int, bytes]]:
    return numbered({"id": index, "question": text} for index, text in enumerate(TEXTS))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_answers_are_those_of_the_reasoner_in_the_order_of_the_questions(reasoner: LatentReasoner, batch: int) -> None:
    found = [json.loads(line) for line in written(reasoner, asked(), HOW, batch)]
    assert [row["id"] for row in found] == list(range(len(TEXTS)))
    for row, text in zip(found, TEXTS, strict=True):
        expected = reasoner.generate(text, max_new_tokens=6)
        assert row["question"] == text
        assert (row["answer"], row["finish"], row["tokens"]) == (expected.text, expected.finish, expected.new_tokens)
        assert (row["latent_steps"], row["prompt_tokens"]) == (6, expected.prompt_tokens)
        assert row["seconds"] > 0


@pytest.mark.slow
def test_messages_may_be_asked_instead_of_a_question(reasoner: LatentReasoner) -> None:
    messages = [{"role": "user", "content": "Who?"}]
    one, other = (
        json.loads(line) for line in written(reasoner, numbered([{"messages": messages}, {"question": "Who?"}]), HOW, 2)
    )
    assert one["answer"] == other["answer"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{not json}\n", r"^line 3 is not JSON .*: expected \{\"question\""),
        (b"\n", r"^line 3 is empty"),
        (b"[1]\n", r"^line 3 holds a JSON list"),
        (b"\xff\n", r"^line 3 is not UTF-8"),
        (b'{"id": 3}\n', r"^line 3 needs one of the fields 'question' and 'messages'"),
        (b'{"question": "a", "messages": []}\n', r"^line 3 has both 'question' and 'messages': leave one"),
        (b'{"question": " "}\n', r"^line 3: the question is empty: give its text$"),
        (b'{"messages": [{"role": "user", "content": ""}]}\n', r"^line 3: the question is empty"),
        (b'{"question": "abc\\ud800"}\n', r"^line 3: the question is not valid Unicode \(character 4\): give it as UTF-8"),
        (b'{"question": 3}\n', r"^line 3 has no text in 'question'"),
        (b'{"messages": []}\n', r"^line 3 has no text in 'question' and no list in 'messages'"),
        (b'{"messages": [{"role": "user"}]}\n', r"^line 3 has a message without the texts 'role' and 'content'"),
        (b'{"question": "a", "answer": "#### 7"}\n', r"^line 3 has a field 'answer', .*: rename it, for example to 'gold'$"),
        (b'{"question": "a", "seconds": 3}\n', r"^line 3 has a field 'seconds', which the output needs .*: rename it$"),
        (json.dumps({"question": "word " * 600}).encode(), r"^line 3 has a prompt of \d+ tokens, .* only 512 positions"),
    ],
)
def test_a_bad_line_is_named_after_the_answers_before_it(reasoner: LatentReasoner, line: bytes, message: str) -> None:
    source = [*asked()[:2], (3, line), *asked()[3:]]
    found = []
    with pytest.raises(DataError, match=message):
        found.extend(written(reasoner, source, HOW, 16))
    assert [json.loads(one)["id"] for one in found] == [0, 1]


@pytest.mark.slow
def test_draws_depend_on_the_line_and_not_on_where_a_run_began(reasoner: LatentReasoner) -> None:
    how = HOW._replace(temperature=1.5)
    whole = [json.loads(line)["answer"] for line in written(reasoner, asked(), how, 2)]
    later = [json.loads(line)["answer"] for line in written(reasoner, asked()[2:], how, 2)]
    assert later == whole[2:]


@pytest.mark.slow
def test_a_stopped_run_continues_after_the_last_whole_line(reasoner: LatentReasoner, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    assert resume(out, RUN) == 0
    lines = list(written(reasoner, asked(), HOW, 1))
    out.write_text("".join(f"{line}\n" for line in lines[:2]) + lines[2][:20])
    assert resume(out, RUN) == 2
    assert [number for number, _ in continued(asked(), out, 2)] == [3, 4, 5]
    assert out.read_text() == "".join(f"{line}\n" for line in lines[:2])


def test_another_run_does_not_continue_a_file(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    resume(out, RUN)
    out.write_text("{}\n")
    with pytest.raises(ParamError, match=r"answers\.jsonl was made by another run \(latents 6, now 0\): give another file"):
        resume(out, RUN | {"latents": 0})
    (tmp_path / "answers.jsonl.run.json").unlink()
    with pytest.raises(ParamError, match=r"no answers\.jsonl\.run\.json beside it"):
        resume(out, RUN)


def test_other_questions_do_not_continue_a_file(reasoner: LatentReasoner, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text("".join(f"{line}\n" for line in written(reasoner, asked()[:2], HOW, 2)))
    other = [*asked()[:1], *numbered([{"id": 7, "question": "Other?"}] * 2)[1:]]
    with pytest.raises(DataError, match=r"^line 2 is not the question that .*answers\.jsonl has answered there"):
        list(continued(other, out, 2))


def test_an_input_that_is_shorter_than_its_answers_is_refused(reasoner: LatentReasoner, tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text("".join(f"{line}\n" for line in written(reasoner, asked()[:3], HOW, 3)))
    assert list(continued(asked()[:3], out, 3)) == []
    for given in (2, 0):
        with pytest.raises(DataError, match=rf"^the input ends after line {given}, and .* has 3 answers: give the whole"):
            list(continued(asked()[:given], out, 3))


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ("{torn", r"answers\.jsonl, line 1 is not JSON .*: cut the file before this line"),
        ('{"id": 0, "question": "Who?"}', r"answers\.jsonl, line 1 has no field 'answer': cut the file before"),
    ],
)
def test_a_damaged_answer_is_named(tmp_path: Path, kept: str, message: str) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text(kept + "\n")
    with pytest.raises(DataError, match=message):
        list(continued(asked(), out, 1))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text(json.dumps(dict.fromkeys(ADDED)) + "\n")
    (tmp_path / "answers.jsonl.run.json").write_text("{")
    with pytest.raises(DataError, match=r"answers\.jsonl\.run\.json is not JSON .*: give another file"):
        resume(out, RUN)


def test_one_process_at_a_time_writes_a_file_of_answers(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with opened(out) as file:
        file.write(b"{}\n")
        with pytest.raises(StoppedError, match=r"^another process is writing to .*answers\.jsonl: wait for it"), opened(out):
            pass
    with opened(out) as file:
        assert out.read_bytes() == b"{}\n"


def test_a_folder_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    out = tmp_path / "no/such/answers.jsonl"
    with pytest.raises(ParamError, match=rf"^the folder {out.parent} of --out does not exist: make it first"), opened(out):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "expected"), [(b"", 0), (b"a\n", 1), (b"a\nb", 2), (b"skipped\nb\nc\n", 2)])
def test_lines_are_counted_from_where_a_file_is_read_and_it_stays_there(
    tmp_path: Path, content: bytes, expected: int
) -> None:
    (tmp_path / "in").write_bytes(content)
    with (tmp_path / "in").open("rb") as file:
        if content.startswith(b"skipped"):
            file.readline()
        before = file.tell()
        assert (number_of_lines(file), file.tell()) == (expected, before)


def test_the_lines_of_a_pipe_are_not_counted_since_they_may_never_end() -> None:
    reader, writer = os.pipe()
    with open(reader, "rb") as file, open(writer, "wb"):
        assert number_of_lines(file) is None


def test_what_is_not_a_file_is_refused_by_name(tmp_path: Path) -> None:
    for out, what in ((tmp_path, "a folder"), (Path("/dev/null"), "not a regular file")):
        with pytest.raises(ParamError, match=rf"^{out} is {what}: name a file with --out$"), opened(out):
            pass
