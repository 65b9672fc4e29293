"""Text as it grows: the pieces join to the whole text, and a stop string is never shown, however tokens cut it."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_folders import plain_tokenizer

from qthink_core.inference.text import GrowingText

TOKENIZER = plain_tokenizer()


class Pieces:
    """A tokenizer whose tokens are given texts."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return "".join(self.texts[token] for token in tokens)


def words(longest: int, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.text("ab", min_size=1, max_size=longest), max_size=most)


def grown(texts: list[str], stop: tuple[str, ...]) -> tuple[list[str], GrowingText]:
    text, pieces = GrowingText(Pieces(texts), stop), []
    for token in range(len(texts)):
        pieces.append(text.add(token))
        if text.stopped:
            break
    return [*pieces, text.end()], text


@given(st.text(max_size=12))
@example("a<|im_end|>b")
def test_pieces_of_bytes_join_to_the_text_whatever_characters_it_has(text: str) -> None:
    tokens = TOKENIZER.encode(text, add_special_tokens=False)
    growing = GrowingText(TOKENIZER)
    pieces = [growing.add(token) for token in tokens]
    assert "".join([*pieces, growing.end()]) == growing.text == TOKENIZER.decode(tokens, skip_special_tokens=True)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces) or "\N{REPLACEMENT CHARACTER}" in text


def test_bytes_that_end_inside_a_character_are_shown_at_the_end() -> None:
    first = TOKENIZER.encode("é", add_special_tokens=False)[:1]
    growing = GrowingText(TOKENIZER)
    assert growing.add(first[0]) == ""
    assert growing.end() == TOKENIZER.decode(first) == "\N{REPLACEMENT CHARACTER}"


@given(
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)
)
def test_the_text_ends_before_the_first_stop_string_and_no_part_of_it_was_given_out(
    texts: list[str], stop: list[str]
) -> None:
    """The reference: after each token, the whole text so far is searched for every stop string."""
    pieces, growing = grown(texts, tuple(stop))
    so_far, expected = "", None
    for text in texts:
        so_far += text
        found = [at for at in (so_far.find(one) for one in stop) if at >= 0]
        if found:
            expected = so_far[: min(found)]
            break
    assert growing.stopped == (expected is not None)
    assert "".join(pieces) == growing.text == (so_far if expected is None else expected)


def test_a_piece_that_may_begin_a_stop_string_waits_until_it_does_not() -> None:
    pieces, _ = grown(["1", "\n", "#", "2"], ("\n##",))
    assert pieces == ["1", "", "", "\n#2", ""]


@pytest.mark.parametrize("opening", ["", "<think>\n"])
def test_an_opening_is_part_of_the_first_piece(opening: str) -> None:
    growing = GrowingText(Pieces(["x"]), opening=opening)
    assert growing.add(0) == f"{opening}x"


def test_special_tokens_are_not_shown(tokenizer: Any) -> None:
    growing = GrowingText(tokenizer)
    assert growing.add(tokenizer.eos_token_id) + growing.end() == ""
