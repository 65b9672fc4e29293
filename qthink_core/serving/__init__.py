"""Latent steps inside servers of others: a plugin of vLLM. No stage uses it."""
