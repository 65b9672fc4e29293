"""The Python of README.md and docs/use/python.md, block by block, in a folder that has the model it names."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from qthink_core import LatentReasoner

PAGE = Path(__file__).parents[2] / "docs/use/python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def reasoner(shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LatentReasoner:
    monkeypatch.chdir(tmp_path)
    return LatentReasoner.from_pretrained(shutil.copytree(shared_folder, "models/gsm8k/uniform"))


@pytest.mark.slow
def test_the_first_block_prints_the_answer_its_cost_and_what_the_latents_read_as(
    reasoner: LatentReasoner, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(BLOCKS[0], str(PAGE), "exec"), {})  # noqa: S102 - this is our own page
    expected = reasoner.generate("QUESTION")
    said = capsys.readouterr().out
    assert said.startswith(f"{expected.text}\n6 latent steps, {expected.new_tokens} tokens, ")
    assert said.endswith("".join(f"{k} {likely[0]}\n" for k, likely in enumerate(expected.readout, 1)))


@pytest.mark.slow
def test_the_second_block_answers_many_questions_a_conversation_and_a_stream(
    reasoner: LatentReasoner, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec(compile(BLOCKS[1], str(PAGE), "exec"), names)  # noqa: S102 - this is our own page
    first, limit = names["questions"][0], 48
    several = [reasoner.generate(question, max_new_tokens=limit) for question in names["questions"]]
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": first}]
    talk = reasoner.generate(chat, max_new_tokens=limit)
    drawn = reasoner.generate(first, max_new_tokens=limit, temperature=0.6, top_p=0.95, top_k=20, seed=1)
    expected = "".join(f"{one.text} {one.finish}\n" for one in several) + f"{talk.text}\n{drawn.text}{drawn.new_tokens}\n"
    assert capsys.readouterr().out == expected


def test_every_field_of_a_response_is_in_the_table(reasoner: LatentReasoner) -> None:
    response = reasoner.generate("QUESTION", max_new_tokens=1)
    public = {name for name in dir(response) if not name.startswith("_")}
    table = PAGE.read_text().partition("## What comes back")[2]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))) == public


@pytest.mark.slow
def test_the_block_of_the_readme_prints_each_answer_with_what_its_latents_read_as(
    reasoner: LatentReasoner, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (PAGE.parents[2] / "README.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - this is our own page
    expected = [reasoner.generate(question) for question in names["questions"]]
    lines = [f"{one.text} {[likely[0][0] for likely in one.readout]}\n" for one in expected]
    assert capsys.readouterr().out == "".join(lines)
