"""A headless Chromium for the tests of pages: what a person would see, and what the page would complain of."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := os.environ.get("CHROMIUM") or shutil.which(name))
    ),
    None,
)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
DESKTOP = {"viewport": {"width": 1240, "height": 900}}


@pytest.fixture(scope="module")
def chromium():
    """Return a browser that runs for the tests of one file."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: chromium, chromium-browser and google-chrome are not on the path")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, **options):
    """Open a page; at the end it must have written nothing to its console and asked for nothing but itself."""
    context = browser.new_context(**{**DESKTOP, **options})
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


def shown(page, name):
    """Scroll to a figure and wait until it is drawn, which the browser does in its own time; return it as an expression."""
    page.locator(f"#{name}").scroll_into_view_if_needed()
    page.wait_for_function(f"document.getElementById('{name}').dataset.drawn")
    return f"document.getElementById('{name}')"


def scrolled_through(page):
    """Scroll to the end, a screen at a time, so that every figure has come into view and is drawn."""
    height = page.evaluate("document.documentElement.scrollHeight")
    for y in range(0, height + 1, 800):
        page.evaluate(f"scrollTo(0, {y})")
        page.wait_for_timeout(30)
    page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every(place => place.dataset.drawn || place.closest('figure').hidden)"
    )
