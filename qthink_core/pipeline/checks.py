"""Checks of parameters against each other, which no section can make alone."""

import difflib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, get_args

from qthink_core.artifacts.pairs import Rule
from qthink_core.pipeline import parameters
from qthink_core.pipeline.graph import NAME
from qthink_core.pipeline.parameters import Path_, Section, file_of

FORM = "a small letter, then small letters, digits and underscores, at most 40 in all"
MAX_NAME = 40
# Windows opens devices in place of files of these names.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
# The names under which claims and verdicts know the base model, which is not trained.
UNTRAINED = ("base", "base_direct")
# Folders in which stages write, and DVC's and Git's own.
MADE = ("artifacts", "models", "results", "demo", ".work", "logs", ".dvc", ".git")
GENERATED, HUB = "generated", "hub"


def faults(tree: Mapping[str, Any], origin: Mapping[Path_, str], sections: Mapping[str, type[Section]]) -> list[str]:
    """Every fault of the parameters, one sentence each: first those of single sections, then conflicts between sections.

    The checks of conflicts skip malformed values, which the section that reads them has already reported.
    """
    found = parameters.faults(tree, origin, sections)
    for check in (
        _form_faults,
        _name_faults,
        _task_faults,
        _set_faults,
        _place_faults,
        _folder_faults,
        _trained_faults,
        _thinker_faults,
        _control_faults,
        _split_faults,
        _merged_faults,
        _pair_faults,
    ):
        found += check(tree, origin)
    return found


def _form_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of names that the name of a box or a folder cannot hold: DVC splits at `-` and `@`, and keys at `.`."""
    systems = tree.get("systems")
    named: list[tuple[Path_, Any]] = [(("scale",), tree.get("scale"))]
    named += [(("tasks",), name) for name in tree.get("tasks") or () if isinstance(tree.get("tasks"), list)]
    for group in ("data", "test_sets"):
        named += [((group,), name) for name in tree.get(group) or () if isinstance(tree.get(group), Mapping)]
    for group in ("baseline", "finetuned", "distilled"):
        rows = systems.get(group) if isinstance(systems, Mapping) else None
        named += [(("systems", group), name) for name in rows or () if isinstance(rows, Mapping)]
    for path, name in dict.fromkeys(named):
        text = str(name)
        if not _has_form(name):
            yield f"{file_of(origin, path)}: {'.'.join(path)} has the name {text!r:.60}, expected {FORM}: rename it"
        elif text in DEVICES:
            yield f"{file_of(origin, path)}: {'.'.join(path)} has the name {text!r}, which Windows reserves: rename it"


def _has_form(name: Any) -> bool:
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and len(name) <= MAX_NAME


def _name_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
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


def _tasks(tree: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of the tasks of the run, those that have one; malformed ones and names are reported elsewhere."""
    tasks, data = tree.get("tasks"), tree.get("data")
    if not isinstance(tasks, list) or not isinstance(data, Mapping):
        return {}
    return {name: data[name] for name in tasks if _has_form(name) and isinstance(data.get(name), Mapping)}


def _source(tree: Mapping[str, Any]) -> Any:
    prepare = tree.get("prepare")
    return prepare.get("source") if isinstance(prepare, Mapping) else None


