"""Layouts: the ordered series set of one check's report, its growing head and the spans of its sealed chunks.

Owns the rows in memory. What is below a snapshot's row count is never written again, so that readers in other threads
need no lock. Decides nothing about which series belong together: `window.Window` does.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from sixfbd.model import LayoutId, RuleName, Series, SeriesId
from sixfbd.window.blocks import ABSENT, ABSENT_BITS, STALE_BITS, Times, Values
from sixfbd.window.writes import Seal

BLOCK_ROWS: Final = 120
NO_RULES: Final[frozenset[RuleName]] = frozenset()
_NO_TIME: Final = -(2**62)


class Place(NamedTuple):
    """Where a series has its values for a while."""

    layout: "Layout"
    column: int


class Entry:
    """A series as the window knows it. `places` in the order of time; only the last one can be live."""

    __slots__ = ("id", "places", "series")

    def __init__(self, series_id: SeriesId, series: Series) -> None:
        self.id = series_id
        self.series = series
        self.places: list[Place] = []

    def label(self, name: str) -> str:
        """Return the value of a label, `__name__` included; "" if the series does not have it."""
        if name == "__name__":
            return self.series.metric
        for own, value in self.series.labels:
            if own == name:
                return value
        return ""


class Head:
    """The open block. Rows are only ever added; `times` are those of `t` as Python ints, for bisect."""

    __slots__ = ("t", "times", "v")

    def __init__(self, columns: int) -> None:
        self.t: Times = np.empty(BLOCK_ROWS, dtype=np.int64)
        self.v: Values = np.empty((BLOCK_ROWS, columns), dtype=np.float64)
        self.times: list[int] = []


class Spans:
    """The first and last times and row counts of a layout's chunks. Immutable; grown by sharing: see `extended`."""

    __slots__ = ("_rows", "_t0", "_t1", "count", "last_ms")

    def __init__(self, t0: Times, t1: Times, rows: npt.NDArray[np.int32], count: int) -> None:
        self._t0, self._t1, self._rows = t0, t1, rows
        self.count = count
        self.last_ms = int(t1[count - 1]) if count else _NO_TIME

    @classmethod
    def empty(cls) -> "Spans":
        return cls(np.empty(4, np.int64), np.empty(4, np.int64), np.empty(4, np.int32), 0)

    @property
    def t0(self) -> Times:
        return self._t0[: self.count]

    def extended(self, t0_ms: int, t1_ms: int, rows: int) -> "Spans":
        """Return these and one more. Only the newest of a line may be extended: the arrays are shared up to `count`."""
        n = self.count
        t0, t1, counts = self._t0, self._t1, self._rows
        if n == len(t0):
            t0, t1, counts = (np.concatenate((old, np.empty(max(n, 4), old.dtype))) for old in (t0, t1, counts))
        t0[n], t1[n], counts[n] = t0_ms, t1_ms, rows
        return Spans(t0, t1, counts, n + 1)

    def inserted(self, t0_ms: int, t1_ms: int, rows: int) -> "Spans":
        """Return these and one more at its place; nothing is shared."""
        n = self.count
        place = int(np.searchsorted(self.t0, t0_ms))
        return Spans(
            np.insert(self._t0[:n], place, t0_ms),
            np.insert(self._t1[:n], place, t1_ms),
            np.insert(self._rows[:n], place, rows),
            n + 1,
        )

    def since(self, cut_ms: int) -> "Spans":
        """Return those whose last time is at or after the cut."""
        first = int(np.searchsorted(self._t1[: self.count], cut_ms))
        if not first:
            return self
        kept = slice(first, self.count)
        return Spans(self._t0[kept].copy(), self._t1[kept].copy(), self._rows[kept].copy(), self.count - first)

    def overlapping(self, lo_ms: int, hi_ms: int) -> list[int]:
        """Return the first times of the chunks with a row between the two."""
        return self._t0[self._between(lo_ms, hi_ms)].tolist()  # type: ignore[no-any-return] # numpy cannot tell

    def rows(self, lo_ms: int, hi_ms: int) -> int:
        """Return the rows of the chunks with a row between the two."""
        return int(self._rows[self._between(lo_ms, hi_ms)].sum())

    def _between(self, lo_ms: int, hi_ms: int) -> slice:
        n = self.count
        return slice(int(np.searchsorted(self._t1[:n], lo_ms)), int(np.searchsorted(self._t0[:n], hi_ms, "right")))


class View(NamedTuple):
    """A layout at one moment: the rows of the head that count, and the chunks before it."""

    head: Head
    rows: int
    spans: Spans


