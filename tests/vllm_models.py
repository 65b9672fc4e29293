"""What the tests of the engine vllm share: a base model, and a latent system of the same weights, as folders."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from lively import lively_qwen3

from qthink_core.generation.decoding import decode, greedy
from qthink_core.method import projection_head
from qthink_core.method.latent_steps import latent_steps, read_prompts
from qthink_core.models import loading
from qthink_core.models.loading import System

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: run `make test-vllm`", allow_module_level=True)

K = 6
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Both engines compute in float32 with other kernels: logits differ by some 1e-5. Where the two likeliest tokens are further
# apart than this, equal tokens are not luck.
MARGIN = 1e-4
# vLLM's kernels for processors know heads of 32 and 64, not conftest's 16.
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "initializer_range": 0.15,
}


class Folders(NamedTuple):
    """A base model, and a latent system of the same weights."""

    base: Path
    latent: Path


def make(folder: Path, tokenizer: Any) -> Folders:
    """Both, inside an existing folder."""
    made = Folders(folder / "base", folder / "latent")
    for one in made:
        lively_qwen3(tokenizer, **SHAPE).save_pretrained(one)
        tokenizer.save_pretrained(one)
    torch.manual_seed(5)  # completions of many lengths, and no two tokens nearly as likely as each other
    head = projection_head.ProjectionHead(SHAPE["hidden_size"])
    (made.latent / loading.HEAD).write_bytes(projection_head.to_bytes(head))
    (made.latent / loading.CONFIG).write_text(json.dumps({"K": K, "thinking": False}))
    return made


def named(questions: Sequence[list[int]], n: int) -> dict[str, list[int]]:
    """The first n questions by made-up ids."""
    return {f"p{index:03}": prompt for index, prompt in enumerate(questions[:n])}


def by_hugging_face(system: System, prompts: dict[str, list[int]], limit: int) -> tuple[list[list[int]], float]:
    """Greedy tokens of the engine hf, and how far the two likeliest tokens were apart at least."""
    gaps: list[float] = []

    def choose(scores: torch.Tensor, rows: torch.Tensor, step: int, at: torch.Tensor) -> torch.Tensor:
        first, second = scores.topk(2, dim=-1).values.unbind(-1)
        gaps.append((first - second).min().item())
        return greedy(scores, rows, step, at)

    with torch.inference_mode():
        context = read_prompts(system.model, list(prompts.values()), system.tokenizer.pad_token_id)
        context, _ = latent_steps(system.model, system.head, context, system.K)
        done = decode(system.model, context, choose, system.ends, limit)
    return done, min(gaps)
