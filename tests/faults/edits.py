"""Edits of the bytes of a params file."""

from collections.abc import Callable

Edit = Callable[[bytes], bytes]


def more(line: bytes) -> Edit:
    """Adds a line at the end."""
    return lambda text: text + line + b"\n"


def instead(old: bytes, new: bytes) -> Edit:
    """Replaces what the file holds once."""

    def edit(text: bytes) -> bytes:
        assert text.count(old) == 1, f"{old!r} is in params.yaml {text.count(old)} times"
        return text.replace(old, new)

    return edit
