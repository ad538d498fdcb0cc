"""Appending reports: which series begin, end and are left, what is touched, what is to be persisted."""

import numpy as np
import pytest

from sixfbd.model import Series
from sixfbd.window.blocks import is_absent, is_stale
from sixfbd.window.layouts import BLOCK_ROWS
from sixfbd.window.snapshot import Matcher
from sixfbd.window.window import MAX_LIVE_LAYOUTS, Window
from sixfbd.window.writes import EndLayout, Frame, NewLayout, NewSeries, Seal, SetStaleAfter

STALE_AFTER_MS = 300_000


def series(name: str, **labels: str) -> Series:
    return Series(name, (("check", "shop"), *sorted(labels.items())))


A, B, C = series("a"), series("b"), series("c")


def report(window, at_ms, values, *, check="shop", complete=True):
    return window.append(check, at_ms, list(values.items()), complete=complete, stale_after_ms=STALE_AFTER_MS)


def rows(window, one):
    """What a select returns of a series: (time, value), "stale" for the marker."""
    matchers = [Matcher("__name__", "=", one.metric), *(Matcher(name, "=", value) for name, value in one.labels)]
    found = []
    for block in window.snapshot().select(matchers, 0, 10**15):
        column = block.series.index(one)
        v = block.v[:, [column]]
        for t_ms, value, stale, absent in zip(block.t_ms, v, is_stale(v), is_absent(v), strict=True):
            if not absent[0]:
                found.append((int(t_ms), "stale" if stale[0] else float(value[0])))
    return found


def test_series_that_a_complete_report_lacks_end_once():
    window = Window()
    report(window, 1000, {A: 1.0, B: 2.0})
    report(window, 2000, {A: 1.5})
    report(window, 3000, {A: 1.7})
    assert rows(window, A) == [(1000, 1.0), (2000, 1.5), (3000, 1.7)]
    assert rows(window, B) == [(1000, 2.0), (2000, "stale")]


def test_series_that_an_incomplete_report_lacks_are_left():
    window = Window()
    report(window, 1000, {A: 1.0, B: 2.0})
    report(window, 2000, {A: 1.5}, complete=False)
    assert rows(window, B) == [(1000, 2.0)]
    report(window, 3000, {A: 1.5})
    assert rows(window, B) == [(1000, 2.0), (3000, "stale")]


def test_an_incomplete_report_without_samples_leaves_no_rows():
    window = Window()
    report(window, 1000, {A: 1.0})
    appended = report(window, 2000, {}, complete=False)
    assert appended.rows == ()
    assert rows(window, A) == [(1000, 1.0)]


def test_a_series_that_comes_back_goes_on():
    window = Window()
    report(window, 1000, {A: 1.0, B: 2.0})
    report(window, 2000, {A: 1.0})
    report(window, 3000, {A: 1.0, B: 3.0})
    assert rows(window, B) == [(1000, 2.0), (2000, "stale"), (3000, 3.0)]


def test_a_series_that_comes_back_after_all_of_its_layout_had_ended_goes_on_as_one_series():
    window = Window()
    report(window, 1000, {A: 1.0, B: 2.0})
    report(window, 2000, {})
    report(window, 3000, {B: 3.0, C: 1.0})
    assert rows(window, B) == [(1000, 2.0), (2000, "stale"), (3000, 3.0)]
    ids = {block.ids[block.series.index(B)] for block in window.snapshot().select((), 0, 10**15) if B in block.series}
    assert len(ids) == 1


def test_times_of_one_check_strictly_increase():
    window = Window()
    assert report(window, 1000, {A: 1.0}).at_ms == 1000
    assert report(window, 1000, {A: 2.0}).at_ms == 1001
    assert report(window, 500, {A: 3.0, B: 1.0}).at_ms == 1002
    assert rows(window, A) == [(1000, 1.0), (1001, 2.0), (1002, 3.0)]


