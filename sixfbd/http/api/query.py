"""/api/v1/: Prometheus' query API as far as Grafana and scripts use it, in Prometheus' own form."""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
import trio
from quart import Response

from sixfbd.http import parameters
from sixfbd.http.answers import JSON, Refusal
from sixfbd.http.engine import QueryAnswer, QueryFailed, QueryRefused, QueryTooLong
from sixfbd.http.routes import Answer, Body, Parameter, Room, Route

MAX_STEPS: Final = 11_000  # points per series, as in Prometheus web/api/v1/api.go
EARLIEST: Final = 0.0


def show_value(value: float) -> str:
    """Return a sample's value as Prometheus writes it: shortest decimal, exponents only below 1e-6 and from 1e21 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        shown = format(Decimal(repr(value)), "f")
        return shown.rstrip("0").rstrip(".") if "." in shown else shown
    return repr(value)


def _at(seconds: float) -> int | float:
    milliseconds = round(seconds * 1000)
    return milliseconds // 1000 if milliseconds % 1000 == 0 else milliseconds / 1000


def answer_data(answer: QueryAnswer) -> dict[str, Any]:
    """Return `data` of Prometheus' form for an answer of any kind."""
    pairs = [[[_at(at), show_value(value)] for at, value in one.points] for one in answer.series]
    result: Any
    if answer.kind == "matrix":
        result = [{"metric": one.labels, "values": points} for one, points in zip(answer.series, pairs, strict=True)]
    elif answer.kind == "vector":
        result = [{"metric": one.labels, "value": points[0]} for one, points in zip(answer.series, pairs, strict=True)]
    else:
        at, value = pairs[0][0]
        result = [at, answer.text if answer.kind == "string" else value]
    return {"resultType": answer.kind, "result": result}


async def _written(answer: QueryAnswer) -> Response:
    """Write an answer in a worker thread: one of a million points takes a second."""
    body = await trio.to_thread.run_sync(
        lambda: msgspec.json.encode({"status": "success", "data": answer_data(answer)}), abandon_on_cancel=True
    )
    return Response(body, content_type=JSON)


def _data(data: object) -> Response:
    return Response(msgspec.json.encode({"status": "success", "data": data}), content_type=JSON)


def refusal_of(error: QueryRefused | QueryFailed | QueryTooLong, parameter: str = "query") -> Refusal:
    """Return the answer to a query that has none; `parameter` is where it was written."""
    if isinstance(error, QueryTooLong):
        return Refusal(503, "timeout", str(error))
    if isinstance(error, QueryFailed):
        return Refusal(422, "execution", str(error))
    place = "" if error.line is None else f"{error.line}:{error.column or 1}: "
    return Refusal(400, "bad_data", f"parameter {parameter!r} cannot be read: {place}{error}")


async def query(room: Room) -> Response:
    values = await parameters.merged()
    expr, at = parameters.text(values, "query"), parameters.moment(values, "time", room.engine.now())
    try:
        return await _written(await room.engine.query(expr, at))
    except (QueryRefused, QueryFailed, QueryTooLong) as error:
        raise refusal_of(error) from error


async def query_range(room: Room) -> Response:
    values = await parameters.merged()
    expr = parameters.text(values, "query")
    start, end = parameters.moment(values, "start", None), parameters.moment(values, "end", None)
    step = parameters.span(values, "step")
    if end < start:
        raise parameters.bad("end", "is before the start")
    if (end - start) / step >= MAX_STEPS:
        raise parameters.bad("step", f"makes more than {MAX_STEPS} points of each series; write a longer one")
    try:
        return await _written(await room.engine.query_range(expr, start, end, step))
    except (QueryRefused, QueryFailed, QueryTooLong) as error:
        raise refusal_of(error) from error


