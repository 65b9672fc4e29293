"""The shares of a GPU's memory that vLLM takes, for the engine that takes them and the plan that counts them. No torch."""

# Of the memory that is free when the engine starts: alone, and beside the latent steps of a model in transformers.
GPU_SHARE, GPU_SHARE_BESIDE_LATENTS = 0.85, 0.6
