"""Serves the room with hypercorn on a socket that somebody else owns, so that a listener can be handed to the next app.

Owns how many connections there may be: a flood of them must not take the descriptors that the rest of the daemon needs.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState

from sixfbd.config import Http
from sixfbd.http.answers import below_the_app
from sixfbd.http.app import make_app
from sixfbd.http.connection import Connection
from sixfbd.http.engine import Answered, HttpEngine
from sixfbd.http.guard import MAX_HEAD_BYTES, split_host

GRACE_S: Final = 5.0
SLOW_HEADERS_S: Final = 5.0
BACKLOG: Final = 256
MAX_CONNECTIONS: Final = 256  # with what else the daemon has open well below the usual limit of 1024 descriptors
MAX_TURNED_AWAY: Final = 64  # more than so many at once are closed without a word
TURN_AWAY_S: Final = 0.5
MAX_PORT: Final = 65535
STALLED_MS: Final = 5000  # hypercorn cannot be made to give up a send: a client that takes nothing is cut by the kernel

log = structlog.get_logger("sixfbd.http")


class ListenError(Exception):
    """The address cannot be listened on; the text names it, why, and the mend."""


def bind_listener(listen: str) -> socket.socket:
    """Return a socket bound to "HOST:PORT" (port 0: a free one) and listening; the caller closes it. Raises ListenError."""
    name, port = split_host(listen)
    host = name.strip("[]")
    if not host or not port or int(port) > MAX_PORT:
        raise ListenError(f'[http] listen: {listen!r} is not an address; write "127.0.0.1:9632"')
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
        raise ListenError(
            f"[http] listen: cannot listen on {listen}: {reason}; choose another address or port"
        ) from error


async def serve_http(
    engine: HttpEngine,
    config: Http,
    *,
    listener: socket.socket,
    stop: trio.Event,
    grace_s: float = GRACE_S,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, then let requests in flight finish for `grace_s`; streams end at once.

    Reports the bound URL when it accepts. `listener` is duplicated, never closed: another serve may take it over before
    this one stops, and no connection is refused meanwhile. A cancel cuts connections off; stop by `stop`.
    """
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)  # passed on to what it accepts
    app, hypercorn, ended = ASGIWrapper(make_app(engine, config, stop)), _hypercorn(), WorkerContext(None)
    state: LifespanState = {}
    lifespan = Lifespan(app, hypercorn, state)

    async def connect(stream: trio.SocketStream) -> None:
        await Connection(app, hypercorn, ended, ConnectionState(state.copy()), stream)

    async with trio.open_nursery() as lives:
        await lives.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as connections:
            await _accept(listener.dup(), bounded(engine, connect), connections, stop, task_status)
            await ended.terminated.set()  # connections without a request end at once
            connections.cancel_scope.deadline = trio.current_time() + grace_s
        await lifespan.wait_for_shutdown()
        lives.cancel_scope.cancel()


async def _accept(
    listener: socket.socket,
    handle: Callable[[trio.SocketStream], Awaitable[None]],
    connections: trio.Nursery,
    stop: trio.Event,
    task_status: trio.TaskStatus[str],
) -> None:
    """Accept until `stop` is set; closes `listener`. What it accepts lives on in `connections`."""
    host, port, *_ = listener.getsockname()
    async with (
        trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as accepting,
        trio.open_nursery() as nursery,
    ):
        serve = partial(trio.serve_listeners, handle, [accepting], handler_nursery=connections)
        await nursery.start(serve)
        task_status.started(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        await stop.wait()
        nursery.cancel_scope.cancel()


def bounded(
    engine: HttpEngine, connect: Callable[[trio.SocketStream], Awaitable[None]]
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """Return `connect` for at most MAX_CONNECTIONS at once: those above are told so with 503 and closed."""
    count, full = 0, False

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal count, full
        count += 1
        try:
            if count <= MAX_CONNECTIONS:
                full = full and count > MAX_CONNECTIONS // 2
                await connect(stream)
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
