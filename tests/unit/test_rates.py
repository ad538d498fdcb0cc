"""A bucket: what may come at once, and in the long run."""

from hypothesis import given
from hypothesis import strategies as st

from sixfbd.rates import BURST_S, Bucket


def test_ten_seconds_worth_may_come_at_once_and_then_as_much_as_the_rate():
    bucket = Bucket(0.0)
    assert [bucket.take(2, 0.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(2, 0.0) == 0.5
    assert bucket.take(2, 0.4) > 0
    assert bucket.take(2, 0.5) == 0.0
    assert bucket.take(2, 0.5) == 0.5


def test_more_than_is_left_is_taken_whole_and_made_up_for():
    bucket = Bucket(0.0)
    assert bucket.take(1, 0.0, 100) == 0.0
    assert bucket.take(1, 0.0) == 91.0
    assert bucket.take(1, 91.0) == 0.0


def test_a_clock_that_does_not_move_fills_nothing_and_one_set_back_empties_nothing():
    bucket = Bucket(100.0)
    assert bucket.take(1, 100.0, 9) == 0.0
    assert bucket.take(1, 50.0) == 0.0
    assert bucket.take(1, 50.0) == 1.0


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 5), st.integers(1, 40)), min_size=1, max_size=200))
def test_whatever_is_asked_no_more_is_taken_than_rate_burst_and_one_request(rate, asked):
    bucket, now, taken = Bucket(0.0), 0.0, 0
    for wait_s, many in asked:
        now += wait_s
        taken += many if bucket.take(rate, now, many) == 0.0 else 0
    assert taken <= rate * (BURST_S + now) + 40
