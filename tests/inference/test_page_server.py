"""The page of `qthink demo` over HTTP: the answers are LatentReasoner's, one at a time, for this machine's page alone."""

import http.client
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from checkpoints import exported, plain
from scripted import Scripted

from qthink_core import LatentReasoner
from qthink_core.errors import ParamError
from qthink_core.inference import page_server
from qthink_core.inference.page_server import PageServer
from qthink_core.inference.settings import Settings
from qthink_core.inference.shown import inert
from qthink_core.inference.side_by_side import Way, ways
from qthink_core.report import page

QUESTION = "Tom has 8 apples, buys 3, loses half. How many apples does Tom have?"
HOW = Settings(max_new_tokens=12)
K = 6


@pytest.fixture
def reasoner(qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path) -> LatentReasoner:
    return LatentReasoner.from_pretrained(exported(tmp_path / "model", qwen3(), tokenizer, random_head(), K))


@pytest.fixture
def base(qwen3: Any, tokenizer: Any, tmp_path: Path) -> LatentReasoner:
    return LatentReasoner.from_pretrained(plain(tmp_path / "base", qwen3(seed=7), tokenizer))


@pytest.fixture
def serve() -> Iterator[Callable[..., PageServer]]:
    """Starts servers in threads; at the end they are closed."""
    running: list[PageServer] = []

    def start(these: Any, how: Settings = HOW) -> PageServer:
        server = PageServer(these, how, "models/tiny")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


