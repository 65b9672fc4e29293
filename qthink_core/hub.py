"""Files of the Hugging Face hub at one commit, from the local cache or downloaded.

A revision must be a full commit, because a branch or a tag could give other bytes later for the same parameters. This
module does not import torch.
"""

import contextlib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qthink_core.errors import DataError, ParamError

COMMIT = re.compile(r"[0-9a-f]{40}")
PROBE_S = 10


def dataset_file(repo: str, revision: str, file: str) -> Path:
    """The local path of one file of a dataset repository at a commit.

    Raises ParamError when the repository's name or the revision is not valid. Raises DataError naming repository, revision
    and file when the cache does not have the file, and the hub cannot be reached or does not have it either.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    _require_pinned(repo, revision)
    cached = try_to_load_from_cache(repo, file, revision=revision, repo_type="dataset")
    if isinstance(cached, str):
        return Path(cached)
    _require_reachable(repo, revision, file)
    try:
        return Path(hf_hub_download(repo, file, revision=revision, repo_type="dataset"))
    except _failures() as error:
        raise _refused(repo, revision, file, error) from error


def dataset_split(repo: str, name: str | None, split: str, revision: str) -> Any:
    """A split of a data set at a commit, as `datasets.load_dataset` gives it, from its cache or loaded from the hub.

    `datasets` itself takes any cached commit where the hub does not give the one asked for; here only that commit counts.
    Raises ParamError and DataError as `dataset_file` does, and DataError where the repository has no such configuration or
    split, needs code of its own (which is never run), or cannot be read.
    """
    _require_pinned(repo, revision)
    import datasets

    what = f"configuration {name or 'by default'}, split {split}"
    datasets.disable_progress_bars()
    try:
        if (folder := cached_dataset(repo, name, revision)) is not None:
            return _cached_builder(repo, folder).as_dataset(split=split)
        _require_reachable(repo, revision, what)
        found = datasets.load_dataset(repo, name, split=split, revision=revision, keep_in_memory=False)
    except DataError:
        raise
    except Exception as error:  # the library passes on whatever its readers raise
        raise DataError(
            f"{repo} at {revision} ({what}) could not be loaded ({_reason(error)}): correct the entry in params.yaml, or "
            "give it a file and set prepare.source to folder"
        ) from error
    folders = {Path(one["filename"]).parent.name for one in found.cache_files}
    if folders != {revision}:
        raise DataError(
            f"{repo} has no commit {revision} that could be loaded ({what}), and `datasets` took {', '.join(folders)} out "
            "of its cache in its place: correct the revision, or go online once"
        )
    return found


def cached_dataset(repo: str, name: str | None, revision: str) -> Path | None:
    """The folder in the cache of `datasets` with all splits of a data set at a commit; None where it is not there.

    Without a name it is the configuration `default`: which one the hub would choose instead is not in the cache.
    """
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    owner, _, short = repo.rpartition("/")
    place = Path(config.HF_DATASETS_CACHE) / "___".join(filter(None, (owner, camelcase_to_snakecase(short))))
    found = [path for path in place.glob(f"{name or 'default'}/*/{revision}") if (path / "dataset_info.json").is_file()]
    return found[0] if len(found) == 1 else None


def _cached_builder(repo: str, folder: Path) -> Any:
    from datasets.packaged_modules.cache.cache import Cache

    config, version = folder.parts[-3:-1]
    return Cache(repo_id=repo, dataset_name=repo.rpartition("/")[2], config_name=config, version=version, hash=folder.name)


def model_folder(repo: str, revision: str, files: list[str]) -> Path:
    """A local folder with the files of a model repository at a commit that match `files` (names or patterns).

    Raises what `dataset_file` raises.
    """
    from huggingface_hub import snapshot_download

    _require_pinned(repo, revision)
    _require_reachable(repo, revision, ", ".join(files))
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    except _failures() as error:
        raise _refused(repo, revision, ", ".join(files), error) from error


def snapshot(repo: str, revision: str | None, files: list[str], known: Sequence[str] = ()) -> Path:
    """A local folder with the files of a model repository that match `files`, at a revision or, if None, at its main branch.

    The folder is named after the commit. If the hub cannot be reached or its reply cannot be read, the cached files are
    used. `known` are files that the repository may lack, but whose absence from the cache must not go unnoticed. Raises
    ParamError when the repository's name is not valid. Raises DataError when the cache does not have the files and the hub
    cannot be reached or does not have them, and when the cache does not show whether the repository has a file of `known`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    _require_repo(repo)
    wanted = revision or "main"
    reason: BaseException | None = None
    folder: str | None = None
    try:
        _require_reachable(repo, wanted, ", ".join(files))
        folder = snapshot_download(repo, revision=wanted, allow_patterns=files)
    except DataError as error:
        reason = error.__cause__
    except _failures() as error:
        reason = error
    if folder is None and not isinstance(reason, HfHubHTTPError):  # the hub's own answer is final
        with contextlib.suppress(*_failures()):
            folder = snapshot_download(repo, revision=wanted, allow_patterns=files, local_files_only=True)
    if folder is None:
        raise DataError(
            f"{repo} at {wanted} is not in the local cache and could not be downloaded ({_reason(reason)}): go online once, "
            "name a local folder, or check the name"
        ) from reason
    _require_known(repo, Path(folder), known, reason)
    return Path(folder)


