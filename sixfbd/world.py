"""All impurity behind one seam: clock, randomness, ids, worker threads, outbound HTTP. A simulator is another World.

Owns the shared TLS context and the pools of outbound connections; holds no state of the domain.
"""

import hashlib
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

import httpx
import trio

from sixfbd import __version__
from sixfbd.model import Json
from sixfbd.plugin import Outbound, TemporaryFailure

T = TypeVar("T")

OUTBOUND_SLOTS: Final = 64  # exchanges at once per service; one that hangs costs its own slots only
CONNECT_SHARE: Final = 0.9  # of the deadline; what httpcore gives up it closes, what is cancelled it leaves to the gc
DEFAULT_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": f"sixfbd/{__version__}",
}
OFFLOAD_THREADS: Final = 8
FRAMING_HEADERS: Final = (b"content-encoding", b"content-length", b"transfer-encoding")  # untrue of a decoded body


class Clock(Protocol):
    """The one clock (DESIGN promise 8)."""

    def now(self) -> float:
        """Engine time, unix seconds, never steps."""
        ...

    def wall(self) -> datetime:
        """The wall clock, UTC; for display and signatures only."""
        ...

    async def sleep_until(self, at: float) -> None:
        """Return when `now()` is at least `at`."""
        ...


class World(Protocol):
    """What the engine needs of the outside."""

    clock: Clock

    def rng(self, *key: str) -> random.Random:
        """A source of chance that depends on the key (and, in a simulation, on the seed) alone."""
        ...

    def new_id(self, *key: str) -> str:
        """A fresh id: 20 characters, unique, sorting roughly by time."""
        ...

    async def offload(self, fn: Callable[..., T], *args: object) -> T:
        """Run a blocking function in a worker thread."""
        ...

    def outbound(self, service: str) -> Outbound:
        """The way out for HTTP of one service; the same object for the same name."""
        ...


class EngineClock:
    """Wall time at start plus trio's monotonic time since, so that tests may run it on trio's MockClock."""

    def __init__(self, started_at: float | None = None) -> None:
        self._wall_at_start = time.time() if started_at is None else started_at
        self._trio_at_start = trio.current_time()

    def now(self) -> float:
        return self._wall_at_start + (trio.current_time() - self._trio_at_start)

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def sleep_until(self, at: float) -> None:
        await trio.sleep_until(self._trio_at_start + (at - self._wall_at_start))


class HttpOutbound:
    """`Outbound` over one httpx transport (DESIGN section 5, Outbound): redirects, cookies and proxies are nobody's here."""

    def __init__(self, service: str, ssl_context: ssl.SSLContext, slots: int = OUTBOUND_SLOTS) -> None:
        self.service = service
        self.ssl_context = ssl_context
        self._limiter = trio.CapacityLimiter(slots)
        self._transport = httpx.AsyncHTTPTransport(
            verify=ssl_context,
            trust_env=False,
            limits=httpx.Limits(max_connections=slots, max_keepalive_connections=20),
        )

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
        sent = False

        async def note(step: str, _facts: Mapping[str, Any]) -> None:
            nonlocal sent  # from the first byte on a lost answer says nothing of whether the request arrived
            sent = sent or step.endswith(".send_request_headers.started")

        try:
            with trio.fail_after(timeout_s):
                async with self._limiter:
                    request = httpx.Request(
                        method,
                        url,
                        headers=_with_defaults(headers or {}),
                        content=content,
                        json=json,
                        extensions={"trace": note, "timeout": {"connect": CONNECT_SHARE * timeout_s}},
                    )
                    if request.url.userinfo:
                        next(httpx.BasicAuth(request.url.username, request.url.password).sync_auth_flow(request))
                    return await self._exchange(request, max_bytes)
        except trio.TooSlowError:
            raise TemporaryFailure(f"no answer within {timeout_s:g} s", sent=sent) from None
        except httpx.ConnectTimeout as error:
            limit_s = CONNECT_SHARE * timeout_s
            raise TemporaryFailure(f"cannot connect: no answer within {limit_s:g} s", sent=False) from error
        except httpx.ConnectError as error:
            raise TemporaryFailure(f"cannot connect: {error}", sent=False) from error
        except httpx.HTTPError as error:
            raise TemporaryFailure(f"{type(error).__name__}: {error}", sent=sent) from error
        except httpx.InvalidURL as error:
            raise TemporaryFailure(f"the URL is not valid: {error}", sent=False) from error

    async def _exchange(self, request: httpx.Request, max_bytes: int) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        try:
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > max_bytes:
                    raise TemporaryFailure(f"the answer is larger than {max_bytes} bytes", sent=True)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await response.aclose()
        headers = [pair for pair in response.headers.raw if pair[0].lower() not in FRAMING_HEADERS]
        return httpx.Response(response.status_code, headers=headers, content=bytes(body), request=request)

    def slot(self, timeout_s: float) -> AbstractAsyncContextManager[None]:
        return self._slot(timeout_s)

    @asynccontextmanager
    async def _slot(self, timeout_s: float) -> AsyncIterator[None]:
        with trio.fail_after(timeout_s):
            async with self._limiter:
                yield

    async def close(self) -> None:
        await self._transport.aclose()


def _with_defaults(headers: Mapping[str, str]) -> httpx.Headers:
    merged = httpx.Headers(DEFAULT_HEADERS)
    merged.update(headers)
    return merged


class RealWorld:
    """The World of a running daemon. Use as an async context manager; leaving it closes the outbound connections."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or EngineClock()
        self._entropy = secrets.token_bytes(16)
        self._ssl_context = ssl.create_default_context()
        self._threads = trio.CapacityLimiter(OFFLOAD_THREADS)
        self._outbound: dict[str, HttpOutbound] = {}

    async def __aenter__(self) -> "RealWorld":
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(2):
            for outbound in self._outbound.values():
                await outbound.close()

    def rng(self, *key: str) -> random.Random:
        digest = hashlib.blake2b("\0".join(key).encode(), key=self._entropy, digest_size=16).digest()
        return random.Random(digest)

    def new_id(self, *key: str) -> str:
        return f"{int(self.clock.now() * 1000):012x}{secrets.token_hex(4)}"

    async def offload(self, fn: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(lambda: fn(*args), limiter=self._threads)

    def outbound(self, service: str) -> Outbound:
        if service not in self._outbound:
            self._outbound[service] = HttpOutbound(service, self._ssl_context)
        return self._outbound[service]
