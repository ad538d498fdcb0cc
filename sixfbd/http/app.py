"""The quart-trio app: every route behind the same guards, limits, headers and error forms.

Made new for each `serve` (an app object serves once). Holds nothing but the room; the engine owns all facts.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.typing import HTTPScope
from quart import Response
from quart.ctx import RequestContext
from quart.globals import request_ctx
from quart.sessions import NullSession
from quart.wrappers import BaseRequestWebsocket, Request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, NotFound, RequestEntityTooLarge, RequestTimeout
from werkzeug.routing import MapAdapter, RequestRedirect

from sixfbd.config import Http, HttpPublic
from sixfbd.containment import leaves
from sixfbd.http import openapi
from sixfbd.http.answers import Ready, Refusal, refused
from sixfbd.http.api import acknowledge, alerts, events, health, metrics, monitoring, query, silences, webhooks, why
from sixfbd.http.asked import AppRequest, Asked, Body
from sixfbd.http.dashboard import actions, page, reports
from sixfbd.http.engine import Answered, EngineUnavailable, HttpEngine
from sixfbd.http.guard import (
    allowed_hosts,
    check_encoding,
    check_head,
    check_host,
    check_scope,
    check_target,
    kept_hosts,
)
from sixfbd.http.routes import Room, Route

log = structlog.get_logger("sixfbd.http")
shown = logging.getLogger("sixfbd.http")  # says at once whether a line would be

RESPONSE_TIMEOUT_S: Final = 60.0
RETRY_AFTER_S: Final = "5"
CODES: Final[Mapping[int, tuple[str, str]]] = {
    404: ("not_found", "there is nothing at this path"),
    405: ("method_not_allowed", "this path does not take this method; `Allow` names those it takes"),
    408: ("body_too_slow", "the body did not come in time"),
    413: ("body_too_large", "the body is larger than `max_body` in {header}; send it in parts"),
}
MORE_LOCALLY: Final[Mapping[int, str]] = {404: "; GET /openapi.json lists what there is"}


def public_routes() -> Sequence[Route]:
    """Return what the port for the outside serves."""
    return (health.ALIVE, *webhooks.ROUTES, *acknowledge.ROUTES)


def all_routes() -> Sequence[Route]:
    """Return every route of the local port."""
    routes = (
        *page.ROUTES,
        *reports.ROUTES,
        *actions.ROUTES,
        *health.ROUTES,
        *metrics.ROUTES,
        *alerts.ROUTES,
        *why.ROUTES,
        *silences.ROUTES,
        *events.ROUTES,
        *query.ROUTES,
        *monitoring.ROUTES,
    )
    return (*routes, openapi.route_of(routes))


class App(QuartTrio):
    """Quart's routing, requests and responses, and a way through them of our own: guard, view, error form, headers.

    quart's own way (signals, sessions, hooks by blueprint) would cost a request as much as its work does; plain routes
    take nothing of it. `take` puts another `[http]` table in force while it serves.
    """

    request_class = AppRequest

    def __init__(self, room: Room, routes: Sequence[Route]) -> None:
        super().__init__("sixfbd", static_folder=None)
        self._room = room
        self._routes = {route.name: route for route in routes}
        self._plain = {
            (method, route.path): route
            for route in routes
            if route.plain and "<" not in route.path
            for method in route.methods
        }
        self._allowed: frozenset[tuple[str, str]] = frozenset()
        self.config["RESPONSE_TIMEOUT"] = RESPONSE_TIMEOUT_S
        self.config["PROPAGATE_EXCEPTIONS"] = False
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = True
        for route in routes:
            self.add_url_rule(route.path, route.name, methods=list(route.methods), provide_automatic_options=False)
        self.take(room.config)

    def take(self, config: Http | HttpPublic) -> None:
        """Answer by this table from the next request on."""
        self._allowed = allowed_hosts(config) | kept_hosts(self._room.config)
        self._room.config = config
        self.config["MAX_CONTENT_LENGTH"] = int(config.max_body)
        self.config["BODY_TIMEOUT"] = float(config.body_timeout)

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Bind the routes to the request's path. quart would bind to its host first, and fail on one that is no name."""
        if request is None:
            return None
        return self.url_map.bind(
            "localhost", path_info=request.path, default_method=request.method, query_args=request.args
        )

    def request_context(self, request: Request) -> RequestContext:
        """There are no sessions."""
        return RequestContext(self, request, NullSession())

    def plain_route(self, scope: HTTPScope) -> Route | None:
        """Return the route of a request that is answered without quart, if there is one for exactly this path."""
        return self._plain.get((scope["method"], scope["path"]))

    def body_of(self, scope: HTTPScope) -> Body:
        """Return what takes the body of a request, which is limited as every request's is."""
        lengths = [int(value) for name, value in scope["headers"] if name == b"content-length"]
        return Body(lengths[0] if lengths else None, self.config["MAX_CONTENT_LENGTH"])

    async def full_dispatch_request(self, request_context: RequestContext | None = None) -> Response:
        """Answer the request at hand, whatever comes of it, and count it."""
        request = (request_context or request_ctx).request
        route = self._routes.get(request.endpoint or "")
        failed, arguments = request.routing_exception, request.view_args or {}
        asked = Asked(cast(HTTPScope, request.scope), cast(Body, request.body))
        answer = await self._answer(asked, route, arguments, failed)
        return Response(answer.body, content_type=answer.content_type) if isinstance(answer, Ready) else answer

    async def answer_plainly(self, asked: Asked, route: Route) -> Response | Ready:
        """Answer a request of a plain route, whatever comes of it, and count it."""
        return await self._answer(asked, route, {}, None)

    async def _answer(
        self, asked: Asked, route: Route | None, arguments: Mapping[str, Any], failed: Exception | None
    ) -> Response | Ready:
        began = time.perf_counter()
        answer: Response | Ready
        try:
            answer = await self._view(asked, route, arguments, failed)
        except Exception as error:  # noqa: BLE001 - whatever a view raises is answered, and logged if it is a fault
            answer = _failed(asked, leaves(error)[0], self._room.config)
        self._finish(asked, route, answer, time.perf_counter() - began)
        return answer

    async def _view(
        self, asked: Asked, route: Route | None, arguments: Mapping[str, Any], failed: Exception | None
    ) -> Response | Ready:
        check_target(asked.target)
        check_head(asked.target, asked.query, asked.headers)
        local = isinstance(self._room.config, Http)
        check_host(asked.all_headers(b"host"), self._allowed, "; add it to `hosts` in [http] if it is" if local else "")
        if route is None or failed is not None:
            raise failed or NotFound
        check_scope(self._room.engine, route.scope, asked, self._room.sessions)
        if route.body is not None and asked.method == "POST":
            check_encoding(asked.header(b"content-encoding"))
            await asked.body.wait(self.config["BODY_TIMEOUT"])  # kept for the view
        if not route.limited:
            return await route.call(self._room, asked, arguments)
        limit = self._room.config.request_timeout
        with trio.CancelScope(deadline=trio.current_time() + float(limit)) as scope:
            return await route.call(self._room, asked, arguments)
        assert scope.cancelled_caught
        mend = f"ask for less, or raise `request_timeout` in {self._room.config.header}"
        raise Refusal(503, "timeout", f"no answer was ready within {limit}; {mend}")

    def _finish(self, asked: Asked, route: Route | None, answer: Response | Ready, duration_s: float) -> None:
        status = 200
        if not isinstance(answer, Ready):
            status = answer.status_code
            answer.headers.setdefault("Cache-Control", "no-store")
        self._room.engine.answered(Answered(asked.method, "" if route is None else route.path, status, duration_s))
        if shown.isEnabledFor(logging.DEBUG):
            log.debug(
                "http.answered",
                method=asked.method,
                path=asked.path,
                status=status,
                duration_ms=round(duration_s * 1000, 1),
            )


