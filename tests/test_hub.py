"""The hub: pinned commits, the cache first, one quick line when it cannot be reached."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

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
