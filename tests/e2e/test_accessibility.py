"""Every page as one has it who sees little, or uses no mouse: axe finds nothing to say, and the keyboard comes everywhere."""

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright import sync_api as playwright

from tests.e2e.conftest import wait_for

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).parents[2] / ".node" / "node_modules" / "axe-core" / "axe.min.js"
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
RULES = """
[[rules]]
name = "ShopDown"
expr = 'probe_success == 0'
severity = "critical"
annotations = { summary = "{{ $labels.instance }} does not answer" }
"""


PLUGIN = """
from sixfbd.plugin import ReportType, Unknown, hookimpl

async def guests(request):
    \"\"\"Who comes.\"\"\"
    return {"seats": 7, "nobody": Unknown("nobody knows"), "rows": [{"city": "HOSTILE", "seats": 1}, {"city": "b", "seats": 2}]}

@hookimpl
def sixfbd_reports(config):
    return [ReportType("guests", guests, doc="Who comes.")]
"""
PUBLIC = """
[http.public]
listen = "127.0.0.1:0"
url = "https://hooks.example.com"
"""
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture
def browser():
    assert CHROMIUM, "needs a browser: apt-get install chromium"
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def shop(daemon, target) -> Any:
    """A daemon with something of everything to show; an alert fires."""
    daemon.add("50-rule.toml", RULES)
    daemon.probe(target)
    daemon.plugin("guests", PLUGIN.replace("HOSTILE", HOSTILE))
    daemon.start()
    hostile = {"orderId": HOSTILE, "cityId": HOSTILE, "tier": "ga", "quantity": 1, "amount": 5000, "currency": "USD"}
    events = [
        {"type": "ticket_sale", "data": hostile},
        {"type": "request", "data": {"path": f"/{HOSTILE}", "method": HOSTILE, "statusCode": 500, "duration": 9000}},
        {"type": "system_error", "data": {"message": HOSTILE, "service": HOSTILE}},
        {"type": HOSTILE, "data": {HOSTILE: HOSTILE}},
    ]
    headers = {"Authorization": f"Bearer {daemon.token}"}
    taken = httpx.post(f"{daemon.url}/api/events", json=events, headers=headers).json()["data"]
    assert taken["accepted"] >= 3, taken
    for order in range(3):
        sale = ("cityId=dallas", "tier=ga", "quantity=2", "amount=5000", "currency=USD", 'remainingInventory={"ga":4}')
        daemon.ctl("events", "emit", "ticket_sale", f"orderId=o-{order}", *sale)
    daemon.ctl("events", "emit", "request", "path=/tickets", "method=GET", "statusCode=500", "duration=900")
    with target.down():
        wait_for("an alert fires", lambda: [one for one in daemon.ctl("alerts") if one["state"] == "firing"])
        yield daemon


def pages(daemon: Any) -> list[str]:
    reports = [one["name"] for one in daemon.ctl("report")]
    alerts = [one["id"] for one in daemon.ctl("alerts")]
    return ["/", "/login", *(f"/reports/{name}" for name in reports), *(f"/alerts/{one}" for one in alerts)]


def found(page: Any) -> list[str]:
    """Return what axe has to say, a line for each kind of fault, with where it is."""
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(result["passes"]) > 10, "it looked at the page"
    return [
        f"{one['id']}: {one['help']}: {', '.join(node['html'][:120] for node in one['nodes'][:3])}"
        for one in result["violations"]
    ]


def login(page: Any, daemon: Any, who: str = "alice") -> None:
    token = daemon.ctl("token", "create", who, "--scope", "alerts", "--scope", "read")["token"]
    page.goto(f"{daemon.url}/login")
    page.fill("input[type=password]", token)
    page.click("main button[type=submit]")
    page.wait_for_selector("text=Log out")


def test_what_others_name_runs_nowhere_whoever_looks(shop, browser):
    page, ran = browser.new_page(), []
    page.on("dialog", lambda dialog: (ran.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: ran.append(message.text))
    page.on("pageerror", lambda error: ran.append(str(error)))
    login(page, shop)
    shown = ""
    for path in pages(shop):
        page.goto(f"{shop.url}{path}")
        page.wait_for_selector("h1")
        assert page.evaluate("document.querySelectorAll('img, [onerror], script:not([src])').length") == 0, path
        shown += page.inner_text("body")
    assert ran == [] and "<script>alert(2)</script>" in shown


def test_axe_finds_nothing_to_say_to_who_is_logged_in(shop, browser):
    said: dict[str, list[str]] = {}
    for width, scheme in (LOOKS[0], LOOKS[-1]):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        login(page, shop, f"alice-{width}")
        for path in pages(shop):
            page.goto(f"{shop.url}{path}")
            page.wait_for_selector("h1")
            if faults := found(page):
                said[f"{path} {scheme} {width}"] = faults
        context.close()
    assert said == {}


def test_axe_finds_nothing_to_say_on_a_quiet_page_and_on_that_of_a_link_in_a_message(daemon, receiver):
    daemon.add("60-public.toml", PUBLIC)
    daemon.tell(receiver.url)
    daemon.start()
    with playwright.sync_playwright() as engine:
        port = urlsplit(daemon.ctl("status")["public"]).port
        mapped = f"--host-resolver-rules=MAP hooks.example.com 127.0.0.1:{port}"
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", mapped])
        page = browser.new_page()
        page.goto(daemon.url)
        page.wait_for_selector("h1")
        assert found(page) == []
        daemon.add("50-rule.toml", RULES.replace("probe_success == 0", "vector(1)"))
        daemon.ctl("reload")
        [link] = wait_for(
            "the alert is told", lambda: [one["ackURL"] for _, one in receiver.alerts(alertname="ShopDown")]
        )
        page.goto(link.replace("https:", "http:"))
        page.wait_for_selector("h1")
        assert found(page) == []
        page.click("button")
        page.wait_for_selector("text=Acknowledged")
        assert found(page) == []
        browser.close()


def test_axe_finds_nothing_to_say_on_any_page_light_or_dark_wide_or_narrow(shop, browser):
    assert AXE.is_file(), "needs Node.js with npm, then ./run test"
    said: dict[str, list[str]] = {}
    for width, scheme in LOOKS:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        for path in pages(shop):
            page.goto(f"{shop.url}{path}")
            page.wait_for_selector("h1")
            if faults := found(page):
                said[f"{path} {scheme} {width}"] = faults
            wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
            if wide:
                said.setdefault(f"{path} {scheme} {width}", []).append("the page is wider than the screen")
        context.close()
    assert said == {}


def test_the_keyboard_comes_to_everything_that_can_be_clicked_and_shows_where_it_is(shop, browser):
    page = browser.new_page()
    for path in pages(shop):
        page.goto(f"{shop.url}{path}")
        page.wait_for_selector("h1")
        can = page.evaluate(
            "[...document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary')]"
            ".filter(one => one.checkVisibility()).length"
        )
        reached = set()
        for _ in range(can + 3):
            page.keyboard.press("Tab")
            place, outline = page.evaluate(
                "(() => { const one = document.activeElement, all = [...document.querySelectorAll('*')];"
                " const style = getComputedStyle(one), shown = style.outlineStyle !== 'none' || style.boxShadow !== 'none';"
                " return [all.indexOf(one), one === document.body || shown] })()"
            )
            assert outline, f"{path}: what has the focus is not shown"
            reached.add(place)
        body = page.evaluate("[...document.querySelectorAll('*')].indexOf(document.body)")
        assert len(reached - {body}) >= can, path