def _task_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of tasks without an entry in `data`, and of problems that cannot be generated."""
    tasks, data = tree.get("tasks"), tree.get("data")
    here = f"{file_of(origin, ('tasks',))}: tasks names"
    if isinstance(tasks, list) and isinstance(data, Mapping):
        for name in dict.fromkeys(filter(_has_form, tasks)):
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


def _set_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
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
        for name in dict.fromkeys(listed):
            one = known.get(name)
            if name not in known:
                near = difflib.get_close_matches(name, list(map(str, known)), n=1, cutoff=0.5)
                hint = f"did you mean {near[0]}? Else add" if near else "add"
                yield f"{here} {name}, which has no entry in test_sets: {hint} test_sets.{name} (docs/data.md)"
            elif isinstance(one, Mapping) and one.get("benchmark") != entry.get("benchmark"):
                yield f"{here} {name}, whose benchmark is {one.get('benchmark')} and not {entry.get('benchmark')}: remove it"
            if listed.count(name) > 1:
                yield f"{here} {name} {listed.count(name)} times: keep one"


def _places(tree: Mapping[str, Any]) -> Iterator[tuple[Path_, Any]]:
    """The place of each split and test set that the tasks use, with its key."""
    sets = tree.get("test_sets")
    wanted: dict[str, None] = {}
    for name, entry in _tasks(tree).items():
        yield from ((("data", name, split), entry.get(split)) for split in ("train", "test"))
        wanted |= dict.fromkeys(map(str, entry["also"])) if isinstance(entry.get("also"), list) else {}
    yield from ((("test_sets", name), sets.get(name)) for name in wanted if isinstance(sets, Mapping))


def _place_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
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


def _folder_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
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


def _trained_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of `systems.trained`, which must list every trained system once: DVC exports and evaluates only those."""
    systems = tree.get("systems")
    if not isinstance(systems, Mapping):
        return
    listed, groups = systems.get("trained"), [systems.get("finetuned"), systems.get("distilled")]
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in groups):
        return
    trained, defined = [str(name) for name in listed], [str(name) for one in groups for name in one or ()]
    here = f"{file_of(origin, ('systems', 'trained'))}: systems.trained"
    for name in dict.fromkeys(trained):
        if name not in defined:
            near = difflib.get_close_matches(name, defined, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            yield f"{here} names {name}, which is neither in systems.finetuned nor in systems.distilled: {hint}"
        elif trained.count(name) > 1:
            yield f"{here} names {name} {trained.count(name)} times: keep one"
    for name in defined:
        if name not in trained:
            yield f"{here} lacks {name}, which would be trained but never evaluated: add it"


def _thinker_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault unless `probe.thinker` is a base row with thinking: the probe reads the base model along its own thoughts."""
    systems, probe = tree.get("systems"), tree.get("probe")
    baseline = systems.get("baseline") if isinstance(systems, Mapping) else None
    if not isinstance(baseline, Mapping) or not isinstance(probe, Mapping) or "thinker" not in probe:
        return
    able = [str(name) for name, one in baseline.items() if isinstance(one, Mapping) and one.get("thinking") is True]
    if probe["thinker"] not in able:
        here = f"{file_of(origin, ('probe', 'thinker'))}: probe.thinker is {probe['thinker']!r}"
        yield f"{here}: name a row of systems.baseline with thinking ({', '.join(able) or 'there is none'})"


def _control_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault unless `report.control` has the targets of latent systems but no latent steps, as the verdict requires."""
    systems, report = tree.get("systems"), tree.get("report")
    finetuned = systems.get("finetuned") if isinstance(systems, Mapping) else None
    if not isinstance(finetuned, Mapping) or not isinstance(report, Mapping) or "control" not in report:
        return
    able = [str(name) for name, one in finetuned.items() if isinstance(one, Mapping) and one.get("target") == "answer"]
    if report["control"] not in able:
        here = f"{file_of(origin, ('report', 'control'))}: report.control is {report['control']!r}"
        yield f"{here}: name a row of systems.finetuned with target answer ({', '.join(able) or 'there is none'})"


def _split_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault where the scored split has too few questions to compare systems."""
    prepare = tree.get("prepare")
    held = prepare.get("n_validation") if isinstance(prepare, Mapping) else None
    if tree.get("split") == "validation" and isinstance(held, int) and held < 2:
        where = file_of(origin, ("prepare", "n_validation"))
        yield f"{where}: prepare.n_validation is {held}, but split: validation scores on them: set it to 2 or more"


def _merged_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """A fault for merged adapters in bfloat16: merged weights have the model's dtype, which rounds small updates away."""
    train = tree.get("train")
    lora = train.get("lora") if isinstance(train, Mapping) else None
    if isinstance(lora, Mapping) and lora.get("merged") is True and tree.get("dtype") == "bfloat16":
        where = file_of(origin, ("train", "lora", "merged"))
        yield f"{where}: train.lora.merged is true, but with dtype: bfloat16 merged weights are rounded: set it to false"


def _pair_faults(tree: Mapping[str, Any], origin: Mapping[Path_, str]) -> Iterator[str]:
    """Faults of `extract.also`, which must list the positions that rows need beyond the shared ones, and no others."""
    systems, extract = tree.get("systems"), tree.get("extract")
    distilled = systems.get("distilled") if isinstance(systems, Mapping) else None
    listed = extract.get("also") if isinstance(extract, Mapping) else None
    if not isinstance(distilled, Mapping) or not isinstance(extract, Mapping) or not isinstance(listed, list):
        return
    rows = {str(name): one for name, one in distilled.items() if isinstance(one, Mapping)}
    shared = tree.get("K"), extract.get("positions")
    read = [(one.get("K"), one.get("positions")) for one in listed if isinstance(one, Mapping)]
    needed = {name: (one.get("K") or shared[0], one.get("positions") or shared[1]) for name, one in rows.items()}
    if not all(map(_well_formed, (shared, *read, *needed.values()))):
        return
    here = f"{file_of(origin, ('extract', 'also'))}: extract.also"
    for pair in dict.fromkeys(needed.values()):
        if pair != shared and pair not in read:
            names = ", ".join(name for name, one in needed.items() if one == pair)
            yield f"{here} lacks what systems.distilled.{names} needs: add {_entry(pair)}"
    for pair in dict.fromkeys(read):
        if pair == shared:
            yield f"{here} lists {_entry(pair)}, which is read anyway: remove it"
        elif pair not in needed.values():
            yield f"{here} lists {_entry(pair)}, which no row of systems.distilled uses: remove it"
        elif read.count(pair) > 1:
            yield f"{here} lists {_entry(pair)} {read.count(pair)} times: keep one"


def _well_formed(pair: tuple[Any, Any]) -> bool:
    K, rule = pair
    return type(K) is int and K >= 1 and isinstance(rule, str) and rule in get_args(Rule)


def _entry(pair: tuple[Any, Any]) -> str:
    return f"{{K: {pair[0]}, positions: {pair[1]}}}"
