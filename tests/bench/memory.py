"""Memory of an idle daemon, beside alertmanager, prometheus and blackbox_exporter together.

Each pass starts all anew, waits, and measures. The daemon's state stays from pass to pass, as a restart's would; it is as
`sixfbd init` leaves it and watches the machine. Prometheus scrapes itself and the other two.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench.passes import Effort, Goal, Row, row, take_turns
from tests.bench.processes import Running, alertmanager, blackbox, daemon, make_daemon, prometheus

NEIGHBOURS: Final = "alertmanager + prometheus + blackbox"
PASSES: Final = 3
NOWHERE: Final = "http://127.0.0.1:9/"  # nothing is sent


def neighbours(stack: ExitStack, directory: Path) -> list[Running]:
    manager = stack.enter_context(alertmanager(directory / "alertmanager", NOWHERE))
    exporter = stack.enter_context(blackbox(directory / "blackbox"))
    scraped = ", ".join(f"'127.0.0.1:{server.port}'" for server in (manager, exporter))
    scrape = f"[{{job_name: own, scrape_interval: 15s, static_configs: [{{targets: [{scraped}]}}]}}]"
    return [manager, exporter, stack.enter_context(prometheus(directory / "prometheus", scrape))]


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the memory after a while of idling."""
    run, seconds = directory / "run", effort.pick(10.0, 0.5)
    make_daemon(run, "", plugin=False)
    (directory / "neighbours").mkdir()

    def memory(servers: Sequence[Running]) -> Mapping[str, float]:
        time.sleep(seconds)
        return {"pss": sum(server.pss_bytes() for server in servers) / 2**20}

    def ours() -> Mapping[str, float]:
        with daemon(run) as server:
            return memory([server])

    def theirs() -> Mapping[str, float]:
        with ExitStack() as stack:
            return memory(neighbours(stack, directory / "neighbours"))

    measured = take_turns({"sixfbd": ours, NEIGHBOURS: theirs}, effort.at_most(PASSES))
    return [row("idle memory, PSS", "MiB", measured, "pss", "sixfbd", NEIGHBOURS, Goal(0.8))]
