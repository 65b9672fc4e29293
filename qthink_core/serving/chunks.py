"""The chunks in which a server computes a request with latent steps: the prompt as it likes, then one latent at a time."""


def cut(latents: range, computed: int, tokens: int) -> int:
    """How many of the next `tokens` tokens one pass may compute after `computed`.

    `latents` are the positions of the latents in the request, none for an ordinary request. A latent step reads the state
    that the position before it left, so it shares a pass with no other position of its request.
    """
    if computed < latents.start:
        return min(tokens, latents.start - computed)
    return min(tokens, 1) if computed < latents.stop else tokens


def usable(latents: range, cached: int, block_size: int) -> int:
    """How many of the `cached` tokens that a prefix cache holds a request may use.

    The next latent step reads a hidden state, which is kept where a pass has ended, but not for every token whose keys and
    values are cached: the prompt may be the beginning of another one. So a request whose latents are not all in the cache
    computes the block of its prompt's last token again. `cached` is a multiple of the block size.
    """
    return (latents.start - 1) // block_size * block_size if cached in latents else cached
