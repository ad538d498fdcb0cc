"""One connection: hypercorn's and quart-trio's, with what they leave open mended (hypercorn 0.18, quart-trio 0.12).

- Refusals that never reach the app (a malformed head or body, a head too large) carry the house's error form.
- HTTP/1.1 only. An offer to change the protocol (websocket, h2c) is ignored, as RFC 9110 section 7.8 allows: there is
  nothing here to change to, and each protocol would be one more door.
- A connection that we end is read on for a moment, or the client would lose the answer that says why: to close a socket
  with unread data resets it, and a reset discards what was not yet read on the other side.
- When its listener is given up (`leaving` in the connection's state), each connection is told to close with its next
  answer: to close it between two requests would lose the one that is on its way.
- The end of the client's side is the end of the client: whoever wants the answer keeps its side open until then.
- A request costs one task and one write: hypercorn takes three tasks, two queues and a write for each piece of an answer,
  and each of them turns the loop.

Owns nothing beyond its connection, and never decides what a request may do.
"""

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response as ResponseHead
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIReceiveEvent, ASGISendEvent, ConnectionState, H11SendableEvent, HTTPScope, Scope
from hypercorn.utils import parse_socket_addr
from quart import Response
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest

from sixfbd.http.answers import SECURITY_HEADERS, below_the_app

log = structlog.get_logger("sixfbd.http")

LINGER_S: Final = 2.0
NO_TARGET: Final = "*"  # the path of a target that names none: no route has it
ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#]+)(/[^?#]*)?", re.IGNORECASE)
ALWAYS: Final = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
REFUSED: Final[Mapping[int, tuple[str, str]]] = {
    400: ("malformed", "the request is not HTTP/1.1: its first line, a header or the framing of its body is malformed"),
    431: ("head_too_large", "the first line and the headers together are too large"),
    501: ("not_implemented", "a body may have the transfer encoding `chunked` or none"),
}  # what h11 refuses by itself


