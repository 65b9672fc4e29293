"""Parameters: params.yaml and params/<scale>.yaml, read as one tree, checked as a whole, and typed.

Each stage has a `Section` with exactly the parameters that it reads. A key that no stage reads is rejected, so a params file
cannot contain an option without effect.
"""

import copy
import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from qthink_core import plain_yaml
from qthink_core.errors import ParamError, first_line
from qthink_core.plain_yaml import Plain

Path_ = tuple[str, ...]
ANY = "*"
PLAIN_NAME = re.compile(r"[!-\-/-~]+")  # visible ASCII but the dot


class Section(BaseModel):
    """A frozen group of parameters: strict types, no unknown keys, no NaN, no infinity, no null in place of a default.

    One that is `whole` is a single value to the graph, and may be written in a shorter form.
    """

    whole: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, given: Any, info: ValidationInfo) -> Any:
        if given is None and info.field_name and not cls.model_fields[info.field_name].is_required():
            raise ValueError("give a value, or leave the key out")
        return given


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file (`1e-05` is a number, unlike in PyYAML), as plain_yaml reads it.

    Raises ParamError with every fault of the file, one per line. A process parses a file again only if its content has
    changed.
    """
    return copy.deepcopy(parse_yaml(path, _content(path)))


def parse_yaml(path: Path, content: bytes) -> dict[str, Any]:
    """The mapping in the content of a YAML file. `path` is for error messages; do not change the result."""
    found = _parsed(path, content)
    if found.faults:
        raise ParamError("\n".join(found.faults))
    return found.value


def _parsed(path: Path, content: bytes) -> Plain:
    found = plain_yaml.read(content, str(path))
    if found.faults or isinstance(found.value, dict):
        return found
    held = "nothing" if found.value is None else type(found.value).__name__
    return Plain(None, [f"{path} must hold `key: value` lines, found {held}"])


def _content(path: Path) -> bytes:
    """The bytes of a file, or more than its reader takes; raises ParamError where it cannot be read."""
    fix = f"run this in the root of the repository, or restore the file with `git checkout {path}`"
    try:
        if not path.is_file():
            raise ParamError(f"{path} is {'not a file' if path.exists() else 'missing'}: {fix}")
        with path.open("rb") as file:
            return file.read(plain_yaml.MAX_BYTES + 1)
    except OSError as error:
        raise ParamError(f"{path} cannot be read ({error.strerror or first_line(error)}): {fix}") from None


class Files(NamedTuple):
    """The merged tree of params.yaml and the file of its scale, the file of each leaf, and what is wrong with both files.

    `whole` says whether both files could be read; otherwise the tree lacks keys through no fault of their own.
    """

    tree: dict[str, Any]
    origin: dict[Path_, str]
    faults: list[str]
    whole: bool


def read(root: Path, other: str | None = None) -> Files:
    """The params files at the scale of params.yaml, or at `other`, with every fault of the files themselves.

    Faults are those of reading, a scale without a file, and a leaf in both files, where one of them would have no effect.
    """
    faults: list[str] = []
    common = _read_part(root / "params.yaml", faults)
    if common is None:
        return Files({}, {}, faults, False)
    origin = dict.fromkeys(leaves(common), "params.yaml")
    scales = sorted(path.stem for path in (root / "params").glob("*.yaml"))
    common |= {"scale": other} if other is not None else {}
    scale = common.get("scale")
    if scale not in scales:
        what = f"--scale is {other!r:.80}" if other is not None else f"params.yaml has scale: {scale!r:.80}"
        near = difflib.get_close_matches(str(scale)[:80], scales, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        faults.append(f"{what}: expected one of the files in params/: {', '.join(scales)}{hint}")
        return Files(common, origin, faults, False)
    file = f"params/{scale}.yaml"
    sized = _read_part(root / file, faults)
    if sized is None:
        return Files(common, origin, faults, False)
    ours = set(origin)
    begun = {leaf[:length] for leaf in ours for length in range(1, len(leaf) + 1)}
    for leaf in leaves(sized):
        if leaf in begun or any(leaf[:length] in ours for length in range(1, len(leaf))):
            faults.append(f"{dotted(leaf)} is in params.yaml and in {file}: keep one of them")
        origin.setdefault(leaf, file)
    return Files(merge(common, sized), origin, faults, True)


def _read_part(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """The mapping in a file, or None where there is none; what is wrong with it is added to the faults."""
    try:
        found = _parsed(path, _content(path))
    except ParamError as error:
        faults.append(str(error))
        return None
    faults += found.faults
    return copy.deepcopy(found.value) if isinstance(found.value, dict) else None


def load(root: Path, other: str | None = None) -> tuple[dict[str, Any], dict[Path_, str]]:
    """The tree and the origin of `read`; raises ParamError with the faults of the files, one per line."""
    found = read(root, other)
    if found.faults:
        raise ParamError("\n".join(found.faults))
    return found.tree, found.origin


def dotted(path: Path_) -> str:
    """The path as DVC spells it; a name that is empty, that has a dot or space, or that looks like another one is quoted."""
    return ".".join(part if PLAIN_NAME.fullmatch(part) else ascii(part) for part in path)


def leaves(tree: Mapping[str, Any]) -> Iterator[Path_]:
    """The paths of all values in a tree, except for non-empty mappings."""
    return (path for path, _ in items(tree))


def items(tree: Mapping[str, Any], above: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """The values of `leaves` with their paths."""
    for key, held in tree.items():
        if isinstance(held, Mapping) and held:
            yield from items(held, (*above, str(key)))
        else:
            yield (*above, str(key)), held


def value(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, as DVC spells it; raises ParamError when it is missing."""
    found: Any = tree
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ParamError(f"{key} is missing from the params files")
        found = found[part]
    return found


