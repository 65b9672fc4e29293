"""The page of `qthink demo`: a server for one person on this machine, from the standard library alone.

It listens on 127.0.0.1. A page of another site cannot read from it or ask it anything: the Host and Origin headers are
checked, which also defeats a name that resolves to 127.0.0.1, and a question must be sent as JSON, for which browsers first
ask a permission that is never given. There are no accounts: whoever may run programs on this machine may ask.
"""

import contextlib
import errno
import http.client
import json
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from qthink_core.artifacts.files import read_object
from qthink_core.errors import ParamError
from qthink_core.inference.settings import Settings
from qthink_core.inference.side_by_side import Event, Way, answered

FILES = Path(__file__).with_name("page")
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
MAX_BODY = 256 * 1024  # bytes of a request; no model takes a question that long
MAX_WAITING = 16
MAX_DRAINED = 16 * 1024 * 1024
LOOK_S = 0.25  # how often a question that waits looks whether its client is still there


class Refused(Exception):
    """A request that is not answered: its status, and one line for the page."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Line:
    """Questions that are answered one at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[object] = []

    @property
    def length(self) -> int:
        """The number of questions that are being answered or wait."""
        return len(self._tickets)

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[float], int]]:
        """A place at the end of the line, left at the end of the block.

        It is a function that waits at most some seconds and returns how many questions come first; 0: it is this one's turn.
        Raises Refused when the line is full.
        """
        ticket = object()
        with self._changed:
            if len(self._tickets) >= MAX_WAITING:
                raise Refused(503, f"{MAX_WAITING} questions are waiting already: ask again later")
            self._tickets.append(ticket)

        def ahead(seconds: float) -> int:
            with self._changed:
                if self._tickets.index(ticket):
                    self._changed.wait(seconds)
                return self._tickets.index(ticket)

        try:
            yield ahead
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()


class PageServer(ThreadingMixIn, TCPServer):
    """Serves the page at `address` until it is closed; `serve_forever` answers requests."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, ways: Sequence[Way], how: Settings, model: str, port: int = 0) -> None:
        """Port 0 takes a free one. Raises ParamError when the port is not available."""
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as error:
            taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
            why = "is used by another program" if error.errno == errno.EADDRINUSE else "is not open to you"
            if not taken:
                raise
            raise ParamError(f"port {port} {why}: give another with --port, or leave it out for a free one") from None
        self.ways, self.how, self.model = ways, how, model
        self.line = Line()
        self.port: int = self.server_address[1]
        self.hosts = hosts(self.port)
        self.address = f"http://{self.hosts[0]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A traceback, except where a client has hung up or was too slow."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def hosts(port: int) -> list[str]:
    """The names of this server in a request; clients leave out the port 80, which is that of http."""
    names = ["127.0.0.1", "localhost"]
    return [f"{name}:{port}" for name in names] + (names if port == http.client.HTTP_PORT else [])


class Handler(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: the end of the connection is the end of the answer."""

    server: PageServer
    disable_nagle_algorithm = True  # each piece of text leaves at once
    timeout = 30  # seconds that a client may take to send, or to read what it asked for
    server_version, sys_version = "qthink", ""

    def do_GET(self) -> None:
        """The page, its style and script, or what it shows of the model."""
        path = self.path.partition("?")[0]
        about = {
            "model": self.server.model,
            "ways": [{"key": w.key, "name": w.name, "about": w.about} for w in self.server.ways],
        }
        name = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js"}.get(path)
        with self._refusing():
            self._check_source()
            if path == "/about":
                self._send(200, "application/json", json.dumps(about).encode())
            elif name is None:
                raise Refused(404, f"there is nothing at this address: open {self.server.address}")
            else:
                self._send(200, TYPES[name.rpartition(".")[2]], (FILES / name).read_bytes())

    def do_POST(self) -> None:
        """The answers to a question, `{"question": "...", "ways": ["latent", ...]}`, as JSON lines while they are made."""
        with self._refusing():
            body = self._body()  # read in any case: an answer that comes before its end may not be seen
            self._check_source()
            if self.path != "/ask":
                raise Refused(404, "there is nothing to ask at this address: send the question to /ask")
            if self.headers.get_content_type() != "application/json":
                raise Refused(415, "the content type is not application/json: send the question as JSON")
            question, these = self._asked(body)
            with self.server.line.place() as ahead:
                self._head(200, "application/x-ndjson")
                before = None
                while waiting := ahead(LOOK_S if before is not None else 0):
                    if waiting != before:
                        self._event({"ahead": waiting})
                    before = waiting
                    if self._gone():
                        return
                with contextlib.closing(answered(these, question, self.server.how, self._gone)) as events:  # type: ignore[type-var]
                    for event in events:
                        self._event(event)
                self._event({"end": True})

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise Refused(411, "the request does not say its length: send Content-Length")
        if len(length) > 12 or int(length) > MAX_BODY:
            left = min(int(length[:12]), MAX_DRAINED)
            while left > 0 and (read := self.rfile.read(min(left, 1 << 16))):
                left -= len(read)
            raise Refused(413, f"the question is too long: ask one of at most {MAX_BODY // 1024} KiB")
        return self.rfile.read(int(length))

    def _asked(self, body: bytes) -> tuple[str, list[Way]]:
        try:
            row = read_object(body)
        except ValueError as error:
            raise Refused(400, f'the request {error}: send {{"question": "..."}}') from None
        question, keys = row.get("question"), row.get("ways", [way.key for way in self.server.ways])
        if not isinstance(question, str) or not question.strip():
            raise Refused(400, "the question is empty: type one first")
        known = {way.key: way for way in self.server.ways}
        if not isinstance(keys, list) or not keys or not all(isinstance(key, str) and key in known for key in keys):
            raise Refused(400, f"the ways are not among {', '.join(known)}: name at least one of these")
        return question.strip(), [way for way in self.server.ways if way.key in keys]

    def _check_source(self) -> None:
        """Refuses a request that a page of another site, or another name for this machine, has caused."""
        origin = self.headers.get("Origin")
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            raise Refused(403, f"this address is not known here: open {self.server.address}")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            raise Refused(403, f"the request comes from another page: open {self.server.address}")

    def _gone(self) -> bool:
        """Whether the client has hung up."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""

    def _event(self, event: Event) -> None:
        self.wfile.write(json.dumps(event).encode() + b"\n")

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            self._send(refused.status, "application/json", json.dumps({"error": str(refused)}).encode())

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self._head(status, kind, len(content))
        self.wfile.write(content)

    def _head(self, status: int, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what a client sends does not reach the terminal."""
