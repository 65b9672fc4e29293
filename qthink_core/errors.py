"""The errors that end a stage, each with an exit code for scripts.

A message is one sentence: what was found, where, what was expected and how to fix it.
"""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, with the next where it ends in a colon; at most 200 characters long."""
    first, *others = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join([first, *(line.strip() for line in others[:1] if first.endswith(":"))])[:200]


def printable(text: str) -> str:
    """The text with control characters escaped, so that ids and names from files cannot control a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The stop that an exception is, or that it was raised from, at any depth: Python 3.11 wraps one in `__set_name__`."""
    seen: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if isinstance(one, KeyboardInterrupt):
            return one
        if one is not None and one not in seen:
            seen.append(one)
            left += [one.__cause__, one.__context__]
    return None


class QThinkError(Exception):
    """An error that is shown as one line without a traceback; with `everywhere`, all ranks raise it and rank 0 prints it."""

    exit_code = 1

    def __init__(self, message: str, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class ParamError(QThinkError):
    """A wrong parameter or command line; exit code 2."""

    exit_code = 2


class DataError(QThinkError):
    """An input that is missing, damaged or made from other settings; exit code 65 (EX_DATAERR)."""

    exit_code = 65


class UnavailableError(QThinkError):
    """Hardware or software that a run needs and this machine lacks, a line for each; exit code 69 (EX_UNAVAILABLE)."""

    exit_code = 69


class NumericError(QThinkError):
    """A NaN or an infinity in a computation; exit code 70 (EX_SOFTWARE)."""

    exit_code = 70


class StorageError(QThinkError):
    """A disk that is full or not writable; exit code 74 (EX_IOERR)."""

    exit_code = 74


class StoppedError(QThinkError):
    """A stage that was stopped or cannot run now; the same command continues it later; exit code 75 (EX_TEMPFAIL)."""

    exit_code = 75
