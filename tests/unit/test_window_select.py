"""Selecting: matchers against a plain filter, snapshots that do not move, bounds that hold."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.model import Series
from sixfbd.window.chunks import BAND
from sixfbd.window.snapshot import Matcher
from sixfbd.window.window import Window
from sixfbd.window.writes import Seal

WORDS = ["", "a", "b", "ab", "ba", "aab"]
PATTERNS = ["a.*", ".*b", "a|b", "", ".+", ".*", "(?:a|ab)", "[^b]+"]

all_series = st.lists(
    st.builds(
        lambda name, x, y: Series(name, tuple((k, v) for k, v in (("x", x), ("y", y)) if v)),
        st.sampled_from(["up", "down", "up_total"]),
        st.sampled_from(WORDS),
        st.sampled_from(WORDS),
    ),
    min_size=1,
    unique=True,
)
all_matchers = st.lists(
    st.one_of(
        st.builds(Matcher, st.sampled_from(["x", "y", "z"]), st.sampled_from(["=", "!="]), st.sampled_from(WORDS)),
        st.builds(Matcher, st.sampled_from(["x", "y", "z"]), st.sampled_from(["=~", "!~"]), st.sampled_from(PATTERNS)),
        st.builds(Matcher, st.just("__name__"), st.sampled_from(["=", "!="]), st.sampled_from(["up", "down", "none"])),
        st.builds(Matcher, st.just("__name__"), st.sampled_from(["=~", "!~"]), st.sampled_from(["up.*", "down"])),
    ),
    max_size=3,
)


def fits(series, matchers):
    labels = dict(series.labels) | {"__name__": series.metric}
    for matcher in matchers:
        value = labels.get(matcher.name, "")
        hit = value == matcher.value if matcher.op in ("=", "!=") else re.fullmatch(matcher.value, value) is not None
        if hit != (matcher.op in ("=", "=~")):
            return False
    return True


def selected(window, matchers):
    return [one for block in window.snapshot().select(matchers, 0, 10**15) for one in block.series]


@given(all_series, all_matchers, st.data())
def test_a_selector_means_what_a_plain_filter_finds_also_after_more_series_came(series, matchers, data):
    window = Window()
    cut = data.draw(st.integers(0, len(series)))
    for at, part in enumerate((series[:cut], series)):
        steps = [one for one in part if one.metric == "up_total"]
        samples = [(one, 1.0) for one in part if one.metric != "up_total"]
        window.append("c", 1000 * (at + 1), samples, complete=True, stale_after_ms=1)
        for one in steps:
            window.step(one, 1000, 1.0)
        found = selected(window, matchers)
        assert sorted(map(repr, found)) == sorted(repr(one) for one in part if fits(one, matchers))
        assert {entry[0] for entry in window.latest(matchers, now_ms=0)} == set(found)


def test_a_dot_matches_a_line_break_and_a_bad_expression_is_named():
    window = Window()
    window.append("c", 1000, [(Series("up", (("x", "a\nb"),)), 1.0)], complete=True, stale_after_ms=1)
    assert len(selected(window, [Matcher("x", "=~", "a.b")])) == 1
    assert selected(window, [Matcher("x", "=~", "a")]) == []
    with pytest.raises(ValueError, match=r"'\(' is not a regular expression"):
        selected(window, [Matcher("x", "=~", "(")])
    with pytest.raises(ValueError, match="not a regular expression"):
        selected(window, [Matcher("x", "=~", "a)(b")])


def test_a_snapshot_stays_as_it_was_while_reports_and_events_go_on():
    window = Window()
    a, b, counter = Series("a"), Series("b"), Series("counter_total")
    taken = []
    for n in range(300):
        samples = [(a, float(n))] if n < 150 else [(a, float(n)), (b, 1.0)]
        window.append("c", 1000 * n, samples if n != 200 else [], complete=True, stale_after_ms=1)
        window.step(counter, 1000 * n - (5000 if n % 7 == 0 else 0), 1.0)
        if n % 10 == 9:
            snapshot = window.snapshot()
            taken.append((snapshot, frozen(snapshot)))
    for snapshot, before in taken:
        assert frozen(snapshot) == before


def frozen(snapshot):
    return [
        (block.series, block.t_ms.tolist(), block.v.view(np.uint64).tolist())
        for block in snapshot.select((), -(10**6), 10**9)
    ]


def test_a_snapshot_is_the_same_object_until_something_changes():
    window = Window()
    window.append("c", 1000, [(Series("a"), 1.0)], complete=True, stale_after_ms=1)
    first = window.snapshot()
    assert window.snapshot() is first
    window.step(Series("counter_total"), 1000, 1.0)
    second = window.snapshot()
    assert second is not first
    window.append("c", 2000, [(Series("a"), 1.0)], complete=True, stale_after_ms=1)
    assert window.snapshot() is not second


def test_what_is_selected_cannot_be_written_to():
    window = Window()
    window.append("c", 1000, [(Series("a"), 1.0)], complete=True, stale_after_ms=1)
    [block] = window.snapshot().select((), 0, 2000)
    with pytest.raises(ValueError, match="read-only"):
        block.v[0, 0] = 2.0
    with pytest.raises(ValueError, match="read-only"):
        block.t_ms[0] = 2


@given(st.integers(-2000, 400_000), st.integers(-2000, 400_000))
def test_points_bound_what_a_select_returns_and_both_edges_are_included(lo_ms, hi_ms):
    window = _THREE_HUNDRED
    for matchers in ([], [Matcher("i", "=", "3")]):
        blocks = window.snapshot().select(matchers, lo_ms, hi_ms)
        assert sum(block.v.size for block in blocks) <= window.snapshot().points(matchers, lo_ms, hi_ms)
        times = {int(t) for block in blocks for t in block.t_ms}
        assert times == {t for t in range(0, 300_000, 1000) if lo_ms <= t <= hi_ms}
        assert window.snapshot().loaded(matchers, lo_ms, hi_ms)


@pytest.mark.parametrize("edge", [0, 119_000, 120_000, 239_000, 240_000, 299_000])
def test_the_first_and_last_rows_of_blocks_are_found_at_their_very_time(edge):
    for lo_ms, hi_ms in ((edge, edge), (edge - 1, edge), (edge, edge + 1)):
        [block] = _THREE_HUNDRED.snapshot().select((), lo_ms, hi_ms)
        assert block.t_ms.tolist() == [edge]


def three_hundred_rows() -> Window:
    window = Window()
    series = [Series("m", (("i", str(i)),)) for i in range(5)]
    for n in range(300):
        window.append("c", 1000 * n, [(one, float(n)) for one in series], complete=True, stale_after_ms=1)
    return window


_THREE_HUNDRED = three_hundred_rows()


def test_a_select_over_several_bands_puts_every_column_in_its_place():
    window = Window()
    series = [Series("m", (("i", str(i)), ("odd", str(i % 2)))) for i in range(2 * BAND + 7)]
    for n in range(121):
        samples = [(one, 1000.0 * i + n) for i, one in enumerate(series)]
        rows = window.append("c", n, samples, complete=True, stale_after_ms=1).rows
        for seal in [row for row in rows if isinstance(row, Seal)]:
            seal.released()  # as if it were in the file: it is read by the band from now on
    for matchers in ([], [Matcher("odd", "=", "1")], [Matcher("i", "=~", "1.?|70|129")]):
        [block] = window.snapshot().select(matchers, 0, 200)
        for column, one in enumerate(block.series):
            assert block.v[:, column].tolist() == [1000.0 * int(dict(one.labels)["i"]) + n for n in range(121)]


def test_a_series_that_two_checks_report_is_one_series_in_the_order_of_time():
    window = Window()
    one = Series("m")
    for at, check in ((1, "a"), (2, "b"), (3, "a"), (3, "b"), (4, "b")):
        window.append(check, at, [(one, float(at))], complete=True, stale_after_ms=1)
    [block] = window.snapshot().select((), 0, 9)
    assert block.t_ms.tolist() == [1, 2, 3, 4]
    assert block.v[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
