"""Health, metrics, alerts and the query API."""

import json

import jsonschema
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sixfbd.http.api.query import show_value
from sixfbd.model import Actor, Silence

NOW = 1_795_471_650.0
GUARD = {"Authorization": "Bearer token-of-the-guard"}
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


# ---- health -------------------------------------------------------------------------------------------------------------


async def test_healthz_says_ok_whatever_the_rest_is_like(client, engine):
    engine.readiness, engine.status = (False, "starting"), "unhealthy"
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_readyz_says_whether_and_why_not(client, engine):
    assert (await client.get("/readyz")).json() == {"ready": True, "reason": ""}
    engine.readiness = (False, "the disk is full: volatile mode")
    answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "reason": "the disk is full: volatile mode"})


@pytest.mark.parametrize(("status", "code"), [("healthy", 200), ("degraded", 503), ("unhealthy", 503)])
async def test_health_is_the_bare_object_and_200_only_when_healthy(client, engine, status, code):
    engine.status = status
    answer = await client.get("/api/health")
    assert (answer.status_code, answer.json()["status"], answer.json()["version"]) == (code, status, "1.2.3")


# ---- metrics ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics", "/api/metrics"])
async def test_metrics_are_prometheus_text_by_default(client, busy, path):
    answer = await client.get(path)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {sample.name: sample.value for family in parse_text(answer.text) for sample in family.samples}
    assert samples == {"up": 1.0, "jobs_total": 3.0}


