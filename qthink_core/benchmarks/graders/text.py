r"""The parts of a model's text that are graded: the answer without its thought, its last `\boxed{}`, its characters."""

import re

# Zero-width and direction marks, but no invisible operators; hyphens and dashes used as a minus; thin spaces between
# thousands; digits of any script.
_CHARACTERS = re.compile(
    "(?P<unseen>[\u00ad\u200b-\u200f\u202a-\u202e\u2060\u2061\u2065-\u2069\ufeff])"
    "|(?P<minus>[\u2010-\u2013\u2212\ufe63\uff0d])"
    r"|(?<=\d)[\u2009\u202f](?=\d{3}(?!\d))"
    r"|(?P<digit>(?![0-9])\d)"
)
# A box without braces ends at the next `$` or line. A box in escaped text, as in JSON, has two backslashes.
_WITHOUT_BRACES = re.compile(r"\\boxed(?![A-Za-z])[^\S\n]*(?=[^\s{])((?:(?!\\boxed)[^$\n])*)")
_ESCAPED_BOX = re.compile(r"(?<!\\)\\\\boxed\s*\{")
_BRACE = re.compile(r"(\\boxed\s*\{)|\\.|\{|(\})", re.DOTALL)


def without_thought(text: str) -> str:
    """The answer: the text after the last `</think>`, without a later think block that was never closed.

    Qwen3's own chat template splits a message at the last `</think>` too.
    """
    return text.rpartition("</think>")[2].partition("<think>")[0]


def last_boxed(text: str) -> str | None:
    r"""The content of the `\boxed{...}` that closes last, or None where none closes.

    Braces are balanced; `\{` and `\}` are printed braces and do not count. One pass with a stack keeps the time linear, even
    with thousands of boxes that never close.
    """
    open_boxes: list[int | None] = []
    content = None
    for token in _BRACE.finditer(text):
        if token[1]:
            open_boxes.append(token.end())
        elif token[0] == "{":
            open_boxes.append(None)
        elif token[2] and open_boxes:
            start = open_boxes.pop()
            if start is not None:
                content = text[start : token.start()]
    return content


def last_box_of_latex(text: str) -> str | None:
    r"""The content of the last `\boxed` or `\fbox`, with braces or without, or None where it is missing or empty."""
    text = text.replace(r"\fbox", r"\boxed")
    if _ESCAPED_BOX.search(text):
        text = text.replace("\\\\", "\\")
    return _last_box(text)


def solution_box(solution: str) -> str | None:
    r"""The box that holds the answer of a published solution of MATH; None where it is empty or missing.

    This is the rule of github.com/hendrycks/math (`last_boxed_only_string`), by which the golds of MATH were made: the last
    `\boxed` counts, even inside another one, and an `\fbox` only where there is no `\boxed`.
    """
    for command in (r"\boxed", r"\fbox"):
        _, found, rest = solution.rpartition(command)
        if found:
            box = _last_box(rf"\boxed{rest}")
            return box.removesuffix(".") if box else None
    return None


def _last_box(text: str) -> str | None:
    return (last_boxed(_WITHOUT_BRACES.sub(r"\\boxed{\1}", text)) or "").strip() or None


def plain_characters(text: str) -> str:
    """The text in plain characters: invisible ones removed, `-` for a minus, 0-9 for the digits of any script."""
    return _CHARACTERS.sub(_plain_character, text)


def _plain_character(found: re.Match[str]) -> str:
    return "-" if found["minus"] else str(int(found["digit"])) if found["digit"] else ""


def writable(text: str) -> str:
    """The text with lone surrogates written as `\\udXXX`, so that UTF-8 can encode it; other text is unchanged."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
