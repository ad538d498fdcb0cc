"""Our tree of routes against Debian's Alertmanager: the same alerts and the same random tree, the same receivers and groups.

One thing is meant to differ: of two routes that lead an alert to one receiver Alertmanager follows both and tells it twice;
here the first one counts, and the receiver is told once.
"""

import json
import random
import threading
import urllib.request
from collections import defaultdict
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from sixfbd.alerting.routes import compile_route, matching
from sixfbd.config.tables import RouteTable
from tests.bench.processes import free_port, need, started
from tests.e2e.conftest import wait_for

TREES = 4
ALERTS = 60
VALUES = {
    "team": ("web", "shop", "", "ops"),
    "city": ("dallas", "austin", "el paso", "Zürich"),
    "tier": ("ga", "vip", ""),
    "severity": ("low", "medium", "high", "critical"),
}
PATTERNS = ("web|shop", ".*", "", "d.*", "[a-e].+", "(high|critical)", "Z.rich")

pytestmark = pytest.mark.xdist_group("alertmanager")


def matcher(draw):
    name = draw.choice(tuple(VALUES))
    if draw.random() < 0.5:
        return f"{name}{draw.choice(('=', '!='))}{json.dumps(draw.choice(VALUES[name]), ensure_ascii=False)}"
    return f"{name}{draw.choice(('=~', '!~'))}{json.dumps(draw.choice(PATTERNS), ensure_ascii=False)}"


def tree(draw, depth=0):
    """A random route; the receiver is named, or left to be inherited."""
    made = {} if depth else {"receiver": "r0"}
    if depth:
        made["matchers"] = [matcher(draw) for _ in range(draw.choice((1, 1, 2)))]
        made["continue"] = draw.random() < 0.7
        if draw.random() < 0.7:
            made["receiver"] = f"r{draw.randrange(6)}"
    if draw.random() < 0.6:
        made["group_by"] = draw.choice((["team"], ["city", "tier"], ["alertname"], ["..."], ["severity", "missing"]))
    elif not depth:
        made["group_by"] = ["alertname"]
    if depth < 3:
        made["routes"] = [tree(draw, depth + 1) for _ in range(draw.choice((0, 1, 2, 3)) if depth else 4)]
    return made


def alert(draw, number):
    labels = {name: draw.choice(values) for name, values in VALUES.items()}
    labels = {"alertname": draw.choice(("Down", "Slow")), "n": str(number), **labels}
    return {name: value for name, value in labels.items() if value}


def ours(route, labels):
    """Return the receivers that an alert reaches by our tree, each with the labels of its group."""
    found = {}
    for one in matching(route, labels):
        found.setdefault(one.receiver, one.timing.group_of(one.path, labels, labels["n"])[1])
    return found


class Receivers:
    """A server that takes Alertmanager's webhooks: of each receiver and alert the groups that it came in."""

    def __init__(self):
        self.got = defaultdict(list)
        receivers = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for one in body["alerts"]:
                    receivers.got[body["receiver"], one["labels"]["n"]].append(body["groupLabels"])
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def receivers():
    made = Receivers()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join(10)
    made.server.server_close()


@pytest.mark.parametrize("seed", range(TREES))
def test_receivers_and_groups_are_alertmanagers_own(tmp_path, receivers, seed):
    draw = random.Random(seed)
    root = tree(draw)
    alerts = [alert(draw, number) for number in range(ALERTS)]
    route = compile_route(msgspec.convert(root, RouteTable))
    url = f"http://127.0.0.1:{receivers.server.server_address[1]}/"
    hooks = [{"name": f"r{n}", "webhook_configs": [{"url": url, "send_resolved": False}]} for n in range(6)]
    timed = {**root, "group_wait": "100ms", "group_interval": "1s", "repeat_interval": "1h"}
    config = tmp_path / "alertmanager.yml"
    config.write_text(json.dumps({"route": timed, "receivers": hooks}, ensure_ascii=False))  # JSON is YAML
    port = free_port()
    command = [
        need("prometheus-alertmanager", "prometheus-alertmanager"), f"--config.file={config}",
        f"--storage.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
    expected = {one["n"]: ours(route, one) for one in alerts}
    assert len({receiver for found in expected.values() for receiver in found}) > 1, "the tree leads to one receiver"
    with started(command, port, "/-/ready", tmp_path / "log"):
        now = datetime.now(UTC).isoformat()
        body = json.dumps([{"labels": one, "startsAt": now} for one in alerts]).encode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v2/alerts", body, {"Content-Type": "application/json"}
        )
        assert urllib.request.urlopen(asked, timeout=20).status == 200
        everything = {(receiver, n) for n, found in expected.items() for receiver in found}
        wait_for("all that we expect has come", lambda: everything <= set(receivers.got), 30)
    assert set(receivers.got) == everything
    for n, found in expected.items():
        for receiver, group in found.items():
            assert group in receivers.got[receiver, n], (n, receiver)
