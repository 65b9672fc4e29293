r"""A script that writes a verdict for every JSON line on its standard input, a table of `latex_equality.Cell`.

Its argument is the processor time that a question may take.
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

import math_verify.grader
import sympy

# SymPy imports these late: a child opens no file, and the names of units are sympified before `_numeral` is in place.
import sympy.assumptions.wrapper
import sympy.parsing.sympy_parser
import sympy.physics.units
from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy
from math_verify.grader import verify

WALL_LIMIT_S = 10.0  # for a child that waits instead of computing
MEMORY_LIMIT_BYTES = 2 << 30
# Digits to which irrational numbers are compared, relative to the greater one; rational ones are compared exactly.
PRECISION, SAME_DIGITS = 60, 50

_NUMERAL = re.compile(r"\s*(Integer|Float)\s*\(\s*'?([0-9]*\.?[0-9]*)'?\s*\)\s*")
# Letters of different case are different variables.
_CONVERSION = ConversionConfig(lowercase_symbols=False)

# As in `latex_equality`, which this program cannot import.
Table = list[list[bool | list[list[str]]]]


def matched(table: Table) -> bool:
    """Whether each row is equal to a column of its own; equality is transitive, so the first one found is as good as any."""
    free = list(range(len(table)))
    for row in table:
        column = next((one for one in free if _holds(row[one])), None)
        if column is None:
            return False
        free.remove(column)
    return True


def _holds(cell: bool | list[list[str]]) -> bool:
    return cell if isinstance(cell, bool) else all(equal(gold, answer) for gold, answer in cell)


def equal(gold: str, answer: str) -> bool:
    """Whether Math-Verify finds answer and gold equal; not symmetric, the gold comes first."""
    try:
        return verify(_parsed(gold), _parsed(answer), timeout_seconds=None)
    except (MemoryError, RecursionError):
        raise  # a limit was reached: no verdict
    except Exception:  # noqa: BLE001 - what the parser cannot read, for which it raises Exception itself, is not equal
        return False


def _parsed(latex: str) -> sympy.Basic:
    parsed = latex2sympy(latex, is_real=True, normalization_config=None, conversion_config=_CONVERSION)
    return parsed.subs(sympy.Symbol("i", real=True), sympy.I) if isinstance(parsed, sympy.Expr) else parsed


def _same_number(gold: sympy.Basic, answer: sympy.Basic, *_: int) -> bool:
    """Math-Verify's comparison of numbers, without its rounding, by which 2^-99 would equal 2^-98 and 1.570796 pi/2."""
    if isinstance(gold, sympy.MatrixBase) or isinstance(answer, sympy.MatrixBase):
        return False  # the symbolic comparison follows
    gold, answer = gold.doit(), answer.doit()
    if gold == answer or gold.free_symbols or answer.free_symbols or (gold.is_Rational and answer.is_Rational):
        return bool(gold == answer)
    difference, size = (sympy.Abs(sympy.N(one, PRECISION)) for one in (gold - answer, gold))
    return bool(difference < size * sympy.Float(10, PRECISION) ** -SAME_DIGITS)


def _same_solutions(gold: sympy.Basic, answer: sympy.Basic, *_: int) -> bool:
    """Math-Verify's comparison of equations and inequalities that are not written alike.

    Equations with a constant ratio are equal, and so are relations of one variable with the same set of solutions. Its own
    comparison takes two equations without a solution for equal.
    """
    if gold.free_symbols != answer.free_symbols:
        return False
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        left, right = (sympy.simplify(one.lhs - one.rhs) for one in (gold, answer))
        ratio = sympy.simplify(left / right)
        return bool(left.free_symbols and ratio.is_number and ratio.is_finite and not ratio.is_zero)
    return bool(gold.as_set() == answer.as_set())


def _numeral(code: str, *_: object) -> sympy.Rational:
    """The exact number in SymPy's generated code `Integer (3 )` or `Float ('0.5' )`, without evaluating the code.

    latex2sympy reads numerals with `sympy.Number(text)`, which calls this function instead of `eval`; other code fails.
    """
    numeral = _NUMERAL.fullmatch(code)
    if numeral is None:
        raise ValueError("model text is never evaluated")
    return sympy.Rational(numeral[2])


def _verdict(table: Table, cpu_limit_s: float) -> str:
    """The verdict of a forked child, or the limit that ended it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _decide_and_exit(table, cpu_limit_s, write_end)
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


def _decide_and_exit(table: Table, cpu_limit_s: float, write_end: int) -> NoReturn:
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # SIGPROF has no handler, so the kernel ends the child even during one long multiplication
        signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
        os.write(write_end, b"1" if matched(table) else b"0")
    finally:
        os._exit(0)


def main(cpu_limit_s: float) -> None:
    """Answers questions until standard input closes, each within `cpu_limit_s` of the processor."""
    logging.disable(logging.CRITICAL)
    sympy.parsing.sympy_parser.eval_expr = _numeral
    math_verify.grader.sympy_numeric_eq = _same_number
    math_verify.grader.sympy_solve_and_compare = _same_solutions
    # output of a library must not look like a verdict
    replies = os.fdopen(os.dup(1), "w")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    # otherwise every child would build the same caches, and copy the pages that its garbage collector touches
    equal(r"\frac{3\sqrt{7}}{5}", r"\frac{\pi}{3}")
    equal(r"(a+1)\cdot(a-2)", "a^{2}+a")
    gc.freeze()
    for line in sys.stdin:
        print(_verdict(json.loads(line), cpu_limit_s), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