class Layout:
    """One layout. Written by the window's thread only.

    `last` and `last_at` are each column's last sample (ABSENT: none yet) and its time. `pinned` holds what is sealed but
    not yet in the file, by first time.
    """

    __slots__ = (
        "_groups",
        "_rule_sets",
        "check",
        "entries",
        "head",
        "id",
        "last",
        "last_at",
        "live",
        "pinned",
        "rows",
        "spans",
    )

    def __init__(self, layout_id: LayoutId, check: str, entries: Sequence[Entry]) -> None:
        self.id = layout_id
        self.check = check
        self.entries = tuple(entries)
        self.head = Head(len(entries))
        self.rows = 0
        self.spans = Spans.empty()
        self.pinned: dict[int, tuple[Times, Values]] = {}
        self.last: Values = np.full(len(entries), ABSENT)
        self.last_at: Times = np.full(len(entries), _NO_TIME, dtype=np.int64)
        self.live = True
        self._groups: npt.NDArray[np.intp] = np.zeros(len(entries), dtype=np.intp)
        self._rule_sets: list[frozenset[RuleName]] = [NO_RULES]
        for column, entry in enumerate(self.entries):
            entry.places.append(Place(self, column))

    @property
    def width(self) -> int:
        return len(self.entries)

    @property
    def last_ms(self) -> int:
        """The time of the last row, or long ago."""
        return self.head.times[-1] if self.rows else self.spans.last_ms

    @property
    def view(self) -> View:
        return View(self.head, self.rows, self.spans)

    def running(self) -> npt.NDArray[np.bool_]:
        """Tell which columns have a last sample that is no staleness marker."""
        bits = self.last.view(np.uint64)
        running: npt.NDArray[np.bool_] = (bits != STALE_BITS) & (bits != ABSENT_BITS)
        return running

    def bind(self, bound: Callable[[Series], frozenset[RuleName]]) -> None:
        """Ask for the rules of every column."""
        numbers: dict[frozenset[RuleName], int] = {NO_RULES: 0}
        for column, entry in enumerate(self.entries):
            self._groups[column] = numbers.setdefault(bound(entry.series), len(numbers))
        self._rule_sets = list(numbers)

    def append(self, at_ms: int, row: Values, *, whole: bool) -> frozenset[RuleName]:
        """Add a row (K,) and return the rules of the series that changed by it. `whole`: nothing in it is ABSENT."""
        bits = row.view(np.uint64)
        changed = bits != self.last.view(np.uint64)
        if whole:
            self.last_at.fill(at_ms)
            self.last[:] = row
        else:
            present = bits != ABSENT_BITS
            changed &= present
            self.last_at[present] = at_ms
            self.last[present] = row[present]
        self.put(at_ms, row)
        if len(self._rule_sets) == 1 or not changed.any():
            return NO_RULES
        sets = self._rule_sets
        groups = set(self._groups[changed].tolist())
        return NO_RULES.union(*(sets[group] for group in groups))

    def put(self, at_ms: int, row: Values) -> None:
        """Write a row into the head."""
        head, n = self.head, self.rows
        head.t[n] = at_ms
        head.v[n] = row
        head.times.append(at_ms)
        self.rows = n + 1

    def seal(self, released: Callable[["Layout", int], None]) -> Seal:
        """Close the head's rows, at least one, as a chunk, and begin a new head."""
        n = self.rows
        seal = self._pin(self.head.t[:n], self.head.v[:n], released)
        self.spans = self.spans.extended(int(seal.t_ms[0]), int(seal.t_ms[-1]), n)
        self.head, self.rows = Head(self.width), 0
        return seal

    def _pin(self, t_ms: Times, v: Values, released: Callable[["Layout", int], None]) -> Seal:
        t0_ms = int(t_ms[0])
        self.pinned[t0_ms] = (t_ms, v)
        return Seal(self.id, t_ms, v, self.packed_last(), lambda: released(self, t0_ms))

    def end(self) -> None:
        """Take no more rows; the head must be sealed."""
        self.live = False
        self.head = Head(0)

    def forget(self, before_ms: int) -> None:
        """Let go of the chunks that end before the time."""
        self.spans = self.spans.since(before_ms)

    def load_frames(self, t_ms: Times, v: Values, released: Callable[["Layout", int], None]) -> list[Seal]:
        """Take over rows in the order of their times; return what became of blocks that are full.

        Rows older than a chunk are those of a chunk that was given up when the disk was too slow: they become one now.
        """
        between = np.searchsorted(self.spans.t0, t_ms, "right")  # how many chunks begin before each row
        seals = []
        last = self.spans.count
        for number in sorted(set(between[between < last].tolist())):
            rows = between == number
            seals += self._adopt(t_ms[rows], v[rows], released)
        for first in range(int(np.searchsorted(between, last)), len(t_ms), BLOCK_ROWS):
            self._fill(t_ms[first : first + BLOCK_ROWS], v[first : first + BLOCK_ROWS])
            if self.rows == BLOCK_ROWS:
                seals.append(self.seal(released))
        return seals

    def _fill(self, t_ms: Times, v: Values) -> None:
        """Write rows into the head, which is empty, all at once."""
        head, n = self.head, len(t_ms)
        head.t[:n], head.v[:n], head.times = t_ms, v, t_ms.tolist()
        self.rows = n
        present = v.view(np.uint64) != ABSENT_BITS
        columns = np.flatnonzero(present.any(axis=0))
        rows = n - 1 - present[::-1].argmax(axis=0)[columns]  # that of each column's last sample
        self.last[columns] = v[rows, columns]
        self.last_at[columns] = t_ms[rows]

    def _adopt(self, t_ms: Times, v: Values, released: Callable[["Layout", int], None]) -> list[Seal]:
        """Make chunks of rows that lie between two chunks."""
        seals = []
        for first in range(0, len(t_ms), BLOCK_ROWS):
            seals.append(self._pin(t_ms[first : first + BLOCK_ROWS], v[first : first + BLOCK_ROWS], released))
            self.spans = self.spans.inserted(int(seals[-1].t_ms[0]), int(seals[-1].t_ms[-1]), len(seals[-1].t_ms))
        return seals

    def packed_last(self) -> bytes:
        """Return `last_at` and `last` as `StoredLayout.last` has them."""
        return self.last_at.astype("<i8").tobytes() + self.last.astype("<f8").tobytes()

    def unpack_last(self, packed: bytes) -> None:
        """Take over what `packed_last` returned. Raises ValueError if it is not of this width."""
        self.last_at = np.frombuffer(packed, "<i8", self.width).astype(np.int64)
        self.last = np.frombuffer(packed, "<f8", self.width, 8 * self.width).astype(np.float64)
