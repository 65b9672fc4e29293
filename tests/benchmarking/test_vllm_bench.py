"""What vLLM computes, counted exactly on a real engine: `make test-vllm`. Skipped where vLLM is not installed."""

from importlib.util import find_spec

import pytest
import torch

from qthink_core.benchmarking.workload import Sizes, prompts_of
from qthink_core.planning.cost import Shape

if find_spec("vllm") is None:
    pytest.skip("vLLM is not installed: run `make test-vllm`", allow_module_level=True)
if torch.cuda.is_available():
    pytest.skip("the counts are those of a CPU, where a block of keys and values has 32 tokens", allow_module_level=True)

from qthink_core.benchmarking import vllm

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

NANO = Shape(2, 32, 2, 1, 32, 48, 64)
SIZES = Sizes(5, 4, 70, 20, 6, 3, 200, 2, 7, 12)
BLOCK = 32


def test_the_rollouts_of_a_problem_share_the_whole_blocks_of_their_prompt_and_the_last_token_is_read_by_each() -> None:
    row = vllm.rollouts("nano", NANO, SIZES, 1)
    assert row.difference == 0
    prompts = [len(one) for one in prompts_of(NANO, SIZES, SIZES.problems).values()]
    own = [length - (length - 1) // BLOCK * BLOCK for length in prompts]
    assert any(one < length for one, length in zip(own, prompts, strict=True))
    read = sum(length + (SIZES.G - 1) * rest for length, rest in zip(prompts, own, strict=True))
    assert row.counts["reads_of_a_prompt"] == pytest.approx(read / sum(prompts))
    assert row.counts["tokens_computed"] == read + row.counts["tokens_emitted"] - len(prompts) * SIZES.G
    assert row.counts["steps"] < row.counts["naive_steps"]
    # a completion is in as many steps as it has tokens
    assert row.counts["sequences_in_a_step"] == pytest.approx(row.counts["tokens_emitted"] / row.counts["steps"])


@pytest.mark.parametrize("K", [0, 3])
def test_answers_by_vllm_are_those_of_the_engine_hf_and_a_prompt_is_read_once(K: int) -> None:
    row = vllm.answers("nano", NANO, SIZES, K, 1)
    assert row.difference == 0
    assert row.counts["reads_of_a_prompt"] == 1.0
    assert row.counts["sequences_in_a_step"] == pytest.approx(row.counts["tokens_emitted"] / row.counts["steps"])
