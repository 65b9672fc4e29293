"""From prompts to completions: decoding, the engines hf and vllm, and interventions on the latents."""
