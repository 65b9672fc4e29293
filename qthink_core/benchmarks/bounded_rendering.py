"""What a model folder says of text, its chat template and its rules of splitting, applied where it can be ended. No torch.

Both are programs of unknown origin. The sandbox of jinja2 keeps a template from the machine and bounds a single `range`, but
neither loops in loops nor long texts and large powers; the patterns of a tokenizer may take exponential time. They may cost
much for one question alone, so every conversation is rendered and tokenized in a forked process with limits.
"""

import json
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
# Of the kinds of characters and repetitions on which patterns differ, and take long.
TRIAL = "It's 12345 + 6.75 = x,\n\n  so  f(x)\t→ Zürich, 東京\n<think>\nДа</think>\n\n" + "".join(
    letter * 40 for letter in "a1 \n.-\u00e9"
)


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
    """The text of each conversation by the chat template of a tokenizer.

    Raises TemplateError where the template fails, and DataError naming `origin` where it needs more than SECONDS (and some
    for each conversation), BYTES of memory, or MAX_REPLY_BYTES for what it writes.
    """
    return [str(text) for text in _bounded(origin, conversations, lambda: _texts(tokenizer, conversations))]


def encoded(tokenizer: Any, origin: str, conversations: Sequence[Conversation]) -> list[list[int]]:
    """The token ids of each conversation, rendered and tokenized; raises as `rendered` does."""

    def ids() -> list[list[int]]:
        # a template writes the special tokens itself
        return [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in _texts(tokenizer, conversations)]

    return list(_bounded(origin, conversations, ids))


def check_tokenizer(encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str], origin: str) -> None:
    """Raises DataError naming `origin` where a tokenizer fails on a short text, or needs more than the limits for it."""
    try:
        _bounded(origin, [Conversation([{"content": TRIAL}], {})], lambda: [decode(list(encode(TRIAL)))])
    except TemplateError as error:
        raise DataError(f"{origin} cannot read a short text ({error.reason}): take another model") from None


def _texts(tokenizer: Any, conversations: Sequence[Conversation]) -> list[str]:
    render = tokenizer.apply_chat_template
    texts = [str(render(list(one.messages), tokenize=False, **one.options)) for one in conversations]
    for text in texts:
        text.encode()  # no tokenizer reads a lone surrogate
    return texts


def _bounded(origin: str, conversations: Sequence[Conversation], compute: Callable[[], list[Any]]) -> list[Any]:
    """What `compute` returns; raises as `rendered` does."""
    chars = sum(len(str(message.get("content"))) for one in conversations for message in one.messages)
    seconds = SECONDS + int(FURTHER_SECONDS * len(conversations) + chars / CHARS_A_SECOND)
    found = bounded(compute, seconds, BYTES)
    if found is None:
        limits = f"{seconds} s, {BYTES >> 30} GiB of memory or {MAX_REPLY_BYTES >> 20} MiB of text"
        what = "a short conversation" if chars < 2 * len(TRIAL) else f"{len(conversations)} conversations"
        raise DataError(f"{origin} takes more than {limits} for {what}: take another model")
    if isinstance(found, str):
        raise TemplateError(origin, found)
    return found


def bounded(compute: Callable[[], list[Any]], seconds: int, memory: int) -> list[Any] | str | None:
    """What `compute` returns, a list for JSON, computed in a forked process; None where it reached a limit.

    The limits are seconds of the processor, bytes of memory beyond those taken already, and MAX_REPLY_BYTES. It is text, the
    first line of the message, where `compute` raised an exception.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _reply_and_end(compute, seconds, memory, write_end)
    os.close(write_end)
    try:
        reply = _read(read_end, time.monotonic() + WAIT * seconds)
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        found: list[Any] | str = json.loads(reply)
    except ValueError:  # it ended before it had written everything
        return None
    return found


def _read(pipe: int, end: float) -> bytes:
    """What a child writes up to its end, or nothing where time or length end it."""
    reply = bytearray()
    while (left := end - time.monotonic()) > 0 and len(reply) <= MAX_REPLY_BYTES and select.select([pipe], [], [], left)[0]:
        block = os.read(pipe, 1 << 20)
        if not block:
            return bytes(reply)
        reply += block
    return b""


def _reply_and_end(compute: Callable[[], list[Any]], seconds: int, memory: int, write_end: int) -> NoReturn:
    """Writes the result as a JSON list, or the reason of a failure as JSON text, and ends this process.

    At a limit it writes neither.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the parent says what is wrong
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the threads of the parent are not here
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if MEMORY.exists():
            taken = int(MEMORY.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + memory, taken + memory))
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(json.dumps(_result(compute)).encode())
    finally:
        os._exit(0)


def _result(compute: Callable[[], list[Any]]) -> list[Any] | str:
    try:
        return compute()
    except MemoryError:
        raise
    except BaseException as error:  # noqa: BLE001 - a template raises what its author chose, a tokenizer in Rust a panic
        return first_line(error)
