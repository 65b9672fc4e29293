"""The graph: its stages with their parameter classes, its boxes with their names, and what each box declares.

DVC passes the name of a box through the environment (DVC_STAGE), so the commands in dvc.yaml are constants and no parameter
ever reaches a shell.
"""

import importlib
import itertools
import pkgutil
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from qthink_core.artifacts import store
from qthink_core.errors import ParamError, printable
from qthink_core.pipeline import parameters

MAX_SEED_DIGITS = 10
NAME = re.compile(r"[a-z][a-z0-9_]*")
AXIS = re.compile(r"\$\{[\w.]+\}")
# A folder of the user's own, which a box depends on as it is: no stage makes it, and it may lie outside of the repository.
FOLDER = "prepare.folder"
# What is made beside the problems: a further test set must not change what is sampled from them and trained on them.
BESIDE = ("test_sets", "data.${item.task}.also")


@dataclass(frozen=True)
class Box:
    """One box of the graph: `train@gsm8k-uniform-0` is stage `train`, task `gsm8k`, system `uniform`, training seed 0."""

    stage: str
    task: str = ""
    system: str = ""
    seed: int = -1

    def __str__(self) -> str:
        seed = str(self.seed) if self.seed >= 0 else ""
        return self.stage + "@" * bool(self.task) + "-".join(filter(None, (self.task, self.system, seed)))

    @classmethod
    def parse(cls, text: str) -> "Box":
        """The box of this name; raises ParamError where the text is not the name of a box."""
        stage, _, cell = text.partition("@")
        task, system, seed = [*cell.split("-", 2), "", ""][:3]
        for part in filter(None, (stage, task, system)):
            if not NAME.fullmatch(part):
                raise ParamError(f"stage {text!r} has a part {part!r}: use small letters, digits and underscores")
        if seed and (not seed.isdecimal() or len(seed) > MAX_SEED_DIGITS):
            raise ParamError(f"stage {text!r} ends in {seed!r}: a training seed is a whole number, 0 or more")
        found = cls(stage, task, system, int(seed) if seed else -1)
        if str(found) != text:
            raise ParamError(f"stage {text!r} is not the name of a box: {str(found)!r} would be one")
        return found


def parameter_classes() -> dict[str, type[parameters.Section]]:
    """The parameters class of every stage, found in the `stages` package; their modules import nothing heavy."""
    import stages  # the only import of `stages` here: all parameters are checked before anything expensive starts

    names = sorted(module.name for module in pkgutil.iter_modules(stages.__path__))
    return {name: importlib.import_module(f"stages.{name}").Params for name in names}


def checked_parameters(root: Path, scale: str | None = None) -> dict[str, Any]:
    """The checked parameters of all stages, at the scale of params.yaml or at `scale`.

    Raises ParamError with every fault of the params files, one per line.
    """
    return checked(parameters.read(root, scale))


def checked(files: parameters.Files) -> dict[str, Any]:
    """The tree of the files; raises ParamError with their faults and those of the parameters, one per line."""
    # Imported by name, like the parameter classes: checks only reject parameters, so editing one must not rerun stages.
    checks = importlib.import_module("qthink_core.pipeline.checks")
    of_values = checks.faults(files.tree, files.origin, parameter_classes(), files.whole) if files.tree else []
    if found := files.faults + of_values:
        raise ParamError("\n".join(found))
    return files.tree


def resolve(text: str, at: Box, tree: Mapping[str, Any]) -> str:
    """A path or key of dvc.yaml with its `${...}` filled in for one box, from the parts of its name or from parameters."""
    known = {"item.task": at.task, "item.system": at.system, "item.seed": str(at.seed)}
    return re.sub(
        r"\$\{([^}]*)\}", lambda found: known[found[1]] if found[1] in known else parameters.value(tree, found[1]), text
    )


def stages(root: Path) -> Mapping[str, Mapping[str, Any]]:
    """The stages of dvc.yaml by name, with `${...}` not filled in.

    Raises ParamError where it does not hold what is read here: commands use it without DVC, which would check it.
    """
    found: Any = parameters.read_yaml(root / "dvc.yaml").get("stages")
    whole = isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values())
    faults = [f"stages.{name}.{key}" for name, entry in found.items() for key in _odd(entry)] if whole else ["stages"]
    if faults:
        raise ParamError(
            f"dvc.yaml has something else than expected at {printable(faults[0])}: correct it, or run "
            "`git checkout dvc.yaml`"
        )
    return cast("Mapping[str, Mapping[str, Any]]", found)


