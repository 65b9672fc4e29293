"""How a command differs from the earlier one whose results it would continue, in words."""

import re
from collections.abc import Mapping
from typing import Any

from qthink_core.inference.shown import count

DIGEST = re.compile(r"[0-9a-f]{64}")


def difference(name: str, held: Any, wanted: Any) -> str:
    """`batch 16, now 8`; of a digest only that it is another one, and of questions their number and source."""
    if _are_questions(held) and _are_questions(wanted):
        return f"{count(held['number'], 'question')} of {held['source']}, now {wanted['number']:,} of {wanted['source']}"
    if isinstance(held, str) and isinstance(wanted, str) and DIGEST.fullmatch(held) and DIGEST.fullmatch(wanted):
        return f"other {name}"
    before, now = ("none" if one is None else f"{one!r:.80}" for one in (held, wanted))
    return f"{name} {before}, now {now}"


def same(held: Any, wanted: Any) -> bool:
    """Whether a value is that of the earlier run; questions are the same wherever they come from."""
    if _are_questions(held) and _are_questions(wanted):
        return bool(held["digest"] == wanted["digest"])
    return bool(held == wanted)


def _are_questions(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"number", "source", "digest"} and type(value["number"]) is int
