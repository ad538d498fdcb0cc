"""The design point: 10,000 series, 2,000 samples a second, 500 rules, and 10,000 alerts that fire and resolve at once.

The series come of 100 checks of 100 each, every five seconds; a rule reads 20 of them. One event over HTTP changes the limit
that all rules compare with, so that all series are beyond it, and another one puts it back: each time until the webhooks
have told of every alert. The CPU at the load and the memory are without the sleeper, which tells from then on how late the
loop came to what was due: first at the load alone, then while the alerts fire and resolve.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.alerts import RECEIVERS
from tests.bench.burst import delivered
from tests.bench.loopback import Stamps, WebhookReceiver, receiving, stamped
from tests.bench.pages import SLEEPER
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, figures, percentile, take_turns
from tests.bench.processes import daemon, exchange, make_daemon, token_of

SERIES_A_CHECK: Final = 100
RULES_A_CHECK: Final = 5
INTERVAL_S: Final = 5.0
SPREAD_S: Final = 2.0  # over which the checks of a start begin
ANSWER_S: Final = 30.0
PASSES: Final = 2
SHARE: Final = 0.999

CHECK: Final = """
[checks.c{number}]
plugin = "bench-values"
interval = "{interval_s:g}s"
to = {port}
series = {series}
"""

RULE: Final = """
[[rules]]
name = "BenchCheck{number}Group{group}"
expr = 'bench_value{{check="c{number}", group="{group}"}} < scalar(bench_fault)'
severity = "critical"
"""


def configuration(receiver: WebhookReceiver, sleeper: Stamps, checks: int, asleep_s: float) -> str:
    """Return what the daemon is to run; the sleeper begins after so many seconds."""
    parts = [RECEIVERS.format(url=receiver.url), SLEEPER.format(port=sleeper.port), f"after_s = {asleep_s}\n"]
    for number in range(checks):
        parts.append(CHECK.format(number=number, interval_s=INTERVAL_S, port=sleeper.port, series=SERIES_A_CHECK))
        parts += [RULE.format(number=number, group=group) for group in range(RULES_A_CHECK)]
    return "".join(parts)


def ours(directory: Path, receiver: WebhookReceiver, sleeper: Stamps, checks: int, seconds: float) -> Side:
    warm_s = INTERVAL_S + SPREAD_S
    text = configuration(receiver, sleeper, checks, warm_s + seconds + SPREAD_S)
    many, ids = checks * SERIES_A_CHECK, count(1)

    def measure() -> Mapping[str, float]:
        make_daemon(directory, text)
        headers = {"Authorization": f"Bearer {token_of(directory)}", "Content-Type": "application/json"}
        with daemon(directory) as server:

            def limit(value: int) -> float:
                """Set the limit; return how long it took until every alert was told of."""
                body = b'{"id": "f%d", "type": "bench_fault", "data": {"value": %d}}' % (next(ids), value)
                began, cpu_s = time.perf_counter(), server.cpu_s()
                with server.connection() as connection:
                    exchange(connection, "POST", "/api/events", body, headers)
                return delivered(server, receiver, many, began, cpu_s)["wall"]

            time.sleep(warm_s)
            began, cpu_s = time.perf_counter(), server.cpu_s()
            time.sleep(seconds)
            found = {"cpu": 1000 * (server.cpu_s() - cpu_s) / (time.perf_counter() - began)}
            sleeper.next(ANSWER_S, "the sleeper in the daemon")
            time.sleep(INTERVAL_S)
            quiet = delays_ms(sleeper)
            found |= {"fire": limit(1), "resolve": limit(0), "memory": server.pss_bytes() / 2**20}
            busy = delays_ms(sleeper)
        shutil.rmtree(directory)
        return {**found, "load": percentile(quiet, SHARE), "alerts": percentile(busy, SHARE), "longest": max(busy)}

    return measure


def delays_ms(sleeper: Stamps) -> list[float]:
    """Return how late the sleeper woke since it was last asked, in milliseconds. Raises BenchError if it never did."""
    found = [1000 * late for _, late in sleeper.all()]
    if not found:
        raise BenchError("the sleeper in the daemon said nothing")
    return found


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of the design point."""
    checks, seconds = effort.pick((100, 15.0), (2, 1.0))
    with receiving() as receiver, stamped() as sleeper:
        measured = take_turns(
            {"sixfbd": ours(directory / "run", receiver, sleeper, checks, seconds)}, effort.at_most(PASSES)
        )
    series = checks * SERIES_A_CHECK
    load = f"{series:,} series, {series / INTERVAL_S:,.0f} samples a second, {checks * RULES_A_CHECK} rules"
    stalls = Goal(20, absolute=True)
    return [
        Row(f"{load}, loop delay p99.9", "ms", figures(measured, "load", "sixfbd"), goal=stalls),
        Row(
            f"{series:,} alerts at once meanwhile, loop delay p99.9",
            "ms",
            figures(measured, "alerts", "sixfbd"),
            goal=stalls,
        ),
        *(
            Row(what, unit, figures(measured, metric, "sixfbd"))
            for what, unit, metric in (
                (f"{series:,} alerts at once meanwhile, longest loop delay", "ms", "longest"),
                (f"{series:,} alerts at once until all are delivered", "s", "fire"),
                (f"{series:,} alerts at once until all are delivered as resolved", "s", "resolve"),
                (f"{load}, CPU a second", "ms", "cpu"),
                (f"{load}, memory after the alerts, PSS", "MiB", "memory"),
            )
        ),
    ]
