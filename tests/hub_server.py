"""A hub with one data set, as far as `datasets` and `huggingface_hub` ask it: the files of a folder at one commit."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

REPO, COMMIT = "owner/name", "740312add88f781978c0658806c59bc2815b9866"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers about the files below `server.folder`, and notes each request in `server.asked`."""

    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    def entry(self, path: Path) -> dict[str, object]:
        name = path.relative_to(self.server.folder).as_posix()  # type: ignore[attr-defined]
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        content = path.read_bytes()
        return {"type": "file", "path": name, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}

    def do_GET(self) -> None:
        folder: Path = self.server.folder  # type: ignore[attr-defined]
        self.server.asked.append(f"{self.command} {self.path}")  # type: ignore[attr-defined]
        length = int(self.headers.get("Content-Length", 0))
        sent = self.rfile.read(length)
        url = unquote(urlsplit(self.path).path)
        files, api = f"/datasets/{REPO}/resolve/", f"/api/datasets/{REPO}"
        if url == "/":
            self.answer(200)
        elif url.startswith(files):
            commit, _, name = url.removeprefix(files).partition("/")
            path = folder / name
            if commit != COMMIT:
                self.answer(404, X_Error_Code="RevisionNotFound")
            elif not path.is_file():
                self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
            else:
                content = path.read_bytes()
                tag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(200, content, ETag=tag, X_Repo_Commit=COMMIT)
        elif url in (api, f"{api}/revision/{COMMIT}"):
            paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": path.relative_to(folder).as_posix()} for path in paths]
            self.json({"id": REPO, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0})
        elif url.startswith(f"{api}/tree/{COMMIT}"):
            inner = folder / url.removeprefix(f"{api}/tree/{COMMIT}").strip("/")
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            if inner.is_dir():
                self.json([self.entry(path) for path in sorted(inner.rglob("*") if recursive else inner.iterdir())])
            else:
                self.answer(404, X_Error_Code="EntryNotFound")
        elif url == f"{api}/paths-info/{COMMIT}":
            text = sent.decode()
            asked = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text)["paths"]
            self.json([self.entry(folder / name) for name in asked if (folder / name).exists()])
        else:
            self.answer(404, X_Error_Code="RevisionNotFound" if url.startswith(api) else "RepoNotFound")

    do_HEAD = do_POST = do_GET

    def log_message(self, *args: object) -> None:
        """Keeps the test's output clean."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a hub that has the files of a folder, and the requests that it gets."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.daemon_threads = True
        server.folder, server.asked = folder, []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", server.asked  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
