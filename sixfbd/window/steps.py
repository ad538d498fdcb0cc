"""Step series: counters made of events. The last hours in memory, older ones from the journal through a cache.

A step series is a list of increments in the order of time. In memory they are kept in segments with the total before each,
so that a late event rewrites one segment; what is older than `seam_ms` is read back by the hour. Sums of older hours are
taken backwards from the total at the seam: whatever the journal has learned since, the newest totals do not move.
Written by the window's thread; a `StepView` is immutable and may be read from any.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from sixfbd.model import RuleName, Series, SeriesId
from sixfbd.window.blocks import NEVER_STALE_MS, Block, Times, Values
from sixfbd.window.cache import ByteLru
from sixfbd.window.layouts import NO_RULES, Entry
from sixfbd.window.writes import StepSource

HOUR_MS: Final = 3_600_000
KEPT_MS: Final = 2 * HOUR_MS
CACHE_BYTES: Final = 16 * 1024 * 1024
SEGMENT_ROWS: Final = 256
UNREAD_HOUR_POINTS: Final = 1000
"""What `points` takes an hour for that was not read yet."""

_LONG_AGO: Final = -(2**62)
_HOUR_BYTES: Final = 400  # what a cached hour costs beside its rows


class Segment:
    """Increments in the order of time: `run` is their sum since the segment's start. Only ever added to."""

    __slots__ = ("count", "run", "t")

    def __init__(self, t_ms: Times, adds: Values) -> None:
        self.count = len(t_ms)
        room = max(SEGMENT_ROWS, self.count)
        self.t: Times = np.empty(room, dtype=np.int64)
        self.run: Values = np.empty(room, dtype=np.float64)
        self.t[: self.count] = t_ms
        self.run[: self.count] = np.cumsum(adds)

    @property
    def sum(self) -> float:
        return float(self.run[self.count - 1])

    @property
    def first_ms(self) -> int:
        return int(self.t[0])

    @property
    def last_ms(self) -> int:
        return int(self.t[self.count - 1])

    def append(self, at_ms: int, add: float) -> bool:
        """Add an increment that is not older than the last one; False if there is no room."""
        n = self.count
        if n == len(self.t):
            return False
        self.t[n] = at_ms
        self.run[n] = self.run[n - 1] + add
        self.count = n + 1
        return True

    def inserted(self, at_ms: int, add: float) -> list["Segment"]:
        """Return this segment with one more increment at its place, in two if it has grown too long."""
        n = self.count
        place = int(np.searchsorted(self.t[:n], at_ms, "right"))
        t_ms = np.insert(self.t[:n], place, at_ms)
        adds = np.insert(np.diff(self.run[:n], prepend=0.0), place, add)
        if n < 2 * SEGMENT_ROWS:
            return [Segment(t_ms, adds)]
        half = n // 2
        return [Segment(t_ms[:half], adds[:half]), Segment(t_ms[half:], adds[half:])]


class StepHour(NamedTuple):
    """One hour read back, complete for times before `upto_ms`. `before_ms`: the last increment before it, None if none."""

    upto_ms: int
    before_ms: int | None
    before: float
    t_ms: Times
    adds: Values


_NOTHING: Final = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))


