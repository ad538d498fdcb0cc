"""All impurity behind one seam: clock, randomness, ids, worker threads, outbound HTTP. A simulator is another World.

Owns the shared TLS context and the pools of outbound connections; holds no state of the domain.
"""

import hashlib
import random
import secrets
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import httpcore
import httpx
import trio
from msgspec import Struct

from sixfbd import __version__
from sixfbd.model import Json
from sixfbd.plugin import Outbound, Size, TemporaryFailure
from sixfbd.proxies import Proxies, ProxyError
from sixfbd.slots import taken

T = TypeVar("T")

OUTBOUND_SLOTS: Final = 64  # exchanges at once per service; one that hangs costs its own slots only
CONNECT_SHARE: Final = 0.9  # of the deadline; what httpcore gives up it closes, what is cancelled it leaves to the gc
KEPT_CONNECTIONS: Final = 20  # idle ones, of one service
KEPT_S: Final = 5.0
READ_SIZE: Final = 4096  # bytes; what one read brings is handled in one go, be it hundreds of interim answers
GATHERED: Final = 64 * 1024  # bytes of a request that wait for the rest of it
SLICE: Final = 64  # pieces of a body that are taken before others have their turn; a read may bring hundreds
MAX_HEAD: Final = 256 * 1024  # bytes before the body, interim answers included; h11 bounds each of them at 100 KiB
DEFAULT_HEADERS: Final = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip",  # what `_unpacked` unpacks
    "User-Agent": f"sixfbd/{__version__}",
}
OFFLOAD_THREADS: Final = 8
STILL_S: Final = 2.0  # nobody watched for so long: more than a busy machine takes to come round
_FAILURES: Final = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.RemoteProtocolError,
    httpcore.UnsupportedProtocol,
)
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


class _Progress(Struct):
    """How far one exchange has come."""

    sent: bool = False  # from the first byte on a lost answer says nothing of whether the request arrived
    in_body: bool = False
    head_bytes: int = 0

    async def note(self, step: str, _facts: Mapping[str, Any]) -> None:
        """Take one of httpcore's trace events."""
        self.sent = self.sent or step.endswith(".send_request_headers.started")
        self.in_body = self.in_body or step.endswith(".receive_response_headers.complete")

    def count(self, size: int) -> None:
        """Count bytes that were read; raises TemporaryFailure if those before the body are too many."""
        self.head_bytes += 0 if self.in_body else size
        if self.head_bytes > MAX_HEAD:
            text = f"the answer's headers, interim answers included, are larger than {Size(MAX_HEAD)}"
            raise TemporaryFailure(text, sent=True)


_progress: ContextVar[_Progress] = ContextVar("_progress")
"""That of the exchange that the current task makes: a connection is kept, and each exchange on it counts anew."""


