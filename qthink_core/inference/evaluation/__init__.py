"""A checkpoint measured: its evaluation on a benchmark, and the audit of its latents."""
