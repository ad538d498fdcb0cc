"""Thousands of alerts at once until all are delivered, beside Alertmanager with a group for each.

Ours come of one report, in which all series go up, and are grouped as our configuration groups by default; Alertmanager's
of one post. Counted are the alerts in the webhooks, not the webhooks. The CPU is of the process until a moment after the
last webhook. Each pass starts both anew.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench.alerts import RECEIVERS
from tests.bench.loopback import Stamps, WebhookReceiver, receiving, stamped
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, row, take_turns
from tests.bench.processes import Running, alertmanager, daemon, exchange, make_daemon

ANSWER_S: Final = 60.0
AFTER_S: Final = 0.5
ALERT: Final = b'"fingerprint":'  # once in each alert of a webhook, of ours and of Alertmanager's

BURST: Final = """
[[rules]]
name = "BenchBurst"
expr = "bench_up > 0"
severity = "critical"

[checks.burst]
plugin = "bench-burst"
interval = "3s"
jitter = "0s"
to = {port}
series = {many}
"""


def delivered(server: Running, receiver: WebhookReceiver, many: int, began: float, cpu_s: float) -> Mapping[str, float]:
    """Wait until `many` alerts have come; return wall time and CPU. Raises BenchError if others come, or not all."""
    count, last, bodies = 0, began, list[bytes]()
    while count < many:
        left_s = began + ANSWER_S - time.perf_counter()
        last, body = receiver.next(left_s, f"{count} of {many} alerts")
        count += body.count(ALERT)
        bodies.append(body)
    time.sleep(AFTER_S)
    cpu_s = server.cpu_s() - cpu_s
    found = {alert["labels"]["id"] for body in bodies for alert in json.loads(body)["alerts"]}
    if len(found) != many or count != many or not receiver.came.empty():
        raise BenchError(f"{count} alerts came, {len(found)} different ones, instead of {many}")
    return {"wall": last - began, "cpu": cpu_s, "webhooks": len(bodies)}


def ours(directory: Path, receiver: WebhookReceiver, stamps: Stamps, many: int) -> Side:
    configuration = RECEIVERS.format(url=receiver.url) + BURST.format(port=stamps.port, many=many)

    def measure() -> Mapping[str, float]:
        make_daemon(directory, configuration)
        with daemon(directory) as server:
            stamps.all()
            value = 0.0
            while not value:
                [(value, began)] = stamps.next(ANSWER_S, "the check that bursts")
            found = delivered(server, receiver, many, began, server.cpu_s())
        shutil.rmtree(directory)
        return found

    return measure


def theirs(directory: Path, receiver: WebhookReceiver, many: int) -> Side:
    alerts = [{"labels": {"alertname": "BenchBurst", "id": str(number)}} for number in range(many)]
    body = json.dumps(alerts).encode()

    def measure() -> Mapping[str, float]:
        with alertmanager(directory, receiver.url) as server, server.connection() as connection:
            time.sleep(AFTER_S)
            began, cpu_s = time.perf_counter(), server.cpu_s()
            exchange(connection, "POST", "/api/v2/alerts", body, {"Content-Type": "application/json"})
            found = delivered(server, receiver, many, began, cpu_s)
        shutil.rmtree(directory)
        return found

    return measure


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of a burst."""
    many = effort.pick(2000, 50)
    with receiving() as our_hook, receiving() as their_hook, stamped() as stamps:
        measured = take_turns(
            {
                "sixfbd": ours(directory / "run", our_hook, stamps, many),
                "alertmanager": theirs(directory / "alertmanager", their_hook, many),
            },
            effort,
        )
    what = f"burst of {many:,} alerts until delivered"
    return [
        row(f"{what}, wall", "s", measured, "wall", "sixfbd", "alertmanager", Goal(3)),
        row(f"{what}, CPU", "s", measured, "cpu", "sixfbd", "alertmanager", Goal(3)),
        row(f"{what}, webhooks", "", measured, "webhooks", "sixfbd", "alertmanager"),
    ]