def without(tree: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The tree without the value at a dotted key, which it may lack."""
    first, _, rest = key.partition(".")
    if not rest:
        return {name: held for name, held in tree.items() if name != first}
    return {
        name: without(held, rest) if name == first and isinstance(held, Mapping) else held for name, held in tree.items()
    }


def write_value(path: Path, key: str, new: Any) -> None:
    """Changes one top-level value or list of a YAML file and nothing else in it, comments and layout included.

    Raises ParamError where the file has no such key.
    """
    held = r"\[[^\]]*\]|(?:\n[ \t]*- [^\n]*)+|[^\s#\[][^\s#]*"
    before = path.read_bytes().decode()  # as text it would lose its line ends
    text, count = re.subn(rf"^{key}:[ \t]*(?:{held})", f"{key}: {json.dumps(new)}", before, flags=re.MULTILINE)
    if count != 1:
        raise ParamError(f"{path} has {count} values of {key}, expected one: write it there by hand")
    path.write_bytes(text.encode())


def merge(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Both trees merged key by key; where two values conflict, that of `right`."""
    both = dict(left)
    for key, value in right.items():
        mapping = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merge(both[key], value) if mapping else value
    return both


def patterns(section: type[BaseModel], above: Path_ = ()) -> set[Path_]:
    """The leaf paths that a Section reads; `*` is any name in a mapping of sections."""
    found: set[Path_] = set()
    for name, info in section.model_fields.items():
        inner, path = _inner_section(info.annotation), (*above, name)
        if inner is None:
            found.add(path)
        else:
            named, wildcard = inner
            found |= patterns(named, (*path, ANY) if wildcard else path)
    return found


def _inner_section(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return None if getattr(annotation, "whole", False) else (annotation, False)
    if get_origin(annotation) is list:
        return None  # a list is one value, whatever it holds
    inner = [found for argument in get_args(annotation) if (found := _inner_section(argument))]
    return (inner[0][0], get_origin(annotation) is dict) if inner else None


def matches(path: Path_, pattern: Path_) -> bool:
    """Whether a leaf is at or below a pattern (a leaf may be a whole list or mapping for the stage that reads it)."""
    if len(path) < len(pattern):
        return False
    return all(have == want or want == ANY for have, want in zip(path, pattern, strict=False))


def prune(tree: Mapping[str, Any], wanted: Collection[Path_]) -> dict[str, Any]:
    """The part of a tree that a stage reads, without the keys of other stages, which it would reject."""
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        rest = below(key, wanted)
        if () in rest:
            kept[key] = value
        elif rest:
            kept[key] = prune(value, rest) if isinstance(value, Mapping) else value
    return kept


def below(key: object, wanted: Collection[Path_]) -> set[Path_]:
    """What is left of the patterns that begin with a key."""
    return {pattern[1:] for pattern in wanted if pattern[0] in (ANY, str(key))}


def file_of(origin: Mapping[Path_, str], path: Path_) -> str:
    """The file that a path of the tree comes from."""
    return next((file for leaf, file in origin.items() if matches(leaf, path) or matches(path, leaf)), "params.yaml")
