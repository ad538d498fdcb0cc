"""From a snapshot's blocks to vectors and windows: look-back, staleness, offsets, step series. The only reader of blocks.

Times of a block are searched once for all its series and all steps. Windows are left-open, (t - range, t], as in
Prometheus 3 (https://prometheus.io/docs/prometheus/latest/migration/#range-selectors-and-lookback-exclude-samples-coinciding-with-the-left-boundary).
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sixfbd.model import Series
from sixfbd.promql.errors import QueryError, Stop
from sixfbd.promql.nodes import Selector
from sixfbd.promql.value import Mask, Pick, Reads, Value, concatenated, empty
from sixfbd.window.blocks import Block, Times, Values, is_absent, is_stale
from sixfbd.window.snapshot import Snapshot

MAX_POINTS: Final = 20_000_000  # of one selector: 160 MB of values
BEFORE_ALL_MS: Final = -(2**62)

Index = npt.NDArray[np.intp]


class Window(Struct, frozen=True, eq=False):
    """The samples of k series that share their times, and for each of S steps the rows [lo, hi) that its range holds.

    `v` has shape (n, k) and holds samples only: no STALE, no ABSENT. `at` are the right edges of the windows.
    `carried`: a step series; row `lo` of each window is then the value that held at its left edge, whatever its time.
    """

    series: tuple[Series, ...]
    check: str
    t_ms: Times
    v: Values
    lo: Index
    hi: Index
    at: Times
    range_ms: int
    carried: bool

    @property
    def counts(self) -> Index:
        return self.hi - self.lo


class Fetch:
    """One evaluation's access to its snapshot. A select that two parts of an expression share is made once."""

    def __init__(self, snapshot: Snapshot, steps_ms: Times, stop: Stop, *, evidence: bool) -> None:
        self.steps_ms = steps_ms
        self.evidence = evidence
        self._snapshot = snapshot
        self._stop = stop
        self._blocks: dict[Selector, list[Block]] = {}
        self.checks: set[str] = set()

    def blocks(self, selector: Selector) -> list[Block]:
        """Return the selector's blocks over all steps."""
        if selector not in self._blocks:
            self._stop.check()
            lo_ms, hi_ms = span(selector, self._snapshot, int(self.steps_ms[0]), int(self.steps_ms[-1]))
            found = self._snapshot.select(selector.matchers, lo_ms, hi_ms)
            rows = sum(len(block.series) for block in found)
            if rows * len(self.steps_ms) > MAX_POINTS:
                raise QueryError(f"the query has {rows} series by {len(self.steps_ms)} steps; ask for fewer of one")
            self.checks.update(block.check for block in found)
            self._blocks[selector] = found
        return self._blocks[selector]

    def instant(self, selector: Selector, where: Callable[[Values], Mask] | None = None) -> Value:
        """Return the vector of the values that hold at each step, of those only for which `where` is true.

        What `where` leaves out is not looked at further: of a rule that finds nothing no evidence is gathered.
        """
        return self._vector(selector, where, times=False)

    def timestamps(self, selector: Selector) -> Value:
        """Return for each step the times of the samples that hold, in seconds; of a step series the step's own time."""
        return self._vector(selector, None, times=True)

    def windows(self, selector: Selector) -> Iterator[Window]:
        """Yield the windows of a range selector; each series is in exactly one."""
        at = self.steps_ms - selector.offset_ms
        for block in self.blocks(selector):
            self._stop.check()
            yield from _windows(block, at, selector.range_ms)

    def _vector(self, selector: Selector, where: Callable[[Values], Mask] | None, *, times: bool) -> Value:
        at = self.steps_ms - selector.offset_ms
        parts = []
        for block in self.blocks(selector):
            self._stop.check()
            values, when, present = _held_step(block, at) if block.step else _held(block, at)
            if where is not None:
                present = present & where(values)
            if not present.any():
                continue
            parts.append(
                Value(
                    "vector",
                    self.steps_ms,
                    when / 1000.0 if times else values,
                    present,
                    [series.metric for series in block.series],
                    [series.labels for series in block.series],
                    _instant_reads(block, values, when, present) if self.evidence else None,
                ).without_absent_rows()
            )
        return concatenated(self.steps_ms, parts) if parts else empty(self.steps_ms)


def span(selector: Selector, snapshot: Snapshot, start_ms: int, end_ms: int) -> tuple[int, int]:
    """Return the times that a selector reads for steps from `start_ms` to `end_ms`, both inclusive."""
    reach = selector.range_ms or snapshot.look_back_ms(selector.matchers)
    return start_ms - selector.offset_ms - reach, end_ms - selector.offset_ms


