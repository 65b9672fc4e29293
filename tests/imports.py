"""Reads imports out of source files (AST, inside functions too): what a module reaches, in this repository and outside."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("stages", "qthink_core")


def _file(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imported(path: Path) -> frozenset[str]:
    """The dotted names that a file imports; `from a import b` counts as `a.b` where that is a module, else as `a`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif (
            isinstance(node, ast.Constant) and str(node.value).endswith(".py") and path.with_name(str(node.value)).is_file()
        ):
            # a sibling that is run as a program
            found.add(".".join(path.with_name(str(node.value)).relative_to(ROOT).with_suffix("").parts))
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if node.module.startswith(OURS) and _file(inner) else node.module)
    return frozenset(found)


def closure(path: Path) -> set[Path]:
    """The file and every file of this repository that it reaches by import, packages' __init__ included."""
    todo, seen = [path], set()
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        for name in imported(here):
            parts = name.split(".")
            if parts[0] not in OURS:
                continue
            for length in range(1, len(parts) + 1):
                file = _file(".".join(parts[:length]))
                if file is not None:
                    todo.append(file)
    return seen


def outside(path: Path) -> set[str]:
    """The top-level packages, other than ours, that a file reaches through all files of its closure."""
    return {name.split(".")[0] for file in closure(path) for name in imported(file)} - set(OURS)
