"""One exchange from name to last byte: hops, redirects, deadline, and every failure turned into plain words in one place.

A connection is made for each hop and never kept: a probe measures what a new visitor gets. Never judges the answer.
"""

import ssl
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import httpcore
import httpx
import trio
from msgspec import Struct, field
from socksio.exceptions import SOCKSError as SocksError

from sixfbd.plugin import DAY, Size, show_duration
from sixfbd_plugins.checks.probe.network import ProbeNetwork, look_again
from sixfbd_plugins.checks.probe.trail import CertificateError, ProbeError, Trail
from sixfbd_plugins.checks.targets import validate_port

MAX_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})

# X509_V_ERR_*, openssl/x509_vfy.h
_CERTIFICATE_WORDS: Final[Mapping[int, str]] = {
    18: "certificate is self-signed",
    19: "certificate's chain ends in a root that is not trusted",
    20: "certificate's issuer is not known",
    21: "certificate's issuer is not known",
}
_OTHER_NAME: Final = frozenset({62, 64})


class ProbeRequest(Struct, frozen=True):
    """What to send and how to get there. `secret_headers` (names in lower case) are not sent to another host."""

    method: str
    url: httpx.URL
    ssl_context: ssl.SSLContext
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: frozenset[str] = frozenset()
    body: bytes = b""
    follow_redirects: bool = True
    ip_protocol: str = "any"
    ip_fallback: bool = True
    proxy: httpcore.Proxy | None = None
    server_name: str | None = None
    max_body: int = 4 * 1024 * 1024


