"""What holds of hostile answers: checked on some of them in `make test`, and on all in `make faults`."""

import json
import re
from pathlib import Path

from hostile import watched
from hostile.answers import CANARY, asked
from hostile.grading import FORBIDDEN

CPU_LIMIT_S = 2.5
# SymPy compiles these whatever the answer says: its names, and arithmetic of exponents for a number of variables.
CONSTANT = re.compile(
    r"\('compile', b'(?:from sympy import \*|def monomial_[a-z]+\([ABk, ]+\):\\n[\w ,()=+\-*<>:\\]*)(?:'.*)?"
)


def check(everything: bool, folder: Path, *before: str) -> float:
    """Grades hostile answers in an empty folder, with `before` on the path of Python; returns the cost of the dearest one.

    Each gets its verdict within a limit of processor time, and no process, file or socket is opened, and nothing compiled.
    """
    (folder / "empty").mkdir()
    program = watched.python(watched.HERE / "grading.py", *(["all"] if everything else []))
    path = ":".join([*before, str(watched.HERE.parent)])
    done, children = watched.run(
        program, folder / "empty", folder / "events", FORBIDDEN.replace("exec ", ""), children=True, PYTHONPATH=path
    )
    assert done.returncode == 0, done.stdout[-300:]
    *graded, left = [json.loads(line) for line in done.stdout.splitlines()]
    rows = asked(everything)
    assert len(graded) == len(rows)
    different = [
        (row.benchmark, row.kind, ascii(row.answer[:90]), row.verdict, found["verdict"])
        for row, found in zip(rows, graded, strict=True)
        if row.verdict != found["verdict"]
    ]
    assert different == []
    assert [(ascii(row.answer[:90]), found["seen"]) for row, found in zip(rows, graded, strict=True) if found["seen"]] == []
    assert [line for line in children if not CONSTANT.fullmatch(line)] == []
    assert left == []
    assert not list(folder.rglob(CANARY))
    dearest = max(found["cpu_s"] for found in graded)
    assert dearest < CPU_LIMIT_S
    return float(dearest)
