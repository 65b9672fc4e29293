"""A headless Chromium, whose pages count what goes wrong in them."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from screens import WINDOW

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-browser")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    # Chromium has no sandbox for root
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address on a screen. At the end, no page may have logged anything or asked another server."""
    contexts: list[Any] = []
    faults: list[str] = []
    own: list[str] = []

    def open_page(address: str, screen: dict[str, Any] = WINDOW, **more: Any) -> Any:
        context = browser.new_context(**screen, **more)
        contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        own.append(address)
        page.on("request", lambda request: request.url.startswith((*own, "data:")) or faults.append(request.url))
        page.goto(address)
        return page

    open_page.faults = faults  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    assert not faults
