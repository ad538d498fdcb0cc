"""A value changes until its webhook is received, beside the chain that a user would run: Prometheus scrapes each second,
evaluates each second and tells Alertmanager, which waits for nothing.

Ours twice: the same page scraped each second by a `scrape` check, and the change sent as an event. The page shows a new
label value at each change, so that each is an alert, and with Alertmanager a group, of its own. Changes come at chance
phases of the second, the same ones for both.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.alerts import EVENT_RULE, RECEIVERS, posting
from tests.bench.loopback import WebhookReceiver, receiving, serving
from tests.bench.passes import Effort, Goal, Row, Side, percentile, row, take_turns
from tests.bench.processes import Running, alertmanager, daemon, make_daemon, prometheus, token_of

CHAIN: Final = "prometheus + alertmanager"
ANSWER_S: Final = 15.0
SEED: Final = 6
PASSES: Final = 3

SCRAPE: Final = """
[[rules]]
name = "BenchChange"
expr = "bench_change > 0"
severity = "critical"

[checks.page]
plugin = "scrape"
targets = ["http://{address}/metrics"]
interval = "1s"
timeout = "900ms"
"""


class Page:
    """What the exporter shows: one series, of the last change."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._text = b""

    def __call__(self) -> bytes:
        return self._text

    def change(self) -> str:
        """Show another label value, and return it."""
        number = str(next(self._numbers))
        self._text = b'# TYPE bench_change gauge\nbench_change{change="%s"} 1\n' % number.encode()
        return number


def changing(page: Page, receiver: WebhookReceiver, many: int) -> Side:
    """Return a side that changes the page, and waits for the webhook that tells of it."""

    def until_told(change: str, began: float) -> float:
        while True:
            left_s = began + ANSWER_S - time.perf_counter()
            came, body = receiver.next(left_s, f"the change {change} of the exporter")
            if any(
                alert["status"] == "firing" and alert["labels"].get("change") == change
                for alert in json.loads(body)["alerts"]
            ):
                return came - began

    def measure() -> Mapping[str, float]:
        phases, taken = random.Random(SEED), []
        for _ in range(many):
            time.sleep(phases.random())
            began = time.perf_counter()
            taken.append(1000 * until_told(page.change(), began))
        return {"p50": percentile(taken, 0.5)}

    return measure


@contextmanager
def chained(directory: Path, webhook: str, address: str) -> Iterator[Running]:
    """Prometheus that scrapes the address and tells an Alertmanager that tells the webhook."""
    directory.mkdir()
    (directory / "rules.yml").write_text(
        "groups: [{name: bench, rules: [{alert: BenchChange, expr: bench_change > 0}]}]\n"
    )
    with alertmanager(directory / "alertmanager", webhook, resolved=False) as manager:
        scrape = f"[{{job_name: page, static_configs: [{{targets: ['{address}']}}]}}]"
        further = (
            "global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}\n"
            f"rule_files: ['{directory / 'rules.yml'}']\n"
            f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{manager.port}']}}]}}]}}\n"
        )
        with prometheus(directory / "prometheus", scrape, further) as running:
            yield running


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of a change, in fewer passes: each change takes a second."""
    many = effort.pick(20, 1)
    our_page, their_page = Page(), Page()
    with (
        receiving() as ours,
        receiving() as events,
        receiving() as theirs,
        serving(1, our_page) as our_exporter,
        serving(1, their_page) as their_exporter,
    ):
        make_daemon(
            directory / "scrape",
            RECEIVERS.format(url=ours.url) + SCRAPE.format(address=our_exporter.addresses[0]),
        )
        make_daemon(directory / "events", RECEIVERS.format(url=events.url) + EVENT_RULE)
        headers = {"Authorization": f"Bearer {token_of(directory / 'events')}"}

        def fault(number: int) -> object:
            return {"id": f"f{number}", "type": "bench_fault", "data": {"value": number % 2}}

        with (
            daemon(directory / "scrape"),
            daemon(directory / "events") as taking_events,
            chained(directory / "chain", theirs.url, their_exporter.addresses[0]),
        ):
            measured = take_turns(
                {
                    "scrape": changing(our_page, ours, many),
                    CHAIN: changing(their_page, theirs, many),
                    "event": posting(taking_events, events, "/api/events", headers, fault, many),
                },
                effort.at_most(PASSES),
            )
    return [
        row("event → webhook, p50, beside the chain at 1 s", "ms", measured, "p50", "event", CHAIN, Goal(0.01)),
        row("scraped each second: change → webhook, p50", "ms", measured, "p50", "scrape", CHAIN, Goal(0.75)),
    ]
