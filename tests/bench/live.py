"""A scrape, the dashboard and a report while 200 follow events and events come in at full speed, beside a quiet daemon."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.bench.passes import BenchError, Effort, Goal, Row, Side, row, take_turns
from tests.bench.processes import ROOT, Running, daemon, exchange, make_daemon, token_of

FOLLOWERS: Final = 200
PATHS: Final = {"scrape": "/metrics", "dashboard": "/", "report": "/api/monitoring/business"}
GOAL_MS: Final = 250
PASSES: Final = 3


@contextmanager
def crowd(server: Running, token: str, followers: int) -> Iterator[None]:
    """Followers, and one that posts, until the block ends. Raises BenchError if one of them cannot begin or ends by itself."""
    command = [sys.executable, "-m", "tests.bench.crowd"]
    made = []
    try:
        for kind, what in (("follow", str(followers)), ("post", token)):
            one = subprocess.Popen(
                [*command, kind, str(server.port), what],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            made.append(one)
            assert one.stdout is not None
            if one.stdout.readline() != "ready\n":
                raise BenchError(f"the crowd did not begin to {kind}")
        yield
        if any(one.poll() is not None for one in made):
            raise BenchError("one of the crowd has ended by itself; it says why above")
    finally:
        for one in made:
            one.communicate(timeout=20)


def asking(directory: Path, followers: int, many: int) -> Side:
    """Return a side that tells the 50th and 99th percentile of answers, in ms, by what is asked."""

    def measure() -> Mapping[str, float]:
        with daemon(directory) as server:
            if not followers:
                return _percentiles(server, many)
            with crowd(server, token_of(directory), followers):
                before = _events(server)
                began = time.perf_counter()
                found = _percentiles(server, many)
                rate = (_events(server) - before) / (time.perf_counter() - began)
                return {**found, "events a second": rate}

    return measure


def _percentiles(server: Running, many: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in PATHS}
    with server.connection() as connection:
        for _ in range(many):
            for name, path in PATHS.items():
                began = time.perf_counter()
                exchange(connection, "GET", path)
                taken[name].append(1000 * (time.perf_counter() - began))
    ranked = {name: sorted(each) for name, each in taken.items()}
    return {
        f"{name} {share}": each[min(len(each) - 1, len(each) * share // 100)]
        for name, each in ranked.items()
        for share in (50, 99)
    }


def _events(server: Running) -> int:
    with server.connection() as connection:
        said = exchange(connection, "GET", "/api/events?limit=1")
    return int(said.rpartition(b'"next":')[2].strip(b"} \n"))


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of those who ask while others follow and post."""
    followers, many = effort.pick(FOLLOWERS, 4), effort.pick(200, 3)
    make_daemon(directory / "quiet", "")
    make_daemon(directory / "busy", "")
    measured = take_turns(
        {
            "busy": asking(directory / "busy", followers, many),
            "quiet": asking(directory / "quiet", 0, many),
        },
        effort.at_most(PASSES),
    )
    found = [
        row(
            f"{name}, {followers} follow, ingest at full speed, p{share}",
            "ms",
            measured,
            f"{name} {share}",
            "busy",
            "quiet",
            Goal(GOAL_MS, absolute=True) if share == 99 else None,
        )
        for name in PATHS
        for share in (50, 99)
    ]
    taken = [values["events a second"] for values in measured["busy"]]
    return [*found, Row("events taken meanwhile", "1/s", taken)]
