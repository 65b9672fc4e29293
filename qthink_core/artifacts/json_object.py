"""JSON objects that come from outside: one strict reader for files, lines of files and standard input."""

import json
import math
from typing import Any, NoReturn


def read_object(content: bytes) -> dict[str, Any]:
    """The object that the bytes hold as JSON in UTF-8, each field once, all numbers finite.

    Raises ValueError with the rest of a sentence that begins with the place: `is not JSON (...)`, `holds a JSON list ...`.
    """
    try:
        found = json.loads(content.decode(), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start + 1}, {error.reason})") from None
    except RecursionError:
        raise ValueError("is nested too deep to read") from None
    except ValueError as error:  # also integers of more than 4,300 digits
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"holds a JSON {type(found).__name__} where an object is expected")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"field {name!r:.60} appears twice")
        found[name] = value
    return found


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text:.40} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)
