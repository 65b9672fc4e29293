"""Text and numbers as the report shows them. Model text is hostile: none of it is interpreted, and all of it is visible."""

from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

# Per text; artifacts/ has the whole text. Without a limit, sixty questions with endless answers would take ten megabytes.
MAX_SHOWN_CHARS = 4000
ASIDE = Markup('<span class="hidden-char">{}</span>')
# Characters that are invisible although Unicode classes them as printable: fillers, joiners, variation selectors.
BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
MAX_WORDS_CHARS = 90
# The prompt of Tooluse begins with its tools and ends with this line.
QUESTION = "\nQuestion: "


def visible(value: Any) -> Any:
    """Text as escaped markup in which every character is visible; numbers and finished markup are unchanged.

    Control and bidirectional characters, zero-width and unusual spaces, unassigned code points and lone surrogates become
    ⟨U+202E⟩ in a separate element; line ends and plain spaces stay. Long texts end after MAX_SHOWN_CHARS with the number
    of characters left out.
    """
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    rest, value = len(value) - MAX_SHOWN_CHARS, value[:MAX_SHOWN_CHARS]
    shown = Markup()
    for hidden, run in groupby(value, _hides):
        piece = "".join(run)
        shown += ASIDE.format("".join(map(_name, piece))) if hidden else escape(piece)
    if rest > 0:
        shown += ASIDE.format(f"… {rest:,} more characters")
    return shown


def plain(text: str) -> str:
    """The whole text as `visible` shows it but without markup, for attributes, terminals and spreadsheets."""
    return "".join(_name(one) if _hides(one) else one for one in text)


def _hides(one: str) -> bool:
    return one != "\n" and (not one.isprintable() or one in BLANKS)


def _name(one: str) -> str:
    return f"⟨U+{ord(one):04X}⟩"


def token(text: str) -> Markup:
    """A single token with visible spaces and line ends."""
    return Markup(visible(text.replace(" ", "␣").replace("\n", "↵")))


def first_words(prompt: str) -> str:
    """The first words of a question on one line, at most MAX_WORDS_CHARS characters and an ellipsis."""
    text = " ".join(prompt.rpartition(QUESTION)[2].split())
    if len(text) <= MAX_WORDS_CHARS:
        return text
    kept = text[: MAX_WORDS_CHARS + 1].rpartition(" ")[0] or text[:MAX_WORDS_CHARS]
    return f"{kept} …"


def per_cent(share: float) -> str:
    """A share as 95.5."""
    return f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points as +2.5 or −2.5."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def tokens(number: float) -> str:
    """A mean number of tokens as 1,025, or with a decimal below 100."""
    return f"{number:,.1f}" if abs(number) < 100 else f"{number:,.0f}"


def signed_tokens(number: float) -> str:
    """A difference of mean numbers of tokens as +374 or −13.0."""
    return ("+" if number > 0 else "−" if number < 0 else "") + tokens(abs(number))


def p_value(p: float) -> str:
    """A p-value to three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
