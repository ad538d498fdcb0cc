"""Serves the room with hypercorn on a socket that somebody else owns, so that a listener can be handed to the next app."""

import os
import socket
from functools import partial
from typing import Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from sixfbd.config import Http
from sixfbd.http.app import make_app
from sixfbd.http.engine import HttpEngine
from sixfbd.http.guard import MAX_HEAD_BYTES, split_host

GRACE_S: Final = 5.0
SLOW_HEADERS_S: Final = 5.0
BACKLOG: Final = 256
MAX_PORT: Final = 65535
STALLED_MS: Final = 5000  # hypercorn cannot be made to give up a send: a client that takes nothing is cut by the kernel


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
    app = make_app(engine, config, stop)
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(partial(serve, app, _hypercorn(listener, grace_s), shutdown_trigger=stop.wait))
        task_status.started(urls[0])


def _hypercorn(listener: socket.socket, grace_s: float) -> Config:
    config = Config()
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    config.graceful_timeout = grace_s
    config.keep_alive_timeout = SLOW_HEADERS_S
    config.h11_max_incomplete_size = MAX_HEAD_BYTES
    config.h2_max_header_list_size = MAX_HEAD_BYTES
    config.backlog = BACKLOG
    return config
