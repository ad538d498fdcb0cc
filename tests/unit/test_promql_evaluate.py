"""PromQL by hand: the edges that a Prometheus of today does differently, step series, evidence, limits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sixfbd import promql
from sixfbd.model import Series
from sixfbd.promql import QueryError, QueryStopped, Stop, Value
from sixfbd.window.blocks import ABSENT, STALE, Block

Make = Callable[..., Any]
NAN = math.nan


def at(snapshot: Any, expr: str, seconds: float) -> dict[str, float]:
    """Evaluate at one instant; rows by their text."""
    value = instant(snapshot, expr, seconds)
    return {
        promql.series_text(name, labels): float(value.values[row, 0])
        for row, (name, labels) in enumerate(zip(value.names, value.labels, strict=True))
    }


def instant(snapshot: Any, expr: str, seconds: float, *, evidence: bool = False) -> Value:
    ms = int(seconds * 1000)
    return promql.evaluate(promql.compile(expr), snapshot, ms, ms, 1, Stop(), evidence=evidence)


def over(snapshot: Any, expr: str, start_s: float, end_s: float, step_s: float) -> dict[str, list[float | None]]:
    """Evaluate over steps; None where a row is absent."""
    span = (int(start_s * 1000), int(end_s * 1000), int(step_s * 1000))
    value = promql.evaluate(promql.compile(expr), snapshot, *span, Stop())
    return {
        promql.series_text(name, labels): [
            float(v) if there else None for v, there in zip(value.values[row], value.present[row], strict=True)
        ]
        for row, (name, labels) in enumerate(zip(value.names, value.labels, strict=True))
    }


# ---- what holds at an instant


def test_a_sample_holds_until_just_before_its_series_goes_stale(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 7", start_s=100, stale_after_s=300)
    assert at(snapshot, "a", 99.999) == {}
    assert at(snapshot, "a", 100) == {"a": 7}
    assert at(snapshot, "a", 399.999) == {"a": 7}
    assert at(snapshot, "a", 400) == {}  # left-open: Prometheus 3 leaves the sample at exactly the look-back out


def test_look_back_is_that_of_the_series_not_five_minutes(snapshot_of: Make) -> None:
    slow = snapshot_of("a 7", stale_after_s=9000)
    assert at(slow, "a", 8999) == {"a": 7}
    quick = snapshot_of("a 7", stale_after_s=60)
    assert at(quick, "a", 60) == {}


def test_a_select_reaches_as_far_back_as_the_longest_look_back_of_what_it_matches(snapshot_of: Make) -> None:
    slow, quick = snapshot_of("a 7", stale_after_s=9000), snapshot_of("b 0+1x200", stale_after_s=60)
    slow.blocks += quick.blocks
    assert at(slow, '{__name__=~"a|b"}', 8990) == {"a": 7, "b": 149}


def test_a_staleness_marker_ends_a_series_at_once_and_a_sample_begins_it_again(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 1 2 stale _ 5\na{x="2"} 1 1 1 1 1')
    assert over(snapshot, 'a{x="1"}', 0, 240, 60) == {'a{x="1"}': [1, 2, None, None, 5]}


def test_a_row_without_a_sample_leaves_the_last_one_holding(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 1 _ _ 4\na{x="2"} _ 6 7 _')
    assert over(snapshot, "a", 0, 180, 60) == {'a{x="1"}': [1, 1, 1, 4], 'a{x="2"}': [None, 6, 7, 7]}


def test_nan_is_a_value_and_neither_absent_nor_stale(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1 nan 3")
    (values,) = over(snapshot, "a", 0, 120, 60).values()
    assert values[1] is not None and math.isnan(values[1])
    assert at(snapshot, "count_over_time(a[3m])", 120) == {"{}": 3}
    assert at(snapshot, "a == a", 60) == {}


def test_an_offset_moves_what_is_read_and_not_when_it_is_shown(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 0+1x9")
    assert at(snapshot, "a offset 2m", 300) == {"a": 3}
    assert at(snapshot, "a offset -2m", 300) == {"a": 7}
    assert at(snapshot, "timestamp(a offset 2m)", 300) == {"{}": 180}


# ---- ranges are open at their left


def test_a_range_leaves_out_the_sample_on_its_left_edge(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1 2 4 8 16")
    assert at(snapshot, "sum_over_time(a[2m])", 240) == {"{}": 24}
    assert at(snapshot, "count_over_time(a[2m])", 240.001) == {"{}": 2}
    assert at(snapshot, "count_over_time(a[2m])", 239.999) == {"{}": 2}
    assert at(snapshot, "count_over_time(a[1m])", 240) == {"{}": 1}
    assert at(snapshot, "rate(a[1m])", 240) == {}  # one sample has no rate
    assert at(snapshot, "changes(a[3m])", 240) == {"{}": 2}


def test_increase_of_a_steady_counter_between_aligned_edges_is_stretched_to_the_range(snapshot_of: Make) -> None:
    # (60, 300] holds the samples at 120..300: 30 in 180 s, one interval of 60 s missing on the left
    snapshot = snapshot_of("a 1000+10x9")
    assert at(snapshot, "increase(a[4m])", 300) == {"{}": pytest.approx(40)}
    assert at(snapshot, "rate(a[4m])", 300) == {"{}": pytest.approx(10 / 60)}


def test_a_range_that_begins_long_before_its_series_is_stretched_by_half_an_interval(snapshot_of: Make) -> None:
    # samples at 600, 660, 720; the range (120, 720] begins 480 s before: by 30 s only
    snapshot = snapshot_of("a 1000 1010 1020", start_s=600)
    assert at(snapshot, "increase(a[10m])", 720) == {"{}": pytest.approx(20 * 150 / 120)}


def test_a_counter_is_not_extrapolated_below_zero(snapshot_of: Make) -> None:
    # at 10 a minute the counter was 0 at 12 s before its first sample: nearer than half an interval
    snapshot = snapshot_of("a 2 12 22", start_s=600)
    assert at(snapshot, "increase(a[10m])", 720) == {"{}": pytest.approx(20 * 132 / 120)}
    assert at(snapshot, "delta(a[10m])", 720) == {"{}": pytest.approx(20 * 150 / 120)}


def test_the_zero_of_a_counter_counts_only_within_half_an_interval_where_the_series_begins(snapshot_of: Make) -> None:
    # zero lies 45 s back: Prometheus 2 went there, Prometheus 3 stops at half an interval, 30 s
    snapshot = snapshot_of("a 7.5 17.5 27.5", start_s=600)
    assert at(snapshot, "increase(a[10m])", 720) == {"{}": pytest.approx(20 * 150 / 120)}


def test_a_reset_adds_what_the_counter_had_reached(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 100 110 120 5 15")
    assert at(snapshot, "resets(a[5m])", 240) == {"{}": 1}
    # (60, 240]: 120, 5, 15 in 120 s: 120 back to 0, then 15; the left edge is 60 s away
    assert at(snapshot, "increase(a[3m])", 240) == {"{}": pytest.approx((15 - 120 + 120) * 180 / 120)}
    assert at(snapshot, "irate(a[2m])", 180) == {"{}": pytest.approx(5 / 60)}


def test_absent_over_time_sees_the_left_edge_too(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1")
    assert at(snapshot, "absent_over_time(a[1m])", 59.999) == {}
    assert at(snapshot, "absent_over_time(a[1m])", 60) == {"{}": 1}


def test_a_mean_does_not_overflow_where_its_sum_would(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 1.5e308 1.5e308\na{x="2"} 1.5e308 1.5e308')
    assert at(snapshot, 'avg_over_time(a{x="1"}[2m])', 60) == {'{x="1"}': pytest.approx(1.5e308)}
    assert at(snapshot, "avg(a)", 60) == {"{}": pytest.approx(1.5e308)}


# ---- step series


def test_a_step_series_is_0_before_its_first_event_and_never_stale(snapshot_of: Make) -> None:
    snapshot = snapshot_of(steps="sold 100:2 160:5")
    assert over(snapshot, "sold", 99, 161, 1)["sold"][:3] == [0, 2, 2]
    assert at(snapshot, "sold", 159.999) == {"sold": 2}
    assert at(snapshot, "sold", 160) == {"sold": 5}
    assert at(snapshot, "sold", 1_000_000) == {"sold": 5}


def test_rates_of_a_step_series_are_exact_and_nothing_is_extrapolated(snapshot_of: Make) -> None:
    snapshot = snapshot_of(steps="sold 100:2 160:5 400:6")
    assert at(snapshot, "increase(sold[5m])", 400) == {"{}": 4}  # the 2 at second 100 lies on the left edge
    assert at(snapshot, "increase(sold[5m])", 399) == {"{}": 5}
    assert at(snapshot, "increase(sold[1h])", 400) == {"{}": 6}
    assert at(snapshot, "rate(sold[5m])", 399) == {"{}": pytest.approx(5 / 300)}
    assert at(snapshot, "delta(sold[1m])", 1000) == {"{}": 0}
    assert at(snapshot, "increase(sold[1m] offset 5m)", 460) == {"{}": 3}


def test_over_time_functions_of_a_step_series_see_the_value_carried_in(snapshot_of: Make) -> None:
    snapshot = snapshot_of(steps="sold 100:2 160:5 400:6")
    assert at(snapshot, "min_over_time(sold[1m])", 200) == {"{}": 2}
    assert at(snapshot, "max_over_time(sold[1m])", 900) == {"{}": 6}
    assert at(snapshot, "sum_over_time(sold[2m])", 210) == {"{}": 7}  # 0 carried in, then 2 and 5
    assert at(snapshot, "changes(sold[2m])", 210) == {"{}": 2}
    assert at(snapshot, "last_over_time(sold[1m])", 90) == {"sold": 0}
    assert at(snapshot, "absent_over_time(sold[1m])", 90) == {}


def test_the_last_two_values_of_a_step_series_may_be_the_carried_one_and_an_event(snapshot_of: Make) -> None:
    snapshot = snapshot_of(steps="sold 100:2 160:5")
    assert at(snapshot, "idelta(sold[1m])", 170) == {"{}": 3}
    assert at(snapshot, "irate(sold[1m])", 170) == {"{}": pytest.approx(3 / 50)}  # carried in at 110, event at 160


def test_a_step_series_holds_at_every_moment_so_its_timestamp_is_the_moment(snapshot_of: Make) -> None:
    snapshot = snapshot_of(steps="sold 100:2")
    assert at(snapshot, "timestamp(sold)", 5000) == {"{}": 5000}


def test_step_series_and_sampled_series_meet_in_one_expression(snapshot_of: Make) -> None:
    snapshot = snapshot_of('limit{city="x"} 10 10 10', steps='sold{city="x"} 30:4\nsold{city="y"} 60:1')
    assert at(snapshot, "limit - sold", 60) == {'{city="x"}': 6}
    assert at(snapshot, "sum(sold)", 60) == {"{}": 5}


# ---- names, matching, errors


def test_names_are_dropped_where_the_value_is_no_longer_the_metrics(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1 2\nb 3 4")
    assert at(snapshot, "a > 0", 60) == {"a": 2}
    assert at(snapshot, "a > bool 0", 60) == {"{}": 1}
    assert at(snapshot, "last_over_time(a[2m])", 60) == {"a": 2}
    assert at(snapshot, "a atan2 0", 60) == {"{}": pytest.approx(math.pi / 2)}
    assert at(snapshot, 'sum by (__name__) ({__name__=~"a|b"})', 60) == {"a": 2, "b": 4}


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ('a{x="1"} / on () b', "found duplicate series for the match group {} on the right hand-side of the operation"),
        ("a / on (y) c", "many-to-one matching must be explicit (group_left/group_right)"),
        ("a * on () group_left (x) c", "grouping labels must ensure unique matches"),
        ('abs({__name__=~"a|same"})', 'vector cannot contain metrics with the same labelset: {x="1"}'),
        ('label_replace(a, "x", "z", "x", ".*")', 'vector cannot contain metrics with the same labelset: a{x="z"}'),
        ("topk(NaN, a)", "not NaN"),
    ],
)
def test_matches_that_are_not_unique_are_errors_in_prometheus_words(snapshot_of: Make, expr: str, text: str) -> None:
    snapshot = snapshot_of('a{x="1"} 1\na{x="2"} 2\nb{x="1"} 1\nb{x="2"} 2\nc{x="3"} 3\nsame{x="1"} 5')
    with pytest.raises(QueryError) as caught:
        at(snapshot, expr, 0)
    assert text in str(caught.value)


def test_series_of_one_match_group_that_never_overlap_in_time_are_no_error(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a 1 1 1 1\nb{x="1"} 1 stale\nb{x="2"} _ _ 2 3')
    assert over(snapshot, "a * on () b", 0, 180, 60) == {"{}": [1, None, 2, 3]}


def test_topk_at_an_instant_is_ordered_by_value(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 5\na{x="2"} 9\na{x="3"} nan\na{x="4"} 7')
    assert list(at(snapshot, "topk(3, a)", 0)) == ['a{x="2"}', 'a{x="4"}', 'a{x="1"}']
    assert list(at(snapshot, "bottomk(2, a)", 0)) == ['a{x="1"}', 'a{x="4"}']
    assert len(at(snapshot, "topk(9, a)", 0)) == 4


def test_rows_are_sorted_so_that_two_runs_agree(snapshot_of: Make) -> None:
    snapshot = snapshot_of('b{x="2"} 1\nb{x="1"} 1\na{x="9"} 1')
    assert list(at(snapshot, '{__name__=~"a|b"}', 0)) == ['a{x="9"}', 'b{x="1"}', 'b{x="2"}']


# ---- the other kinds, and limits


def test_a_range_vector_at_an_instant_is_its_samples(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 1 2 stale 4\na{x="2"} _ 6 _ 8', steps="a 30:3 90:4")
    value = instant(snapshot, "a[3m]", 180)
    assert value.kind == "matrix"
    samples = {
        promql.series_text(name, labels): [
            (int(t), float(v))
            for t, v, there in zip(value.steps_ms, value.values[row], value.present[row], strict=True)
            if there
        ]
        for row, (name, labels) in enumerate(zip(value.names, value.labels, strict=True))
    }
    assert samples == {
        'a{x="1"}': [(60_000, 2), (180_000, 4)],
        'a{x="2"}': [(60_000, 6), (180_000, 8)],
        "a": [(30_000, 3), (90_000, 4)],
    }


def test_a_range_vector_over_steps_is_an_error_with_its_mend(snapshot_of: Make) -> None:
    with pytest.raises(QueryError, match=r"wrap it in a function such as rate\(\)"):
        over(snapshot_of("a 1"), "a[3m]", 0, 60, 60)


def test_a_string_and_a_scalar_have_their_kinds(snapshot_of: Make) -> None:
    assert instant(snapshot_of(), '"text"', 0).text == "text"
    value = instant(snapshot_of(), "time() * 2", 30)
    assert (value.kind, float(value.values[0, 0])) == ("scalar", 60)


@pytest.mark.parametrize(
    ("span", "text"),
    [((0, 100, 0), "the step must be longer than 0"), ((100, 0, 1), "the end lies before the start"),
     ((0, 11_000_000, 1000), "11001 steps are more than 11000")],
)  # fmt: skip
def test_spans_that_make_no_sense_or_too_many_steps_are_errors(
    snapshot_of: Make, span: tuple[int, int, int], text: str
) -> None:
    with pytest.raises(QueryError, match=text):
        promql.evaluate(promql.compile("1"), snapshot_of(), *span, Stop())


def test_a_result_of_too_many_points_is_refused_before_it_is_made(snapshot_of: Make) -> None:
    names = tuple(Series("a", (("x", str(i)),)) for i in range(4000))
    block = Block(names, tuple(range(4000)), np.array([0]), np.zeros((1, 4000)), 300_000, "test")  # type: ignore[arg-type]  # ids do not matter here
    snapshot = snapshot_of()
    snapshot.blocks.append(block)
    with pytest.raises(QueryError, match="4000 series by 10001 steps; ask for fewer of one"):
        promql.evaluate(promql.compile("a"), snapshot, 0, 10_000_000, 1000, Stop())


def test_an_evaluation_ends_at_its_deadline_and_when_it_is_cancelled(snapshot_of: Make) -> None:
    now = [100.0]

    def monotonic() -> float:
        now[0] += 1
        return now[0]

    query = promql.compile("a + a + a + a")
    with pytest.raises(QueryStopped, match="took longer than it may"):
        promql.evaluate(query, snapshot_of("a 1"), 0, 0, 1, Stop(103.0, monotonic))
    stop = Stop()
    stop.cancel("the client went away")
    with pytest.raises(QueryStopped, match="the client went away"):
        promql.evaluate(query, snapshot_of("a 1"), 0, 0, 1, stop)


def test_a_selector_that_occurs_twice_is_read_once(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1 2")
    at(snapshot, "a / (a + a) > a", 60)
    assert snapshot.selects == 1


def test_cost_counts_the_samples_of_all_selectors_and_the_steps(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 0+1x9\na{x="2"} 0+1x9', stale_after_s=60)
    query = promql.compile("rate(a[5m]) + a")
    assert promql.cost(query, snapshot, 540_000, 540_000, 1) == 2 * 6 + 2 * 2 + 1
    assert promql.cost(promql.compile("1"), snapshot, 0, 99_000, 1000) == 100
    assert promql.loaded(query, snapshot, 0, 0)
    snapshot.on_disk = True
    assert not promql.loaded(query, snapshot, 0, 0)


# ---- evidence


def read(value: Value, row: int) -> list[tuple[str, int, float]]:
    assert value.reads is not None
    return [(promql.series_text(s.metric, s.labels), t, v) for s, t, v in value.reads[row].samples()]


def test_without_being_asked_an_evaluation_keeps_no_evidence(snapshot_of: Make) -> None:
    assert instant(snapshot_of("a 1"), "a", 0).reads is None


def test_evidence_of_an_instant_is_the_sample_that_holds(snapshot_of: Make) -> None:
    value = instant(snapshot_of('a{x="1"} 1 2 3\na{x="2"} 4 5 6', check="door"), "a > 5", 130, evidence=True)
    assert read(value, 0) == [('a{x="2"}', 120_000, 6)]
    assert value.reads is not None and value.reads[0].checks == {"door"}


def test_evidence_of_a_range_is_its_first_and_last_samples(snapshot_of: Make) -> None:
    value = instant(snapshot_of("a 0+1x9"), "max_over_time(a[10m])", 540, evidence=True)
    assert read(value, 0) == [("a", 0, 0), ("a", 420_000, 7), ("a", 480_000, 8), ("a", 540_000, 9)]


def test_evidence_of_a_step_series_shows_the_value_carried_in_at_the_edge(snapshot_of: Make) -> None:
    value = instant(snapshot_of(steps="sold 100:2 160:5"), "increase(sold[1m])", 170, evidence=True)
    assert read(value, 0) == [("sold", 110_000, 2), ("sold", 160_000, 5)]


def test_evidence_goes_through_operators_and_aggregations_to_what_was_read(snapshot_of: Make) -> None:
    text = 'a{x="1"} 8\na{x="2"} 9\nb{x="1"} 2\nb{x="2"} 3'
    value = instant(snapshot_of(text), "a / b", 0, evidence=True)
    assert read(value, 0) == [('a{x="1"}', 0, 8), ('b{x="1"}', 0, 2)]
    value = instant(snapshot_of(text), "sum(a) > 3 * scalar(count(b))", 0, evidence=True)
    assert {name for name, _, _ in read(value, 0)} == {'a{x="1"}', 'a{x="2"}', 'b{x="1"}', 'b{x="2"}'}
    value = instant(snapshot_of(text), 'a and on (x) b{x="2"}', 0, evidence=True)
    assert read(value, 0) == [('a{x="2"}', 0, 9), ('b{x="2"}', 0, 3)]
    value = instant(snapshot_of(text), "a unless b or b", 0, evidence=True)
    assert read(value, 0) == [('b{x="1"}', 0, 2)]


def test_evidence_of_a_quantile_names_its_buckets(snapshot_of: Make) -> None:
    text = 'h_bucket{le="1"} 5\nh_bucket{le="+Inf"} 9'
    value = instant(snapshot_of(text), "histogram_quantile(0.5, h_bucket)", 0, evidence=True)
    assert len(read(value, 0)) == 2


def test_evidence_of_a_sum_over_many_series_names_some_and_all_checks(snapshot_of: Make) -> None:
    snapshot = snapshot_of("\n".join(f'a{{x="{i}"}} 1' for i in range(100)), check="one")
    snapshot.blocks += snapshot_of('a{x="last"} 1', check="two").blocks
    value = instant(snapshot, "sum(a)", 0, evidence=True)
    assert len(read(value, 0)) == 32
    assert value.reads is not None and value.reads[0].checks == {"one", "two"}


# ---- properties: two ways to the same result

EXPRESSIONS = (
    "a", "rate(a[3m])", "increase(a[90s])", "avg_over_time(a[2m])", "max_over_time(a[5m])", "changes(a[4m])",
    "sum by (x) (a)", "a > 5", "a / on (x) group_left () sum by (x) (a)", "absent(a)", "quantile_over_time(0.5, a[3m])",
    "stddev_over_time(a[3m])", "last_over_time(a[1m])", "timestamp(a)", "a unless a > 3", "resets(a[5m])", "irate(a[5m])",
    "count(a)", "histogram_quantile(0.5, a)", "idelta(a[3m])", "min(a) or vector(0)", "absent_over_time(a[1m])",
)  # fmt: skip
rows_of_values = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0, 100.0, NAN, math.inf, ABSENT, STALE]), min_size=6, max_size=6),
    min_size=1,
    max_size=12,
)


def one_block(rows: list[list[float]], *, step: bool = False) -> Block:
    names = tuple(Series("a", (("le", str(i)), ("x", str(i % 3)))) for i in range(len(rows[0])))
    times = 60_000 * np.arange(len(rows), dtype=np.int64)
    return Block(names, tuple(range(len(names))), times, np.array(rows), 150_000, "test", step)  # type: ignore[arg-type]  # ids do not matter here


def alone(block: Block) -> list[Block]:
    """Each series in a block of its own, with its own rows only."""
    out = []
    for column, series in enumerate(block.series):
        v = block.v[:, column : column + 1].copy()
        kept = v[:, 0].view(np.uint64) != np.array([ABSENT]).view(np.uint64)[0]
        out.append(Block((series,), (block.ids[column],), block.t_ms[kept], v[kept], block.stale_after_ms, block.check))
    return out


@pytest.mark.parametrize("expr", EXPRESSIONS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=rows_of_values, step_s=st.sampled_from([7, 30, 60, 61]))
def test_a_range_query_is_the_same_as_its_instants(
    snapshot_of: Make, expr: str, rows: list[list[float]], step_s: int
) -> None:
    snapshot = snapshot_of()
    snapshot.blocks.append(one_block(rows))
    end = len(rows) * 60 + 200
    whole = over(snapshot, expr, 0, end, step_s)
    for number, second in enumerate(range(0, end + 1, step_s)):
        single = at(snapshot, expr, second)
        column = {name: values[number] for name, values in whole.items() if values[number] is not None}
        assert column == pytest.approx(single, nan_ok=True, rel=1e-12)


@pytest.mark.parametrize("expr", EXPRESSIONS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=rows_of_values)
def test_how_series_share_blocks_does_not_matter(snapshot_of: Make, expr: str, rows: list[list[float]]) -> None:
    shared, apart = snapshot_of(), snapshot_of()
    shared.blocks.append(one_block(rows))
    apart.blocks.extend(alone(shared.blocks[0]))
    one, other = over(shared, expr, 0, 900, 30), over(apart, expr, 0, 900, 30)
    assert one.keys() == other.keys()
    for name, values in one.items():
        for mine, theirs in zip(values, other[name], strict=True):
            assert mine == theirs or (
                mine is not None and theirs is not None and mine == pytest.approx(theirs, nan_ok=True)
            )


# ---- comparisons


@pytest.mark.parametrize("op", ["==", "!=", ">", "<", ">=", "<="])
def test_a_series_compared_with_a_number_yields_what_it_does_compared_with_a_computed_one(
    snapshot_of: Make, op: str
) -> None:
    snapshot = snapshot_of('a{x="1"} 1 2 stale _ 5\na{x="2"} 2 NaN 3 _ _\na{x="3"} 7 7 7 7 7')
    for expr in (f"a {op} %s", f'a{{x="1"}} {op} %s', f"a offset 1m {op} %s", f"a {op} bool %s", f"nothing {op} %s"):
        written, computed = expr % "2", expr % "scalar(vector(2))"
        assert repr(over(snapshot, written, 0, 600, 60)) == repr(over(snapshot, computed, 0, 600, 60))
        assert read_for(snapshot, written, 60) == read_for(snapshot, computed, 60)


def read_for(snapshot: Any, expr: str, seconds: float) -> list[str]:
    """What was read for each row, as text: NaN is not equal to itself."""
    reads = instant(snapshot, expr, seconds, evidence=True).reads or ()
    return [repr((sorted(one.checks), list(one.samples()))) for one in reads]


def test_a_comparison_with_a_number_counts_only_what_it_finds_as_evidence(snapshot_of: Make) -> None:
    found = instant(snapshot_of('a{x="1"} 1\na{x="2"} 2'), "a > 1", 0, evidence=True)
    assert [list(reads.samples()) for reads in found.reads or ()] == [[(Series("a", (("x", "2"),)), 0, 2.0)]]
