"""Sketches: the distribution of a summary's values by series and minute, within 1 % of each value.

The last hours in memory, older minutes from samples.db. A minute's sketch is only added to while it is its series' newest;
a value that comes later makes a copy, so that readers in other threads need the lock for the newest one alone.
"""

import math
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from ddsketch.ddsketch import BaseDDSketch, DDSketch

from sixfbd.model import Series, SeriesId
from sixfbd.window.cache import ByteLru
from sixfbd.window.writes import SampleSource, SketchMinute

Sketch: TypeAlias = BaseDDSketch

MINUTE_MS: Final = 60_000
KEPT_MINUTES: Final = 180
HOUR: Final = 60  # minutes
HOURS_BYTES: Final = 8 * 1024 * 1024  # of hours of older minutes, added up
SETTLED: Final = (
    KEPT_MINUTES + 5
)  # minutes after which an hour is written and changes no more, unless a value comes late
RELATIVE_ACCURACY: Final = 0.01
SMALLEST: Final = 1e-9
LARGEST: Final = 1e15
"""Values nearer to 0 count as 0, larger ones as this: the bins of a sketch are as many as its orders of magnitude."""


def new_sketch() -> Sketch:
    """Return an empty sketch; all of ours can be merged."""
    return DDSketch(RELATIVE_ACCURACY)


def pack(sketch: Sketch) -> bytes:
    """Return a sketch as bytes (ddsketch's protobuf message)."""
    from ddsketch.pb.proto import DDSketchProto  # not above: it needs protobuf, which only summaries do

    proto: Any = DDSketchProto  # without types
    packed: bytes = proto.to_proto(sketch).SerializeToString()
    return packed


def unpack(packed: bytes) -> Sketch:
    """Return the sketch of `pack`. Raises ValueError if it is none."""
    from ddsketch.pb.ddsketch_pb2 import DDSketch as Message  # as in `pack`
    from ddsketch.pb.proto import DDSketchProto
    from google.protobuf.message import DecodeError

    proto: Any = DDSketchProto
    message: Any = Message
    try:
        sketch: Sketch = proto.from_proto(message.FromString(packed))
    except DecodeError as error:
        raise ValueError(f"not a sketch: {error}") from error
    return sketch


def merged(sketches: Iterable[Sketch]) -> Sketch:
    """Return a new sketch of all values of the given ones."""
    total = new_sketch()
    for sketch in sketches:
        total.merge(sketch)
    return total


def merged_packed(packed: Sequence[bytes]) -> Sketch:
    """Return what `merged` would of the sketches of `pack`, ten times as fast: bins are added up before there is a sketch.

    Raises ValueError if one is none.
    """
    from ddsketch.pb.ddsketch_pb2 import DDSketch as Message  # as in `pack`
    from google.protobuf.message import DecodeError

    message: Any = Message
    total: Any = message()
    try:
        found = [message.FromString(one) for one in packed]
    except DecodeError as error:
        raise ValueError(f"not a sketch: {error}") from error
    if not found:
        return new_sketch()
    total.mapping.CopyFrom(found[0].mapping)
    total.zeroCount = sum(one.zeroCount for one in found)
    for name in ("positiveValues", "negativeValues"):
        _add_up(getattr(total, name), [getattr(one, name) for one in found])
    return unpack(total.SerializeToString())


def _add_up(total: Any, stores: Sequence[Any]) -> None:
    """Put the sums of the bins of some stores into one."""
    parts = [(one.contiguousBinIndexOffset, np.array(one.contiguousBinCounts)) for one in stores]
    parts += [(index, np.array([count])) for one in stores for index, count in one.binCounts.items()]
    parts = [(offset, counts) for offset, counts in parts if len(counts)]
    if not parts:
        return
    first = min(offset for offset, _ in parts)
    sums = np.zeros(max(offset + len(counts) for offset, counts in parts) - first)
    for offset, counts in parts:
        sums[offset - first : offset - first + len(counts)] += counts
    total.contiguousBinIndexOffset = first
    total.contiguousBinCounts.extend(sums.tolist())


def _bounded(value: float) -> float:
    """Return a value as a sketch keeps it, so that it stays small."""
    return 0.0 if abs(value) < SMALLEST else math.copysign(min(abs(value), LARGEST), value)


class _Summary:
    """The minutes of one series. `dirty`: not yet handed over to be written; `deltas`: what is on disk has more."""

    __slots__ = ("deltas", "dirty", "id", "late_hours", "minutes", "newest")

    def __init__(self, series_id: SeriesId) -> None:
        self.id = series_id
        self.minutes: dict[int, Sketch] = {}
        self.newest = -1
        self.dirty: set[int] = set()
        self.deltas: set[int] = set()
        self.late_hours: set[int] = set()
        """Those to which something was added after they were written: they are read minute by minute."""


