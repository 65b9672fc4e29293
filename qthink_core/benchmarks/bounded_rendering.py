"""Texts of conversations by a chat template, which is a program of unknown origin: it runs where it can be ended.

The sandbox of jinja2 keeps a template from the machine and bounds a single `range`, but neither loops in loops nor long
texts and large powers. A template may cost much for one question alone, so every conversation is rendered here. No torch.
"""

import json
import os
import resource
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from qthink_core.errors import DataError, first_line

SECONDS = 5  # of the processor; templates of real models take milliseconds
FURTHER_SECONDS = 0.02  # for each conversation
BYTES = 1 << 30
MAX_TEXT_BYTES = 64 << 20  # of all texts together
WAIT = 12  # how many times as long the clock may run, on a machine that is busy
MEMORY = Path("/proc/self/statm")


class Conversation(NamedTuple):
    """The messages of a conversation, and what a template is given with them, such as `enable_thinking`."""

    messages: Sequence[Mapping[str, Any]]
    options: Mapping[str, bool]


class TemplateError(DataError):
    """A template refuses a conversation, or has a fault; `reason` is the first line of its own message."""

    def __init__(self, origin: str, reason: str) -> None:
        super().__init__(f"{origin} cannot be used ({reason}): take another model")
        self.reason = reason


def rendered(tokenizer: Any, origin: str, conversations: Sequence[Conversation]) -> list[str]:
    """The text of each conversation by the chat template of a tokenizer, made in a forked process.

    Raises TemplateError where the template fails, and DataError naming `origin` where it needs more than SECONDS (and
    FURTHER_SECONDS for each conversation), BYTES of memory, or MAX_TEXT_BYTES for what it writes.
    """
    seconds = SECONDS + int(FURTHER_SECONDS * len(conversations))
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _render_and_end(tokenizer, conversations, seconds, write_end)
    os.close(write_end)
    try:
        found = _read(read_end, time.monotonic() + WAIT * seconds)
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        texts = json.loads(found)
    except ValueError:  # a limit ended it
        limits = f"{seconds} s, {BYTES >> 30} GiB of memory or {MAX_TEXT_BYTES >> 20} MiB of text"
        what = "a conversation" if len(conversations) == 1 else f"{len(conversations)} conversations"
        raise DataError(f"{origin} takes more than {limits} to render {what}: take another model") from None
    if isinstance(texts, str):
        raise TemplateError(origin, texts)
    return [str(text) for text in texts]


def _read(pipe: int, end: float) -> bytes:
    """What a child writes up to its end, or up to the time or length that ends it."""
    found = bytearray()
    while (left := end - time.monotonic()) > 0 and len(found) <= MAX_TEXT_BYTES and select.select([pipe], [], [], left)[0]:
        block = os.read(pipe, 1 << 20)
        if not block:
            return bytes(found)
        found += block
    return b""


def _render_and_end(tokenizer: Any, conversations: Sequence[Conversation], seconds: int, write_end: int) -> NoReturn:
    """Writes the texts as a JSON list, or the reason as JSON text, and ends this process; it writes neither at a limit."""
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        if MEMORY.exists():
            taken = int(MEMORY.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(json.dumps(_texts(tokenizer, conversations)).encode())
    finally:
        os._exit(0)


def _texts(tokenizer: Any, conversations: Sequence[Conversation]) -> list[str] | str:
    try:
        render = tokenizer.apply_chat_template
        texts = [str(render(list(one.messages), tokenize=False, **one.options)) for one in conversations]
        for text in texts:
            text.encode()  # no tokenizer reads a lone surrogate
        return texts
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a template raises whatever its author or jinja2 chose
        return first_line(error)
