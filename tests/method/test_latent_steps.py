"""Our batched latent loop against the model card's own, one question at a time.

Float64 on both sides: matrix products then round far below the float32 that norms and our logits end in, so that batched and
single passes agree almost to the bit and "the same tokens" is a statement about the method, not about a machine.
"""

from typing import Any

import pytest
import torch

from qthink_core.generation.decoding import decode, greedy
from qthink_core.method.hidden_states import last_hidden
from qthink_core.method.latent_steps import latent_steps, read_prompts

MAX_NEW_TOKENS = 12
# Float64 rounding over seven passes of two layers; a norm's float32 that rounds the other way would show as 1e-7.
EXACT = 1e-10


def card_answer(model: Any, proj: Any, prompt: list[int], eos_id: int, K: int) -> tuple[list[int], list[torch.Tensor]]:
    """Steps 1 to 3 of the card's usage snippet, word for word but for K, the limit and what is returned."""
    latents = []
    inputs = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt), dtype=torch.long)}
    with torch.no_grad():
        # Step 1: Process prompt
        out = model(**inputs, output_hidden_states=True, use_cache=True)
        past_kv = out.past_key_values
        latent = out.hidden_states[-1][:, -1, :]

        # Step 2: K=6 latent reasoning steps
        mask = inputs["attention_mask"].clone()
        for _k in range(K):
            latent = proj(latent)
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            out = model(
                inputs_embeds=latent.unsqueeze(1),
                attention_mask=mask,
                past_key_values=past_kv,
                output_hidden_states=True,
                use_cache=True,
            )
            past_kv = out.past_key_values
            latent = out.hidden_states[-1][:, -1, :]
            latents.append(latent)

        # Step 3: Greedy decode answer
        next_token = out.logits[:, -1, :].argmax(dim=-1)
        tokens = [next_token]
        for _ in range(MAX_NEW_TOKENS - 1):
            if next_token.item() == eos_id:
                break
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            out = model(input_ids=next_token.unsqueeze(0), attention_mask=mask, past_key_values=past_kv, use_cache=True)
            past_kv = out.past_key_values
            next_token = out.logits[:, -1, :].argmax(dim=-1)
            tokens.append(next_token)
    return torch.cat(tokens).tolist(), latents


def our_answers(model: Any, head: Any, prompts: list[list[int]], tokenizer: Any, K: int) -> list[list[int]]:
    with torch.inference_mode():
        context = read_prompts(model, prompts, tokenizer.pad_token_id)
        context, _ = latent_steps(model, head, context, K)
        return decode(model, context, greedy, {tokenizer.eos_token_id}, MAX_NEW_TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize("K", [6, 0])
def test_batches_of_1_7_and_64_give_the_tokens_of_the_cards_loop_on_200_questions(
    qwen3: Any, random_head: Any, tokenizer: Any, questions: list[list[int]], K: int
) -> None:
    model, head = qwen3("float64"), random_head(dtype="float64")
    expected = [card_answer(model, head, prompt, tokenizer.eos_token_id, K)[0] for prompt in questions]
    assert len({len(prompt) for prompt in questions}) > 10
    ended = [tokens[-1] == tokenizer.eos_token_id for tokens in expected]
    assert 10 < sum(ended) < 190  # both kinds of ending are in the comparison
    assert len({tuple(tokens) for tokens in expected}) > 50  # the rest ends at once
    for size in (1, 7, 64):
        batches = [questions[start : start + size] for start in range(0, 200, size)]
        found = [tokens for batch in batches for tokens in our_answers(model, head, batch, tokenizer, K)]
        assert found == expected


def test_each_latent_step_has_the_cards_hidden_state(
    qwen3: Any, random_head: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    model, head, prompts = qwen3("float64"), random_head(dtype="float64"), questions[:12]
    with torch.inference_mode():
        context = read_prompts(model, prompts, tokenizer.pad_token_id)
        after, steps = latent_steps(model, head, context, 6)
    assert len(steps) == 6
    assert torch.equal(after.hidden, steps[-1])
    for row, prompt in enumerate(prompts):
        _, expected = card_answer(model, head, prompt, tokenizer.eos_token_id, 6)
        for step, state in zip(steps, expected, strict=True):
            torch.testing.assert_close(step[row], state[0], rtol=0, atol=EXACT)


def test_the_first_token_comes_from_the_last_latent_pass(
    qwen3: Any, random_head: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    model, head, prompts = qwen3("float64"), random_head(dtype="float64"), questions[:40]
    first = {K: [tokens[0] for tokens in our_answers(model, head, prompts, tokenizer, K)] for K in (0, 1, 6)}
    with torch.inference_mode():
        context = read_prompts(model, prompts, tokenizer.pad_token_id)
        _, steps = latent_steps(model, head, context, 6)
        assert first[6] == model.lm_head(steps[5]).argmax(-1).tolist()
        assert first[1] == model.lm_head(steps[0]).argmax(-1).tolist()
        assert first[0] == model.lm_head(read_prompts(model, prompts, 0).hidden).argmax(-1).tolist()
    assert len({tuple(tokens) for tokens in first.values()}) == 3


def test_the_latents_are_k_more_inputs_behind_the_prompt(
    qwen3: Any, random_head: Any, tokenizer: Any, questions: list[list[int]]
) -> None:
    """[embedded prompt; K projected states] in one pass without a cache has the states of K passes with one."""
    model, head, prompt = qwen3("float64"), random_head(dtype="float64"), questions[3]
    with torch.inference_mode():
        context = read_prompts(model, [prompt], tokenizer.pad_token_id)
        _, steps = latent_steps(model, head, context, 6)
        inputs = [model.model.embed_tokens(torch.tensor([prompt]))]
        inputs += [head(state)[:, None] for state in (context.hidden, *steps[:-1])]
        whole = torch.cat(inputs, dim=1)
        hidden = last_hidden(model, inputs_embeds=whole, mask=torch.ones(whole.shape[:2], dtype=torch.long))
    torch.testing.assert_close(hidden[0, -6:], torch.cat(steps), rtol=0, atol=EXACT)


def test_no_latent_step_leaves_the_context_as_it_was(qwen3: Any, tokenizer: Any, questions: list[list[int]]) -> None:
    model = qwen3()
    with torch.inference_mode():
        context = read_prompts(model, questions[:3], tokenizer.pad_token_id)
        after, steps = latent_steps(model, None, context, 0)
    assert steps == []
    assert after.hidden is context.hidden
    assert after.cache.get_seq_length() == max(len(prompt) for prompt in questions[:3])
