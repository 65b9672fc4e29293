"""What a user says about the generation of answers, and what comes back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from qthink_core.errors import ParamError
from qthink_core.inference.question import check_unicode

MAX_NEW_TOKENS = 2048  # of the published usage snippet
LEAST_TEMPERATURE = 0.001  # below it, logits divided by it leave the range of float32
WHOLE = ("max_new_tokens", "top_k", "seed", "top")
OF_SAMPLING = ("top_p", "top_k", "seed")


class Settings(NamedTuple):
    """How answers are generated.

    `max_new_tokens` counts thought and answer, without the latent steps; None stands for 2,048, or for the positions that
    the model has left if they are fewer. Temperature 0 takes the most likely token. Above it come top-k (0 keeps all), then
    top-p, and question i of a call draws from a stream of its own that depends on (seed, i). An answer ends before the first
    of the strings `stop`. `top` is the number of tokens in the readout of each latent step.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top: int = 5

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """The checked settings with these values; raises ParamError for an unknown name, and as `checked` does."""
        for name in given:
            if name not in cls._fields:
                raise ParamError(f"{name} is not a setting: give some of {', '.join(cls._fields)}")
        return cls(**given).checked()

    def checked(self, named: Callable[[str], str] = str) -> Self:
        """The same settings; raises ParamError for a value that no generation could use, or that would have no effect.

        `named` turns the name of a setting into what the user calls it, such as an option of a command.
        """
        for name, value in self._asdict().items():
            if name == "stop" or (name == "max_new_tokens" and value is None):
                continue
            if type(value) is not int and (name in WHOLE or type(value) is not float):
                raise ParamError(f"{named(name)} is {value!r:.40}: give a {'whole ' if name in WHOLE else ''}number")
        if not isinstance(self.stop, tuple | list) or not all(isinstance(one, str) for one in self.stop):
            raise ParamError(f"{named('stop')} is {self.stop!r:.40}: give a tuple of strings")
        wrong = {
            "max_new_tokens": (self.max_new_tokens is not None and self.max_new_tokens < 1, "a number above 0"),
            "temperature": (
                self.temperature != 0 and not LEAST_TEMPERATURE <= self.temperature < float("inf"),
                f"0 (greedy), or a number from {LEAST_TEMPERATURE} on",
            ),
            "top_p": (not 0 < self.top_p <= 1, "a number above 0, at most 1"),
            "top_k": (self.top_k < 0, "0 (all tokens) or a number above it"),
            "seed": (self.seed < 0, "0 or a number above it"),
            "top": (self.top < 0, "0 (no readout) or a number above it"),
        }
        for name, (bad, expected) in wrong.items():
            if bad:
                raise ParamError(f"{named(name)} is {getattr(self, name)!r}: give {expected}")
        for text in self.stop:
            if not text:
                raise ParamError(f"{named('stop')} has an empty text, which would end every answer: give some text")
            check_unicode(text, named("stop"))
        for name in OF_SAMPLING:
            if self.temperature == 0 and getattr(self, name) != self._field_defaults[name]:
                raise ParamError(
                    f"{named(name)} is {getattr(self, name)!r} but {named('temperature')} is 0, which takes the most likely "
                    f"token: give a temperature above 0, or leave {named(name)} out"
                )
        return self


@dataclass(frozen=True)
class Response:
    """The answer to one question.

    `token_ids` include the end token if it came, and the tokens of a stop string, which `text` does not show. `finish` is
    `stop` or `length`. `latents` are the K projected inputs z_k in float32. `readout` holds, for each latent step, the most
    likely (token, probability) pairs of its hidden state h_k by the output head; it is empty if `top` is 0. `seconds` is the
    wall-clock time of the batch in which the question was answered, and `batch` the number of questions in it.
    """

    text: str
    token_ids: list[int]
    finish: str
    prompt_tokens: int
    latents: Float[np.ndarray, "K D"] = field(repr=False)
    readout: list[list[tuple[str, float]]] = field(repr=False)
    seconds: float
    batch: int

    @property
    def new_tokens(self) -> int:
        """The number of generated tokens, without the latent steps."""
        return len(self.token_ids)

    @property
    def latent_steps(self) -> int:
        """The number K of latent steps before the first token."""
        return len(self.latents)

    @property
    def answer(self) -> str:
        """The text after the think block; the whole text if no block was closed."""
        return self.text.rpartition("</think>")[2].lstrip("\n")
