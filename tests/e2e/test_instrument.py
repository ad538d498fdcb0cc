"""The examples that a shop tells us of itself by: what they send while the daemon is there, and what becomes of the shop while
it is not. Real shops (Node.js, hypercorn, a shell) and a real daemon, which is down at first."""

import importlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
import trio

from tests.e2e.conftest import Daemon, wait_for

pytestmark = pytest.mark.xdist_group("instrument")

INSTRUMENT = Path(__file__).parents[2] / "etc" / "examples" / "instrument"
REQUESTS = 40
PATIENCE_S = 4.0  # less than the examples wait for an answer: whoever waits for the daemon even once is slower

NODE_SHOP = """
const http = require("node:http");
const sixfbd = require(process.argv[2]).instrument({ most: Number(process.argv[3]) });
const answer = (status) => (request, response) => { response.statusCode = status; response.end("fine"); };
const sale = (orderId) => ({ orderId, cityId: "node", tier: "ga", quantity: 1, amount: 15000, currency: "usd" });
const page = sixfbd.handler(answer(200)); // as of pages/api
const route = sixfbd.route(async (request) => { // as of app/.../route.js
  if (request.url.endsWith("/throws")) throw new Error("boom");
  return new Response("fine", { status: 201 });
});
const odd = { toJSON() { throw new Error("cannot be written"); } };
const server = http.createServer((request, response) => {
  if (request.url === "/plain") return answer(200)(request, response);
  if (request.url.startsWith("/page")) return page(request, response);
  if (request.url.startsWith("/route")) {
    return route(new Request(`http://shop${request.url}`)).then(
      (made) => answer(made.status)(request, response), () => answer(500)(request, response));
  }
  sixfbd.middleware(request, response, () => { // as of Express
    if (request.url === "/sale") { sixfbd.sale(sale("N-1")); sixfbd.sale(sale("N-1")); }
    if (request.url === "/odd") { sixfbd.event("odd", odd); sixfbd.event("odd", { big: "x".repeat(1e6) }); sixfbd.sale(null); }
    if (request.url === "/leaves") return; // the one who asks leaves first
    answer(request.url === "/fails" ? 503 : 200)(request, response);
  });
}).listen(0, "127.0.0.1", () => console.log(server.address().port));
"""
ASGI_SHOP = """
import sys
sys.path.insert(0, {folder!r})
from sixfbd_asgi import RequestsToSixfbd, Sixfbd

sixfbd = Sixfbd(most={most})

async def shop(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/throws":
        raise RuntimeError("boom")
    if scope["path"] == "/sale":
        for _ in range(2):
            sixfbd.sale(orderId="A-1", cityId="asgi", tier="ga", quantity=1, amount=15000, currency="usd")
    if scope["path"] == "/odd":
        sixfbd.event("odd", {{"never": float("nan")}})
        sixfbd.event("odd", {{"never": object()}})
        sixfbd.event("odd", {{"big": "x" * 10**6}})
    await send({{"type": "http.response.start", "status": 503 if scope["path"] == "/fails" else 200}})
    await send({{"type": "http.response.body", "body": b"fine"}})

told = RequestsToSixfbd(shop, sixfbd)

async def app(scope, receive, send):
    await (shop if scope.get("path") == "/plain" else told)(scope, receive, send)
"""


@contextmanager
def running(command: list[str], env: Mapping[str, str], folder: Path, pattern: str) -> Iterator[str]:
    """Run a shop; yield its address once it has said its port."""
    log = folder / "shop.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=folder, env={**os.environ, **env}, start_new_session=True
        )
    try:
        found = wait_for("the shop has a port", lambda: re.search(pattern, log.read_text()))
        yield f"http://127.0.0.1:{found[1]}"
        assert process.poll() is None, f"the shop ended:\n{log.read_text()}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def node(folder: Path, env: Mapping[str, str], most: int = 10_000) -> "contextmanager[str]":
    (folder / "shop.js").write_text(NODE_SHOP)
    command = [shutil.which("node") or "node", "shop.js", str(INSTRUMENT / "sixfbd.js"), str(most)]
    return running(command, env, folder, r"^(\d+)\n")


