"""The hub: pinned commits, the cache first, one quick line when it cannot be reached."""

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import hub_server
import pytest
from imports import ROOT

from qthink_core import hub
from qthink_core.errors import DataError, ParamError

COMMIT = "740312add88f781978c0658806c59bc2815b9866"
CONTENT = b"the file's bytes"
SCRIPT = """
import sys
from qthink_core import errors, hub
try:
    print(hub.dataset_file(*sys.argv[1:]).read_bytes().decode())
except errors.QThinkError as error:
    print(error)
    sys.exit(error.exit_code)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The two answers of a hub that huggingface_hub needs to download one file."""

    def do_HEAD(self) -> None:
        known = self.path in ("/", f"/datasets/owner/name/resolve/{COMMIT}/test.jsonl")
        self.send_response(200 if known else 404)
        if not known:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", '"etag"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(CONTENT) if known else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)

    def log_message(self, *args: object) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def fetch(home: Path, endpoint: str, *arguments: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    # huggingface_hub reads its environment once, at import.
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": offline,
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_file_is_downloaded_once_and_then_comes_from_the_cache(endpoint: str, tmp_path: Path) -> None:
    first = fetch(tmp_path, endpoint, "owner/name", COMMIT, "test.jsonl")
    assert first.stdout.strip() == CONTENT.decode(), first.stderr
    again = fetch(tmp_path, "http://127.0.0.1:9", "owner/name", COMMIT, "test.jsonl")
    assert again.stdout.strip() == CONTENT.decode(), again.stderr


@pytest.mark.slow
def test_a_file_that_the_commit_lacks_is_named(endpoint: str, tmp_path: Path) -> None:
    found = fetch(tmp_path, endpoint, "owner/name", COMMIT, "absent.jsonl")
    assert found.returncode == 65, found.stderr
    assert f"owner/name at {COMMIT} (absent.jsonl)" in found.stdout


@pytest.mark.parametrize("offline", ["0", "1"])
def test_an_unreachable_hub_costs_one_line_and_seconds(tmp_path: Path, offline: str) -> None:
    start = time.monotonic()
    found = fetch(tmp_path, "http://127.0.0.1:9", "owner/name", COMMIT, "test.jsonl", offline=offline)
    assert time.monotonic() - start < hub.PROBE_S
    assert found.returncode == 65
    assert f"owner/name at {COMMIT} (test.jsonl)" in found.stdout
    assert len(found.stdout.splitlines()) == 1
    assert found.stderr == ""


class Broken(Hub):
    """What stands between a machine and the hub: it hangs up, sends junk, or shows a page of its own."""

    def do_HEAD(self) -> None:
        kind = self.server.kind  # type: ignore[attr-defined]
        if kind == "junk":
            self.wfile.write(b"junk\r\n\r\n")
        elif kind == "portal":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.server.kind == "portal":  # type: ignore[attr-defined]
            self.wfile.write(b"<html>Log in</html>")


@pytest.fixture
def broken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub is a server that is broken in some way, and the cache is empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        server.kind = request.param  # type: ignore[attr-defined]
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("broken", ["hangs up", "junk", "portal"], indirect=True)
def test_a_hub_whose_reply_cannot_be_read_is_one_line_and_the_cache_is_used(broken: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^owner/name at main is not in the local cache and could not be") as caught:
        hub.snapshot("owner/name", None, ["*.json"])
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not in the local cache and could not be downloaded"):
        hub.dataset_file("owner/name", COMMIT, "test.jsonl")
    with pytest.raises(DataError, match="is not in the local cache and could not be downloaded"):
        hub.model_folder("owner/name", COMMIT, ["*.json"])
    folder = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    assert hub.snapshot("owner/name", None, ["*.json"]) == folder


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:12], COMMIT.upper(), ""])
def test_a_revision_that_can_move_is_refused(revision: str) -> None:
    with pytest.raises(ParamError, match="is not a commit: give the 40 hexadecimal digits"):
        hub.dataset_file("owner/name", revision, "test.jsonl")


@pytest.mark.parametrize("repo", ["../name", "a/b/c", "owner/na me", ""])
def test_a_repository_name_that_leaves_the_cache_is_refused(repo: str) -> None:
    with pytest.raises(ParamError, match="is not a repository of the hub"):
        hub.dataset_file(repo, COMMIT, "test.jsonl")


