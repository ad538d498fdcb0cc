"""Server-sent events: streams that end when their listener does, say that they live, and are limited in number.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final

import trio
from quart import Response, request

from sixfbd.http.answers import Refusal
from sixfbd.http.routes import Room

PING_S: Final = 15.0
RETRY_AFTER_S: Final = "5"
RETRY_MS: Final = 2000
MAX_STREAMS: Final = 256
CONTENT_TYPE: Final = "text/event-stream; charset=utf-8"


def leaving() -> trio.Event:
    """Return the event that is set when the listener that the request at hand came by is given up, or the daemon stops."""
    event: trio.Event = request.scope["state"]["leaving"]
    return event


def stream(room: Room, pieces: AsyncIterator[bytes]) -> Response:
    """Answer with a stream of ready-made pieces, which ends by itself at `leaving`. HEAD gets the head alone."""
    headers = {"Cache-Control": "no-store"}
    if request.method == "HEAD":
        return Response(b"", content_type=CONTENT_TYPE, headers=headers)
    response = Response(counted(room, _begun(pieces)), content_type=CONTENT_TYPE, headers=headers)
    response.timeout = None
    return response


def counted(room: Room, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return pieces that count as one of those who follow while they are sent. Raises Refusal if that is one too many."""
    if room.streams >= MAX_STREAMS:
        raise Refusal(
            503,
            "too_many_streams",
            f"{MAX_STREAMS} streams are open already; close one or poll instead",
            headers={"Retry-After": RETRY_AFTER_S},
        )
    return _counted(room, pieces)


async def _counted(room: Room, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    room.streams += 1
    try:
        async with aclosing(pieces):  # type: ignore[type-var]  # an async generator, which AsyncIterator does not say
            async for piece in pieces:
                yield piece
    finally:
        room.streams -= 1


async def _begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    async with aclosing(pieces):  # type: ignore[type-var]  # as above
        async for piece in pieces:
            yield piece


async def news(left: trio.Event, wait: Callable[[], Awaitable[object]]) -> bool | None:
    """Wait for `wait` to return: True. None after PING_S without news, False when `left` is set."""
    came = False
    with trio.move_on_after(PING_S):
        async with trio.open_nursery() as nursery:

            async def until_left() -> None:
                await left.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_left)
            await wait()
            came = True
            nursery.cancel_scope.cancel()
    if left.is_set():
        return False
    return True if came else None
