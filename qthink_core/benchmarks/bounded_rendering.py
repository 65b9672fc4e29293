"""What a model folder says of text, its chat template and its rules of splitting, applied where it can be ended. No torch.

Both are programs of unknown origin. The sandbox of jinja2 keeps a template from the machine and bounds a single `range`, but
neither loops in loops nor long texts and large powers; the patterns of a tokenizer may take exponential time. They may cost
much for one question alone, so every conversation is rendered and tokenized in a forked process with limits.
"""

import json
import math
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from qthink_core.errors import DataError, first_line

SECONDS = 5  # of the processor; templates of real models take milliseconds
FURTHER_SECONDS = 0.02  # for each conversation
CHARS_A_SECOND = 500_000  # a tokenizer takes twice as many
BYTES = 1 << 30
MAX_REPLY_BYTES = 64 << 20  # of all texts or token ids together
WAIT = 12  # how many times as long the clock may run, on a machine that is busy
MEMORY = Path("/proc/self/statm")
NEXT = b"\n"  # what the forked process writes between two steps
# Of the kinds of characters and repetitions on which patterns differ, and take long.
TRIAL = "It's 12345 + 6.75 = x,\n\n  so  f(x)\t→ Zürich, 東京\n<think>\nДа</think>\n\n" + "".join(
    letter * 40 for letter in "a1 \n.-\u00e9"
)


class Conversation(NamedTuple):
    """The messages of a conversation, and what a template is given with them, such as `enable_thinking`."""

    messages: Sequence[Mapping[str, Any]]
    options: Mapping[str, bool]


class UnusableError(DataError):
    """A part of a model has a fault, or refuses what it is given; `reason` is the first line of its own message."""

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"{origin} cannot be used ({reason}): take another model")
        self.origin, self.reason = origin, reason


class TemplateError(UnusableError):
    """It is the chat template."""


class TokenizerError(UnusableError):
    """It is the tokenizer."""


class Step(NamedTuple):
    """A computation on what the step before returned (the first gets None), and what is to blame where it fails."""

    origin: str
    compute: Callable[[Any], list[Any]]
    error: type[UnusableError]


class Stopped(NamedTuple):
    """The number of the step that failed, from 0, and the first line of what it raised; None where it reached a limit."""

    step: int
    reason: str | None


def rendered(tokenizer: Any, origin: str, conversations: Sequence[Conversation]) -> list[str]:
    """The text of each conversation by the chat template of a tokenizer.

    Raises TemplateError where the template fails, and DataError naming `origin` where it needs more than SECONDS (and some
    for each conversation), BYTES of memory, or MAX_REPLY_BYTES for what it writes.
    """
    return [str(text) for text in _bounded(conversations, _template(tokenizer, origin, conversations))]


def encoded(tokenizer: Any, folder: object, conversations: Sequence[Conversation]) -> list[list[int]]:
    """The token ids of each conversation, rendered and tokenized by the tokenizer that was read from `folder`.

    Raises TemplateError or TokenizerError where one of the two fails, and DataError as `rendered` does, which name the one
    that failed: each may take as much as the limits say.
    """

    def ids(texts: list[str]) -> list[list[int]]:
        # a template writes the special tokens itself
        return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]

    template = _template(tokenizer, f"the chat template of {folder}", conversations)
    return list(_bounded(conversations, template, Step(f"the tokenizer of {folder}", ids, TokenizerError)))


def check_tokenizer(encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str], origin: str) -> None:
    """Raises DataError naming `origin` where a tokenizer fails on a short text, or needs more than the limits for it."""
    both = Step(origin, lambda _: [decode(list(encode(TRIAL)))], TokenizerError)
    try:
        _bounded([Conversation([{"content": TRIAL}], {})], both)
    except TokenizerError as error:
        raise DataError(f"{origin} cannot read a short text ({error.reason}): take another model") from None


