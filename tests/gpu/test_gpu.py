"""Qwen3-1.7B's shape with random weights on a GPU: `pytest -m gpu -s`; QTHINK_GPU_JSON names a file for the figures.

Only agreement is asserted; speed and memory are printed for docs/runs.md, with the name of the device.
"""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_measures
import pytest
import torch
from gpu_measures import Size
from test_gpu_measures import BFLOAT16_ERROR, GENERATED_TOKENS

from qthink_core.planning.shapes import KNOWN

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SHAPE = KNOWN["Qwen/Qwen3-1.7B"]
# A block of the recipe with shorter rollouts, a micro-batch of it, and a product that fills a large GPU.
SIZE = Size(P=8, G=16, prompt=120, rollout=256, answer=200, K=6, matmul=8192)
DEVICE = "cuda"


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, Any]]:
    """What the tests measured, printed and kept at their end."""
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "size": SIZE._asdict()}
    yield found
    text = json.dumps(found, indent=1)
    print(f"\n{text}")
    if os.environ.get("QTHINK_GPU_JSON"):
        Path(os.environ["QTHINK_GPU_JSON"]).write_text(text + "\n")


@pytest.fixture(autouse=True)
def emptied() -> Iterator[None]:
    """Each test begins with an empty device, so that its peak is its own."""
    yield
    gc.collect()
    torch.cuda.empty_cache()


def test_bfloat16_agrees_with_float32(figures: dict[str, Any]) -> None:
    found = gpu_measures.agreement(SHAPE, DEVICE, SIZE)
    figures["bfloat16 against float32"] = found._asdict()
    assert found.hidden < BFLOAT16_ERROR
    assert found.logits < BFLOAT16_ERROR


def test_every_kind_of_work_is_done_and_measured(figures: dict[str, Any]) -> None:
    peak = gpu_measures.matrix_peak(DEVICE, torch.bfloat16, SIZE.matmul)
    figures["matrix peak, FLOP/s"] = peak
    model = gpu_measures.model_of(SHAPE, DEVICE, torch.bfloat16)
    # the first call of everything compiles and allocates
    gpu_measures.sampled(model, SHAPE, SIZE._replace(rollout=2), peak)
    rollouts, figures["sample"] = gpu_measures.sampled(model, SHAPE, SIZE, peak)
    assert sum(len(row.tokens) for row in rollouts) >= GENERATED_TOKENS * SIZE.P * SIZE.G * SIZE.rollout
    states, figures["extract"] = gpu_measures.extracted(model, rollouts, SHAPE, SIZE, peak)
    assert states.shape == (SIZE.P * SIZE.G, SIZE.K, SHAPE.hidden)
    _, figures["evaluate"] = gpu_measures.answered(model, SHAPE, SIZE, peak)
    before, after, figures["train step"] = gpu_measures.trained(model, states, SHAPE, SIZE, peak)
    assert after < before
    for name in ("sample", "extract", "evaluate", "train step"):
        figures[name] = figures[name]._asdict()