README = """---
configs:
- config_name: main
  data_files: [{split: train, path: main/train*}, {split: test, path: main/test*}]
- config_name: other
  data_files: [{split: train, path: other/train*}]
---
"""
LOAD = """
import json, sys
from qthink_core import errors, hub
try:
    found = hub.dataset_split(*[text or None for text in sys.argv[1:]])
    print(json.dumps([found.to_list(), found._fingerprint]))
except errors.QThinkError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data set in the hub's layout, with two configurations."""
    folder = tmp_path / "repository"
    for name in ("main/train", "main/test", "other/train"):
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f'{{"question": "{name} {n}?", "answer": "{n}"}}\n' for n in range(3)))
    (folder / "README.md").write_text(README)
    return folder


def load(home: Path, address: str, *arguments: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    away = kept | {"HF_HOME": str(home), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": offline, "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", LOAD, *arguments]
    away |= {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=away, cwd=home.parent, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_split_is_loaded_at_its_commit_once_and_then_comes_from_the_cache(repository: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with hub_server.serving(repository) as (address, asked):
        first = load(home, address, hub_server.REPO, "main", "test", COMMIT)
        assert first.returncode == 0, first.stdout + first.stderr
        n = len(asked)
        assert load(home, address, hub_server.REPO, "main", "train", COMMIT).returncode == 0
        assert len(asked) == n, "the second split asks for nothing"
    rows, fingerprint = json.loads(first.stdout)
    assert rows == [{"question": f"main/test {n}?", "answer": str(n)} for n in range(3)]
    for away in ({"offline": "1"}, {}):
        again = load(home, "http://127.0.0.1:9", hub_server.REPO, "main", "test", COMMIT, **away)
        assert json.loads(again.stdout) == [rows, fingerprint], again.stderr
    # Another commit, configuration or default than what is cached is not replaced by it, as `datasets` would.
    for name, commit in (("main", "a" * 40), ("other", COMMIT), ("", COMMIT)):
        begun = time.monotonic()
        refused = load(home, "http://127.0.0.1:9", hub_server.REPO, name, "test", commit)
        assert time.monotonic() - begun < hub.PROBE_S
        assert refused.returncode == 65
        said = f"owner/name at {commit} (configuration {name or 'by default'}, split test) is not in the local cache"
        assert refused.stdout.startswith(said)
        assert len(refused.stdout.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "split", "commit", "said"),
    [
        ("main", "test", "a" * 40, f"Revision '{'a' * 40}' doesn't exist"),
        ("mian", "test", COMMIT, "BuilderConfig 'mian' not found. Available: ['main', 'other']"),
        ("main", "validation", COMMIT, 'Unknown split "validation". Should be one of'),
        ("script", "test", COMMIT, "Dataset scripts are no longer supported, but found name.py"),
    ],
)
def test_what_a_repository_does_not_have_is_one_line_and_its_code_is_never_run(
    repository: Path, tmp_path: Path, name: str, split: str, commit: str, said: str
) -> None:
    if name == "script":
        (repository / "name.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with hub_server.serving(repository) as (address, _):
        done = load(tmp_path / "home", address, hub_server.REPO, name, split, commit)
    assert done.returncode == 65, done.stderr
    assert said in done.stdout
    assert f"(configuration {name}, split {split}) could not be loaded" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_commit_that_the_library_replaced_by_another_one_of_its_cache_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        cache_files: ClassVar = [{"filename": f"/cache/owner___name/main/0.0.0/{'b' * 40}/name-test.arrow"}]

    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Found)
    monkeypatch.setattr(hub, "_require_reachable", lambda *_: None)
    monkeypatch.setattr(hub, "cached_dataset", lambda *_: None)
    with pytest.raises(DataError, match=f"has no commit {COMMIT} that could be loaded .* took {'b' * 40} out of its cache"):
        hub.dataset_split("owner/name", "main", "test", COMMIT)


def test_a_split_needs_a_commit() -> None:
    with pytest.raises(ParamError, match="is not a commit: give the 40 hexadecimal digits"):
        hub.dataset_split("owner/name", "main", "test", "main")