def _odd(entry: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a stage whose values have another form than stages have here."""
    if not isinstance(entry.get("cmd"), str):
        yield "cmd"
    axes = entry.get("matrix", {})
    if not isinstance(axes, dict) or not all(isinstance(axis, str) and AXIS.fullmatch(axis) for axis in axes.values()):
        yield "matrix"
    for key, held in (("deps", str), ("params", str | dict), ("outs", str | dict)):
        values = entry.get(key, [])
        if not isinstance(values, list) or not all(isinstance(one, held) and one for one in values):
            yield key


def boxes(stage: str, entry: Mapping[str, Any], tree: Mapping[str, Any]) -> list[Box]:
    """Every box of a stage: the product of the lists of parameters that its matrix names."""
    axes = [list(parameters.value(tree, axis[2:-1])) for axis in entry.get("matrix", {}).values()]
    return [Box(stage, **dict(zip(entry.get("matrix", {}), cell, strict=True))) for cell in itertools.product(*axes)]


def all_boxes(root: Path, tree: Mapping[str, Any]) -> list[Box]:
    """Every box of the graph, in the order of dvc.yaml."""
    return [one for stage, entry in stages(root).items() for one in boxes(stage, entry, tree)]


def declared(root: Path, at: Box, tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The deps and params of a box as dvc.yaml declares them: {"deps": [path], "folders": [path], "params": {file: [key]}}.

    `folders` are the user's own, and not among the deps.
    """
    known = stages(root)
    if at.stage not in known:
        raise ParamError(f"dvc.yaml has no stage {at.stage!r}: it has {', '.join(known)}")
    entry = known[at.stage]
    params: dict[str, list[str]] = {}
    for key in entry.get("params", []):
        for file, names in key.items() if isinstance(key, dict) else [("params.yaml", [key])]:
            params.setdefault(resolve(file, at, tree), []).extend(resolve(name, at, tree) for name in names)
    deps: dict[bool, list[str]] = {True: [], False: []}
    for dep in entry.get("deps", []):
        deps[dep == f"${{{FOLDER}}}"].append(resolve(dep, at, tree))
    return {"deps": deps[False], "folders": deps[True], "params": params}


def outs(root: Path, tree: Mapping[str, Any]) -> dict[Path, Box]:
    """Every path among the `outs` of the graph, in its order, with the box that makes it."""
    return {
        Path(resolve(out if isinstance(out, str) else next(iter(out)), one, tree)): one
        for stage, entry in stages(root).items()
        for one in boxes(stage, entry, tree)
        for out in entry.get("outs", [])
    }


def remove_orphans(root: Path, at: Box) -> list[str]:
    """Removes from the input folders of a box the artifacts that no box of the graph makes any more, and returns them.

    A stage that depends on a whole folder (all seeds of a system, all systems of a task) would otherwise hash and check the
    artifacts of a seed or system that was removed from params. DVC's cache keeps them. An artifact is removed only if its
    manifest names its folder, and only from an input folder in which boxes of the graph make artifacts. Artifacts that they
    make inside the removed folder stay.
    """
    tree, _ = parameters.load(root)
    made = set(outs(root, tree))
    shared = [dep for dep in map(Path, declared(root, at, tree)["deps"]) if any(dep in out.parents for out in made)]
    gone = []
    for file in sorted(file for dep in shared for file in (root / dep).rglob(store.MANIFEST)):
        folder = file.parent.relative_to(root)
        if not made & {folder, *folder.parents} and store.placed(root / folder) == str(folder):
            _remove(root, folder, made)
            gone.append(str(folder))
    return gone


def _remove(root: Path, folder: Path, but: set[Path]) -> None:
    """Removes a folder, except for the paths `but` inside it."""
    if not any(folder in one.parents for one in but):
        shutil.rmtree(root / folder)
        return
    for path in (root / folder).iterdir():
        inner = path.relative_to(root)
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        elif inner not in but:
            _remove(root, inner, but)
