"""The far sides of a plugin's HTTP that `sixfbd plugins check` has it meet: one that answers, and ones that fail."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ssl import SSLContext, create_default_context
from typing import Final, Literal, TypeAlias

import httpx
import trio

from sixfbd.model import Json
from sixfbd.plugin import Outbound, TemporaryFailure
from sixfbd.world import EngineClock, RealWorld

Mode: TypeAlias = Literal["answers", "refuses", "empty", "garbage", "echoes", "hangs"]
FAILING: Final[tuple[Mode, ...]] = ("refuses", "empty", "garbage", "echoes")
"""Each of them once: nobody there, an empty answer, one of another form, an error that repeats what it was asked."""


class FarSide:
    """`Outbound` whose far side does as `mode` says. `asked` counts requests."""

    def __init__(self) -> None:
        self.mode: Mode = "answers"
        self.asked = 0

    @property
    def ssl_context(self) -> SSLContext:
        return create_default_context()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: Json | None = None,
        timeout_s: float = 10.0,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> httpx.Response:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        request = httpx.Request(method, url, headers=headers, content=content, json=json)
        match self.mode:
            case "refuses":
                raise TemporaryFailure("cannot connect: connection refused")
            case "empty":
                return httpx.Response(200, content=b"", request=request)
            case "garbage":
                return httpx.Response(200, json=[None, {"data": 17}, "\ud7ff"], request=request)
            case "echoes":
                said = f"{method} {url} {dict(request.headers)} {request.content!r}"
                return httpx.Response(401, json={"error": {"message": f"not allowed: {said}"}}, request=request)
            case "hangs":
                await trio.sleep_forever()
        return httpx.Response(200, json={}, request=request)

    def slot(self, timeout_s: float) -> AbstractAsyncContextManager[None]:
        return self._slot()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield


class Surrounding(RealWorld):
    """The real world but for HTTP, which ends at the far side."""

    def __init__(self, far_side: FarSide) -> None:
        super().__init__(EngineClock())
        self._far_side = far_side

    def outbound(self, service: str) -> Outbound:
        return self._far_side
