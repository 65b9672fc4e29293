"""Checks of single values: unknown keys, values of a wrong type or beyond their range, and missing keys."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from qthink_core.pipeline.parameters import (
    ANY,
    Path_,
    Section,
    below,
    dotted,
    file_of,
    matches,
    patterns,
    prune,
)

MAX_UNKNOWN = 50  # unknown keys that are listed one by one
SHOWN = 80  # characters of a value in a message


def faults(
    tree: Mapping[str, Any], origin: Mapping[Path_, str], sections: Mapping[str, type[Section]], whole: bool
) -> list[str]:
    """A sentence for each fault: unknown keys first, then wrong values, then missing ones if the tree is `whole`."""
    read = {name: patterns(section) for name, section in sections.items()}
    known = set().union(*read.values())
    # each alternative of a union reports its fault, and several stages may report the same one
    wrong: dict[str, dict[str, None]] = {}
    readers: dict[str, dict[str, None]] = {}
    for name, section in sections.items():
        try:
            section.model_validate(prune(tree, read[name]))
        except ValidationError as error:
            for item in error.errors(include_url=False, include_context=False):
                loc = item["loc"]
                if item["type"] == "missing":
                    readers.setdefault(".".join(map(str, loc)), {})[name] = None
                elif item["type"] != "extra_forbidden" or _within_a_value(loc, read[name]):
                    path = _within(tree, loc)
                    message = item["msg"].removeprefix("Value error, ")
                    if item["type"] == "extra_forbidden":
                        message += _hint(str(loc[-1]), _fields(section, loc[:-1]))
                    found = f"{file_of(origin, path)}: {dotted(path)} is {_shown(item['input'])}"
                    wrong.setdefault(found, {})[message[0].lower() + message[1:]] = None
    sized = f"params/{tree.get('scale')}.yaml"
    missing = (f"{key} is missing from params.yaml or {sized} (read by {', '.join(by)})" for key, by in readers.items())
    return [
        *_unknown(tree, origin, known),
        *(f"{found}: {', or '.join(messages)}" for found, messages in wrong.items()),
        *(missing if whole else ()),
    ]


def _unknown(tree: Mapping[str, Any], origin: Mapping[Path_, str], known: set[Path_]) -> list[str]:
    """A fault for each key that no stage reads, the first ones with the nearest name."""
    unknown = list(_unread(tree, known))
    found = []
    for leaf in unknown[:MAX_UNKNOWN]:
        hint = _hint(".".join(leaf)[:200], sorted({".".join(_named(pattern, leaf)) for pattern in known}))
        if any("." in part for part in leaf):
            hint = ": write the keys one below the other, each with a colon, not with dots between them"
        found.append(f"{origin.get(leaf, 'params')}: no stage reads {dotted(leaf)}{hint}")
    if len(unknown) > MAX_UNKNOWN:
        found.append(f"params: no stage reads {len(unknown) - MAX_UNKNOWN:,} more keys: remove them")
    return found


def _unread(tree: Mapping[str, Any], known: Collection[Path_], above: Path_ = ()) -> Iterator[Path_]:
    """The leaves that are neither at nor below a pattern."""
    for key, held in tree.items():
        path, rest = (*above, str(key)), below(key, known)
        if () in rest:
            continue
        if isinstance(held, Mapping) and held:
            yield from _unread(held, rest, path)
        # a value in place of a section is null, as DVC needs the key in every file, or wrong for the stage that reads it
        elif not rest:
            yield path


def _hint(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f": did you mean {near[0]}?" if near else ": remove it"


def _shown(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _fields(section: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys that there may be at a pydantic location."""
    held = section
    for part in loc:
        if part in held.model_fields:
            held = _model(held.model_fields[str(part)].annotation) or held
    return list(held.model_fields)


def _model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model(argument))), None)


def _within_a_value(loc: tuple[int | str, ...], read: set[Path_]) -> bool:
    """Whether a pydantic location is inside a list or mapping that is one value, so that its keys are no parameters."""
    path = tuple(map(str, loc))
    return any(isinstance(one, int) for one in loc) or any(matches(path[:-1], pattern) for pattern in read)


def _named(pattern: Path_, leaf: Path_) -> Path_:
    """The pattern with its wildcards replaced by the names in a leaf."""
    return tuple(leaf[at] if part == ANY and at < len(leaf) else part for at, part in enumerate(pattern))


def _within(tree: Mapping[str, Any], loc: tuple[int | str, ...]) -> Path_:
    """The keys of a pydantic location, which may continue into the alternatives of a union."""
    path: Path_ = ()
    here: Any = tree
    for part in loc:
        if isinstance(here, list):
            inside = isinstance(part, int) and part < len(here)
        else:
            inside = isinstance(here, Mapping) and part in here
        if not inside:
            break
        path, here = (*path, str(part)), here[part]
    return path