def asgi(folder: Path, env: Mapping[str, str], most: int = 10_000) -> "contextmanager[str]":
    (folder / "shop.py").write_text(ASGI_SHOP.format(folder=str(INSTRUMENT), most=most))
    command = [
        sys.executable,
        "-m",
        "hypercorn",
        "shop:app",
        "--bind",
        "127.0.0.1:0",
        "--workers",
        "0",
    ]  # in this process
    return running(command, env, folder, r"http://127.0.0.1:(\d+)")


SHOPS: Mapping[str, Callable[..., "contextmanager[str]"]] = {"node": node, "asgi": asgi}


def median_s(url: str, path: str, count: int = REQUESTS) -> float:
    """Return how long a shop takes to answer, of so many times."""
    took = []
    with httpx.Client(timeout=30) as client:
        for number in range(count):
            began = time.perf_counter()
            client.get(f"{url}{path}".format(number=number))
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def send_event(spool: Path, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INSTRUMENT / "send-event.sh", *arguments],
        env={**os.environ, **env, "SIXFBD_SPOOL": str(spool)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Mapping[str, tuple[float, float]]]]:
    """A daemon that came up after the shops had told of their requests, and by shop how long they took to answer: without
    the example, with it."""
    folder = tmp_path_factory.mktemp("instrument")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    daemon = Daemon(folder / "run")
    daemon.edit('listen = "127.0.0.1:0"', f'listen = "{listen}"')
    env = {"SIXFBD_URL": f"http://{listen}", "SIXFBD_TOKEN": daemon.token}
    took = {}
    with ExitStack() as shops:
        for name, shop in SHOPS.items():
            (folder / name).mkdir()
            url = shops.enter_context(shop(folder / name, env))
            took[name] = median_s(url, "/plain"), median_s(url, f"/{name}/{{number}}?email=ann@example.com")
            for path in ("/sale", "/odd", "/fails"):
                httpx.get(url + path, timeout=30)
            if name == "asgi":
                httpx.get(url + "/throws", timeout=30)
                continue
            for path in ("/page/1", "/route/1", "/route/throws"):
                httpx.get(url + path, timeout=30)
            with pytest.raises(httpx.ReadTimeout):
                httpx.get(url + "/leaves", timeout=0.2)
        (folder / "few").mkdir()
        few = shops.enter_context(node(folder / "few", env, most=5))
        median_s(few, "/few")
        httpx.get(few + "/fails", timeout=30)
        for number in range(2):
            data = '{"orderId": "S-%d", "cityId": "shell", "tier": "ga", "quantity": 1,\n "amount": 15000, "currency": "usd"}'
            assert send_event(folder / "spool", env, "ticket_sale", data % number).returncode == 0
        daemon.start()
        assert send_event(folder / "spool", env, "registration").returncode == 0
        yield daemon, took
    daemon.stop()


