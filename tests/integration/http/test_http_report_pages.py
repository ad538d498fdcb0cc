"""The pages of reports: figures, tables and bars of whatever a report holds, what is not known with its reason, hostile text."""

from functools import partial

import pytest
import trio

from sixfbd.http.dashboard.reports import groups_of
from tests.integration.http.test_http_page_live import in_browser

HOSTILE = "<script>alert(1)</script>\u202e"
REPORT = {
    "sales": {"revenue": 1234.5, "conversionRate": 0.25, "perHour": None},
    "cities": [
        {"cityId": "dallas", "status": {"sold": {"ga": 3}}, "since": "2026-11-27T05:59:42.035Z"},
        {"cityId": HOSTILE, "status": {"sold": {"ga": 4}}, "since": "2026-11-27T05:59:42.035Z"},
    ],
    "trends": {"last24h": {"tickets": 3}, "last7d": {"tickets": 5}},
    "hourly": [{"time": f"2026-11-27T0{hour}:00:00.000Z", "revenue": float(hour)} for hour in range(9)],
    "total": 7,
    "timeframe": "1d",
    "unknown": {"sales.perHour": "nobody counts"},
}


def test_a_report_becomes_figures_tables_and_bars():
    units = {"revenue": "money", "conversionRate": "ratio"}
    found = {group.id: group for group in groups_of(REPORT, units)}
    assert list(found) == ["whole", "sales", "cities", "trends", "hourly"]
    [figures] = found["sales"].figures
    assert [(one.name, one.text, one.missing) for one in figures.cells] == [
        ("Revenue", "1,234.50", ""), ("Conversion rate", "25.0 %", ""), ("Per hour", "–", "nobody counts"),
    ]  # fmt: skip
    [cities] = found["cities"].tables
    assert cities.heads == ("City id", "Status sold ga", "Since")
    assert [row[1].text for row in cities.rows] == ["3", "4"] and cities.rows[0][2].at is not None
    [trends] = found["trends"].tables
    assert [[cell.text for cell in row] for row in trends.rows] == [["last24h", "3"], ["last7d", "5"]]
    [bars] = found["hourly"].bars
    assert bars.highest == "8.00" and bars.path.count("M") == 8, "an hour without any has no bar"
    assert found["whole"].figures[0].cells[0].text == "7"


@pytest.fixture
def reporting(engine, monkeypatch):
    async def report(name, timeframe_s, check, about):
        return REPORT

    monkeypatch.setattr(engine, "report", report)
    return engine


async def test_a_page_shows_what_is_known_why_something_is_not_and_leads_to_the_others(reporting, client):
    answer = await client.get("/reports/sales?timeframe=7d")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    text = answer.text
    assert "Per hour: nobody counts" in text and "1,234.50" in text
    assert '<a href="/reports/sales?timeframe=7d" aria-current="true">7d</a>' in text
    assert '<a href="/reports/broken">Broken</a>' in text and '<a href="/reports/sales" aria-current="page">' in text
    assert "<script>alert" not in text and "\\u202e" in text
    assert '<a href="/reports/sales">Sales</a>' in (await client.get("/")).text


async def test_a_report_that_fails_or_is_none_is_said(client):
    answer = await client.get("/reports/broken")
    assert answer.status_code == 200 and "report broken of plugin tests: ValueError: no" in answer.text
    answer = await client.get("/reports/sals")
    assert answer.status_code == 404 and "sales" in answer.text
    assert (await client.get("/reports/sales?timeframe=never")).status_code == 400


async def test_in_a_browser_the_page_breaks_no_policy_fits_a_phone_and_stays_live(reporting, http_config, serving):
    def narrow(page):
        page.wait_for_selector("#live[data-state=live]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert page.locator("#hourly svg path").count() == 1

    async with serving(reporting, http_config) as client:
        url = f"{client.base_url}/reports/sales".replace("//reports", "/reports")
        look = partial(in_browser, url, narrow, viewport={"width": 360, "height": 700})
        assert await trio.to_thread.run_sync(look) == []
