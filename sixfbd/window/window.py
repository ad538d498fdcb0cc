"""The window: every sample of the last weeks as the readers see it, newest in memory, older in samples.db.

Owns which series exist, which layout each belongs to, the open blocks, step series and sketches. Synchronous, for one
thread (the event loop's); what it hands out as a snapshot may be read from any. Writes no file: each call returns or keeps
the rows to persist, in the order in which they must be written. Never asks the time: the caller says it.
"""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sixfbd.model import LayoutId, RuleName, Series, SeriesId
from sixfbd.window.blocks import ABSENT, STALE, STALE_BITS, Values
from sixfbd.window.index import Index
from sixfbd.window.layouts import BLOCK_ROWS, NO_RULES, Entry, Layout, Place, Spans, View
from sixfbd.window.sketches import MINUTE_MS, Sketch, Sketches
from sixfbd.window.snapshot import Matcher
from sixfbd.window.steps import Steps
from sixfbd.window.view import ChunkReader, WindowSnapshot
from sixfbd.window.writes import (
    EndLayout,
    Forget,
    Frame,
    NewLayout,
    NewSeries,
    SampleSource,
    SetStaleAfter,
    StepSource,
    Stored,
    StoredLayout,
    Write,
)

MAX_LIVE_LAYOUTS: Final = 16
MAX_ENDED_LAYOUTS: Final = 2_000  # of one check that are remembered; a check whose labels keep changing reaches this
MAX_ENDED_COLUMNS: Final = 50_000
DEFAULT_MEMORY_BYTES: Final = 64 * 1024 * 1024
_LONG_AGO: Final = -(2**62)


class Appended(Struct, frozen=True):
    """What an append did: the rules to judge again, the rows to persist (`SampleStore.put`), the time it was given."""

    touched: frozenset[RuleName]
    rows: tuple[Write, ...]
    at_ms: int


class _Part(Struct, frozen=True, eq=False):
    """How a report fills one layout: values[sources] is its row, where -1 means that the report lacks the series."""

    layout: Layout
    sources: npt.NDArray[np.intp]
    missing: npt.NDArray[np.intp]
    all_in_order: bool  # values are its row as they are


class _Plan(Struct, frozen=True, eq=False):
    keys: tuple[Series, ...]
    parts: tuple[_Part, ...]


class _Check:
    """The live layouts of one check, the plan of its last report, and its layouts that have ended, oldest first."""

    __slots__ = ("ended", "ended_columns", "last_ms", "layouts", "name", "places", "plan")

    def __init__(self, name: str) -> None:
        self.name = name
        self.layouts: list[Layout] = []
        self.places: dict[Series, Place] = {}
        self.plan: _Plan | None = None
        self.last_ms = _LONG_AGO
        self.ended: list[Layout] = []
        self.ended_columns = 0

    def add_ended(self, layout: Layout) -> None:
        self.ended.append(layout)
        self.ended_columns += layout.width

    def too_much_ended(self) -> list[Layout]:
        """Return ended layouts to let go so that half of what may be remembered is left; none until there are too many.

        The oldest go first, and before any other those of which no series lives on in another layout.
        """
        if len(self.ended) <= MAX_ENDED_LAYOUTS and self.ended_columns <= MAX_ENDED_COLUMNS:
            return []
        count, columns, gone = len(self.ended), self.ended_columns, []
        for layout in sorted(self.ended, key=_lives_on):
            if count <= MAX_ENDED_LAYOUTS // 2 and columns <= MAX_ENDED_COLUMNS // 2:
                break
            gone.append(layout)
            count, columns = count - 1, columns - layout.width
        return gone

    def forget_ended(self, gone: Container[Layout]) -> None:
        self.ended = [layout for layout in self.ended if layout not in gone]
        self.ended_columns = sum(layout.width for layout in self.ended)


def _lives_on(layout: Layout) -> bool:
    return any(entry.places[-1].layout.live for entry in layout.entries)


class LayoutNow(NamedTuple):
    """The columns of a live layout at one moment; `shown`: neither ended nor stale."""

    layout: LayoutId
    check: str
    entries: tuple[Entry, ...]
    values: Values
    shown: npt.NDArray[np.bool_]


