"""The network below one probe: the name is looked up here, addresses tried in turn, TLS agreed on, each step timed.

Given to httpcore as its network backend, so that Host and server name stay those of the URL while the connection goes to
the address that was looked up. Owns the sockets that it opens: `close` ends them whatever httpcore did.
"""

import errno
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import httpcore
import trio

from sixfbd.plugin import Size
from sixfbd_plugins.checks.probe.certificate import Validity, validity
from sixfbd_plugins.checks.probe.tls import unverified_context
from sixfbd_plugins.checks.probe.trail import CertificateError, ProbeError, Trail

MAX_ADDRESSES: Final = 8
CLOSE_LIMIT_S: Final = 0.25  # for TLS's goodbye, to a server that may not read
LOOK_AGAIN_S: Final = 2.0
SMALL_READ: Final = (
    2048  # bytes; what is read at once is handled in one go, be it hundreds of interim answers or chunks
)
SMALL_PIECE: Final = 256  # bytes; where the pieces are smaller than this on average, so are the reads
MAX_HEAD: Final = 256 * 1024  # bytes before the body, interim answers included; h11 bounds each of them at 100 KiB
_FAMILIES: Final = {"4": socket.AF_INET, "6": socket.AF_INET6}


class Address(NamedTuple):
    """Where to connect: a family and the address as sockets take it."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.sockaddr[0]} port {self.sockaddr[1]}"


async def resolve(host: str, port: int, ip_protocol: str, ip_fallback: bool) -> list[Address]:
    """Return the addresses to try, in order: "4" and "6" come first or, without fallback, alone; "any" as the resolver says.

    Raises ProbeError. Looking up cannot be interrupted: a cancelled one goes on in its thread until the resolver gives up.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ProbeError(f"DNS: {host} cannot be resolved: {error.strerror or error}") from error
    except (UnicodeError, OSError) as error:
        raise ProbeError(f"DNS: {host!r} cannot be resolved: {error}") from error
    addresses = list(dict.fromkeys(Address(family, sockaddr) for family, _, _, _, sockaddr in found))
    wanted = _FAMILIES.get(ip_protocol)
    if wanted is not None:
        addresses.sort(key=lambda address: address.family != wanted)
        if not ip_fallback:
            addresses = [address for address in addresses if address.family == wanted]
    if not addresses:
        raise ProbeError(f"DNS: {host} has no IPv{ip_protocol} address")
    return addresses[:MAX_ADDRESSES]


