"""Our HTTP probe against Debian's blackbox_exporter: the same targets, the same metrics, the same values."""

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog
import trio

from sixfbd.world import EngineClock, HttpOutbound
from sixfbd_plugins.checks.probe.tls import TlsOptions
from sixfbd_plugins.checks.probe.trail import PHASES
from sixfbd_plugins.checks.webhook import WebhookCheck, WebhookOptions

BLACKBOX = shutil.which("prometheus-blackbox-exporter") or shutil.which("blackbox_exporter")

COMPARED = (
    "probe_success", "probe_http_status_code", "probe_http_redirects", "probe_http_ssl", "probe_http_version",
    "probe_http_content_length", "probe_http_uncompressed_body_length", "probe_failed_due_to_regex", "probe_ip_protocol",
    "probe_ssl_earliest_cert_expiry",
)  # fmt: skip

# Names of blackbox's modules, with its options and ours.
HTTP = {"preferred_ip_protocol": "ip4", "valid_http_versions": ["HTTP/1.1", "HTTP/2.0"]}
MODULES = {
    "plain": (HTTP, {}),
    "must_match": ({**HTTP, "fail_if_body_not_matches_regexp": ["Tickets"]}, {"body_must_match": ("Tickets",)}),
    "must_not_match": ({**HTTP, "fail_if_body_matches_regexp": ["f.ne"]}, {"body_must_not_match": ("f.ne",)}),
    "no_redirects": ({**HTTP, "follow_redirects": False, "valid_status_codes": [302]},
                     {"follow_redirects": False, "expected_status": (302,)}),
    "teapot": ({**HTTP, "valid_status_codes": [418]}, {"expected_status": (418,)}),
    "insecure": ({**HTTP, "tls_config": {"insecure_skip_verify": True}}, {"tls": TlsOptions(insecure_skip_verify=True)}),
    "post": ({**HTTP, "method": "POST", "body": "hello", "valid_status_codes": [201]},
             {"method": "POST", "body": "hello", "expected_status": (201,)}),
}  # fmt: skip

pytestmark = pytest.mark.xdist_group("blackbox")  # one for all of them


class Site(BaseHTTPRequestHandler):
    """The targets' site; HTTP/1.1 with a length for every body."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/hop":
            self._answer(302, b"moved", Location="/fine")
        elif self.path == "/loop":
            self._answer(302, b"", Location="/loop")
        else:
            self._answer({"/teapot": 418, "/broken": 500}.get(self.path, 200), b"all is fine")

    def do_POST(self) -> None:
        self._answer(201, self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""


class Server(ThreadingHTTPServer):
    """The site's server; a client that refuses its certificate is no error worth a traceback."""

    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site in plain HTTP and in TLS with a self-signed certificate: their ports."""
    folder = tmp_path_factory.mktemp("site")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=x", "-days", "3"]
    subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "crt"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "crt", folder / "key")
    servers = [Server(("127.0.0.1", 0), Site) for _ in range(2)]
    servers[1].socket = tls.wrap_socket(servers[1].socket, server_side=True, do_handshake_on_connect=False)
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield {"http": servers[0].server_port, "https": servers[1].server_port}
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def blackbox(tmp_path_factory):
    """A blackbox_exporter of our own: its address."""
    if BLACKBOX is None:
        pytest.fail(
            "blackbox_exporter is needed to compare with, and is missing: apt install prometheus-blackbox-exporter"
        )
    config = {"modules": {name: {"prober": "http", "http": theirs} for name, (theirs, _) in MODULES.items()}}
    path: Path = tmp_path_factory.mktemp("blackbox") / "blackbox.yml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [BLACKBOX, f"--config.file={path}", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/-/healthy", time.monotonic() + 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(url: str, until: float) -> None:
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


class RealContext:
    """`sixfbd.plugin.Context` over the real clock, real threads and real outbound HTTP."""

    name, site, version, read = "shop", "workshop", "0.1.0", None

    def __init__(self) -> None:
        self.log = structlog.get_logger("test")
        self.http = HttpOutbound("check.shop", ssl.create_default_context)
        self.clock = EngineClock()

    async def to_thread(self, fn, *args):
        return await trio.to_thread.run_sync(partial(fn, *args), abandon_on_cancel=True)


async def ours(url: str, module: str) -> dict[str, float]:
    context = RealContext()
    report = await WebhookCheck(WebhookOptions(url=url, **MODULES[module][1]), context).run(None)
    await context.http.close()
    return {sample.metric: float(sample.value) for sample in report.samples if sample.metric in COMPARED}


def exposition(blackbox: str, url: str, module: str) -> list[str]:
    query = urllib.parse.urlencode({"target": url, "module": module})
    with urllib.request.urlopen(f"{blackbox}/probe?{query}", timeout=30) as answer:
        return answer.read().decode().splitlines()


def theirs(blackbox: str, url: str, module: str) -> dict[str, float]:
    lines = exposition(blackbox, url, module)
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(values[name]) for name in COMPARED if name in values}


@pytest.mark.parametrize(("scheme", "path", "module", "success"), [
    ("http", "/fine", "plain", 1),
    ("http", "/broken", "plain", 0),
    ("http", "/teapot", "teapot", 1),
    ("http", "/hop", "plain", 1),
    ("http", "/hop", "no_redirects", 1),
    ("http", "/fine", "must_match", 0),
    ("http", "/fine", "must_not_match", 0),
    ("http", "/echo", "post", 1),
    ("https", "/hop", "insecure", 1),
])  # fmt: skip
async def test_a_probe_measures_what_blackbox_exporter_measures(site, blackbox, scheme, path, module, success):
    url = f"{scheme}://127.0.0.1:{site[scheme]}{path}"
    expected = await trio.to_thread.run_sync(theirs, blackbox, url, module)
    assert expected["probe_success"] == success
    found = await ours(url, module)
    if (
        module == "no_redirects"
    ):  # blackbox_exporter counts the redirect that it does not follow and reads no body of it
        for name in ("probe_http_redirects", "probe_http_uncompressed_body_length"):
            del found[name], expected[name]
    assert found == expected


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "https://127.0.0.1:{https}/fine", "http://127.0.0.1:{http}/loop"]
)
async def test_a_probe_that_cannot_be_made_fails_as_blackbox_exporters_does(site, blackbox, url):
    url = url.format(**site)
    expected = await trio.to_thread.run_sync(theirs, blackbox, url, "plain")
    found = await ours(url, "plain")
    same = ("probe_success", "probe_http_ssl", "probe_failed_due_to_regex")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert found["probe_success"] == 0


async def test_the_phases_are_blackbox_exporters_phases(site, blackbox):
    url = f"http://127.0.0.1:{site['http']}/fine"
    prefix = 'probe_http_duration_seconds{phase="'
    lines = await trio.to_thread.run_sync(exposition, blackbox, url, "plain")
    expected = {line.removeprefix(prefix).partition('"')[0] for line in lines if line.startswith(prefix)}
    assert set(PHASES) == expected
