"""What can be read of a damaged journal.db becomes a new one: records, events, cursors, step series, with their numbers.

The new file is made beside the damaged one and takes its place when it is whole, so that a crash in between begins anew.
Of a step series the total at its end is kept where it can be read; what was lost of it counts as before its first hour.
"""

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from sixfbd.journal import record_log
from sixfbd.journal.errors import JournalError, JournalFull, mapped_errors
from sixfbd.journal.event_log import identity_hash
from sixfbd.journal.files import sync_directory
from sixfbd.journal.retention import EVENTS_DELETED
from sixfbd.journal.salvage import Damage, damage_of, read_only, readable, set_aside, with_header
from sixfbd.journal.schema import EVENTS_LOST, connect_writer, write_meta
from sixfbd.journal.step_log import HOUR_MS, INCREMENT

ROWS_AT_ONCE: Final = 2000
NUMBERS: Final = (record_log.BASE_SEQ, record_log.BASE_UPTO, EVENTS_DELETED, "last_alive_at")


def mend(path: Path, found: str | None = None) -> Damage | None:
    """If the journal is damaged, set it aside and put a new one with what can be read in its place; say what was lost.

    `found` is damage that is known already. Raises JournalError if the directory cannot be written, JournalFull if there is
    no room for what can be read: then nothing has changed.
    """
    fresh = path.with_name(f"{path.name}.salvaged")
    if fresh.exists() and not path.exists():  # ended between the two renames
        fresh.rename(path)
    _remove(fresh)
    why = found or damage_of(path)
    if why is None:
        return None
    outcome = _saved(path, fresh)
    aside = set_aside(path)
    if fresh.exists():
        fresh.rename(path)
        sync_directory(path.parent)
    return Damage(file=path.name, why=why, aside=aside.name, outcome=outcome)


def _saved(path: Path, fresh: Path) -> str:
    """Make the new file; return what is in it, in words."""
    try:
        with mapped_errors(fresh), closing(connect_writer(fresh)) as new, _opened(path, fresh) as old:
            return _save(old, new)
    except JournalFull as error:
        _remove(fresh)
        raise JournalFull(
            f"{error}: the file is damaged, and saving what can be read of it needs as much again"
        ) from error
    except (JournalError, sqlite3.Error) as error:
        _remove(fresh)
        return f"nothing of it can be read ({error}); the journal is empty now: alerts, tokens and events are lost"


@contextmanager
def _opened(path: Path, fresh: Path) -> Iterator[sqlite3.Connection]:
    """Open the damaged file, or if its header is gone a copy with another one."""
    connection, copy = read_only(path), path.with_name(f"{path.name}.header")
    try:
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.DatabaseError:
            connection.close()
            with closing(sqlite3.connect(fresh)) as made:
                made.execute("PRAGMA wal_checkpoint").fetchone()
            with_header(path, copy, fresh)
            connection = read_only(copy)
            connection.execute("SELECT seq FROM sqlite_sequence").fetchall()
        yield connection
    finally:
        connection.close()
        _remove(copy)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _save(old: sqlite3.Connection, new: sqlite3.Connection) -> str:
    given = dict(_rows_of(old, "SELECT name, seq FROM sqlite_sequence"))
    meta = {key: value for key, value in _rows_of(old, "SELECT key, value FROM meta") if isinstance(value, int | float)}
    with _batches(new) as step:
        records = _save_records(old, new, step)
        events = _save_events(old, new, step)
        for source, cursor in _rows_of(old, "SELECT source, cursor FROM cursors"):
            if _is_json(cursor):
                new.execute("INSERT OR IGNORE INTO cursors (source, cursor) VALUES (?, ?)", (source, cursor))
        _save_steps(old, new, step)
        for key in NUMBERS:
            if key in meta:
                write_meta(new, key, meta[key])
        _settle_base(new)
        last_event = max(given.get("events", 0), max(events, default=0))
        lost_events = _missing(events, int(meta.get(EVENTS_DELETED, 0)) + 1, last_event)
        if lost_events:
            new.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                (EVENTS_LOST, msgspec.json.encode(lost_events).decode()),
            )
        last_record = max(given.get("records", 0), max(records, default=0))
        for table, last in (("records", last_record), ("events", last_event)):
            new.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last))
    lost = sum(hi - lo + 1 for lo, hi in lost_events)
    return (
        f"{len(records)} records and {len(events)} events were kept, "
        f"{_records_lost(old, records)} records and {lost} events lost"
    )


@contextmanager
def _batches(new: sqlite3.Connection) -> Iterator[Any]:
    """Transactions of ROWS_AT_ONCE calls of what is given."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count % ROWS_AT_ONCE == 0:
            new.execute("COMMIT")
            new.execute("BEGIN IMMEDIATE")

    new.execute("BEGIN IMMEDIATE")
    try:
        yield step
    finally:
        if new.in_transaction:
            new.execute("COMMIT")


def _rows_of(old: sqlite3.Connection, sql: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a small table, as far as they can be read from its beginning."""
    try:
        yield from old.execute(sql)
    except sqlite3.Error:
        return


def _save_records(old: sqlite3.Connection, new: sqlite3.Connection, step: Any) -> list[int]:
    kept = []
    for seq, at, kind, body in readable(old, "records", "at, kind, body", "seq"):
        try:
            record = record_log.decode(body)
        except (msgspec.DecodeError, TypeError):
            continue
        if record_log.kind_of(record) != kind or record.at != at:
            continue
        new.execute("INSERT INTO records (seq, at, kind, body) VALUES (?, ?, ?, ?)", (seq, at, kind, body))
        links = [(subject, seq) for subject in record_log.subjects(record)]
        new.executemany("INSERT INTO record_subjects (subject, seq) VALUES (?, ?)", links)
        kept.append(seq)
        step()
    return kept


