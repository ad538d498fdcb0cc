"""All impurity behind one seam: clock, randomness, ids, worker threads, outbound HTTP. A simulator is another World.

Owns the shared TLS context and the pools of outbound connections; holds no state of the domain.
"""

import hashlib
import random
import secrets
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias, TypeVar

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
    "Accept-Encoding": "gzip",  # what `_unpacked` unpacks
    "User-Agent": f"sixfbd/{__version__}",
}
OFFLOAD_THREADS: Final = 8
STILL_S: Final = 2.0  # nobody watched for so long: more than a busy machine takes to come round
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


class BootClock(trio.abc.Clock):
    """trio's time as seconds since boot, those that the machine slept included: a suspended machine is a long pause.

    After it every deadline that passed meanwhile is due. What the kernel waits for does not count the sleep, so that
    the loop notices when it is woken next; the watchdog's signs do that within a moment.
    """

    def __init__(self, boot_time: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)) -> None:
        self._boot_time = boot_time

    def start_clock(self) -> None:
        """It runs since the machine does."""

    def current_time(self) -> float:
        return self._boot_time()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - self._boot_time()


StoodStill: TypeAlias = Callable[[float, float], None]
"""Called with the engine times between which nothing of the daemon ran."""


class EngineClock:
    """Wall time at start plus trio's monotonic time since, so that tests may run it on trio's MockClock.

    Once `turned` is called as often as the loop turns, `now` notices that the loop stood still for STILL_S or longer,
    whatever the reason, and tells it before it returns: whoever acts on the time learns of the gap first.
    """

    def __init__(self, started_at: float | None = None) -> None:
        self._wall_at_start = time.time() if started_at is None else started_at
        self._trio_at_start = trio.current_time()
        self._turned_at: float | None = None
        self._stood_still: StoodStill = lambda since, until: None

    def now(self) -> float:
        at = trio.current_time()
        if self._turned_at is not None and at - self._turned_at >= STILL_S:
            since, self._turned_at = self._turned_at, at
            self._stood_still(self._at(since), self._at(at))
        return self._at(at)

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def sleep_until(self, at: float) -> None:
        await trio.sleep_until(self._trio_at_start + (at - self._wall_at_start))

    def turned(self) -> None:
        """The loop turns at this moment."""
        self.now()
        self._turned_at = trio.current_time()

    def tell(self, stood_still: StoodStill) -> None:
        """Call `stood_still` when the loop had stood still, before the time after it is known to anybody."""
        self._stood_still = stood_still

    def not_before(self, at: float) -> float:
        """Let engine time be at least `at`; return by how much it was set forward. Only before anything is stamped."""
        behind_s = max(0.0, at - self.now())
        self._wall_at_start += behind_s
        return behind_s

    def wall_offset_s(self) -> float:
        """How far the wall clock is ahead of engine time, in seconds; what a restart would adopt."""
        return self.wall().timestamp() - self.now()

    def _at(self, trio_time: float) -> float:
        return self._wall_at_start + (trio_time - self._trio_at_start)


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
            with trio.CancelScope() as scope:
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > max_bytes:
                        scope.cancel()  # ends it from below: left from above, httpcore's generators stay open
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await response.aclose()
        headers = [pair for pair in response.headers.raw if pair[0].lower() not in FRAMING_HEADERS]
        content = _unpacked(bytes(body), response.headers.get("content-encoding", "identity"), max_bytes)
        return httpx.Response(response.status_code, headers=headers, content=content, request=request)

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


def _unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return a body as it was before it was packed. A few bytes may hold gigabytes: no more than the limit is unpacked."""
    if encoding.lower() == "identity" or not body:
        return body
    if encoding.lower() != "gzip":
        raise TemporaryFailure(f"the answer is packed as {encoding[:20]!r}, which was not asked for", sent=True)
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = unpack.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise TemporaryFailure(f"the answer is not gzip as it says: {error}", sent=True) from None
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return content


def _too_large(max_bytes: int) -> TemporaryFailure:
    return TemporaryFailure(f"the answer is larger than {max_bytes} bytes", sent=True)


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
