"""Parameters: params.yaml and params/<scale>.yaml, read as one tree, checked as a whole, and typed.

Each stage has a `Section` with exactly the parameters that it reads. A key that no stage reads is rejected, so a params file
cannot contain an option without effect.
"""

import copy
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qthink_core.errors import ParamError

Path_ = tuple[str, ...]
ANY = "*"


class Section(BaseModel):
    """A frozen group of parameters: strict types, no unknown keys, no NaN, no infinity.

    One that is `whole` is a single value to the graph, and may be written in a shorter form.
    """

    whole: ClassVar[bool] = False
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file (`1e-05` is a number, unlike in PyYAML); repeated keys are rejected.

    A process parses a file again only if its content has changed.
    """
    try:
        return copy.deepcopy(parse_yaml(path, path.read_bytes()))
    except FileNotFoundError:
        fix = f"run this in the root of the repository, or restore the file with `git checkout {path}`"
        raise ParamError(f"{path} is missing: {fix}") from None


@cache
def parse_yaml(path: Path, content: bytes) -> dict[str, Any]:
    """The mapping in the content of a YAML file. `path` is for error messages; the result is cached, so do not change it."""
    try:
        value = YAML(typ="safe", pure=True).load(content)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ParamError(f"{path} is not valid YAML{where}: {problem}") from None
    if not isinstance(value, dict):
        raise ParamError(f"{path} must hold `key: value` lines, found {type(value).__name__}")
    return value


def load(root: Path, other: str | None = None) -> tuple[dict[str, Any], dict[Path_, str]]:
    """The merged tree of params.yaml and the file of its scale (or of `other`), and the file that each leaf is from.

    Raises ParamError when the scale has no file, or a leaf is in both files, where one of them would have no effect.
    """
    common = read_yaml(root / "params.yaml")
    scales = sorted(path.stem for path in (root / "params").glob("*.yaml"))
    if other is not None and other not in scales:
        raise ParamError(f"--scale is {other!r}: expected one of {', '.join(scales)}")
    common |= {"scale": other} if other is not None else {}
    scale = common.get("scale")
    if scale not in scales:
        raise ParamError(f"params.yaml has scale: {scale!r}, expected one of the files in params/: {', '.join(scales)}")
    sized = read_yaml(root / "params" / f"{scale}.yaml")
    origin = dict.fromkeys(leaves(common), "params.yaml")
    for leaf in leaves(sized):
        if any(matches(leaf, other) or matches(other, leaf) for other in leaves(common)):
            raise ParamError(f"{'.'.join(leaf)} is in params.yaml and in params/{scale}.yaml: keep one of them")
        origin[leaf] = f"params/{scale}.yaml"
    return merge(common, sized), origin


def leaves(tree: Mapping[str, Any], above: Path_ = ()) -> Iterator[Path_]:
    """The paths of all values in a tree, except for non-empty mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key))


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
    text, count = re.subn(rf"^{key}:[ \t]*(?:{held})", f"{key}: {json.dumps(new)}", path.read_text(), flags=re.MULTILINE)
    if count != 1:
        raise ParamError(f"{path} has {count} values of {key}, expected one: write it there by hand")
    path.write_text(text)


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


def prune(tree: Mapping[str, Any], wanted: set[Path_], above: Path_ = ()) -> dict[str, Any]:
    """The part of a tree that a stage reads, without the keys of other stages, which it would reject."""
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        path = (*above, str(key))
        if any(matches(path, pattern) for pattern in wanted):
            kept[key] = value
        elif any(matches(pattern[: len(path)], path) or matches(path, pattern[: len(path)]) for pattern in wanted):
            kept[key] = prune(value, wanted, path) if isinstance(value, Mapping) else value
    return kept


def faults(tree: Mapping[str, Any], origin: Mapping[Path_, str], sections: Mapping[str, type[Section]]) -> list[str]:
    """All faults of the parameters, one sentence each: unknown keys first, then wrong values, then missing ones."""
    read = {name: patterns(section) for name, section in sections.items()}
    known = set().union(*read.values())
    unknown = []
    for leaf in leaves(tree):
        if not any(matches(leaf, pattern) or _left_out(tree, leaf, pattern) for pattern in known):
            names = sorted({".".join(_named(pattern, leaf)) for pattern in known})
            near = difflib.get_close_matches(".".join(leaf), names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            unknown.append(f"{origin.get(leaf, 'params')}: no stage reads {'.'.join(leaf)}: {hint}")
    # each alternative of a union reports its fault, and several stages may report the same one
    wrong: dict[str, dict[str, None]] = {}
    readers: dict[str, dict[str, None]] = {}
    for name, section in sections.items():
        try:
            section.model_validate(prune(tree, read[name]))
        except ValidationError as error:
            for item in error.errors():
                if item["type"] == "missing":
                    readers.setdefault(".".join(map(str, item["loc"])), {})[name] = None
                elif item["type"] != "extra_forbidden" or _within_a_value(item["loc"], read[name]):
                    path = _within(tree, item["loc"])
                    message = item["msg"].removeprefix("Value error, ")
                    found = f"{file_of(origin, path)}: {'.'.join(path)} is {repr(item['input'])[:80]}"
                    wrong.setdefault(found, {})[message[0].lower() + message[1:]] = None
    sized = f"params/{tree.get('scale')}.yaml"
    return [
        *unknown,
        *(f"{found}: {', or '.join(messages)}" for found, messages in wrong.items()),
        *(f"{key} is missing from params.yaml or {sized} (read by {', '.join(names)})" for key, names in readers.items()),
    ]


def _within_a_value(loc: tuple[int | str, ...], read: set[Path_]) -> bool:
    """Whether a pydantic location is inside a list or mapping that is one value, so that its keys are no parameters."""
    path = tuple(map(str, loc))
    return any(isinstance(one, int) for one in loc) or any(matches(path[:-1], pattern) for pattern in read)


def _left_out(tree: Mapping[str, Any], leaf: Path_, pattern: Path_) -> bool:
    """Whether the leaf is null in place of a section that a stage reads: DVC needs the key in every file."""
    return matches(pattern, leaf) and value(tree, ".".join(leaf)) is None


def _named(pattern: Path_, leaf: Path_) -> Path_:
    """The pattern with its wildcards replaced by the names in a leaf."""
    return tuple(leaf[at] if part == ANY and at < len(leaf) else part for at, part in enumerate(pattern))


def _within(tree: Mapping[str, Any], loc: tuple[int | str, ...]) -> Path_:
    """The keys of a pydantic location, which may continue into the alternatives of a union."""
    path: Path_ = ()
    here: Any = tree
    for part in loc:
        inside = part in here if isinstance(here, Mapping) else isinstance(here, list)
        if not inside:
            break
        path, here = (*path, str(part)), here[part]
    return path


def file_of(origin: Mapping[Path_, str], path: Path_) -> str:
    """The file that a path of the tree comes from."""
    return next((file for leaf, file in origin.items() if matches(leaf, path) or matches(path, leaf)), "params.yaml")
