"""/api/monitoring: reports by name, over a timeframe, and what is said when there is none."""

import pytest


async def test_the_reports_that_there_are_are_listed(client):
    answer = await client.get("/api/monitoring")
    assert answer.status_code == 200
    assert answer.json()["data"]["reports"][1] == {
        "name": "sales", "title": "Sales", "units": {}, "doc": "Of the tests.", "timeframe": "1d", "path": "/api/monitoring/sales",
    }  # fmt: skip


async def test_a_report_says_what_is_known_and_why_something_is_not(client):
    answer = await client.get("/api/monitoring/sales", params={"timeframe": "7d"})
    assert answer.json() == {
        "success": True,
        "data": {"sold": None, "timeframe_s": 604_800.0, "check": "", "unknown": {"sold": "nobody counts"}},
    }
    assert (await client.get("/api/monitoring/sales")).json()["data"]["timeframe_s"] is None


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/api/monitoring/sale", 404, 'did you mean "sales"?'),
        ("/api/monitoring/xyz", 404, "known: broken, sales"),
        ("/api/monitoring/sales?timeframe=0", 400, "timeframe"),
        ("/api/monitoring/sales?timeframe=soon", 400, "timeframe"),
        ("/api/monitoring/sales?timefame=1h", 400, "is no parameter of a report; there are timeframe, check, about"),
        ("/api/monitoring/sales?check=nobody", 404, "there is no check 'nobody'"),
        ("/api/monitoring/broken", 503, "report broken of plugin tests"),
    ],
)
async def test_what_cannot_be_answered_is_said_with_the_mend(client, path, status, says):
    answer = await client.get(path)
    assert answer.status_code == status
    assert answer.json()["success"] is False and says in answer.json()["error"]["message"]
