r"""One spelling of a LaTeX expression: what looks the same on paper becomes the same text.

- Unicode becomes LaTeX: operators, Greek letters, `½` (`\frac{1}{2}`), `x⁴` (`x^{4}`), `√16` (`\sqrt{16}`), digits and
  letters of any width, script or typeface.
- Typefaces, sizes, colours, spacing, `\left`, `$` and braces that only group are dropped.
- Arguments get braces as LaTeX reads them: `\frac12`, `\sqrt3`, `{1\over2}`, and `2^10` as `2^{1}0`.
- Words become one `\text{word}` each, in lower case: those in `\text{}` and its relatives, and outside them only known ones.
- A comma with a space behind it, which separates values, becomes `;`. A space between two digits is kept.

The time is linear in the length, since the caller limits it and groups may be nested `MAX_DEPTH` deep.
"""

import re
from collections.abc import Callable

from qthink_core.benchmarks.graders.commands import (
    COLOURED,
    FRACTIONS,
    HENCE,
    MARKS,
    SPACES,
    SWITCHES,
    TYPEFACES,
    UPRIGHT,
    WITHOUT_OUTPUT,
    names,
)
from qthink_core.benchmarks.graders.latex.characters import in_latex
from qthink_core.benchmarks.graders.text import plain_characters

MAX_DEPTH = 50
UNREADABLE = r"\?"

_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|[A-Za-z]+|[0-9]+|\s+|.", re.DOTALL)

