"""lm-evaluation-harness on an exported folder: `make test-serve`. Skipped without it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import answer
from imports import ROOT
from test_transformers_serve import folder  # noqa: F401 - the same folder
from transformers import GenerationMixin, dynamic_module_utils
from worlds import WORLD

from qthink_core.benchmarks.problems import generated
from qthink_core.benchmarks.rendering import render
from qthink_core.generation.hf_engine import HFEngine
from qthink_core.models import loading

lm_eval = pytest.importorskip("lm_eval")
pytestmark = [pytest.mark.serve, pytest.mark.slow, pytest.mark.timeout(1200)]

N, LIMIT = 12, 48


def task(place: Path) -> str:
    """The task of docs/use/lm-eval.md with its questions, in a folder for `--include_path`."""
    page = (ROOT / "docs/use/lm-eval.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    problems = generated("gsm8k", "test", N, seed=11, world=WORLD)
    rows = [{"question": problem.question, "answer": problem.gold} for problem in problems]
    (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "qthink_gsm8k.yaml").write_text(block.replace("data/gsm8k/test.jsonl", str(place / "test.jsonl")))
    return "qthink_gsm8k"


@pytest.mark.parametrize("batch", [1, 5])
def test_the_harness_reads_the_engines_answers(
    folder: Path,  # noqa: F811
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch: int,
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(GenerationMixin, "init_continuous_batching", GenerationMixin.init_continuous_batching)
    name = task(tmp_path)
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={folder},trust_remote_code=True,enable_thinking=False,dtype=float32",
        tasks=[name],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path)),
        batch_size=batch,
        device="cpu",
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    system = loading.load_system(folder, torch.device("cpu"), "float32")
    questions = {f"q{i:02}": row.question for i, row in enumerate(generated("gsm8k", "test", N, seed=11, world=WORLD))}
    prompts = {one: render(tokenizer, question, thinking=False) for one, question in questions.items()}
    expected = [
        tokenizer.decode(row.tokens, skip_special_tokens=True).split("<|im_end|>")[0]
        for row in answer(HFEngine(system, LIMIT), prompts)
    ]
    samples = [one for one in found["samples"][name] if one["filter"] == "flexible-extract"]
    by_question = {sample["doc"]["question"]: sample["resps"][0][0] for sample in samples}
    assert [by_question[question].strip() for question in questions.values()] == [one.strip() for one in expected]
