"""Step series as rows: increments packed by the hour, with the total before it. Functions on a connection, no threads.

Two levels: `step_hours` holds the totals, so that a late event rewrites few of them; an hour's increments are in
`step_parts` of at most PART_SIZE, so that a commit rewrites a page however many events an hour has. All sums are
`math.fsum` of what they sum, never a running addition: money in major units does not drift.
"""

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from struct import Struct
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from sixfbd.model import Labels, MetricKind, Series

HOUR_MS: Final = 3_600_000
PART_SIZE: Final = 192  # 3 KiB: with its row's head on one page of the file
INCREMENT: Final = np.dtype([("t", "<i8"), ("add", "<f8")])
"""One increment in the `data` of a part: times in ms, strictly increasing; increments of one millisecond are summed."""

Increment: TypeAlias = tuple[Series, int, float]
"""Series, engine time in ms, what is added (>= 0)."""
Adds: TypeAlias = list[tuple[int, float]]
"""Times in ms, strictly increasing, and what is added."""
StepHour: TypeAlias = tuple[int, float, npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Start of the hour in ms, the total before it, times in ms (strictly increasing), increments."""

_LABELS: Final = msgspec.json.Decoder(Labels)
_KINDS: Final[Mapping[str, MetricKind]] = {kind.value: kind for kind in MetricKind}  # quicker than to call the type
_PACKED: Final = Struct("<qd")  # INCREMENT, for the few of a commit: numpy's calls cost more than they save there


def add_increments(connection: sqlite3.Connection, increments: Iterable[Increment]) -> None:
    """Write increments in any order, in the caller's transaction. Raises ValueError if one is negative or not finite."""
    by_series: dict[Series, Adds] = {}
    for series, at_ms, add in increments:
        if not (math.isfinite(add) and add >= 0):
            raise ValueError(f"{series.metric}: a counter cannot be increased by {add!r}")
        by_series.setdefault(series, []).append((at_ms, add))
    for series, adds in by_series.items():
        series_id = _series_id(connection, series)
        for hour_ms, group in groupby(merge(adds), key=lambda pair: pair[0] // HOUR_MS * HOUR_MS):
            _add_to_hour(connection, series_id, hour_ms, list(group))


def merge(adds: Adds) -> Adds:
    """Sort by time and sum what falls on one millisecond, so that times increase strictly."""
    together: dict[int, list[float]] = {}
    for at_ms, add in adds:
        together.setdefault(at_ms, []).append(add)
    return [(at_ms, math.fsum(together[at_ms])) for at_ms in sorted(together)]


def pack(adds: Adds) -> bytes:
    """Return the `data` of a part."""
    return b"".join(_PACKED.pack(*add) for add in adds)


def unpack(data: bytes) -> Adds:
    """Return the increments of a part's `data`."""
    return list(_PACKED.iter_unpack(data))


def _series_id(connection: sqlite3.Connection, series: Series) -> int:
    known = _known_series_id(connection, series)
    if known is not None:
        return known
    row = connection.execute("INSERT INTO step_series (metric, labels, kind) VALUES (?, ?, ?)", _series_key(series))
    assert row.lastrowid is not None
    return row.lastrowid


def _known_series_id(connection: sqlite3.Connection, series: Series) -> int | None:
    row = connection.execute(
        "SELECT id FROM step_series WHERE metric = ? AND labels = ? AND kind = ?", _series_key(series)
    ).fetchone()
    return None if row is None else int(row[0])


def _series_key(series: Series) -> tuple[str, str, str]:
    return series.metric, msgspec.json.encode(series.labels).decode(), series.kind.value


def _add_to_hour(connection: sqlite3.Connection, series: int, hour_ms: int, adds: Adds) -> None:
    latest = connection.execute(
        "SELECT hour_ms, before + total FROM step_hours WHERE series = ? ORDER BY hour_ms DESC LIMIT 1", (series,)
    ).fetchone() or (None, 0.0)
    if latest[0] is None or hour_ms > latest[0]:
        _new_hour(connection, series, hour_ms, latest[1])
    elif hour_ms < latest[0]:
        _late_hour(connection, series, hour_ms)
    if not _append(connection, series, hour_ms, adds):
        while adds:
            adds = _insert(connection, series, hour_ms, adds)
    totals = connection.execute(
        "SELECT total FROM step_parts WHERE series = ? AND start_ms >= ? AND start_ms < ?",
        (series, hour_ms, hour_ms + HOUR_MS),
    )
    connection.execute(
        "UPDATE step_hours SET total = ? WHERE series = ? AND hour_ms = ?",
        (math.fsum(total for [total] in totals), series, hour_ms),
    )
    if latest[0] is not None and hour_ms < latest[0]:
        _carry(connection, series, hour_ms)


def _new_hour(connection: sqlite3.Connection, series: int, hour_ms: int, before: float) -> None:
    connection.execute(
        "INSERT INTO step_hours (series, hour_ms, before, total) VALUES (?, ?, ?, 0) ON CONFLICT DO NOTHING",
        (series, hour_ms, before),
    )


def _late_hour(connection: sqlite3.Connection, series: int, hour_ms: int) -> None:
    """Make an hour between others, if there is none. Before the first one, the total is that of what retention deleted."""
    [before] = (
        connection.execute(
            "SELECT before + total FROM step_hours WHERE series = ? AND hour_ms < ? ORDER BY hour_ms DESC LIMIT 1",
            (series, hour_ms),
        ).fetchone()
        or connection.execute(
            "SELECT before FROM step_hours WHERE series = ? ORDER BY hour_ms LIMIT 1", (series,)
        ).fetchone()
    )
    _new_hour(connection, series, hour_ms, before)


def _append(connection: sqlite3.Connection, series: int, hour_ms: int, adds: Adds) -> bool:
    """Add increments that follow all others of the hour, which nearly all do; False: they do not."""
    part = connection.execute(
        "SELECT id, data FROM step_parts WHERE series = ? AND start_ms >= ? AND start_ms < ?"
        " ORDER BY start_ms DESC LIMIT 1",
        (series, hour_ms, hour_ms + HOUR_MS),
    ).fetchone()
    if part is None:
        _insert_parts(connection, series, hour_ms, adds)
        return True
    part_id, data = part
    if _PACKED.unpack_from(data, len(data) - _PACKED.size)[0] >= adds[0][0]:
        return False
    room = PART_SIZE - len(data) // _PACKED.size
    if room:
        data += pack(adds[:room])
        connection.execute("UPDATE step_parts SET total = ?, data = ? WHERE id = ?", (_total(data), data, part_id))
    _insert_parts(connection, series, hour_ms, adds[room:])
    return True


def _insert(connection: sqlite3.Connection, series: int, hour_ms: int, adds: Adds) -> Adds:
    """Add those late increments that belong to the same part as the first of them; return the others."""
    end_ms = hour_ms + HOUR_MS
    part_id, start_ms, data = (
        connection.execute(
            "SELECT id, start_ms, data FROM step_parts WHERE series = ? AND start_ms BETWEEN ? AND ?"
            " ORDER BY start_ms DESC LIMIT 1",
            (series, hour_ms, adds[0][0]),
        ).fetchone()
        or connection.execute(
            "SELECT id, start_ms, data FROM step_parts WHERE series = ? AND start_ms >= ? ORDER BY start_ms LIMIT 1",
            (series, hour_ms),
        ).fetchone()
    )
    [next_ms] = connection.execute(
        "SELECT min(start_ms) FROM step_parts WHERE series = ? AND start_ms > ? AND start_ms < ?",
        (series, start_ms, end_ms),
    ).fetchone()
    here = [add for add in adds if next_ms is None or add[0] < next_ms]
    merged = merge(unpack(data) + here)
    half = len(merged) if len(merged) <= PART_SIZE else min(len(merged) // 2, PART_SIZE)  # leave room for later ones
    first = pack(merged[:half])
    connection.execute(
        "UPDATE step_parts SET start_ms = ?, total = ?, data = ? WHERE id = ?",
        (merged[0][0], _total(first), first, part_id),
    )
    _insert_parts(connection, series, hour_ms, merged[half:])
    return adds[len(here) :]


def _insert_parts(connection: sqlite3.Connection, series: int, hour_ms: int, adds: Adds) -> None:
    for start in range(0, len(adds), PART_SIZE):
        data = pack(adds[start : start + PART_SIZE])
        connection.execute(
            "INSERT INTO step_parts (series, start_ms, hour_ms, total, data) VALUES (?, ?, ?, ?, ?)",
            (series, adds[start][0], hour_ms, _total(data), data),
        )


def _total(data: bytes) -> float:
    return math.fsum(np.frombuffer(data, INCREMENT)["add"].tolist())


def _carry(connection: sqlite3.Connection, series: int, hour_ms: int) -> None:
    """Bring the totals before the hours after `hour_ms` up to date."""
    rows = connection.execute(
        "SELECT hour_ms, before, total FROM step_hours WHERE series = ? AND hour_ms >= ? ORDER BY hour_ms",
        (series, hour_ms),
    ).fetchall()
    total = rows[0][1]
    changed = []
    for hour, before, added in rows:
        if before != total:
            changed.append((total, series, hour))
        total += added
    connection.executemany("UPDATE step_hours SET before = ? WHERE series = ? AND hour_ms = ?", changed)


def read_step_series(connection: sqlite3.Connection) -> list[tuple[Series, float, int]]:
    """Return every step series with its total and the time of its last increment, in order of first appearance."""
    return [
        (stored_series(metric, labels, kind), total, int(np.frombuffer(data, INCREMENT)["t"][-1]))
        for metric, labels, kind, total, data in series_ends(connection)
    ]


def series_ends(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """Return (metric, labels, kind, total, last part) of every step series, as they are in the file."""
    return connection.execute(
        "SELECT metric, labels, kind,"
        " (SELECT before + total FROM step_hours WHERE series = step_series.id ORDER BY hour_ms DESC LIMIT 1),"
        " (SELECT data FROM step_parts WHERE series = step_series.id ORDER BY start_ms DESC LIMIT 1)"
        " FROM step_series ORDER BY id"
    ).fetchall()


def stored_series(metric: str, labels: str, kind: str) -> Series:
    """Return the series of a row, here or in samples.db. Raises ValueError if it is none."""
    return Series(metric, _LABELS.decode(labels), _KINDS.get(kind) or MetricKind(kind))


def read_step_hours(connection: sqlite3.Connection, series: Series, lo_ms: int, hi_ms: int) -> list[StepHour]:
    """Return the hours that a select from `lo_ms` to `hi_ms` needs, oldest first; see JournalDatabase.step_hours."""
    series_id = _known_series_id(connection, series)
    if series_id is None:
        return []
    [first] = connection.execute(
        "SELECT max(hour_ms) FROM step_hours WHERE series = ? AND hour_ms <= ?", (series_id, lo_ms)
    ).fetchone()
    hours = connection.execute(
        "SELECT hour_ms, before FROM step_hours WHERE series = ? AND hour_ms >= ? AND hour_ms <= ? ORDER BY hour_ms",
        (series_id, lo_ms if first is None else first, hi_ms),
    ).fetchall()
    return [(hour_ms, before, *_increments(connection, series_id, hour_ms)) for hour_ms, before in hours]


def _increments(
    connection: sqlite3.Connection, series_id: int, hour_ms: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    parts: Sequence[tuple[bytes]] = connection.execute(
        "SELECT data FROM step_parts WHERE series = ? AND start_ms >= ? AND start_ms < ? ORDER BY start_ms",
        (series_id, hour_ms, hour_ms + HOUR_MS),
    ).fetchall()
    packed = np.frombuffer(b"".join(data for [data] in parts), INCREMENT)
    return np.ascontiguousarray(packed["t"], np.int64), np.ascontiguousarray(packed["add"], np.float64)
