"""Reports of a real daemon: over HTTP and by sixfbctl; one that fails names its plugin and takes nobody with it."""

import json

import httpx

PLUGIN = """
from sixfbd.plugin import ReportType, Unknown, hookimpl

async def fine(request):
    return {"hours": (request.end - request.start) / 3600, "nobody": Unknown("nobody knows"), "rows": [{"a": 1}, {"a": 2}]}

async def raises(request):
    raise RuntimeError("boom")

async def rubbish(request):
    return {"x": object()}

@hookimpl
def sixfbd_reports(config):
    return [ReportType(make.__name__, make, doc="Of a test.") for make in (fine, raises, rubbish)]
"""


def test_reports_are_answered_over_http_and_by_sixfbctl_and_those_that_fail_are_named(daemon):
    daemon.plugin("odd", PLUGIN)
    daemon.start()
    sale = ("orderId=o-1", "cityId=dallas", "tier=ga", "quantity=2", "amount=5000", "currency=USD")
    daemon.ctl("events", "emit", "ticket_sale", *sale)
    sales = httpx.get(f"{daemon.url}/api/monitoring/business").json()["data"]["sales"]
    assert (sales["revenue"], sales["ticketsSold"], sales["averageOrderValue"]) == (50.0, 2, 50.0)
    assert daemon.ctl("report", "business")["sales"] == sales
    shown = daemon.run_ctl("report", "fine", "--timeframe", "2h").stdout
    assert (
        "hours                      2\n" in shown and "- nobody: nobody knows" in shown and "  A\n  1\n  2\n" in shown
    )
    for name, why in (("raises", "RuntimeError: boom"), ("rubbish", "returned what is no JSON")):
        answer = httpx.get(f"{daemon.url}/api/monitoring/{name}")
        assert answer.status_code == 503 and f"report {name} of plugin odd: {why}" in answer.json()["error"]["message"]
        done = daemon.run_ctl("report", name)
        assert done.returncode == 1 and why in done.stderr
    assert 'no report "busines"; did you mean' in daemon.run_ctl("report", "busines").stderr
    listed = json.loads(daemon.run_ctl("report", "--json").stdout)
    assert {one["name"] for one in listed} > {
        "sms",
        "inventory",
        "payments",
        "performance",
        "system",
        "business",
        "fine",
    }
