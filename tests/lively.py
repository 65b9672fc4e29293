"""A real Qwen3 of 20,000 random weights that is lively on purpose.

Weights are drawn wide, so that greedy text neither repeats one token nor hangs on rounding, and the end token's row of the
output head is longer than the others, so that completions end, each after its own length.
"""

from typing import Any

EOS_LENGTH = 2.5


def lively_qwen3(tokenizer: Any, dtype: str = "float32", seed: int = 0, tied: bool = False, **config: Any) -> Any:
    """A model in evaluation mode, the same weights for the same seed."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    settings = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
    }
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **settings | config,
        )
    )
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= EOS_LENGTH
    return model.to(getattr(torch, dtype)).eval()
