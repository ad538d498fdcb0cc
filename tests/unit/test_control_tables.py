"""Columns, ages, sizes and charts as people read them."""

import math

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.control.tables import (
    age,
    clean,
    clock_time,
    count_line,
    labels,
    size,
    span,
    spark,
    table,
    text_width,
    time,
    value,
)


def plain(lines: list[str]) -> list[str]:
    return [click.unstyle(line) for line in lines]


def test_columns_are_as_wide_as_their_widest_cell_and_the_last_is_not_padded() -> None:
    lines = plain(table(("name", "status"), [("a", "healthy"), ("longer", "x")]))
    assert lines == ["NAME    STATUS", "a       healthy", "longer  x"]


def test_wide_and_combining_characters_keep_the_columns_straight() -> None:
    lines = plain(table(("name", "x"), [("日本", "1"), ("e\u0301t", "2")]))
    assert {text_width(line) for line in lines[1:]} == {7}


def test_a_table_without_rows_says_so() -> None:
    assert table(("name",), [], none="no checks") == ["no checks"]


def test_a_status_has_its_colour_and_other_words_have_none() -> None:
    [_, row] = table(("a", "b"), [("healthy", "words")])
    assert row == click.style("healthy", fg="green") + "  words"


@given(st.text())
def test_no_text_of_others_steers_the_terminal(text: str) -> None:
    cleaned = clean(text)
    assert all(char.isprintable() for char in cleaned)


def test_an_escape_sequence_in_a_summary_is_harmless_in_a_table() -> None:
    [_, row] = table(("summary",), [("red\x1b[31m\nline",)])
    assert row == "red[31m line"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0404, "40ms"), (12.9, "12s"), (90, "1m30s"), (3600, "1h"), (11_130, "3h5m"), (90_000, "1d1h")],
)
def test_a_span_has_two_units_at_most(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_a_time_ago_and_a_time_to_come_are_told_apart() -> None:
    assert age(90.0, 100.0) == "10s ago"
    assert age(110.0, 100.0) == "in 10s"
    assert age(None, 100.0) == "-"


def test_times_are_utc() -> None:
    assert time(0.0) == "1970-01-01 00:00:00Z"
    assert clock_time(1.5) == "00:00:01.500"
    assert time(None) == "-"


def test_sizes_have_binary_units() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 * 1024**3, 2**45)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB", "32.0 TiB"]


def test_values_are_short_and_texts_stay() -> None:
    assert [value(v) for v in (3.0, 0.123456789, "NaN", None, 1e300)] == ["3", "0.123456789", "NaN", "-", "1e+300"]


def test_label_sets_read_as_promql() -> None:
    assert labels({"__name__": "up", "job": "shop", "a": "b"}) == 'up{a="b", job="shop"}'
    assert labels({"__name__": "up"}) == "up"
    assert labels({}) == "{}"


def test_a_chart_rises_with_the_numbers_and_is_no_wider_than_asked() -> None:
    assert spark([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert len(spark(list(range(1000)), width=40)) == 40
    assert spark([5, 5, math.nan]) == "▁▁"
    assert spark([math.nan]) == ""


def test_counts_leave_zeros_out() -> None:
    assert count_line({"healthy": 3, "degraded": 0, "unhealthy": 1}) == "3 healthy, 1 unhealthy"
    assert count_line({}) == "none"
