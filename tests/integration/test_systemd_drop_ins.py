"""The drop-ins of packaging/systemd: systemd takes them, they cost what they say, and the daemon does what they are for."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from sixfbd.plugin import TemporaryFailure
from sixfbd.proxies import Proxies, ProxyError
from sixfbd.world import RealWorld
from tests.integration.checks.conftest import certificates

__all__ = ["certificates"]

PACKAGING = Path(__file__).parents[2] / "packaging"
SYSTEMD = PACKAGING / "systemd"
EXAMPLES = sorted(SYSTEMD.glob("*.conf.example"))
HOST = "shop.example.com"


def variables(name: str) -> dict[str, str]:
    """Return what an example sets in the environment."""
    text = (SYSTEMD / f"{name}.conf.example").read_text()
    return dict(line.split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("example", EXAMPLES, ids=[one.name for one in EXAMPLES])
def test_systemd_takes_it_and_the_unit_is_as_exposed_as_it_says(example, tmp_path):
    unit = tmp_path / "sixfbd.service"
    unit.write_text(re.sub(r"/opt/sixfbd/bin/\w+", "/bin/true", (SYSTEMD / "sixfbd.service").read_text()))
    before = exposure(unit)
    text = example.read_text()
    place = re.match(r"# To /etc/systemd/system/(sixfbd\.service\.d/\S+\.conf): ", text)
    assert place is not None, "its first line says where it goes"
    (tmp_path / place[1]).parent.mkdir()
    shutil.copy(example, tmp_path / place[1])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    costs = re.search(r"It costs ([\d.]+) of `systemd-analyze security`", text)
    assert exposure(unit) == pytest.approx(before + (float(costs[1]) if costs else 0.0))


def exposure(unit: Path) -> float:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True, timeout=60, check=False
    )
    return float(re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)[-1])


def test_the_package_and_the_manual_know_every_one():
    build, manual = (PACKAGING / "build_deb.py").read_text(), (PACKAGING.parent / "man" / "sixfbd.8").read_text()
    assert '"systemd").glob("*.example")' in build
    for example in EXAMPLES:
        assert example.name in manual


# ---- what they are for: an authority of one's own, and a proxy ----------------------------------------------------------


async def answer(stream: trio.abc.Stream) -> bytes:
    """Read one request, answer it, return it."""
    head = b""
    while b"\r\n\r\n" not in head and (more := await stream.receive_some(4096)):
        head += more
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
    return head


@pytest.fixture
async def listening(nursery):
    """Serve connections by a function until the test ends; return the port."""

    async def listen(handle: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
        [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        return int(listener.socket.getsockname()[1])

    return listen


async def tls_shop(listening, context: ssl.SSLContext) -> int:
    async def shop(stream: trio.SocketStream) -> None:
        secure = trio.SSLStream(stream, context, https_compatible=True, server_side=True)
        try:
            await answer(secure)
        except trio.BrokenResourceError:
            await stream.aclose()  # whoever does not trust us leaves in the middle of the handshake

    return int(await listening(shop))


async def test_an_authority_of_ones_own_is_trusted_where_the_drop_in_names_it(certificates, listening, monkeypatch):
    port = await tls_shop(listening, certificates.signed("drop-in"))
    async with RealWorld() as world:
        with pytest.raises(TemporaryFailure, match="the certificate is not trusted: unable to get local issuer"):
            await world.outbound("shop").request("GET", f"https://localhost:{port}/")
    [name] = variables("ca")
    monkeypatch.setenv(name, certificates.ca_file)
    async with RealWorld() as world:
        assert (await world.outbound("shop").request("GET", f"https://localhost:{port}/")).text == "fine"


class ConnectProxy:
    """A proxy that opens tunnels to one port, whatever is asked for, or refuses to."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heads: list[str] = []
        self.refuses = False

    async def __call__(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (more := await stream.receive_some(4096)):
            head += more
        self.heads.append(head.decode())
        if self.refuses:
            await stream.send_all(b"HTTP/1.1 403 Not through me\r\nContent-Length: 0\r\n\r\n")
            return
        if not head.startswith(b"CONNECT "):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nforwarded")
            return
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as far:
            await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with trio.open_nursery() as both:
                both.start_soon(self._pass, stream, far)
                both.start_soon(self._pass, far, stream)

    async def _pass(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        try:
            while some := await source.receive_some(65536):
                await sink.send_all(some)
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.aclose()


@pytest.fixture
async def proxied(certificates, listening, monkeypatch):
    """A proxy as the example names it, with a shop behind it; NAMES are those of the example."""
    proxy = ConnectProxy(await tls_shop(listening, certificates.signed("proxied", f"DNS:{HOST}")))
    port = await listening(proxy)
    found = variables("proxy")
    assert found.keys() == {"HTTPS_PROXY", "NO_PROXY"}
    for name, value in found.items():
        monkeypatch.setenv(name, value.replace("http://proxy.example.com:3128", f"http://127.0.0.1:{port}"))
    monkeypatch.setenv("SSL_CERT_FILE", certificates.ca_file)
    return proxy


async def test_who_is_outside_is_asked_through_the_proxy_that_the_drop_in_names(proxied):
    async with RealWorld() as world:
        for _ in range(2):
            assert (await world.outbound("shop").request("GET", f"https://{HOST}/orders")).text == "fine"
    assert [head.split("\r\n")[0] for head in proxied.heads] == [f"CONNECT {HOST}:443 HTTP/1.1"] * 2


async def test_loopback_and_what_no_proxy_names_are_asked_directly(proxied, certificates, listening):
    port = await tls_shop(listening, certificates.signed("direct"))
    async with RealWorld() as world:
        outbound = world.outbound("shop")
        for host in ("localhost", "127.0.0.1"):
            assert (await outbound.request("GET", f"https://{host}:{port}/")).text == "fine"
        for address in ("https://192.0.2.7:1/", "https://below.example.net:1/"):
            with pytest.raises(TemporaryFailure) as failure:
                await outbound.request("GET", address, timeout_s=0.5)
            assert not failure.value.sent
    assert proxied.heads == []


async def test_a_proxy_that_refuses_is_named_and_nothing_was_sent(proxied):
    proxied.refuses = True
    async with RealWorld() as world:
        with pytest.raises(TemporaryFailure, match=r"^the proxy: 403 Not through me") as failure:
            await world.outbound("shop").request("POST", f"https://{HOST}/", json={"a": 1})
    assert not failure.value.sent


async def test_a_password_is_for_the_proxy_alone_and_plain_http_is_forwarded(proxied, monkeypatch, listening):
    port = await listening(proxied)
    monkeypatch.setenv("http_proxy", f"http://user:s%40cret@127.0.0.1:{port}")
    async with RealWorld() as world:
        assert (await world.outbound("shop").request("GET", f"http://{HOST}/orders")).text == "forwarded"
    [head] = proxied.heads
    assert head.startswith(f"GET http://{HOST}/orders HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpzQGNyZXQ=" in head


@pytest.mark.parametrize(
    "value", ["proxy.example.com:3128", "socks5://user:secret@proxy.example.com", "http://", "http:///3128"]
)
def test_what_is_no_address_of_a_proxy_is_named_by_its_variable_and_not_shown(monkeypatch, value):
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ProxyError, match=r"^HTTPS_PROXY is not the address of a proxy; write it as http://") as fault:
        Proxies.of_environment()
    assert "secret" not in str(fault.value)
