"""/healthz, /readyz and /api/health: whether the loop turns, whether the daemon is started, how its services are."""

from typing import Any, Final

from msgspec import Struct
from quart import Response

from sixfbd.http.answers import bare
from sixfbd.http.routes import Answer, Room, Route


class Readiness(Struct, frozen=True):
    """Whether the daemon is started and can write; `reason` is empty when it is."""

    ready: bool
    reason: str


async def healthz(room: Room) -> Response:
    """Say that the loop turns; asks nobody."""
    return Response("ok\n", content_type="text/plain; charset=utf-8")


async def readyz(room: Room) -> Response:
    ready, reason = room.engine.ready()
    return bare(Readiness(ready, "" if ready else reason), 200 if ready else 503)


async def health(room: Room) -> Response:
    """Answer what the last checks found; a GET calls nobody (SEED S19)."""
    found: dict[str, Any] = await room.engine.health()
    return bare(found, 200 if found.get("status") == "healthy" else 503)


STATUS: Final = {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]}
HEALTH: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["status", "timestamp", "uptime", "version", "services", "metrics", "external"],
    "properties": {
        "status": STATUS,
        "timestamp": {"type": "string", "format": "date-time"},
        "uptime": {"type": "number", "description": "Seconds since the start."},
        "version": {"type": "string"},
        "services": {"type": "object", "description": "By name: status and when it was last checked."},
        "metrics": {"type": "object"},
        "external": {"type": "object", "description": "By name; never counts for the status."},
    },
}

ALIVE: Final = Route(
    "/healthz",
    healthz,
    "The daemon's loop turns.",
    {200: Answer('"ok".', {"type": "string"}, "text/plain")},
    scope="open",
)

ROUTES: Final = (
    ALIVE,
    Route(
        "/readyz",
        readyz,
        "The daemon is started and can write.",
        {200: Answer("It is.", Readiness), 503: Answer("It is not; the reason.", Readiness)},
    ),
    Route(
        "/api/health",
        health,
        "How every service is, as the last checks found it.",
        {200: Answer("Healthy.", HEALTH), 503: Answer("Degraded or unhealthy.", HEALTH)},
    ),
)
