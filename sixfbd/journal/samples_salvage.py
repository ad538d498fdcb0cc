"""What can be read of a damaged samples.db: what its samples mean at once, chunks and sketches afterwards in slices.

Blocks on the disk; never writes to the damaged file. Rows that do not fit what they say of themselves are left out.
"""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct

from sixfbd.journal.salvage import read_only, readable
from sixfbd.model import MetricKind
from sixfbd.window.chunks import BAND, ChunkDamagedError, decode
from sixfbd.window.sketches import unpack

SLICE_ROWS: Final = 32  # chunks or sketches written in one transaction: some milliseconds
KINDS: Final = frozenset(kind.value for kind in MetricKind)

Row = tuple[Any, ...]


class Slice(Struct):
    """Rows for the new file, and what the window has to be told: (layout, t0, t1, rows) of whole chunks."""

    chunks: list[Row] = []
    sketches: list[Row] = []
    spans: list[tuple[int, int, int, int]] = []

    def __len__(self) -> int:
        return len(self.chunks) + len(self.sketches)


class SamplesSalvage:
    """Reads the file at `aside`. `definitions` comes first, then `slices`; `close` at the end."""

    def __init__(self, aside: Path) -> None:
        self.layouts = 0
        self.chunks = 0
        self.sketches = 0
        self._old = read_only(aside)
        self._widths: dict[int, int] = {}
        self._series: set[int] = set()
        self._sketched: set[int] = set()

    def close(self) -> None:
        self._old.close()

    def definitions(self, new: sqlite3.Connection) -> None:
        """Write series, layouts, the rows of open blocks and a sketch of each series, in the caller's transaction."""
        for one, metric, labels, kind in readable(self._old, "series", "metric, labels, kind", "id"):
            if _is_series(metric, labels, kind):
                new.execute(
                    "INSERT INTO series (id, metric, labels, kind) VALUES (?, ?, ?, ?)", (one, metric, labels, kind)
                )
                self._series.add(one)
        for row in readable(self._old, "layouts", "check_name, series, stale_after_ms, last, ended", "id"):
            if self._is_layout(row):
                new.execute(
                    "INSERT INTO layouts (id, check_name, series, stale_after_ms, last, ended) VALUES (?, ?, ?, ?, ?, ?)",
                    row,
                )
                self._widths[row[0]] = len(row[2]) // 8
        self.layouts = len(self._widths)
        for _, layout, t_ms, values in readable(self._old, "frames", "layout, t, v", "id"):
            if layout in self._widths and isinstance(values, bytes) and len(values) == 8 * self._widths[layout]:
                new.execute("INSERT OR IGNORE INTO frames (layout, t, v) VALUES (?, ?, ?)", (layout, t_ms, values))
        for row in self._first_sketches():
            new.execute("INSERT INTO sketches (series, minute, data) VALUES (?, ?, ?)", row)
            self._sketched.add(row[0])

    def _first_sketches(self) -> Iterator[Row]:
        """One sketch of each series that has some: a series of which nothing is there would be forgotten."""
        sql = "SELECT series, minute, data FROM sketches WHERE series = ? ORDER BY minute DESC LIMIT 1"
        for series in sorted(self._series):
            try:
                row = self._old.execute(sql, (series,)).fetchone()
            except sqlite3.Error:
                continue
            if row is not None and isinstance(row[1], int) and _is_sketch(row[2]):
                yield row

    def _is_layout(self, row: Row) -> bool:
        _, check, series, stale_after_ms, last, ended = row
        if not isinstance(check, str) or not isinstance(series, bytes) or not isinstance(last, bytes):
            return False
        if not series or len(series) % 8 or len(last) != 2 * len(series):
            return False
        known = self._series.issuperset(np.frombuffer(series, "<i8").tolist())
        return known and isinstance(stale_after_ms, int) and ended in (0, 1)

    def slices(self) -> Iterator[Slice]:
        """Yield chunks, of which every band can be read, and sketches."""
        part = Slice()
        waiting: dict[tuple[int, int], list[Row]] = {}
        for _, layout, band, t0, t1, n, data in readable(self._old, "chunks", "layout, band, t0, t1, n, data", "id"):
            width = self._widths.get(layout)
            if width is None or not _is_chunk(band, t0, t1, n, data, width):
                continue
            bands = waiting.setdefault((layout, t0), [])
            bands.append((layout, band, t0, t1, n, data))
            if len(bands) < -(-width // BAND):
                continue
            part.chunks += waiting.pop((layout, t0))
            part.spans.append((layout, t0, t1, n))
            self.chunks += 1
            if len(part) >= SLICE_ROWS:
                yield part
                part = Slice()
        for _, series, minute, data in readable(self._old, "sketches", "series, minute, data"):
            if series in self._sketched and isinstance(minute, int) and _is_sketch(data):
                part.sketches.append((series, minute, data))
                self.sketches += 1
                if len(part) >= SLICE_ROWS:
                    yield part
                    part = Slice()
        yield part


def _is_series(metric: object, labels: object, kind: object) -> bool:
    try:
        pairs = json.loads(labels) if isinstance(labels, str) else None
    except ValueError:
        return False
    paired = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    return paired and isinstance(metric, str) and kind in KINDS


def _is_chunk(band: object, t0: object, t1: object, n: object, data: object, width: int) -> bool:
    if not isinstance(data, bytes) or not isinstance(band, int) or not 0 <= band * BAND < width:
        return False
    try:
        t_ms, v = decode(data)
    except ChunkDamagedError:
        return False
    fits = v.shape == (n, min(BAND, width - band * BAND)) and (t_ms[0], t_ms[-1]) == (t0, t1)
    return bool(fits and (np.diff(t_ms) > 0).all())


def _is_sketch(data: object) -> bool:
    try:
        unpack(data if isinstance(data, bytes) else b"")
    except Exception:  # noqa: BLE001 - the form is a library's; whatever it raises, this is no sketch
        return False
    return True
