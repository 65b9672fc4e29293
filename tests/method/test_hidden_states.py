from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from qthink_core.artifacts.rollouts import Rollout
from qthink_core.errors import NumericError
from qthink_core.method.extraction import Row
from qthink_core.method.hidden_states import batches_of_like_length, last_hidden, logits, pad, read_positions
from qthink_core.method.positions import evenly

# Float32 sums in another order: a product over a padded batch differs by some 1e-7 of values near 1; the design's bound.
HIDDEN_TOLERANCE = 3e-6
# The same error through the output head, whose logits here reach 20.
LOGIT_TOLERANCE = 5e-5
K = 6
N_BYTES = 256  # the tokenizer's first tokens, whatever words it has


def rows(questions: list[list[int]], n: int = 24) -> list[Row]:
    """Thoughts of 1 to 90 tokens behind real prompts; a row ends at its last needed position."""
    rng = np.random.default_rng(5)
    found = []
    for index, prompt in enumerate(questions[:n]):
        length = int(rng.integers(1, 90)) if index else 1
        thought = rng.integers(0, N_BYTES, length).tolist()
        at = [len(prompt) + one for one in evenly(length, K)]
        rollout = Rollout(thought, "", "stop", problem_id=f"p{index:02}", rollout=3)
        found.append(Row(rollout, length, [*prompt, *thought], at, len(prompt)))
    return found


def plainly(model: Any, tokens: list[int]) -> torch.Tensor:
    """hidden_states[-1] of one unpadded sequence, as Hugging Face gives it."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0]


def test_the_output_head_on_the_last_hidden_states_gives_the_models_logits(qwen3: Any, questions: list[list[int]]) -> None:
    model, ids = qwen3(), torch.tensor([questions[0]])
    with torch.no_grad():
        hidden = last_hidden(model, input_ids=ids, mask=torch.ones_like(ids))
        whole = model(input_ids=ids, output_hidden_states=True)
        torch.testing.assert_close(logits(model, hidden), whole.logits, rtol=0, atol=LOGIT_TOLERANCE)
        assert torch.equal(hidden, whole.hidden_states[-1])
        # the layer before the final norm is another tensor: there the output head gives other logits
        before = []
        model.model.norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
        model(input_ids=ids)
        assert (logits(model, before[0]) - whole.logits).abs().max() > 1


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_shifts_nothing(qwen3: Any, questions: list[list[int]], side: str) -> None:
    model = qwen3()
    ids, mask = pad(questions[:9], 0, side)
    with torch.no_grad():
        hidden = last_hidden(model, input_ids=ids, mask=mask)
    for row, tokens in enumerate(questions[:9]):
        own = hidden[row][mask[row].bool()]
        torch.testing.assert_close(own, plainly(model, tokens), rtol=0, atol=HIDDEN_TOLERANCE)


def test_what_lies_under_the_padding_does_not_matter(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    for side in ("left", "right"):
        found = []
        for fill in (0, 77):
            ids, mask = pad(questions[:5], fill, side)
            with torch.no_grad():
                found.append(last_hidden(model, input_ids=ids, mask=mask)[mask.bool()])
        assert torch.equal(*found)


@pytest.mark.parametrize("batch_tokens", [40, 600, 100_000])
def test_batched_extraction_reads_what_one_plain_forward_a_rollout_reads(
    qwen3: Any, questions: list[list[int]], batch_tokens: int
) -> None:
    model, wanted = qwen3(), rows(questions)
    found = read_positions(model, wanted, K, batch_tokens, "float32")
    for row, states in zip(wanted, found, strict=True):
        expected = plainly(model, row.tokens)[row.positions]
        np.testing.assert_allclose(states, expected.numpy(), rtol=0, atol=HIDDEN_TOLERANCE)


def test_the_order_of_rollouts_does_not_matter(qwen3: Any, questions: list[list[int]]) -> None:
    model, wanted = qwen3(), rows(questions)
    found = read_positions(model, wanted, K, 1000, "float32")
    order = np.random.default_rng(0).permutation(len(wanted))
    shuffled = read_positions(model, [wanted[i] for i in order], K, 1000, "float32")
    np.testing.assert_allclose(shuffled, found[order], rtol=0, atol=HIDDEN_TOLERANCE)


@pytest.fixture
def body_calls() -> Callable[[Any], list[tuple[int, int]]]:
    """(rows, tokens a row) of every pass through a model's first layer from now on."""

    def watch(model: Any) -> list[tuple[int, int]]:
        calls: list[tuple[int, int]] = []
        first = model.model.layers[0].self_attn.k_proj
        first.register_forward_pre_hook(lambda _, inputs: calls.append(tuple(inputs[0].shape[:2])))
        return calls

    return watch


