"""Step series as rows: whatever the order of arrival, the hours hold the same increments and the totals add up."""

import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.journal.schema import MIGRATIONS
from sixfbd.journal.step_log import HOUR_MS, PART_SIZE, add_increments, merge, read_step_hours, read_step_series
from sixfbd.journal.verify import problems
from sixfbd.model import MetricKind, Series

SOLD = Series("shop_sold_total", (("tier", "ga"),), MetricKind.COUNTER)
REVENUE = Series("shop_revenue_total", (("currency", "USD"),), MetricKind.COUNTER)
NOON_MS = 1_800_000_000_000 // HOUR_MS * HOUR_MS


@pytest.fixture
def journal():
    with closing(in_memory()) as connection:
        yield connection


def in_memory():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA foreign_keys=on")
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    return connection


def hours(connection, series=SOLD, lo_ms=0, hi_ms=2**60):
    return [
        (start, before, t.tolist(), add.tolist())
        for start, before, t, add in read_step_hours(connection, series, lo_ms, hi_ms)
    ]


def test_an_hour_holds_its_increments_and_the_total_before_it(journal):
    add_increments(journal, [(SOLD, NOON_MS + 1, 2.0), (SOLD, NOON_MS + HOUR_MS, 3.0), (SOLD, NOON_MS + 5, 1.0)])
    assert hours(journal) == [
        (NOON_MS, 0.0, [NOON_MS + 1, NOON_MS + 5], [2.0, 1.0]),
        (NOON_MS + HOUR_MS, 3.0, [NOON_MS + HOUR_MS], [3.0]),
    ]
    assert read_step_series(journal) == [(SOLD, 6.0, NOON_MS + HOUR_MS)]


def test_a_late_increment_lands_in_its_hour_and_raises_the_totals_after_it(journal):
    for hour in (0, 2, 3):
        add_increments(journal, [(SOLD, NOON_MS + hour * HOUR_MS, 1.0)])
    add_increments(journal, [(SOLD, NOON_MS + HOUR_MS + 7, 10.0)])
    assert [(start, before) for start, before, _, _ in hours(journal)] == [
        (NOON_MS, 0.0),
        (NOON_MS + HOUR_MS, 1.0),
        (NOON_MS + 2 * HOUR_MS, 11.0),
        (NOON_MS + 3 * HOUR_MS, 12.0),
    ]
    assert problems(journal) == []


def test_an_increment_before_all_others_counts_as_if_it_followed_what_was_deleted(journal):
    add_increments(journal, [(SOLD, NOON_MS, 1.0), (SOLD, NOON_MS + HOUR_MS, 1.0)])
    journal.execute("UPDATE step_hours SET before = before + 40")  # as retention leaves it
    add_increments(journal, [(SOLD, NOON_MS - 5 * HOUR_MS, 2.0)])
    assert [before for _, before, _, _ in hours(journal)] == [40.0, 42.0, 43.0]


def test_increments_of_one_millisecond_become_one(journal):
    add_increments(journal, [(SOLD, NOON_MS, 1.0), (SOLD, NOON_MS, 2.0)])
    add_increments(journal, [(SOLD, NOON_MS, 4.0)])
    assert hours(journal) == [(NOON_MS, 0.0, [NOON_MS], [7.0])]


def test_money_does_not_drift(journal):
    for i in range(1000):
        add_increments(journal, [(REVENUE, NOON_MS + i * HOUR_MS // 100, 0.1)])
    assert read_step_series(journal)[0][1] == pytest.approx(100.0, abs=1e-12)
    assert hours(journal, REVENUE)[1][1] == math.fsum([0.1] * 100)


def test_a_select_within_a_quiet_time_gets_the_last_hour_before_it(journal):
    add_increments(
        journal, [(SOLD, NOON_MS + 1, 1.0), (SOLD, NOON_MS + HOUR_MS + 1, 1.0), (SOLD, NOON_MS + 9 * HOUR_MS, 1.0)]
    )
    quiet = hours(journal, lo_ms=NOON_MS + 4 * HOUR_MS, hi_ms=NOON_MS + 5 * HOUR_MS)
    assert [start for start, *_ in quiet] == [NOON_MS + HOUR_MS]
    before_all = hours(journal, lo_ms=NOON_MS - 2 * HOUR_MS, hi_ms=NOON_MS - 1)
    assert before_all == []
    assert hours(journal, series=REVENUE) == []


def test_times_and_increments_have_the_types_of_blocks(journal):
    add_increments(journal, [(SOLD, NOON_MS, 1.0)])
    [(_, _, t, add)] = read_step_hours(journal, SOLD, 0, 2**60)
    assert (t.dtype, add.dtype) == (np.int64, np.float64)
    assert t.flags.c_contiguous and add.flags.c_contiguous


@pytest.mark.parametrize("add", [-1.0, math.nan, math.inf])
def test_a_counter_takes_no_decrease(journal, add):
    with pytest.raises(ValueError, match="shop_sold_total: a counter cannot be increased by"):
        add_increments(journal, [(SOLD, NOON_MS, add)])


@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 3 * HOUR_MS), st.integers(0, 100)), max_size=40), max_size=12)
)
def test_any_order_of_arrival_gives_the_same_hours(batches):
    everything = [(NOON_MS + at, float(add)) for batch in batches for at, add in batch]
    with closing(in_memory()) as piecewise, closing(in_memory()) as at_once:
        for batch in batches:
            add_increments(piecewise, [(SOLD, NOON_MS + at, float(add)) for at, add in batch])
        add_increments(at_once, [(SOLD, at, add) for at, add in everything])
        assert hours(piecewise) == hours(at_once)
        assert [pair for _, _, t, add in hours(piecewise) for pair in zip(t, add, strict=True)] == merge(everything)
        assert problems(piecewise) == []


@given(st.randoms(use_true_random=False), st.integers(1, 7))
def test_full_parts_split_and_stay_in_order(random, batch_size):
    times = [NOON_MS + i * 3 for i in range(3 * PART_SIZE)]
    late = [NOON_MS + 3 * random.randrange(2 * PART_SIZE) + 1 for _ in range(50)]
    with closing(in_memory()) as connection:
        add_increments(connection, [(SOLD, at, 1.0) for at in times])
        for start in range(0, len(late), batch_size):
            add_increments(connection, [(SOLD, at, 1.0) for at in late[start : start + batch_size]])
        [(_, _, t, add)] = hours(connection)
        assert t == sorted({*times, *late})
        assert sum(add) == len(times) + len(late)
        assert problems(connection) == []
        sizes = [n // 16 for [n] in connection.execute("SELECT length(data) FROM step_parts")]
        assert max(sizes) <= PART_SIZE
