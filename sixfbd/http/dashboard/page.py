"""The page at /: checks, alerts, the last hour of chosen series, the last events; its files; the stream that keeps it live.

Everything on it is rendered here and served from here; nothing is loaded from another host, nothing is inline (CSP).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
import trio
from quart import Response, request

from sixfbd.http.answers import SECURITY_HEADERS, Refusal, show_time
from sixfbd.http.api.alerts import worst_first
from sixfbd.http.asked import Asked
from sixfbd.http.dashboard.charts import sparks_of
from sixfbd.http.dashboard.sparkline import HEIGHT, WIDTH, Chart, draw
from sixfbd.http.dashboard.wording import TONES, age, glance, shown
from sixfbd.http.routes import Answer, Parameter, Room, Route
from sixfbd.http.sessions import session_of
from sixfbd.http.streams import CONTENT_TYPE, leaving, news, stream

FOLDER: Final = Path(__file__).parent
MEDIA: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
FILES: Final[Mapping[str, bytes]] = {
    path.name: path.read_bytes() for path in sorted((FOLDER / "static").iterdir()) if path.suffix in MEDIA
}
HASHES: Final[Mapping[str, str]] = {name: sha256(content).hexdigest()[:12] for name, content in FILES.items()}
MAX_ALERTS: Final = 100
MAX_CHECKS: Final = 200
EVENTS_SHOWN: Final = 12
MAX_DATA: Final = 160  # characters of an event's data on the page
CHARTS_WAIT_S: Final = 2.0  # the page is for the moment of trouble: it does not wait for its charts
CHANGES_APART_S: Final = 1.0
POLICY: Final = SECURITY_HEADERS["Content-Security-Policy"].replace("form-action 'none'", "form-action 'self'")
"""As of every answer, and forms may be sent to us."""

TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=lambda value: shown(value) if type(value) is str else value,  # Markup is of our own making
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["shown"] = shown
TEMPLATES.globals.update(show_time=show_time, age=age, tones=TONES, width=WIDTH, height=HEIGHT)


def asset(name: str) -> str:
    """Return the URL of a file of the page; it changes when the file does, so that it may be kept for ever."""
    return f"/static/{name}?v={HASHES[name]}"


TEMPLATES.globals["asset"] = asset


async def index(room: Room, asked: Asked) -> Response:
    found = session_of(room.sessions, room.engine, asked)
    own = {"word": "" if found is None else found[0].word, "who": "" if found is None else found[1].name}

    async def render() -> str:
        facts = await _facts(room) | own
        return await trio.to_thread.run_sync(lambda: TEMPLATES.get_template("index.html").render(facts))

    generation = await room.engine.wait_changed(
        -1
    )  # a page made before a change is not the answer to a request after it
    page = await room.pages.get(f"{generation} {own['word']}", render)
    return Response(page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


async def _facts(room: Room) -> dict[str, Any]:
    """Gather what the template shows, taken at one time."""
    engine = room.engine
    charts = await _charts(room)
    recent = await engine.last_events((), EVENTS_SHOWN)
    checks, alerts = list(engine.checks()), worst_first(list(engine.alerts()))
    return {
        "here": "/",
        "reports": list(engine.reports()),
        "now": engine.now(),
        "site": engine.site,
        "sandbox": engine.sandbox,
        "version": engine.version,
        "glance": glance(engine.ready(), checks, alerts),
        "nobody_told": engine.nobody_told(),
        "charts": charts,
        "alerts": alerts[:MAX_ALERTS],
        "more_alerts": max(0, len(alerts) - MAX_ALERTS),
        "checks": checks[:MAX_CHECKS],
        "more_checks": max(0, len(checks) - MAX_CHECKS),
        "events": [(stored, _short(stored.event.data)) for stored in reversed(recent)],
    }


async def _charts(room: Room) -> Sequence[Chart] | None:
    """Return the charts, None if they cannot be had in time."""

    async def make() -> list[Chart]:
        return [draw(spark) for spark in await sparks_of(room.engine)]

    with trio.move_on_after(CHARTS_WAIT_S):
        return await room.charts.get("charts", make)
    return None


def _short(data: Mapping[str, Any]) -> str:
    return shown(msgspec.json.encode(data).decode(), MAX_DATA)


async def static(room: Room, name: str) -> Response:
    content = FILES.get(name)
    if content is None:
        raise Refusal(404, "not_found", f"the page has no file {name!r:.80}")
    kept = "public, max-age=31536000, immutable" if request.args.get("v") == HASHES[name] else "no-cache"
    return Response(content, content_type=MEDIA[Path(name).suffix], headers={"Cache-Control": kept})


async def changes(room: Room) -> Response:
    return stream(room, _pieces(room, leaving()))


async def _pieces(room: Room, left: trio.Event) -> AsyncIterator[bytes]:
    """Yield `changed` when anything on the page may have changed, at most once a second, the first at once."""
    generation = -1

    async def wait(above: int) -> None:
        nonlocal generation
        generation = await room.engine.wait_changed(above)

    while not left.is_set():
        came = await news(left, partial(wait, generation))
        if came:
            yield b"event: changed\ndata: %d\n\n" % generation
            with trio.move_on_after(CHANGES_APART_S):
                await left.wait()
        elif came is None:
            yield b": ping\n\n"


ROUTES: Final = (
    Route("/", index, "The page for people.", {200: Answer("", {"type": "string"}, "text/html")}, plain=True),
    Route(
        "/static/<name>",
        static,
        "The page's style, script and icon.",
        {
            200: Answer("", {"type": "string"}, "text/css"),
            404: Answer("There is no such file."),
        },
        parameters=(
            Parameter("name", "path", "The file.", required=True),
            Parameter("v", "query", "The content's hash: the answer may then be kept for ever."),
        ),
    ),
    Route(
        "/api/stream",
        changes,
        "Hear that something on the page changed (server-sent events named `changed`, at most one a second).",
        {200: Answer("", {"type": "string"}, CONTENT_TYPE.split(";")[0])},
        limited=False,
    ),
)
