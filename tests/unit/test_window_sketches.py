"""Sketches: quantiles within 1 %, minutes that end, late values, threads."""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.model import Series, SeriesId
from sixfbd.window.sketches import KEPT_MINUTES, LARGEST, Sketches, merged, merged_packed, new_sketch, pack, unpack
from sixfbd.window.window import Window
from sixfbd.window.writes import NewSeries, SketchMinute

DURATION = Series("http_request_duration_seconds", (("path", "/"),))
MINUTE = 60_000


def nearest_rank(values, q):
    """The least value that a share of at least q of the values does not exceed: of few values p95 is the largest."""
    return sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 4 * MINUTE), st.floats(-1e6, 1e6).filter(lambda v: abs(v) > 1e-6)), min_size=1),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_a_quantile_is_within_one_percent_of_the_true_one(observed, q):
    window = Window()
    for at_ms, value in observed:
        window.observe(DURATION, at_ms, {value: 1})
    assert window.quantile(DURATION, q, 0, 4 * MINUTE) == pytest.approx(
        nearest_rank([value for _, value in observed], q), rel=0.0101
    )


def test_p95_of_few_values_is_the_largest_not_one_that_half_of_them_exceed():
    window = Window()
    window.observe(DURATION, 0, {0.1: 1})
    window.observe(DURATION, 1, {9.0: 1})
    assert window.quantile(DURATION, 0.95, 0, MINUTE) == pytest.approx(9.0, rel=0.011)
    assert window.quantile(DURATION, 0.5, 0, MINUTE) == pytest.approx(0.1, rel=0.011)


def test_a_quantile_is_of_the_minutes_that_its_span_touches():
    window = Window()
    for minute in range(10):
        window.observe(DURATION, minute * MINUTE + 30_000, {float(minute + 1): 1})
    assert window.quantile(DURATION, 1.0, 3 * MINUTE, 5 * MINUTE) == pytest.approx(6, rel=0.011)
    assert window.quantile(DURATION, 0.0, 3 * MINUTE, 5 * MINUTE) == pytest.approx(4, rel=0.011)
    assert window.quantile(DURATION, 0.5, 20 * MINUTE, 25 * MINUTE) is None
    assert window.quantile(Series("other"), 0.5, 0, MINUTE) is None
    assert list(window.sketched()) == [DURATION]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out(value):
    window = Window()
    window.observe(DURATION, 0, {value: 1})
    assert window.quantile(DURATION, 0.5, 0, MINUTE) is None


def test_values_of_any_size_keep_a_sketch_small():
    window = Window()
    for value in (5e-324, 1e-9, 1.0, 1e308, -1e308):
        window.observe(DURATION, 0, {value: 1})
    sketch = window.sketch(DURATION, 0, 0)
    assert sketch.count == 5
    assert sketch.get_quantile_value(1.0) == pytest.approx(LARGEST, rel=0.011)
    assert len(pack(sketch)) < 100_000


def test_a_minute_is_to_be_written_when_it_has_ended_and_the_rest_at_the_close():
    window = Window()
    window.observe(DURATION, 30_000, {1.0: 1})
    assert writes(window.append("c", 59_000, [], complete=True, stale_after_ms=1).rows) == []
    window.observe(DURATION, 61_000, {1.0: 1})
    assert writes(window.append("c", 62_000, [], complete=True, stale_after_ms=1).rows) == [0]
    assert writes(window.append("c", 63_000, [], complete=True, stale_after_ms=1).rows) == []
    window.observe(DURATION, 31_000, {1.0: 1})
    assert sorted(writes(window.flush())) == [0, 1]
    assert window.flush() == ()


def writes(rows):
    return [row.minute for row in rows if isinstance(row, SketchMinute)]


def test_a_sketch_gets_the_id_of_its_series_before_its_first_minute():
    window = Window()
    window.observe(DURATION, 0, {1.0: 1})
    first, second = window.flush()
    assert isinstance(first, NewSeries)
    assert (first.series, first.id) == (DURATION, second.series)


def test_a_late_value_does_not_change_a_sketch_that_was_handed_out():
    window = Window()
    window.observe(DURATION, 0, {1.0: 1})
    window.observe(DURATION, MINUTE, {1.0: 1})
    sketch = window.sketch(DURATION, 0, MINUTE)
    window.observe(DURATION, 0, {5.0: 1})
    window.observe(DURATION, MINUTE, {5.0: 1})
    assert sketch.count == 2
    assert window.sketch(DURATION, 0, MINUTE).count == 4


