"""Events as rows: numbering, duplicates, cursors, reading. Functions on a connection, no threads.

An event is known by (source, id) for KNOWN_FOR_S after it was received, found by day and a 64-bit hash and then compared.
"""

import sqlite3
import struct
import time
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from sixfbd.journal.step_log import Increment, add_increments
from sixfbd.journal.writer import Numbers
from sixfbd.model import CheckName, Event, Json, StoredEvent
from sixfbd.privacy import forgotten
from sixfbd.quantities import DAY

KNOWN_FOR_S: Final = 7 * DAY
KNOWN_DAYS: Final = round(KNOWN_FOR_S / DAY)
CURSOR_LIMIT_BYTES: Final = 64 * 1024
GENERATION_DAYS: Final = 4
GENERATIONS: Final = 2  # before the current one: days that an event may be known of
LAST_BIT: Final = 2**23 - 1  # 1 MiB a table; half a million events a generation leave one lookup in seventy to the file
FORGET_ROWS: Final = 500  # looked at by one statement
READ_AT_START: Final = 500_000  # events

_HASH: Final = struct.Struct("<q")
_encode: Final = msgspec.json.Encoder().encode
_COLUMNS: Final = "seq, source, received_at, id, type, at, data"
_KNOWN: Final = (
    "SELECT seq FROM events INDEXED BY events_known"
    f" WHERE day IN ({', '.join('?' * (KNOWN_DAYS + 2))}) AND hash = ? AND source = ? AND id = ? AND received_at > ?"
)

_INSERT: Final = (
    "INSERT INTO events (seq, source, id, type, at, received_at, day, hash, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class NewEvent(Struct, frozen=True):
    """An event to be written. `received_at` is engine time; `increments` are (series, at_ms, add) with `add` >= 0.

    `source`, if given, is what it is known by in place of the source that it is written with.
    """

    event: Event
    received_at: float
    increments: tuple[Increment, ...] = ()
    source: str = ""


class Accepted(Struct, frozen=True):
    """The event is durable under this number. `kept_at` is its time, where that is not the one it claimed."""

    seq: int
    kept_at: float | None = None


class Duplicate(Struct, frozen=True):
    """The event was known already; `seq` is the number of the first one."""

    seq: int


class Known:
    """Says of most events that they are not known, without a look into the file.

    Two bits a known event in tables of GENERATION_DAYS each; where both are set the file is asked. Belongs to the writer.
    """

    def __init__(self) -> None:
        self._tables: dict[int, bytearray] = {}  # by generation

    def note(self, day: int, key: int) -> bool:
        """Note an event of a day by its hash; tell whether it may have been noted before: False is certain."""
        first, second = key & LAST_BIT, key >> 32 & LAST_BIT
        i, one, j, other = first >> 3, 1 << (first & 7), second >> 3, 1 << (second & 7)
        held = False
        for table in self._tables.values():
            if table[i] & one and table[j] & other:
                held = True
                break
        table = self._table(day // GENERATION_DAYS)
        table[i] |= one
        table[j] |= other
        return held

    def _table(self, generation: int) -> bytearray:
        table = self._tables.get(generation)
        if table is None:
            table = self._tables[generation] = bytearray((LAST_BIT + 1) // 8)
            for old in [one for one in self._tables if one < generation - GENERATIONS]:
                del self._tables[old]  # of days that no event is known of any more
        return table


def read_known(connection: sqlite3.Connection) -> Known | None:
    """Return what the file knows; None if it is more than is read at a start: then the file is asked of each event."""
    [newest] = connection.execute("SELECT max(day) FROM events").fetchone()
    known = Known()
    if newest is None:
        return known
    rows = connection.execute(
        "SELECT day, hash FROM events INDEXED BY events_known WHERE day >= ? ORDER BY day LIMIT ?",
        (newest - KNOWN_DAYS - 1, READ_AT_START + 1),
    ).fetchall()
    if len(rows) > READ_AT_START:
        return None
    for day, key in rows:
        known.note(day, key)
    return known


def insert_events(
    connection: sqlite3.Connection,
    source: str,
    events: Sequence[NewEvent],
    numbers: Numbers,
    known: Known | None = None,
) -> list[Accepted | Duplicate]:
    """Write the events that are not known and their increments, in the caller's transaction, numbered on from `numbers`;
    the answers in order.

    `known` spares a look into the file for events that it does not hold.
    """
    answers: list[Accepted | Duplicate] = []
    increments: list[Increment] = []
    rows: list[tuple[object, ...]] = []
    here: dict[tuple[str, str], int] = {}
    last = numbers.event
    for new in events:
        event, of = new.event, new.source or source
        day, key = int(new.received_at // DAY), identity_hash(of, event.id)
        first = here.get((of, event.id))
        if first is None and (known is None or known.note(day, key)):
            first = _first(connection, of, new, day, key)
        if first is not None:
            answers.append(Duplicate(first))
            continue
        last += 1
        here[of, event.id] = last
        data = _encode(event.data).decode()
        rows.append((last, of, event.id, event.type, event.timestamp, new.received_at, day, key, data))
        answers.append(Accepted(last))
        increments += new.increments
    connection.executemany(_INSERT, rows)
    numbers.event = last
    add_increments(connection, increments)
    return answers


def _first(connection: sqlite3.Connection, source: str, new: NewEvent, day: int, key: int) -> int | None:
    """Return the number of the event of the same identity that is known, or None."""
    # One day ahead as well: engine time starts anew from the wall clock, which may have been set back.
    found = connection.execute(
        _KNOWN, (*range(day - KNOWN_DAYS, day + 2), key, source, new.event.id, new.received_at - KNOWN_FOR_S)
    ).fetchone()
    return None if found is None else int(found[0])


def identity_hash(source: str, event_id: str) -> int:
    """Return the signed 64-bit hash of an event's identity."""
    key: int = _HASH.unpack(blake2b(f"{source}\0{event_id}".encode(), digest_size=8).digest())[0]
    return key


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


def forget_slice(
    connection: sqlite3.Connection, customers: Collection[str], after_seq: int, end: float, *, dry_run: bool
) -> tuple[int | None, int]:
    """Write "erased" in place of customers, in events from a number on and until `end` (time.perf_counter), in the caller's
    transaction. Return the number to go on after, None at the end, and how many events hold one of them.
    """
    held = 0
    needles = [_encode(one).decode()[1:-1] for one in customers]  # as JSON writes them
    any_of = " OR ".join(["instr(data, ?) > 0"] * len(needles))
    [last] = connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()
    while after_seq < last:
        upto = after_seq + FORGET_ROWS
        rows = connection.execute(
            f"SELECT seq, data FROM events NOT INDEXED WHERE seq > ? AND seq <= ? AND ({any_of})",
            (after_seq, upto, *needles),
        ).fetchall()
        for seq, data in rows:
            before = msgspec.json.decode(data)
            after = forgotten(before, customers)
            if after is before:
                continue
            held += 1
            if not dry_run:
                connection.execute("UPDATE events SET data = ? WHERE seq = ?", (_encode(after).decode(), seq))
        after_seq = upto
        if time.perf_counter() >= end:
            return after_seq, held
    return None, held


EVENT_COLUMNS: Final = _COLUMNS