def _held(block: Block, at: Times) -> tuple[Values, Times, Mask]:
    """Return values, sample times and presence, each (k, S), of the last samples within look-back."""
    k, steps = len(block.series), len(at)
    if len(block.t_ms) == 0:
        return np.zeros((k, steps)), np.zeros((k, steps), dtype=np.int64), np.zeros((k, steps), dtype=np.bool_)
    row = block.t_ms.searchsorted(at, side="right") - 1
    first = np.maximum(row, 0)
    values = block.v[first]
    if not np.isnan(values).any():  # each row holds a sample of every series
        when, present = np.empty((k, steps), dtype=np.int64), np.empty((k, steps), dtype=np.bool_)
        when[:] = at_row = block.t_ms[first]
        present[:] = (row >= 0) & (at_row > at - block.stale_after_ms)
        return np.ascontiguousarray(values.T), when, present
    found = np.broadcast_to((row >= 0)[:, None], (steps, k))
    rows = np.broadcast_to(first[:, None], (steps, k))
    if is_absent(values).any():
        last = _last_sample_rows(block.v)[first]
        found = found & (last >= 0)
        rows = np.maximum(last, 0)
        values = np.take_along_axis(block.v, rows, axis=0)
    when = block.t_ms[rows]
    present = found & (when > (at - block.stale_after_ms)[:, None]) & ~is_stale(values) & ~is_absent(values)
    return np.ascontiguousarray(values.T), when.T, present.T


def _last_sample_rows(v: Values) -> Index:
    """Return for each place (n, k) the last row at or before it that holds a sample of that series, or -1."""
    rows = np.where(is_absent(v), -1, np.arange(len(v))[:, None])
    return np.maximum.accumulate(rows, axis=0)


def _held_step(block: Block, at: Times) -> tuple[Values, Times, Mask]:
    times, v = _from_zero(block)
    row = np.searchsorted(times, at, side="right") - 1
    values = v[row].T
    return np.ascontiguousarray(values), at[None, :], np.ones(values.shape, dtype=np.bool_)


def _from_zero(block: Block) -> tuple[Times, Values]:
    """Return a step series' times and values with the 0 that holds before its first row."""
    times = np.concatenate([np.array([BEFORE_ALL_MS], dtype=np.int64), block.t_ms])
    return times, np.concatenate([np.zeros((1, len(block.series))), block.v])


def _instant_reads(block: Block, values: Values, when: Times, present: Mask) -> list[Reads]:
    checks = frozenset([block.check])
    last = values.shape[1] - 1
    when = np.broadcast_to(when, values.shape)
    return [
        Reads(checks, (Pick(series, when[row, last:], values[row, last:]),)) if present[row, last] else Reads(checks)
        for row, series in enumerate(block.series)
    ]


def _windows(block: Block, at: Times, range_ms: int) -> Iterator[Window]:
    if block.step:
        times, v = _from_zero(block)
        edge = np.searchsorted(times, at - range_ms, side="right") - 1
        hi = np.searchsorted(times, at, side="right")
        yield Window(block.series, block.check, times, v, edge, hi, at, range_ms, carried=True)
        return
    for columns, times, v in _sample_groups(block):
        lo = np.searchsorted(times, at - range_ms, side="right")
        hi = np.searchsorted(times, at, side="right")
        series = block.series if len(columns) == len(block.series) else tuple(block.series[c] for c in columns)
        yield Window(series, block.check, times, v, lo, hi, at, range_ms, carried=False)


def _sample_groups(block: Block) -> Iterator[tuple[list[int], Times, Values]]:
    """Yield columns that have their samples in the same rows, with those rows only: mostly the whole block as it is."""
    everything = list(range(len(block.series)))
    if not np.isnan(block.v).any():
        yield everything, block.t_ms, block.v
        return
    gone = is_stale(block.v) | is_absent(block.v)
    if not gone.any():
        yield everything, block.t_ms, block.v
        return
    groups: dict[bytes, list[int]] = {}
    for column, packed in enumerate(np.packbits(gone, axis=0).T):
        groups.setdefault(packed.tobytes(), []).append(column)
    for columns in groups.values():
        kept = ~gone[:, columns[0]]
        yield columns, block.t_ms[kept], block.v[kept][:, columns]


def window_reads(window: Window) -> list[Reads]:
    """Return what the last step's window holds, for each of its series."""
    lo, hi = int(window.lo[-1]), int(window.hi[-1])
    times = window.t_ms[lo:hi]
    if window.carried:
        times = times.copy()
        times[:1] = window.at[-1] - window.range_ms  # the time at which the carried-in value is read
    checks = frozenset([window.check])
    return [
        Reads(checks, (Pick(series, times, window.v[lo:hi, column]),) if hi > lo else ())
        for column, series in enumerate(window.series)
    ]
