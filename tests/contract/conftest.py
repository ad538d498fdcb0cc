"""Providers' OpenAPI documents, each behind a Prism that judges requests by it, and a way out that listens to what plugins say.

The documents are no part of the project: $SIXFBD_SPECS names their folder, or they lie in ../shared/specs beside the clone.
Prism is what `./run test` installed by `package-lock.json`. A provider is a test module that says `PROVIDER = "..."`, and an
entry in PROVIDERS.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from sixfbd.plugin import Outbound
from sixfbd.world import HttpOutbound
from tests.contract.documents import Document, Exchange, Json, merged, prism_says

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PRISM = ROOT / ".node" / "node_modules" / ".bin" / "prism"
START_LIMIT_S = 240.0  # Stripe's takes ten seconds of a free core
STOP_LIMIT_S = 20.0
NEEDED = "Node.js 20.19 or newer with npm (https://nodejs.org/, Debian: apt install nodejs npm), then ./run test"

PROVIDERS: dict[str, tuple[str, str, bool]] = {
    # provider: its document, what we add to it from its documentation, whether its answers have all that is named
    "sendgrid": ("sendgrid_mail_v3.patched.json", "", False),
    "stripe": ("stripe_v1.trim.json", "", False),
    "twilio": ("twilio_api_v2010.trim.json", "twilio_messaging_v1.json", True),
}


def specs() -> Path:
    """Return the folder of the documents; without one a test is skipped, in CI it fails."""
    named = os.environ.get("SIXFBD_SPECS")
    folder = Path(named) if named else ROOT.parent / "shared" / "specs"
    if not folder.is_dir():
        missing = f"no OpenAPI documents at {folder}: SIXFBD_SPECS names the folder that holds them"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return folder


class Contract:
    """One provider's document, and the Prism that judges requests by it. `requests` and `answers` say what does not fit."""

    def __init__(self, tree: Json, whole: bool, folder: Path) -> None:
        self.document = Document(tree, whole=whole)
        self._folder = folder
        path = folder / "document.json"
        path.write_text(json.dumps(tree))  # in the document's order: Prism answers with the first example
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        command = [PRISM, "mock", "-h", "127.0.0.1", "-p", str(self._port), "-v", "error", path]
        with (folder / "prism.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait(self) -> None:
        until = time.monotonic() + START_LIMIT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
                return
            except OSError as error:
                said = (self._folder / "prism.log").read_text()
                if self._process.poll() is not None:
                    pytest.fail(f"Prism ended with {self._process.returncode}; it needs {NEEDED}:\n{said}")
                if time.monotonic() > until:
                    raise AssertionError(f"Prism is not up after {START_LIMIT_S:g} s:\n{said}") from error
                time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)

    def requests(self, exchanges: Iterable[Exchange]) -> list[str]:
        """Send requests to Prism once more; return what it has against them. Those to other documents are not asked about."""
        faults: dict[str, None] = {}
        asked = set()
        with httpx.Client(trust_env=False, timeout=60) as client:
            for exchange in exchanges:
                request = exchange.request
                faults.update(dict.fromkeys(self.document.unknown_names(request)))
                key = (request.method, request.url.raw_path, request.content)
                if key in asked:
                    continue
                asked.add(key)
                headers = {name: value for name, value in request.headers.items() if name not in ("host", "connection")}
                target = httpx.URL(self.url).copy_with(raw_path=request.url.raw_path)
                answer = client.request(request.method, target, headers=headers, content=request.content)
                faults.update((f"{said} ({exchange})", None) for said in prism_says(answer))
        return list(faults)

    def answers(self, exchanges: Iterable[Exchange]) -> list[str]:
        """Return how answers differ from what the document says of them."""
        return sorted({line for exchange in exchanges for line in self.document.deviations(exchange)})

    def asked(self, exchanges: Iterable[Exchange]) -> set[str]:
        """Return the operations that were asked for."""
        return {str(self.document.operation(exchange.request)) for exchange in exchanges}


class Listening:
    """`Outbound` that passes requests on to another one and keeps what was said."""

    def __init__(self, outbound: Outbound) -> None:
        self.exchanges: list[Exchange] = []
        self._outbound = outbound

    @property
    def ssl_context(self) -> ssl.SSLContext:
        return self._outbound.ssl_context

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        said = {name: options[name] for name in ("headers", "content", "json") if options.get(name) is not None}
        request, answer = httpx.Request(method, url, **said), None
        try:
            answer = await self._outbound.request(method, url, **options)
        finally:
            self.exchanges.append(Exchange(request, answer))
        return answer


@pytest.fixture(scope="session")
def contracts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Contract]]:
    """The contracts of all providers that this run has tests of; their mocks start side by side."""
    folder = specs()
    if shutil.which("node") is None or not PRISM.exists():
        pytest.fail(f"Prism is not installed; it needs {NEEDED}")
    wanted = {getattr(getattr(item, "module", None), "PROVIDER", None) for item in request.session.items} & set(
        PROVIDERS
    )
    made: dict[str, Contract] = {}
    try:
        for name in sorted(wanted):
            document, ours, whole = PROVIDERS[name]
            tree = json.loads((folder / document).read_text()) if document else json.loads((HERE / ours).read_text())
            if document and ours:
                tree = merged(tree, json.loads((HERE / ours).read_text()))
            made[name] = Contract(tree, whole, tmp_path_factory.mktemp(name))
        yield made
    finally:
        for contract in made.values():
            contract.stop()


@pytest.fixture(scope="module")
def contract(request: pytest.FixtureRequest, contracts: dict[str, Contract]) -> Contract:
    """The contract of this module's provider."""
    found = contracts[request.module.PROVIDER]
    found.wait()
    return found


@pytest.fixture
def listening() -> type[Listening]:
    return Listening


@pytest.fixture
async def wire() -> Any:
    """A real way out, to the mock."""
    outbound = HttpOutbound("contract", ssl.create_default_context)
    yield outbound
    await outbound.close()
    await trio.lowlevel.checkpoint()
