"""Serves a room with hypercorn; a reload may give it other limits, names and another address while it serves.

Owns how many connections there may be: a flood of them must not take the descriptors that the rest of the daemon needs.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from functools import partial
from ssl import SSLContext
from typing import Final, Self

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from sixfbd.config import Http, HttpPublic
from sixfbd.http.answers import below_the_app
from sixfbd.http.app import App, make_app
from sixfbd.http.connection import Connection
from sixfbd.http.engine import Answered, HttpEngine
from sixfbd.http.guard import MAX_HEAD_BYTES, split_host
from sixfbd.http.tls import secured

GRACE_S: Final = 5.0
SLOW_HEADERS_S: Final = 5.0
BACKLOG: Final = 256
ACCEPTED_AT_ONCE: Final = 32
MAX_CONNECTIONS: Final = 256  # with what else the daemon has open well below the usual limit of 1024 descriptors
MAX_TURNED_AWAY: Final = 64  # more than so many at once are closed without a word
TURN_AWAY_S: Final = 0.5
MAX_PORT: Final = 65535
EVERYWHERE: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
STALLED_MS: Final = 5000  # hypercorn cannot be made to give up a send: a client that takes nothing is cut by the kernel

NO_PUBLIC: Final = HttpPublic(url="")  # the table of a server that has no listener

log = structlog.get_logger("sixfbd.http")


class ListenError(Exception):
    """The address cannot be listened on; the text names it, why, and the mend."""


def bind_listener(listen: str, beside: socket.socket | None = None, header: str = Http.header) -> socket.socket:
    """Return a socket bound to "HOST:PORT" (port 0: a free one), which does not listen yet; the caller closes it.

    With `beside`, a listener of ours, it may have the same port: who moves from one address of it to all, or back, needs
    both for a moment. Raises ListenError, which names the table `header`. May ask for a name: call it in a thread where
    others would have to wait.
    """
    name, port = split_host(listen)
    host = name.strip("[]")
    if not host or not port or int(port) > MAX_PORT:
        raise ListenError(f'{header} listen: {listen!r} is not an address; write "127.0.0.1:9632"')
    with ExitStack() as failing:
        try:
            bound = failing.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if bound.family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if beside is not None and beside.getsockname()[1] == int(port):
                for one in (beside, bound):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((host, int(port)))
        except OSError as error:
            raise _refused(listen, error, header) from error
        failing.pop_all()
    return bound


def is_bound_to(passed: socket.socket, listen: str) -> bool:
    """Tell whether a socket that was passed to us is a TCP socket that is bound to "HOST:PORT"; a free port is none."""
    name, port = split_host(listen)
    try:
        where = socket.getaddrinfo(name.strip("[]"), port, type=socket.SOCK_STREAM)
        return (passed.family, passed.getsockname()[:2]) in [(one[0], one[4][:2]) for one in where]
    except OSError:
        return False


def begin_listening(bound: socket.socket, header: str = Http.header) -> None:
    """Have the kernel take connections, which wait until they are accepted. Raises ListenError: somebody else does."""
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        raise _refused(address_of(bound), error, header) from error


def _refused(listen: str, error: OSError, header: str) -> ListenError:
    reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
    return ListenError(f"{header} listen: cannot listen on {listen}: {reason}; choose another address or port")


def address_of(listener: socket.socket) -> str:
    """Return where a socket is bound to, as "HOST:PORT"."""
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Gate:
    """A listener, and the event that tells those who came by it that it is given up."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.accepting = trio.CancelScope()
        self.leaving = trio.Event()

    def leave(self) -> None:
        """Accept no more; streams end, and each connection with its next answer."""
        self.accepting.cancel()
        self.leaving.set()


