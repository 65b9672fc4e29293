"""The base model of the tiny scale: a Qwen3 architecture trained from nothing to think before it answers."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from qthink_core.synthetic import TASKS, worked
from qthink_core.tiny_tokenizer import THINK, THINK_END, TURN_END, build

N_CHUNKS = 4
MAX_POSITIONS = 4096
CLIP = 1.0


class Sample(NamedTuple):
    """A chat as token ids; from `start` on the assistant writes and the loss counts."""

    ids: Int[np.ndarray, "T"]
    start: int


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
    seed: int,
    report: Callable[[int, float], None],
    init: float = 0.02,
    beta2: float = 0.99,
) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """A trained model and its tokenizer; `report(step, loss)` is called after every step.

    Every sample is seen once: steps * batch problems, a third of each task. A share `without_thinking` of them has
    the empty think block in its prompt, so that the model answers directly when asked to but never opens an empty
    block itself. AdamW, linear warm-up over the share `warmup` of the steps, then cosine to a tenth of lr.
    """
    torch.manual_seed(seed)
    tokenizer = build()
    samples = _samples(tokenizer, steps * batch, without_thinking, seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=intermediate_size,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=init,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, beta2), weight_decay=weight_decay, fused=True)
    n_warmup = max(1, round(warmup * steps))
    for step in range(steps):
        cosine = 0.55 + 0.45 * math.cos(math.pi * max(0, step - n_warmup) / max(1, steps - n_warmup))
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / n_warmup, cosine)
        loss = _backward(model, samples[step * batch : (step + 1) * batch], int(tokenizer.pad_token_id))
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        report(step + 1, loss)
    model.eval()
    return model, tokenizer


def _samples(tokenizer: PreTrainedTokenizerFast, n: int, without_thinking: float, seed: int) -> list[Sample]:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, len(TASKS)])))
    before, after = _chat_around(tokenizer)
    prompts: list[str] = []
    replies: list[str] = []
    for task in TASKS:
        for problem in worked(task, "pretrain", -(-n // len(TASKS)), seed):
            empty = bool(rng.random() < without_thinking)
            prompts.append(before + _question(task, problem.row) + after + (f"{THINK}\n\n{THINK_END}\n\n" if empty else ""))
            replies.append(("" if empty else f"{THINK}\n{problem.thought}\n{THINK_END}\n\n") + problem.answer + TURN_END)
    prompt_ids = tokenizer(prompts)["input_ids"]
    reply_ids = tokenizer(replies)["input_ids"]
    samples = [Sample(np.array(p + r, dtype=np.int32), len(p)) for p, r in zip(prompt_ids, reply_ids, strict=True)]
    return [samples[int(i)] for i in rng.permutation(len(samples))[:n]]


def _question(task: str, row: dict[str, object]) -> str:
    if task == "math500":
        return str(row["problem"]) + "\nPlease reason step by step, and put your final answer within \\boxed{}."
    return str(row["question"] if task == "gsm8k" else row["prompt"])


def _chat_around(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False)
    return str(chat).split("?")


def _backward(model: Qwen3ForCausalLM, samples: list[Sample], pad: int) -> float:
    """The mean cross-entropy over all reply tokens of the batch; its gradient is left in the model.

    The batch is cut into chunks of similar length, so that little padding is computed. Padding is on the right:
    the causal mask alone keeps it out.
    """
    n_targets = sum(len(s.ids) - s.start for s in samples)
    total = 0.0
    for chunk in _chunks(sorted(samples, key=lambda s: len(s.ids))):
        length = max(len(s.ids) for s in chunk)
        ids = np.full((len(chunk), length), pad, dtype=np.int64)
        is_target = np.zeros((len(chunk), length), dtype=bool)
        for i, s in enumerate(chunk):
            ids[i, : len(s.ids)] = s.ids
            is_target[i, s.start : len(s.ids)] = True
        ids_BT, target_BT = torch.from_numpy(ids), torch.from_numpy(is_target)
        hidden = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[target_BT[:, 1:]])
        loss = torch.nn.functional.cross_entropy(logits, ids_BT[:, 1:][target_BT[:, 1:]], reduction="sum") / n_targets
        loss.backward()
        total += loss.item()
    return total


def _chunks(samples: list[Sample]) -> Iterator[list[Sample]]:
    size = -(-len(samples) // N_CHUNKS)
    for i in range(0, len(samples), size):
        yield samples[i : i + size]
