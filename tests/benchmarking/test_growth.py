"""Growth is counted: what doubles with N, G, S and K, and what does not. No test looks at seconds."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from qthink_core.benchmarking import growth
from qthink_core.benchmarking.growth import Grown, Stages
from qthink_core.benchmarking.workload import Sizes
from qthink_core.planning.cost import Shape

NANO = Shape(1, 16, 2, 1, 8, 24, 32)
SIZES = Sizes(4, 2, 5, 8, 3, 2, 50, 2, 2, 4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def work(**sizes: int) -> dict[str, Grown]:
    stages = Stages(NANO, SIZES._replace(**sizes))
    return {stage: stages.measured(stage) for stage in growth.STAGES}


@pytest.mark.slow
def test_sampling_grows_with_n_g_s_extraction_with_n_g_s_training_with_n_and_disk_with_n_g_k_d() -> None:
    usual = work()
    N, G, P, S, K, D = SIZES.problems, SIZES.G, SIZES.prompt, SIZES.thought, SIZES.K, NANO.hidden
    for name, n, g, s, k in (
        ("", N, G, S, K),
        ("problems", 2 * N, G, S, K),
        ("G", N, 2 * G, S, K),
        ("thought", N, G, 2 * S, K),
        ("K", N, G, S, 2 * K),
    ):
        found = work(**{name: 2 * getattr(SIZES, name)}) if name else usual
        assert found["sample"].written == n * g * s
        assert found["extract"].tokens == n * (P + g * s)
        assert found["extract"].disk == 4 * n * g * k * D
        assert found["evaluate"].written == n * SIZES.max_new_tokens
        # a micro-batch of equal lengths has no padding: the prompt, K latent steps, and all tokens of the answer but one
        assert found["train"].tokens == n * (P + k + SIZES.answer - 1)


def test_the_power_of_n_is_that_of_the_seconds() -> None:
    rows = [Grown("sample", N, 0.5 * N**1.5, 10 * N, 5 * N, 0) for N in (2, 4, 16)]
    assert growth.exponent(rows) == pytest.approx(1.5)
    others: list[Any] = [Grown(stage, N, float(N), N, 0, 0) for stage in growth.STAGES[1:] for N in (2, 4, 16)]
    text = growth.as_text([*rows, *others])
    assert "| sample | 1.41 s, 20 tokens | 4.00 s, 40 tokens | 32.00 s, 160 tokens | N^1.50 |" in text
    assert {one["stage"]: round(one["exponent"], 6) for one in growth.as_json([*rows, *others])} == {
        "sample": 1.5,
        "extract": 1,
        "train": 1,
        "evaluate": 1,
    }
