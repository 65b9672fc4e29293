"""Fair comparison: the settings that the systems of one table do not share, in words for that table (decision 18)."""

from collections.abc import Mapping, Sequence
from typing import Any

WORDS = {
    "answer_max_tokens": "trained with answers of at most {} tokens",
    "max_new_tokens": "evaluated with answers of at most {} tokens",
    "epochs": "trained for {} epochs",
    "seeds": "seeds {}",
    "target": "trained towards {} answers",
    "K": "{} latent steps",
    "positions": "teachers from {} positions",
    "distance": "{} distance to the teacher",
}
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def marks(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The settings in which each system differs from the others, by system in the order given.

    The reference of a setting is its most common value among the systems that have it; of equally common values, that of the
    first row. A system with another value is marked. A system without a setting is not compared on it: a system without
    latents has no gamma. Settings appear in the order in which they first occur.
    """
    found: dict[str, list[str]] = {system: [] for system in settings}
    for setting in dict.fromkeys(name for own in settings.values() for name in own):
        held = {system: own[setting] for system, own in settings.items() if setting in own}
        values = list(held.values())
        reference = max(values, key=values.count)  # the first of the most common values
        for system, value in held.items():
            if value != reference:
                others = "the others" if values.count(reference) == len(values) - 1 else "others"
                phrase = WORDS.get(setting, f"{setting.replace('_', ' ')} {{}}").format(_show(value))
                found[system].append(f"{phrase}, {others} {_show(reference)}")
    return found


def footnotes(marks: Mapping[str, Sequence[str]]) -> tuple[dict[str, str], list[str]]:
    """The sign after the name of each marked system, and the notes below the table; equal marks share one sign."""
    lines = list(dict.fromkeys("; ".join(own) for own in marks.values() if own))
    signs = [str(number).translate(SUPERSCRIPTS) for number in range(1, len(lines) + 1)]
    by_system = {system: signs[lines.index("; ".join(own))] for system, own in marks.items() if own}
    return by_system, [f"{sign} {line}" for sign, line in zip(signs, lines, strict=True)]


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
