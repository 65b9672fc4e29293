r"""Plain spelling: one character for each sign of a number, whatever Unicode, LaTeX or markup it was written in.

Any currency is `$`, any minus `-`, any space one space; `½` is `1/2`, `10³` is `10^(3)`, `\frac{1}{2}` is `1/2`, `\times` is
`×`, `\leq` is `≤`. Typefaces, sizes, colours, math delimiters, Markdown emphasis and the exponents of units are removed.
A command that is not in the tables keeps its backslash, which makes the number beside it an expression.
"""

import re
import unicodedata
from itertools import chain

from qthink_core.benchmarks.graders.commands import (
    COLOURED,
    HENCE,
    MARKS,
    SPACES,
    SWITCHES,
    TYPEFACES,
    UPRIGHT,
    WITHOUT_OUTPUT,
)
from qthink_core.benchmarks.graders.numbers.vocabulary import CURRENCIES, LENGTHS
from qthink_core.benchmarks.graders.text import plain_characters

# Where Unicode has its spaces and its signs of currency.
_SPACES_AND_CURRENCIES = chain(
    range(0xA0, 0xB0), range(0x2000, 0x2060), range(0x20A0, 0x20D0), range(0x9F0, 0x9FC), range(0xFFE0, 0xFFE7),
    map(ord, "\u1680\u3000֏؋߾૱௹฿៛꠸﷼﹩"),
)  # fmt: skip
_CHARACTERS = (
    {code: {"Zs": " ", "Sc": "$"}.get(unicodedata.category(chr(code)), chr(code)) for code in _SPACES_AND_CURRENCIES}
    | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | {
        ord(character): plain
        for characters, plain in {
            "٫": ".",
            "٬،\u2063": ",",
            "’‘ʼ′´": "'",
            "➖˗⁒": "-",
            "➕\u2064": "+",
            "\u0338": "≠",  # strikes out the sign before it
            "⅟": "1/",
            "✕✖⨯⨉∗⋆⁎⁕\u2062": "×",
            "⋅∙・": "·",
            "➗∶": "÷",
            "⁄∕⧸": "/",
            "٪﹪": "%",
            "≈≅≃≒≐∼": "=",
            "⩽≦": "≤",
            "⩾≧": "≥",
            "º": "°",
            "⇒⟹⟶➡": "→",
            "∴∵": " ",
        }.items()
        for character in characters
    }
)
_SCRIPTS = re.compile("(?P<above>[⁰¹²³⁴-⁾ⁿⁱʰʲʳʷʸˡˢˣᴬ-ᵡᵸᶛ-ᶿ]+)|(?P<below>[₀-ₜᵢ-ᵪⱼ]+)|(?P<fraction>[¼½¾⅐-⅞↉])")

_MARKUP = re.compile(
    r"(?P<result><<[^<>\n]{0,200}>>(?=\s?[-$]?\$?[.0-9]))"  # GSM8K's calculator: the result is repeated after it
    r"|<<(?P<calculator>[^<>\n]{0,200})>>"
    r"|<su(?P<script>[pb])>(?P<raised>[^<>\n]{0,40})</su[pb]>"
    r"|(?P<tag><\|[^<>|\n]{1,40}\|>|</?[A-Za-z][^<>\n]{0,60}>|&nbsp;|~~[^~\n]{1,80}~~)"
    r"|(?P<arrow>[-=]{1,3}>)|(?P<relation><=|>=|!=|==)"
    r"|(?<![0-9A-Za-z_)\]}*$])\*{1,3}(?=[^\s*])|(?<=[^\s*])\*{1,3}(?![0-9A-Za-z_($*\\])"  # between operands they multiply
    r"|(?<!\w)_{1,3}(?=[^\s_(])|(?<=[^\s_])_{1,3}(?![\w({])"
)
_RELATIONS = {"<=": "≤", ">=": "≥", "!=": "≠", "==": "="}