def _save_events(old: sqlite3.Connection, new: sqlite3.Connection, step: Any) -> list[int]:
    kept = []
    columns = "source, id, type, at, received_at, day, hash, data"
    for row in readable(old, "events", columns, "seq"):
        seq, source, event_id, _, _, _, key, data = row[0], row[1], row[2], row[3], row[4], row[5], row[7], row[8]
        if not _is_json(data) or not isinstance(source, str) or not isinstance(event_id, str):
            continue
        if key != identity_hash(source, event_id):
            continue
        new.execute(f"INSERT INTO events (seq, {columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        kept.append(seq)
        step()
    return kept


def _is_json(text: object) -> bool:
    try:
        msgspec.json.decode(text if isinstance(text, str) else "")
    except msgspec.DecodeError:
        return False
    return True


def _settle_base(new: sqlite3.Connection) -> None:
    """Without its base the fold begins at the first record that is left."""
    new.execute(
        "DELETE FROM meta WHERE key IN (?, ?) AND NOT EXISTS (SELECT 1 FROM records WHERE kind = 'base' AND seq ="
        " (SELECT value FROM meta WHERE key = ?))",
        (record_log.BASE_SEQ, record_log.BASE_UPTO, record_log.BASE_SEQ),
    )


def _records_lost(old: sqlite3.Connection, kept: list[int]) -> str:
    """Say how many records are not among those kept. Their numbers have gaps anyway (a new base takes the old one's place),
    so the index is asked which there were; if it cannot be read either, nobody can tell."""
    try:
        there = {seq for [seq] in old.execute("SELECT seq FROM records INDEXED BY records_kind WHERE kind >= ''")}
    except sqlite3.Error:
        return "an unknown number of"
    return str(len(there.difference(kept)))


def _missing(found: list[int], first: int, last: int) -> list[tuple[int, int]]:
    """The spans of numbers from `first` to `last` that are not among those found, which increase."""
    spans, expected = [], first
    for number in [*found, last + 1]:
        if number > expected:
            spans.append((expected, number - 1))
        expected = max(expected, number + 1)
    return spans


def _save_steps(old: sqlite3.Connection, new: sqlite3.Connection, step: Any) -> None:
    known = set()
    for series, metric, labels, kind in readable(old, "step_series", "metric, labels, kind", "id"):
        if _is_json(labels) and isinstance(metric, str) and kind in ("counter", "gauge", "summary", "histogram"):
            new.execute(
                "INSERT OR IGNORE INTO step_series (id, metric, labels, kind) VALUES (?, ?, ?, ?)",
                (series, metric, labels, kind),
            )
            known.add(series)
    for part, series, start_ms, hour_ms, data in readable(old, "step_parts", "series, start_ms, hour_ms, data", "id"):
        if series not in known or not _fits(start_ms, hour_ms, data):
            continue
        total = math.fsum(np.frombuffer(data, INCREMENT)["add"].tolist())
        new.execute(
            "INSERT OR IGNORE INTO step_hours (series, hour_ms, before, total) VALUES (?, ?, 0, 0)", (series, hour_ms)
        )
        new.execute(
            "INSERT OR IGNORE INTO step_parts (id, series, start_ms, hour_ms, total, data) VALUES (?, ?, ?, ?, ?, ?)",
            (part, series, start_ms, hour_ms, total, data),
        )
        step()
    for series in sorted(known):
        _add_up(old, new, series)
    new.execute("DELETE FROM step_series WHERE id NOT IN (SELECT series FROM step_hours)")


def _fits(start_ms: object, hour_ms: object, data: object) -> bool:
    if not isinstance(start_ms, int) or not isinstance(hour_ms, int) or not isinstance(data, bytes):
        return False
    if not data or len(data) % INCREMENT.itemsize:
        return False
    adds = np.frombuffer(data, INCREMENT)
    times, values = adds["t"], adds["add"]
    inside = int(times[0]) == start_ms >= hour_ms and int(times[-1]) < hour_ms + HOUR_MS
    return inside and bool((np.diff(times) > 0).all() and np.isfinite(values).all() and (values >= 0).all())


def _add_up(old: sqlite3.Connection, new: sqlite3.Connection, series: int) -> None:
    """Give the hours of a series their totals, and the first one what comes before it."""
    parts = new.execute(
        "SELECT hour_ms, total FROM step_parts WHERE series = ? ORDER BY start_ms", (series,)
    ).fetchall()
    hours = {hour: math.fsum(total for _, total in group) for hour, group in groupby(parts, key=lambda part: part[0])}
    before = max(0.0, _stated_total(old, series) - math.fsum(hours.values()))
    for hour_ms, total in hours.items():
        new.execute(
            "UPDATE step_hours SET before = ?, total = ? WHERE series = ? AND hour_ms = ?",
            (before, total, series, hour_ms),
        )
        before += total


def _stated_total(old: sqlite3.Connection, series: int) -> float:
    sql = "SELECT before + total FROM step_hours WHERE series = ? ORDER BY hour_ms DESC LIMIT 1"
    try:
        row = old.execute(sql, (series,)).fetchone()
    except sqlite3.Error:
        return 0.0
    return float(row[0]) if row is not None and isinstance(row[0], int | float) and math.isfinite(row[0]) else 0.0
