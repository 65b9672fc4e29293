"""What `pytest -m gpu` measures on a GPU, run on the processor with a tiny shape, so that none of it is untried."""

import gpu_measures
import numpy as np
import pytest
import torch
from gpu_measures import Size

from qthink_core.planning import cost
from qthink_core.planning.cost import Shape

SHAPE = Shape(layers=2, hidden=64, heads=2, kv_heads=1, head_dim=32, intermediate=128, vocabulary=700)
SIZE = Size(P=3, G=2, prompt=12, rollout=10, answer=8, K=2, matmul=256)
# Each product rounds to 8 bits (relative 2e-3); some ten a layer, 28 layers, adding up like a random walk: 3e-2.
BFLOAT16_ERROR = 0.1
# Random weights hardly ever choose the end token.
GENERATED_TOKENS = 0.9


def test_bfloat16_agrees_with_float32() -> None:
    found = gpu_measures.agreement(SHAPE, "cpu", SIZE)
    assert 0 < found.hidden < BFLOAT16_ERROR
    assert 0 < found.logits < BFLOAT16_ERROR
    assert found.same_token > 0.5


@pytest.mark.slow
def test_every_kind_of_work_is_done_and_measured() -> None:
    model = gpu_measures.model_of(SHAPE, "cpu", torch.float32)
    peak = gpu_measures.matrix_peak("cpu", torch.float32, SIZE.matmul)
    rollouts, sampling = gpu_measures.sampled(model, SHAPE, SIZE, peak)
    assert [(row.problem_id, row.rollout) for row in rollouts] == [(f"p{i}", g) for i in range(3) for g in range(2)]
    assert sum(len(row.tokens) for row in rollouts) >= GENERATED_TOKENS * 6 * SIZE.rollout
    states, extraction = gpu_measures.extracted(model, rollouts, SHAPE, SIZE, peak)
    assert states.shape == (6, SIZE.K, SHAPE.hidden)
    answers, evaluation = gpu_measures.answered(model, SHAPE, SIZE, peak)
    assert len(answers) == SIZE.P
    before, after, training = gpu_measures.trained(model, states, SHAPE, SIZE, peak)
    assert after < before
    for found in (sampling, extraction, evaluation, training):
        assert found.tokens_s > 0
        assert 0 < found.of_peak < 2
        assert found.memory == 0


def test_the_last_of_the_extracted_states_is_the_one_behind_the_whole_rollout() -> None:
    model = gpu_measures.model_of(SHAPE, "cpu", torch.float32)
    rollouts, _ = gpu_measures.sampled(model, SHAPE, SIZE, 1.0)
    states, _ = gpu_measures.extracted(model, rollouts, SHAPE, SIZE, 1.0)
    prompts = gpu_measures.questions(SHAPE, SIZE)
    tokens = torch.tensor([[*prompts[rollouts[3].problem_id], *rollouts[3].tokens]])
    with torch.inference_mode():
        plain = model(tokens, output_hidden_states=True).hidden_states[-1][0, -1]
    assert np.abs(states[3, -1] - plain.numpy()).max() < 1e-5


def test_a_model_has_the_weights_of_its_shape() -> None:
    model = gpu_measures.model_of(SHAPE, "cpu", torch.float32)
    norms = SHAPE.hidden * (2 * SHAPE.layers + 1) + 2 * SHAPE.head_dim * SHAPE.layers
    assert sum(weight.numel() for weight in model.parameters()) == cost.parameters(SHAPE) + norms


def test_the_error_is_relative_to_the_exact_values() -> None:
    assert gpu_measures.error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == pytest.approx(1 / 5)
