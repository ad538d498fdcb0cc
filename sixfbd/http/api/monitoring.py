"""/api/monitoring/NAME: the reports that plugins bring (SEED S5, S8, S11, S14, S15), and which there are."""

from typing import Any, Final

import msgspec
from quart import Response, request

from sixfbd.config.text import did_you_mean
from sixfbd.http import parameters
from sixfbd.http.answers import Refusal, success
from sixfbd.http.engine import ReportFailed
from sixfbd.http.routes import Answer, Parameter, Room, Route

OBJECT: Final[dict[str, Any]] = {"type": "object"}
FIELDS: Final = ("timeframe", "check", "about")


async def reports(room: Room) -> Response:
    return success({"reports": msgspec.to_builtins(room.engine.reports())})


async def report(room: Room, name: str) -> Response:
    values = request.args
    for given in values:
        if given not in FIELDS:
            raise parameters.bad(given, f"is no parameter of a report; there are {', '.join(FIELDS)}")
    timeframe = parameters.span(values, "timeframe") if "timeframe" in values else None
    check = values.get("check", "")
    if check and check not in {one.name for one in room.engine.checks()}:
        raise Refusal(
            404, "no_such_check", f"there is no check {check!r:.80}; /api/health and `sixfbctl checks` list them"
        )
    try:
        found = await room.engine.report(name, timeframe, check, values.get("about", ""))
    except KeyError:
        known = [one.name for one in room.engine.reports()]
        hint = did_you_mean(name, known) or "GET /api/monitoring lists them"
        raise Refusal(404, "no_such_report", f"there is no report {name!r:.80}; {hint}") from None
    except ReportFailed as error:
        raise Refusal(503, "report_failed", str(error)) from None
    return success(found)


ROUTES: Final = (
    Route(
        "/api/monitoring",
        reports,
        "The reports that there are.",
        {200: Answer("By name, each with what it says and how far back it looks.", OBJECT, envelope="house")},
    ),
    Route(
        "/api/monitoring/<name>",
        report,
        "A report that a plugin brings.",
        {
            200: Answer(
                "What is known; what is not is null, and `unknown` says why, by its path.", OBJECT, envelope="house"
            ),
            404: Answer("No report has this name, or there is no such check."),
        },
        parameters=(
            Parameter("name", "path", "The report's name.", required=True),
            Parameter("timeframe", "query", "How far back, such as `24h` or `30d`; each report has a default."),
            Parameter(
                "about", "query", "What it is about, such as an order's id, where a report can be about one thing."
            ),
            Parameter("check", "query", "Only what this check measured, where several instances do; all if left out."),
        ),
    ),
)
