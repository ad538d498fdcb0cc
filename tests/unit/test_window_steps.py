"""Step series against a plain list of increments: late ones, trimmed ones, ones read back from the journal."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.model import Series
from sixfbd.window.blocks import NEVER_STALE_MS
from sixfbd.window.snapshot import Matcher
from sixfbd.window.steps import HOUR_MS, SEGMENT_ROWS
from sixfbd.window.window import Window

SOLD = Series("sold_total", (("tier", "ga"),))
START = 400_000 * HOUR_MS


class Journal:
    """What the journal has, as a plain list; answers as JournalDatabase documents it."""

    def __init__(self):
        self.adds: list[tuple[int, float]] = []
        self.reads = 0

    def step_series(self):
        return [(SOLD, math.fsum(add for _, add in self.adds), max(t for t, _ in self.adds))] if self.adds else []

    def step_hours(self, series, lo_ms, hi_ms):
        self.reads += 1
        assert series == SOLD
        starts = sorted({t // HOUR_MS * HOUR_MS for t, _ in self.adds})
        first = max((start for start in starts if start <= lo_ms), default=lo_ms)
        return [self.hour(start) for start in starts if first <= start <= hi_ms]

    def hour(self, start):
        by_time: dict[int, float] = {}
        for t, add in sorted(self.adds):
            if start <= t < start + HOUR_MS:
                by_time[t] = by_time.get(t, 0.0) + add
        before = math.fsum(add for t, add in self.adds if t < start)
        return start, before, np.array(list(by_time), np.int64), np.array(list(by_time.values()))


def expected(adds, lo_ms, hi_ms):
    """The rows of a select by the definition: one row for each time, from the last at or before `lo_ms` on."""
    times = sorted({t for t, _ in adds})
    rows = [(t, math.fsum(add for at, add in adds if at <= t)) for t in times if t <= hi_ms]
    reach_back = max((t for t in times if t <= lo_ms), default=lo_ms)
    return [row for row in rows if row[0] >= reach_back]


def selected(snapshot, lo_ms, hi_ms):
    blocks = snapshot.select([Matcher("__name__", "=", "sold_total")], lo_ms, hi_ms)
    if not blocks:
        return []
    [block] = blocks
    assert block.step
    assert block.stale_after_ms == NEVER_STALE_MS
    assert block.v.shape == (len(block.t_ms), 1)
    return list(zip(block.t_ms.tolist(), block.v[:, 0].tolist(), strict=True))


def assert_same(found, wanted):
    assert [t for t, _ in found] == [t for t, _ in wanted]
    assert [v for _, v in found] == pytest.approx([v for _, v in wanted], rel=1e-12)


def add(window, journal, at_ms, amount):
    journal.adds.append((at_ms, amount))  # the journal has it first
    window.step(SOLD, at_ms, amount)


minutes = st.integers(0, 8 * 60)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("add"), minutes, st.sampled_from([1.0, 2.0, 29.99])),
        st.tuples(st.just("next"), st.integers(0, 90), st.sampled_from([1.0, 0.1])),
        st.tuples(st.just("many"), st.integers(1, 3), st.integers(1, SEGMENT_ROWS)),
        st.tuples(st.just("restart"), st.integers(0, 60), st.none()),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None)
@given(operations, st.lists(st.tuples(minutes, minutes), min_size=1, max_size=4), st.integers(0, 1))
def test_a_step_series_is_the_sum_of_its_increments_wherever_they_are_kept(operations, spans, off):
    journal, window, now = Journal(), Window(), START
    window.restore_steps(journal, now)
    for what, number, amount in operations:
        if what == "add":
            add(window, journal, START + number * 60_000, amount)
            now = max(now, START + number * 60_000)
        elif what == "next":
            now += number * 60_000
            add(window, journal, now, amount)
        elif what == "many":
            for _ in range(amount):
                now += number
                add(window, journal, now, 1.0)
        else:
            now += number * 60_000
            window = Window()
            window.restore_steps(journal, now)
        for lo, hi in spans:
            lo_ms, hi_ms = START + lo * 60_000 - off, START + hi * 60_000 + off
            snapshot = window.snapshot()
            wanted = expected(journal.adds, lo_ms, hi_ms) if hi_ms >= lo_ms else None
            if wanted is None:
                continue
            reads = journal.reads
            was_loaded = snapshot.loaded([], lo_ms, hi_ms)
            assert_same(selected(snapshot, lo_ms, hi_ms), wanted)
            assert journal.reads == reads or not was_loaded
            assert snapshot.loaded([], lo_ms, hi_ms)
            assert snapshot.points([], lo_ms, hi_ms) >= len(wanted)
    total = math.fsum(amount for _, amount in journal.adds)
    for one, at_ms, value, check in window.latest():
        assert (one, at_ms, check) == (SOLD, max(t for t, _ in journal.adds), "")
        assert value == pytest.approx(total, rel=1e-12)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200))
@settings(deadline=None)
def test_a_late_event_lands_at_its_own_time(times):
    window, adds = Window(), []
    for at in times:
        window.step(SOLD, at, 0.5)
        adds.append((at, 0.5))
    for lo in (-1, 0, 20, 60):
        assert_same(selected(window.snapshot(), lo, 40 + lo), expected(adds, lo, 40 + lo))


def test_many_late_events_in_one_place_keep_their_order():
    window, adds = Window(), [(10_000 * n, 1.0) for n in range(40)]
    adds += [(55_000 + n % 500, 1.0) for n in range(3 * SEGMENT_ROWS)]
    for at_ms, amount in adds:
        window.step(SOLD, at_ms, amount)
    assert_same(selected(window.snapshot(), 0, 10**6), expected(adds, 0, 10**6))


def test_before_its_first_event_a_step_series_has_no_row():
    window = Window()
    window.step(SOLD, 5000, 1.0)
    assert selected(window.snapshot(), 0, 4999) == []
    assert selected(window.snapshot(), 0, 5000) == [(5000, 1.0)]
    assert selected(window.snapshot(), 9000, 9999) == [(5000, 1.0)]


def test_a_snapshot_does_not_see_a_late_event_that_came_after_it():
    window = Window()
    for at in (1000, 2000, 3000):
        window.step(SOLD, at, 1.0)
    snapshot = window.snapshot()
    window.step(SOLD, 1500, 10.0)
    window.step(SOLD, 3000, 10.0)
    assert selected(snapshot, 0, 9999) == [(1000, 1.0), (2000, 2.0), (3000, 3.0)]
    assert selected(window.snapshot(), 0, 9999) == [(1000, 1.0), (1500, 11.0), (2000, 12.0), (3000, 23.0)]


def test_totals_never_fall_also_if_the_journal_learns_of_an_event_before_the_window():
    journal, window = Journal(), Window()
    window.restore_steps(journal, START)
    for hour in range(6):
        for n in range(SEGMENT_ROWS):
            add(window, journal, START + hour * HOUR_MS + 1000 * n, 1.0)
    journal.adds.append((START + 500, 1000.0))  # committed, not yet shown to the window
    found = selected(window.snapshot(), START, START + 6 * HOUR_MS)
    totals = [total for _, total in found]
    assert totals == sorted(totals)
    assert totals[-1] == 6 * SEGMENT_ROWS


def test_increments_that_retention_deleted_still_count_in_the_total():
    journal = Journal()
    journal.adds = [(START + HOUR_MS + 5, 3.0)]
    plain = journal.hour
    journal.hour = lambda start: (start, plain(start)[1] + 100.0, *plain(start)[2:])
    journal.step_series = lambda: [(SOLD, 103.0, START + HOUR_MS + 5)]
    window = Window()
    window.restore_steps(journal, START + 9 * HOUR_MS)
    found = selected(window.snapshot(), START + HOUR_MS, START + 2 * HOUR_MS)
    assert found[-1] == (START + HOUR_MS + 5, 103.0)
    assert found[0] == (START + HOUR_MS - 1, 100.0)


def long_hour(journal, window, rows=600):
    """An hour of more increments than memory keeps of it once three hours have passed: the seam falls in its middle."""
    for n in range(rows):
        add(window, journal, START + 1000 * n, 1.0)
    add(window, journal, START + 3 * HOUR_MS, 1.0)


def test_an_hour_that_is_partly_in_memory_is_read_once_from_each_side():
    journal, window = Journal(), Window()
    window.restore_steps(journal, START)
    long_hour(journal, window)
    assert not window.snapshot().loaded([], START, START + HOUR_MS)
    assert_same(
        selected(window.snapshot(), START, START + 4 * HOUR_MS), expected(journal.adds, START, START + 4 * HOUR_MS)
    )


def test_increments_of_one_time_are_not_torn_apart_when_the_older_ones_leave_memory():
    journal, window = Journal(), Window()
    window.restore_steps(journal, START)
    for n in range(SEGMENT_ROWS - 6):
        add(window, journal, START + n, 1.0)
    for _ in range(10):
        add(window, journal, START + 5000, 1.0)
    add(window, journal, START + 3 * HOUR_MS, 1.0)
    for hi_ms in (START + 4999, START + 5000, START + 4 * HOUR_MS):
        assert_same(selected(window.snapshot(), START, hi_ms), expected(journal.adds, START, hi_ms))


def test_a_late_event_of_an_hour_that_was_read_before_shows_in_it():
    journal, window = Journal(), Window()
    window.restore_steps(journal, START)
    long_hour(journal, window)
    span = (START, START + HOUR_MS)
    assert_same(selected(window.snapshot(), *span), expected(journal.adds, *span))
    add(window, journal, START + 500, 7.0)  # older than what memory has
    assert_same(selected(window.snapshot(), *span), expected(journal.adds, *span))


def test_a_late_event_shows_also_after_its_place_in_memory_was_left_to_the_journal():
    journal, window = Journal(), Window()
    window.restore_steps(journal, START)
    long_hour(journal, window)
    span = (START, START + HOUR_MS)
    selected(window.snapshot(), *span)  # the hour is read while its end is still in memory
    add(window, journal, START + 590_500, 7.0)
    for n in range(2 * SEGMENT_ROWS):
        add(window, journal, START + 3 * HOUR_MS + n, 1.0)
    add(window, journal, START + 6 * HOUR_MS, 1.0)
    assert_same(selected(window.snapshot(), *span), expected(journal.adds, *span))
