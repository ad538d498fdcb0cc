"""One connection: hypercorn's and quart-trio's, with what they leave open mended (hypercorn 0.18, quart-trio 0.12).

- Refusals that never reach the app (a malformed head or body, a head too large) carry the house's error form.
- HTTP/1.1 only, and WebSocket where a view says so. Any other offer to change the protocol (h2c) is ignored, as RFC 9110 section
  7.8 allows: each protocol would be one more door.
- A connection that we end is read on for a moment, or the client would lose the answer that says why: to close a socket
  with unread data resets it, and a reset discards what was not yet read on the other side.
- When its listener is given up (`leaving` in the connection's state), each connection is told to close with its next
  answer: to close it between two requests would lose the one that is on its way.
- The end of the client's side is the end of the client: whoever wants the answer keeps its side open until then.
- A request costs one task at most and one write: hypercorn takes three tasks, two queues and a write for each piece of an answer,
  and each of them turns the loop.

Owns nothing beyond its connection, and never decides what a request may do.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, cast
from urllib.parse import unquote

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body as BodyPiece
from hypercorn.protocol.events import EndBody, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response as ResponseHead
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGISendEvent, ConnectionState, H11SendableEvent, HTTPScope
from hypercorn.utils import parse_socket_addr, suppress_body
from quart import Response
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio.asgi import TrioASGIHTTPConnection

from sixfbd.http.answers import SECURITY_HEADERS, Ready, below_the_app
from sixfbd.http.app import App
from sixfbd.http.asked import Asked, Body, origin_form
from sixfbd.http.tls import TlsStream
from sixfbd.http.websocket import Socket, Switch

log = structlog.get_logger("sixfbd.http")

LINGER_S: Final = 2.0
COPIED_BYTES: Final = 64 * 1024  # up to this size a body is copied behind its head, to leave with it
CLOSING: Final = ((b"connection", b"close"),)
CUT_OFF: Final = ((b"content-length", b"0"), *CLOSING)
ALWAYS: Final = tuple((name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
POLICY: Final = b"content-security-policy"
UNLESS_GIVEN: Final = tuple(pair for pair in ALWAYS if pair[0] != POLICY)
REFUSED: Final[Mapping[int, tuple[str, str]]] = {
    400: ("malformed", "the request is not HTTP/1.1: its first line, a header or the framing of its body is malformed"),
    431: ("head_too_large", "the first line and the headers together are too large"),
    501: ("not_implemented", "a body may have the transfer encoding `chunked` or none"),
}  # what h11 refuses by itself


def _always(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that every answer has; a page may have a policy of its own."""
    return UNLESS_GIVEN if any(name.lower() == POLICY for name, _ in headers) else ALWAYS


