"""Checks of the problems' places: tasks with an entry, test sets that can be asked, folders that no stage writes to."""

import difflib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from qthink_core.pipeline.checks.names import has_form
from qthink_core.pipeline.parameters import Path_, file_of

# Folders in which stages write, and DVC's and Git's own.
MADE = ("artifacts", "models", "results", "demo", ".work", "logs", ".dvc", ".git")
GENERATED, HUB = "generated", "hub"


def _tasks(tree: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of the tasks of the run, those that have one; malformed ones and names are reported elsewhere."""
    tasks, data = tree.get("tasks"), tree.get("data")
    if not isinstance(tasks, list) or not isinstance(data, Mapping):
        return {}
    return {name: data[name] for name in tasks if has_form(name) and isinstance(data.get(name), Mapping)}


def _source(tree: Mapping[str, Any]) -> Any:
    prepare = tree.get("prepare")
    return prepare.get("source") if isinstance(prepare, Mapping) else None


def task_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of tasks without an entry in `data`, and of problems that cannot be generated."""
    tasks, data = tree.get("tasks"), tree.get("data")
    here = f"{file_of(origin, ('tasks',))}: tasks names"
    if isinstance(tasks, list) and isinstance(data, Mapping):
        for name in dict.fromkeys(filter(has_form, tasks)):
            if name not in data:
                near = difflib.get_close_matches(name, list(map(str, data)), n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}? Else add" if near else "add"
                yield f"{here} {name}, which has no entry in data: {hint} data.{name} (docs/data.md)"
    if _source(tree) == GENERATED:
        where = file_of(origin, ("prepare", "source"))
        for name in ("n_train", "n_test"):
            if tree["prepare"].get(name) == "all":
                yield f"{where}: prepare.{name} is 'all', but prepare.source is generated, which has no end: give a number"
        if tree.get("world") is None:
            yield f"{where}: prepare.source is generated, but there is no world: add one, as in params/tiny.yaml"
        for name, entry in _tasks(tree).items():
            if entry.get("benchmark") != name:
                yield (
                    f"{here} {name}, but prepare.source is generated, which makes only problems of the benchmarks: "
                    f"set prepare.source in {where} to folder or hub"
                )


def set_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of `also`: sets that there are not, are of another benchmark or come twice, and runs that ask no test set."""
    known, source = tree.get("test_sets"), _source(tree)
    for task, entry in _tasks(tree).items():
        also = entry.get("also")
        if not isinstance(also, list) or not also or not isinstance(known, Mapping):
            continue
        here = f"{file_of(origin, ('data', task, 'also'))}: data.{task}.also names"
        listed = list(map(str, also))
        if source == GENERATED:
            yield (
                f"{here} {', '.join(listed)}, but prepare.source is generated, which makes no further test sets: set "
                f"prepare.source in {file_of(origin, ('prepare', 'source'))} to folder or hub, or also to []"
            )
        if tree.get("split") == "validation":
            yield f"{here} {', '.join(listed)}, but split: validation asks no test question: set also to [] or split to test"
        for name, times in Counter(listed).items():
            one = known.get(name)
            if name not in known:
                near = difflib.get_close_matches(name[:80], list(map(str, known)), n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}? Else add" if near else "add"
                yield f"{here} {name:.80}, which has no entry in test_sets: {hint} test_sets.{name} (docs/data.md)"
            elif isinstance(one, Mapping) and one.get("benchmark") != entry.get("benchmark"):
                yield f"{here} {name}, whose benchmark is {one.get('benchmark')} and not {entry.get('benchmark')}: remove it"
            if times > 1:
                yield f"{here} {name} {times} times: keep one"


def _places(tree: Mapping[str, Any]) -> Iterator[tuple[Path_, Any]]:
    """The place of each split and test set that the tasks use, with its key."""
    sets = tree.get("test_sets")
    wanted: dict[str, None] = {}
    for name, entry in _tasks(tree).items():
        yield from ((("data", name, split), entry.get(split)) for split in ("train", "test"))
        wanted |= dict.fromkeys(map(str, entry["also"])) if isinstance(entry.get("also"), list) else {}
    yield from ((("test_sets", name), sets.get(name)) for name in wanted if isinstance(sets, Mapping))


def place_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of places that `prepare.source` cannot use: without a file for `folder`, without a commit for `hub`."""
    source = _source(tree)
    for key, place in _places(tree):
        if not isinstance(place, Mapping) or source not in ("folder", HUB):
            continue
        here = f"{file_of(origin, key)}: {'.'.join(key)}"
        if source == "folder" and place.get("repo") and not place.get("file"):
            yield f"{here} names no file, but prepare.source is folder: add its file, or set prepare.source to hub"
        if source == HUB and place.get("repo") and not place.get("revision"):
            yield (
                f"{here} has no revision, the commit of {place['repo']} that you choose: add the 40 hexadecimal digits "
                f"under 'Files and versions' at huggingface.co/datasets/{place['repo']}"
            )


def folder_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of the user's folders: one that stages write to, and the environment variable that once named that of data."""
    for section, fix in (("prepare", "name a folder for data alone, such as data"), ("base", "copy the model to another")):
        held = tree.get(section)
        folder = held.get("folder") if isinstance(held, Mapping) else None
        if not isinstance(folder, str) or not folder:
            continue
        where = f"{file_of(origin, (section, 'folder'))}: {section}.folder is {folder!r:.80}"
        parts = PurePath(os.path.relpath(folder)).parts  # of an absolute one, too: it may hold this folder
        if folder.startswith("~"):
            yield f"{where}: write the home folder out"
        elif not parts or parts[0] in MADE or set(parts) == {".."}:
            yield f"{where}, which holds what the stages make: {fix}"
    if os.environ.get("QTHINK_DATA") and _source(tree) in ("folder", HUB):
        yield (
            "the environment sets QTHINK_DATA, which is not read, because DVC would not notice another folder: unset it, "
            "and name the folder in params.yaml (prepare.folder), as `dvc exp run -S prepare.folder=PATH` does"
        )
