"""TLS on the port for the outside: a connection that has shaken hands, in the form that plain ones have."""

from ssl import SSLContext
from typing import Final

import structlog
import trio

log = structlog.get_logger("sixfbd.http")

HANDSHAKE_S: Final = 5.0


class TlsStream(trio.abc.HalfCloseableStream):
    """An encrypted stream, with the socket below it."""

    def __init__(self, below: trio.SocketStream, context: SSLContext) -> None:
        self.socket = below.socket
        self._stream = trio.SSLStream(below, context, server_side=True, https_compatible=True)

    async def do_handshake(self) -> None:
        await self._stream.do_handshake()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def send_eof(self) -> None:
        """Let the other side be: TLS says good-bye when it is closed, and cannot do so for one direction."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._stream.aclose()


async def secured(stream: trio.SocketStream, context: SSLContext) -> TlsStream | None:
    """Shake hands; None, and the connection closed, if the other side does not manage it within HANDSHAKE_S."""
    secure = TlsStream(stream, context)
    with trio.move_on_after(HANDSHAKE_S):
        try:
            await secure.do_handshake()
        except trio.BrokenResourceError as error:
            log.debug("http.no_handshake", error=str(error.__cause__ or error))
        else:
            return secure
    await trio.aclose_forcefully(secure)
    return None