async def test_metrics_are_openmetrics_when_asked_for(client, busy):
    answer = await client.get("/metrics", headers={"Accept": OPENMETRICS + ", text/plain;q=0.5"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert {family.name: family.type for family in parse_openmetrics(answer.text)} == {"up": "gauge", "jobs": "counter"}


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=x", "text/plain;version=1.x", "*/*", "application/json", ";;,"]
)
async def test_an_accept_header_that_means_nothing_gets_the_text_form(client, busy, accept):
    answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_metrics_are_rendered_once_a_second_for_each_form(client, busy):
    for _ in range(5):
        await client.get("/metrics")
        await client.get("/metrics", headers={"Accept": OPENMETRICS})
    assert busy.families_asked == 2


# ---- alerts -------------------------------------------------------------------------------------------------------------


async def test_alerts_are_listed_firing_first_and_worst_first(client, busy):
    alerts = (await client.get("/api/alerts")).json()["data"]["alerts"]
    assert [(alert["rule"], alert["state"]) for alert in alerts] == [
        ("Down", "firing"),
        ("Warm", "firing"),
        ("Slow", "pending"),
    ]
    assert alerts[0] == {
        "id": "incident-Down",
        "rule": "Down",
        "state": "firing",
        "severity": "critical",
        "value": 0.0,
        "labels": {"alertname": "Down", "severity": "critical", "check": "db"},
        "annotations": {"summary": "Down went wrong"},
        "since": "2026-11-23T22:06:00.000Z",
        "pendingAt": "2026-11-23T22:05:30.000Z",
        "firedAt": "2026-11-23T22:06:00.000Z",
        "ackedBy": None,
        "ackedAt": None,
        "heldBy": [],
        "flapping": False,
        "escalatesAt": None,
        "blind": False,
        "reason": "",
    }


async def test_an_alert_is_acknowledged_in_the_name_of_the_token(client, busy):
    answer = await client.post("/api/alerts/incident-Down/ack", json={"comment": "on it"}, headers=GUARD)
    assert answer.json() == {"success": True, "data": {"id": "incident-Down", "detail": "acknowledged"}}
    assert (await client.post("/api/alerts/incident-Down/ack", headers=GUARD)).status_code == 200
    assert busy.acked == [("incident-Down", "on it", Actor("token:guard")), ("incident-Down", "", Actor("token:guard"))]


@pytest.mark.parametrize(
    ("alert", "body", "status", "code"),
    [
        ("incident-Nobody", b"", 404, "no_such_alert"),
        ("incident-Slow", b"", 409, "not_acknowledged"),
        ("incident-Down", b"{", 400, "bad_request"),
        ("incident-Down", b'{"coment": "x"}', 400, "bad_request"),
        ("incident-Down", b'{"comment": "\xff"}', 400, "not_utf8"),
        ("incident-Down", b"[" * 5000, 400, "bad_request"),
    ],
)
async def test_an_acknowledgement_that_cannot_be_says_why(client, busy, alert, body, status, code):
    answer = await client.post(f"/api/alerts/{alert}/ack", content=body, headers=GUARD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert busy.acked == []


async def test_an_acknowledgement_that_cannot_be_written_is_503_and_may_be_tried_again(client, busy):
    busy.readiness = (False, "the journal cannot be written: the disk is full")
    answer = await client.post("/api/alerts/incident-Slow/ack", headers=GUARD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert "the disk is full" in answer.json()["error"]["message"]
    assert answer.headers["Retry-After"] == "5"


# ---- the query API --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_instant_query_answers_in_prometheus_form(client, method):
    sent = {"query": "up", "time": "2026-11-23T21:07:30.5Z"}
    answer = await client.request(method, "/api/v1/query", **{"params" if method == "GET" else "data": sent})
    assert answer.json() == {
        "status": "success",
        "data": {
            "resultType": "vector",
            "result": [
                {"metric": {"__name__": "up", "check": "web"}, "value": [1795468050.5, "+Inf"]},
                {"metric": {}, "value": [1795468050.5, "1e-07"]},
            ],
        },
    }


async def test_the_time_of_an_instant_query_is_now_if_left_out(client):
    result = (await client.get("/api/v1/query", params={"query": "1"})).json()["data"]
    assert result == {"resultType": "scalar", "result": [int(NOW), "1"]}


async def test_a_string_is_answered_as_a_string(client):
    result = (await client.get("/api/v1/query", params={"query": '"text"', "time": "12"})).json()["data"]
    assert result == {"resultType": "string", "result": [12, "text"]}


@pytest.mark.parametrize("step", ["15", "15s", "0m15s"])
async def test_a_range_query_answers_a_matrix(client, step):
    params = {"query": "up", "start": str(NOW - 30), "end": str(NOW), "step": step}
    data = (await client.get("/api/v1/query_range", params=params)).json()["data"]
    values = [[int(NOW) - 30, "-30"], [int(NOW) - 15, "-15"], [int(NOW), "0"]]
    assert data == {"resultType": "matrix", "result": [{"metric": {"__name__": "up"}, "values": values}]}


@pytest.mark.parametrize(
    ("expr", "status", "kind", "text"),
    [
        ("nonsense(", 400, "bad_data", "1:10: unexpected end of input"),
        ("many * many", 422, "execution", "many-to-many"),
        ("everything", 503, "timeout", "ran longer than 10 s"),
        ("", 400, "bad_data", "'query' is missing"),
    ],
)
async def test_a_query_without_an_answer_says_why_in_prometheus_form(client, expr, status, kind, text):
    answer = await client.get("/api/v1/query", params={"query": expr})
    assert (answer.status_code, answer.json()["status"], answer.json()["errorType"]) == (status, "error", kind)
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"start": ""}, "'start' is missing"),
        ({"start": "yesterday"}, "'start' is not a time"),
        ({"end": "NaN"}, "'end' is not a time"),
        ({"end": "50"}, "'end' is before the start"),
        ({"step": "0"}, "'step' is not a duration above zero"),
        ({"step": "-15"}, "'step' is not a duration above zero"),
        ({"step": "fast"}, "'step' is not a duration above zero"),
        ({"step": "0.01"}, "more than 11000 points"),
    ],
)
async def test_a_wrong_parameter_of_a_range_query_is_named(client, changes, text):
    answer = await client.get(
        "/api/v1/query_range", params={"query": "up", "start": "100", "end": "300", "step": "15"} | changes
    )
    assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")
    assert text in answer.json()["error"]


async def test_a_posted_form_that_is_not_utf8_is_refused(client):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"query=%ff", b"query=\xff"):
        answer = await client.post("/api/v1/query", content=body, headers=form)
        assert answer.status_code == 400
        assert "not UTF-8" in answer.json()["error"]


async def test_series_labels_and_label_values_are_listed(client):
    assert (await client.get("/api/v1/series", params={"match[]": "up"})).json()["data"] == [
        {"__name__": "up", "check": "api", "zone": "b"},
        {"__name__": "up", "check": "web"},
    ]
    assert (await client.get("/api/v1/labels")).json()["data"] == ["__name__", "check", "zone"]
    assert (await client.get("/api/v1/label/__name__/values")).json()["data"] == ["load", "up"]
    assert (await client.get("/api/v1/label/check/values", params={"match[]": "load"})).json()["data"] == []
    assert (await client.get("/api/v1/series")).status_code == 400
    answer = await client.get("/api/v1/series", params={"match[]": "{"})
    assert (answer.status_code, answer.json()["error"][:35]) == (400, "parameter 'match[]' cannot be read:")


async def test_buildinfo_says_who_answers(client):
    data = (await client.get("/api/v1/status/buildinfo")).json()["data"]
    assert (data["version"], data["application"]) == ("1.2.3", "sixfbd")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (100.0, "100"),
        (0.1, "0.1"),
        (1e-6, "0.000001"),
        (9.9e-7, "9.9e-07"),
        (1e16, "10000000000000000"),
        (123456789.125, "123456789.125"),
        (1e21, "1e+21"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Inf"),
    ],
)
def test_values_are_written_as_prometheus_writes_them(value, shown):
    assert show_value(value) == shown


# ---- OpenAPI --------------------------------------------------------------------------------------------------------------


async def test_every_answer_in_json_is_what_its_description_says(client, busy):
    document = (await client.get("/openapi.json")).json()
    for path in (
        "/readyz",
        "/api/health",
        "/api/alerts",
        "/api/events",
        "/api/v1/query?query=up",
        "/api/v1/labels",
        "/nowhere",
    ):
        answer = await client.get(path)
        route = document["paths"].get(path.partition("?")[0], {}).get("get")
        if route is None:
            schema = document["components"]["schemas"]["Error"]
        else:
            schema = route["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator(schema | {"components": document["components"]}).validate(
            json.loads(answer.text)
        )


# ---- why and why not -------------------------------------------------------------------------------------------------


async def test_why_tells_the_story_of_an_alert_and_says_if_there_is_none(client, busy):
    one = busy.alert_list[0].id
    answer = await client.get(f"/api/alerts/{one}/why")
    assert answer.json()["data"]["alert"]["id"] == one and answer.json()["data"]["records"] == []
    assert (await client.get("/api/alerts/nonesuch/why")).status_code == 404
    answer = await client.get("/api/alerts/i/why")
    assert answer.status_code == 400 and "more than one" in answer.json()["error"]["message"]


async def test_why_not_takes_a_rule_labels_and_a_time_and_names_what_is_wrong(client):
    answer = await client.get("/api/why-not", params={"rule": "Down", "label": ["check=db", "city=a,b"], "time": "12"})
    assert answer.json()["data"] == {"rule": "Down", "labels": {"check": "db", "city": "a,b"}, "at": 12.0}
    assert (await client.get("/api/why-not?rule=Down")).json()["data"]["at"] is None
    for query, status, said in (
        ("", 400, "rule"),
        ("?rule=Down&label=check", 400, "LABEL=VALUE"),
        ("?rule=Down&time=noon", 400, "time"),
        ("?rule=Up", 404, "no rule"),
        ("?rule=Many", 422, "many to many"),
    ):
        answer = await client.get(f"/api/why-not{query}")
        assert answer.status_code == status and said in answer.json()["error"]["message"], query


# ---- silences --------------------------------------------------------------------------------------------------------


async def test_silences_are_listed_the_next_to_end_first_without_those_that_are_over(client, engine):
    engine.silence_list = [
        Silence(id="long", matchers=('a="b"',), starts_at=NOW + 5, ends_at=NOW + 500, author="token:guard"),
        Silence(id="short", matchers=('a="b"',), starts_at=NOW - 5, ends_at=NOW + 50, author="me", comment="why"),
        Silence(id="over", matchers=('a="b"',), starts_at=NOW - 50, ends_at=NOW - 5, author="me"),
    ]
    answer = (await client.get("/api/silences")).json()["data"]["silences"]
    assert [(one["id"], one["state"]) for one in answer] == [("short", "active"), ("long", "pending")]
    assert answer[0]["comment"] == "why" and answer[0]["endsAt"].endswith("Z")


async def test_a_silence_is_made_and_ended_in_the_name_of_the_token(client, engine):
    body = {"matchers": ['city="dallas"'], "duration": "2h", "comment": "moving"}
    made = await client.post("/api/silences", json=body, headers=GUARD)
    assert made.json() == {"success": True, "data": {"id": "silence-1", "detail": "done"}}
    [(command, by)] = engine.commands
    assert (command.matchers, command.duration_s, by) == (('city="dallas"',), 7200.0, Actor("token:guard"))
    assert (await client.post("/api/silences", json=body)).status_code == 401
    engine.silence_list = [
        Silence(id="silence-1", matchers=("a=b",), starts_at=NOW, ends_at=NOW + 500, author="token:guard")
    ]
    assert (await client.delete("/api/silences/silence-1", headers=GUARD)).status_code == 200
    assert (await client.delete("/api/silences/nonesuch", headers=GUARD)).status_code == 404


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"matchers": []}, "matchers"),
        ({"matchers": ["a=b"]}, "either a duration"),
        ({"matchers": ["a=b"], "duration": "5x"}, "5x"),
        ({"matchers": ["a=b"], "duration": "1h", "endsAt": "2030-01-01T00:00:00Z"}, "either a duration"),
        ({"matchers": ["a=b"], "endsAt": "soon"}, "is not a time"),
        ({"matchers": ["a=b"], "endsAt": "2001-01-01T00:00:00Z"}, "more than 0s"),
        ({"matchers": ["a=b"], "duration": "1h", "nonsense": 1}, "nonsense"),
        ("no object", "silence"),
    ],
)
async def test_a_silence_that_cannot_be_is_refused_with_the_reason(client, engine, body, says):
    answer = await client.post("/api/silences", json=body, headers=GUARD)
    assert answer.status_code == 400 and says in answer.json()["error"]["message"]
