"""Deleting what is older than it may be kept, or more than fits, a slice at a time. Functions on a connection, no clock.

Deletes from the beginning only: numbers stay without gaps. Of each step series the last hour stays, with its total. The
space goes back to the file system (`give_back`: incremental auto_vacuum), but for a little that is used again; in a file
that was made without auto_vacuum all of it is used again instead.
"""

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from sixfbd.journal.schema import read_meta, write_meta

SLICE_S: Final = 0.004  # of the writer's time; the commit that follows counts towards DESIGN's 5 ms as well
ROWS_AT_ONCE: Final = 50
PAGES_AT_ONCE: Final = 32
PAGES_KEPT: Final = 256  # free pages that are left in the file, to be used again
INCREMENTAL: Final = 2  # https://www.sqlite.org/pragma.html#pragma_auto_vacuum
EVENTS_DELETED: Final = "events_deleted_upto"


class Retained(Struct, frozen=True):
    """How many rows retention deleted."""

    records: int = 0
    events: int = 0
    step_hours: int = 0


class Cut(Struct, frozen=True):
    """What may go: records up to a number and before a time, events up to a number and before a time, hours of steps."""

    records_upto: int
    records_before: float
    events_upto: int
    events_before: float


def delete_slice(connection: sqlite3.Connection, cut: Cut) -> Retained:
    """Delete for at most SLICE_S, in the caller's transaction. All zero: nothing is left to delete."""
    end = time.perf_counter() + SLICE_S
    return Retained(
        _until(end, lambda: _delete_records(connection, cut)),
        _until(end, lambda: _delete_events(connection, cut)),
        _until(end, lambda: _delete_hours(connection, int(cut.events_before * 1000))),
    )


def shrink_slice(connection: sqlite3.Connection, cut: Cut, most_bytes: int) -> Retained:
    """Delete the oldest records and events that the cut allows while more than `most_bytes` are used, for at most SLICE_S.

    All zero: it is small enough, or the cut allows no more. Records go only as far back as events do: when those of the last
    days are what fills the file, losing every record would not make it small.
    """
    end = time.perf_counter() + SLICE_S
    records = events = 0
    while time.perf_counter() < end and used_bytes(connection) > most_bytes:
        oldest_record = connection.execute("SELECT at FROM records ORDER BY seq LIMIT 1").fetchone()
        oldest_event = connection.execute("SELECT received_at FROM events ORDER BY seq LIMIT 1").fetchone()
        more = _delete_records(connection, cut) if _is_older(oldest_record, oldest_event) else 0
        some = 0 if more else _delete_events(connection, cut)
        if not more and not some:
            break
        records, events = records + more, events + some
    return Retained(records, events, 0)


def _is_older(one: tuple[float] | None, other: tuple[float] | None) -> bool:
    return one is not None and (other is None or one[0] < other[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return what of the file is used; the rest is free pages in it."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def give_back(connection: sqlite3.Connection) -> bool:
    """Give free pages back to the file system for at most SLICE_S, in the caller's transaction; False: none is to be given."""
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
        return False
    end = time.perf_counter() + SLICE_S
    while connection.execute("PRAGMA freelist_count").fetchone()[0] > PAGES_KEPT:
        if time.perf_counter() >= end:
            return True
        connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
    return False


def _until(end: float, delete: Callable[[], int]) -> int:
    deleted = 0
    while time.perf_counter() < end and (some := delete()):
        deleted += some
    return deleted


def _delete_records(connection: sqlite3.Connection, cut: Cut) -> int:
    upto = _old_prefix(connection, "records", "at", cut.records_upto, cut.records_before)
    return connection.execute("DELETE FROM records WHERE seq <= ?", (upto,)).rowcount


def _delete_events(connection: sqlite3.Connection, cut: Cut) -> int:
    upto = _old_prefix(connection, "events", "received_at", cut.events_upto, cut.events_before)
    if upto > (read_meta(connection, EVENTS_DELETED) or 0):
        write_meta(connection, EVENTS_DELETED, upto)
    return connection.execute("DELETE FROM events WHERE seq <= ?", (upto,)).rowcount


def _old_prefix(connection: sqlite3.Connection, table: str, column: str, upto: int, before: float) -> int:
    """The number up to which the oldest rows may go, at most ROWS_AT_ONCE of them; 0: none."""
    last = 0
    for seq, at in connection.execute(
        f"SELECT seq, {column} FROM {table} WHERE seq <= ? ORDER BY seq LIMIT {ROWS_AT_ONCE}", (upto,)
    ):
        if at >= before:
            break
        last = seq
    return last


def _delete_hours(connection: sqlite3.Connection, before_ms: int) -> int:
    hours = connection.execute(
        "SELECT series, hour_ms FROM step_hours AS old WHERE hour_ms < ? AND EXISTS ("
        " SELECT 1 FROM step_hours AS later WHERE later.series = old.series AND later.hour_ms > old.hour_ms)"
        f" LIMIT {ROWS_AT_ONCE}",
        (before_ms,),
    ).fetchall()
    connection.executemany("DELETE FROM step_parts WHERE series = ? AND hour_ms = ?", hours)
    connection.executemany("DELETE FROM step_hours WHERE series = ? AND hour_ms = ?", hours)
    return len(hours)
