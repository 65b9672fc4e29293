"""Checks of names: those of tasks, entries and rows of the table must be names of boxes and folders, each used once."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from qthink_core.pipeline.graph import NAME
from qthink_core.pipeline.parameters import Path_, file_of

FORM = "a small letter, then small letters, digits and underscores, at most 40 in all"
MAX_NAME = 40
# Windows opens devices in place of files of these names.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
# The names under which claims and verdicts know the base model, which is not trained.
UNTRAINED = ("base", "base_direct")


def form_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of names that the name of a box or a folder cannot hold: DVC splits at `-` and `@`, and keys at `.`."""
    named: list[tuple[Path_, Any]] = [(("scale",), tree.get("scale"))]
    if isinstance(tasks := tree.get("tasks"), list):
        named += [(("tasks",), name) for name in tasks]
    groups: list[tuple[Path_, Any]] = [(("data",), tree.get("data")), (("test_sets",), tree.get("test_sets"))]
    if isinstance(systems := tree.get("systems"), Mapping):
        groups += [(("systems", group), systems.get(group)) for group in ("baseline", "finetuned", "distilled")]
    named += [(path, name) for path, held in groups if isinstance(held, Mapping) for name in held]
    distinct = dict.fromkeys((path, str(name), name if isinstance(name, str) else None) for path, name in named)
    for path, text, name in distinct:
        if not has_form(name):
            yield f"{file_of(origin, path)}: {'.'.join(path)} has the name {text!r:.60}, expected {FORM}: rename it"
        elif text in DEVICES:
            yield f"{file_of(origin, path)}: {'.'.join(path)} has the name {text!r}, which Windows reserves: rename it"


def has_form(name: Any) -> bool:
    """Whether a task, an entry or a row may have this name."""
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and len(name) <= MAX_NAME


def name_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of names that two groups of `systems` share: both rows would be written to the same folders."""
    systems = tree.get("systems")
    held = systems if isinstance(systems, Mapping) else {}
    groups = {name: held[name] for name in ("baseline", "finetuned", "distilled") if isinstance(held.get(name), Mapping)}
    for (group, rows), (other, others) in itertools.combinations(groups.items(), 2):
        for name in rows.keys() & others.keys():
            here = f"{file_of(origin, ('systems', other, name))}: systems.{other}.{name}"
            yield f"{here} has the name of a row of systems.{group}: rename one of them"
    for group in ("finetuned", "distilled"):
        for name in groups.get(group, {}):
            if name in UNTRAINED:
                here = f"{file_of(origin, ('systems', group, name))}: systems.{group}.{name}"
                yield f"{here} has the name of the base model's row, which is not trained: rename it"
