"""Events written durably, rows a second, beside bare sqlite3: same table, indexes, WAL and synchronous FULL.

Ours is one caller who waits for each commit through the writer's thread; it encodes, looks for duplicates and numbers. The
bare side is given ready rows in the thread that owns the connection. Both are open from the first pass to the last: a
new WAL grows with each commit, one that has been used is written over, which is cheaper.
"""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from anyio.from_thread import start_blocking_portal

from sixfbd.journal.database import JournalDatabase, NewEvent
from sixfbd.journal.event_log import identity_hash
from sixfbd.journal.schema import MIGRATIONS
from sixfbd.model import Event
from sixfbd.quantities import DAY
from tests.bench.passes import Effort, Goal, Row, Side, row, take_turns

SIZES: Final = (1, 10, 100, 1000)
DATA: Final = {
    "orderId": "o-123456", "cityId": "dallas-2026-03", "tier": "ga", "quantity": 1, "amount": 5000, "currency": "USD",
    "paymentMethod": "card", "discountCode": "EARLYBIRD", "customerId": "c-00112233",
}  # fmt: skip
INSERT: Final = (
    "INSERT INTO events (source, id, type, at, received_at, day, hash, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_numbers = count(1)


def events(many: int) -> list[NewEvent]:
    now = time.time()
    return [NewEvent(Event(f"sale-{next(_numbers)}", "ticket_sale", now, dict(DATA)), now) for _ in range(many)]


@contextmanager
def ours(path: Path, size: int, commits: int) -> Iterator[Side]:
    """The journal in an event loop of its own, in a thread that this one waits for."""
    with start_blocking_portal("trio") as portal, portal.wrap_async_context_manager(JournalDatabase(path)) as journal:

        async def write() -> Mapping[str, float]:
            batches = [events(size) for _ in range(commits)]
            began = time.perf_counter()
            for batch in batches:
                await journal.put_events("bench", batch)
            return {"rows": size * commits / (time.perf_counter() - began)}

        yield lambda: portal.call(write)


def connect_bare(path: Path) -> sqlite3.Connection:
    """Open a database with the journal's table of events and its indexes, as durable as the journal."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=full")
    for statement in MIGRATIONS[0]:
        if " events " in statement:
            connection.execute(statement)
    return connection


def write_bare(connection: sqlite3.Connection, batch: Sequence[tuple[object, ...]]) -> None:
    """Write rows in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, batch)
    connection.execute("COMMIT")


def bare_rows(many: int) -> list[tuple[object, ...]]:
    """Return rows as they are written."""
    return [_row(new) for new in events(many)]


def _row(new: NewEvent) -> tuple[object, ...]:
    event, at = new.event, new.received_at
    data = '{"orderId":"o-123456","cityId":"dallas-2026-03","tier":"ga","quantity":1,"amount":5000,"currency":"USD",'
    data += '"paymentMethod":"card","discountCode":"EARLYBIRD","customerId":"c-00112233"}'
    return ("bench", event.id, event.type, event.timestamp, at, int(at // DAY), identity_hash("bench", event.id), data)


def bare(path: Path, size: int, commits: int) -> Side:
    connection = connect_bare(path)

    def write() -> Mapping[str, float]:
        batches = [bare_rows(size) for _ in range(commits)]
        began = time.perf_counter()
        for batch in batches:
            write_bare(connection, batch)
        return {"rows": size * commits / (time.perf_counter() - began)}

    return write


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of the journal; fewer commits of the large ones."""
    many = effort.pick(500, 5)
    found = []
    for size in SIZES:
        commits = max(1, min(many, 20 * many // size))
        (directory / str(size)).mkdir()
        with ours(directory / str(size) / "journal.db", size, commits) as journal:
            bare_side = bare(directory / str(size) / "bare.db", size, commits)
            measured = take_turns({"sixfbd": journal, "bare sqlite3": bare_side}, effort)
        what = f"journal, events durable, {size:,} a commit"
        found.append(row(what, "rows/s", measured, "rows", "sixfbd", "bare sqlite3", Goal(0.8, at_least=True)))
    return found