class StepNow(NamedTuple):
    """A step series at one moment; its value is None before its first increment."""

    id: SeriesId
    series: Series
    value: float | None


class Newest(NamedTuple):
    """All live series at one moment, in the order of layouts, then step series."""

    layouts: tuple[LayoutNow, ...]
    steps: tuple[StepNow, ...]

    def series(self) -> Iterator[tuple[Series, str]]:
        """Yield each series and its check ("" for a step series), in order."""
        for part in self.layouts:
            for entry in part.entries:
                yield entry.series, part.check
        for step in self.steps:
            yield step.series, ""


def _no_rules(_series: Series) -> frozenset[RuleName]:
    return NO_RULES


class Window:
    """See the module. `memory_bytes` bounds the sealed chunks that are read back from disk."""

    def __init__(self, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._chunks = ChunkReader(memory_bytes)
        self._index = Index()
        self._entries: dict[Series, Entry] = {}
        self._layouts: dict[LayoutId, Layout] = {}
        self._views: dict[LayoutId, View] = {}
        self._checks: dict[str, _Check] = {}
        self._stale_after: dict[str, int] = {}
        self._steps = Steps()
        self._sketches = Sketches()
        self._bound: Callable[[Series], frozenset[RuleName]] = _no_rules
        self._pending: list[Write] = []
        self._next_series = 1
        self._next_layout = 1
        self._newest_ms = 0
        self._ended_minute = 0
        self._snapshot: WindowSnapshot | None = None

    # ---- samples --------------------------------------------------------------------------------------------------------

    def limit_memory(self, memory_bytes: int) -> None:
        """Have sealed chunks read back from disk take no more than this from now on."""
        self._chunks.limit(memory_bytes)

    def append(
        self, check: str, at_ms: int, samples: Sequence[tuple[Series, float]], *, complete: bool, stale_after_ms: int
    ) -> Appended:
        """Take one report's samples, each series once, and make them visible whole.

        `complete`: series of the check that the report lacks have ended (a healthy or degraded report); else they are
        left until `stale_after_ms` (an unhealthy or unknown one), and end with the first report after that. Times of one
        check strictly increase: one that does not is set to the last one's next millisecond. Of what has ended the
        oldest is let go before its time if it is too much: of a check whose labels change at every run.
        """
        state = self._checks.get(check) or self._checks.setdefault(check, _Check(check))
        self.set_stale_after(check, stale_after_ms)
        keys = tuple([pair[0] for pair in samples])
        values: Values = np.array([pair[1] for pair in samples], dtype=np.float64)
        plan = state.plan
        if plan is None or len(state.layouts) > MAX_LIVE_LAYOUTS or plan.keys != keys:
            plan = self._prepare(state, keys)
        return self._write(state, at_ms, plan, values, complete=complete)

    def end_check(self, check: str, at_ms: int) -> Appended:
        """End all series of a check that is no longer configured."""
        state = self._checks.get(check)
        if state is None or not state.layouts:
            return Appended(NO_RULES, self._taken(), at_ms)
        return self._write(state, at_ms, self._prepare(state, ()), np.empty(0), complete=True)

    def end_stale(self, from_ms: int, now_ms: int) -> tuple[Write, ...]:
        """End the series of checks that have gone stale by `now_ms`, at `from_ms` or just after their last sample.

        For a daemon that did not run in between; returns the rows to persist.
        """
        rows: list[Write] = []
        for name, state in self._checks.items():
            if state.layouts and now_ms - state.last_ms >= self._stale_after[name]:
                rows += self.end_check(name, max(from_ms, state.last_ms + 1)).rows
        return tuple(rows)

    def set_stale_after(self, check: str, stale_after_ms: int) -> None:
        """Take `stale_after_ms` for a check from now on; persisted with the next rows."""
        if self._stale_after.get(check) != stale_after_ms:
            self._stale_after[check] = stale_after_ms
            self._pending.append(SetStaleAfter(check, stale_after_ms))

    def checks(self) -> list[str]:
        """Return the names of the checks that have live series, also those of a process before this one."""
        return [name for name, state in self._checks.items() if state.layouts]

    def series_count(self, check: str) -> int:
        """Return how many series of a check have not ended."""
        state = self._checks.get(check)
        return 0 if state is None else sum(int(np.count_nonzero(layout.running())) for layout in state.layouts)

    def would_add(self, check: str, series: Iterable[Series]) -> int:
        """Return how many of these series would be new in memory for this check."""
        state = self._checks.get(check)
        return len({one for one in series if state is None or one not in state.places})

    def _write(self, state: _Check, at_ms: int, plan: _Plan, values: Values, *, complete: bool) -> Appended:
        at_ms = max(at_ms, state.last_ms + 1)
        ends_before = at_ms + 1 if complete else at_ms - self._stale_after[state.name]
        touched = [self._append_row(part, at_ms, values, ends_before) for part in plan.parts]
        state.last_ms = at_ms
        self._newest_ms = max(self._newest_ms, at_ms)
        if any(len(part.missing) for part in plan.parts):
            self._retire(state)
        self._snapshot = None
        if at_ms // MINUTE_MS > self._ended_minute:
            self._ended_minute = at_ms // MINUTE_MS
            self._pending += self._sketches.ended(self._ended_minute)
        return Appended(NO_RULES.union(*touched), self._taken(), at_ms)

    def _append_row(self, part: _Part, at_ms: int, values: Values, ends_before: int) -> frozenset[RuleName]:
        """Add a row; series that it lacks end if their last sample is older than `ends_before`."""
        layout, missing = part.layout, part.missing
        if part.all_in_order:
            row = values
        elif not len(missing):
            row = values.take(part.sources)
        else:
            row = np.append(values, ABSENT).take(part.sources)
            ending = missing[layout.running()[missing] & (layout.last_at[missing] < ends_before)]
            if len(missing) == layout.width and not len(ending):
                return NO_RULES
            row[ending] = STALE
        touched = layout.append(at_ms, row, whole=not len(missing))
        self._pending.append(Frame(layout.id, at_ms, row.tobytes(), layout.width))
        if layout.rows == BLOCK_ROWS:
            self._pending.append(layout.seal(self._chunks.release))
        self._views[layout.id] = layout.view
        return touched

    def _taken(self) -> tuple[Write, ...]:
        rows = tuple(self._pending)
        self._pending.clear()
        return rows

    # ---- layouts --------------------------------------------------------------------------------------------------------

    def _prepare(self, state: _Check, keys: tuple[Series, ...]) -> _Plan:
        """Place what is new in a report and work out how its values become rows."""
        if len(state.layouts) > MAX_LIVE_LAYOUTS:
            self._regroup(state, keys)
        fresh = [series for series in dict.fromkeys(keys) if series not in state.places]
        if fresh:
            self._begin_layout(state, [self._entry(series) for series in fresh])
        position = {series: place for place, series in enumerate(keys)}
        parts = []
        for layout in state.layouts:
            sources = np.array([position.get(entry.series, -1) for entry in layout.entries], dtype=np.intp)
            in_order = len(sources) == len(keys) and bool((sources == np.arange(len(keys))).all())
            parts.append(_Part(layout, sources, np.flatnonzero(sources < 0), in_order))
        state.plan = _Plan(keys, tuple(parts))
        return state.plan

    def _regroup(self, state: _Check, keys: tuple[Series, ...]) -> None:
        """Move the series of a report, and those that have not ended, to one layout of their own.

        A layout that holds most of them stays as it is: a few series that come and go must not move thousands.
        """
        widest = max(state.layouts, key=lambda layout: layout.width)
        stays = 2 * widest.width >= sum(layout.width for layout in state.layouts)
        stays = stays and 2 * int(np.count_nonzero(widest.running())) >= widest.width
        old, places = [layout for layout in state.layouts if not stays or layout is not widest], state.places
        running = [
            layout.entries[column].series for layout in old for column in np.flatnonzero(layout.running()).tolist()
        ]
        state.layouts = [widest] if stays else []
        state.places = {series: place for series, place in places.items() if stays and place.layout is widest}
        for layout in old:
            self._end(state, layout)
        members = dict.fromkeys(one for one in (*keys, *running) if one not in state.places)
        if members:
            self._begin_layout(state, [self._entry(series) for series in members], places)
        self._let_go(state)

    def _begin_layout(self, state: _Check, entries: Sequence[Entry], known: dict[Series, Place] | None = None) -> None:
        layout = Layout(LayoutId(self._next_layout), state.name, entries)
        self._next_layout += 1
        for column, entry in enumerate(entries):
            self._index.note(entry)
            state.places[entry.series] = entry.places[-1]
            place = known.get(entry.series) if known else None
            if place is not None:
                layout.last[column] = place.layout.last[place.column]
                layout.last_at[column] = place.layout.last_at[place.column]
        layout.bind(self._bound)
        state.layouts.append(layout)
        self._layouts[layout.id] = layout
        self._views[layout.id] = layout.view
        ids = tuple(entry.id for entry in entries)
        self._pending.append(NewLayout(layout.id, state.name, ids, self._stale_after[state.name], layout.packed_last()))

    def _retire(self, state: _Check) -> None:
        """End the layouts whose series have all ended."""
        ended = [layout for layout in state.layouts if not layout.running().any()]
        if not ended:
            return
        state.plan = None
        state.layouts = [layout for layout in state.layouts if layout not in ended]
        for layout in ended:
            for entry in layout.entries:
                del state.places[entry.series]
            self._end(state, layout)
        self._let_go(state)

    def _let_go(self, state: _Check) -> None:
        if gone := state.too_much_ended():
            self._pending.append(self._drop(gone))

    def _end(self, state: _Check, layout: Layout) -> None:
        if layout.rows:
            self._pending.append(layout.seal(self._chunks.release))
        layout.end()
        self._views.pop(layout.id, None)
        state.add_ended(layout)
        self._pending.append(EndLayout(layout.id))

    def _entry(self, series: Series) -> Entry:
        entry = self._entries.get(series)
        if entry is None:
            entry = self._add_entry(Entry(self._new_series_id(series), series))
        return entry

    def _add_entry(self, entry: Entry) -> Entry:
        self._entries[entry.series] = entry
        self._index.add(entry)
        return entry

    def _new_series_id(self, series: Series) -> SeriesId:
        series_id = SeriesId(self._next_series)
        self._next_series += 1
        self._pending.append(NewSeries(series_id, series))
        return series_id

    # ---- what events count and observe -----------------------------------------------------------------------------------

    def step(self, series: Series, at_ms: int, add: float) -> frozenset[RuleName]:
        """Add to a step series, at any time, the journal having it already; return the rules that read it.

        `add` is finite and not negative.
        """
        step = self._steps.get(series)
        if step is None:
            step = self._steps.begin(series)
            self._index.add(step.entry)
            step.bind(self._bound)
        self._steps.add(step, at_ms, add)
        self._newest_ms = max(self._newest_ms, at_ms)
        self._snapshot = None
        return step.rules

    def observe(self, series: Series, at_ms: int, values: Mapping[float, int]) -> None:
        """Add values, each so many times, to the sketch of a series and minute; persisted when the minute has ended.

        Not finite: left out.
        """
        if series not in self._sketches:
            entry = self._entries.get(series)
            self._sketches.begin(self._new_series_id(series) if entry is None else entry.id, series)
        self._sketches.observe(series, at_ms, values)

    def sketched(self) -> Sequence[Series]:
        """Return the series that have sketches."""
        return self._sketches.series()

    def sketch(self, series: Series, lo_ms: int, hi_ms: int) -> Sketch | None:
        """Return a sketch of the minutes that the span touches, the caller's own (`merge` adds another); None if empty.

        From any thread; older than three hours it reads the disk: then not for the event loop.
        """
        return self._sketches.sketch(series, lo_ms, hi_ms)

    def quantile(self, series: Series, q: float, lo_ms: int, hi_ms: int) -> float | None:
        """Return the quantile of the values in the minutes that the span touches, within 1 %; None if there are none.

        It is the nearest rank's: the least value that a share of at least `q` does not exceed. A sketch by itself rounds
        the rank down, which would make p95 of two values the smaller one. Threads and the disk as in `sketch`.
        """
        return _at_rank(self.sketch(series, lo_ms, hi_ms), q)

    def quantile_of(self, metric: str, q: float, lo_ms: int, hi_ms: int) -> float | None:
        """Return the quantile of the values of all series of a metric, as `quantile` does of one."""
        whole: Sketch | None = None
        for series in self.sketched():
            if series.metric != metric or (found := self.sketch(series, lo_ms, hi_ms)) is None:
                continue
            if whole is None:
                whole = found
            else:
                whole.merge(found)
        return _at_rank(whole, q)

    # ---- reading ----------------------------------------------------------------------------------------------------------

    def bind(self, touched: Callable[[Series], frozenset[RuleName]]) -> None:
        """Let `touched` say which rules read a series; asked once for each live series now and for each new one later."""
        self._bound = touched
        for state in self._checks.values():
            for layout in state.layouts:
                layout.bind(touched)
        for step in self._steps.all():
            step.bind(touched)

    def snapshot(self) -> WindowSnapshot:
        """Return the window as it is now, for any thread; the same object until something changes."""
        if self._snapshot is None:
            self._snapshot = WindowSnapshot(
                self._index, self._chunks, self._views.copy(), self._next_layout, self._steps.views(), self._stale_after
            )
        return self._snapshot

    @property
    def newest_ms(self) -> int:
        """The newest time of any sample, 0 if there is none."""
        return self._newest_ms

    def latest(
        self, matchers: Sequence[Matcher] = (), *, now_ms: int | None = None
    ) -> list[tuple[Series, int, float, str]]:
        """Return (series, time, value, check) of what an instant query at `now_ms` would show, in order of appearance.

        That is the last sample of each series, unless it is a staleness marker or older than `stale_after`; of step
        series always the total (check ""). `now_ms` is by default the newest time that the window has seen.
        """
        now_ms = self._newest_ms if now_ms is None else now_ms
        views = self._steps.views()
        found = []
        for entry in self._index.resolve(tuple(matchers)):
            if entry.id < 0:
                last = views[entry.id].latest()
                if last is not None:
                    found.append((entry.series, *last, ""))
            elif entry.places and (place := entry.places[-1]).layout.live:
                layout, column = place
                at_ms = int(layout.last_at[column])
                running = int(layout.last[column : column + 1].view(np.uint64)[0]) != STALE_BITS
                if running and now_ms - at_ms < self._stale_after[layout.check]:
                    found.append((entry.series, at_ms, float(layout.last[column]), layout.check))
        return found

    def newest(self, now_ms: int) -> Newest:
        """Return the last values of all live series at once, for who renders them elsewhere: see `latest`."""
        layouts = []
        for state in self._checks.values():
            for layout in state.layouts:
                fresh = now_ms - layout.last_at < self._stale_after[layout.check]
                shown = layout.running() & fresh
                layouts.append(LayoutNow(layout.id, layout.check, layout.entries, layout.last.copy(), shown))
        steps = []
        for entry_id, view in self._steps.views().items():
            last = view.latest()
            steps.append(StepNow(entry_id, view.series, None if last is None else last[1]))
        return Newest(tuple(layouts), tuple(steps))

    # ---- from and to the files --------------------------------------------------------------------------------------------

    def flush(self) -> tuple[Write, ...]:
        """Return all that is not yet handed over, sketches of minutes that have not ended included. Before closing."""
        self._pending += self._sketches.ended(2**62)
        return self._taken()

    def load(self, stored: Stored, source: SampleSource) -> tuple[Write, ...]:
        """Take over what the file holds, into an empty window, and read chunks from `source` from now on.

        Returns rows to persist: frames that a full block or an end left behind become chunks.
        """
        if self._layouts or self._entries:
            raise ValueError("a window is restored before its first sample")
        self._chunks.source = self._sketches.source = source
        self._next_series, self._next_layout = stored.next_series, stored.next_layout
        by_id = {series_id: Entry(series_id, series) for series_id, series in stored.series}
        for layout in sorted(stored.layouts, key=lambda layout: layout.id):
            self._load_layout(layout, [by_id[series_id] for series_id in layout.series])
        for entry in by_id.values():
            if entry.places:
                self._add_entry(entry)
        for series_id in stored.sketched:
            self._sketches.begin(series_id, by_id[series_id].series)
        for series_id, minute, packed in stored.sketches:
            self._sketches.restore(by_id[series_id].series, minute, packed)
        unused = [entry.id for entry in by_id.values() if not entry.places and entry.id not in stored.sketched]
        if unused:  # their last sketch has expired
            self._pending.append(Forget((), tuple(unused)))
        return self._taken()

    def _load_layout(self, stored: StoredLayout, entries: Sequence[Entry]) -> None:
        layout = Layout(stored.id, stored.check, entries)
        layout.unpack_last(stored.last)
        layout.spans = Spans(stored.chunk_t0, stored.chunk_t1, stored.chunk_rows, len(stored.chunk_t0))
        state = self._checks.setdefault(stored.check, _Check(stored.check))
        self._stale_after[stored.check] = stored.stale_after_ms
        self._layouts[layout.id] = layout
        self._pending += layout.load_frames(stored.frame_t, stored.frame_v, self._chunks.release)
        state.last_ms = max(state.last_ms, layout.last_ms)
        self._newest_ms = max(self._newest_ms, layout.last_ms)
        if stored.ended:
            self._pending += [layout.seal(self._chunks.release)] if layout.rows else []
            layout.end()
            state.add_ended(layout)
            return
        if self._bound is not _no_rules:  # else it is bound when there are rules
            layout.bind(self._bound)
        state.layouts.append(layout)
        state.places.update([(entry.series, entry.places[-1]) for entry in entries])
        self._views[layout.id] = layout.view

    def restore_steps(self, source: StepSource, now_ms: int) -> None:
        """Take over the step series of the journal, before the first `step`; the last two hours are read now.

        Blocks on the disk: from a worker thread, while nobody else uses the window.
        """
        for step in self._steps.restore(source, now_ms):
            self._index.add(step.entry)
            step.bind(self._bound)
        self._snapshot = None

    def adopt(self, layout_id: LayoutId, t0_ms: int, t1_ms: int, rows: int) -> bool:
        """Take over a chunk that `source` has got since `load`; False if it does not go with what is known."""
        layout = self._layouts.get(layout_id)
        if layout is None or layout.spans.overlapping(t0_ms, t1_ms):
            return False
        if layout.rows and t1_ms >= layout.head.times[0]:
            return False
        layout.spans = layout.spans.inserted(t0_ms, t1_ms, rows)
        if layout.live:
            self._views[layout_id] = layout.view
        self._snapshot = None
        return True

    def forget(self, before_ms: int) -> tuple[Write, ...]:
        """Let go of chunks that end before the time, and of layouts and series that are left without rows.

        Returns rows to persist once the chunks are deleted; see `SampleStore.retain`.
        """
        gone = []
        for layout in self._layouts.values():
            layout.forget(before_ms)
            if layout.live:
                self._views[layout.id] = layout.view
            elif not layout.spans.count:
                gone.append(layout)
        self._snapshot = None
        return (self._drop(gone),) if gone else ()

    def _drop(self, gone: Sequence[Layout]) -> Forget:
        """Forget ended layouts, and the series that are left without one."""
        for layout in gone:
            del self._layouts[layout.id]
            for entry in layout.entries:
                entry.places = [place for place in entry.places if place.layout is not layout]
        for name in {layout.check for layout in gone}:
            self._checks[name].forget_ended({layout for layout in gone if layout.check == name})
        dead = {entry.series: entry for layout in gone for entry in layout.entries if not entry.places}
        if dead:
            self._rebuild_index(dead)
        series = tuple(entry.id for entry in dead.values() if entry.series not in self._sketches)
        return Forget(tuple(layout.id for layout in gone), series)

    def _rebuild_index(self, without: Iterable[Series]) -> None:
        """Begin a new index, so that snapshots keep the old one as it is."""
        for series in without:
            del self._entries[series]
        index = Index()
        for entry in (*self._entries.values(), *(step.entry for step in self._steps.all())):
            index.add(entry)
        self._index = index


def _at_rank(sketch: Sketch | None, q: float) -> float | None:
    if sketch is None:
        return None
    rank = max(math.ceil(q * sketch.count) - 1, 0)
    asked = min((rank + 0.5) / max(sketch.count - 1, 1), 1.0)  # in the rank's middle: no rounding leaves it
    value: float | None = sketch.get_quantile_value(asked)
    return value