def _require_known(repo: str, folder: Path, names: Sequence[str], reason: BaseException | None) -> None:
    """Raises DataError when the cache holds neither a file nor the knowledge that the repository lacks it.

    huggingface_hub keeps a list of all files beside a whole snapshot, and otherwise a mark for each file that was asked for
    in vain. A program that fetched single files leaves neither.
    """
    from huggingface_hub import try_to_load_from_cache

    if (folder.parents[1] / "trees" / f"{folder.name}.json").is_file():
        return
    unknown = [name for name in names if try_to_load_from_cache(repo, name, revision=folder.name) is None]
    if unknown:
        why = f" ({_reason(reason)})" if reason else ""
        raise DataError(
            f"the cached files of {repo} do not show whether it takes latent steps ({', '.join(unknown)}), and the hub "
            f"could not be asked{why}: go online once, or give the number of latent steps (--latents, K=; 0 for none)"
        )


def cached_model_folder(repo: str, revision: str) -> Path | None:
    """The cached folder of a model at a commit, which may lack some of its files; None if the cache has no such folder."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    _require_pinned(repo, revision)
    name = repo_folder_name(repo_id=repo, repo_type="model")
    folder = Path(constants.HF_HUB_CACHE) / name / "snapshots" / revision
    return folder if folder.is_dir() else None


def _require_pinned(repo: str, revision: str) -> None:
    _require_repo(repo)
    if not COMMIT.fullmatch(revision):
        raise ParamError(
            f"revision '{revision}' of {repo} is not a commit: give the 40 hexadecimal digits that the hub "
            "shows under 'Files and versions', because a branch or a tag can move"
        )


def _require_repo(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ParamError(f"'{repo}' is not a repository of the hub ({error}): give it as owner/name") from None


def _require_reachable(repo: str, revision: str, file: str) -> None:
    """Raises DataError when the hub does not answer one request.

    huggingface_hub itself tries six times, and takes 23 s to report that a host name does not resolve.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        offline = OSError("HF_HUB_OFFLINE is set")
        raise _refused(repo, revision, file, offline) from offline
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=PROBE_S).close()
    except urllib.error.HTTPError:
        return  # any status is an answer
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return  # huggingface_hub uses its own certificates and checks them itself
        raise _refused(repo, revision, file, OSError(str(error.reason))) from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        raise _refused(repo, revision, file, error) from error


def _failures() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when the hub fails or its reply cannot be read, such as the page of a captive portal."""
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    return HTTPError, LocalEntryNotFoundError, ValueError


def _refused(repo: str, revision: str, file: str, error: Exception) -> DataError:
    return DataError(
        f"{repo} at {revision} ({file}) is not in the local cache and could not be downloaded ({_reason(error)}): "
        "go online once, or take it from a local folder (base.folder; prepare.source: folder)"
    )


def _reason(error: BaseException | None) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
