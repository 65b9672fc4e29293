"""The base model of the tiny scale: a Qwen3 architecture trained from random weights to think before it answers."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from qthink_core.benchmarks.generated import TASKS, Show, worked
from qthink_core.benchmarks.generated.chains import slipped, thought, values
from qthink_core.benchmarks.prompts import message
from qthink_core.benchmarks.world import World
from qthink_core.errors import NumericError
from qthink_core.models.acceptance.chat_template import END_THINK, THINK
from qthink_core.models.lr_schedule import warmup_cosine
from qthink_core.models.tiny_tokenizer import TURN_END, build
from qthink_core.pipeline import process

MAX_POSITIONS = 4096
MAX_GRAD_NORM = 1.0
LAST_LR = 0.1  # of the peak

# The usual 0.02 is for wide models; with 96 dimensions and tied embeddings it leaves the logits flat. In the first world
# (docs/search.md) the loss after 400 steps was 0.038 with 0.06, these betas and lr 5e-3, and 0.071 with 0.02, 0.99 and 3e-3.
INITIAL_STD = 0.06
BETAS = (0.9, 0.98)

# The model finds each step of the calculation by counting positions in the question, and with a large theta only a few of a
# head's 16 frequencies distinguish neighbouring positions. In the first world (docs/search.md) the loss after 400 steps was
# 0.135 with 10^4, 0.033 with 10^3 and 0.086 with 10^2 (one seed each).
ROPE_THETA = 1000.0

# A batch runs in chunks of samples of similar length, so that every core has work and little padding is computed: in the
# first world (docs/search.md) a single chunk took 1.6 times as long.
SAMPLES_PER_CHUNK = 16


class Sample(NamedTuple):
    """A chat as token ids; the loss is over the assistant's tokens, which begin at index `start`."""

    ids: Int[np.ndarray, " T"]
    start: int


class Style(NamedTuple):
    """The style of the thoughts in pre-training chats.

    A share `without_thinking` of the chats answers directly after an empty block. The others write `newlines` newlines after
    `<think>`, then a thought that starts with the word `opening`, unless that is None. A share `slips` of the borrows in
    thoughts is wrong by one, and the answer follows from the wrong value.
    """

    without_thinking: float
    opening: str | None
    newlines: int
    slips: float


def pretrain(
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    intermediate_size: int,
    steps: int,
    batch: int,
    lr: float,
    warmup: float,
    weight_decay: float,
    without_thinking: float,
    opening: str | None,
    newlines: int,
    slips: float,
    world: World,
    seed: int,
    report: Callable[[int, float], None],
    show: Show | None = None,
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """A trained model and its tokenizer; `report(step, loss)` is called after every step.

    Each sample is used once: steps * batch problems of the split "pretrain", a third from each task. The optimiser is AdamW,
    with linear warm-up over the share `warmup` of the steps, then a cosine down to a tenth of `lr`. Everything is float32.
    The same arguments and the same number of torch threads give the same weights on any number of cores. Raises NumericError
    naming the step of a loss that is not finite.
    """
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    tokenizer = build(world, opening)
    style = Style(without_thinking, opening, newlines, slips)
    samples = chats(tokenizer, steps * batch, style, world, seed, show)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate_size,
        max_position_embeddings=MAX_POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        initializer_range=INITIAL_STD,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=BETAS, weight_decay=weight_decay, fused=True)
    n_warmup = max(1, round(warmup * steps))
    with ThreadPoolExecutor(max(1, process.cores() // torch.get_num_threads())) as cores:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * warmup_cosine(step, steps, n_warmup, LAST_LR)
            loss = backward(model, samples[step * batch : (step + 1) * batch], cores)
            if not math.isfinite(loss):
                raise NumericError(f"pre-training has loss {loss} at step {step + 1}: lower base.pretrain.lr")
            torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            report(step + 1, loss)
    model.eval()
    return model, tokenizer


def chats(
    tokenizer: PreTrainedTokenizerFast, n: int, style: Style, world: World, seed: int, show: Show | None = None
) -> list[Sample]:
    """n chats on problems of the split "pretrain", a third from each task, in random order."""
    rng = np.random.default_rng([seed, len(TASKS)])
    frames = {thinking: _frame(tokenizer, thinking) for thinking in (True, False)}
    prompts: list[str] = []
    replies: list[str] = []
    for task in TASKS:
        for problem in worked(task, "pretrain", -(-n // len(TASKS)), seed, world, show):
            thinking = bool(rng.random() >= style.without_thinking)
            running = slipped(problem.steps, rng, style.slips, world) if thinking else values(problem.steps)
            before, after = frames[thinking]
            prompts.append(before + message(task, problem.row) + after)
            block = (
                f"{THINK}{chr(10) * style.newlines}{thought(running, style.opening)}\n{END_THINK}\n\n" if thinking else ""
            )
            replies.append(f"{block}{problem.answer(running[-1])}{TURN_END}")
    tokens = zip(tokenizer(prompts)["input_ids"], tokenizer(replies)["input_ids"], strict=True)
    samples = [Sample(np.array(prompt + reply, dtype=np.int32), len(prompt)) for prompt, reply in tokens]
    return [samples[int(i)] for i in rng.permutation(len(samples))[:n]]


def backward(model: Qwen3ForCausalLM, samples: Sequence[Sample], cores: Executor) -> float:
    """The mean cross-entropy over all tokens of the assistant, after adding its gradient to that of the parameters.

    Chunks are computed in parallel and summed in a fixed order, so the number of cores does not change the result.
    """
    n_targets = sum(len(sample.ids) - sample.start for sample in samples)
    ordered = sorted(samples, key=lambda sample: len(sample.ids))
    chunks = [ordered[first : first + SAMPLES_PER_CHUNK] for first in range(0, len(ordered), SAMPLES_PER_CHUNK)]
    parameters = list(model.parameters())

    def gradient(chunk: Sequence[Sample]) -> tuple[float, tuple[Tensor, ...]]:
        ids_BT, written_BT = _padded(chunk)
        # padding is on the right, so the causal mask is enough to exclude it
        hidden_BTD = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden_BTD[written_BT[:, 1:]])
        targets = ids_BT[:, 1:][written_BT[:, 1:]]
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / n_targets
        return loss.item(), torch.autograd.grad(loss, parameters)

    total = 0.0
    for loss, gradients in cores.map(gradient, chunks):
        total += loss
        for parameter, one in zip(parameters, gradients, strict=True):
            parameter.grad = one if parameter.grad is None else parameter.grad + one
    return total


def _padded(samples: Sequence[Sample]) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """The ids, padded with 0 on the right, and a mask of the tokens that the assistant writes."""
    shape = len(samples), max(len(sample.ids) for sample in samples)
    ids, written = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    for row, sample in enumerate(samples):
        ids[row, : len(sample.ids)] = sample.ids
        written[row, sample.start : len(sample.ids)] = True
    return torch.from_numpy(ids), torch.from_numpy(written)


def _frame(tokenizer: PreTrainedTokenizerFast, thinking: bool) -> list[str]:
    """The text of the chat template before and after a question; rendering it for every chat would take seconds."""
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    return str(chat).split("?")
