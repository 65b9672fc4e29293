"""The committed report in a browser: it fits a phone, its folded parts open, and it loads nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from imports import ROOT
from screens import PHONE, WINDOW

pytestmark = [pytest.mark.browser, pytest.mark.slow]
REPORT = (ROOT / "results" / "report.html").as_uri()
# What is wider than the window, other than in a table's own scrolling box.
BEYOND = """() => [...document.querySelectorAll("body *")].filter((one) =>
  !one.closest(".scroll, svg") && one.getBoundingClientRect().width && one.getBoundingClientRect().right > innerWidth + 1
).map((one) => one.tagName + "." + one.className)"""


@pytest.mark.parametrize("screen", [PHONE, WINDOW], ids=["phone", "window"])
def test_the_report_fits_the_screen(opened: Callable[..., Any], screen: dict[str, Any]) -> None:
    page = opened(REPORT, screen)
    assert page.evaluate("document.documentElement.scrollWidth") == screen["viewport"]["width"]
    assert page.evaluate(BEYOND) == []


def test_folded_parts_open_on_tap_and_stay_in_the_screen(opened: Callable[..., Any]) -> None:
    page = opened(REPORT, PHONE)
    folded = page.locator("details:visible")
    assert folded.count() > 60
    for number in (0, 5, 20, folded.count() - 1):
        one = folded.nth(number)
        assert not one.evaluate("one => one.open")
        one.locator("summary").first.tap()
        assert one.evaluate("one => one.open")
    assert page.evaluate(BEYOND) == []


def test_the_filter_shows_the_questions_of_one_benchmark(opened: Callable[..., Any]) -> None:
    page = opened(REPORT, PHONE)
    page.locator("select[name=task]").select_option(label="GSM8K")
    shown = page.locator("details.question:visible")
    assert shown.count() == 20
    assert all(one.inner_text().startswith("gsm8k-test-") for one in shown.locator(".id").all())
