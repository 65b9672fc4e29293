"""The blocks of docs/use/transformers.md run as they are, on random weights, and print the engine's answers."""

import re
import runpy
from pathlib import Path
from typing import Any

import exported
import pytest
import torch
from engines import answer
from imports import ROOT
from transformers import GenerationMixin, dynamic_module_utils

from qthink_core.benchmarks.rendering import render
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.models import loading

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/use/transformers.md").read_text(), re.MULTILINE | re.DOTALL)
QUESTIONS = re.findall(r'"([A-Z][^"\n]*now\?)"', BLOCKS[0])


@pytest.mark.slow
@pytest.mark.parametrize(("block", "questions"), list(zip(BLOCKS, (QUESTIONS, QUESTIONS[1:]), strict=True)))
def test_a_block_prints_the_engines_answers(
    block: str,
    questions: list[str],
    qwen3: Any,
    tokenizer: Any,
    random_head: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    folder = exported.write(tmp_path / "models/gsm8k/uniform", qwen3(), tokenizer, random_head(), K=6)
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block.py").write_text(block)
    runpy.run_path(str(tmp_path / "block.py"))
    system = loading.load_system(folder, torch.device("cpu"), "float32")
    prompts = {question: render(tokenizer, question, thinking=False) for question in questions}
    rows = {row.problem_id: row.tokens for row in answer(HFEngine(system, 48), prompts)}
    expected = [tokenizer.decode(rows[question], skip_special_tokens=True) for question in questions]
    assert len(questions) == 2 - (len(QUESTIONS) != len(questions))
    assert capsys.readouterr().out == "\n\n".join(expected) + "\n"
