"""(d) Idle memory and (e) start to ready, beside alertmanager, prometheus and blackbox_exporter together.

Each pass starts all anew, waits, and measures. The daemon's state stays from pass to pass, as a restart's would; it is as
`sixfbd init` leaves it and watches the machine. Prometheus scrapes itself and the other two.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.passes import Row, row, take_turns
from tests.bench.processes import Running, alertmanager, blackbox, daemon, make_daemon, prometheus

NEIGHBOURS: Final = "alertmanager + prometheus + blackbox"
NOWHERE: Final = "http://127.0.0.1:9/"  # nothing is sent


def neighbours(stack: ExitStack, directory: Path) -> list[Running]:
    manager = stack.enter_context(alertmanager(directory / "alertmanager", NOWHERE))
    exporter = stack.enter_context(blackbox(directory / "blackbox"))
    scraped = ", ".join(f"'127.0.0.1:{server.port}'" for server in (manager, exporter))
    scrape = f"[{{job_name: own, scrape_interval: 15s, static_configs: [{{targets: [{scraped}]}}]}}]"
    return [manager, exporter, stack.enter_context(prometheus(directory / "prometheus", scrape))]


def sides(
    directory: Path, measure: Callable[[Sequence[Running]], float]
) -> Mapping[str, Callable[[], Mapping[str, float]]]:
    run = directory / "run"
    make_daemon(run, "")
    (directory / "neighbours").mkdir()

    def ours() -> Mapping[str, float]:
        with daemon(run) as server:
            return {"value": measure([server])}

    def theirs() -> Mapping[str, float]:
        with ExitStack() as stack:
            return {"value": measure(neighbours(stack, directory / "neighbours"))}

    return {"sixfbd": ours, NEIGHBOURS: theirs}


def memory_rows(directory: Path, passes: int, discard: int, seconds: float) -> Sequence[Row]:
    """Measure the memory after `seconds` of idling."""

    def memory(servers: Sequence[Running]) -> float:
        time.sleep(seconds)
        return sum(server.pss_bytes() for server in servers) / 2**20

    measured = take_turns(sides(directory, memory), passes, discard)
    return [row("(d) idle memory, PSS", "MiB", measured, "value", "sixfbd", NEIGHBOURS)]


def start_rows(directory: Path, passes: int, discard: int, _: float) -> Sequence[Row]:
    """Measure from exec until it answers that it is ready; the neighbours one after the other, the times added."""
    measured = take_turns(sides(directory, lambda servers: sum(server.ready_s for server in servers)), passes, discard)
    return [row("(e) start to ready", "s", measured, "value", "sixfbd", NEIGHBOURS)]
