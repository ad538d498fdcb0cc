"""Columns, ages, sizes and charts as people read them."""

import math

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.control.tables import (
    age,
    clock_time,
    count_line,
    facts,
    labels,
    size,
    span,
    spark,
    table,
    text_width,
    time,
    value,
)
from sixfbd.control.terminal import clean


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


HEADS = ("id", "state", "kind", "since", "summary")
ROW = ("vry5vjuml373u5r6dvnk", "firing", "webhook", "4m13s ago", "the shop does not answer: connection refused by all")


def test_a_table_too_wide_for_the_terminal_wraps_its_text_then_drops_then_folds() -> None:
    def at(width: int) -> list[str]:
        return plain(table(HEADS, [ROW], width=width, drop=("kind",), fold=("summary",)))

    assert at(120) == plain(table(HEADS, [ROW]))
    assert at(80)[1:] == [
        "vry5vjuml373u5r6dvnk  firing  webhook  4m13s ago  the shop does not answer:",
        " " * 50 + "connection refused by all",
    ]
    assert at(70)[0].split() == ["ID", "STATE", "SINCE", "SUMMARY"]
    assert at(50)[1:] == [
        "vry5vjuml373u5r6dvnk  firing  4m13s ago",
        "    summary: the shop does not answer: connection",
        "    refused by all",
    ]


def test_a_name_that_leaves_no_room_has_a_line_of_its_own_and_is_whole() -> None:
    lines = plain(table(("check", "status"), [("a" * 70, "healthy"), ("shop", "healthy")], width=60))
    assert lines == ["CHECK  STATUS", "a" * 70, "       healthy", "shop   healthy"]


@given(st.lists(st.lists(st.text(), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(20, 200))
def test_no_width_cuts_anything_but_what_may_be_left_out(rows: list[list[str]], width: int) -> None:
    lines = plain(table(HEADS, rows, width=width, drop=("kind",), fold=("summary", "since")))
    shown = " ".join(lines).split()
    for row in rows:
        for at, cell in enumerate(row):
            assert HEADS[at] == "kind" or all(word in shown for word in clean(cell).split())


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


def test_an_escape_sequence_in_a_name_is_harmless_among_facts() -> None:
    assert facts([("up{a='\x1b]0;x\x07'}", "1\x9b2J")]) == ["up{a=']0;x'}  12J"]


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
