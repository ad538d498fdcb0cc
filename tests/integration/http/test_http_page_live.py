"""The page in a real browser: it follows the daemon without a reload, says when it lost it, and breaks no policy."""

import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from msgspec.structs import replace

CHROMIUM = shutil.which("chromium")


def in_browser(url: str, look: Callable[[Any], None], **context: Any) -> list[str]:
    """Open the page, look at it, and return what the browser complained of; runs in a thread."""
    assert CHROMIUM, "needs a browser: apt-get install chromium"
    try:
        from playwright import sync_api as playwright
    except ImportError:
        pytest.fail("needs playwright: pip install -r requirements-dev.lock")
    complaints: list[str] = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        look(page)
        browser.close()
    return complaints


async def test_the_page_follows_the_daemon_without_a_reload_and_says_when_it_is_gone(
    engine, busy, http_config, serving
):
    seen: list[str] = []

    async with serving(engine, http_config) as client:

        def change() -> None:
            engine.check_states = [replace(engine.check_states[0], summary="a new summary")]
            engine.alert_list = []
            engine.changed()

        def look(page: Any) -> None:
            page.wait_for_selector("#live[data-state=live]")
            page.evaluate("window.stillTheSame = true")
            seen.append(page.inner_text("h1"))
            trio.from_thread.run_sync(change)
            page.wait_for_selector("text=a new summary")
            seen.append(page.inner_text("h1"))
            assert page.evaluate("window.stillTheSame")
            first = page.inner_text("#checks time")
            page.wait_for_function("first => document.querySelector('#checks time').textContent !== first", arg=first)

        complaints = await trio.to_thread.run_sync(in_browser, str(client.base_url), look)
    assert seen == ["2 alerts firing", "All is well"]
    assert complaints == []


async def test_a_phone_sees_the_whole_width_and_a_reader_without_javascript_the_whole_page(
    engine, busy, http_config, serving
):
    def narrow(page: Any) -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= 360

    def plain(page: Any) -> None:
        assert "answered 200 in 12 ms" in page.inner_text("#checks")
        assert page.locator("#charts svg").count() == 2

    async with serving(engine, http_config) as client:
        url = str(client.base_url)
        phone = partial(in_browser, url, narrow, viewport={"width": 360, "height": 700})
        assert await trio.to_thread.run_sync(phone) == []
        assert await trio.to_thread.run_sync(partial(in_browser, url, plain, java_script_enabled=False)) == []


async def test_hostile_text_does_nothing_in_a_browser_and_breaks_no_layout(
    engine, busy, made_hostile, http_config, serving
):
    def look(page: Any) -> None:
        page.wait_for_selector("#live[data-state=live]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        trio.from_thread.run_sync(made_hostile)  # the page fetches it and swaps it in
        page.wait_for_selector("text=The daemon is not ready")
        assert "<script>" in page.inner_text("#alerts")
        assert "owned" not in page.title().split("·")[0]
        assert page.title() != "owned"
        assert page.evaluate("document.querySelectorAll('img, iframe, [onload], [onerror]').length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.reload()
        page.wait_for_selector("text=The daemon is not ready")
        assert page.title() != "owned"

    async with serving(engine, http_config) as client:
        phone = partial(in_browser, str(client.base_url), look, viewport={"width": 360, "height": 700})
        assert await trio.to_thread.run_sync(phone) == []
