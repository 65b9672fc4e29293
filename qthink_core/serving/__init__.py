"""Latent steps inside a server: the plugin of vLLM."""
