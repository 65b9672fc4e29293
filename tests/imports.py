"""What a module reaches by import, in this repository and outside, as `pipeline.code` reads it out of the sources."""

from pathlib import Path

from qthink_core.pipeline import code

ROOT = Path(__file__).parents[1]
OURS = code.PACKAGES


def imported(path: Path) -> frozenset[str]:
    """The dotted names that a file imports, inside functions too; of `from a import b` both `a` and `a.b`."""
    return code.read(path).imports


def closure(path: Path) -> set[Path]:
    """The file and every module of this repository that it reaches by import or runs, packages' __init__ included."""
    return {ROOT / one for one in code.modules(ROOT, str(path.relative_to(ROOT)))}


def outside(path: Path) -> set[str]:
    """The top-level packages, other than ours, that a file reaches through all files of its closure."""
    return {name.split(".")[0] for file in closure(path) for name in imported(file)} - set(OURS)
