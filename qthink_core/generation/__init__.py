"""From prompts to completions: decoding, the engines hf and vllm, and what else may stand in the latents' places."""
