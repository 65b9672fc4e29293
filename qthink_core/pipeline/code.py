"""The code of a stage: the modules that its stage file reaches by import, and a digest of each. No torch.

A digest covers the module's syntax tree without docstrings, so comments, blank lines and line breaks do not count. An edit
therefore reruns only the stages that reach a changed statement.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.artifacts.files import canonical_json, read_object, read_small, sha256, write_file
from qthink_core.errors import DataError

PACKAGES = ("qthink_core", "stages")
# This stage records the code of all others, so that DVC can compare it.
STAGE = "fingerprint"
# Folders of files that are not modules but affect what a stage makes, by the module that reads them.
READ_BY = {
    "qthink_core/report/page.py": "qthink_core/report/templates",
    "qthink_core/models/model_card.py": "qthink_core/models/custom_generate",
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Module(NamedTuple):
    """The digest (sha256) of a source, the dotted names that it may import, and the names of files that it may run."""

    digest: str
    imports: frozenset[str]
    programs: frozenset[str]


def of_stage(root: Path, stage: str) -> dict[str, str]:
    """{path: sha256} of all code that can change what a stage makes, by path relative to `root`.

    It covers every module that the stage file reaches, and the bytes of other files that those modules read.
    """
    reached = modules(root, f"stages/{stage}.py")
    found = {path: module.digest for path, module in reached.items()}
    for folder in (READ_BY[path] for path in reached if path in READ_BY):
        found |= {str(file.relative_to(root)): sha256(file) for file in (root / folder).iterdir() if file.is_file()}
    return dict(sorted(found.items()))


def modules(root: Path, path: str) -> dict[str, Module]:
    """A module of the repository and every other that it imports (also inside functions) or runs as a program.

    The `__init__` modules of packages are included. An import by a computed name is not found.
    """
    todo, found = [path], dict[str, Module]()
    while todo:
        here = todo.pop()
        if here not in found:
            found[here] = read(root / here)
            todo += reached(root, here, found[here])
    return found


def read(path: Path) -> Module:
    """The module in a file; the same content is parsed only once. Raises DataError where it is missing or not Python."""
    try:
        return _module(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: restore it with `git checkout {path}`") from None
    except SyntaxError as error:
        raise DataError(f"{path} cannot be read as Python (line {error.lineno}: {error.msg}): fix it") from None


def reached(root: Path, path: str, module: Module) -> Iterator[str]:
    """The files of the repository that a module imports or runs, as paths relative to `root`."""
    for name in module.programs:
        program = Path(path).with_name(name)
        if (root / program).is_file():
            yield str(program)
    names = [name.split(".") for name in module.imports if name.startswith(PACKAGES)]
    for base in {"/".join(parts[:length]) for parts in names for length in range(1, len(parts) + 1)}:
        yield from (file for file in (f"{base}.py", f"{base}/__init__.py") if (root / file).is_file())


@cache
def _module(source: bytes) -> Module:
    tree = ast.parse(source)
    imports, programs = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from a import b`: b may be a module or a name in one
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
            programs |= {node.value} if "/" not in node.value else set()
    listed = json.dumps(_plain(tree), separators=(",", ":"))
    return Module(hashlib.sha256(listed.encode()).hexdigest(), frozenset(imports), frozenset(programs))


def _plain(node: Any) -> Any:
    """A syntax tree as nested lists, without positions and docstrings.

    Unlike `ast.dump`, it leaves out empty fields and empty parts of f-strings, in which Python versions differ, and `ctx`,
    which follows from where a name is used.
    """
    if isinstance(node, list):
        return [_plain(one) for one in node]
    if isinstance(node, ast.Constant):
        return [type(node.value).__name__, repr(node.value)]
    if not isinstance(node, ast.AST):
        return node
    listed: list[Any] = [type(node).__name__]
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(node, DOCUMENTED):
            value = _without_docstring(node.body)
        elif isinstance(node, ast.JoinedStr):
            value = [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
        if value is not None and value != [] and name != "ctx":
            listed += [name, _plain(value)]
    return listed


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    named = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return body[1:] if named else body


def write(folder: Path, digests: Mapping[str, Mapping[str, str]]) -> list[Path]:
    """Writes the code digests of each stage as `<stage>.json`, and returns the files."""
    files = {folder / f"{stage}.json": canonical_json(one) for stage, one in digests.items()}
    for path, content in files.items():
        write_file(path, content)
    return list(files)


def check(path: Path, digests: Mapping[str, str]) -> None:
    """Raises DataError unless a file that `write` wrote has the digests of the current code."""
    repair = f"`qthink repair {path.parent}`"
    again = f"run `dvc repro`, or `dvc repro {STAGE}` and the same command again, or {repair} if that changes nothing"
    try:
        content = read_small(path)
        if content == canonical_json(digests):
            return
        recorded = read_object(content)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {again}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): run {repair}") from None
    other = sorted(name for name in {*recorded, *digests} if recorded.get(name) != digests.get(name))
    raise DataError(f"{path} records another version of {', '.join(other) or 'nothing, in other bytes'}: {again}")
