"""Responses as text for a terminal, and as JSON for programs."""

import json

from qthink_core.inference.settings import Response
from qthink_core.report.display import plain

LEAST = 0.005  # one per cent, when it is rounded


def inert(text: str) -> str:
    """The text without what would control a terminal; line ends and tabs stay."""
    return "\t".join(plain(part) for part in text.split("\t"))


def counts(response: Response) -> str:
    """One line: latent steps, tokens, seconds, and whether the limit cut the answer."""
    steps, tokens = response.latent_steps, response.new_tokens
    cut = "" if response.finish == "stop" else ", cut at the token limit"
    return f"[{count(steps, 'latent step')}, {count(tokens, 'token')}, {response.seconds:.2f} s{cut}]"


def count(number: int, what: str) -> str:
    """`1 token`, `2,048 tokens`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def latents(response: Response) -> str:
    """One line for each latent step: its most likely tokens by the output head, those of at least one per cent."""
    return "\n".join(
        f"latent {k}: "
        + "  ".join(
            f"{inert(repr(token))} {100 * probability:.0f}%"
            for rank, (token, probability) in enumerate(step)
            if rank == 0 or probability >= LEAST
        )
        for k, step in enumerate(response.readout, 1)
    )


def as_json(response: Response) -> str:
    """The response as one line of ASCII JSON, without the numbers of the latents."""
    return json.dumps(
        {
            "text": response.text,
            "answer": response.answer,
            "finish": response.finish,
            "prompt_tokens": response.prompt_tokens,
            "latent_steps": response.latent_steps,
            "tokens": response.new_tokens,
            "token_ids": response.token_ids,
            "readout": response.readout,
            "seconds": round(response.seconds, 6),
        },
        allow_nan=False,
    )