@lru_cache(maxsize=64)
def head_of(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> h11.Response:
    """Return the head of an answer, checked by h11 once for all answers that are alike."""
    return h11.Response(status_code=status, headers=list(headers))


class Wire(H11Protocol):
    """HTTP/1.1 and nothing else; what h11 refuses is said in JSON. The head of an answer leaves with what follows it."""

    _held = b""
    _exchange: "Exchange | None" = None
    _socket: Socket | None = None

    async def handle(self, event: Event) -> None:
        """Take what came: as HTTP, or, once that was changed, as a WebSocket's."""
        if self._socket is None:
            await super().handle(event)
        elif isinstance(event, RawData):
            await self._socket.receive(event.data)
        elif isinstance(event, Closed):
            await self._socket.receive(b"")

    async def switch(self, switch: Switch) -> None:
        """Change to a WebSocket, send it what there is to say, and end the connection."""
        accepted = [
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            (b"sec-websocket-accept", switch.accept.encode()),
        ]
        head = h11.InformationalResponse(status_code=101, headers=accepted, reason=b"Switching Protocols")
        await self.send(RawData(data=self.connection.send(head) or b""))
        early, _ = self.connection.trailing_data
        self._socket = Socket(lambda data: self.send(RawData(data=data)))
        self.connection = _Switched()  # type: ignore[assignment]  # or whoever reads would wait for the next request
        await self.can_read.set()
        if early:
            await self._socket.receive(early)
        await self._socket.run(switch.pieces)
        await self.send(Closed())

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state is not h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._held = data
            return
        if self._held and len(data) > COPIED_BYTES:
            await self._send_held()
        data, self._held = self._held + data, b""
        if data:
            await self.send(RawData(data=data))

    async def _maybe_recycle(self) -> None:
        if self._held:  # an app that failed between the head and the first piece
            await self._send_held()
        await super()._maybe_recycle()

    async def _send_held(self) -> None:
        held, self._held = self._held, b""
        await self.send(RawData(data=held))

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, ResponseHead) and self.connection_state["leaving"].is_set():
            headers = [*event.headers, (b"connection", b"close")]
            event = ResponseHead(stream_id=event.stream_id, headers=headers, status_code=event.status_code)
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1."""

    async def _create_stream(self, request: h11.Request) -> None:
        path, _, query = request.target.partition(b"?")
        scope: HTTPScope = {
            "type": "http",
            "http_version": request.http_version.decode(),
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": request.method.decode("ascii").upper(),
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self.client,
            "server": self.server,
            "state": self.connection_state,
            "extensions": {},
        }
        self._exchange = Exchange(cast(App, self.app), self, origin_form(scope))
        self.stream = self._exchange  # type: ignore[assignment]  # in place of a stream that would call the app by ASGI
        self.keep_alive_requests += 1
        if not self._exchange.plain:
            self._exchange.begin()

    async def _handle_events(self) -> None:
        await super()._handle_events()
        if self._exchange is not None:  # it may have to say no before its body has come
            self._exchange.begin()

    @property
    def has_more(self) -> bool:
        """Tell whether something has come already behind the request at hand."""
        return bool(self.connection.trailing_data[0])

    async def answer(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, *, has_body: bool
    ) -> None:
        """Send a whole answer in one write, a large body in one of its own, and make ready for the next request."""
        headers += tuple(self.config.response_headers("h11"))
        if self.connection_state["leaving"].is_set() or self.keep_alive_requests >= self.config.keep_alive_max_requests:
            headers += CLOSING
        await self._send_h11_event(head_of(status, headers))
        if body and has_body:
            await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())
        await self._maybe_recycle()

    async def give_up(self) -> None:
        """End an exchange that failed: with a bare 500 if its answer has not begun, else by ending the connection."""
        if self.connection.our_state is h11.SEND_RESPONSE:
            await self.answer(500, CUT_OFF, b"", has_body=True)
        else:
            await self._maybe_recycle()

    async def _send_error_response(self, status_code: int) -> None:
        headers, body = below_the_app(*REFUSED.get(status_code, REFUSED[400]))
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.Data(data=body))
        await self._send_h11_event(h11.EndOfMessage())


class _Switched:
    """In the place of h11's connection when the protocol is another one: nothing of HTTP comes any more."""

    our_state = their_state = None
    they_are_waiting_for_100_continue = False
    trailing_data = (b"", False)

    def next_event(self) -> type[h11.NEED_DATA]:
        return h11.NEED_DATA


