"""The page of `qthink demo` in a browser: steps, streamed answers, numbers; hostile text does nothing; it fits a phone."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import exported
from screens import PHONE, WINDOW
from scripted import Scripted

from qthink_core import LatentReasoner
from qthink_core.inference.page_server import Handler, PageServer
from qthink_core.inference.settings import Settings
from qthink_core.inference.shown import inert
from qthink_core.inference.side_by_side import Way, ways

pytestmark = [pytest.mark.browser, pytest.mark.slow]
QUESTION = "Tom has 8 apples, buys 3, loses half. How many apples does Tom have?"
HOSTILE = '<script>alert(1)</script><img src="http://evil.example/" onerror="alert(2)">\x1b[31m\u202ered &lt;b&gt;'
HOW = Settings(max_new_tokens=12)


@pytest.fixture
def serve() -> Iterator[Callable[..., PageServer]]:
    running: list[PageServer] = []

    def start(these: list[Way]) -> PageServer:
        server = PageServer(these, HOW, "models/tiny")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def reasoner(qwen3: Any, tokenizer: Any, random_head: Any, tmp_path: Path) -> LatentReasoner:
    return LatentReasoner.from_pretrained(exported(tmp_path / "model", qwen3(), tokenizer, random_head()))


def scripted(reasoner: Scripted) -> list[Way]:
    return [Way("latent", HOSTILE, HOSTILE, reasoner)]  # type: ignore[arg-type]


def wide(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def finished(page: Any) -> list[str]:
    """Waits until a question is answered or has failed, and returns the errors that the page shows."""
    page.get_by_text("Done.").or_(page.get_by_role("alert")).wait_for()
    return list(page.locator(":is([role=alert], .failed):visible").all_text_contents())


@pytest.mark.parametrize("screen", [PHONE, WINDOW], ids=["phone", "window"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_question_shows_steps_answers_and_what_they_took(
    reasoner: LatentReasoner,
    serve: Callable[..., PageServer],
    opened: Callable[..., Any],
    screen: dict[str, Any],
    scheme: str,
) -> None:
    these = ways(reasoner)
    page = opened(serve(these).address, screen, color_scheme=scheme)
    page.get_by_label("Question", exact=True).fill(QUESTION)
    page.keyboard.press("Enter")
    assert not finished(page)
    assert page.locator(".answer:visible").count() == len(these)
    expected = {way.key: way.reasoner.generate(QUESTION, max_new_tokens=12) for way in these}
    steps = page.locator(".steps li")
    assert steps.count() == 6
    for k, likely in enumerate(expected["latent"].readout):
        first = steps.nth(k).locator(".token").first
        assert first.locator("code").text_content() == inert(likely[0][0].replace(" ", "␣").replace("\n", "↵"))
        share = 100 * round(likely[0][1], 4)
        assert first.locator(".share").text_content() == (f"{share:.0f} %" if share >= 1 else "<1 %")
    for way in these:
        response = expected[way.key]
        assert page.locator(f"[data-way={way.key}] .text").text_content() == inert(response.text)
        latent, tokens, seconds = page.get_by_role("row", name=way.name).locator("td").all_text_contents()
        assert int(latent) == way.reasoner.K
        assert tokens == f"{response.new_tokens}{' (cut)' if response.finish == 'length' else ''}"
        assert float(seconds) >= 0
    assert wide(page) == screen["viewport"]["width"]


def test_the_answer_is_seen_while_it_is_made_and_can_be_stopped(
    serve: Callable[..., PageServer], opened: Callable[..., Any]
) -> None:
    reasoner = Scripted({"endless": itertools.repeat("piece "), "short": ["piece "]}, seconds=0.05)
    server = serve(scripted(reasoner))
    page = opened(server.address)
    question = page.get_by_label("Question", exact=True)
    question.fill("endless")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("piece piece piece").wait_for()
    assert page.get_by_role("button", name="Ask").is_disabled()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert reasoner.closed.wait(10)
    deadline = time.monotonic() + 10
    while server.line.length and time.monotonic() < deadline:
        page.wait_for_timeout(20)
    assert server.line.length == 0
    question.fill("short")
    page.keyboard.press("Enter")
    assert not finished(page)
    assert page.locator(".text").text_content() == "piece "


def test_a_question_that_comes_before_the_choices_waits_for_them(
    serve: Callable[..., PageServer], opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed, get = threading.Event(), Handler.do_GET
    monkeypatch.setattr(Handler, "do_GET", lambda self: (self.path == "/about" and typed.wait(60), get(self)))
    page = opened(serve([Way(key, key, "", Scripted({"a": [key]})) for key in ("latent", "none")]).address)  # type: ignore[arg-type]
    page.get_by_label("Question", exact=True).fill("a")
    with page.expect_request("**/ask") as asked:
        page.keyboard.press("Enter")
        typed.set()
    assert asked.value.post_data_json["ways"] == ["latent", "none"]
    assert not finished(page)
    assert page.locator(".text").all_text_contents() == ["latent", "none"]


def test_stop_ends_the_wait_for_the_choices_and_a_start_that_failed_is_tried_again(
    serve: Callable[..., PageServer], opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, failing, get = threading.Event(), threading.Event(), Handler.do_GET

    def first_fails(self: Handler) -> None:
        if self.path == "/about" and not begun.is_set():
            begun.set()
            failing.wait(60)
            self.send_error(500)
        else:
            get(self)

    monkeypatch.setattr(Handler, "do_GET", first_fails)
    page = opened(serve([Way(key, key, "", Scripted({"a": [key]})) for key in ("latent", "none")]).address)  # type: ignore[arg-type]
    page.get_by_label("Question", exact=True).fill("a")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    failing.set()
    page.get_by_role("alert").wait_for()
    page.get_by_label("Question", exact=True).press("Enter")
    page.get_by_text("Done.").wait_for()
    assert page.locator(".text").all_text_contents() == ["latent", "none"]
    opened.faults.clear()  # type: ignore[attr-defined]  # the browser logs the reply 500, and the page what failed


def test_hostile_text_is_shown_and_does_nothing(serve: Callable[..., PageServer], opened: Callable[..., Any]) -> None:
    readout = [[(HOSTILE, 0.75), ("</code><b>", 0.25)]] * 6
    server = serve(scripted(Scripted({HOSTILE: [HOSTILE, "</think>", HOSTILE]}, readout)))
    server.model = HOSTILE
    page = opened(server.address, PHONE)
    page.get_by_label("Question", exact=True).fill(HOSTILE)
    page.keyboard.press("Enter")
    assert not finished(page)
    shown = inert(HOSTILE)
    assert "⟨U+001B⟩[31m⟨U+202E⟩red &lt;b&gt;" in shown
    assert page.locator(".text").text_content() == f"{shown}</think>{shown}"
    assert page.locator(".token code").first.text_content() == shown.replace(" ", "␣")
    assert page.locator("main :is(script, img, b)").count() == 0
    assert page.locator("script").count() == 1
    assert wide(page) == 390


def test_a_text_that_was_made_an_element_would_be_seen(serve: Callable[..., PageServer], opened: Callable[..., Any]) -> None:
    """The check above can fail: the policy refuses such an element, and the refusal is logged."""
    page = opened(serve(scripted(Scripted({}))).address)
    page.evaluate("text => { document.querySelector('main').innerHTML = text }", HOSTILE)
    page.wait_for_timeout(200)
    assert page.locator("main :is(script, img)").count() == 2
    assert any("Content Security Policy" in fault for fault in opened.faults)  # type: ignore[attr-defined]
    opened.faults.clear()  # type: ignore[attr-defined]


def test_what_is_wrong_is_one_line(
    reasoner: LatentReasoner, serve: Callable[..., PageServer], opened: Callable[..., Any]
) -> None:
    reasoner.system.model.config.max_position_embeddings = 40
    page = opened(serve(ways(reasoner)).address, PHONE)
    question, alert = page.get_by_label("Question", exact=True), page.get_by_role("alert")
    page.keyboard.press("Enter")
    alert.get_by_text("the question is empty: type one first").wait_for()
    question.fill("a" * 1_000_000)
    page.keyboard.press("Enter")
    alert.get_by_text("the question is too long: ask one of at most 256 KiB").wait_for()
    question.fill("apples " * 40)
    page.keyboard.press("Enter")
    failed = finished(page)
    assert not alert.is_visible()
    assert len(failed) == 3
    assert all(one.endswith("has only 40 positions: shorten the question") for one in failed)
    assert wide(page) == 390
    # a browser logs a status that is not 200
    assert len(opened.faults) == 2  # type: ignore[attr-defined]
    opened.faults.clear()  # type: ignore[attr-defined]


def test_a_server_that_has_ended_is_named_and_why_is_logged(
    serve: Callable[..., PageServer], opened: Callable[..., Any]
) -> None:
    server = serve(scripted(Scripted({})))
    page = opened(server.address)
    page.get_by_text("models/tiny").wait_for()
    server.shutdown()
    server.server_close()
    page.get_by_label("Question", exact=True).fill("a")
    page.keyboard.press("Enter")
    assert finished(page) == ["the server does not answer: is qthink demo still running?"]
    assert any("TypeError: Failed to fetch" in fault for fault in opened.faults)  # type: ignore[attr-defined]
    opened.faults.clear()  # type: ignore[attr-defined]


def test_the_keyboard_is_enough(serve: Callable[..., PageServer], opened: Callable[..., Any]) -> None:
    these = [*scripted(Scripted({"a\nb": ["latent"]})), Way("none", "No latent steps", "", Scripted({"a\nb": ["none"]}))]  # type: ignore[arg-type]
    page = opened(serve(these).address)
    page.get_by_role("checkbox", name="No latent steps").wait_for()
    for key in ("a", "Shift+Enter", "b", "Tab", "Space", "Tab", "Enter"):
        page.keyboard.press(key)
    assert not finished(page)
    assert page.get_by_label("Question", exact=True).input_value() == "a\nb"
    assert page.locator("[data-way=latent] .text").text_content() == "latent"
    assert not page.locator("[data-way=none]").is_visible(), "its box was unchecked with the space bar"
