"""Two whole daemons of the same configuration, etc/examples/several.toml, and a real Alertmanager cluster of two: people are told
once, though a node of the cluster is killed, and then a daemon."""

import itertools
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.bench.processes import free_port
from tests.e2e.conftest import Daemon, wait_for
from tests.integration.checks.test_check_alertmanager import node

SEVERAL = (Path(__file__).parents[2] / "etc" / "examples" / "several.toml").read_text()
LATE_S = 4.0  # longer than one node waits for the other: whoever tells twice has done so by then
RULE = """
[[rules]]
name = "ShopDown"
expr = 'probe_success == 0'
severity = "high"
annotations = { summary = "{{ $labels.instance }} does not answer" }

[[rules]]
name = "ProbeFailed"
enabled = false
"""


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "second")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


def watches(daemon: Daemon, target: Any, peers: list[int]) -> None:
    """Give a daemon the example's cluster, on the ports that it has here."""
    table = SEVERAL[SEVERAL.index("[checks.alertmanager]") :]
    for number, port in enumerate(peers, 1):
        table = table.replace(f"am{number}.example.com:9093", f"127.0.0.1:{port}")
    assert "example.com" not in re.sub("#.*", "", table)
    daemon.add("60-cluster.toml", table + '\ninterval = "1s"\ntimeout = "900ms"\n')
    daemon.add("50-rule.toml", RULE)
    daemon.probe(target)


@pytest.mark.xdist_group("alertmanager")
def test_people_are_told_once_though_a_node_is_killed_and_then_a_daemon(daemon, second, target, receiver, tmp_path):
    ports, gossip = [free_port(), free_port()], [free_port(), free_port()]

    def told(*expected: str) -> None:
        wait_for(f"{expected[-1]} is told", lambda: len(statuses()) >= len(expected), 60.0)
        until = time.monotonic() + LATE_S
        wait_for("it is late enough", lambda: time.monotonic() > until)
        assert statuses() == list(expected)

    def statuses() -> list[str]:
        return [one["status"] for one in receiver.payloads() if one["groupLabels"]["alertname"] == "ShopDown"]

    def fires(one: Daemon) -> bool:
        return any(alert["labels"]["alertname"] == "ShopDown" for alert in one.ctl("alerts"))

    with ExitStack() as stack:
        nodes = [
            stack.enter_context(node(tmp_path / f"n{n}", ports[n], gossip[n], gossip[1 - n], receiver.url))
            for n in range(2)
        ]
        for one in (daemon, second):
            watches(one, target, ports)
            one.start()
        with target.down():
            wait_for("both see it", lambda: fires(daemon) and fires(second))
            told("firing")
            nodes[0].kill()
        wait_for("both see its end", lambda: not fires(daemon) and not fires(second))
        told("firing", "resolved")
        daemon.kill()
        with target.down():
            wait_for("the other one sees it", lambda: fires(second))
            told("firing", "resolved", "firing")
    labels = [one["commonLabels"] for one in receiver.payloads() if one["groupLabels"]["alertname"] == "ShopDown"]
    assert all(a == b for a, b in itertools.pairwise(labels)), json.dumps(labels)
