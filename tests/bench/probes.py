"""CPU of an HTTP probe on a new connection, of targets on loopback.

Ours is the CPU of the whole daemon, which also stores and judges what it measured; beside it blackbox_exporter alone, and
with the Prometheus that drives it and stores. The targets count the probes. That the cost of one does not grow with the
number of targets is shown by 1,000 beside 20, at the same number of probes a second: 200, as with the 200 targets that
are probed once a second.
"""

import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.loopback import Targets, serving
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, row, take_turns
from tests.bench.processes import Running, blackbox, daemon, exchange, make_daemon, prometheus

RATE: Final = 200  # probes a second
WARM_S: Final = 3.0
PASSES: Final = 3
LEAST_SHARE: Final = 0.5  # of the probes that are due; a prober that comes to fewer has no CPU left
GOOD_SHARE: Final = 0.95  # of the results; more that fail make another figure of it
PROBED: Final = re.compile(rb"^probe_success\{[^}]*\} (\S+)", re.MULTILINE)


def one_check(targets: Targets, interval_ms: int) -> str:
    addresses = ", ".join(f'"http://{address}/"' for address in targets.addresses)
    return (
        f'[checks.many]\nplugin = "webhook"\ntargets = [{addresses}]\njitter = "0s"\n'
        f'interval = "{interval_ms}ms"\ntimeout = "{interval_ms * 9 // 10}ms"\n'
    )


def scrapes(targets: Targets, exporter: Running) -> str:
    addresses = ", ".join(f"'http://{address}/'" for address in targets.addresses)
    return (
        "[{job_name: probes, scrape_interval: 1s, scrape_timeout: 900ms, metrics_path: /probe, "
        f"params: {{module: [http_2xx]}}, static_configs: [{{targets: [{addresses}]}}], relabel_configs: ["
        "{source_labels: [__address__], target_label: __param_target}, "
        "{source_labels: [__param_target], target_label: instance}, "
        f"{{target_label: __address__, replacement: '127.0.0.1:{exporter.port}'}}]}}]"
    )


def measure(targets: Targets, servers: Mapping[str, Running], seconds: float, least: float) -> Mapping[str, float]:
    """Return the CPU per probe, in milliseconds, of each server and of all. Raises BenchError for fewer than `least`."""
    targets.wait_for(len(targets.addresses))
    time.sleep(min(WARM_S, seconds))
    before = {name: server.cpu_s() for name, server in servers.items()}
    answered = targets.answered
    time.sleep(seconds)
    if targets.answered == answered:
        targets.wait_for(1)
    probes = targets.answered - answered
    if probes < least:
        raise BenchError(f"{probes} probes in {seconds:g} s, not even {least:g}: the load is too high to measure")
    each = {name: 1000 * (server.cpu_s() - before[name]) / probes for name, server in servers.items()}
    return {**each, "all": sum(each.values())}


def daemon_side(directory: Path, targets: Targets, rate: int, seconds: float, least: float) -> Side:
    make_daemon(directory, one_check(targets, 1000 * len(targets.addresses) // rate))

    def run() -> Mapping[str, float]:
        with daemon(directory) as server:
            found = measure(targets, {"sixfbd": server}, seconds, least)
            with server.connection() as connection:
                results = PROBED.findall(exchange(connection, "GET", "/metrics"))
        good = sum(1 for result in results if float(result) == 1)
        if len(results) != len(targets.addresses) or (least and good < GOOD_SHARE * len(results)):
            raise BenchError(f"of {len(targets.addresses)} targets {len(results)} have a result, and {good} a good one")
        return found

    return run


def neighbour_side(directory: Path, targets: Targets, seconds: float, least: float) -> Side:
    directory.mkdir()

    def run() -> Mapping[str, float]:
        with ExitStack() as stack:
            exporter = stack.enter_context(blackbox(directory / "blackbox"))
            driver = stack.enter_context(prometheus(directory / "prometheus", scrapes(targets, exporter)))
            return measure(targets, {"blackbox": exporter, "prometheus": driver}, seconds, least)

    return run


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of a probe; windows are whole intervals of the slowest check."""
    rate, few, many = effort.pick((RATE, 20, 1000), (20, 4, 20))
    seconds = effort.pick(10.0, 1.0)
    least = effort.pick(LEAST_SHARE * rate * seconds, 0.0)
    beside = f"{few} targets"
    with serving(rate, fine) as targets, serving(few, fine) as some, serving(many, fine) as lots:
        measured = take_turns(
            {
                "usual": daemon_side(directory / "usual", targets, rate, seconds, least),
                "blackbox": neighbour_side(directory / "neighbours", targets, seconds, least),
                "lots": daemon_side(directory / "lots", lots, rate, seconds, least),
                beside: daemon_side(directory / "few", some, rate, seconds, least),
            },
            effort.at_most(PASSES),
        )
    measured = {**measured, "blackbox + prometheus": measured["blackbox"]}
    what = "CPU an HTTP probe on a new connection"
    return [
        row(f"{what}, {rate:,} targets", "ms", measured, "all", "usual", "blackbox", Goal(0.8), "blackbox"),
        row(f"{what}, {rate:,} targets", "ms", measured, "all", "usual", "blackbox + prometheus"),
        row(f"{what}, {many:,} targets", "ms", measured, "all", "lots", beside, Goal(1.1)),
    ]


def fine() -> bytes:
    return b"fine\n"