def test_values_are_kept_to_the_bit():
    window = Window()
    odd = float(np.array([0x7FF8DEADBEEF0001], dtype=np.uint64).view(np.float64)[0])
    report(window, 1000, {A: odd, B: -0.0})
    [block] = window.snapshot().select((), 0, 2000)
    assert block.v.view(np.uint64).tolist() == [[0x7FF8DEADBEEF0001, 0x8000000000000000]]


def test_touched_are_the_rules_of_series_that_changed_began_or_ended():
    window = Window()
    asked = []

    def bound(one):
        asked.append(one)
        return frozenset({f"reads_{one.metric}", "reads_all"})

    window.bind(bound)
    assert report(window, 1000, {A: 1.0, B: 2.0}).touched == {"reads_a", "reads_b", "reads_all"}
    assert report(window, 2000, {A: 1.0, B: 2.0}).touched == frozenset()
    assert report(window, 3000, {A: 1.0, B: 2.5}).touched == {"reads_b", "reads_all"}
    assert report(window, 4000, {A: 1.0, B: 2.5, C: 0.0}).touched == {"reads_c", "reads_all"}
    assert report(window, 5000, {B: 2.5, C: 0.0}).touched == {"reads_a", "reads_all"}
    assert report(window, 6000, {B: 2.5, C: 0.0}).touched == frozenset()
    assert report(window, 7000, {B: 9.0}, complete=False).touched == {"reads_b", "reads_all"}
    assert asked == [A, B, C]


def test_a_value_that_stays_nan_touches_nothing():
    window = Window()
    window.bind(lambda one: frozenset({"rule"}))
    report(window, 1000, {A: float("nan")})
    assert report(window, 2000, {A: float("nan")}).touched == frozenset()


def test_binding_again_asks_for_every_live_series_and_step_series():
    window = Window()
    report(window, 1000, {A: 1.0})
    window.step(C, 1000, 1.0)
    window.bind(lambda one: frozenset({one.metric}))
    assert report(window, 2000, {A: 2.0}).touched == {"a"}
    assert window.step(C, 1000, 1.0) == {"c"}


def test_rows_to_persist_come_with_what_they_need_before_them():
    window = Window()
    first = report(window, 1000, {A: 1.0, B: 2.0}).rows
    assert [type(row) for row in first] == [SetStaleAfter, NewSeries, NewSeries, NewLayout, Frame]
    assert [type(row) for row in report(window, 2000, {A: 1.0, B: 2.0}).rows] == [Frame]


def test_a_full_block_is_sealed_and_read_as_before():
    window = Window()
    kinds = [type(row) for n in range(BLOCK_ROWS) for row in report(window, 1000 * n, {A: float(n)}).rows]
    assert kinds.count(Frame) == BLOCK_ROWS
    assert kinds[-1] is Seal
    report(window, 1000 * BLOCK_ROWS, {A: -1.0})
    assert rows(window, A) == [*((1000 * n, float(n)) for n in range(BLOCK_ROWS)), (1000 * BLOCK_ROWS, -1.0)]


def test_a_layout_whose_series_have_all_ended_is_sealed_and_ended():
    window = Window()
    report(window, 1000, {A: 1.0})
    assert [type(row) for row in report(window, 2000, {}).rows] == [Frame, Seal, EndLayout]
    assert window.checks() == []
    assert rows(window, A) == [(1000, 1.0), (2000, "stale")]


def test_more_layouts_than_a_check_may_have_become_one_at_the_next_report():
    window = Window()
    names = [series("n", i=f"{i:02}") for i in range(MAX_LIVE_LAYOUTS + 1)]
    for at, last in enumerate(names, 1):
        report(window, 1000 * at, upto(names, last, at))
    appended = report(window, 100_000, upto(names, names[-1], 7))
    kinds = [type(row) for row in appended.rows]
    assert kinds.count(EndLayout) == MAX_LIVE_LAYOUTS + 1
    assert kinds.count(NewLayout) == 1
    assert kinds.count(Frame) == 1
    for first, one in enumerate(names, 1):
        expected = [(1000 * at, float(at)) for at in range(first, len(names) + 1)]
        assert rows(window, one) == [*expected, (100_000, 7.0)]


