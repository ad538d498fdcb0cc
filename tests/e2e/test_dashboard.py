"""The dashboard of a real daemon and its sandbox in a real browser: a fault is switched on, seen, taken on by a click, and over."""

import shutil
import time
from datetime import datetime
from typing import Any

import httpx
import pytest
from playwright import sync_api as playwright

SOON_S = 2.0  # from the alert to the page, and from the click to everybody's page
RULE = """
[[rules]]
name = "TwilioDown"
expr = 'sixfbd_check_status{check="sms",status="healthy"} == 0'
severity = "high"
annotations = { summary = "Twilio does not answer as it should" }
"""


@pytest.fixture
def page():
    chromium = shutil.which("chromium")
    assert chromium, "needs a browser: apt-get install chromium"
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        yield page
        browser.close()


def fired_at(daemon: Any) -> float:
    alerts = httpx.get(f"{daemon.url}/api/alerts", timeout=10).json()["data"]["alerts"]
    [one] = [one for one in alerts if one["labels"]["alertname"] == "TwilioDown"]
    return datetime.fromisoformat(one["since"]).timestamp()


def test_a_fault_is_seen_within_two_seconds_taken_on_by_a_click_and_over(daemon, sandbox, page):
    sandbox.start()
    daemon.add("50-rule.toml", RULE)
    daemon.start()
    token = daemon.ctl("token", "create", "alice", "--scope", "alerts", "--scope", "read")["token"]
    page.goto(f"{daemon.url}/login")
    page.fill("input[type=password]", token)
    page.click("main button[type=submit]")
    page.wait_for_url(f"{daemon.url}/")
    page.wait_for_selector("#live[data-state=live]")
    page.evaluate("window.stillTheSame = true")
    sandbox.ask("fault", "twilio", "error=503")
    daemon.run_ctl("check", "run", "sms")
    alert = page.locator("li.alert", has_text="TwilioDown")
    alert.wait_for(timeout=20_000)
    assert time.time() - fired_at(daemon) <= SOON_S + 0.5, "half a second for the test itself"
    assert "Twilio does not answer as it should" in alert.inner_text()
    assert page.evaluate("window.stillTheSame"), "the page was not loaded anew"
    alert.get_by_role("button", name="I take it on: TwilioDown").click()
    page.wait_for_url(f"{daemon.url}/alerts/*")
    page.get_by_text("token:alice").first.wait_for(timeout=10_000)
    page.goto(daemon.url)
    page.locator("li.alert", has_text="taken on by token:alice").wait_for(timeout=10_000)
    [one] = [one for one in daemon.ctl("alerts") if one["labels"]["alertname"] == "TwilioDown"]
    assert "alice" in one["acked_by"]
    page.wait_for_selector("#live[data-state=live]")
    began = time.monotonic()
    daemon.ctl("events", "emit", "system_error", "message=the queue is stuck", "service=mail")
    page.locator("#events", has_text="the queue is stuck").wait_for(timeout=10_000)
    assert time.monotonic() - began <= SOON_S + 0.5
    sandbox.ask("clear", "twilio")
    daemon.run_ctl("check", "run", "sms")
    alert.wait_for(state="detached", timeout=20_000)
    assert page.complaints == []