class HourReader:
    """Hours of step series, from memory or else from `source`. Usable from any thread."""

    def __init__(self) -> None:
        self.source: StepSource | None = None
        self._cache: ByteLru[tuple[SeriesId, int, int], StepHour] = ByteLru(CACHE_BYTES)

    def known(self, view: "StepView", hour: int) -> StepHour | None:
        """Return an hour (its number) if it is in memory and good enough for this view."""
        found = self._cache.get((view.id, view.generation, hour))
        good = found is not None and found.upto_ms >= min((hour + 1) * HOUR_MS, view.seam_ms)
        return found if good else None

    def read(self, view: "StepView", first: int, last: int) -> list[StepHour]:
        """Return the hours numbered `first` to `last`."""
        hours = [self.known(view, hour) for hour in range(first, last + 1)]
        for start, end in _gaps(hours):
            hours[start:end] = self._load(view, first + start, first + end - 1)
        return [hour for hour in hours if hour is not None]

    def _load(self, view: "StepView", first: int, last: int) -> list[StepHour]:
        assert self.source is not None, "nothing is dropped from memory without a source"
        rows = self.source.step_hours(view.series, first * HOUR_MS - 1, (last + 1) * HOUR_MS - 1)
        found = {start_ms // HOUR_MS: (before, t_ms, adds) for start_ms, before, t_ms, adds in rows}
        earlier = [hour for hour in found if hour < first]
        before_ms, total = None, 0.0
        if earlier:
            before, t_ms, adds = found[max(earlier)]
            before_ms, total = int(t_ms[-1]), before + float(np.sum(adds))
        hours = []
        for number in range(first, last + 1):
            before, t_ms, adds = found.get(number, (total, *_NOTHING))
            if before_ms is None and before:
                before_ms = number * HOUR_MS - 1  # retention deleted the increments, the total stays
            hour = StepHour(min((last + 1) * HOUR_MS, view.seam_ms), before_ms, before, t_ms, adds)
            self._cache.put((view.id, view.generation, number), hour, 16 * len(t_ms) + _HOUR_BYTES)
            hours.append(hour)
            if len(t_ms):
                before_ms, total = int(t_ms[-1]), before + float(np.sum(adds))
        return hours


def _gaps(hours: Sequence[StepHour | None]) -> Iterable[tuple[int, int]]:
    """Yield the runs of None as (start, end)."""
    start: int | None = None
    for position, hour in enumerate([*hours, None]):
        missing = hour is None and position < len(hours)
        if missing and start is None:
            start = position
        elif not missing and start is not None:
            yield start, position
            start = None


class StepView:
    """A step series at one moment; see `StepSeries` for the fields."""

    __slots__ = ("_reader", "before", "generation", "id", "prior_ms", "seam_ms", "segments", "series", "tail")

    def __init__(self, step: "StepSeries", reader: HourReader) -> None:
        self.id = step.entry.id
        self.series = step.entry.series
        self.seam_ms = step.seam_ms
        self.prior_ms = step.prior_ms
        self.generation = step.generation
        self.segments = tuple(step.segments)
        self.before = tuple(step.before)
        self.tail = step.segments[-1].count if step.segments else 0
        self._reader = reader

    def select(self, lo_ms: int, hi_ms: int) -> Block | None:
        """Return the rows from the last one at or before `lo_ms` to `hi_ms`; None if there is none."""
        older_t, older_v = self._older(lo_ms, hi_ms)
        t_ms, v = self._recent(lo_ms, hi_ms)
        if len(older_t) and (not len(t_ms) or t_ms[0] > lo_ms):
            t_ms, v = np.concatenate((older_t, t_ms)), np.concatenate((older_v, v))
        if not len(t_ms):
            return None
        last_of_its_time = np.append(np.diff(t_ms) > 0, True)
        if not last_of_its_time.all():
            t_ms, v = t_ms[last_of_its_time], v[last_of_its_time]
        first = max(int(t_ms.searchsorted(lo_ms, "right")) - 1, 0)
        end = int(t_ms.searchsorted(hi_ms, "right"))
        if first >= end:
            return None
        t_ms, v = t_ms[first:end], v[first:end, np.newaxis]
        t_ms.flags.writeable = v.flags.writeable = False
        return Block((self.series,), (self.id,), t_ms, v, NEVER_STALE_MS, "", step=True)

    def points(self, lo_ms: int, hi_ms: int) -> int:
        """Return about how many rows `select` would return; exact or above where all is in memory."""
        total = 1 + sum(self._count(number) for number in self._overlapping(lo_ms, hi_ms))
        for hour in self._hours(lo_ms, hi_ms):
            known = self._reader.known(self, hour)
            total += UNREAD_HOUR_POINTS if known is None else len(known.t_ms)
        return total

    def loaded(self, lo_ms: int, hi_ms: int) -> bool:
        """Tell whether `select` would not go to the journal."""
        return all(self._reader.known(self, hour) is not None for hour in self._hours(lo_ms, hi_ms))

    def latest(self) -> tuple[int, float] | None:
        """Return the time of the last increment and the total, None before the first one."""
        if self.segments:
            return int(self.segments[-1].t[self.tail - 1]), self.before[-1]
        return None if self.prior_ms is None else (self.prior_ms, self.before[-1])

    def _hours(self, lo_ms: int, hi_ms: int) -> range:
        """The numbers of the hours that a select needs from the journal: those of the older rows after `lo_ms`."""
        if self.prior_ms is None or self.prior_ms <= lo_ms or lo_ms >= self.seam_ms:
            return range(0)
        return range(lo_ms // HOUR_MS, min(hi_ms, self.prior_ms) // HOUR_MS + 1)

    def _count(self, number: int) -> int:
        return self.tail if number == len(self.segments) - 1 else self.segments[number].count

    def _overlapping(self, lo_ms: int, hi_ms: int) -> range:
        """The numbers of the segments from the one that holds at `lo_ms` to `hi_ms`."""
        end = bisect_right(self.segments, hi_ms, key=_first_ms)
        return range(max(bisect_right(self.segments, lo_ms, 0, end, key=_first_ms) - 1, 0), end)

    def _recent(self, lo_ms: int, hi_ms: int) -> tuple[Times, Values]:
        numbers = self._overlapping(lo_ms, hi_ms)
        if not numbers:
            return _NOTHING
        t_ms = [self.segments[number].t[: self._count(number)] for number in numbers]
        totals = [self.before[number] + self.segments[number].run[: self._count(number)] for number in numbers]
        return (t_ms[0], totals[0]) if len(t_ms) == 1 else (np.concatenate(t_ms), np.concatenate(totals))

    def _prior(self) -> tuple[Times, Values]:
        if self.prior_ms is None:
            return _NOTHING
        return np.array([self.prior_ms]), np.array([self.before[0]])

    def _older(self, lo_ms: int, hi_ms: int) -> tuple[Times, Values]:
        """Return the rows before the seam, and before them the one that holds at `lo_ms`, if any."""
        numbers = self._hours(lo_ms, hi_ms)
        if not numbers or self.prior_ms is None:
            return self._prior()
        hours = self._reader.read(self, numbers.start, numbers.stop - 1)
        t_ms = np.concatenate([hour.t_ms for hour in hours])
        adds = np.concatenate([hour.adds for hour in hours])
        end = int(t_ms.searchsorted(self.seam_ms))
        t_ms, adds = t_ms[:end], adds[:end]
        if hi_ms >= self.prior_ms:
            after = np.append(np.cumsum(adds[::-1])[::-1], 0.0)  # what was added from each row on
            totals = self.before[0] - after
        else:
            totals = np.cumsum(np.append(hours[0].before, adds))
        if hours[0].before_ms is None:
            return t_ms, totals[1:]
        return np.append(hours[0].before_ms, t_ms), totals


def _first_ms(segment: Segment) -> int:
    return segment.first_ms


class StepSeries:
    """One step series. `before[i]` is the total before `segments[i]`, `before[-1]` the total.

    What is older than `seam_ms` is in the journal alone; `prior_ms` is the time of the last increment there. `generation`
    grows when an increment lands there, which makes cached hours invalid.
    """

    __slots__ = ("before", "entry", "generation", "prior_ms", "rules", "seam_ms", "segments")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.rules: frozenset[RuleName] = NO_RULES
        self.segments: list[Segment] = []
        self.before = [0.0]
        self.seam_ms = _LONG_AGO
        self.prior_ms: int | None = None
        self.generation = 0

    def bind(self, bound: Callable[[Series], frozenset[RuleName]]) -> None:
        """Ask for the rules of the series."""
        self.rules = bound(self.entry.series)

    def restore(self, total: float, last_ms: int, source: StepSource, seam_ms: int) -> None:
        """Take over the increments from `seam_ms`, the start of an hour, on. Blocks on the disk."""
        self.seam_ms = seam_ms
        self.prior_ms, self.before = last_ms, [total]
        if last_ms < seam_ms:
            return
        self.prior_ms = None
        for start_ms, before, t_ms, adds in source.step_hours(self.entry.series, seam_ms - 1, last_ms):
            if start_ms < seam_ms:
                self.prior_ms = int(t_ms[-1])
                continue
            if not self.segments:
                self.before = [before]
                self.prior_ms = seam_ms - 1 if before and self.prior_ms is None else self.prior_ms
            for first in range(0, len(t_ms), SEGMENT_ROWS):
                self._push(Segment(t_ms[first : first + SEGMENT_ROWS], adds[first : first + SEGMENT_ROWS]))

    def add(self, at_ms: int, add: float) -> None:
        """Take an increment."""
        if at_ms < self.seam_ms:
            self.before = [total + add for total in self.before]
            self.prior_ms = at_ms if self.prior_ms is None else max(self.prior_ms, at_ms)
            self.generation += 1
        elif not self.segments or at_ms >= self.segments[-1].last_ms:
            if self.segments and self.segments[-1].append(at_ms, add):
                self.before[-1] = self.before[-2] + self.segments[-1].sum
            else:
                self._push(Segment(np.array([at_ms]), np.array([add])))
        else:
            self._insert(at_ms, add)

    def trim(self, cut_ms: int) -> None:
        """Leave to the journal what is older than the cut, but for the last segment. One time is never torn apart."""
        drop = 0
        for segment, following in pairwise(self.segments):
            if segment.last_ms >= min(cut_ms, following.first_ms):
                break
            drop += 1
        if drop:
            self.prior_ms = self.segments[drop - 1].last_ms
            del self.segments[:drop], self.before[:drop]
            self.seam_ms = self.segments[0].first_ms

    def _push(self, segment: Segment) -> None:
        self.segments.append(segment)
        self.before.append(self.before[-1] + segment.sum)

    def _insert(self, at_ms: int, add: float) -> None:
        number = max(bisect_right(self.segments, at_ms, key=_first_ms) - 1, 0)
        later = self.segments[number + 1 :]
        news = self.segments[number].inserted(at_ms, add)
        del self.segments[number:], self.before[number + 1 :]
        for segment in [*news, *later]:
            self._push(segment)


class Steps:
    """All step series of a window. Their ids are negative and hold for this process: the journal knows them by name."""

    def __init__(self) -> None:
        self._reader = HourReader()
        self._series: dict[Series, StepSeries] = {}
        self._views: dict[SeriesId, StepView] = {}
        self._dirty: set[Series] = set()
        self._newest_ms = _LONG_AGO

    def __len__(self) -> int:
        return len(self._series)

    def get(self, series: Series) -> StepSeries | None:
        """Return a step series that has begun."""
        return self._series.get(series)

    def all(self) -> Iterable[StepSeries]:
        """Return all that have begun."""
        return self._series.values()

    def begin(self, series: Series) -> StepSeries:
        """Begin a step series that has not begun: 0, without increments."""
        step = StepSeries(Entry(SeriesId(-1 - len(self._series)), series))
        self._series[series] = step
        self._dirty.add(series)
        return step

    def add(self, step: StepSeries, at_ms: int, add: float) -> None:
        """Take an increment."""
        step.add(at_ms, add)
        self._dirty.add(step.entry.series)
        self._newest_ms = max(self._newest_ms, at_ms)
        if self._reader.source is not None:
            step.trim(self._newest_ms - KEPT_MS)

    def restore(self, source: StepSource, now_ms: int) -> Sequence[StepSeries]:
        """Begin what `source` has, with the last hours in memory; read the rest from it when asked for."""
        self._reader.source = source
        seam_ms = (now_ms - KEPT_MS) // HOUR_MS * HOUR_MS
        restored = []
        for series, total, last_ms in source.step_series():
            step = self.begin(series)
            step.restore(total, last_ms, source, seam_ms)
            self._newest_ms = max(self._newest_ms, last_ms)
            restored.append(step)
        return restored

    def views(self) -> Mapping[SeriesId, StepView]:
        """Return the views of now; the same mapping until something changes."""
        if self._dirty:
            self._views = dict(self._views)
            for series in self._dirty:
                step = self._series[series]
                self._views[step.entry.id] = StepView(step, self._reader)
            self._dirty.clear()
        return self._views
