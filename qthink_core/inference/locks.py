"""A lock on a file of results, so that two commands do not write to one place."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from qthink_core.artifacts.files import storage
from qthink_core.errors import StoppedError, StorageError


@contextlib.contextmanager
def locked(path: Path, what: Path) -> Iterator[BinaryIO]:
    """The file at `path`, made if there is none, open at its end and locked until the context or the process ends.

    Raises StoppedError, which names `what`, while another process holds the lock, and StorageError where the file cannot be
    written or locked.
    """
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoppedError(f"another process is writing to {what}: wait for it, or give another --out") from None
        except OSError as error:  # Lustre without -o flock, some NFS
            raise StorageError(f"{path} cannot be locked ({error.strerror}): give an --out on a local disk") from None
        yield file
