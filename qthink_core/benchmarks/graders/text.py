r"""The parts of a model's text that are graded: the answer without its thought, its last `\boxed{}`, its characters."""

import re

# Zero-width and direction marks; hyphens and dashes used as a minus; thin spaces between thousands; digits of any script.
_CHARACTERS = re.compile(
    "(?P<unseen>[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff])"
    "|(?P<minus>[\u2010-\u2013\u2212\ufe63\uff0d])"
    r"|(?<=\d)[\u2009\u202f](?=\d{3}(?!\d))"
    r"|(?P<digit>(?![0-9])\d)"
)
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


def plain_characters(text: str) -> str:
    """The text in plain characters: invisible ones removed, `-` for a minus, 0-9 for the digits of any script."""
    return _CHARACTERS.sub(_plain_character, text)


def _plain_character(found: re.Match[str]) -> str:
    return "-" if found["minus"] else str(int(found["digit"])) if found["digit"] else ""


def writable(text: str) -> str:
    """The text with lone surrogates written as `\\udXXX`, so that UTF-8 can encode it; other text is unchanged."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