_COMMANDS = {
    **dict.fromkeys(UPRIGHT | TYPEFACES, ""),
    **dict.fromkeys(SWITCHES | SPACES | MARKS, " "),
    **dict.fromkeys(HENCE, "→"),
} | {
    name: plain
    for plain, names in {
        "×": "times",
        "·": "cdot bullet cdotp centerdot",
        "/": "slash over",
        "^": "textsuperscript",
        "*": "ast star",
        "÷": "div",
        "±": "pm",
        "∓": "mp",
        "=": "approx simeq cong doteq eq",
        "≠": "neq ne",
        "<": "lt ll",
        ">": "gt gg",
        "≤": "le leq leqslant leqq",
        "≥": "ge geq geqslant geqq",
        "√": "sqrt surd",
        "∞": "infty",
        "…": "dots ldots dotsc",
        "⋯": "cdots dotsb",
        "°": "degree textdegree",
        "|": "vert lvert rvert mid",
        "⌊": "lfloor",
        "⌋": "rfloor",
        "⌈": "lceil",
        "⌉": "rceil",
        "(": "lbrace lbrack lparen",
        ")": "rbrace rbrack rparen",
        "$": "pounds euro yen cent rupee dollar mathdollar textdollar texteuro textyen textsterling textcent mathsterling",
        " ": "newline sim because",
        "": "left right mathbb",
    }.items()
    for name in names.split()
}
_ESCAPED = re.compile(r"(?<!\\)\\++(?=[A-Za-z])")
_WITH_ARGUMENT = re.compile(
    rf"\\(?:{'|'.join(sorted(WITHOUT_OUTPUT | COLOURED))}|begin|end)\*?\s*(?:\[\w{{0,9}}\]\s*)?\{{[^{{}}]{{0,40}}\}}"
    r"|\\(?:kern|hskip|mskip|mkern)\s*[\d.]{1,6}\s*[a-z]{2}"
)
_LATEX = re.compile(
    r"(?P<box>\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s*(?P<bare>-?[0-9][0-9.,]*(?<![.,])))|\\(?P<command>[A-Za-z]+)"
    r"|\\(?P<escaped>[$%#&_^])|(?P<open>\\\{)|(?P<close>\\\})|(?P<space>\\[,;:> ()\[\]]|~|&(?=\s?=))"
    r"|\\[!/]|(?P<newline>\\\\)"
)
_ARGUMENT = r"\s*(?:\{((?:[^{}]|\{[^{}]{0,40}\}){1,100})\}|([0-9]))"
_FRACTION = re.compile(rf"\\[dctx]?frac{_ARGUMENT}{_ARGUMENT}|\\(?:nice|s)frac{_ARGUMENT}{_ARGUMENT}")
_PLAIN_SIDE = re.compile(r"-?\$?[0-9][0-9,.]*|[A-Za-z]{2,}|[hs]")  # a number or a unit
_DETAILS = re.compile(
    r"\{(?P<separator>[,.'])\}"
    r"|(?<=[0-9.])\\(?:overline|bar)\s*\{?(?P<period>[0-9]{1,20})\}?"
    r"|(?P<degree>\^\s*+(?:\\circ(?![A-Za-z])|°|\{\s*(?:\\circ|°)\s*\}))"
    r"|(?P<ordinal>\^\s*+(?:(?:st|nd|rd|th)\b|\((?:st|nd|rd|th)\)|\{\s*(?:st|nd|rd|th)\s*\}|\{\s*\{\s*(?:st|nd|rd|th)\s*\}\s*\}))"
    r"|(?P<script>[\^_])\s*\{(?P<raised>[^{}]{0,40})\}"
    r"|√\s*\[[^\]\n]{0,9}\](?P<root>)"
)
_UNIT_EXPONENT = re.compile(rf"(?<![A-Za-z])(?P<unit>(?:{LENGTHS}|(?<=/)s)[\s}}.]{{0,3}})\^\s?\(?\s?[23]\b\s?\)?")
_NO_TEXT = re.compile(r"(?:\\boxed(?![A-Za-z])|[{} \t])+")
_CURRENCY = re.compile(
    rf"(?<![A-Za-z])(?:(?:{'|'.join(sorted(CURRENCIES, key=len, reverse=True))})\.?(?=[\s${{}}]{{0,3}}-?[\s$]?\(?\.?[0-9])"
    r"|[A-Z]{1,2}\$)"
)


def plain(text: str) -> str:
    r"""The text in plain spelling, with braces and `\boxed` left in it."""
    text = _SCRIPTS.sub(_script, text)
    text = plain_characters(text).translate(_CHARACTERS)
    text = _ESCAPED.sub(r"\\", text)
    text = _MARKUP.sub(_markup, text)
    text = _LATEX.sub(_latex, _WITH_ARGUMENT.sub(" ", text))
    text = _FRACTION.sub(_fraction, _DETAILS.sub(_detail, text))
    return _CURRENCY.sub("$", _UNIT_EXPONENT.sub(r"\g<unit>", text))


def flat(text: str) -> str:
    r"""Plain spelling without its braces and boxes, and with single spaces."""
    return _NO_TEXT.sub(" ", text.replace("-{", "-"))


def _script(found: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", found[0])
    if found["fraction"]:
        text = found.string
        before = " " if text[max(found.start() - 1, 0)].isdigit() else ""
        return before + plain.replace("⁄", "/") + (" " if text[found.end() : found.end() + 1].isdigit() else "")
    return f"{'^' if found['above'] else '_'}({plain})"


def _markup(found: re.Match[str]) -> str:
    if found["calculator"] is not None:
        return f" {found['calculator']} "
    if found["raised"] is not None:
        return f"{'^' if found['script'] == 'p' else '_'}({found['raised']})"
    if found["relation"]:
        return _RELATIONS[found["relation"]]
    return "→" if found["arrow"] else " " if found["tag"] else ""


def _latex(found: re.Match[str]) -> str:
    if found["box"]:
        return rf"\boxed{{{found['bare']}}}" if found["bare"] else r"\boxed"
    if found["command"]:
        return _COMMANDS.get(found["command"], found[0])
    if found["open"] or found["close"]:
        return "(" if found["open"] else ")"
    return found["escaped"] or (" " if found["space"] else "\n" if found["newline"] else "")


def _detail(found: re.Match[str]) -> str:
    if found["raised"] is not None:
        return f"{found['script']}({found['raised']})"
    if found["period"]:
        return f"({found['period']})"
    return found["separator"] or ("°" if found["degree"] else "" if found["ordinal"] else "√")


def _fraction(found: re.Match[str]) -> str:
    top, bottom = (one.translate({0x7B: " ", 0x7D: " "}).strip() for one in found.groups() if one is not None)
    text = found.string
    # a mixed number keeps its parts apart: 3\frac{1}{2} is not 31/2
    before = " " if text[max(found.start() - 1, 0)].isdigit() else ""
    after = " " if text[found.end() : found.end() + 1].isdigit() else ""
    sides = (one if _PLAIN_SIDE.fullmatch(one) else f"({one})" for one in (top, bottom))
    return before + "/".join(sides) + after
