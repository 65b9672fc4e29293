"""YAML files of plain values, read with every doubled key, tag and merge key reported, and within limits.

A parser of YAML alone would let a later key replace an earlier one, build objects from tags, and expand aliases of aliases
until memory is full. Values are read as ruamel.yaml, which DVC uses, reads YAML 1.2: `1e-05` is a number.
"""

import re
from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import ScalarNode

# Far above what params.yaml needs (10 KB, 800 values, a depth of 5), and read within a second.
MAX_BYTES = 1 << 18
MAX_VALUES = 8_000
MAX_DEPTH = 20
SHOWN = 60  # characters of a name or a value in a message
# What YAML allows in a file; the others cannot be seen in an editor.
CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
TAG = "tag:yaml.org,2002:"


class Plain(NamedTuple):
    """What a file holds, and its faults, one sentence each. `value` is None where the file cannot be read at all."""

    value: Any
    faults: list[str]


class _Item(NamedTuple):
    """A value, the number of values in it, and the line where it begins."""

    value: Any
    size: int
    line: int


class _Open:
    """A mapping or a list whose end has not been read."""

    def __init__(self, event: Any) -> None:
        self.held: Any = {} if isinstance(event, MappingStartEvent) else []
        self.anchor = event.anchor
        self.line = event.start_mark.line + 1
        self.size = 1
        self.key: _Item | None = None
        self.lines: dict[Hashable, int] = {}


class _FatalError(Exception):
    """The rest of the file cannot be read."""


def read(content: bytes, name: str) -> Plain:
    """The value in the content of a file, which the caller must not change; `name` begins each fault.

    A process parses the same content once.
    """
    found = _read(content)
    return Plain(found.value, [f"{name} {one}" for one in found.faults])


@cache
def _read(content: bytes) -> Plain:
    reader = _Reader()
    try:
        return Plain(reader.read(_text(content)), reader.faults)
    except _FatalError as error:
        return Plain(None, [*reader.faults, str(error)])


def _text(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _FatalError(f"has more than {MAX_BYTES:,} bytes: shorten it")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _FatalError(f"is not UTF-8 at line {line} (byte 0x{content[error.start]:02x}): save it as UTF-8") from None
    if found := CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise _FatalError(f"is not valid YAML at line {line}: it has the control character U+{ord(found[0]):04X}: remove it")
    return text


class _Reader:
    def __init__(self) -> None:
        self.yaml = YAML(typ="safe", pure=True)
        self.faults: list[str] = []
        self.anchors: dict[str, _Item] = {}
        self.open: list[_Open] = []
        self.documents = 0
        self.values = 0
        self.found: _Item | None = None

    def read(self, text: str) -> Any:
        for event in self._events(text):
            where = f"line {event.start_mark.line + 1}"
            if isinstance(event, DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    raise _FatalError(f"is not valid YAML at {where}: a second document begins: keep one")
                if event.version or event.tags:
                    self.faults.append(f"begins with a directive (%), which changes how values are read: remove {where}")
            elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
                self._untagged(event, where)
                self.open.append(_Open(event))
                if len(self.open) > MAX_DEPTH:
                    raise _FatalError(f"is nested deeper than {MAX_DEPTH} levels at {where}: expected `key: value` lines")
            elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
                done = self.open.pop()
                self._put(_Item(done.held, done.size, done.line), done.anchor)
            elif isinstance(event, ScalarEvent):
                self._untagged(event, where)
                self._put(_Item(self._scalar(event), 1, event.start_mark.line + 1), event.anchor)
            elif isinstance(event, AliasEvent):
                if event.anchor not in self.anchors:
                    alias = f"*{event.anchor:.{SHOWN}}"
                    raise _FatalError(f"is not valid YAML at {where}: {alias} is not the name of a whole value before it")
                self._put(self.anchors[event.anchor]._replace(line=event.start_mark.line + 1), None)
        return None if self.found is None else self.found.value

    def _events(self, text: str) -> Iterator[Any]:
        try:
            yield from self.yaml.parse(text)
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = " ".join(str(getattr(error, "problem", None) or error).split())
            raise _FatalError(f"is not valid YAML{where}: {problem:.200}") from None
        except (ValueError, OverflowError) as error:  # an escape beyond Unicode, a version that is no number
            raise _FatalError(f"is not valid YAML: {error!s:.200}") from None

    def _untagged(self, event: Any, where: str) -> None:
        if event.tag is not None:
            tag = str(event.tag).replace(TAG, "!!")
            self.faults.append(f"has the tag {tag:.{SHOWN}} at {where}: write a plain value without it")

    def _scalar(self, event: Any) -> Any:
        if event.tag is not None or not event.implicit[0]:
            return event.value
        tag = str(self.yaml.resolver.resolve(ScalarNode, event.value, event.implicit))
        read = getattr(self.yaml.constructor, f"construct_yaml_{tag.removeprefix(TAG)}", None)
        if read is None:  # `<<` and `=` have a tag of their own
            return event.value
        try:
            return read(ScalarNode(tag, event.value))
        except ValueError:  # a number of more than 4,300 digits, a date that no calendar has
            return event.value

    def _put(self, item: _Item, anchor: str | None) -> None:
        self.values += item.size
        if self.values > MAX_VALUES:
            raise _FatalError(f"holds more than {MAX_VALUES:,} values, those of aliases included: shorten it")
        if anchor is not None:
            self.anchors[anchor] = item
        if not self.open:
            self.found = item
            return
        into = self.open[-1]
        into.size += item.size
        if isinstance(into.held, list):
            into.held.append(item.value)
        elif into.key is None:
            into.key = item
        else:
            self._enter(into, into.key, item.value)
            into.key = None

    def _enter(self, into: _Open, key: _Item, value: Any) -> None:
        """Puts a key and its value into a mapping, where the key can be one."""
        name, where = key.value, f"line {key.line}"
        if isinstance(name, (dict, list)):
            kind = "mapping" if isinstance(name, dict) else "list"
            self.faults.append(f"has a {kind} for a key at {where}: expected a name")
        elif name == "<<":
            self.faults.append(f"has a merge key (<<) at {where}: write the keys out")
        elif name in into.held:
            path = ".".join([*(f"{one.key.value}" for one in self.open[:-1] if one.key), str(name)])
            first = f"the first is at line {into.lines[name]}"
            self.faults.append(f"has a doubled key at {where}: {path!r:.{SHOWN}} ({first}): keep one")
        else:
            into.held[name], into.lines[name] = value, key.line