class Answer(Struct, frozen=True):
    """The last hop's answer, its body whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Hop(Struct, frozen=True):
    """One request on the way."""

    url: httpx.URL
    method: str
    headers: Mapping[str, str]
    body: bytes


async def exchange(request: ProbeRequest, trail: Trail, deadline: float, now: float) -> Answer:
    """Follow the request to its answer by `deadline` (trio's time), writing down the way on `trail`.

    `now` (unix seconds) is what a certificate's dates are held against. Raises ProbeError and nothing else.
    """
    started = trio.current_time()
    try:
        with trio.move_on_at(deadline):
            return await _follow(request, trail, now)
    except httpcore.ProxyError as error:
        raise ProbeError(f"{_proxy_name(request)} refused: {error}") from error
    except SocksError as error:
        raise ProbeError(f"{_proxy_name(request)} does not speak SOCKS5") from error
    except (httpcore.ReadError, httpcore.WriteError) as error:
        raise ProbeError(f"connection lost while {trail.doing()}: {error}") from error
    except httpcore.RemoteProtocolError as error:
        raise ProbeError(_not_http(trail, str(error))) from error
    except httpcore.LocalProtocolError as error:
        # The text of "Illegal header value ..." holds the value, which may be a secret.
        reason = "a header's value is not valid" if "header value" in str(error) else str(error)
        raise ProbeError(f"the request is not valid HTTP: {reason}") from None
    raise ProbeError(timeout_words(trail, trio.current_time() - started))


def _proxy_name(request: ProbeRequest) -> str:
    assert request.proxy is not None
    url = request.proxy.url
    return f"the proxy {url.host.decode()} port {url.port}"


def timeout_words(trail: Trail, seconds: float) -> str:
    """Return where a probe was when its time was over."""
    return f"timed out after {show_duration(round(seconds, 1))} in phase {trail.phase} ({trail.doing()})"


async def _follow(request: ProbeRequest, trail: Trail, now: float) -> Answer:
    hop = _Hop(request.url, request.method, request.headers, request.body)
    for _ in range(MAX_REDIRECTS + 1):
        answer, location = await _exchange_hop(request, trail, hop, now)
        if location is None:
            return answer
        hop = _next_hop(hop, answer.status, location, request.secret_headers)
        trail.redirects += 1
    raise ProbeError(f"more than {MAX_REDIRECTS} redirects, the last to {_shown(hop.url)}")


def _next_hop(hop: _Hop, status: int, location: str, secret_headers: frozenset[str]) -> _Hop:
    """Return where a redirect leads, with the method that browsers use and without secrets for another host."""
    url = _redirect_target(hop.url, location)
    headers, method, body = hop.headers, hop.method, hop.body
    if _origin(url) != _origin(hop.url):
        headers = _without(headers, _SECRET_HEADERS | secret_headers | {"host"})
    if status == 303 or (status in (301, 302) and method == "POST"):
        method, body = ("HEAD" if method == "HEAD" else "GET"), b""
    return _Hop(url, method, headers, body)


async def _exchange_hop(request: ProbeRequest, trail: Trail, hop: _Hop, now: float) -> tuple[Answer, str | None]:
    """Make one exchange; the second value is where a redirect that is to be followed leads."""
    trail.is_tls, trail.certificate = False, None
    network = ProbeNetwork(
        trail,
        host=hop.url.raw_host.decode("ascii"),
        server_name=request.server_name if _origin(hop.url) == _origin(request.url) else None,
        ip_protocol=request.ip_protocol,
        ip_fallback=request.ip_fallback,
        to_proxy=request.proxy is not None,
    )
    try:
        async with httpcore.AsyncConnectionPool(
            ssl_context=request.ssl_context, proxy=request.proxy, max_keepalive_connections=0, network_backend=network
        ) as pool:
            return await _ask(pool, request, trail, hop, network.close)
    except CertificateError as refused:
        if network.address is not None and request.proxy is None:
            trail.certificate = await look_again(network.address, refused.server_name)
        raise ProbeError(certificate_words(refused, trail, now)) from refused
    finally:
        network.close()


async def _ask(
    pool: httpcore.AsyncConnectionPool, request: ProbeRequest, trail: Trail, hop: _Hop, hang_up: Callable[[], None]
) -> tuple[Answer, str | None]:
    url = httpcore.URL(scheme=hop.url.scheme, host=hop.url.raw_host, port=hop.url.port, target=hop.url.raw_path)
    async with pool.stream(hop.method, url, headers=_headers_of(hop), content=hop.body or None) as response:
        trail.enter("transfer")
        trail.status = response.status
        trail.http_version = float(response.extensions["http_version"].partition(b"/")[2])
        received = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
        length = received.get("content-length", "")
        trail.content_length = float(length) if length.isdecimal() else -1.0
        location = received.get("location") if request.follow_redirects and response.status in _REDIRECTS else None
        body = b"" if location else await _read_body(response, trail, request.max_body, hang_up)
    trail.enter("done")
    return Answer(response.status, received, body), location


def _headers_of(hop: _Hop) -> list[tuple[bytes, bytes]]:
    given = [(name.encode("ascii"), value.encode("ascii")) for name, value in hop.headers.items()]
    if "host" not in {name.lower() for name in hop.headers}:
        given.insert(0, (b"Host", hop.url.netloc))
    if hop.body or hop.method in ("POST", "PUT", "PATCH"):
        given.append((b"Content-Length", b"%d" % len(hop.body)))
    return given


async def _read_body(response: httpcore.Response, trail: Trail, max_body: int, hang_up: Callable[[], None]) -> bytes:
    trail.body_bytes = trail.body_pieces = 0
    body = bytearray()
    try:
        async for piece in response.aiter_stream():
            trail.body_pieces += 1
            trail.body_bytes += len(piece)
            if trail.body_bytes > max_body:
                hang_up()  # ends the iteration from below: left from above, httpcore's nested generators stay open
            else:
                body += piece
    except httpcore.ReadError:
        if trail.body_bytes <= max_body:
            raise
    if trail.body_bytes > max_body:
        raise ProbeError(f"the body is larger than {Size(max_body)}")
    return bytes(body)


def _redirect_target(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = url.join(location).copy_with(fragment=None)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ProbeError(f"redirects to something that is not an address: {error}") from error
    if target.scheme not in ("http", "https") or not target.host:
        raise ProbeError(f"redirects to {_shown(target)}, which is not HTTP")
    try:
        validate_port(target)
    except ValueError as error:
        raise ProbeError(f"redirects to {_shown(target)}, where {error}") from None
    return target


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _shown(url: httpx.URL) -> str:
    """Return an address as a summary may show it: no user, no query."""
    return str(url.copy_with(username=None, password=None, query=None, fragment=None))[:200]


def _without(headers: Mapping[str, str], names: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in names}


def _not_http(trail: Trail, reason: str) -> str:
    reason = reason.partition(": bytearray(")[0]  # what follows is what the server sent
    if trail.phase == "transfer":
        return f"the body ended early, after {trail.body_bytes} bytes: {reason}"
    if "without sending a response" in reason:
        return "the server closed the connection without an HTTP answer"
    return f"the answer is not HTTP: {reason}"


def certificate_words(refused: CertificateError, trail: Trail, now: float) -> str:
    """Return what is wrong with a certificate; its dates are named where they are known and wrong."""
    dates = trail.certificate
    timely = ""
    if dates is not None and dates.not_after < now:
        timely = f"certificate expired {_days(now - dates.not_after)} ago, on {_day(dates.not_after)}"
    elif dates is not None and dates.not_before > now:
        timely = f"certificate is not valid before {_day(dates.not_before)}, in {_days(dates.not_before - now)}"
    if refused.code in _OTHER_NAME:
        other = f"certificate is for another host, not {refused.server_name}"
    else:
        other = _CERTIFICATE_WORDS.get(refused.code, "" if timely else f"certificate refused: {refused.message}")
    return "; ".join(words for words in (timely, other) if words)


def _days(seconds: float) -> str:
    days = int(seconds // DAY)
    return show_duration(int(seconds)) if days < 1 else "1 day" if days == 1 else f"{days} days"


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
