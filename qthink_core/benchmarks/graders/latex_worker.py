r"""A script that writes a verdict for every JSON line `[gold, answer]` on its standard input.

It imports Math-Verify once and forks a child for every question. Only the child sees model text, under limits that the
kernel enforces, so an answer cannot run without end, use up the memory, or change the verdict on the next one. The time
limit is in processor time, because a verdict must not depend on how busy the machine is. The process ends when its standard
input closes, so it always ends with its parent.
"""

import gc
import json
import logging
import os
import re
import resource
import select
import signal
import sys
from typing import NoReturn

import sympy
import sympy.parsing.sympy_parser
import sympy.physics.units  # SymPy imports it late and sympifies its unit names, which must happen before `_numeral`
from math_verify import LatexExtractionConfig, parse, verify

# The slowest published gold takes 0.2 s; with the start of this process (0.7 s) every item costs less than 2.5 s.
CPU_LIMIT_S = 1.2
WALL_LIMIT_S = 10.0  # for a child that waits instead of computing
MEMORY_LIMIT_BYTES = 2 << 30
# The places to which decimals are compared; with Math-Verify's default of 6, 1.570796 would equal pi/2.
DECIMAL_PLACES = 12

# LaTeX only: Math-Verify reads plain expressions with SymPy's parse_expr, which evaluates Python.
_BOXED = (LatexExtractionConfig(boxed_match_priority=0),)
_NUMERAL = re.compile(r"\s*(Integer|Float)\s*\(\s*'?([0-9]*\.?[0-9]*)'?\s*\)\s*")


def equal(gold: str, answer: str) -> bool:
    """Whether Math-Verify finds answer and gold equal; not symmetric, the gold comes first."""
    return verify(_parsed(gold), _parsed(answer), float_rounding=DECIMAL_PLACES, timeout_seconds=None)


def _parsed(latex: str) -> list[object]:
    # "first_match": the content of the box, and nothing that a looser rule would find in it
    return parse(f"\\boxed{{{latex}}}", _BOXED, extraction_mode="first_match", parsing_timeout=None)


def _numeral(code: str, *_: object) -> sympy.Number:
    """The number in SymPy's generated code `Integer (3 )` or `Float ('0.5' )`, without evaluating the code.

    latex2sympy reads numerals with `sympy.Number(text)`, which calls this function instead of `eval`; other code fails.
    """
    numeral = _NUMERAL.fullmatch(code)
    if numeral is None:
        raise ValueError("model text is never evaluated")
    return sympy.Integer(int(numeral[2])) if numeral[1] == "Integer" else sympy.Float(numeral[2])


def _verdict(gold: str, answer: str) -> str:
    """The verdict of a forked child, or the limit that ended it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _decide_and_exit(gold, answer, write_end)
    os.close(write_end)
    in_time = bool(select.select([read_end], [], [], WALL_LIMIT_S)[0])
    decision = os.read(read_end, 1) if in_time else b""
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if decision:
        return "right" if decision == b"1" else "wrong"
    timed_out = not in_time or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF)
    return "timeout" if timed_out else "over_limit"


def _decide_and_exit(gold: str, answer: str, write_end: int) -> NoReturn:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # SIGPROF has no handler, so the kernel ends the child even during a long step of GMP
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
        os.write(write_end, b"1" if equal(gold, answer) else b"0")
    finally:
        os._exit(0)


def main() -> None:
    """Answers questions until standard input closes."""
    logging.disable(logging.CRITICAL)
    sympy.parsing.sympy_parser.eval_expr = _numeral
    # output of a library must not look like a verdict
    replies = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    # otherwise every child would compile the same patterns, and copy the pages that its garbage collector touches
    equal("\\frac{1}{2}", "x")
    gc.freeze()
    for line in sys.stdin:
        print(_verdict(*json.loads(line)), file=replies, flush=True)


if __name__ == "__main__":
    main()
