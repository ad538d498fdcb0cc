"""CPU of taking durable events over HTTP, one a request and 100.

Beside one a request: what cannot be saved, a handler of the same server that reads and parses the body, and bare sqlite3
that writes the row; their sum. Beside 100 a request: bare sqlite3 alone. One connection, a request after the other.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench.journal import DATA, bare_rows, connect_bare, write_bare
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, figures, take_turns
from tests.bench.processes import Running, bare, daemon, exchange, make_daemon, token_of

WARM: Final = 20
BATCH: Final = 100
_numbers = count(1)


def body_of(many: int) -> bytes:
    """Return a request of so many new events."""
    events: list[dict[str, Any]] = [
        {"id": f"sale-{next(_numbers)}", "type": "bench_sale", "timestamp": time.time(), "data": DATA}
        for _ in range(many)
    ]
    return msgspec.json.encode(events[0] if many == 1 else events)


def posting(server: Running, path: str, headers: Mapping[str, str], size: int, requests: int) -> Side:
    """Return a side that posts; CPU an event, in microseconds."""

    def measure() -> Mapping[str, float]:
        bodies = [body_of(size) for _ in range(WARM + requests)]
        headers_of_all = {"Content-Type": "application/json", **headers}
        with server.connection() as connection:
            for body in bodies[:WARM]:
                exchange(connection, "POST", path, body, headers_of_all)
            cpu_s = server.cpu_s()
            for body in bodies[WARM:]:
                answer = exchange(connection, "POST", path, body, headers_of_all)
            cpu_s = server.cpu_s() - cpu_s
        if b'"accepted"' in answer and b'"accepted":%d' % size not in answer.replace(b" ", b""):
            raise BenchError(f"{path}: not all of {size} events were taken: {answer[:500]!r}")
        return {"cpu": 1e6 * cpu_s / (size * requests)}

    return measure


def inserting(path: Path, size: int, commits: int) -> Side:
    """Return a side that writes rows to bare sqlite3; CPU a row, in microseconds."""
    connection = connect_bare(path)

    def measure() -> Mapping[str, float]:
        batches = [bare_rows(size) for _ in range(commits)]
        cpu_s = time.thread_time()
        for batch in batches:
            write_bare(connection, batch)
        return {"cpu": 1e6 * (time.thread_time() - cpu_s) / (size * commits)}

    return measure


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of ingest."""
    ones, batches = effort.pick(1000, 5), effort.pick(100, 2)
    make_daemon(directory / "run", "")
    with daemon(directory / "run") as sixfbd, bare(directory / "bare", "handler") as handler:
        headers = {"Authorization": f"Bearer {token_of(directory / 'run')}"}
        measured = take_turns(
            {
                "one": posting(sixfbd, "/api/events", headers, 1, ones),
                "handler": posting(handler, "/", {}, 1, ones),
                "sqlite3, 1 a commit": inserting(directory / "one.db", 1, ones),
                "batch": posting(sixfbd, "/api/events", headers, BATCH, batches),
                "sqlite3": inserting(directory / "batch.db", BATCH, batches),
            },
            effort,
        )
    return [
        Row(
            "ingest CPU an event, 1 a request",
            "us",
            figures(measured, "cpu", "one"),
            "bare handler + bare sqlite3",
            figures(measured, "cpu", "handler", "sqlite3, 1 a commit"),
            Goal(1.3),
        ),
        Row(
            f"ingest CPU an event, {BATCH} a request",
            "us",
            figures(measured, "cpu", "batch"),
            f"bare sqlite3, {BATCH} a commit",
            figures(measured, "cpu", "sqlite3"),
            Goal(5),
        ),
    ]