def make_app(engine: HttpEngine, config: Http | HttpPublic) -> App:
    """Return an app that answers from `engine`, for one `serve`; which routes it has the table says."""
    return App(Room(engine, config), all_routes() if isinstance(config, Http) else public_routes())


def _failed(asked: Asked, error: BaseException, config: Http | HttpPublic) -> Response:
    """Return the answer to what was raised; a fault of ours is logged."""
    refusal = refusal_of(error, config)
    if refusal.status == 500:
        log.error("http.failed", method=asked.method, path=asked.path, exc_info=error)
    response = refused(asked.path, refusal)
    if asked.has_body and asked.http_version.startswith("1"):
        response.headers["Connection"] = "close"  # what is left of the body would be read as the next request
    return response


def refusal_of(error: BaseException, config: Http | HttpPublic) -> Refusal:
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
        message = message.format(header=config.header)
        message += MORE_LOCALLY.get(error.code or 500, "") if isinstance(config, Http) else ""
        headers = {name: value for name, value in error.get_headers() if name == "Allow"}
        return Refusal(error.code or 500, code, message, headers=headers)
    if isinstance(error, HTTPException) and error.code is not None and 400 <= error.code < 500:
        return Refusal(error.code, "bad_request", error.description or "the request is malformed")
    return Refusal(500, "internal", "a fault of the daemon's own; its log names it")
