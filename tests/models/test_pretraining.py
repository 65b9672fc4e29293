import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from worlds import STYLE, WORLD

from qthink_core.benchmarks.generated import TASKS, worked
from qthink_core.benchmarks.generated.chains import slipped, thought, values
from qthink_core.benchmarks.graders import grader
from qthink_core.models.lr_schedule import warmup_cosine
from qthink_core.models.pretraining import LAST_LR, Sample, backward, chats, pretrain
from qthink_core.models.tiny_tokenizer import build

SIZES = {
    "hidden_size": 32,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 16,
    "intermediate_size": 48,
    "lr": 1e-2,
    "warmup": 0.1,
    "weight_decay": 0.01,
    **STYLE._replace(without_thinking=0.25)._asdict(),
    "world": WORLD,
    "seed": 3,
}

ONE = ThreadPoolExecutor(1)


def trained(steps: int, batch: int = 12, **changes: object) -> tuple[Qwen3ForCausalLM, list[float]]:
    losses: list[float] = []
    arguments = SIZES | {"steps": steps, "batch": batch, "report": lambda step, loss: losses.append(loss)} | changes
    return pretrain(**arguments)[0], losses  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build(WORLD, STYLE.opening)


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return trained(steps=2)[0]


@pytest.mark.slow
def test_the_first_loss_is_near_that_of_guessing_and_training_halves_it(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    losses = trained(steps=60)[1]
    # Initial logits have a standard deviation of about 0.06 * sqrt(32) = 0.3, which moves the loss by its square.
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), abs=0.1)
    assert np.mean(losses[-5:]) < losses[0] / 2


