"""The box that holds the answer of a published solution of MATH, in the forms that the data set has."""

import re

_BRACE = re.compile(r"\\.|([{}])", re.DOTALL)


def solution_box(solution: str) -> str | None:
    r"""The content of the last `\boxed` or, where there is none, of the last `\fbox`; None where it is empty or missing.

    The box has braces or, up to the next `$`, none. This is the rule of github.com/hendrycks/math
    (`last_boxed_only_string`), by which the golds of MATH were made, so the last of two boxes counts.
    """
    for command in (r"\boxed", r"\fbox"):
        _, found, rest = solution.rpartition(command)
        if found:
            content = _in_braces(rest) if rest.lstrip().startswith("{") else _without_braces(rest)
            return content.strip() or None
    return None


def _in_braces(rest: str) -> str:
    """What the first pair of braces holds; nothing where it never closes."""
    depth, start = 0, 0
    for brace in _BRACE.finditer(rest):
        if brace[1] == "{":
            start = start if depth else brace.end()
            depth += 1
        elif brace[1] == "}":
            depth -= 1
            if depth == 0:
                return rest[start : brace.start()]
    return ""


def _without_braces(rest: str) -> str:
    """The text up to the next `$`, unless the command has a longer name."""
    return "" if rest[:1].isalpha() else rest.partition("$")[0].strip().removesuffix(".")
