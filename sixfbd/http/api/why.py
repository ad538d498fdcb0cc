"""/api/alerts/ID/why and /api/why-not: why somebody was told, why nobody was; the bodies of `sixfbctl ... --json`."""

from collections.abc import Sequence
from typing import Any, Final

from quart import Response

from sixfbd.http import parameters
from sixfbd.http.answers import Refusal, success
from sixfbd.http.api.query import refusal_of
from sixfbd.http.engine import QueryFailed, QueryRefused, QueryTooLong
from sixfbd.http.routes import Answer, Parameter, Room, Route

OBJECT: Final[dict[str, Any]] = {"type": "object"}


async def why(room: Room, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    try:
        found = await room.engine.why(id)
    except QueryRefused as error:
        raise refusal_of(error, "id") from error
    if found is None:
        raise Refusal(404, "no_such_alert", f"no alert has the id {id!r:.80}; GET /api/alerts lists the open ones")
    return success(found)


async def why_not(room: Room) -> Response:
    values = await parameters.merged()
    rule, at = parameters.text(values, "rule"), None
    if values.get("time"):
        at = parameters.moment(values, "time", None)
    try:
        found = await room.engine.why_not(rule, _labels(values.getlist("label")), at)
    except (QueryRefused, QueryFailed, QueryTooLong) as error:
        raise refusal_of(error, "rule") from error
    if found is None:
        raise Refusal(404, "no_such_rule", f"no rule has the name {rule!r:.80}; `sixfbd rules` lists them")
    return success(found)


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise parameters.bad("label", f"{pair!r:.80} is not LABEL=VALUE")
        given[name] = value
    return given


ROUTES: Final = (
    Route(
        "/api/alerts/<id>/why",
        why,
        "The whole story of an alert: its changes, what was owed to whom, and what became of it.",
        {200: Answer("As `sixfbctl why --json`.", OBJECT, envelope="house"), 404: Answer("No alert has this id.")},
        parameters=(Parameter("id", "path", "The alert's id, or its beginning.", required=True),),
    ),
    Route(
        "/api/why-not",
        why_not,
        "Why a rule does not fire for these labels, or nobody is told.",
        {
            200: Answer("As `sixfbctl why-not --json`.", OBJECT, envelope="house"),
            404: Answer("No rule has this name."),
            422: Answer("Its expression has no answer with the data there is."),
        },
        parameters=(
            Parameter("rule", "query", "The rule's name.", required=True),
            Parameter("label", "query", "A label of the alert, such as `check=web`.", repeated=True),
            Parameter("time", "query", "A time in the past, as far back as samples go; now if left out."),
        ),
    ),
)
