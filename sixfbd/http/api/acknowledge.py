"""/ack/ID on the port for the outside: the page that a signed link in a message leads to, and its button.

A GET shows and changes nothing, because mail scanners and chats follow links; the POST of the page's button acknowledges.
"""

from typing import Final
from urllib.parse import parse_qs

import trio
from quart import Response

from sixfbd.http.answers import Refusal
from sixfbd.http.asked import Asked
from sixfbd.http.dashboard.page import TEMPLATES
from sixfbd.http.engine import EngineUnavailable
from sixfbd.http.routes import Answer, Body, Parameter, Room, Route
from sixfbd.model import Actor, Alert, AlertState

POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
MAX_LINK: Final = 500  # characters of a query


async def show(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    receiver = _receiver_of(room, asked, id)
    return await _page(room, room.engine.incident(id), receiver)


async def acknowledge(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    receiver = _receiver_of(room, asked, id)
    alert = room.engine.incident(id)
    if alert is not None and alert.state is AlertState.FIRING and alert.acked_by is None:
        outcome = await room.engine.ack(id, "", Actor(f"link:{receiver}"))
        ready, why = room.engine.ready()
        if not outcome.ok and not ready:
            raise EngineUnavailable(why)
    return await _page(room, room.engine.incident(id), receiver)


def _receiver_of(room: Room, asked: Asked, alert: str) -> str:
    """Return whose link it is. What is not signed by us is not there."""
    query = parse_qs(asked.query.decode("latin-1")) if len(asked.query) <= MAX_LINK else {}
    receiver, signature = (query.get(name, [""])[0] for name in ("by", "s"))
    if not room.engine.is_ack_link(alert, receiver, signature):
        raise Refusal(404, "not_found", "there is nothing at this path")
    return receiver


async def _page(room: Room, alert: Alert | None, receiver: str) -> Response:
    """Return the page of an alert; None: it is over."""
    facts = {
        "site": room.engine.site,
        "now": room.engine.now(),
        "alert": alert if alert is not None and alert.state is AlertState.FIRING else None,
        "receiver": receiver,
    }
    html = await trio.to_thread.run_sync(lambda: TEMPLATES.get_template("acknowledge.html").render(facts))
    response = Response(html, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    return response


_PARAMETERS: Final = (
    Parameter("id", "path", "The alert's id.", required=True),
    Parameter("by", "query", "The receiver whose link it is.", required=True),
    Parameter("s", "query", "The link's signature.", required=True),
)

ROUTES: Final = (
    Route(
        "/ack/<id>",
        show,
        "Show an alert and a button to acknowledge it.",
        {200: Answer("The page.", media="text/html"), 404: Answer("The link is none of ours.")},
        scope="open",
        parameters=_PARAMETERS,
        plain=True,
    ),
    Route(
        "/ack/<id>",
        acknowledge,
        "Acknowledge a firing alert.",
        {200: Answer("The page, after it.", media="text/html"), 404: Answer("The link is none of ours.")},
        methods=("POST",),
        scope="open",
        parameters=_PARAMETERS,
        body=Body({"application/x-www-form-urlencoded": {}}, required=False),
        plain=True,
    ),
)
