"""The typer application of `qthink`, and how a command of it ends: an error is one line and an exit code."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from qthink_core.benchmarks.graders import latex_equality
from qthink_core.errors import DataError, ParamError, QThinkError, StoppedError, StorageError, printable, stop_behind

# The groups of commands, in the order of the help.
MODEL, PIPELINE = "Use a model", "Run the pipeline and read its results (in the repository)"
CHECK = "Check answers, measure speed"
INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C has ended
# The files that make a folder the repository.
MARKS = ("params.yaml", "dvc.yaml")

app = typer.Typer(
    help="""QThink: six latent steps in place of a think block.

    ```
    qthink COMMAND --help    # what a command does, with an example
    qthink run               # in the repository: everything, from problems to the table
    ```

    `qthink --install-completion` lets the Tab key complete commands and options.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        with one_line():
            try:
                print(f"qthink {metadata.version('qthink')}")
            except metadata.PackageNotFoundError:
                fix = "run `pip install --editable .` in the repository"
                raise DataError(f"qthink is not installed, so its version is unknown: {fix}") from None
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of the program itself."""


def repository() -> Path:
    """Changes to the root of the repository, and returns it as a relative path, `.`.

    It is the current folder or the nearest one above it that has params.yaml and dvc.yaml. Raises ParamError where there is
    none.
    """
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise ParamError("the current folder was removed: change to the repository and run this again") from None
    root = next((one for one in (here, *here.parents) if all((one / name).is_file() for name in MARKS)), None)
    if root is None:
        raise ParamError(f"no folder from {here} upwards has {' and '.join(MARKS)}: run this in the QThink repository")
    if root != here:
        os.chdir(root)
        complain(f"working in {root}; paths are relative to it")
    own = Path(__file__).resolve().parents[2]
    if (root / "qthink_core").is_dir() and root.resolve() != own:
        fix = "run `python -m qthink_core.cli` in place of `qthink` to use the repository's"
        complain(f"this program uses the code in {own}, not that in {root}: {fix}")
    return Path()


@contextlib.contextmanager
def one_line(continues: bool = False) -> Iterator[None]:
    """Ends the program with one line and an exit code when something is wrong.

    `continues` says that the same command continues what Ctrl-C has stopped: it then ends with 75, otherwise with 130.
    """
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - one that is not expected is raised again
        if isinstance(error, StoppedError) or stop_behind(error) is None:
            _end_by(error)
        if continues:
            complain("stopped; the same command continues")
            end(StoppedError.exit_code)
        print(file=sys.stderr)  # a terminal shows ^C, perhaps in the middle of an answer
        complain("stopped")
        end(INTERRUPTED)


def _end_by(error: BaseException) -> NoReturn:
    """Ends the program by an error that is expected, and raises another one."""
    if isinstance(error, BrokenPipeError):  # the reader of the output has closed it
        end(0)
    if isinstance(error, OSError):
        what = error.filename or "reading or writing"
        complain(f"{what} failed ({error.strerror or error}): fix this and run the same command again")
        end(StorageError.exit_code)
    if isinstance(error, QThinkError):
        for line in str(error).split("\n"):
            complain(line)
        end(error.exit_code)
    raise error


def complain(message: str) -> None:
    if sys.stderr is not None:
        print(f"qthink: {printable(message)}", file=sys.stderr, flush=True)


def end(code: int) -> NoReturn:
    # os._exit, because the interpreter would flush its output at the end, which has no reader or cannot be written
    latex_equality.close()
    os._exit(code)
