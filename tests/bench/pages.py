"""A scrape of /metrics with 10,000 series, beside the same server stack that sends the same bytes, ready made.

A check reports all series, by turns with a tenth of them changed and with all; each report is followed by one scrape, once
it has been taken. The CPU is of the process from the request to the end of the answer, and so without what taking the
report costs. How long the loop stood still in a scrape, a sleeper in the daemon tells, in runs of their own as it costs
CPU itself; beside it the same for as long a time just before.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.loopback import Stamps, stamped
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, figures, row, take_turns
from tests.bench.processes import Running, bare, daemon, exchange, make_daemon

SERIES: Final = 10_000
TAKEN_S: Final = 0.8  # after its begin a report has been taken, shown and written
WARM: Final = 2  # reports after a start whose scrapes do not count
TRIES: Final = 3
ANSWER_S: Final = 20.0
PASSES: Final = 3
TENTH: Final = "10 % changed"
WHOLE: Final = "all changed"
STACK: Final = "same server, ready bytes"
QUIET: Final = "the same without a scrape"

CHECK: Final = """
[checks.page]
plugin = "bench-page"
interval = "2s"
jitter = "0s"
to = {port}
series = {series}
"""

SLEEPER: Final = """
[checks.sleeper]
plugin = "bench-sleeper"
interval = "1h"
timeout = "30m"
jitter = "0s"
to = {port}
run_s = 1500
"""


def scrapes(stamps: Stamps, many: int, scrape: Callable[[str], bytes]) -> None:
    """Call `scrape` with what has changed, once after each report, until `many` scrapes of either kind count.

    One counts if the report before it was scraped as well, and if its page is new: the server keeps a page for a second,
    and a machine with too much to do holds reports up. Raises BenchError if too few count.
    """
    left, last_run, last_page = {TENTH: many, WHOLE: many}, -1.0, b""
    stamps.all()
    for _ in range(WARM + TRIES * 2 * many):
        [(run, _)] = stamps.next(ANSWER_S, "the check with many series")
        time.sleep(TAKEN_S)
        changed = TENTH if run % 2 else WHOLE
        counts = run > WARM and run == last_run + 1 and stamps.came.empty() and left[changed] > 0
        page = scrape(changed if counts else "")
        if counts and page == last_page:
            raise BenchError(
                "a scrape showed no change: the report before it was not taken in time, the load is too high"
            )
        left[changed] -= counts
        last_run, last_page = run, page
        if not any(left.values()):
            return
    raise BenchError(f"reports came too late to scrape after each, {left} scrapes are missing: the load is too high")


def costs(directory: Path, stamps: Stamps, many: int) -> Side:
    def measure() -> Mapping[str, float]:
        found: dict[str, list[float]] = {TENTH: [], WHOLE: [], "": []}
        with daemon(directory) as server:

            def scrape(changed: str) -> bytes:
                taken_ms, page = _scraped(server)
                found[changed].append(taken_ms)
                return page

            scrapes(stamps, many, scrape)
        return {changed: median(found[changed]) for changed in (TENTH, WHOLE)}

    return measure


def _scraped(server: Running) -> tuple[float, bytes]:
    """Return the CPU of one scrape in ms, and the page."""
    with server.connection() as connection:
        cpu_s = server.cpu_s()
        page = exchange(connection, "GET", "/metrics")
        return 1000 * (server.cpu_s() - cpu_s), page


def ready_made(server: Running, many: int) -> Side:
    def measure() -> Mapping[str, float]:
        return {"cpu": median(_scraped(server)[0] for _ in range(2 * many))}

    return measure


def stalls(directory: Path, reports: Stamps, sleeper: Stamps, many: int) -> Side:
    """Return a side that tells the longest delays of a sleeper, in ms, within scrapes and before them."""

    def measure() -> Mapping[str, float]:
        spans: dict[str, list[tuple[float, float]]] = {TENTH: [], WHOLE: [], "": []}
        with daemon(directory) as server:

            def scrape(changed: str) -> bytes:
                with server.connection() as connection:
                    began = time.perf_counter()
                    page = exchange(connection, "GET", "/metrics")
                    spans[changed].append((began, time.perf_counter()))
                return page

            sleeper.all()
            scrapes(reports, many, scrape)
            time.sleep(TAKEN_S)
        woken = sleeper.all()
        if not woken:
            raise BenchError("the sleeper in the daemon said nothing")
        quiet = [(2 * began - ended, began) for changed in (TENTH, WHOLE) for began, ended in spans[changed]]
        told = {changed: _longest_ms(woken, spans[changed]) for changed in (TENTH, WHOLE)}
        return {**told, QUIET: _longest_ms(woken, quiet)}

    return measure


def _longest_ms(woken: Sequence[tuple[float, float]], spans: Sequence[tuple[float, float]]) -> float:
    """Return the longest delay of those that woke (time, delay) late within the spans or had to wake in them."""
    return 1000 * max(
        (late for at, late in woken if any(began <= at and at - late <= ended for began, ended in spans)), default=0.0
    )


def _saved_page(directory: Path, stamps: Stamps) -> Path:
    path = directory / "page"
    with daemon(directory / "run") as server, server.connection() as connection:
        stamps.next(ANSWER_S, "the check with many series")
        time.sleep(TAKEN_S)
        path.write_bytes(exchange(connection, "GET", "/metrics"))
    return path


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of a scrape."""
    many, series = effort.pick(4, 1), effort.pick(SERIES, 500)
    with stamped() as reports, stamped() as sleeper:
        configuration = CHECK.format(port=reports.port, series=series)
        make_daemon(directory / "run", configuration)
        make_daemon(directory / "stalls", configuration + SLEEPER.format(port=sleeper.port))
        page = _saved_page(directory, reports)
        with bare(directory / "bare", "page", str(page)) as server:
            measured = take_turns(
                {
                    "sixfbd": costs(directory / "run", reports, many),
                    STACK: ready_made(server, many),
                    "stalls": stalls(directory / "stalls", reports, sleeper, many),
                },
                effort.at_most(PASSES),
            )
    what = f"scrape of {series:,} series"
    slices = Goal(2, absolute=True)
    return [
        row(f"{what}, {TENTH}, CPU", "ms", measured, TENTH, "sixfbd", STACK, Goal(1.2), "cpu"),
        row(f"{what}, {WHOLE}, CPU", "ms", measured, WHOLE, "sixfbd", STACK, Goal(4), "cpu"),
        *(
            Row(
                f"{what}, {changed}, longest stall of the loop",
                "ms",
                figures(measured, changed, "stalls"),
                QUIET,
                figures(measured, QUIET, "stalls"),
                slices,
            )
            for changed in (TENTH, WHOLE)
        ),
    ]