class _Network(httpcore.TrioBackend):
    """httpcore's network, reading little at once."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Connection(await super().connect_tcp(host, port, timeout, local_address, socket_options))


class _Connection(httpcore.AsyncNetworkStream):
    """One connection as httpcore wants it, which counts what it reads against the exchange that reads it.

    A request's head and body, which httpcore writes one by one, leave together: before an answer is read.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._unsent = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:
            with suppress(httpcore.WriteError):  # as httpcore does: who closes early may have answered before
                await self._send(timeout)
        data = await self._stream.read(min(max_bytes, READ_SIZE), timeout)
        _progress.get().count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._unsent += buffer
        if len(self._unsent) > GATHERED:
            await self._send(timeout)

    async def _send(self, timeout: float | None) -> None:
        unsent, self._unsent = self._unsent, b""
        await self._stream.write(unsent, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            return _Connection(await self._stream.start_tls(ssl_context, server_hostname, timeout))
        except BaseException:
            self._stream.get_extra_info("socket").close()  # a cancelled handshake leaves it open
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class HttpOutbound:
    """`Outbound` over httpcore's pools, one for each proxy (DESIGN section 5, Outbound): it follows no redirect, keeps no cookie.

    `context_of` returns the TLS context; asked in a thread, and not before the first exchange. `proxies_of` says where to
    ask, raises ProxyError; None: everything is asked directly.
    """

    def __init__(
        self,
        service: str,
        context_of: Callable[[], ssl.SSLContext],
        slots: int = OUTBOUND_SLOTS,
        proxies_of: Callable[[], Proxies] | None = None,
    ) -> None:
        self.service = service
        self._context_of = context_of
        self._proxies_of = proxies_of
        self._slots = slots
        self._limiter = trio.CapacityLimiter(slots)
        self._opened: dict[tuple[bytes, object] | None, httpcore.AsyncConnectionPool] = {}

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return self._context_of()

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
        progress = _Progress()
        before = _progress.set(progress)
        try:
            with trio.fail_after(timeout_s):
                async with taken(self._limiter):
                    request = httpx.Request(
                        method,
                        url,
                        headers=_with_defaults(headers or {}),
                        content=content,
                        json=json,
                        extensions={"trace": progress.note, "timeout": {"connect": CONNECT_SHARE * timeout_s}},
                    )
                    if request.url.userinfo:
                        next(httpx.BasicAuth(request.url.username, request.url.password).sync_auth_flow(request))
                    return await self._exchange(request, max_bytes)
        except trio.TooSlowError:
            raise TemporaryFailure(f"no answer within {timeout_s:g} s", sent=progress.sent) from None
        except httpcore.ConnectTimeout as error:
            limit_s = CONNECT_SHARE * timeout_s
            raise TemporaryFailure(f"cannot connect: no answer within {limit_s:g} s", sent=False) from error
        except httpcore.ConnectError as error:
            raise TemporaryFailure(f"cannot connect: {_reason(error)}", sent=False) from error
        except httpcore.LocalProtocolError as error:
            # The text of "Illegal header value ..." holds the value, which may be a secret.
            reason = "a header's value is not valid" if "header value" in str(error) else str(error)
            raise TemporaryFailure(f"the request is not valid HTTP: {reason}", sent=progress.sent) from None
        except _FAILURES as error:
            raise TemporaryFailure(f"{type(error).__name__}: {error}", sent=progress.sent) from error
        except (ProxyError, httpcore.ProxyError) as error:  # the tunnel was never opened
            raise TemporaryFailure(f"the proxy: {error}", sent=False) from None
        except httpx.InvalidURL as error:
            raise TemporaryFailure(f"the URL is not valid: {error}", sent=False) from error
        finally:
            _progress.reset(before)

    async def _exchange(self, request: httpx.Request, max_bytes: int) -> httpx.Response:
        pool = await self._pool(self._proxy_for(request.url))
        response = await pool.handle_async_request(_for_pool(request))
        try:
            body, pieces = bytearray(), 0
            with trio.CancelScope() as scope:  # ends it from below: left from above, httpcore's generators stay open
                async for piece in response.aiter_stream():
                    body += piece
                    pieces += 1
                    if len(body) > max_bytes:
                        scope.cancel()
                    elif pieces % SLICE == 0:
                        await trio.lowlevel.cancel_shielded_checkpoint()
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await response.aclose()
        headers = [pair for pair in response.headers if pair[0].lower() not in FRAMING_HEADERS]
        encoding = httpx.Headers(response.headers).get("content-encoding", "identity")
        content = _unpacked(bytes(body), encoding, max_bytes)
        return httpx.Response(response.status, headers=headers, content=content, request=request)

    def slot(self, timeout_s: float) -> AbstractAsyncContextManager[None]:
        return self._slot(timeout_s)

    @asynccontextmanager
    async def _slot(self, timeout_s: float) -> AsyncIterator[None]:
        with trio.fail_after(timeout_s):
            async with taken(self._limiter):
                yield

    def _proxy_for(self, url: httpx.URL) -> httpcore.Proxy | None:
        return None if self._proxies_of is None else self._proxies_of().of(url.scheme, url.host, url.port)

    async def _pool(self, proxy: httpcore.Proxy | None) -> httpcore.AsyncConnectionPool:
        place = None if proxy is None else (bytes(proxy.url), proxy.auth)
        if place not in self._opened:
            context = await trio.to_thread.run_sync(self._context_of, abandon_on_cancel=True)
            made = httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=self._slots,
                max_keepalive_connections=KEPT_CONNECTIONS,
                keepalive_expiry=KEPT_S,
                network_backend=_Network(),
                proxy=proxy,
            )
            return self._opened.setdefault(place, made)  # another exchange may have come first
        return self._opened[place]

    async def close(self) -> None:
        for pool in self._opened.values():
            await pool.aclose()


def _for_pool(request: httpx.Request) -> httpcore.Request:
    url = httpcore.URL(
        scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
    )
    return httpcore.Request(
        request.method, url, headers=request.headers.raw, content=request.content, extensions=request.extensions
    )


def _reason(error: BaseException) -> str:
    """Return why a connection could not be made: httpcore's error of a handshake has no text, what it comes from has."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {one.verify_message}"
        if text := str(one):
            return text
        one = one.__cause__ or one.__context__
    return type(error).__name__


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
        self._context_of = cache(ssl.create_default_context)  # to read the authorities takes longer than all else here
        self._proxies_of = cache(Proxies.of_environment)
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
            self._outbound[service] = HttpOutbound(service, self._context_of, proxies_of=self._proxies_of)
        return self._outbound[service]
