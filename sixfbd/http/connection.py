"""One connection: hypercorn's and quart-trio's, with what they leave open mended (hypercorn 0.18, quart-trio 0.12).

- Refusals that never reach the app (a malformed head or body, a head too large) carry the house's error form.
- HTTP/1.1 only. An offer to change the protocol (websocket, h2c) is ignored, as RFC 9110 section 7.8 allows: there is
  nothing here to change to, and each protocol would be one more door.
- A connection that we end is read on for a moment, or the client would lose the answer that says why: to close a socket
  with unread data resets it, and a reset discards what was not yet read on the other side.
- When its listener is given up (`leaving` in the connection's state), each connection is told to close with its next
  answer: to close it between two requests would lose the one that is on its way.
- The end of the client's side is the end of the client: whoever wants the answer keeps its side open until then.

Owns nothing beyond its connection, and never decides what a request may do.
"""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import h11
import structlog
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ConnectionState, HTTPScope
from hypercorn.utils import parse_socket_addr
from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Request
from quart_trio.asgi import TrioASGIHTTPConnection

from sixfbd.http.answers import below_the_app

log = structlog.get_logger("sixfbd.http")

LINGER_S: Final = 2.0
NO_TARGET: Final = "*"  # the path of a target that names none: no route has it
ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#]+)(/[^?#]*)?", re.IGNORECASE)
REFUSED: Final[Mapping[int, tuple[str, str]]] = {
    400: ("malformed", "the request is not HTTP/1.1: its first line, a header or the framing of its body is malformed"),
    431: ("head_too_large", "the first line and the headers together are too large"),
    501: ("not_implemented", "a body may have the transfer encoding `chunked` or none"),
}  # what h11 refuses by itself


class Wire(H11Protocol):
    """HTTP/1.1 and nothing else; what h11 refuses is said in JSON."""

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and self.connection_state["leaving"].is_set():
            headers = [*event.headers, (b"connection", b"close")]
            event = Response(stream_id=event.stream_id, headers=headers, status_code=event.status_code)
        await super().stream_send(event)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1."""

    async def _create_stream(self, request: h11.Request) -> None:
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

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._reading = trio.CancelScope()
        self._ended = False

    async def run(self) -> None:
        """Serve the connection until either side ends it. A fault of its own ends this connection and no other."""
        try:
            socket = self.stream.socket
            client = parse_socket_addr(socket.family, socket.getpeername())
            server = parse_socket_addr(socket.family, socket.getsockname())
            async with TaskGroup() as group:
                self._task_group = group
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
                await self.idle_task.restart(group, self._idle_timeout)
                await self._read_data()
                await self.idle_task.stop()  # or a client that left would keep its place until it is over
        except OSError as error:
            log.debug("http.connection_lost", error=str(error))
        except Exception:
            log.exception("http.connection_failed")
        finally:
            await self._close()

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, Closed):
            await super().protocol_send(event)
            return
        self._ended = True
        linger_s = 0.0 if self.context.terminated.is_set() else LINGER_S
        self._reading.deadline = min(self._reading.deadline, trio.current_time() + linger_s)
        try:
            await self.stream.send_eof()
        except (trio.BrokenResourceError, trio.BusyResourceError, trio.ClosedResourceError) as error:
            log.debug("http.connection_lost", error=str(error))
        await self.protocol.handle(Closed())

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
    """One request and its answer.

    When an answer is out, hypercorn reports the end of its stream as a disconnect, and closes or recycles the
    connection, both within the call that sends the last piece. quart-trio takes the disconnect for a client that left
    and cancels that very call, so that a connection to be closed stays open, and an idle one is never timed out. Here a
    disconnect after the last piece cancels nothing: the exchange ends by itself.
    """

    def __init__(self, app: Any, scope: HTTPScope) -> None:
        super().__init__(app, origin_form(scope))
        self._ending = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._ending = True
            await send(message)

        try:
            await super().__call__(receive, noting)
        except Exception:
            log.exception("http.failed")  # past the app's own error forms: the client sees a bare 500 or a cut answer

    async def handle_messages(  # type: ignore[override]  # as quart-trio overrides it
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        await ASGIHTTPConnection.handle_messages(self, request, receive)
        if not self._ending:
            nursery.cancel_scope.cancel()


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
