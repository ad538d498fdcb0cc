"""The quart-trio app: every route behind the same guards, limits, headers and error forms.

Made new for each `serve` (an app object serves once). Holds nothing but the room; the engine owns all facts.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
import trio
from quart import Response, g, request
from quart.wrappers import BaseRequestWebsocket
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout
from werkzeug.routing import MapAdapter, RequestRedirect

from sixfbd.config import Http
from sixfbd.http import openapi
from sixfbd.http.answers import SECURITY_HEADERS, Refusal, refused
from sixfbd.http.api import alerts, events, health, metrics, query
from sixfbd.http.connection import Exchange
from sixfbd.http.dashboard import page
from sixfbd.http.engine import Answered, EngineUnavailable, HttpEngine
from sixfbd.http.guard import allowed_hosts, check_encoding, check_head, check_host, check_scope, check_target
from sixfbd.http.parameters import whole_body
from sixfbd.http.routes import Room, Route

log = structlog.get_logger("sixfbd.http")

RESPONSE_TIMEOUT_S: Final = 60.0
RETRY_AFTER_S: Final = "5"
CODES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not_found", "there is nothing at this path; GET /openapi.json lists what there is"),
    405: ("method_not_allowed", "this path does not take this method; `Allow` names those it takes"),
    408: ("body_too_slow", "the body did not come in time"),
    413: ("body_too_large", "the body is larger than `max_body` in [http]; send it in parts"),
}


def all_routes() -> Sequence[Route]:
    """Return every route of the room."""
    routes = (
        *page.ROUTES,
        *health.ROUTES,
        *metrics.ROUTES,
        *alerts.ROUTES,
        *events.ROUTES,
        *query.ROUTES,
    )
    return (*routes, openapi.route_of(routes))


class App(QuartTrio):
    """Quart without what it would read from the Host header: routes have no host, and `guard` judges the header.

    `take` puts another `[http]` table in force while it serves.
    """

    asgi_http_class = Exchange

    def __init__(self, room: Room) -> None:
        super().__init__("sixfbd", static_folder=None)
        self.room = room
        self.allowed: frozenset[tuple[str, str]] = frozenset()
        self.config["RESPONSE_TIMEOUT"] = RESPONSE_TIMEOUT_S
        self.config["PROPAGATE_EXCEPTIONS"] = False
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = True
        self.take(room.config)

    def take(self, config: Http) -> None:
        """Answer by this table from the next request on. A name that the listener had until now still holds: who is
        connected to it may ask once more."""
        self.allowed = allowed_hosts(config) | allowed_hosts(Http(listen=self.room.config.listen))
        self.room.config = config
        self.config["MAX_CONTENT_LENGTH"] = int(config.max_body)
        self.config["BODY_TIMEOUT"] = float(config.body_timeout)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Bind the routes to the request's path. quart would bind to its host first, and fail on one that is no name."""
        if request is None:
            return None
        return self.url_map.bind(
            "localhost", path_info=request.path, default_method=request.method, query_args=request.args
        )


def make_app(engine: HttpEngine, config: Http) -> App:
    """Return an app that answers from `engine`, for one `serve`."""
    room = Room(engine, config)
    app = App(room)
    routes = {route.name: route for route in all_routes()}
    for route in routes.values():
        _add(app, room, route)
    _guard(app, room, routes)
    _finish(app, room)
    return app


def _add(app: QuartTrio, room: Room, route: Route) -> None:
    async def endpoint(**path: Any) -> Response:
        if route.body is not None and request.method == "POST":
            check_encoding(request.headers.get("Content-Encoding", ""))
            await whole_body()  # kept for the view; BODY_TIMEOUT is its time limit
        if not route.limited:
            return await route.view(room, **path)
        try:
            with trio.fail_after(float(room.config.request_timeout)):
                return await route.view(room, **path)
        except trio.TooSlowError:
            limit = f"no answer was ready within {room.config.request_timeout}"
            raise Refusal(503, "timeout", f"{limit}; ask for less, or raise `request_timeout` in [http]") from None

    app.add_url_rule(route.path, route.name, endpoint, methods=list(route.methods), provide_automatic_options=False)


def _guard(app: App, room: Room, routes: Mapping[str, Route]) -> None:
    @app.before_request
    async def guard() -> None:
        g.began = time.perf_counter()
        check_target(request.scope["raw_path"])
        check_head(request.scope["raw_path"], request.scope["query_string"], request.scope["headers"])
        check_host(request.headers.getlist("Host"), app.allowed)
        route = routes.get(request.endpoint or "")
        if route is not None:
            check_scope(room.engine, route.scope)


def _finish(app: QuartTrio, room: Room) -> None:
    @app.errorhandler(Exception)
    async def fail(error: Exception) -> Response:
        refusal = refusal_of(error)
        if refusal.status == 500:
            log.error("http.failed", method=request.method, path=request.path, exc_info=error)
        response = refused(request.path, refusal)
        if _has_unread_body() and request.http_version.startswith("1"):
            response.headers["Connection"] = "close"  # what is left of the body would be read as the next request
        return response

    @app.after_request
    async def finish(response: Response) -> Response:
        response.headers.update(SECURITY_HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        duration_s = time.perf_counter() - g.began
        route = "" if request.url_rule is None else request.url_rule.rule
        room.engine.answered(Answered(request.method, route, response.status_code, duration_s))
        log.debug(
            "http.answered",
            method=request.method,
            path=request.path,
            status=response.status_code,
            duration_ms=round(duration_s * 1000, 1),
        )
        return response


def _has_unread_body() -> bool:
    """Tell whether the request announced a body that its answer did not wait for."""
    return bool(request.content_length or request.headers.get("Transfer-Encoding"))


def refusal_of(error: Exception) -> Refusal:
    """Return what a client is told of whatever a view, a guard or the framework raised."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, EngineUnavailable):
        return Refusal(503, "unavailable", str(error), headers={"Retry-After": RETRY_AFTER_S})
    if isinstance(error, UnicodeDecodeError):
        return Refusal(400, "not_utf8", f"the body is not UTF-8: {error.reason} at byte {error.start}")
    if isinstance(error, RequestEntityTooLarge | RequestTimeout) or (
        isinstance(error, HTTPException) and error.code in CODES and not isinstance(error, RequestRedirect)
    ):
        code, message = CODES[error.code or 500]
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return Refusal(error.code or 500, code, message, headers=headers)
    if isinstance(error, HTTPException) and error.code is not None and 400 <= error.code < 500:
        return Refusal(error.code, "bad_request", error.description or "the request is malformed")
    return Refusal(500, "internal", "a fault of the daemon's own; its log names it")
