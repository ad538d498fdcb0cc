"""Real servers on loopback, certificates made by openssl, and a real context for the checks that go out over HTTP."""

import ssl
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
import trio

from sixfbd.world import EngineClock, HttpOutbound

CA_CONFIG = """
[ca]
default_ca = test
[test]
database = {folder}/index.txt
new_certs_dir = {folder}
serial = {folder}/serial
certificate = {folder}/ca.pem
private_key = {folder}/ca.key
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
"""


class RealContext:
    """`sixfbd.plugin.Context` over the real clock, real threads and real outbound HTTP."""

    def __init__(self) -> None:
        self.name = "shop"
        self.site = "workshop"
        self.version = "0.1.0"
        self.log = structlog.get_logger("test")
        self.http = HttpOutbound("check.shop", ssl.create_default_context)
        self.clock = EngineClock()
        self.read: Any = None

    async def to_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        return await trio.to_thread.run_sync(partial(fn, *args), abandon_on_cancel=True)


@pytest.fixture
async def context():
    made = RealContext()
    yield made
    await made.http.close()


Handler = Callable[[trio.abc.Stream], Awaitable[None]]


@pytest.fixture
async def serve(nursery):
    """Start a raw TCP server, with TLS if a context is given, and return its port. A handler's stream is closed for it."""

    async def start(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> int:
        async def handle(stream: trio.SocketStream) -> None:
            talk = trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream
            try:
                await handler(talk)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await trio.lowlevel.checkpoint()  # the probe hung up first, as many of these tests make it
            finally:
                await trio.aclose_forcefully(stream)

        [listener] = await trio.open_tcp_listeners(0, host=host)
        nursery.start_soon(partial(trio.serve_listeners, handle, [listener]))
        return listener.socket.getsockname()[1]

    return start


async def read_request(stream: trio.abc.Stream) -> bytes:
    """Read until the end of the headers, and the body if its length is announced."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += await stream.receive_some(65536)
    return head + b"\r\n\r\n" + body


def answering(status: int = 200, body: bytes = b"fine", requests: list[bytes] | None = None, **headers: str) -> Handler:
    """A handler that reads one request, keeps it in `requests` and answers it."""

    async def handler(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        if requests is not None:
            requests.append(request)
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + body)

    return handler


@pytest.fixture
def server():
    """The handlers that tests build servers from."""

    class Server(NamedTuple):
        answering: Callable[..., Handler]
        read_request: Callable[[trio.abc.Stream], Awaitable[bytes]]

    return Server(answering, read_request)


class Certificates:
    """An authority and the certificates that it signed, each as the TLS context of a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "index.txt").touch()
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(CA_CONFIG.format(folder=folder))
        self._openssl(
            "req", "-x509", *self._new("ca"), "-subj", "/CN=Test authority", "-days", "2", "-out", folder / "ca.pem"
        )
        self.ca_file = str(folder / "ca.pem")

    def _openssl(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60, cwd=self.folder)

    def _new(self, name: str) -> list[object]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        return [*curve, "-nodes", "-keyout", self.folder / f"{name}.key"]

    def signed(
        self, name: str, names: str = "DNS:localhost,IP:127.0.0.1", begins: float = -1, ends: float = 30
    ) -> ssl.SSLContext:
        """A server's context with a certificate for `names`, valid from `begins` to `ends` days from now."""
        self._openssl(
            "req", "-new", *self._new(name), "-config", "ca.cnf", "-subj", f"/CN={name}",
            "-addext", f"subjectAltName={names}", "-out", f"{name}.csr",
        )  # fmt: skip
        now = datetime.now(UTC)
        start, end = (f"{now + timedelta(days=days):%y%m%d%H%M%SZ}" for days in (begins, ends))
        self._openssl(
            "ca", "-batch", "-notext", "-config", "ca.cnf", "-startdate", start, "-enddate", end,
            "-in", f"{name}.csr", "-out", f"{name}.pem",
        )  # fmt: skip
        return self._context(name)

    def self_signed(self, name: str) -> ssl.SSLContext:
        self._openssl(
            "req", "-x509", *self._new(name), "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
            "-days", "5", "-out", f"{name}.pem",
        )  # fmt: skip
        return self._context(name)

    def _context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))