def test_a_value_for_a_minute_that_is_only_on_disk_is_added_to_it_there():
    window = Window()
    window.observe(DURATION, (KEPT_MINUTES + 50) * MINUTE, {1.0: 1})
    window.observe(DURATION, 5 * MINUTE, {2.0: 1})
    by_minute = {row.minute: row for row in window.flush() if isinstance(row, SketchMinute)}
    assert by_minute[5].merge
    assert not by_minute[KEPT_MINUTES + 50].merge
    window.observe(DURATION, 5 * MINUTE, {3.0: 1})
    [again] = window.flush()
    assert again.merge
    assert unpack(again.sketch).count == 1


def test_what_is_no_sketch_is_refused():
    with pytest.raises(ValueError, match="not a sketch"):
        unpack(b"\xff\xff\xff")


def test_quantiles_may_be_asked_for_while_values_come_in():
    window, stop, failures = Window(), threading.Event(), []
    window.observe(DURATION, 0, {1.0: 1})

    def ask():
        while not stop.is_set():
            value = window.quantile(DURATION, 0.5, 0, 20 * MINUTE)
            if value is None or not 0.0005 < value < 2000:
                failures.append(value)

    thread = threading.Thread(target=ask)
    thread.start()
    for n, value in enumerate(np.random.default_rng(6).lognormal(0, 2, 5000).tolist()):
        window.observe(DURATION, n * 200, {value: 1})
    stop.set()
    thread.join(10)
    assert failures == []


def test_a_daemon_without_summaries_does_without_protobuf():
    code = "import sys, sixfbd.daemon; print('google.protobuf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


VALUES = st.lists(st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-9), max_size=30)


@given(st.lists(VALUES, max_size=6))
def test_sketches_from_the_disk_are_added_up_as_if_they_were_merged_one_by_one(minutes):
    sketches = []
    for values in minutes:
        sketch = new_sketch()
        for value in values:
            sketch.add(value)
        sketches.append(sketch)
    packed = [pack(one) for one in sketches]
    fast, slow = merged_packed(packed), merged(unpack(one) for one in packed)
    assert fast.count == slow.count
    if fast.count:
        for q in (0.0, 0.1, 0.5, 0.95, 1.0):
            assert fast.get_quantile_value(q) == pytest.approx(slow.get_quantile_value(q), rel=1e-9)


def test_what_is_no_sketch_is_refused_among_others():
    with pytest.raises(ValueError, match="not a sketch"):
        merged_packed([pack(new_sketch()), b"\xff\xff"])


class Disk:
    """What is on the disk: minutes by series, and how many were read."""

    def __init__(self):
        self.minutes = {}
        self.read = 0

    def write(self, rows):
        for row in rows:
            before = self.minutes.get(row.minute)
            both = [row.sketch] if before is None or not row.merge else [before, row.sketch]
            self.minutes[row.minute] = pack(merged_packed(both))

    def sketches(self, series, lo, hi):
        found = [(minute, self.minutes[minute]) for minute in sorted(self.minutes) if lo <= minute <= hi]
        self.read += len(found)
        return found


@given(
    st.lists(st.tuples(st.integers(0, 900), st.floats(0.01, 100.0)), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 900), st.floats(0.01, 100.0)), max_size=6),
    st.tuples(st.integers(0, 900), st.integers(0, 900)).map(sorted),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_hours_that_are_added_up_once_say_the_same_as_their_minutes_also_after_a_late_value(values, late, span, q):
    sketches, disk = Sketches(), Disk()
    sketches.begin(SeriesId(1), DURATION)
    sketches.source = disk
    told = []

    def happens(minute, value):
        sketches.observe(DURATION, minute * MINUTE + 500, {value: 1})
        told.append((minute, value))

    def asked():
        lo, hi = span
        for _ in range(2):
            found = sketches.sketch(DURATION, lo * MINUTE, hi * MINUTE)
            wanted = [value for minute, value in told if lo <= minute <= hi]
            assert (0 if found is None else found.count) == len(wanted)
            if wanted:
                assert found.get_quantile_value(q) == pytest.approx(direct(wanted).get_quantile_value(q))

    for minute, value in sorted(values):
        happens(minute, value)
        disk.write(sketches.ended(minute))
    happens(1000, 1.0)
    disk.write(sketches.ended(1000))
    asked()
    for minute, value in late:
        happens(minute, value)
        asked()
        disk.write(sketches.ended(1000))
        asked()


def direct(values):
    sketch = new_sketch()
    for value in values:
        sketch.add(value)
    return sketch


def test_hours_are_read_from_the_disk_once():
    sketches, disk = Sketches(), Disk()
    sketches.begin(SeriesId(1), DURATION)
    sketches.source = disk
    for minute in range(24 * 60):
        sketches.observe(DURATION, minute * MINUTE, {1.0: 1})
        disk.write(sketches.ended(minute))
    counts = []
    for _ in range(3):
        before = disk.read
        assert sketches.sketch(DURATION, 0, 24 * 60 * MINUTE).count == 24 * 60
        counts.append(disk.read - before)
    assert counts[0] > 1200 and counts[1] == counts[2] < 120
