"""A limit on what a chat template may cost: a program of unknown origin is run first where it can be ended.

The sandbox of jinja2 bounds a single `range`, but neither loops in loops nor long texts and large powers.
"""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

from qthink_core.errors import DataError

SECONDS = 5  # of the processor; templates of real models take milliseconds
BYTES = 1 << 30
WAIT = 12  # how many times as long the clock may run, on a machine that is busy
MEMORY = Path("/proc/self/statm")
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Goodbye"}]


def check(tokenizer: Any, origin: str) -> None:
    """Raises DataError naming `origin` when its chat template needs more than SECONDS or BYTES for a short conversation.

    An error of another kind is left to who renders the template next.
    """
    child = os.fork()
    if child == 0:
        _render_and_end(tokenizer)
    end = time.monotonic() + WAIT * SECONDS
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
    if found[1] != 0:
        limits = f"{SECONDS} s or {BYTES >> 30} GiB of memory"
        raise DataError(f"{origin} takes more than {limits} to render a short conversation: take another model")


def _render_and_end(tokenizer: Any) -> None:
    """Ends this process, with 0 unless a limit is reached."""
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        if MEMORY.exists():
            taken = int(MEMORY.read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + BYTES, taken + BYTES))
        tokenizer.apply_chat_template(TURNS, tokenize=False)
        for thinking in (False, True):
            tokenizer.apply_chat_template(TURNS[:1], tokenize=False, add_generation_prompt=True, enable_thinking=thinking)
        status = 0
    except MemoryError:
        pass
    except BaseException:  # noqa: BLE001 - the parent renders the template again, and says what is wrong with it
        status = 0
    finally:
        os._exit(status)
