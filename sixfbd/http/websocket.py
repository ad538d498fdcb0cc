"""One WebSocket of the kind that there is here: we speak, the other side listens (RFC 6455, by wsproto).

What it sends that is no answer to us ends the connection; so does reading nothing for STALLED_S. Compression is not offered: what
is sent is written once for everybody.
"""

import hashlib
from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

import trio
from quart import Response, request
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import RemoteProtocolError

from sixfbd.http.answers import Refusal

STALLED_S: Final = 30.0
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
PING: Final = b""  # among pieces: a ping in their place


class Switch(Response):
    """The answer that changes the connection's protocol; `pieces` are frames, ready to be sent, PING among them."""

    def __init__(self, accept: str, pieces: AsyncIterator[bytes]) -> None:
        super().__init__(b"", status=101)
        self.accept = accept
        self.pieces = pieces


def handshake() -> str:
    """Return what answers the request at hand's key. Raises Refusal: 426 if it offers no WebSocket, 403 if a page of another
    site made it, for a browser lets every page ask."""
    headers = request.headers
    key = headers.get("Sec-WebSocket-Key", "")
    offers = headers.get("Upgrade", "").lower() == "websocket" and headers.get("Sec-WebSocket-Version") == "13"
    if not offers or not _is_key(key) or request.method != "GET":
        raise Refusal(
            426,
            "websocket_needed",
            "this path speaks WebSocket, version 13; without it, follow /api/events/stream",
            headers={"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"},
        )
    origin = headers.get("Origin", "")
    if origin and urlsplit(origin).netloc != headers.get("Host", ""):
        raise Refusal(403, "other_origin", f"this was asked by a page of {origin!r:.100}, which is not this site")
    return b64encode(hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()).decode()


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == 16
    except (BinasciiError, ValueError):
        return False


class Socket:
    """A connection that has changed its protocol; `send` writes to it, and may wait for the other side to read."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._send = send
        self._frames = Connection(ConnectionType.SERVER)
        self._writing = trio.Lock()
        self._running = trio.CancelScope()
        self._closed = False

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Send pieces until they end (we are leaving) or the other side does."""
        with self._running:
            async with aclosing(pieces):  # type: ignore[type-var]  # an async generator, which AsyncIterator does not say
                async for piece in pieces:
                    await self._write(piece or self._frames.send(Ping()))
        await self._close(CloseConnection(code=CloseReason.GOING_AWAY))

    async def receive(self, data: bytes) -> None:
        """Take what came; b"" is the end of the other side."""
        if not data:
            self._end()
            return
        try:
            self._frames.receive_data(data)
            for event in self._frames.events():
                if isinstance(event, Ping):
                    await self._write(self._frames.send(event.response()))
                elif isinstance(event, CloseConnection):  # theirs, or wsproto's word for what is no frame
                    await self._close(event.response())
                    self._end()
                elif isinstance(event, TextMessage | BytesMessage):
                    await self._close(CloseConnection(code=CloseReason.UNSUPPORTED_DATA))
                    self._end()
                    return
        except RemoteProtocolError:  # it goes on after it said goodbye
            self._end()

    def _end(self) -> None:
        self._closed = True
        self._running.cancel()

    async def _close(self, goodbye: CloseConnection) -> None:
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await self._write_now(self._frames.send(goodbye))

    async def _write(self, data: bytes) -> None:
        if self._closed:
            return
        with trio.move_on_after(STALLED_S) as patience:
            await self._write_now(data)
        if patience.cancelled_caught:
            self._end()

    async def _write_now(self, data: bytes) -> None:
        async with self._writing:
            await self._send(data)