async def _series(room: Room, *, needed: bool) -> list[Mapping[str, str]]:
    values = await parameters.merged()
    selectors = values.getlist("match[]")
    if needed and not selectors:
        raise parameters.bad("match[]", "is missing")
    start, end = parameters.moment(values, "start", EARLIEST), parameters.moment(values, "end", room.engine.now())
    try:
        return list(await room.engine.series(selectors, start, end))
    except (QueryRefused, QueryFailed, QueryTooLong) as error:
        raise refusal_of(error, "match[]") from error


async def series(room: Room) -> Response:
    found = await _series(room, needed=True)
    return _data(sorted((dict(sorted(labels.items())) for labels in found), key=lambda labels: tuple(labels.items())))


async def labels(room: Room) -> Response:
    return _data(sorted({name for one in await _series(room, needed=False) for name in one}))


async def label_values(room: Room, name: str) -> Response:
    return _data(sorted({one[name] for one in await _series(room, needed=False) if name in one}))


async def buildinfo(room: Room) -> Response:
    """Answer what Grafana asks first; the version is sixfbd's own."""
    return _data(
        {"version": room.engine.version, "application": "sixfbd", "revision": "", "branch": "", "goVersion": ""}
    )


SAMPLE: Final = {
    "type": "array",
    "prefixItems": [{"type": "number"}, {"type": "string"}],
    "description": "Unix seconds, and the value as text.",
}
RESULT: Final = {
    "type": "object",
    "required": ["resultType", "result"],
    "properties": {
        "resultType": {"type": "string", "enum": ["vector", "matrix", "scalar", "string"]},
        "result": {
            "anyOf": [
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "metric": {"type": "object", "additionalProperties": {"type": "string"}},
                            "value": SAMPLE,
                            "values": {"type": "array", "items": SAMPLE},
                        },
                    },
                },
                SAMPLE,
            ]
        },
    },
}
EXPR: Final = Parameter("query", "query", "PromQL.", required=True)
SPAN: Final = (
    Parameter("match[]", "query", "Series selectors.", repeated=True),
    Parameter("start", "query", "RFC 3339 or unix seconds; left out: from the beginning."),
    Parameter("end", "query", "RFC 3339 or unix seconds; left out: now."),
)
BOTH: Final = ("GET", "POST")
AS_FORM: Final = Body({parameters.FORM: {"type": "object"}}, "The parameters may be posted as a form.", required=False)
NAMES: Final = {200: Answer("", list[str], envelope="prometheus")}
QUERY_ANSWERS: Final = {
    200: Answer("", RESULT, envelope="prometheus"),
    422: Answer("The query reads well but has no answer."),
}

ROUTES: Final = (
    Route(
        "/api/v1/query",
        query,
        "Evaluate PromQL at one time.",
        QUERY_ANSWERS,
        BOTH,
        parameters=(EXPR, Parameter("time", "query", "RFC 3339 or unix seconds; left out: now.")),
        body=AS_FORM,
    ),
    Route(
        "/api/v1/query_range",
        query_range,
        "Evaluate PromQL over a span.",
        QUERY_ANSWERS,
        BOTH,
        parameters=(
            EXPR,
            Parameter("start", "query", "RFC 3339 or unix seconds.", required=True),
            Parameter("end", "query", "RFC 3339 or unix seconds.", required=True),
            Parameter("step", "query", 'Such as "15s", or seconds.', required=True),
        ),
        body=AS_FORM,
    ),
    Route(
        "/api/v1/series",
        series,
        "The series that match.",
        {200: Answer("", list[dict[str, str]], envelope="prometheus")},
        BOTH,
        parameters=SPAN,
        body=AS_FORM,
    ),
    Route("/api/v1/labels", labels, "The names of all labels.", NAMES, BOTH, parameters=SPAN, body=AS_FORM),
    Route(
        "/api/v1/label/<name>/values",
        label_values,
        "The values of one label.",
        NAMES,
        parameters=(Parameter("name", "path", "The label.", required=True), *SPAN),
    ),
    Route(
        "/api/v1/status/buildinfo",
        buildinfo,
        "What answers here.",
        {200: Answer("", dict[str, str], envelope="prometheus")},
    ),
)
