"""/webhooks/NAME on the port for the outside: what providers send, and what each is told.

Owns the forms on the wire. Whether a request is genuine, and what it says, the engine knows.
"""

from collections.abc import Mapping
from typing import Final

from quart import Response

from sixfbd.config import HttpPublic
from sixfbd.http.answers import Refusal, bare
from sixfbd.http.asked import Asked
from sixfbd.http.engine import WebhookOutcome
from sixfbd.http.routes import Answer, Body, Room, Route

PATH: Final = "/webhooks/"
REFUSED: Final[Mapping[WebhookOutcome, tuple[int, str, str]]] = {
    "refused": (400, "refused", "the request was refused; the log of the daemon says why"),
    "invalid": (422, "events_refused", "the request is genuine, but not all of its events can be kept"),
    "limited": (429, "too_many_requests", "there are too many requests; send them again later"),
    "failed": (503, "plugin_failed", "the request could not be read; send it again later"),
    "unavailable": (503, "unavailable", "events cannot be kept now; send them again later"),
    "late": (503, "timeout", "the events were not kept in time; send them again"),
}  # who sends again is told by 429 and 503; what the body held, and what is wrong here, nobody outside has to know
RETRY_AFTER: Final = {429: "10", 503: "30"}


async def receive(room: Room, asked: Asked, name: str) -> Response:
    assert isinstance(room.config, HttpPublic)
    query = asked.query.decode("latin-1")
    path = PATH + name
    url = room.config.url.rstrip("/") + path + (f"?{query}" if query else "")
    taken = await room.engine.webhook(name, url, query, list(asked.headers), asked.content)
    if taken is None:
        raise Refusal(404, "not_found", "there is nothing at this path")
    if taken.outcome not in REFUSED:
        return bare({"success": True, "data": {"events": taken.events}})
    status, code, message = REFUSED[taken.outcome]
    wait = {"Retry-After": RETRY_AFTER[status]} if status in RETRY_AFTER else {}
    detail = f": {taken.detail}" if taken.outcome == "invalid" else ""
    raise Refusal(status, code, message + detail, headers=wait)


ROUTES: Final = (
    Route(
        f"{PATH}<name>",
        receive,
        "Take a webhook. Answered 200 once its events are durable.",
        {200: Answer("Its events were taken, or known already.")},
        methods=("POST",),
        scope="open",
        body=Body({"*/*": {}}, "What the provider sends."),
        plain=True,
        limited=False,  # the engine keeps the time, because what is being written must not be cut off
    ),
)
