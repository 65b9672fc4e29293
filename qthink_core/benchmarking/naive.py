"""The naive side: what a user writes with plain transformers, one sequence at a time. Nothing of the method is imported.

The loop of an answer is that of the model card (QThink-Qwen3-1.7B-GSM8k, section Usage). The online teacher is that of CODI
(arXiv 2502.21074): at every step, the model reads the written thought for the states that the latents are to match.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def states(model: Any, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
    """The last hidden states (K, D) at K positions of one sequence: a forward with all hidden states and all logits."""
    with torch.no_grad():
        out = model(input_ids=torch.tensor([list(tokens)], device=model.device), output_hidden_states=True)
    return out.hidden_states[-1][0, list(positions)]


def latent(head: nn.Module, hidden: Tensor) -> Tensor:
    """The next input embedding; the head of a student may have another dtype than its base model."""
    return head(hidden.to(next(head.parameters()).dtype)).to(hidden.dtype)


def answer(model: Any, head: nn.Module, prompt: Sequence[int], K: int, eos: int, max_new_tokens: int) -> list[int]:
    """The tokens of one answer after K latent steps: the loop of the model card."""
    with torch.no_grad():
        ids = torch.tensor([list(prompt)], device=model.device)
        mask = torch.ones_like(ids)
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=True)
        latent = out.hidden_states[-1][:, -1, :]
        for _ in range(K):
            latent = head(latent)
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            out = model(
                inputs_embeds=latent.unsqueeze(1),
                attention_mask=mask,
                past_key_values=out.past_key_values,
                output_hidden_states=True,
                use_cache=True,
            )
            latent = out.hidden_states[-1][:, -1, :]
        token = out.logits[:, -1, :].argmax(dim=-1)
        tokens = [token]
        while token.item() != eos and len(tokens) < max_new_tokens:
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            out = model(input_ids=token[None], attention_mask=mask, past_key_values=out.past_key_values, use_cache=True)
            token = out.logits[:, -1, :].argmax(dim=-1)
            tokens.append(token)
    return torch.cat(tokens).tolist()


def online_teacher(adapted: Any, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
    """The teacher (K, D) of one problem, computed anew: the states of the model without its adapters."""
    with adapted.disable_adapter():
        return states(adapted, tokens, positions)


def example_loss(
    model: Any, head: nn.Module, prompt: Sequence[int], target: Sequence[int], teacher: Tensor, K: int, gamma: float
) -> tuple[Tensor, Tensor]:
    """The summed cross-entropy of one answer in nats, and gamma times its mean L1 distance to the teacher."""
    out = model(input_ids=torch.tensor([list(prompt)], device=model.device), output_hidden_states=True, use_cache=True)
    hidden, steps = out.hidden_states[-1][:, -1], []
    for _ in range(K):
        out = model(
            inputs_embeds=latent(head, hidden)[:, None],
            past_key_values=out.past_key_values,
            output_hidden_states=True,
            use_cache=True,
        )
        hidden = out.hidden_states[-1][:, -1]
        steps.append(hidden)
    first, labels = out.logits[:, -1:], torch.tensor(list(target), device=model.device)
    rest = model(input_ids=labels[None, :-1], past_key_values=out.past_key_values, use_cache=True).logits
    cross_entropy = functional.cross_entropy(torch.cat([first, rest], dim=1)[0], labels, reduction="sum")
    return cross_entropy, gamma * (torch.cat(steps) - teacher).abs().mean()


def conditions(
    model: Any,
    head: nn.Module,
    prompts: Sequence[Sequence[int]],
    given: Tensor | None,
    steps: int,
    eos: int,
    pad: int,
    max_new_tokens: int,
) -> list[list[int]]:
    """The answers to a padded batch of prompts under one condition, each cut after its end token.

    The vectors `given` (B, n, D) take the place of the latents, or `steps` latent steps follow the prompt where there are
    none. The batch keeps its size until its last answer ends, as in `generate` of transformers.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=model.device)
    cache, tokens = None, list[Tensor]()

    def read(more: Tensor | None = None, **inputs: Tensor) -> Any:
        nonlocal cache, mask
        if more is not None:
            mask = torch.cat([mask, more], dim=1)
        new = next(iter(inputs.values())).shape[1]
        at = (mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
        out = model(**inputs, attention_mask=mask, position_ids=at, past_key_values=cache, output_hidden_states=True)
        cache = out.past_key_values
        return out

    with torch.no_grad():
        out, one = read(input_ids=ids), mask.new_ones(len(ids), 1)
        if given is not None and given.shape[1]:
            out = read(one.expand(-1, given.shape[1]), inputs_embeds=given)
        for _ in range(0 if given is not None else steps):
            out = read(one, inputs_embeds=head(out.hidden_states[-1][:, -1])[:, None])
        ended = torch.zeros(len(ids), dtype=torch.bool, device=model.device)
        while True:
            token = out.logits[:, -1].argmax(dim=-1)
            tokens.append(token)
            ended |= token == eos
            if ended.all() or len(tokens) == max_new_tokens:
                break
            out = read(one, input_ids=token[:, None])
    rows = torch.stack(tokens, dim=1).tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in rows]