class Sketches:
    """The sketches of a window. `observe` and `ended` are for the window's thread, the rest for any."""

    def __init__(self) -> None:
        self.source: SampleSource | None = None
        self._series: dict[Series, _Summary] = {}
        self._lock = threading.Lock()
        self._newest = 0
        self._hours: ByteLru[tuple[SeriesId, int], bytes] = ByteLru(HOURS_BYTES)

    def __contains__(self, series: Series) -> bool:
        return series in self._series

    def series(self) -> Sequence[Series]:
        """Return the series that have been observed."""
        return list(self._series)

    def begin(self, series_id: SeriesId, series: Series) -> None:
        """Begin a series that has not begun."""
        self._series[series] = _Summary(series_id)

    def restore(self, series: Series, minute: int, packed: bytes) -> None:
        """Take over one of the last minutes of a series that has begun."""
        summary = self._series[series]
        summary.minutes[minute] = unpack(packed)
        summary.newest = max(summary.newest, minute)
        self._newest = max(self._newest, minute)

    def observe(self, series: Series, at_ms: int, values: Mapping[float, int]) -> None:
        """Add values to their minute, each so many times. What is not finite has no place in a distribution and is left out."""
        bounded = [(_bounded(value), times) for value, times in values.items() if math.isfinite(value)]
        if not bounded:
            return
        summary, minute = self._series[series], at_ms // MINUTE_MS
        sketch = summary.minutes.get(minute)
        if sketch is not None and minute == summary.newest:
            with self._lock:
                for value, times in bounded:
                    sketch.add(value, times)
        else:
            late = merged([] if sketch is None else [sketch])
            for value, times in bounded:
                late.add(value, times)
            summary.minutes[minute] = late
            if sketch is None and minute < self._newest - KEPT_MINUTES:
                summary.deltas.add(minute)
                summary.late_hours.add(minute // HOUR)
        summary.newest = max(summary.newest, minute)
        summary.dirty.add(minute)
        self._newest = max(self._newest, minute)

    def ended(self, minute: int) -> list[SketchMinute]:
        """Return what is to be written of the minutes before `minute`, and drop from memory what is old and written."""
        writes = []
        for summary in self._series.values():
            for done in sorted(done for done in summary.dirty if done < minute):
                summary.dirty.discard(done)
                writes.append(SketchMinute(summary.id, done, pack(summary.minutes[done]), done in summary.deltas))
                if done in summary.deltas:  # the file adds it to what it has: it must not be handed over twice
                    summary.deltas.discard(done)
                    del summary.minutes[done]
            if self.source is not None:
                for old in [old for old in summary.minutes if old < self._newest - KEPT_MINUTES]:
                    if old not in summary.dirty:
                        del summary.minutes[old]
        return writes

    def sketch(self, series: Series, lo_ms: int, hi_ms: int) -> Sketch | None:
        """Return the sketch of the minutes that the span touches, None if they are empty. May read the disk: then it is
        not for the event loop (`in_memory`)."""
        summary = self._series.get(series)
        if summary is None:
            return None
        lo, hi, newest = lo_ms // MINUTE_MS, hi_ms // MINUTE_MS, summary.newest
        kept = {minute: sketch for minute, sketch in list(summary.minutes.items()) if lo <= minute <= hi}
        found = [sketch for minute, sketch in kept.items() if minute != newest]
        if newest in kept:
            with self._lock:
                found.append(merged([kept[newest]]))
        if self.source is not None and not self.in_memory(lo_ms):
            found.append(
                merged_packed(self._older(summary, self.source, lo, min(hi, self._newest - KEPT_MINUTES), kept))
            )
        total = merged(found)
        return total if total.count else None

    def _older(self, summary: _Summary, source: SampleSource, lo: int, hi: int, kept: Collection[int]) -> list[bytes]:
        """Return the packed sketches of the minutes from `lo` to `hi` that are on the disk, those of settled hours added up."""
        unsettled = {minute // HOUR for minute in kept} | summary.late_hours
        last = min(hi + 1, self._newest - SETTLED) // HOUR
        hours = [hour for hour in range(-(-lo // HOUR), last) if hour not in unsettled]
        known = {hour: self._hours.get((summary.id, hour)) for hour in hours}
        packed = [one for one in known.values() if one is not None]
        missing = [hour for hour, one in known.items() if one is None]
        for first, end in _runs(missing):
            by_hour: dict[int, list[bytes]] = {hour: [] for hour in range(first, end)}
            for minute, data in source.sketches(summary.id, first * HOUR, end * HOUR - 1):
                by_hour[minute // HOUR].append(data)
            for hour, minutes in by_hour.items():
                one = pack(merged_packed(minutes))
                self._hours.put((summary.id, hour), one, len(one) + HOUR)
                packed.append(one)
        rest = [minute for minute in range(lo, hi + 1) if minute // HOUR not in known]
        for first, end in _runs(rest):
            stored = source.sketches(summary.id, first, end - 1)
            packed += [data for minute, data in stored if minute not in kept or minute in summary.deltas]
        return packed

    def in_memory(self, lo_ms: int) -> bool:
        """Tell whether the minutes since `lo_ms` are all in memory."""
        return self.source is None or lo_ms // MINUTE_MS > self._newest - KEPT_MINUTES


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of ascending numbers without gaps, as (first, end)."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs
