"""The example for Node.js in real shops of Express and Next.js, and a real daemon that they tell of their requests and sales."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import Daemon, wait_for

pytestmark = pytest.mark.xdist_group("instrument")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "etc" / "examples" / "instrument" / "sixfbd.js"
MODULES = ROOT / ".node" / "node_modules"
NEEDED = "Node.js 20.19 or newer with npm (https://nodejs.org/, Debian: apt install nodejs npm), then ./run test"
SALE = '{ orderId: "%s", cityId: "dallas", tier: "ga", quantity: 2, amount: 5000, currency: "usd" }'

EXPRESS: Mapping[str, str] = {
    "shop.js": f"""
const express = require("express");
const sixfbd = require("./sixfbd").instrument();
const app = express();
app.use(sixfbd.middleware);
app.get("/api/events/:city", (request, response) => response.json({{ city: request.params.city }}));
app.post("/buy", (request, response) => {{ sixfbd.sale({SALE % "E-1"}); response.status(201).end(); }});
app.get("/fails", () => {{ throw new Error("boom"); }});
app.use((error, request, response, next) => response.status(500).end());
const server = app.listen(0, "127.0.0.1", () => console.log(`port ${{server.address().port}}`));
""",
}
NEXT: Mapping[str, str] = {
    "shop.js": 'module.exports = require("./sixfbd").instrument();\n',
    "app/layout.js": "export default ({ children }) => <html><body>{children}</body></html>;\n",
    "app/page.js": "export default () => <p>fine</p>;\n",
    "app/buy/route.js": f"""
import sixfbd from "../../shop";
export const POST = sixfbd.route(async () => {{ sixfbd.sale({SALE % "N-1"}); return Response.json({{}}, {{ status: 201 }}); }});
""",
    "app/fails/route.js": """
import sixfbd from "../../shop";
export const dynamic = "force-dynamic";
export const GET = sixfbd.route(async () => { throw new Error("boom"); });
""",
    "pages/api/events/[city].js": """
import sixfbd from "../../../shop";
export default sixfbd.handler((request, response) => response.json({ city: request.query.city }));
""",
}


def made(folder: Path, files: Mapping[str, str]) -> Path:
    assert (MODULES / "express").is_dir(), f"no Express and Next.js: {NEEDED}"
    for name, text in {**files, "sixfbd.js": EXAMPLE.read_text()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "node_modules").symlink_to(MODULES)
    return folder


@contextmanager
def serving(folder: Path, daemon: Daemon, *command: str) -> Iterator[str]:
    """Run a shop that knows the daemon; yield its address once it has said its port."""
    token = daemon.ctl("token", "create", "shop", "--scope", "events")["token"]
    env = {**os.environ, "SIXFBD_URL": daemon.url, "SIXFBD_TOKEN": token, "NEXT_TELEMETRY_DISABLED": "1"}
    said = folder / "said"
    with said.open("wb") as out:
        shop = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        port = wait_for("the shop has a port", lambda: re.search(r"(?:port |127\.0\.0\.1:)(\d+)", said.read_text()))
        yield f"http://127.0.0.1:{port[1]}"
        assert shop.poll() is None, said.read_text()
    finally:
        if shop.poll() is None:
            os.killpg(shop.pid, signal.SIGKILL)
        shop.wait(10)


def visit(shop: str, paths: Mapping[str, str]) -> list[int]:
    with httpx.Client(base_url=shop, timeout=20, trust_env=False) as client:
        wait_for("the shop answers", lambda: answers(client))
        return [client.request(method, path).status_code for path, method in paths.items()]


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/nothing").status_code == 404
    except httpx.TransportError:
        return False


def told(daemon: Daemon, kind: str) -> list[dict[str, object]]:
    events = httpx.get(f"{daemon.url}/api/events", params={"type": kind, "limit": 100}, trust_env=False).json()
    return [one["data"] for one in events["data"]["events"]]


def check(daemon: Daemon, shop: str, order: str) -> None:
    """Visit a shop, and find each request and the sale with the daemon."""
    assert visit(shop, {"/api/events/dallas?a=b": "GET", "/buy": "POST", "/fails": "GET"}) == [200, 201, 500]
    wait_for("the requests are told", lambda: len(told(daemon, "request")) >= 3)
    requests = {(one["method"], one["path"], one["statusCode"]) for one in told(daemon, "request")}
    assert requests >= {("GET", "/api/events/dallas", 200), ("POST", "/buy", 201), ("GET", "/fails", 500)}
    [sale] = wait_for("the sale is told", lambda: told(daemon, "ticket_sale"))
    assert (sale["orderId"], sale["quantity"], sale["amount"]) == (order, 2, 5000)


def test_a_shop_of_express_tells_of_its_requests_and_sales(daemon, tmp_path):
    daemon.start()
    with serving(made(tmp_path / "shop", EXPRESS), daemon, "node", "shop.js") as shop:
        check(daemon, shop, "E-1")


def test_a_shop_of_next_is_built_without_a_token_and_tells_of_its_requests_and_sales(daemon, tmp_path):
    folder = made(tmp_path / "shop", NEXT)
    env = {name: value for name, value in os.environ.items() if not name.startswith("SIXFBD_")}
    command = [shutil.which("node") or "node", str(MODULES / "next" / "dist" / "bin" / "next")]
    built = subprocess.run(
        [*command, "build"], cwd=folder, env={**env, "NEXT_TELEMETRY_DISABLED": "1"}, capture_output=True, text=True,
        timeout=180, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    daemon.start()
    with serving(folder, daemon, *command, "start", "--hostname", "127.0.0.1", "--port", "0") as shop:
        check(daemon, shop, "N-1")
