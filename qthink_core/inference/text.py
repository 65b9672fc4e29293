"""Text that grows token by token, up to a stop string."""

from collections.abc import Sequence
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class GrowingText:
    """The text of one answer; a piece is given out once no later token and no stop string can change it.

    Only the last few tokens are decoded for each new one: text depends on the tokens before it only through spaces and
    characters of several bytes.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = (), opening: str = "") -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.text = opening
        self.stopped = False
        self._given = 0
        self._tokens: list[int] = []
        self._start, self._read = 0, 0

    def add(self, token: int) -> str:
        """The piece of text that the token makes certain; it may be empty."""
        self._tokens.append(token)
        self._decode(last=False)
        return self._give(hold=True)

    def end(self) -> str:
        """The rest of the text, after the last token."""
        self._decode(last=True)
        return self._give(hold=False)

    def _decode(self, last: bool) -> None:
        before = self._decoded(self._tokens[self._start : self._read])
        now = self._decoded(self._tokens[self._start :])
        if self.stopped or len(now) <= len(before) or (now.endswith(REPLACEMENT) and not last):
            return
        searched = max(0, len(self.text) - max(map(len, self.stop), default=0) + 1)
        self.text += now[len(before) :]
        self._start, self._read = self._read, len(self._tokens)
        found = [at for at in (self.text.find(one, searched) for one in self.stop) if at >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    def _decoded(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _give(self, hold: bool) -> str:
        end = len(self.text)
        if hold and not self.stopped:
            end -= max((self._begun(one) for one in self.stop), default=0)
        piece, self._given = self.text[self._given : end], max(self._given, end)
        return piece

    def _begun(self, stop: str) -> int:
        """The length of the longest end of the text that begins the stop string."""
        return next((n for n in range(min(len(stop) - 1, len(self.text)), 0, -1) if self.text.endswith(stop[:n])), 0)
