"""Units that cost nothing, and a program that makes them with the executor that its environment names.

As a program, in a folder: `python dealing.py '{"a": "", "b": "refuse"}'` commits what is missing and publishes `made`.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from qthink_core.artifacts.store import Work
from qthink_core.errors import NumericError, QThinkError
from qthink_core.pipeline import executor, ranks

LOG = "log"
PAUSE_S = 0.2
EATEN, EATING_S = 3 * 10**9, 60


@contextmanager
def maker(log: Path) -> Iterator[executor.Make]:
    """What makes a unit of two files; it notes the unit, its process and its environment as it begins one.

    A payload of `refuse` raises; `die` ends the process, `die once` the first time, and `eat once` takes 3 GB then.
    """

    def make(name: str, payload: str) -> executor.Made:
        before = begun(log)[name]
        entry = {"unit": name, "process": os.getpid(), "folder": os.getcwd(), "environment": dict(os.environ)}
        with log.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        if payload == "refuse":
            raise NumericError(f"{name} is not finite")
        if payload == "die" or (payload == "die once" and not before):
            os.kill(os.getpid(), signal.SIGKILL)
        if payload == "eat once" and not before:
            eaten = bytearray(b"x") * EATEN
            time.sleep(EATING_S)
            del eaten
        time.sleep(PAUSE_S)
        return {f"{name}.txt": name.encode(), f"{name}.two": lambda path: path.write_text(name * 2)}, {"letters": len(name)}

    yield make


def entries(log: Path) -> list[dict]:
    """What was begun, in order."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def begun(log: Path) -> Counter[str]:
    """How often each unit was begun."""
    return Counter(entry["unit"] for entry in entries(log))


def main() -> None:
    """Rank 0 opens the work folder and publishes, as stage.main has it."""
    plan = json.loads(sys.argv[1])
    ranks.join()
    if ranks.rank() > 0:
        ranks.barrier()
    work = Work(Path("work"), "0" * 64, "settings", {})
    if ranks.rank() == 0:
        ranks.barrier()
    try:
        units = executor.run(partial(maker, Path(LOG).resolve()), plan, work, lambda items, total: items, "cpu")
    except QThinkError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    if ranks.rank() == 0:
        work.publish(Path("made"), "letters", units)
    ranks.leave()


if __name__ == "__main__":
    main()