class Answer:
    """A response: its status, headers and text; `events` are its JSON lines."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.text = response.status, response.headers, response.read().decode()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def error(self) -> str:
        (event,) = self.events
        assert "\n" not in event["error"]
        return str(event["error"])


def send(server: PageServer, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return Answer(connection.getresponse())


def ask(server: PageServer, **row: Any) -> Answer:
    return send(server, "POST", "/ask", json.dumps(row), Content_Type="application/json")


def by_way(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The events of each way, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if "way" in event:
            found[key := event["way"]] = []
        elif "end" not in event:
            found[key].append(event)
    return found


def joined(events: list[dict[str, Any]]) -> str:
    return "".join(event.get("piece", "") for event in events)


@pytest.mark.slow
def test_each_way_streams_the_answer_of_its_reasoner(
    reasoner: LatentReasoner, base: LatentReasoner, serve: Callable[..., PageServer]
) -> None:
    events = ask(serve(ways(reasoner, base)), question=QUESTION).events
    assert events[-1] == {"end": True}
    expected = {
        "latent": reasoner,
        "none": LatentReasoner.from_pretrained(reasoner.folder, 0, thinking=False),
        "thinking": LatentReasoner.from_pretrained(reasoner.folder, 0, thinking=True),
        "base": base,
    }
    found = by_way(events)
    assert list(found) == list(expected)
    for key, one in expected.items():
        response = one.generate(QUESTION, max_new_tokens=12)
        pieces = [event for event in found[key] if "piece" in event]
        assert len(pieces) > 1
        assert joined(pieces) == inert(response.text)
        done = found[key][-1]["done"]
        assert done.pop("seconds") > 0
        assert done == {"tokens": response.new_tokens, "latent_steps": one.K, "cut": response.finish == "length"}
    assert len({joined(one) for one in found.values()}) == 4, "four equal answers could not be told apart"


@pytest.mark.slow
def test_what_the_latents_read_as_comes_before_the_answer(
    reasoner: LatentReasoner, serve: Callable[..., PageServer]
) -> None:
    found = by_way(ask(serve(ways(reasoner)), question=QUESTION).events)
    expected = reasoner.generate(QUESTION, max_new_tokens=1).readout
    steps = found["latent"][0]["readout"]
    assert len(steps) == K
    for step, likely in zip(steps, expected, strict=True):
        assert [token for token, _ in step] == [inert(token.replace(" ", "␣").replace("\n", "↵")) for token, _ in likely]
        assert [p for _, p in step] == pytest.approx([p for _, p in likely], abs=1e-4)
    assert not [event for key in ("none", "thinking") for event in found[key] if "readout" in event]


@pytest.mark.slow
def test_only_the_ways_that_were_chosen_answer(reasoner: LatentReasoner, serve: Callable[..., PageServer]) -> None:
    server = serve(ways(reasoner))
    assert list(by_way(ask(server, question=QUESTION, ways=["thinking", "latent"]).events)) == ["latent", "thinking"]
    for wrong in ([], ["base"], "latent", [["latent"]]):
        refused = ask(server, question=QUESTION, ways=wrong)
        assert (refused.status, refused.error) == (
            400,
            "the ways are not among latent, none, thinking: name at least one of these",
        )


def test_a_checkpoint_without_latent_steps_is_refused(base: LatentReasoner) -> None:
    with pytest.raises(ParamError, match="answers without latent steps: name a latent checkpoint"):
        ways(base)


@pytest.fixture
def slow() -> Scripted:
    return Scripted({"endless": itertools.repeat("piece "), "short": ["piece "] * 3})


@pytest.fixture
def slow_server(slow: Any, serve: Callable[..., PageServer]) -> PageServer:
    return serve([Way("latent", "6 latent steps", "", slow)])


def begun(server: PageServer, question: str) -> socket.socket:
    """A connection that has asked and read the first piece of the answer."""
    body = json.dumps({"question": question}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /ask HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    read = b""
    while b'"piece"' not in read:
        read += connection.recv(4096)
    return connection


def test_a_client_that_hangs_up_ends_its_answer_and_the_next_one_is_answered(
    slow: Scripted, slow_server: PageServer
) -> None:
    connection = begun(slow_server, "endless")
    assert slow.running == 1
    connection.close()
    assert slow.closed.wait(10)
    assert joined(ask(slow_server, question="short").events) == "piece " * 3
    assert slow.running == 0
    assert slow_server.line.length == 0


def test_answers_are_made_one_at_a_time_and_those_that_wait_say_so(slow: Scripted, slow_server: PageServer) -> None:
    first = begun(slow_server, "endless")
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(slow_server, question="short"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while slow_server.line.length < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    assert (slow_server.line.length, slow.started) == (5, 1)
    first.close()
    for thread in threads:
        thread.join(30)
    assert slow.most == 1
    assert len(answers) == 4
    for answer in answers:
        assert "ahead" in answer.events[0]
        assert answer.events[-1] == {"end": True}


def test_a_client_that_hangs_up_while_it_waits_leaves_the_line(slow: Scripted, slow_server: PageServer) -> None:
    first = begun(slow_server, "endless")
    body = b'{"question": "short"}'
    waiting = socket.create_connection(("127.0.0.1", slow_server.port))
    head = f"POST /ask HTTP/1.1\r\nHost: localhost:{slow_server.port}\r\nContent-Type: application/json\r\n"
    waiting.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    read = b""
    while b'{"ahead": 1}' not in read:
        read += waiting.recv(4096)
    waiting.close()
    deadline = time.monotonic() + 10
    while slow_server.line.length > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (slow_server.line.length, slow.started) == (1, 1)
    first.close()


def test_a_full_line_refuses(slow_server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "MAX_WAITING", 1)
    with closing(begun(slow_server, "endless")):
        refused = ask(slow_server, question="short")
        assert (refused.status, refused.error) == (503, "1 questions are waiting already: ask again later")


@pytest.mark.slow
def test_a_question_that_is_too_long_for_the_model_says_so_in_each_way(
    reasoner: LatentReasoner, serve: Callable[..., PageServer]
) -> None:
    reasoner.system.model.config.max_position_embeddings = 40
    found = by_way(ask(serve(ways(reasoner)), question="apples " * 40).events)
    assert list(found) == ["latent", "none", "thinking"]
    for events in found.values():
        (event,) = events
        assert "and the model has only 40 positions: shorten the question" in event["error"]
        assert "\n" not in event["error"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "127.0.0.1:{port}, a", ""]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/about"), ("POST", "/ask")])
def test_a_request_by_another_name_is_refused(slow_server: PageServer, method: str, path: str, host: str) -> None:
    """A name of another site that resolves to 127.0.0.1 gets nothing."""
    answer = send(
        slow_server,
        method,
        path,
        '{"question": "short"}' if method == "POST" else None,
        Host=host.format(port=slow_server.port),
        Content_Type="application/json",
    )
    assert answer.status == 403
    assert answer.error == f"this address is not known here: open {slow_server.address}"


def test_a_request_from_another_page_is_refused(slow: Scripted, slow_server: PageServer) -> None:
    body, port = '{"question": "short"}', slow_server.port
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"https://127.0.0.1:{port}"):
        answer = send(slow_server, "POST", "/ask", body, Content_Type="application/json", Origin=origin)
        assert (answer.status, answer.error) == (403, f"the request comes from another page: open {slow_server.address}")
    assert slow.started == 0
    for host in ("127.0.0.1", "localhost"):
        own = f"{host}:{port}"
        answer = send(slow_server, "POST", "/ask", body, Content_Type="application/json", Host=own, Origin=f"http://{own}")
        assert answer.events[-1] == {"end": True}


def test_the_port_80_may_be_left_out(slow_server: PageServer) -> None:
    """Clients leave it out of Host and Origin, because it is the port of http."""
    slow_server.hosts = page_server.hosts(80)
    for host in ("127.0.0.1", "localhost", "127.0.0.1:80"):
        headers = {"Host": host, "Origin": f"http://{host}", "Content_Type": "application/json"}
        assert send(slow_server, "POST", "/ask", '{"question": "short"}', **headers).events[-1] == {"end": True}
    assert send(slow_server, "GET", "/", Host="evil.example").status == 403
    assert "127.0.0.1" not in page_server.hosts(8080)


def test_a_form_of_another_site_cannot_ask(slow: Scripted, slow_server: PageServer) -> None:
    """Only JSON is taken, for which a browser asks for permission first (OPTIONS), and it is not given."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
        answer = send(slow_server, "POST", "/ask", '{"question": "short"}', Content_Type=kind)
        assert (answer.status, answer.error) == (
            415,
            "the content type is not application/json: send the question as JSON",
        )
    assert send(slow_server, "POST", "/ask", '{"question": "short"}').status == 415
    permission = send(slow_server, "OPTIONS", "/ask", Origin="http://evil.example")
    assert permission.status == 501
    assert not [name for name in permission.headers if name.lower().startswith("access-control")]
    assert slow.started == 0


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b'{"question": "' + b"a" * 1_000_000 + b'"}', 413, "the question is too long: ask one of at most 256 KiB"),
        (b'{"question": "  "}', 400, "the question is empty: type one first"),
        (b'{"question": 5}', 400, "the question is empty: type one first"),
        (b"{}", 400, "the question is empty: type one first"),
        (b'{"question": ', 400, "the request is not JSON (Expecting value: line 1 column 14 (char 13))"),
        (b"[" * 100_000, 400, "the request is nested too deep to read"),
        (b"\xff", 400, "the request is not UTF-8 (byte 1, invalid start byte)"),
        (b"[1]", 400, "the request holds a JSON list where an object is expected"),
    ],
    ids=["a megabyte", "blank", "a number", "nothing", "cut", "deep", "latin-1", "a list"],
)
def test_a_bad_request_is_refused_in_one_line(
    slow: Scripted, slow_server: PageServer, body: bytes, status: int, error: str
) -> None:
    answer = send(slow_server, "POST", "/ask", body, Content_Type="application/json")
    assert answer.status == status
    assert answer.error.startswith(error)
    assert slow.started == 0