async def connect(address: Address) -> trio.SocketStream:
    """Connect to one address; raises ProbeError in plain words."""
    try:
        sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
    except OSError as error:  # a machine without IPv6
        raise ProbeError(f"cannot connect to {address}: {error.strerror}") from error
    try:
        await sock.connect(address.sockaddr)
        return trio.SocketStream(sock)
    except OSError as error:
        sock.close()
        if error.errno == errno.ECONNREFUSED:
            raise ProbeError(f"connection refused by {address}") from error
        raise ProbeError(f"cannot connect to {address}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise


async def connect_any(addresses: list[Address]) -> tuple[trio.SocketStream, Address]:
    """Try one address after the other; a dead one costs its share of the time that is left, the last one all of it."""
    failures = []
    for index, address in enumerate(addresses):
        left = len(addresses) - index
        now = trio.current_time()
        share = (trio.current_effective_deadline() - now) / left if left > 1 else float("inf")
        try:
            with trio.move_on_after(share):
                return await connect(address), address
            failures.append(f"no answer from {address}")
        except ProbeError as failure:
            failures.append(str(failure))
    raise ProbeError("; ".join(failures))


class ProbeNetwork(httpcore.AsyncNetworkBackend):
    """httpcore's network for one hop of one probe. `server_name`, if given, is what TLS asks of `host` in place of its name."""

    def __init__(
        self,
        trail: Trail,
        *,
        host: str,
        server_name: str | None = None,
        ip_protocol: str = "any",
        ip_fallback: bool = True,
        to_proxy: bool = False,
    ) -> None:
        self.trail = trail
        self._to_proxy = to_proxy
        self.address: Address | None = None
        self._host = host
        self._server_name = server_name
        self._ip_protocol = ip_protocol
        self._ip_fallback = ip_fallback
        self._opened: list[trio.SocketStream] = []
        self._head_bytes = 0

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Look up and connect. Time limits are the caller's cancel scope; httpcore is given none."""
        try:
            self.trail.enter("resolve")
            addresses = await resolve(host, port, self._ip_protocol, self._ip_fallback)
            self.trail.enter("connect")
            stream, self.address = await connect_any(addresses)
        except ProbeError as error:
            if self._to_proxy:
                raise ProbeError(f"the proxy cannot be reached: {error}") from error
            raise
        self._opened.append(stream)
        self.trail.ip_protocol = 6 if self.address.family == socket.AF_INET6 else 4
        self.trail.enter("processing")
        return ProbeStream(stream, self)

    async def sleep(self, seconds: float) -> None:
        """Part of httpcore's interface; only its retries wait, and a probe does not retry."""
        await trio.sleep(seconds)

    async def agree_on_tls(
        self, stream: trio.abc.Stream, context: ssl.SSLContext, server_hostname: str | None
    ) -> "trio.SSLStream[Any]":
        """Make the handshake; raises ProbeError, CertificateError among them."""
        self.trail.enter("tls")
        is_target = server_hostname == self._host  # else it is a proxy that is spoken to in TLS
        name = self._server_name if is_target and self._server_name else server_hostname
        try:
            tls = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
            await tls.do_handshake()
        except (trio.BrokenResourceError, ValueError) as error:
            raise _handshake_failure(error, name) from error
        if is_target:
            self.trail.is_tls, self.trail.certificate = True, peer_validity(tls)
        self.trail.enter("processing")
        return tls

    def read_size(self, most: int) -> int:
        """Return how many bytes to read: few where a read may hold many pieces, as the loop stands still for them all."""
        is_large = self.trail.body_bytes > SMALL_PIECE * self.trail.body_pieces
        return most if is_large and self.trail.phase == "transfer" else min(most, SMALL_READ)

    def count(self, size: int) -> None:
        """Count bytes before the body; raises ProbeError if they are too many."""
        self._head_bytes += size if self.trail.phase == "processing" else 0
        if self._head_bytes > MAX_HEAD:
            raise ProbeError(f"the answer's headers, interim answers included, are larger than {Size(MAX_HEAD)}")

    def close(self) -> None:
        """Close every socket that was opened, at once."""
        for stream in self._opened:
            stream.socket.close()


class ProbeStream(httpcore.AsyncNetworkStream):
    """One connection as httpcore wants it."""

    def __init__(self, stream: trio.abc.Stream, network: ProbeNetwork) -> None:
        self._stream = stream
        self._network = network

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return some bytes, none at the end. Raises httpcore.ReadError, or ProbeError if the headers do not end."""
        try:
            data = bytes(await self._stream.receive_some(self._network.read_size(max_bytes)))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(_reason(error)) from error
        self._network.count(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all bytes. Raises httpcore.WriteError."""
        try:
            await self._stream.send_all(buffer)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(_reason(error)) from error

    async def aclose(self) -> None:
        """Close politely for CLOSE_LIMIT_S, then anyway: httpcore shields this from our deadline."""
        with trio.move_on_after(CLOSE_LIMIT_S):
            await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Agree on TLS. On failure the connection is closed."""
        try:
            return ProbeStream(
                await self._network.agree_on_tls(self._stream, ssl_context, server_hostname), self._network
            )
        except BaseException:
            self._network.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        """Part of httpcore's interface: the TLS object; whether a kept connection was closed (ours are never kept)."""
        return self._stream if info == "ssl_object" and isinstance(self._stream, trio.SSLStream) else None


async def look_again(address: Address, server_name: str | None) -> Validity | None:
    """Connect once more without verification and return the validity of the certificate shown; None if it cannot be had."""
    context = unverified_context()
    with trio.move_on_after(LOOK_AGAIN_S):
        try:
            async with await connect(address) as stream:
                tls = trio.SSLStream(stream, context, server_hostname=server_name, https_compatible=True)
                await tls.do_handshake()
                return peer_validity(tls)
        except (ProbeError, trio.BrokenResourceError):
            return None
    return None


def peer_validity(tls: "trio.SSLStream[Any]") -> Validity | None:
    """Return the validity of the server's own certificate (Python 3.11 shows no other of its chain)."""
    der = tls.getpeercert(True)
    try:
        return validity(der) if der else None
    except ValueError:
        return None


def _handshake_failure(error: Exception, name: str | None) -> ProbeError:
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return CertificateError(cause.verify_code, cause.verify_message, name)
    return ProbeError(f"TLS: {_reason(error)}")


def _reason(error: Exception) -> str:
    """Return what is behind a broken connection, in words."""
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLEOFError):
        return "the server hung up"
    if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "the server does not answer in TLS"
    if isinstance(cause, ssl.SSLError) and cause.reason in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"):
        return "the server speaks only versions older than 1.2"
    if isinstance(cause, ssl.SSLError):
        return (cause.reason or str(cause)).replace("_", " ").lower()
    if isinstance(cause, OSError):
        return (cause.strerror or str(cause)).lower()
    return str(cause) or type(cause).__name__
