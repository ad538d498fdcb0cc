"""Events as rows: numbering, duplicates, cursors, reading. Functions on a connection, no threads.

An event is known by (source, id) for KNOWN_FOR_S after it was received, found by day and a 64-bit hash and then compared.
"""

import sqlite3
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from sixfbd.journal.step_log import Increment, add_increments
from sixfbd.model import CheckName, Event, Json, StoredEvent
from sixfbd.quantities import DAY

KNOWN_FOR_S: Final = 7 * DAY
KNOWN_DAYS: Final = round(KNOWN_FOR_S / DAY)
CURSOR_LIMIT_BYTES: Final = 64 * 1024

_encode: Final = msgspec.json.Encoder().encode
_COLUMNS: Final = "seq, source, received_at, id, type, at, data"
_KNOWN: Final = (
    "SELECT seq FROM events INDEXED BY events_known"
    f" WHERE day IN ({', '.join('?' * (KNOWN_DAYS + 2))}) AND hash = ? AND source = ? AND id = ? AND received_at > ?"
)


class NewEvent(Struct, frozen=True):
    """An event to be written. `received_at` is engine time; `increments` are (series, at_ms, add) with `add` >= 0."""

    event: Event
    received_at: float
    increments: tuple[Increment, ...] = ()


class Accepted(Struct, frozen=True):
    """The event is durable under this number."""

    seq: int


class Duplicate(Struct, frozen=True):
    """The event was known already; `seq` is the number of the first one."""

    seq: int


def insert_events(
    connection: sqlite3.Connection, source: str, events: Sequence[NewEvent]
) -> list[Accepted | Duplicate]:
    """Write the events that are not known and their increments, in the caller's transaction; the answers in order."""
    answers: list[Accepted | Duplicate] = []
    increments: list[Increment] = []
    for new in events:
        answer = _insert(connection, source, new)
        answers.append(answer)
        if isinstance(answer, Accepted):
            increments += new.increments
    add_increments(connection, increments)
    return answers


def _insert(connection: sqlite3.Connection, source: str, new: NewEvent) -> Accepted | Duplicate:
    event, received_at = new.event, new.received_at
    day, key = int(received_at // DAY), identity_hash(source, event.id)
    # One day ahead as well: engine time starts anew from the wall clock, which may have been set back.
    known = connection.execute(
        _KNOWN, (*range(day - KNOWN_DAYS, day + 2), key, source, event.id, received_at - KNOWN_FOR_S)
    ).fetchone()
    if known is not None:
        return Duplicate(known[0])
    row = connection.execute(
        "INSERT INTO events (source, id, type, at, received_at, day, hash, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (source, event.id, event.type, event.timestamp, received_at, day, key, _encode(event.data).decode()),
    )
    assert row.lastrowid is not None
    return Accepted(row.lastrowid)


def identity_hash(source: str, event_id: str) -> int:
    """Return the signed 64-bit hash of an event's identity."""
    digest = blake2b(f"{source}\0{event_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def encode_cursor(check: CheckName, cursor: Json) -> str:
    """Return a cursor as it is stored. Raises ValueError if it is larger than 64 KiB, TypeError if it is not JSON."""
    body = _encode(cursor)
    if len(body) > CURSOR_LIMIT_BYTES:
        raise ValueError(
            f"check {check}: the cursor has {len(body)} bytes, {CURSOR_LIMIT_BYTES} are allowed; keep a position in it, "
            "not the data"
        )
    return body.decode()


def write_cursor(connection: sqlite3.Connection, check: CheckName, encoded: str) -> None:
    """Set the cursor of a check, in the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO cursors (source, cursor) VALUES (?, ?)", (check, encoded))


def read_cursor(connection: sqlite3.Connection, check: CheckName) -> Json | None:
    """Return the last committed cursor of a check, or None."""
    row = connection.execute("SELECT cursor FROM cursors WHERE source = ?", (check,)).fetchone()
    cursor: Json | None = None if row is None else msgspec.json.decode(row[0])
    return cursor


def read_events(
    connection: sqlite3.Connection,
    after_seq: int,
    types: Collection[str] | None,
    start: float | None,
    end: float | None,
    limit: int,
    newest_first: bool,
) -> list[StoredEvent]:
    """Return events after a number, with `start <= timestamp < end`, in order of number; see JournalDatabase.events."""
    where, given = ["seq > ?"], [float(after_seq)]
    if start is not None:
        where, given = [*where, "at >= ?"], [*given, start]
    if end is not None:
        where, given = [*where, "at < ?"], [*given, end]
    timed = len(given) > 1
    order = "DESC" if newest_first else "ASC"
    rows: list[tuple[int, str, float, str, str, float, str]] = []
    # The index is named because the planner, without statistics, may sort all events of a type to return a few.
    for wanted in (None,) if types is None else sorted(set(types)):
        if wanted is None:
            index, also = ("INDEXED BY events_at", []) if timed else ("NOT INDEXED", [])
        else:
            index, also = f"INDEXED BY events_type{'_at' if timed else ''}", ["type = ?"]
        rows += connection.execute(
            f"SELECT {_COLUMNS} FROM events {index} WHERE {' AND '.join([*where, *also])} ORDER BY seq {order} LIMIT ?",
            (*given, *(() if wanted is None else (wanted,)), limit),
        ).fetchall()
    rows.sort(key=lambda row: row[0], reverse=newest_first)
    return [stored_event(row) for row in rows[:limit]]


def stored_event(row: tuple[int, str, float, str, str, float, str]) -> StoredEvent:
    """Return the event of a row of EVENT_COLUMNS."""
    seq, source, received_at, event_id, event_type, at, data = row
    return StoredEvent(seq, source, received_at, Event(event_id, event_type, at, msgspec.json.decode(data)))


EVENT_COLUMNS: Final = _COLUMNS
