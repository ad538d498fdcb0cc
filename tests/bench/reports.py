"""Reports over 30 days of events, beside the same question asked of raw SQLite; totals must equal an independent count.

Events are posted to a real daemon, which is started anew before it is asked. SQLite has them in one table with an index over
type and time and answers what the report's main sums ask, by json_extract.
"""

import json
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.bench.passes import BenchError, Effort, Goal, Row, Side, figures, percentile, take_turns
from tests.bench.processes import Running, daemon, exchange, make_daemon, token_of

EVENTS: Final = 1_000_000
DAYS: Final = 30
BATCH: Final = 500
ASKED: Final = 20
CITIES: Final = ("dallas", "atlanta", "chicago", "houston")
REPORTS: Final = ("business", "performance", "inventory", "payments", "sms", "system")
TYPES: Final = ("request",) * 8 + ("ticket_sale", "checkout_started")

QUESTIONS: Final[Mapping[str, str]] = {
    "business": "SELECT json_extract(data, '$.cityId'), json_extract(data, '$.tier'), sum(json_extract(data, '$.quantity')), "
    "sum(json_extract(data, '$.amount')), count(*) FROM events WHERE type = 'ticket_sale' AND at >= ? GROUP BY 1, 2",
    "performance": "SELECT json_extract(data, '$.statusCode'), count(*), avg(json_extract(data, '$.duration')) "
    "FROM events WHERE type = 'request' AND at >= ? GROUP BY 1",
}


def made(count: int, now: float) -> Iterator[dict[str, Any]]:
    """Events of the last DAYS days, oldest first."""
    draw = random.Random(5)
    step = DAYS * 86_400 / count
    for number in range(count):
        kind = draw.choice(TYPES)
        data: dict[str, Any] = {}
        if kind == "request":
            status = draw.choice((200, 200, 200, 404, 500))
            data = {
                "path": f"/orders/{number}",
                "method": "GET",
                "statusCode": status,
                "duration": draw.randint(1, 900),
            }
        elif kind == "ticket_sale":
            data = {"orderId": f"o{number}", "cityId": draw.choice(CITIES), "tier": draw.choice(("ga", "vip"))}
            data |= {"quantity": draw.randint(1, 4), "amount": draw.randint(100, 99_999), "currency": "USD"}
        yield {
            "id": f"e{number}",
            "type": kind,
            "timestamp": now - DAYS * 86_400 + (number + 1) * step - 1.0,
            "data": data,
        }


def fill(server: Running, token: str, path: Path, events: Iterator[dict[str, Any]]) -> dict[str, float]:
    """Post events and write them to SQLite; return the totals of an independent count."""
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE events (id TEXT, type TEXT, at REAL, data TEXT)")
    totals = {"tickets": 0.0, "cents": 0.0, "requests": 0.0, "ms": 0.0}
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with server.connection() as connection:
        batch: list[dict[str, Any]] = []
        for event in events:
            batch.append(event)
            if event["type"] == "ticket_sale":
                totals["tickets"] += event["data"]["quantity"]
                totals["cents"] += event["data"]["amount"]
            elif event["type"] == "request":
                totals["requests"] += 1
                totals["ms"] += event["data"]["duration"]
            if len(batch) == BATCH:
                _put(connection, headers, base, batch)
                batch = []
        _put(connection, headers, base, batch)
    base.execute("CREATE INDEX by_type ON events (type, at)")
    base.commit()
    base.close()
    return totals


def _put(connection: Any, headers: Mapping[str, str], base: sqlite3.Connection, batch: list[dict[str, Any]]) -> None:
    if not batch:
        return
    answer = exchange(connection, "POST", "/api/events", msgspec.json.encode(batch), headers)
    if b'"accepted":%d' % len(batch) not in answer.replace(b" ", b""):
        raise BenchError(f"not all of {len(batch)} events were taken: {answer[:300]!r}")
    rows = ((one["id"], one["type"], one["timestamp"], json.dumps(one["data"])) for one in batch)
    base.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)
    base.commit()


def asking(server: Running, name: str, times: int) -> Side:
    """Return a side that asks for a report over all days; p95 in milliseconds."""

    def measure() -> Mapping[str, float]:
        took = []
        with server.connection() as connection:
            for _ in range(times):
                began = time.perf_counter()
                exchange(connection, "GET", f"/api/monitoring/{name}?timeframe={DAYS}d", b"", {})
                took.append(1e3 * (time.perf_counter() - began))
        return {"p95": percentile(took, 0.95)}

    return measure


def raw(path: Path, name: str, since: float, times: int) -> Side:
    """Return a side that asks SQLite; p95 in milliseconds."""
    base = sqlite3.connect(path)

    def measure() -> Mapping[str, float]:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            base.execute(QUESTIONS[name], (since,)).fetchall()
            took.append(1e3 * (time.perf_counter() - began))
        return {"p95": percentile(took, 0.95)}

    return measure


def check_totals(server: Running, totals: Mapping[str, float]) -> None:
    """Raise BenchError if a total is not what was counted."""
    with server.connection() as connection:
        found = {
            name: json.loads(exchange(connection, "GET", f"/api/monitoring/{name}?timeframe={DAYS + 1}d", b"", {}))[
                "data"
            ]
            for name in ("business", "performance")
        }
    sales = found["business"]["sales"]
    equal = {
        "tickets": (sales["ticketsSold"], totals["tickets"]),
        "cents": (round(sales["revenue"] * 100), totals["cents"]),
        "requests": (found["performance"]["totalRequests"], totals["requests"]),
    }
    for name, (ours, counted) in equal.items():
        if ours != counted:
            raise BenchError(f"{name}: the report says {ours}, and {counted:g} were counted")


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of reports."""
    count, times, now = effort.pick(EVENTS, 2000), effort.pick(ASKED, 2), time.time()
    make_daemon(directory / "run", "")
    base = directory / "raw.db"
    with daemon(directory / "run") as server:
        totals = fill(server, token_of(directory / "run"), base, made(count, now))
    with daemon(directory / "run") as server:
        check_totals(server, totals)
        sides = {name: asking(server, name, times) for name in REPORTS}
        since = now - DAYS * 86_400
        sides |= {f"sqlite3 {name}": raw(base, name, since, max(1, times // 5)) for name in QUESTIONS}
        measured = take_turns(sides, effort.at_most(3))
    return [
        Row(
            f"report {name}, {count:,} events of {DAYS} days, p95",
            "ms",
            figures(measured, "p95", name),
            f"sqlite3, {name}" if name in QUESTIONS else "",
            figures(measured, "p95", f"sqlite3 {name}") if name in QUESTIONS else (),
            Goal(50, absolute=True),
        )
        for name in REPORTS
    ]
