r"""LaTeX for the characters beyond ASCII, and for `sqrt(2)` and the codes of currencies in plain text."""

import re
import unicodedata

from qthink_core.benchmarks.graders.commands import names
from qthink_core.benchmarks.graders.numbers.vocabulary import CURRENCIES

_UNICODE = {
    **{"±": r"\pm", "∓": r"\mp", "÷": r"\div", "−": "-", "≈": r"\approx", "∞": r"\infty", "∪": r"\cup", "∩": r"\cap"},
    **{"∈": r"\in", "∉": r"\notin", "∅": r"\emptyset", "∖": r"\setminus", "⟨": r"\langle", "⟩": r"\rangle"},
    **dict.fromkeys("×·⋅∙∗•\u2062", r"\cdot"), **dict.fromkeys("≤⩽", r"\le"), **dict.fromkeys("≥⩾", r"\ge"), "≠": r"\ne",
    **dict.fromkeys("°º˚", r"^\circ"), **dict.fromkeys("⁄∕", "/"), **dict.fromkeys("、؛", ";"), "∘": r"\circ",
    **{"，": ",", "٬": ",", "٫": ".", "٪": "%", "’": "'", "¢": r"\cent", "€": r"\euro", "£": r"\pounds", "¥": r"\yen"},
    "₹": r"\rupee", "ℝ": r"\mathbb{R}", "℃": r"^\circ C", "℉": r"^\circ F",
    **dict.fromkeys("✓✔✅", r"\checkmark"), **dict.fromkeys("“”", '"'),
}  # fmt: skip
# These are units of their own; every other currency is `\currency`.
_NAMED_CODES = names("USD EUR GBP JPY INR")
_CODES = "|".join(sorted(code for code in CURRENCIES if len(code) == 3 and code.isupper() and code not in _NAMED_CODES))
_CURRENCY_CODE = re.compile(
    rf"(?<![A-Za-z\\])(?:{_CODES})(?=[ ~}}]{{0,2}}[0-9])|(?P<number>[0-9][ ~{{\\a-z]{{0,8}})(?:{_CODES})(?![A-Za-z])"
)
_SUPERSCRIPT = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPT = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙₖₓ", "0123456789+-()nkx", strict=True))
_BEYOND_ASCII = re.compile(f"([{''.join(_SUPERSCRIPT)}]+)|([{''.join(_SUBSCRIPT)}]+)|([^\x00-\x7f])")
_ROOT = re.compile(r"([√∛∜]|(?<![A-Za-z\\])sqrt(?=[({]))\s*(?:\(([^()]*)\)|([0-9]+(?:\.[0-9]+)?|[A-Za-z]|(?=\{)))")
_ROOTS = {"√": r"\sqrt", "sqrt": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_GREEK = names("ALPHA BETA GAMMA DELTA EPSILON ZETA ETA THETA IOTA KAPPA MU NU XI PI RHO SIGMA TAU PHI CHI PSI OMEGA")


def in_latex(text: str) -> str:
    """The text with LaTeX for the characters beyond ASCII that have one."""
    return _BEYOND_ASCII.sub(_in_ascii, _ROOT.sub(_root, _CURRENCY_CODE.sub(r"\g<number>\\currency ", text)))


def _root(found: re.Match[str]) -> str:
    inner = found[2] or found[3]
    return _ROOTS[found[1]] + (f"{{{inner}}}" if inner else "")


def _in_ascii(found: re.Match[str]) -> str:
    if found[1]:
        return "^{" + "".join(_SUPERSCRIPT[one] for one in found[1]) + "}"
    if found[2]:
        return "_{" + "".join(_SUBSCRIPT[one] for one in found[2]) + "}"
    char = found[0]
    if char in _UNICODE:
        return _UNICODE[char] + (" " if _UNICODE[char][-1].isalpha() else "")
    if char.isspace():
        return " "
    kind, *codes = unicodedata.decomposition(char).split() or [""]
    letters = "".join(chr(int(code, 16)) for code in codes if kind)
    if kind in ("<wide>", "<narrow>", "<small>", "<font>"):
        return letters if letters.isascii() else _BEYOND_ASCII.sub(_in_ascii, letters)
    top, slash, bottom = letters.partition("\u2044")
    if kind == "<fraction>" and slash and bottom:
        return rf"\frac{{{top}}}{{{bottom}}}"
    name = unicodedata.name(char, "").split()
    if name[:3] == ["GREEK", "SMALL", "LETTER"] and name[3:] and name[-1] in _GREEK and len(name) == 4:
        return f"\\{name[3].lower()} "
    return r"\currency " if unicodedata.category(char) == "Sc" else char
