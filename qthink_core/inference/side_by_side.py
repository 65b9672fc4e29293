"""One question answered in several ways, one after the other: with latent steps, without them, and with thinking."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from qthink_core.errors import ParamError, QThinkError, first_line
from qthink_core.inference.reasoner import LatentReasoner
from qthink_core.inference.settings import Response, Settings
from qthink_core.inference.shown import inert

LATENT, NONE, THINKING, BASE = "latent", "none", "thinking", "base"
Event = dict[str, Any]


class Way(NamedTuple):
    """A way to answer: its key, its name, what it is in one sentence, and the reasoner that answers."""

    key: str
    name: str
    about: str
    reasoner: LatentReasoner


def ways(reasoner: LatentReasoner, base: LatentReasoner | None = None) -> list[Way]:
    """Three ways to answer with the weights of a latent checkpoint and, as a fourth, `base` with thinking.

    Raises ParamError when the checkpoint takes no latent steps, since there would be nothing to compare.
    """
    if reasoner.K == 0:
        raise ParamError(
            f"{reasoner.folder} answers without latent steps: name a latent checkpoint, and more than 0 latent steps"
        )
    silent, thinking = (reasoner.system._replace(head=None, K=0, thinking=one) for one in (False, True))
    steps = f"{reasoner.K} latent step{'s' * (reasoner.K > 1)}"
    found = [
        Way(LATENT, steps, "The checkpoint as it was trained: latent steps, then the answer.", reasoner),
        Way(NONE, "No latent steps", "The same weights and prompt; the answer follows at once.", _like(reasoner, silent)),
        Way(THINKING, "Thinking", "The same weights, asked to think in text first.", _like(reasoner, thinking)),
    ]
    if base is not None:
        found.append(Way(BASE, "Base, thinking", f"The weights of {base.folder.name}, asked to think in text first.", base))
    return found


def _like(reasoner: LatentReasoner, system: Any) -> LatentReasoner:
    return LatentReasoner(system, reasoner.folder)


def warm_up(these: Sequence[Way]) -> None:
    """Generates one token in every way, so that the seconds of the first question are like those of the next."""
    for way in these:
        way.reasoner.generate("Hello", max_new_tokens=1)


def answered(these: Sequence[Way], question: str, how: Settings, gone: Callable[[], bool]) -> Iterator[Event]:
    """Events as JSON objects, way by way: `way`, `readout`, `piece` after `piece`, then `done` or `error`.

    `readout` is a list of (token, probability) pairs for each latent step. In the text of tokens and pieces, characters that
    are invisible are named (⟨U+202E⟩). An answer that fails ends in `error`, one line, and the next way begins. All
    generation ends where `gone()` is true before a piece, or where this iterator is closed.
    """
    for way in these:
        if gone():
            return
        yield {"way": way.key}
        try:
            for event in _one(way.reasoner, question, how):
                yield event
                if gone():
                    return
        except QThinkError as error:
            yield {"error": inert(str(error)).replace("\n", " ")}
        except (RuntimeError, ValueError, MemoryError) as error:  # such as the memory of a GPU that is full
            yield {"error": f"the answer failed ({inert(first_line(error))}): ask a shorter question"}


def _one(reasoner: LatentReasoner, question: str, how: Settings) -> Iterator[Event]:
    with closing(reasoner.stream(question, **how._asdict())) as stream:
        unread = True
        for piece in stream:
            if unread and stream.readout:
                yield {"readout": readout(stream.readout)}
            unread = False
            yield {"piece": inert(piece)}
        if unread and stream.readout:
            yield {"readout": readout(stream.readout)}
        yield {"done": counts(stream.response)}


def readout(steps: Sequence[Sequence[tuple[str, float]]]) -> list[list[tuple[str, float]]]:
    """The likeliest tokens of each latent step with visible spaces and line ends, and their probabilities."""
    return [[(inert(token.replace(" ", "␣").replace("\n", "↵")), round(p, 4)) for token, p in step] for step in steps]


def counts(response: Response) -> dict[str, Any]:
    """What the answer took, as the page shows it."""
    return {
        "tokens": response.new_tokens,
        "latent_steps": response.latent_steps,
        "seconds": round(response.seconds, 3),
        "cut": response.finish != "stop",
    }