@pytest.mark.slow
def test_the_same_arguments_give_the_same_weights(model: Qwen3ForCausalLM) -> None:
    again = trained(steps=2)[0].state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_another_seed_gives_other_weights(model: Qwen3ForCausalLM) -> None:
    other = trained(steps=2, seed=4)[0]
    assert not torch.equal(other.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_every_step_is_reported_with_its_number() -> None:
    numbers: list[int] = []
    trained(steps=3, report=lambda step, loss: numbers.append(step))
    assert numbers == [1, 2, 3]


def test_a_sample_is_the_chat_template_and_what_the_assistant_should_write(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    samples = chats(tokenizer, 90, STYLE._replace(without_thinking=0.5), WORLD, seed=3)
    expected = set()
    for task in TASKS:
        for index, problem in enumerate(worked(task, "pretrain", 30, seed=3, world=WORLD)):
            turn = [{"role": "user", "content": grader(task).problem(problem.row, index, "pretrain").question}]
            right = values(problem.steps)
            slips = [slipped(problem.steps, np.random.default_rng(k), 0.5, WORLD) for k in range(8)]
            replies = {(False, problem.answer(right[-1]))}
            for running in (right, *slips):
                text = thought(running, "Start")
                replies.add((True, f"<think>\n\n\n\n\n\n{text}\n</think>\n\n{problem.answer(running[-1])}"))
            for thinking, reply in replies:
                prompt = tokenizer.apply_chat_template(
                    turn, add_generation_prompt=True, enable_thinking=thinking, return_dict=True
                )["input_ids"]
                expected.add((tuple(prompt), tuple(tokenizer(f"{reply}<|im_end|>")["input_ids"])))
    found = {(tuple(s.ids[: s.start].tolist()), tuple(s.ids[s.start :].tolist())) for s in samples}
    assert len(found) == 90
    assert found <= expected


@pytest.mark.slow
def test_an_empty_block_stands_in_prompts_only_and_as_often_as_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    samples = chats(tokenizer, 900, STYLE._replace(without_thinking=0.2), WORLD, seed=3)
    prompts = [tokenizer.decode(s.ids[: s.start]) for s in samples]
    replies = [tokenizer.decode(s.ids[s.start :]) for s in samples]
    direct = [prompt.endswith("<think>\n\n</think>\n\n") for prompt in prompts]
    # Four standard errors of a share of 0.2 over 900 draws.
    assert abs(np.mean(direct) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 900)
    assert all(reply.startswith("<think>\n") != empty for reply, empty in zip(replies, direct, strict=True))


def test_a_thought_begins_where_the_first_latent_step_will(tokenizer: PreTrainedTokenizerFast) -> None:
    """The empty block has as many tokens as what the assistant writes before its first thought token."""
    empty = tokenizer("<think>\n\n</think>\n\n")["input_ids"]
    before = tokenizer("<think>" + "\n" * STYLE.newlines)["input_ids"]
    assert len(before) == len(empty) == 4
    samples = chats(tokenizer, 60, STYLE._replace(without_thinking=0.0), WORLD, seed=3)
    first = tokenizer(" Start")["input_ids"]
    assert all(sample.ids[sample.start :].tolist()[4:5] == first for sample in samples)


def test_tasks_are_mixed_in_every_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    samples = chats(tokenizer, 320, STYLE._replace(without_thinking=0.1), WORLD, seed=3)
    for first in range(0, 320, 64):
        prompts = [tokenizer.decode(s.ids[: s.start]) for s in samples[first : first + 64]]
        assert any("How many" in prompt for prompt in prompts)
        assert any("Compute" in prompt for prompt in prompts)
        assert any("Begin!" in prompt for prompt in prompts)


def test_the_loss_is_the_mean_over_written_tokens_and_padding_changes_nothing(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Against each sample alone, unpadded, through the model's own loss."""
    samples = chats(tokenizer, 40, STYLE._replace(without_thinking=0.3), WORLD, seed=8)
    total, n_written = 0.0, 0
    for sample in samples:
        ids = torch.from_numpy(sample.ids.astype(np.int64))[None]
        labels = ids.clone()
        labels[:, : sample.start] = -100
        n = len(sample.ids) - sample.start
        total += model(input_ids=ids, labels=labels).loss.item() * n
        n_written += n
    model.zero_grad()
    # Float32 sums in another order.
    assert backward(model, samples, ONE) == pytest.approx(total / n_written, rel=1e-5)


def test_the_number_of_cores_changes_no_bit_of_a_gradient(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    samples = chats(tokenizer, 60, STYLE, WORLD, seed=8)
    found = []
    for cores in (1, 3):
        model.zero_grad()
        with ThreadPoolExecutor(cores) as workers:
            loss = backward(model, samples, workers)
        found.append((loss, torch.cat([one.grad.flatten() for one in model.parameters()])))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


def test_the_gradient_is_that_of_all_chunks_together(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Against each sample alone, unpadded, through the model's own loss; 40 samples are three chunks."""
    samples = chats(tokenizer, 40, STYLE, WORLD, seed=8)
    n_written = sum(len(sample.ids) - sample.start for sample in samples)
    model.zero_grad()
    for sample in samples:
        ids = torch.from_numpy(sample.ids.astype(np.int64))[None]
        labels = ids.clone()
        labels[:, : sample.start] = -100
        (model(input_ids=ids, labels=labels).loss * (len(sample.ids) - sample.start) / n_written).backward()
    expected = torch.cat([one.grad.flatten() for one in model.parameters()])
    model.zero_grad()
    backward(model, samples, ONE)
    found = torch.cat([one.grad.flatten() for one in model.parameters()])
    # Float32 sums in another order.
    assert (found - expected).norm() < 1e-4 * expected.norm()


def test_what_the_user_wrote_is_not_trained(model: Qwen3ForCausalLM) -> None:
    """The logits at the prompt's positions get no gradient: the reply's first token is the only target."""
    sample = Sample(np.array([5, 6, 7, 8], dtype=np.int32), 3)
    logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1]
    model.zero_grad()
    assert backward(model, [sample], ONE) == pytest.approx(-logits.log_softmax(-1)[8].item(), rel=1e-5)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_tenth() -> None:
    rates = [warmup_cosine(step, 1000, 50, LAST_LR) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert (max(rates), rates.index(max(rates))) == (1.0, 49)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert all(after <= before for before, after in itertools.pairwise(rates[50:]))


def test_hidden_states_are_the_last_layer_after_the_final_norm(model: Qwen3ForCausalLM) -> None:
    out = model(input_ids=torch.arange(10)[None], output_hidden_states=True)
    assert torch.equal(model.lm_head(out.hidden_states[-1]), out.logits)


def test_weights_are_float32_and_embeddings_are_tied(model: Qwen3ForCausalLM) -> None:
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