def value(daemon: Daemon, expression: str) -> float:
    """Return what an expression is now; 0 if it is nothing."""
    answer = httpx.get(f"{daemon.url}/api/v1/query", params={"query": f"sum({expression})"}, timeout=10)
    found = answer.json()["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


@pytest.mark.parametrize("name", SHOPS)
def test_a_shop_answers_as_fast_while_the_daemon_is_down(told, name):
    without, with_example = told[1][name]
    assert with_example < without + 0.02


@pytest.mark.parametrize("name", SHOPS)
def test_what_a_shop_told_while_the_daemon_was_down_is_there_once_it_is_back_each_once(told, name):
    daemon, _ = told
    wait_for("all requests", lambda: value(daemon, f'http_path_requests_total{{path="/{name}/:id"}}') == REQUESTS)
    wait_for("the sale", lambda: value(daemon, f'workshop_city_tickets_sold_total{{city="{name}"}}') == 1)


def test_what_fails_or_throws_is_a_request_that_failed_and_who_leaves_is_counted_too(told):
    daemon, _ = told
    for path, status in (("/fails", "5xx"), ("/throws", "5xx"), ("/route/throws", "5xx"), ("/leaves", "4xx")):
        failed = f'http_path_requests_total{{path="{path}",class="{status}"}}'
        wait_for(f"{path}, {status}", lambda asked=failed: value(daemon, asked) >= 1)
    wait_for("a page", lambda: value(daemon, 'http_path_requests_total{path="/page/:id",class="2xx"}') == 1)
    wait_for("a route", lambda: value(daemon, 'http_path_requests_total{path="/route/:id",class="2xx"}') == 1)


def test_the_heap_of_node_is_in_the_report_of_the_system(told):
    daemon, _ = told
    wait_for("the heap", lambda: value(daemon, "nodejs_memory_heap_used_bytes") > 1e6)
    node_part = httpx.get(f"{daemon.url}/api/monitoring/system", timeout=10).text
    assert '"heapUsed":null' not in node_part.replace(" ", "")


def test_what_found_no_room_and_what_cannot_be_sent_is_counted(told):
    daemon, _ = told
    # 41 requests with room for 5, two odd events and a sale of nothing of Node.js, three odd events of ASGI.
    wait_for("what was dropped", lambda: value(daemon, "workshop_events_dropped_total") == (REQUESTS + 1 - 5) + 3 + 3)


def test_the_shells_events_wait_in_files_and_arrive_each_once(told):
    daemon, _ = told
    wait_for("the sales", lambda: value(daemon, 'workshop_city_tickets_sold_total{city="shell"}') == 2)
    wait_for("the registration", lambda: value(daemon, "workshop_registrations_total") == 1)


def test_nothing_of_who_asked_is_sent(told):
    daemon, _ = told
    listed = httpx.get(
        f"{daemon.url}/api/events",
        params={"type": "request", "limit": 1000},
        headers={"Authorization": f"Bearer {daemon.token}"},
        timeout=10,
    ).text
    assert "/node/1" in listed
    assert "ann@" not in listed and "python-httpx" not in listed


@pytest.mark.parametrize(
    ("path", "status"), [("/answers", 204), ("/is-left", 499), ("/throws", 500), ("/says-nothing", 500)]
)
async def test_the_middleware_for_asgi_tells_how_a_request_ended(monkeypatch, path, status):
    monkeypatch.syspath_prepend(str(INSTRUMENT))
    module = importlib.import_module("sixfbd_asgi")

    class Told(list):
        def event(self, kind, data):
            self.append((kind, data["path"], data["statusCode"]))

    async def shop(scope, receive, send):
        if scope["path"] == "/answers":
            await send({"type": "http.response.start", "status": 204})
        elif scope["path"] == "/is-left":
            await trio.sleep_forever()
        elif scope["path"] == "/throws":
            raise RuntimeError("boom")

    async def send(message):
        await trio.lowlevel.checkpoint()

    told = Told()
    with trio.move_on_after(0.05), suppress(RuntimeError):
        await module.RequestsToSixfbd(shop, told)({"type": "http", "path": path, "method": "GET"}, None, send)
    assert told == [("request", path, status)]


@pytest.fixture(scope="module")
def silent() -> Iterator[Mapping[str, str]]:
    """What takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        yield {"SIXFBD_URL": f"http://127.0.0.1:{server.getsockname()[1]}", "SIXFBD_TOKEN": "token"}


@pytest.mark.parametrize("name", SHOPS)
def test_no_request_waits_for_a_daemon_that_hangs(silent, tmp_path, name):
    with SHOPS[name](tmp_path, silent) as url:
        began = time.monotonic()
        median_s(url, "/a", 5 * REQUESTS)
        assert time.monotonic() - began < PATIENCE_S


def test_the_shell_returns_at_once_from_a_daemon_that_hangs_and_drops_what_finds_no_room(silent, tmp_path):
    spool = tmp_path / "spool"
    began = time.monotonic()
    assert send_event(spool, silent, "registration", "{}").returncode == 0
    assert time.monotonic() - began < PATIENCE_S
    with (spool / "waiting").open("a") as waiting:
        waiting.write("{}\n" * 1000)
    done = send_event(spool, silent, "registration", "{}")
    assert done.returncode == 0 and "this one is dropped" in done.stderr
