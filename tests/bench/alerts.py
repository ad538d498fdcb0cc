"""A fault until its webhook is received, beside Alertmanager: an alert over HTTP until its webhook is.

Ours is on the disk before it is sent; Alertmanager's is in memory. Ours three times: measured by a check in the process
(from right before it returns its report), as an event over HTTP that sets a series which a rule reads, each firing and
resolving by turns, and as an event over HTTP that carries a notice.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.loopback import Stamps, WebhookReceiver, receiving, stamped
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, percentile, row, take_turns
from tests.bench.processes import Running, alertmanager, daemon, exchange, make_daemon, token_of

PAUSE_S: Final = 0.07  # between two: a rule is judged at most every 50 ms, and this is about one alert, not many
FLIP_MS: Final = 100
WARM: Final = 10  # flips after a start that are not counted
ANSWER_S: Final = 10.0
LOST_SHARE: Final = 0.05

RECEIVERS: Final = """
[notifiers.hook]
plugin = "webhook"
url = "{url}"

[receivers.bench]
webhook = {{ via = "hook" }}

[route]
receiver = "bench"
routes = [
    {{ matchers = ['alertname=~"Bench.*"'], receiver = "bench" }},
    {{ matchers = ['notice="bench"'], receiver = "bench" }},
    {{ matchers = ['alertname!=""'], receiver = "primary" }},
]
"""

EVENT_RULE: Final = """
[[rules]]
name = "BenchFault"
expr = "bench_fault > 0"
severity = "critical"
"""

REPORT_RULE: Final = """
[[rules]]
name = "BenchReport"
expr = "bench_report > 0"
severity = "critical"

[checks.flip]
plugin = "bench-flip"
interval = "{flip_ms}ms"
jitter = "0s"
to = {port}
"""


def posting(
    server: Running,
    receiver: WebhookReceiver,
    path: str,
    headers: Mapping[str, str],
    body: Callable[[int], object],
    many: int,
) -> Side:
    """Return a side that posts `many` bodies one after the other, each until its webhook has come."""
    numbers = count(1)

    def measure() -> Mapping[str, float]:
        taken = []
        with server.connection() as connection:  # anew in each pass: in between a server hangs up
            cpu_s = server.cpu_s()
            for _ in range(many):
                text = json.dumps(body(next(numbers))).encode()
                began = time.perf_counter()
                exchange(connection, "POST", path, text, {"Content-Type": "application/json", **headers})
                taken.append(1000 * (receiver.next(ANSWER_S, text.decode())[0] - began))
                time.sleep(PAUSE_S)
            cpu_s = server.cpu_s() - cpu_s
        if not receiver.came.empty():
            raise BenchError(f"{path}: more webhooks than posts")
        return {**latencies(taken), "cpu": 1000 * cpu_s / many}

    return measure


def latencies(taken: Sequence[float]) -> dict[str, float]:
    return {"p50": percentile(taken, 0.5), "p99": percentile(taken, 0.99)}


def reporting(directory: Path, receiver: WebhookReceiver, stamps: Stamps, many: int, every_ms: int) -> Side:
    """Return a side whose check flips a gauge at an interval; the daemon is started anew, so that it flips only now.

    A webhook answers the last flip before it of its kind. A flip that is answered by none, since the next one overtook it,
    has no time: such are told, and more than a few are an error.
    """

    def measure() -> Mapping[str, float]:
        with daemon(directory):
            stamps.all()
            flips = [pair for _ in range(WARM + many) for pair in stamps.next(ANSWER_S, "the check that flips")]
            time.sleep(3 * every_ms / 1000)
            came = [receiver.came.get() for _ in range(receiver.came.qsize())]
        while not receiver.came.empty():
            receiver.came.get()  # of flips after the last that counts
        taken = times_to(flips[WARM:], [(at, json.loads(body)["status"]) for at, body in came])
        lost = many - len(taken)
        if lost > LOST_SHARE * many:
            raise BenchError(
                f"{lost} of {many} flips were overtaken by the next, {every_ms} ms later, or not told: "
                f"the load is too high, or see {directory}"
            )
        if lost:
            print(f"report: {lost} of {many} flips were overtaken by the next and are not counted", file=sys.stderr)
        return latencies(taken)

    return measure


def times_to(flips: Sequence[tuple[float, float]], webhooks: Sequence[tuple[float, str]]) -> list[float]:
    """Return the times in ms from flips (value, time) to the webhooks (time, status) that tell them."""
    taken: dict[float, float] = {}
    for came, status in webhooks:
        value = float(status == "firing")
        flipped = max((at for one, at in flips if one == value and at < came), default=None)
        if flipped is not None:
            taken.setdefault(flipped, 1000 * (came - flipped))
    return list(taken.values())


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of one alert."""
    many, every_ms = effort.pick((120, FLIP_MS), (4, 5 * FLIP_MS))
    with receiving() as ours, receiving() as reports, receiving() as theirs, stamped() as stamps:
        make_daemon(directory / "events", RECEIVERS.format(url=ours.url) + EVENT_RULE)
        report_rule = REPORT_RULE.format(port=stamps.port, flip_ms=every_ms)
        make_daemon(directory / "reports", RECEIVERS.format(url=reports.url) + report_rule)
        with (
            daemon(directory / "events") as sixfbd,
            alertmanager(directory / "alertmanager", theirs.url) as neighbour,
        ):
            headers = {"Authorization": f"Bearer {token_of(directory / 'events')}"}

            def fault(number: int) -> object:
                return {"id": f"f{number}", "type": "bench_fault", "data": {"value": number % 2}}

            def notice(number: int) -> object:
                return {"id": f"n{number}", "type": "bench_notice", "data": {"value": number}}

            def alert(number: int) -> object:
                return [{"labels": {"alertname": "BenchFault", "id": str(number)}}]

            measured = take_turns(
                {
                    "report": reporting(directory / "reports", reports, stamps, many, every_ms),
                    "alertmanager": posting(neighbour, theirs, "/api/v2/alerts", {}, alert, many),
                    "event": posting(sixfbd, ours, "/api/events", headers, fault, many),
                    "notice": posting(sixfbd, ours, "/api/events", headers, notice, many),
                },
                effort,
            )
    wanted = (
        ("report in process → webhook, p50", "ms", "p50", "report", Goal(4)),
        ("report in process → webhook, p99", "ms", "p99", "report", Goal(1.5)),
        ("event over HTTP → webhook, p50", "ms", "p50", "event", Goal(8)),
        ("event over HTTP → webhook, p99", "ms", "p99", "event", None),
        ("event over HTTP → webhook, CPU each", "ms", "cpu", "event", None),
        ("event with a notice → webhook, p50", "ms", "p50", "notice", None),
        ("event with a notice → webhook, p99", "ms", "p99", "notice", None),
    )
    return [
        row(what, unit, measured, metric, ours_, "alertmanager", goal) for what, unit, metric, ours_, goal in wanted
    ]