def upto(names, last, value):
    return {one: float(value) for one in names[: names.index(last) + 1]}


def test_regrouping_leaves_out_what_has_ended_and_still_ends_what_goes_missing():
    window = Window()
    names = [series("n", i=f"{i:02}") for i in range(MAX_LIVE_LAYOUTS + 2)]
    for at, last in enumerate(names[:-1], 1):
        report(window, 1000 * at, upto(names, last, at))
    gone, missing = names[0], names[1]
    left = dict.fromkeys(names[2:], 1.0)
    report(window, 50_000, dict.fromkeys(names[1:-1], 1.0))  # more than 16 layouts: regroups; names[0] ends here
    report(window, 60_000, left)
    assert rows(window, gone)[-1] == (50_000, "stale")
    assert rows(window, missing)[-2:] == [(50_000, 1.0), (60_000, "stale")]
    assert window.series_count("shop") == len(left)


def test_a_check_that_is_removed_ends_all_its_series():
    window = Window()
    window.bind(lambda one: frozenset({one.metric}))
    report(window, 1000, {A: 1.0})
    report(window, 2000, {A: 1.0, B: 2.0})
    report(window, 2000, {C: 2.0}, check="other")
    appended = window.end_check("shop", 3000)
    assert appended.touched == {"a", "b"}
    assert (rows(window, A)[-1], rows(window, B)[-1]) == ((3000, "stale"), (3000, "stale"))
    assert window.checks() == ["other"]
    assert window.end_check("shop", 4000).rows == ()
    assert window.end_check("never heard of", 4000).touched == frozenset()


def test_counting_series_counts_what_has_not_ended_and_what_would_be_new():
    window = Window()
    assert window.series_count("shop") == 0
    assert window.would_add("shop", [A, B, B]) == 2
    report(window, 1000, {A: 1.0, B: 1.0})
    report(window, 2000, {A: 1.0})
    assert window.series_count("shop") == 1
    assert window.would_add("shop", [A, B, C]) == 1
    assert window.would_add("other", [A]) == 1


def test_blocks_say_how_long_the_series_of_their_check_are_good():
    window = Window()
    report(window, 1000, {A: 1.0})
    window.set_stale_after("shop", 77_000)
    [block] = window.snapshot().select((), 0, 2000)
    assert (block.stale_after_ms, block.check, block.step) == (77_000, "shop", False)
    later = window.append("shop", 2000, [(A, 1.0)], complete=True, stale_after_ms=77_000)
    assert later.rows[0] == SetStaleAfter("shop", 77_000)


def test_latest_shows_what_an_instant_query_would():
    window = Window()
    report(window, 1000, {A: 1.0, B: 2.0})
    report(window, 2000, {A: 1.5})
    window.step(C, 500, 2.0)
    window.step(C, 700, 3.0)
    assert window.latest(now_ms=2000) == [(A, 2000, 1.5, "shop"), (C, 700, 5.0, "")]
    assert window.latest([Matcher("__name__", "=", "a")]) == [(A, 2000, 1.5, "shop")]
    assert window.latest(now_ms=2000 + STALE_AFTER_MS - 1)[0][0] == A
    assert window.latest(now_ms=2000 + STALE_AFTER_MS) == [(C, 700, 5.0, "")]


def test_latest_keeps_the_last_sample_of_a_series_that_an_incomplete_report_lacks():
    window = Window()
    report(window, 1000, {A: 1.0, B: 2.0})
    report(window, 2000, {A: 1.5}, complete=False)
    assert window.latest() == [(A, 2000, 1.5, "shop"), (B, 1000, 2.0, "shop")]


def test_a_window_in_use_is_not_restored():
    window = Window()
    report(window, 1000, {A: 1.0})
    with pytest.raises(ValueError, match="before its first sample"):
        window.load(None, None)