def test_the_page_may_load_nothing_but_itself(slow_server: PageServer) -> None:
    for path, kind in {"/": "html", "/page.css": "css", "/page.js": "javascript"}.items():
        answer = send(slow_server, "GET", path)
        assert answer.status == 200
        assert kind in answer.headers["Content-Type"]
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
        assert "innerHTML" not in answer.text
        assert "http" not in answer.text.replace("http-equiv", "")
    assert send(slow_server, "GET", "/../pyproject.toml").status == 404
    assert send(slow_server, "GET", "/page.html").status == 404


@pytest.mark.slow
def test_the_page_shows_what_it_asks(
    reasoner: LatentReasoner, base: LatentReasoner, serve: Callable[..., PageServer]
) -> None:
    about = json.loads(send(serve(ways(reasoner, base)), "GET", "/about").text)
    assert about["model"] == "models/tiny"
    assert [way["name"] for way in about["ways"]] == ["6 latent steps", "No latent steps", "Thinking", "Base, thinking"]
    assert about["ways"][2]["about"] == "The same weights, asked to think in text first."
    assert about["ways"][3]["about"] == "The weights of base, asked to think in text first."


def test_a_port_that_is_taken_says_so(slow_server: PageServer) -> None:
    with pytest.raises(ParamError, match=f"port {slow_server.port} is used by another program: give another with --port"):
        PageServer(slow_server.ways, HOW, "models/tiny", slow_server.port)


def test_the_page_has_the_colours_of_the_report() -> None:
    def colours(css: str) -> list[dict[str, str]]:
        return [dict(pair.split(": ") for pair in block.split("; ")) for block in blocks(css)]

    def blocks(css: str) -> Iterator[str]:
        for block in css.split(":root {")[1:3]:
            pairs = " ".join(line.strip() for line in block.partition("}")[0].splitlines())
            yield "; ".join(one for one in pairs.strip(" ;").split("; ") if one.startswith("--"))

    ours = colours((page_server.FILES / "page.css").read_text())
    theirs = colours((page.TEMPLATES / "page.css").read_text())
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) > 8
        assert one.items() <= other.items()
