"""HTTP without a network: a plugin's requests are answered by a function of the test."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ssl import SSLContext, create_default_context
from typing import TypeAlias

import httpx
import trio

from sixfbd.model import Json
from sixfbd.plugin import TemporaryFailure

Answer: TypeAlias = Callable[[httpx.Request], httpx.Response]
"""Takes a request and returns its response. Raises TemporaryFailure, or whatever else a far side is to do."""


def nobody(request: httpx.Request) -> httpx.Response:
    """Refuse a request that the test did not foresee."""
    raise TemporaryFailure(f"cannot connect: the test answers no {request.method} {request.url.host}; give it http=")


class Answered:
    """`sixfbd.plugin.Outbound` whose far side is a function. `requests` keeps what was asked, oldest first."""

    def __init__(self, answer: Answer, requests: list[httpx.Request]) -> None:
        self._answer = answer
        self.requests = requests

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
        await trio.lowlevel.checkpoint()
        request = httpx.Request(method, url, headers=headers, content=content, json=json)
        self.requests.append(request)
        response = self._answer(request)
        if len(response.content) > max_bytes:
            raise TemporaryFailure(f"the answer is larger than {max_bytes} bytes", sent=True)
        response.request = request
        return response

    def slot(self, timeout_s: float) -> AbstractAsyncContextManager[None]:
        return self._slot()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield
