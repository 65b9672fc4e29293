"""The shares of a GPU's memory that vLLM takes, for the engine and for `qthink plan`. This module does not import torch."""

# Shares of the memory that is free when the engine starts: vLLM alone, and vLLM beside a model that takes latent steps.
GPU_SHARE, GPU_SHARE_BESIDE_LATENTS = 0.85, 0.6