class Connection(TCPServer):
    """One accepted connection, from its first byte to its close."""

    def __init__(
        self,
        app: App,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SocketStream | TlsStream,
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]  # TLS is below the stream
        self._encrypted = isinstance(stream, TlsStream)
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
            async with TaskGroup() as group:
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
            await self._write(event.data)
        elif isinstance(event, Updated):
            self._wait_until(trio.current_time() + self.config.keep_alive_timeout if event.idle else math.inf)
        elif isinstance(event, Closed):
            await self._end()

    async def _write(self, data: bytes) -> None:
        """Send; what the socket takes at once, as far as there is no TLS, costs no turn of the loop."""
        sent = 0
        if not (self._encrypted or self.send_lock.locked()):
            try:
                sent = os.write(self.stream.socket.fileno(), data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                log.debug("http.connection_lost", error=str(error))
                await self.protocol.handle(Closed())
                return
        if sent < len(data):
            await super().protocol_send(RawData(cast(bytes, memoryview(data)[sent:])))  # a page is not copied

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


class Exchange(TrioASGIHTTPConnection):
    """One request and its answer; it is the stream of its connection.

    In a task of its own, so that a client that leaves is noticed; but a plain route is answered by the task that reads if
    the whole request, and nothing behind it, has come: it does not wait long, and does its work whoever is left.

    When an answer is out, the connection says so as of a client that left: after the last piece that cancels nothing.
    """

    idle = False  # what hypercorn asks of a stream

    def __init__(self, app: App, wire: Wire, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._app = app
        self._wire = wire
        self._route = app.plain_route(scope)
        if self._route is None:
            self._request = self._create_request_from_scope(self._send_on)
            self._body = cast(Body, self._request.body)
        else:
            self._body = app.body_of(scope)
        self._running = trio.CancelScope()
        self.begun = self._ending = self._closed = False

    @property
    def plain(self) -> bool:
        """Tell whether it is of a plain route."""
        return self._route is not None

    def begin(self) -> None:
        """Answer in a task, if that has not begun yet and the client is there."""
        if not self.begun and not self._closed:
            self.begun = True
            self._wire.task_group.spawn(self.run)

    async def handle(self, event: StreamEvent) -> None:
        """Take a piece of the body, or the end of the client or of the exchange."""
        if isinstance(event, BodyPiece):
            self._body.append(event.data)
        elif isinstance(event, EndBody):
            self._body.set_complete()
            if not self.begun and not self._wire.has_more:
                self.begun = True
                await self.run()
            self.begin()
        elif isinstance(event, StreamClosed):
            self._closed = True
            if not self._ending:
                self._running.cancel()

    async def run(self) -> None:
        """Answer; what goes wrong past the app's own error forms the client sees as a bare 500 or a cut answer."""
        try:
            with self._running:
                await self._answer()
        except* Exception:
            log.exception("http.failed")
        finally:
            if not self._closed:
                await self._wire.give_up()

    async def _answer(self) -> None:
        response: object
        if self._route is not None:
            response = await self._app.answer_plainly(Asked(self.scope, self._body), self._route)
        else:
            response = await self._app.handle_request(self._request)
        if isinstance(response, Switch):
            self._ending = self._closed = True
            await self._wire.switch(response)
        elif isinstance(response, Ready):
            await self._send_whole(200, response.headers, response.body)
        elif isinstance(response, Response) and isinstance(response.response, DataBody):
            await self._send_whole(response.status_code, encode_headers(response.headers), response.response.data)
        else:
            timeout_s = getattr(response, "timeout", ...)  # None: no limit
            if timeout_s is ...:
                timeout_s = self._app.config["RESPONSE_TIMEOUT"]
            with trio.move_on_after(math.inf if timeout_s is None else timeout_s):
                await self._send_response(self._send_on, response)

    async def _send_whole(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self._ending = True
        has_body = not suppress_body(self.scope["method"], status)
        await self._wire.answer(status, (*headers, *_always(headers)), body, has_body=has_body)

    async def _send_on(self, message: ASGISendEvent) -> None:
        """Send a piece of an answer that is made while it is sent."""
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *_always(message["headers"])]
            await self._wire.stream_send(
                ResponseHead(stream_id=STREAM_ID, headers=headers, status_code=message["status"])
            )
        elif message["type"] == "http.response.body":
            if message["body"]:
                await self._wire.stream_send(BodyPiece(stream_id=STREAM_ID, data=message["body"]))
                await trio.lowlevel.checkpoint()  # who has much to say gives way to others
            if not message.get("more_body", False):
                self._ending = True
                await self._wire.stream_send(EndBody(stream_id=STREAM_ID))
                await self._wire.stream_send(StreamClosed(stream_id=STREAM_ID))