class Wire(H11Protocol):
    """HTTP/1.1 and nothing else; what h11 refuses is said in JSON. The head of an answer leaves with what follows it."""

    _held = b""

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self._held + (self.connection.send(event) or b"")
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        self._held = data if isinstance(event, h11.Response) else b""
        if data and not self._held:
            await self.send(RawData(data=data))

    async def _maybe_recycle(self) -> None:
        if self._held:  # an app that failed between the head and the first piece
            held, self._held = self._held, b""
            await self.send(RawData(data=held))
        await super()._maybe_recycle()

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, ResponseHead) and self.connection_state["leaving"].is_set():
            headers = [*event.headers, (b"connection", b"close")]
            event = ResponseHead(stream_id=event.stream_id, headers=headers, status_code=event.status_code)
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1."""

    async def _create_stream(self, request: h11.Request) -> None:
        if not any(name == b"upgrade" for name, _ in request.headers):
            await super()._create_stream(request)
            return
        kept = [(name, value) for name, value in request.headers if name != b"upgrade"]
        await super()._create_stream(
            h11.Request(method=request.method, target=request.target, headers=kept, http_version=request.http_version)
        )

    async def _send_error_response(self, status_code: int) -> None:
        headers, body = below_the_app(*REFUSED.get(status_code, REFUSED[400]))
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class Connection(TCPServer):
    """One accepted connection, from its first byte to its close."""

    def __init__(
        self,
        app: QuartTrio,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SocketStream,
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]  # for `Exchanges`, and no TLS
        self._reading = trio.CancelScope()
        self._watching = trio.CancelScope()
        self._idle_until = math.inf
        self._patience = trio.CancelScope()
        self._ended = False

    async def run(self) -> None:
        """Serve the connection until either side ends it. A fault of its own ends this connection and no other."""
        try:
            socket = self.stream.socket
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with Exchanges() as group:
                self.protocol = Wire(  # type: ignore[assignment]  # in place of the wrapper that would change protocols
                    self.app,
                    self.config,
                    self.context,
                    group,
                    ConnectionState(self.state),
                    False,
                    client,
                    server,
                    self.protocol_send,
                )
                self._wait_until(trio.current_time() + self.config.keep_alive_timeout)
                group.spawn(self._end_if_idle)
                await self._read_data()
                self._watching.cancel()  # or a client that left would keep its place until it is over
        except OSError as error:
            log.debug("http.connection_lost", error=str(error))
        except Exception:
            log.exception("http.connection_failed")
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await super().protocol_send(event)
        elif isinstance(event, Updated):
            self._wait_until(trio.current_time() + self.config.keep_alive_timeout if event.idle else math.inf)
        elif isinstance(event, Closed):
            await self._end()

    async def _end(self) -> None:
        self._ended = True
        linger_s = 0.0 if self.context.terminated.is_set() else LINGER_S
        self._reading.deadline = min(self._reading.deadline, trio.current_time() + linger_s)
        try:
            await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError) as error:
            log.debug("http.connection_lost", error=str(error))
        await self.protocol.handle(Closed())

    def _wait_until(self, at: float) -> None:
        """Let the connection be idle until then; infinite while a request is answered."""
        self._idle_until = self._patience.deadline = at

    async def _end_if_idle(self) -> None:
        """End the connection when it is idle for too long, or when the room stops while it is."""
        with self._watching:
            while trio.current_time() < self._idle_until:
                with trio.CancelScope(deadline=self._idle_until) as self._patience:
                    await self.context.terminated.wait()
                    if self._idle_until == math.inf:
                        return  # the end of the exchange ends the connection
                    break
            with trio.CancelScope(shield=True):
                await self._initiate_server_close()

    async def _read_data(self) -> None:
        with self._reading:
            data = b"-"
            while data:
                try:
                    data = bytes(await self.stream.receive_some(MAX_RECV))
                except (trio.ClosedResourceError, trio.BrokenResourceError):
                    break
                if not self._ended:
                    await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())


class Exchanges(TaskGroup):
    """The tasks of one connection. What comes for an exchange is put into it, without a queue in between."""

    async def spawn_app(
        self, app: Any, config: Config, scope: Scope, send: Callable[[ASGISendEvent | None], Awaitable[None]]
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        exchange = Exchange(app, cast(HTTPScope, scope), send)
        self.spawn(exchange.run)
        return exchange.take


class Exchange(TrioASGIHTTPConnection):
    """One request and its answer, in one task; `take` is called with the pieces of the body, and when the client leaves.

    When an answer is out, hypercorn reports the end of its stream as a client that left, and closes or recycles the
    connection, both within the call that sends the last piece: after that piece a client that leaves cancels nothing.
    """

    def __init__(
        self, app: QuartTrio, scope: HTTPScope, send: Callable[[ASGISendEvent | None], Awaitable[None]]
    ) -> None:
        super().__init__(app, origin_form(scope))
        self._send = send
        self._request = self._create_request_from_scope(self._send_on)
        self._running = trio.CancelScope()
        self._ending = False

    async def take(self, message: ASGIReceiveEvent) -> None:
        if message["type"] == "http.request":
            self._request.body.append(message["body"])
            if not message["more_body"]:
                self._request.body.set_complete()
        elif not self._ending:
            self._running.cancel()

    async def run(self) -> None:
        try:
            with self._running:
                await self._answer()
        except* Exception:
            log.exception("http.failed")  # past the app's own error forms: the client sees a bare 500 or a cut answer
        finally:
            await self._send(None)

    async def _answer(self) -> None:
        response = await self.app.handle_request(self._request)
        if isinstance(response, Response) and isinstance(response.response, DataBody):
            headers = encode_headers(response.headers)
            await self._send_on({"type": "http.response.start", "status": response.status_code, "headers": headers})
            await self._send_on({"type": "http.response.body", "body": response.response.data, "more_body": False})
            return
        timeout_s = getattr(response, "timeout", ...)  # None: no limit
        if timeout_s is ...:
            timeout_s = self.app.config["RESPONSE_TIMEOUT"]
        with trio.move_on_after(math.inf if timeout_s is None else timeout_s):
            await self._send_response(self._send_on, response)

    async def _send_on(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *ALWAYS]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ending = True
        await self._send(message)


class Body(TrioBody):
    """A body that can be had without a turn of the loop."""

    @property
    def whole(self) -> bytes | None:
        """The body, None if it is not all there or not to be had."""
        return bytes(self._data) if self._complete.is_set() and self._must_raise is None else None


class AppRequest(TrioRequest):
    """A request of the app."""

    body_class = Body


def origin_form(scope: HTTPScope) -> HTTPScope:
    """Return the scope of a request whose target is a path.

    Of an absolute target ("http://host/path") the host replaces the Host header (RFC 9112 section 3.2.2), so that what
    is checked is what was asked for. Any other target gets the path NO_TARGET; `raw_path` stays as it came.
    """
    if scope["raw_path"].startswith(b"/"):
        return scope
    absolute = ABSOLUTE_FORM.fullmatch(scope["raw_path"])
    if absolute is None:
        return {**scope, "path": NO_TARGET}
    path = absolute[2] or b"/"
    headers = [(b"host", absolute[1]), *(pair for pair in scope["headers"] if pair[0].lower() != b"host")]
    return {**scope, "raw_path": path, "path": unquote_to_bytes(path).decode("utf-8", "replace"), "headers": headers}
