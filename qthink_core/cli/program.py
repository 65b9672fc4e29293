"""The typer application of `qthink`, and how a command of it ends: an error is one line and an exit code."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from qthink_core.benchmarks.graders import latex_equality
from qthink_core.errors import QThinkError, StoppedError, StorageError

app = typer.Typer(
    help="QThink: scores that anyone can repeat. The pipeline itself runs with `dvc repro`.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Ends the program with one line and an exit code when something is wrong."""
    try:
        yield
    except KeyboardInterrupt:
        end(StoppedError.exit_code)
    except BrokenPipeError:  # the reader of the output has closed it
        end(0)
    except OSError as error:
        what = error.filename or "standard input or output"
        complain(f"{what} failed ({error.strerror}): fix this and run the same command again")
        end(StorageError.exit_code)
    except QThinkError as error:
        for line in str(error).split("\n"):
            complain(line)
        end(error.exit_code)


def complain(message: str) -> None:
    from qthink_core.pipeline.stage import printable

    if sys.stderr is not None:
        print(f"qthink: {printable(message)}", file=sys.stderr, flush=True)


def end(code: int) -> NoReturn:
    # os._exit, because the interpreter would flush its output at the end, which has no reader or cannot be written
    latex_equality.close()
    os._exit(code)