_TYPEFACES = TYPEFACES | {"fbox", "boxed"}
_NOTHING = SWITCHES | names("[ ] ( )")
_SPACE = SPACES | MARKS | names(", ; : > ~") | {" ", "\n", "\t"}
_FUNCTIONS = names("sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh ln log exp det")
_ARGUMENTS = {"frac": 2, "binom": 2} | dict.fromkeys(("sqrt", "overline", "vec", "hat", "mathbb"), 1)
_SAME = {
    **dict.fromkeys(FRACTIONS, "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **dict.fromkeys(("bar", "dot"), "overline"),
    **dict.fromkeys(("times", "ast"), "cdot"),
    **{"leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "varnothing": "emptyset"},
    **{"bigcup": "cup", "bigcap": "cap", "lbrace": "{", "rbrace": "}", "backslash": "setminus"},
}
_SIGNS = {
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("langle", "lparen"), "("),
    **dict.fromkeys(("rangle", "rparen"), ")"),
    **dict.fromkeys(("degree", "textdegree"), r"^\circ"),
    **dict.fromkeys(("cr", "newline", "tabularnewline", "\\"), r"\\"),
    **dict.fromkeys(("lor", "vee"), r"\text{or}"),
    **dict.fromkeys(("land", "wedge", "&"), r"\text{and}"),
    **dict.fromkeys(HENCE, r"\implies "),
    **{"lbrack": "[", "rbrack": "]", "lt": "<", "gt": ">", "colon": ":", "imath": "i"},
}
_MONEY = {
    **dict.fromkeys(("$", "textdollar"), "dollar"),
    **dict.fromkeys(("cent", "cents", "textcent"), "cent"),
    **dict.fromkeys(("euro", "texteuro"), "euro"),
    **dict.fromkeys(("pounds", "textsterling"), "pound"),
    **dict.fromkeys(("yen", "textyen"), "yen"),
    **{"rupee": "rupee", "currency": "currency", "%": "percent"},
}
_MATRICES = {"bmatrix": "pmatrix", "smallmatrix": "matrix", "array": "matrix"}
# Letters that are units where they follow a number in upright type.
_UNIT_LETTERS = frozenset("mgshLlJNWVCFK")
_AFTER_NUMBER = re.compile(r"(?:[0-9/]|\\circ ?|\\text\{(?:[A-Za-z]|kg|[cmk]m)\}(?:\\cdot ?)?|(?<!\\text)\{[^{}]*\})$")
_AM_PM = re.compile(r"\b([ap])\.\s?m\b\.?", re.IGNORECASE)
_AFTER_WORD = re.compile(r"\\text\{[^{}]*\}$")
_COMMAND_AT_END = re.compile(r"\\[A-Za-z]+$")
_COMMAND_SPACE = re.compile(r"(\\[A-Za-z]+) (?![A-Za-z])")
_LAST_ROW_BREAK = re.compile(r"(?:\\\\)+(?=\\end\{|$)")
_EXPONENTIAL = re.compile(r"\\exp(?:\(([^()]*)\)| ?([0-9]+|[a-z]))")
_DELIMITED_MATRIX = re.compile(r"[(\[](?=\\begin\{matrix\})|(?<=\\end\{matrix\})[)\]]")


def spelled(latex: str, is_word: Callable[[str, bool], bool]) -> str:
    r"""The one spelling of an expression; the expression itself, marked as unreadable, where groups are nested too deep.

    `is_word` says whether letters outside `\text{}` are a word, given the letters and whether a space precedes them.
    """
    speller = _Speller(in_latex(_AM_PM.sub(r"\1m", plain_characters(latex.strip()))), is_word)
    try:
        text = speller.sequence(upright=False)
    except _TooDeepError:
        return UNREADABLE + latex
    text = _LAST_ROW_BREAK.sub("", _COMMAND_SPACE.sub(r"\1", text))
    if r"\begin{matrix}" in text:
        text = _DELIMITED_MATRIX.sub("", text).replace("{matrix}", "{pmatrix}")
    text = _EXPONENTIAL.sub(lambda found: f"e^{{{found[1] or found[2]}}}", text)
    # the box ends in a backslash where it ended in a backslash and a space
    return text.lstrip(' ,;:"').rstrip(' .,;:"`\\')


class _TooDeepError(Exception):
    """Groups are nested deeper than `MAX_DEPTH`."""


class _Speller:
    """A descent through the groups of one expression; `before` is what was printed before a group."""

    def __init__(self, text: str, is_word: Callable[[str, bool], bool]) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0
        self._depth = 0
        self._is_word = is_word

    def sequence(self, upright: bool, before: str = "") -> str:
        """The spelling up to the end of this group, in upright type or in italics."""
        out, spaced, tight = "", False, False
        while (token := self._next()) not in ("", "}"):
            if token.isspace() or token in "~$" or (token[0] == "\\" and token[1:] in _SPACE):
                spaced = not tight
            elif token == r"\!":
                spaced, tight = False, True
            elif token in (r"\over", r"\choose"):
                name = "frac" if token == r"\over" else "binom"
                out = rf"\{name}{{{out}}}{{{self.sequence(upright)}}}"
                break
            elif one := self._nested(token, upright, out or before, spaced):
                if spaced and out.endswith(","):
                    out = out[:-1] + ";"
                elif spaced and out and out[-1] in "0123456789." and one[0] in "0123456789.":
                    out += " "
                out, spaced, tight = out + one, False, False
        return out

    def _next(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else ""

    def _peek(self) -> str:
        """The next token that is not a space, or ""."""
        while (token := self._next()).isspace():
            pass
        self._at -= 1
        return token

    def _nested(self, token: str, upright: bool, before: str, spaced: bool) -> str:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeepError
        one = self._one(token, upright, before, spaced)
        self._depth -= 1
        return one

    def _one(self, token: str, upright: bool, before: str, spaced: bool) -> str:
        """The spelling of one token and its arguments."""
        if token == "{":
            return self.sequence(upright, before)
        if token.isalpha():
            return self._letters(token, upright, before, spaced)
        if token in "^_":
            inner = self._argument(upright)
            circle = token == "^" and inner.strip() == r"\circ"
            return "^\\circ " if circle else f"{token}{{{inner}}}"
        if len(token) > 1 and token[0] == "\\":
            return self._command(token[1:].removesuffix("*"), upright, before)
        if token == "." and _AFTER_WORD.search(before) and not "".join(self._tokens[self._at : self._at + 1]).isdigit():
            return ""  # the full stop of a word, not a decimal point
        return {"%": r"\text{percent}", "*": r"\cdot "}.get(token, token)

    def _letters(self, token: str, upright: bool, before: str, spaced: bool) -> str:
        if token == "pi":
            return r"\pi "
        seconds = token == "sec" and (upright or self._peek() in ("", "}", "."))
        if len(token) > 1 and token.lower() in _FUNCTIONS and not seconds:
            return f"\\{token.lower()} "
        if upright and len(token) > 1:
            return rf"\text{{{token.lower()}}}"
        if upright and token in _UNIT_LETTERS and _AFTER_NUMBER.search(before):
            return rf"\text{{{token}}}"
        return rf"\text{{{token.lower()}}}" if len(token) > 1 and self._is_word(token, spaced) else token

    def _command(self, name: str, upright: bool, before: str) -> str:
        if name in ("left", "right", "middle"):
            if self._peek() == ".":
                self._next()
            return ""
        if name in _NOTHING:
            return ""
        if name in UPRIGHT or name in _TYPEFACES:
            return self._argument(name in UPRIGHT, before)
        if name in WITHOUT_OUTPUT or name in COLOURED:
            self._option()
            self._argument(upright)
            return self._argument(upright, before) if name in COLOURED else ""
        if name == "not" and self._peek() == "=":
            self._next()
            return r"\ne "
        if name in ("begin", "end"):
            environment = self._raw_argument()
            if name == "begin" and environment == "array":
                self._raw_argument()
            return rf"\{name}{{{_MATRICES.get(environment, environment)}}}"
        if name in _MONEY:
            return rf"\text{{{_MONEY[name]}}}"
        if name in _SIGNS:
            if _SIGNS[name] == r"\\":
                self._option()
            return _SIGNS[name]
        name = _SAME.get(name, name)
        if count := _ARGUMENTS.get(name, 0):
            option = self._option() if name == "sqrt" else ""
            arguments = [self._argument(upright, before) for _ in range(count)]
            return f"\\{name}{option}" + "".join(f"{{{one}}}" for one in arguments)
        return f"\\{name} " if name.isalpha() else f"\\{name}"

    def _argument(self, upright: bool, before: str = "") -> str:
        """The next group, or the next digit, letter or command, as LaTeX reads it."""
        token = self._peek()
        if token in ("", "}"):
            return ""
        if len(token) > 1 and token[0] != "\\":
            self._tokens[self._at] = token[1:]
            return token[0]
        self._at += 1
        argument = self._nested(token, upright, before, False).strip()
        return f"{argument} " if _COMMAND_AT_END.search(argument) else argument

    def _option(self) -> str:
        """An optional argument in square brackets, or ""."""
        if self._peek() != "[":
            return ""
        start = self._at
        while self._next() not in ("]", ""):
            pass
        return "".join(self._tokens[start : self._at])

    def _raw_argument(self) -> str:
        """The text of the next group, which holds no others."""
        if self._peek() != "{":
            return ""
        start = self._at + 1
        while self._next() not in ("}", ""):
            pass
        return "".join(self._tokens[start : self._at - 1])