class HttpServer:
    """A room behind one listener at a time, or none; a reload may change its table and its listener while it serves.

    The table says which room it is: `[http]` the local one, `[http.public]` the one for the outside. A context manager:
    leaving it closes the listener, which is its own from the beginning.
    """

    def __init__(
        self, config: Http | HttpPublic, listener: socket.socket | None, tls: SSLContext | None = None
    ) -> None:
        self._config = config
        self._gate = None if listener is None else _Gate(listener)
        self._tls = tls
        self._app: App | None = None
        self._begin: Callable[[_Gate], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._gate is not None:
            self._gate.listener.close()

    @property
    def listener(self) -> socket.socket | None:
        """Where connections are accepted now."""
        return None if self._gate is None else self._gate.listener

    @property
    def url(self) -> str:
        """The address that it listens on, "" if none; of all addresses loopback's, by which it can be asked for."""
        if self._gate is None:
            return ""
        address = address_of(self._gate.listener)
        for everywhere, here in EVERYWHERE.items():
            if address.startswith(f"{everywhere}:"):
                address = address.replace(everywhere, here, 1)
        return f"{'http' if self._tls is None else 'https'}://{address}"

    def listens_on(self, listen: str) -> bool:
        """Tell whether a change to this "HOST:PORT" needs no other listener."""
        return self._gate is not None and listen in (self._config.listen, address_of(self._gate.listener))

    def change(
        self, config: Http | HttpPublic, listener: socket.socket | None = None, tls: SSLContext | None = None
    ) -> None:
        """Serve by another table from the next request on, and from another listener, which listens already, if given.

        Connections stay; those of the listener that is given up have their requests answered and are asked to close. The
        next connections are made by `tls`.
        """
        self._config, self._tls = config, tls
        if self._app is not None:
            self._app.take(config)
        if listener is not None:
            self.close()
            self._gate = _Gate(listener)
            if self._begin is not None:
                self._begin(self._gate)

    def close(self) -> None:
        """Accept no more, as if the listener were given up for another; there may be one again."""
        left, self._gate = self._gate, None
        if left is None:
            return
        left.leave()
        if self._begin is None:
            left.listener.close()

    async def serve(
        self,
        engine: HttpEngine,
        stop: trio.Event,
        *,
        grace_s: float = GRACE_S,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop` is set, then let requests in flight finish for `grace_s`; streams end at once.

        Reports the bound URL when it accepts. A cancel cuts connections off; stop by `stop`.
        """
        app = self._app = make_app(engine, self._config)
        hypercorn, ended = _hypercorn(), WorkerContext(None)
        lifespan = Lifespan(ASGIWrapper(app), hypercorn, {})

        async def connect(gate: _Gate, stream: trio.SocketStream) -> None:
            stream_now = stream if self._tls is None else await secured(stream, self._tls)
            if stream_now is not None:
                await Connection(app, hypercorn, ended, ConnectionState({"leaving": gate.leaving}), stream_now)

        async with trio.open_nursery() as lives:
            await lives.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            async with trio.open_nursery() as connections:
                handle = bounded(engine, connect)
                async with trio.open_nursery() as gates:
                    self._begin = lambda gate: gates.start_soon(_accept, gate, partial(handle, gate), connections)
                    if self._gate is not None:
                        self._begin(self._gate)
                    task_status.started(self.url)
                    await stop.wait()
                    self._begin = None
                    if self._gate is not None:
                        self._gate.leave()
                await ended.terminated.set()  # connections without a request end at once
                connections.cancel_scope.deadline = trio.current_time() + grace_s
            await lifespan.wait_for_shutdown()
            lives.cancel_scope.cancel()


async def _accept(
    gate: _Gate, handle: Callable[[trio.SocketStream], Awaitable[None]], connections: trio.Nursery
) -> None:
    """Accept until the gate is left, then those who have connected already; closes the listener. What it accepts lives on
    in `connections`."""
    listener = gate.listener
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)  # passed on to what it accepts
    listener.setblocking(False)
    with listener:
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))  # which closes with its serve

        def begin(stream: trio.SocketStream) -> None:
            connections.start_soon(handle, stream)

        async def handle_with_others(stream: trio.SocketStream) -> None:
            take_waiting(
                listener, begin, ACCEPTED_AT_ONCE
            )  # at one a turn a crowd would wait for many turns of a busy loop
            await handle(stream)

        with gate.accepting:
            await trio.serve_listeners(handle_with_others, [accepting], handler_nursery=connections)
        take_waiting(listener, begin, BACKLOG)


def take_waiting(listener: socket.socket, begin: Callable[[trio.SocketStream], None], most: int) -> None:
    """Call `begin` with connections that wait to be accepted, at most so many. What the system cannot give now is left to
    who waits for the listener."""
    for _ in range(most):
        try:
            accepted, _peer = listener.accept()
        except OSError:  # none waits, one has left again, or there are no descriptors
            return
        begin(trio.SocketStream(trio.socket.from_stdlib_socket(accepted)))


def bounded(
    engine: HttpEngine, connect: Callable[[_Gate, trio.SocketStream], Awaitable[None]]
) -> Callable[[_Gate, trio.SocketStream], Awaitable[None]]:
    """Return `connect` for at most MAX_CONNECTIONS at once: those above are told so with 503 and closed."""
    count, full = 0, False

    async def handle(gate: _Gate, stream: trio.SocketStream) -> None:
        nonlocal count, full
        count += 1
        try:
            if count <= MAX_CONNECTIONS:
                full = full and count > MAX_CONNECTIONS // 2
                await connect(gate, stream)
                return
            if not full:
                full = True
                log.warning("http.full", connections=MAX_CONNECTIONS)
            engine.answered(Answered("", "", 503, 0.0))
            async with stream:
                if count <= MAX_CONNECTIONS + MAX_TURNED_AWAY:
                    await _turn_away(stream)
        finally:
            count -= 1

    return handle


async def _turn_away(stream: trio.SocketStream) -> None:
    headers, body = below_the_app("too_many_connections", f"{MAX_CONNECTIONS} connections are open already; try again")
    lines = [b"HTTP/1.1 503 ", *(name + b": " + value for name, value in [*headers, (b"retry-after", b"1")]), b"", body]
    with trio.move_on_after(TURN_AWAY_S):
        try:
            await stream.send_all(b"\r\n".join(lines))
            await stream.send_eof()
            while await stream.receive_some():  # to close with unread data would take back the answer
                continue
        except trio.BrokenResourceError:
            return


def _hypercorn() -> Config:
    config = Config()
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    config.keep_alive_timeout = SLOW_HEADERS_S
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    return config
