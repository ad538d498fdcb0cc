"""The page's words and drawings: pure functions."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.http.dashboard.charts import Spark, SparkLine
from sixfbd.http.dashboard.sparkline import HEIGHT, MAX_LINES, WIDTH, draw
from sixfbd.http.dashboard.wording import age, amount, glance, shown
from sixfbd.model import Alert, AlertKey, AlertState, CheckName, CheckState, RuleName, Severity, Status

NOW = 1_000_000.0


def check(status: Status, **changes) -> CheckState:
    return CheckState(CheckName("c"), "webhook", 60.0, status, **changes)


def alert(state: AlertState, severity: Severity) -> Alert:
    key = AlertKey(RuleName("r"), ())
    return Alert(key=key, id="i", state=state, since=NOW, severity=severity, value=1.0, labels={})


HEALTHY, UNHEALTHY, UNKNOWN = check(Status.HEALTHY), check(Status.UNHEALTHY), check(Status.UNKNOWN)
HIGH, LOW, PENDING = (
    alert(AlertState.FIRING, Severity.HIGH),
    alert(AlertState.FIRING, Severity.LOW),
    alert(AlertState.PENDING, Severity.CRITICAL),
)


@pytest.mark.parametrize(
    ("ready", "checks", "alerts", "tone", "headline"),
    [
        (True, [HEALTHY], [], "good", "All is well"),
        (True, [HEALTHY], [PENDING], "good", "All is well"),
        (True, [HEALTHY, UNKNOWN], [], "unknown", "Not everything is known yet"),
        (True, [], [], "unknown", "Nothing is checked yet"),
        (True, [UNHEALTHY, UNKNOWN], [], "warn", "1 check not healthy"),
        (True, [check(Status.DEGRADED), UNHEALTHY], [], "warn", "2 checks not healthy"),
        (True, [check(Status.UNHEALTHY, paused=True), HEALTHY], [], "good", "All is well"),
        (True, [UNHEALTHY], [LOW], "warn", "1 alert firing"),
        (True, [HEALTHY], [LOW, HIGH], "bad", "2 alerts firing"),
        (False, [HEALTHY], [], "bad", "The daemon is not ready"),
    ],
)
def test_the_headline_is_the_worst_that_is_true(ready, checks, alerts, tone, headline):
    found = glance((ready, "" if ready else "starting"), checks, alerts)
    assert (found.tone, found.headline) == (tone, headline)


def test_the_detail_counts_the_checks_by_status():
    found = glance((True, ""), [HEALTHY, HEALTHY, UNKNOWN, check(Status.HEALTHY, paused=True)], [PENDING])
    assert found.detail == "4 checks: 2 healthy, 1 unknown · 1 paused · 1 pending alert"


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (None, "never"),
        (NOW, "just now"),
        (NOW - 0.4, "just now"),
        (NOW - 1, "1 s ago"),
        (NOW - 119, "119 s ago"),
        (NOW - 120, "2 min ago"),
        (NOW - 7199, "119 min ago"),
        (NOW - 7200, "2 h ago"),
        (NOW - 172_800, "2 d ago"),
        (NOW - 2 * 365 * 86_400, "2 years ago"),
        (NOW + 30, "in 30 s"),
    ],
)
def test_an_age_is_said_in_the_largest_unit_of_which_there_are_two(at, words):
    assert age(at, NOW) == words


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.2345, "ratio", "23.4 %"),
        (0.1234, "seconds", "123 ms"),
        (0.00042, "seconds", "0.42 ms"),
        (2.5, "seconds", "2.5 s"),
        (12, "count", "12"),
        (1234, "count", "1.23 k"),
        (5e15, "count", "5e+03 T"),
        (math.nan, "ratio", "?"),
    ],
)
def test_a_value_is_said_with_its_unit(value, unit, words):
    assert amount(value, unit) == words


def test_a_line_spans_the_frame_from_left_to_right_and_from_zero_to_its_highest():
    spark = Spark("CPU", "ratio", 0.0, 100.0, (SparkLine("a", ((0.0, 0.0), (50.0, 1.0), (100.0, 0.5))),))
    chart = draw(spark)
    assert chart.lines[0].path == "M0.0 54.0L120.0 2.0L240.0 28.0"
    assert (chart.latest, chart.low, chart.high) == ("50.0 %", "0.0 %", "100.0 %")
    assert chart.spoken == "CPU, last hour: now 50.0 %, lowest 0.0 %, highest 100.0 %"


def test_a_gap_in_the_points_is_a_gap_in_the_line():
    points = tuple((float(at), 1.0) for at in (0, 10, 20, 30, 80, 90, 100))
    assert draw(Spark("CPU", "ratio", 0.0, 100.0, (SparkLine("a", points),))).lines[0].path.count("M") == 2


def test_only_the_highest_lines_are_drawn_and_the_others_are_counted():
    lines = tuple(SparkLine(str(number), ((0.0, float(number)),)) for number in range(10))
    chart = draw(Spark("Probes", "count", 0.0, 100.0, lines))
    assert [line.legend for line in chart.lines] == ["4", "5", "6", "7", "8", "9"]
    assert (len(chart.lines), chart.more, chart.latest) == (MAX_LINES, 4, "9")


@given(st.lists(st.text(), unique=True, min_size=1, max_size=MAX_LINES), st.randoms(use_true_random=False))
def test_a_line_keeps_its_colour_and_its_place_whatever_is_measured(names, random):
    def drawn() -> list[tuple[str, int]]:
        random.shuffle(names)
        lines = tuple(SparkLine(name, ((0.0, random.random()), (30.0, random.random()))) for name in names)
        return [(line.legend, line.colour) for line in draw(Spark("Probes", "count", 0.0, 30.0, lines)).lines]

    first = drawn()
    assert drawn() == first
    assert sorted({colour for _, colour in first}) == sorted(colour for _, colour in first)
    assert all(0 <= colour < MAX_LINES for _, colour in first)


def test_a_line_that_has_ended_has_no_value_now():
    points = tuple((float(at), 1.0) for at in range(0, 50, 10))
    lines = (SparkLine("ended", points), SparkLine("lives", (*points, (50.0, 0.5), (100.0, 0.5))))
    chart = draw(Spark("CPU", "ratio", 0.0, 100.0, lines))
    assert [(line.legend, line.latest) for line in chart.lines] == [("ended", "no data"), ("lives", "50.0 %")]
    assert chart.latest == "50.0 %"
    assert draw(Spark("CPU", "ratio", 0.0, 100.0, lines[:1])).latest == "no data"


@pytest.mark.parametrize(
    ("text", "as_shown"),
    [
        ("plain, <b>, \u00e4, \U0001f600\ufe0f", "plain, <b>, \u00e4, \U0001f600\ufe0f"),
        ("a\u202ecod.exe", "a\\u202ecod.exe"),
        ("\u2067\u200f\u061c", "\\u2067\\u200f\\u061c"),
        ("\x00\x1b[31m\x9b", "\\u0000\\u001b[31m\\u009b"),
        ("one\ntwo\tthree", "one two three"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_others_wrote_shows_as_it_is(text, as_shown):
    assert shown(text) == as_shown


def test_what_others_wrote_is_cut_where_it_is_too_long():
    assert shown("x" * 10, 10) == "x" * 10
    assert shown("x" * 11, 10) == "x" * 9 + "\u2026"


def test_a_chart_without_points_says_so():
    lines = (SparkLine("a", ()), SparkLine("b", ((0.0, math.nan),)))
    assert draw(Spark("CPU", "ratio", 0.0, 1.0, lines)).spoken == "CPU: no data in the last hour"


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-10, 200), st.floats(allow_nan=True, allow_infinity=True)), max_size=30).map(
            lambda points: tuple(sorted(points, key=lambda point: point[0]))
        ),
        max_size=8,
    )
)
def test_whatever_is_measured_is_drawn_inside_the_frame(lines):
    chart = draw(Spark("CPU", "ratio", 0.0, 100.0, tuple(SparkLine("x", points) for points in lines)))
    for line in chart.lines:
        places = re.findall(r"[ML](\S+) ([0-9.-]+)", line.path)
        assert places
        for x, y in places:
            assert 0 <= float(x) <= WIDTH
            assert 0 <= float(y) <= HEIGHT