def test_a_pass_has_all_tokens_that_it_may_and_none_behind_the_last_position_is_computed(
    qwen3: Any, questions: list[list[int]], body_calls: Any
) -> None:
    model, wanted = qwen3(), rows(questions)
    calls = body_calls(model)
    read_positions(model, wanted, K, 500, "float32")
    prompts = {tuple(row.tokens[: row.prompt]) for row in wanted}
    full, rest = divmod(sum(map(len, prompts)) + sum(row.positions[-1] + 1 - row.prompt for row in wanted), 500)
    assert calls == [(1, 500)] * full + [(1, rest)]


def test_extraction_never_runs_the_output_head(qwen3: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    heads: list[None] = []
    model.lm_head.register_forward_pre_hook(lambda *_: heads.append(None))
    read_positions(model, rows(questions), K, 1000, "float32")
    assert heads == []


def test_a_batch_of_a_model_that_cannot_be_packed_holds_at_most_its_tokens_with_padding(
    qwen3: Any, questions: list[list[int]], body_calls: Any
) -> None:
    model, wanted = qwen3(sliding_window=500, use_sliding_window=True), rows(questions)
    calls = body_calls(model)
    read_positions(model, wanted, K, 600, "float32")
    assert all(n_rows * length <= 600 for n_rows, length in calls)
    assert sum(n_rows for n_rows, _ in calls) == len(wanted)


def test_groups_are_cut_where_the_padded_size_would_pass_the_limit() -> None:
    lengths = [2, 3, 3, 5, 9, 40]
    assert batches_of_like_length(range(6), lengths, 10) == [[0, 1, 2], [3], [4], [5]]
    assert batches_of_like_length(range(6), lengths, 9) == [[0, 1, 2], [3], [4], [5]]
    assert batches_of_like_length(range(6), lengths, 8) == [[0, 1], [2], [3], [4], [5]]


def test_a_hidden_state_that_is_not_finite_is_named_by_rollout_and_step(qwen3: Any, questions: list[list[int]]) -> None:
    model, wanted = qwen3(), rows(questions, 4)
    unused = min(set(range(N_BYTES, model.config.vocab_size)) - {token for row in wanted for token in row.tokens})
    # Only the second row holds this token, as its whole thought: its six states are bad and nothing else.
    wanted[1] = wanted[1]._replace(tokens=[*questions[1], unused], positions=[len(questions[1])] * K)
    with torch.no_grad():
        model.model.embed_tokens.weight[unused] = torch.nan
    with pytest.raises(NumericError, match=r"rollout 3 of p01 .* position 1 of 6 \(and 5 more\)"):
        read_positions(model, wanted, K, 1000, "float32")


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_hidden_state_too_large_for_the_stored_type_is_refused(qwen3: Any, questions: list[list[int]]) -> None:
    model, wanted = qwen3(), rows(questions, 2)
    with torch.no_grad():
        model.model.norm.weight *= 1e5  # float16 ends at 65,504
    read_positions(model, wanted, K, 1000, "float32")
    with pytest.raises(NumericError, match="not finite in float16"):
        read_positions(model, wanted, K, 1000, "float16")
