"""Tiny models in the Hugging Face layout, with and without think tokens."""

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MERGES = [("t", "h"), ("i", "n"), ("th", "in"), ("thin", "k"), ("<", "/"), ("Ċ", "Ċ"), ("Ġ", "Ġ")]
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def vocabulary() -> dict[str, int]:
    """Special tokens, the 256 bytes, and what the merges make."""
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    return {piece: number for number, piece in enumerate(pieces)}


def plain_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that spells <think> with three tokens, and a chat template that knows no thinking."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(), merges=MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        chat_template=PLAIN_TEMPLATE,
        model_max_length=64,
    )


def save(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    rows: int | None = None,
    tied: bool = False,
    max_shard_size: str = "1GB",
) -> LlamaForCausalLM:
    """Saves a seeded model of two layers with as many embedding rows as asked for, else one a token."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=rows or len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(folder)
    return model
