"""How a command differs from the earlier one whose results it would continue, in words."""

import re
from typing import Any

DIGEST = re.compile(r"[0-9a-f]{64}")


def difference(name: str, held: Any, wanted: Any) -> str:
    """`batch 16, now 8`; of a digest only that it is another one."""
    if isinstance(held, str) and isinstance(wanted, str) and DIGEST.fullmatch(held) and DIGEST.fullmatch(wanted):
        return f"other {name}"
    return f"{name} {held!r:.80}, now {wanted!r:.80}"
