"""/api/alerts: the pending and the firing alerts, and their acknowledgement."""

from typing import Final

import msgspec
from msgspec import Struct
from quart import Response

from sixfbd.faults import not_json, unfit
from sixfbd.http.answers import Refusal, show_time, show_time_or_none, success
from sixfbd.http.asked import Asked
from sixfbd.http.engine import EngineUnavailable
from sixfbd.http.guard import caller
from sixfbd.http.routes import Answer, Body, Parameter, Room, Route
from sixfbd.model import Actor, Alert, AlertState


class AlertView(Struct, frozen=True, rename="camel"):
    """An alert on the wire. `id` is what acknowledging takes; `since` is when it entered its state."""

    id: str
    rule: str
    state: str
    severity: str
    value: float | str
    labels: dict[str, str]
    annotations: dict[str, str]
    since: str
    pending_at: str | None
    fired_at: str | None
    acked_by: str | None
    acked_at: str | None
    blind: bool
    reason: str
    held_by: tuple[str, ...]
    flapping: bool
    escalates_at: str | None


class Alerts(Struct, frozen=True):
    """Firing ones first, worst first, then oldest first."""

    alerts: list[AlertView]


class AckBody(Struct, frozen=True, forbid_unknown_fields=True):
    """May be left out."""

    comment: str = ""


class AckDone(Struct, frozen=True):
    """The alert, and what came of it."""

    id: str
    detail: str


def view_of(alert: Alert) -> AlertView:
    return AlertView(
        id=alert.id,
        rule=alert.key.rule,
        state=str(alert.state),
        severity=str(alert.severity),
        value=alert.value,
        labels=alert.labels,
        annotations=alert.annotations,
        since=show_time(alert.since),
        pending_at=show_time_or_none(alert.pending_at),
        fired_at=show_time_or_none(alert.fired_at),
        acked_by=alert.acked_by,
        acked_at=show_time_or_none(alert.acked_at),
        blind=alert.blind,
        reason=alert.reason,
        held_by=tuple(map(str, alert.held)),
        flapping=alert.flapping,
        escalates_at=show_time_or_none(None if alert.acked_by is not None or alert.held else alert.escalate_at),
    )


def worst_first(alerts: "list[Alert]") -> "list[Alert]":
    """Sort alerts as people read them: firing before pending, by severity, oldest first."""
    return sorted(alerts, key=lambda one: (one.state is not AlertState.FIRING, -one.severity.rank, one.since, one.id))


async def alerts(room: Room) -> Response:
    return success(Alerts([view_of(alert) for alert in worst_first(list(room.engine.alerts()))]))


async def ack(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    body = asked.content
    try:
        comment = msgspec.json.decode(body, type=AckBody).comment if body else ""
    except msgspec.ValidationError as error:
        raise Refusal(400, "bad_request", f'the body is not {{"comment": "..."}}: {" ".join(unfit(error))}') from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(400, "bad_request", f"the body is not JSON: {not_json(error)}") from error
    if not any(alert.id == id for alert in room.engine.alerts()):
        raise Refusal(404, "no_such_alert", f"no alert has the id {id!r:.80}; GET /api/alerts lists them")
    outcome = await room.engine.ack(id, comment, Actor(f"token:{caller(asked).name}"))
    if not outcome.ok:
        ready, why = room.engine.ready()
        if not ready:
            raise EngineUnavailable(why)
        raise Refusal(409, "not_acknowledged", outcome.error)
    return success(AckDone(id, outcome.detail))


ROUTES: Final = (
    Route("/api/alerts", alerts, "The pending and the firing alerts.", {200: Answer("", Alerts, envelope="house")}),
    Route(
        "/api/alerts/<id>/ack",
        ack,
        "Acknowledge a firing alert.",
        {
            200: Answer("Acknowledged; durable.", AckDone, envelope="house"),
            404: Answer("No alert has this id."),
            409: Answer("It cannot be acknowledged; the message says why."),
        },
        methods=("POST",),
        scope="alerts",
        parameters=(Parameter("id", "path", "The alert's id.", required=True),),
        body=Body({"application/json": AckBody}, required=False),
        plain=True,
    ),
)