def _template(tokenizer: Any, origin: str, conversations: Sequence[Conversation]) -> Step:
    def texts(_: None) -> list[str]:
        render = tokenizer.apply_chat_template
        found = [str(render(list(one.messages), tokenize=False, **one.options)) for one in conversations]
        # no tokenizer reads a lone surrogate
        if sum(len(text.encode()) for text in found) > MAX_REPLY_BYTES:
            raise MemoryError
        return found

    return Step(origin, texts, TemplateError)


def _bounded(conversations: Sequence[Conversation], *steps: Step) -> list[Any]:
    """What the last step returns; raises the error of a step that fails, and DataError naming one that needs too much."""
    chars = sum(len(str(message.get("content"))) for one in conversations for message in one.messages)
    seconds = SECONDS + int(FURTHER_SECONDS * len(conversations) + chars / CHARS_A_SECOND)
    found = bounded([step.compute for step in steps], seconds, BYTES)
    if not isinstance(found, Stopped):
        return found
    failed = steps[found.step]
    if found.reason is not None:
        raise failed.error(failed.origin, found.reason)
    limits = f"{seconds} s, {BYTES >> 30} GiB of memory or {MAX_REPLY_BYTES >> 20} MiB of text"
    what = "a short conversation" if chars < 2 * len(TRIAL) else f"{len(conversations)} conversations"
    raise DataError(f"{failed.origin} takes more than {limits} for {what}: take another model")


def bounded(steps: Sequence[Callable[[Any], list[Any]]], seconds: int, memory: int) -> list[Any] | Stopped:
    """What the last step returns, a list for JSON, computed in a forked process; Stopped where a step failed.

    Each step gets what the one before returned. The limits of each are seconds of the processor, bytes of memory beyond
    those taken already, and, for what the last one returns, MAX_REPLY_BYTES.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _reply_and_end(steps, seconds, memory, write_end)
    os.close(write_end)
    try:
        reply = _read(read_end, time.monotonic() + WAIT * seconds * len(steps))
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    content = reply.lstrip(NEXT)
    step = len(reply) - len(content)
    try:
        found: list[Any] | str = json.loads(content)
    except ValueError:  # it ended before it had written everything
        return Stopped(step, None)
    return Stopped(step, found) if isinstance(found, str) else found


def _read(pipe: int, end: float) -> bytearray:
    """What a child writes up to its end, or only where it was where time or length end it."""
    reply = bytearray()
    while (left := end - time.monotonic()) > 0 and len(reply) <= MAX_REPLY_BYTES and select.select([pipe], [], [], left)[0]:
        block = os.read(pipe, 1 << 20)
        if not block:
            return reply
        reply += block
    return reply[: len(reply) - len(reply.lstrip(NEXT))]


def _reply_and_end(steps: Sequence[Callable[[Any], list[Any]]], seconds: int, memory: int, write_end: int) -> NoReturn:
    """Writes NEXT between two steps, then the result as a JSON list, and ends this process.

    Where a step fails it writes the reason as JSON text, and at a limit nothing more.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent says what is wrong
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the threads of the parent are not here
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        found: list[Any] | str | None = None
        with os.fdopen(write_end, "wb") as pipe:
            for number, step in enumerate(steps):
                if number:
                    pipe.write(NEXT)
                    pipe.flush()
                _limit(resource.RLIMIT_CPU, math.ceil(time.process_time()) + seconds)
                if MEMORY.exists():
                    _limit(resource.RLIMIT_AS, int(MEMORY.read_text().split()[0]) * resource.getpagesize() + memory)
                found = _result(step, found)
                if isinstance(found, str):
                    break
            pipe.write(json.dumps(found).encode())
    finally:
        os._exit(0)


def _limit(what: int, most: int) -> None:
    """Sets a limit that the next step may raise again."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _result(step: Callable[[Any], list[Any]], before: Any) -> list[Any] | str:
    try:
        return step(before)
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a template raises what its author chose, a tokenizer in Rust a panic
        return first_line(error)
