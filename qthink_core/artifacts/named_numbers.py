"""Numbers from names, for random draws and splits that depend on a name and on nothing else."""

import hashlib


def number_of(name: str) -> int:
    """A number of 64 bits: the first eight bytes of the name's sha256, most significant byte first."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
