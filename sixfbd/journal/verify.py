"""Checks of a journal against its own rules. Only reads; works on the running journal's file as on a backup.

Finds what SQLite cannot know of: gaps in the numbers, rows that do not decode, totals that do not add up.
"""

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sixfbd.journal.errors import JournalBroken, mapped_errors
from sixfbd.journal.event_log import identity_hash
from sixfbd.journal.record_log import BASE_SEQ, decode, kind_of, subjects
from sixfbd.journal.retention import EVENTS_DELETED
from sixfbd.journal.schema import EVENTS_LOST, FORM, connect, read_meta
from sixfbd.journal.step_log import HOUR_MS, INCREMENT
from sixfbd.journal.writer import last_numbers
from sixfbd.quantities import DAY

LIMIT: Final = 100


def verify_file(path: Path) -> list[str]:
    """Return what is wrong with a journal file that no daemon need have open. Raises JournalError if it is not one."""
    if not path.is_file():
        raise JournalBroken(f"{path}: there is no such file")
    with mapped_errors(path), closing(connect(path)) as connection:
        version = FORM.check_identity(connection, path)
        if version < FORM.version:
            raise JournalBroken(
                f"{path}: of version {version}, older than {FORM.version}; the daemon brings it up at its start"
            )
        connection.execute("BEGIN")
        return problems(connection)


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return what is wrong, in words, at most LIMIT of each check; [] if nothing. Reads everything."""
    found: list[str] = []
    for check in (_file, _event_numbers, _events, _records, _record_subjects, _base, _step_hours, _step_parts):
        found += _attempt(check, connection)
    return found


def _attempt(check: Callable[[sqlite3.Connection], Iterator[str]], connection: sqlite3.Connection) -> list[str]:
    said: list[str] = []
    try:
        for problem in islice(check(connection), LIMIT):
            said.append(problem)
    except sqlite3.Error as error:  # a damaged page ends this check only
        said.append(f"{check.__name__.strip('_').replace('_', ' ')} cannot be read to the end: {error}")
    return said


def _file(connection: sqlite3.Connection) -> Iterator[str]:
    for [said] in connection.execute(f"PRAGMA integrity_check({LIMIT})"):
        if said != "ok":
            yield f"file: {said}"
    for table, rowid, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"{table}: row {rowid} has no row in {parent}"


def _event_numbers(connection: sqlite3.Connection) -> Iterator[str]:
    lost = _events_lost(connection)
    first = int(read_meta(connection, EVENTS_DELETED) or 0) + 1
    expected = lost.get(first, first)
    for [seq] in connection.execute("SELECT seq FROM events ORDER BY seq"):
        if seq != expected:
            yield f"events: the numbers {expected} to {seq - 1} are missing"
        expected = lost.get(seq + 1, seq + 1)
    given = last_numbers(connection).event
    if given != expected - 1:
        yield f"events: the last number given is {given}, the last found {expected - 1}"


def _events_lost(connection: sqlite3.Connection) -> dict[int, int]:
    """What is known to be lost: the first number of each span, and the one after its last."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (EVENTS_LOST,)).fetchone()
    return {} if row is None else {lo: hi + 1 for lo, hi in msgspec.json.decode(row[0])}


def _events(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute("SELECT seq, source, id, received_at, day, hash, data FROM events")
    for seq, source, event_id, received_at, day, key, data in rows:
        try:
            if not isinstance(msgspec.json.decode(data), dict):
                yield f"event {seq}: its data is not a JSON object"
        except msgspec.DecodeError as error:
            yield f"event {seq}: its data does not decode: {error}"
        if key != identity_hash(source, event_id) or day != received_at // DAY:
            yield f"event {seq}: its hash or day is not that of its source, id and time: a repeat would not be known"


def _records(connection: sqlite3.Connection) -> Iterator[str]:
    for seq, at, kind, body in connection.execute("SELECT seq, at, kind, body FROM records"):
        try:
            record = decode(body)
        except msgspec.DecodeError as error:  # ValidationError is one
            yield f"record {seq} ({kind}): does not decode: {error}"
            continue
        if kind != kind_of(record) or at != record.at:
            yield f"record {seq}: its columns say {kind} at {at}, its body {kind_of(record)} at {record.at}"


def _record_subjects(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT seq, body, (SELECT json_group_array(subject) FROM record_subjects AS links WHERE links.seq = records.seq)"
        " FROM records"
    )
    for seq, body, linked in rows:
        try:
            expected = set(subjects(decode(body)))
        except msgspec.DecodeError:
            continue  # _records names it
        if set(msgspec.json.decode(linked)) != expected:
            yield f"record {seq}: it is about {sorted(expected)}, but linked to {linked}"


def _base(connection: sqlite3.Connection) -> Iterator[str]:
    seq = read_meta(connection, BASE_SEQ)
    if (
        seq is not None
        and not connection.execute("SELECT 1 FROM records WHERE seq = ? AND kind = 'base'", (seq,)).fetchone()
    ):
        yield f"records: the base, number {seq}, is missing; the fold cannot start"


def _step_hours(connection: sqlite3.Connection) -> Iterator[str]:
    before: dict[int, float] = {}
    rows = connection.execute("SELECT series, hour_ms, before, total FROM step_hours ORDER BY series, hour_ms")
    for series, hour_ms, stated, total in rows:
        if before.get(series, stated) != stated:
            yield f"step series {series}, hour {hour_ms}: the total before it is {stated}, but {before[series]} add up"
        before[series] = stated + total
        parts = connection.execute(
            "SELECT total FROM step_parts WHERE series = ? AND hour_ms = ? AND start_ms >= ? AND start_ms < ?",
            (series, hour_ms, hour_ms, hour_ms + HOUR_MS),
        ).fetchall()
        if not parts or math.fsum(part for [part] in parts) != total:
            yield f"step series {series}, hour {hour_ms}: its {len(parts)} parts do not add up to its total {total}"


def _step_parts(connection: sqlite3.Connection) -> Iterator[str]:
    last: tuple[int, int] = (0, 0)
    rows = connection.execute("SELECT series, start_ms, hour_ms, total, data FROM step_parts ORDER BY series, start_ms")
    for series, start_ms, hour_ms, total, data in rows:
        name = f"step series {series}, part {start_ms}"
        if not data or len(data) % INCREMENT.itemsize:
            yield f"{name}: {len(data)} bytes are no increments"
            continue
        adds = np.frombuffer(data, INCREMENT)
        first, final = int(adds["t"][0]), int(adds["t"][-1])
        follows = last[0] != series or first > last[1]
        if first != start_ms or not follows or final >= hour_ms + HOUR_MS or (np.diff(adds["t"]) <= 0).any():
            yield f"{name}: its times are not in order"
        if math.fsum(adds["add"].tolist()) != total:
            yield f"{name}: its increments do not add up to {total}"
        last = (series, final)
