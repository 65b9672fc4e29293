"""The results and parameters of a run, from a Git revision, a DVC experiment or the workspace."""

import csv
import io
import os
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core.errors import DataError, ParamError
from qthink_core.pipeline import graph, parameters

REPORT = "report"
TOKENS, LATENTS = "mean_tokens", "latent_passes"
# Between a task and its further test set in the name of a benchmark: no task has a hyphen in its name.
OF_SET = "-"
# DVC keeps experiments here, as <two digits of the baseline>/<the rest>/<name>.
EXPERIMENTS = "refs/exps"


class Verdicts(NamedTuple):
    """The questions of a task, and right or not by system and condition: a row per training seed, a column per question.

    The condition `` is the system as trained.
    """

    ids: list[str]
    right: Mapping[tuple[str, str], list[list[bool]]]


class Run(NamedTuple):
    """The parameters, and by task the verdicts, mean tokens and latent passes of each system; `name` says where from."""

    name: str
    params: Mapping[str, Any]
    verdicts: Mapping[str, Verdicts]
    tokens: Mapping[str, Mapping[str, float]]
    latents: Mapping[str, Mapping[str, int]] = {}


class Files(NamedTuple):
    """The files of a revision or of the workspace, by path relative to the repository.

    `read` returns None for a file that is missing; `names` lists the files of a folder.
    """

    name: str
    read: Callable[[str], bytes | None]
    names: Callable[[str], list[str]]


def git(root: Path, *arguments: str) -> bytes | None:
    """The output of a Git command; None if it fails or Git is not installed."""
    try:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def workspace(root: Path) -> Files:
    """The files as they are on the disk."""

    def read(path: str) -> bytes | None:
        try:
            return (root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(folder: str) -> list[str]:
        place = root / folder
        return sorted(one.name for one in place.iterdir()) if place.is_dir() else []

    return Files("the workspace", read, names)


def revision(root: Path, name: str) -> Files:
    """The files of a branch, tag, commit or DVC experiment.

    Raises ParamError when `root` is not in a Git repository, or the repository has no such revision.
    """
    commit = commit_of(root, name)
    short = commit[:7]

    def names(folder: str) -> list[str]:
        listed = git(root, "ls-tree", "-z", "--name-only", commit, f"{folder}/") or b""
        return sorted(Path(os.fsdecode(one)).name for one in listed.split(b"\0") if one)

    shown = short if commit.startswith(name) else f"{name} ({short})"
    return Files(shown, lambda path: git(root, "show", f"{commit}:./{path}"), names)


def commit_of(root: Path, name: str) -> str:
    """The hash of the commit that a revision or an experiment names; raises ParamError as `revision` does."""
    if git(root, "rev-parse", "--git-dir") is None:
        raise ParamError("Git finds no repository here: run it in a clone of QThink, with Git installed")
    found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is not None:
        return found.decode().strip()
    listed = (git(root, "for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS) or b"").decode(errors="replace")
    commits = {commit for commit, _, ref in (line.partition(" ") for line in listed.splitlines()) if _named(ref, name)}
    if len(commits) > 1:
        raise ParamError(f"{len(commits)} experiments are named {name!r:.80}: give the commit of one, from `dvc exp show`")
    if not commits:
        raise ParamError(f"there is no revision {name!r:.80}: give a branch, tag, commit or experiment (`dvc exp show`)")
    return commits.pop()


def _named(ref: str, name: str) -> bool:
    _, _, baseline, _, *rest = [*ref.split("/"), "", ""]
    return len(baseline) == 2 and rest[:1] == [name]


def read(root: Path, files: Files) -> Run:
    """The run whose results are in these files.

    Raises DataError when a file of the results is missing or damaged, and ParamError when the parameters are.
    """
    folder = results(root)
    params = parameters_of(files)
    names = [name for name in files.names(f"{folder}/verdicts") if name.endswith(".csv")]
    texts = {f"{folder}/verdicts/{name}": files.read(f"{folder}/verdicts/{name}") for name in names}
    path_of_tokens = f"{folder}/tokens.csv"
    tokens = files.read(path_of_tokens)
    if not texts or tokens is None:
        missing = path_of_tokens if texts else f"{folder}/verdicts"
        raise DataError(f"{files.name} has no {missing}: run `dvc repro`, or name a revision with results")
    verdicts = {}
    for path, text in texts.items():
        verdicts[Path(path).stem] = _parsed(files.name, path, text or b"", verdicts_of)
    found = {
        column: _parsed(files.name, path_of_tokens, tokens, partial(numbers_of, column)) for column in (TOKENS, LATENTS)
    }
    latents = {task: {name: int(value) for name, value in row.items()} for task, row in found[LATENTS].items()}
    return Run(files.name, params, verdicts, found[TOKENS], latents)


def results(root: Path) -> Path:
    """The folder of the report's files, as dvc.yaml declares them."""
    entry = graph.stages(root).get(REPORT)
    if entry is None:
        raise DataError(f"dvc.yaml has no stage {REPORT!r}: run it in a clone of QThink")
    first = entry["outs"][0]
    return Path(first if isinstance(first, str) else next(iter(first))).parent


def parameters_of(files: Files) -> dict[str, Any]:
    """The merged tree of params.yaml and the file of its scale; raises ParamError when one is missing or is not YAML."""

    def tree(path: str) -> Mapping[str, Any]:
        content = files.read(path)
        if content is None:
            raise ParamError(f"{files.name} has no {path}: name a revision of QThink with parameters")
        return parameters.parse_yaml(Path(f"{path} of {files.name}"), content)

    common = tree("params.yaml")
    return parameters.merge(common, tree(f"params/{common.get('scale')}.yaml"))


def verdicts_of(text: bytes) -> Verdicts:
    """The verdicts in a file of results/verdicts (exports.verdicts_csv)."""
    head, *rows = csv.reader(io.StringIO(text.decode()))
    right: dict[tuple[str, str], list[list[bool]]] = {}
    for column, name in enumerate(head[1:], 1):
        system, _, rest = name.partition(":")
        seed, _, condition = rest.partition(":")
        if not seed.isdecimal():
            condition = rest
        right.setdefault((system, condition), []).append([row[column] == "r" for row in rows])
    return Verdicts([row[0] for row in rows], right)


def numbers_of(column: str, text: bytes) -> dict[str, dict[str, float]]:
    """A column of results/tokens.csv by task and system (exports.tokens_csv)."""
    found: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO(text.decode())):
        found.setdefault(row["benchmark"], {})[row["system"]] = float(row[column])
    return found


def _parsed(name: str, path: str, text: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(text)
    except (ValueError, KeyError, IndexError, TypeError, csv.Error):
        raise DataError(f"{path} of {name} is damaged or not a file of the report: restore it, or run `dvc repro`") from None
