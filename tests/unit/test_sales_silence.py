"""How long may nobody buy: an exact tail, right at few orders too, and as many false alarms as were put up with."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd_plugins.business.silence import (
    LEAST_HISTORY_H,
    Usual,
    chance_of_no_end,
    chance_of_none,
    expected,
    limit,
    usual,
)
from tests.simulation.sales import judge_shops

EVEN = Usual((2.0,) * 168, 25.0)


def test_what_is_expected_of_a_time_is_the_sum_of_its_hours_also_over_the_end_of_the_week():
    assert expected(EVEN, 10.5, 14.0) == pytest.approx(7.0)
    assert expected(EVEN, 167.0, 170.0) == pytest.approx(6.0)
    night = Usual(tuple(0.0 if hour % 24 < 8 else 3.0 for hour in range(168)), 25.0)
    assert expected(night, 24.0, 32.0) == 0.0 and expected(night, 31.5, 33.0) == pytest.approx(3.0)
    assert expected(EVEN, 5.0, 5.0) == 0.0


@given(st.floats(0.01, 50), st.floats(2, 1e6))
def test_the_chance_of_none_is_never_below_poissons_and_becomes_it_where_the_level_is_sure(orders, shape):
    chance = chance_of_none(Usual((1.0,) * 168, shape), orders)
    assert math.exp(-orders) <= chance * (1 + 1e-9)
    sure = chance_of_none(Usual((1.0,) * 168, 1e12), orders)
    assert sure == pytest.approx(math.exp(-orders), rel=0.01)


@given(st.integers(0, 40), st.integers(1, 500))
def test_checkouts_that_lead_nowhere_are_ever_less_likely_and_none_says_nothing(begun, checkouts):
    orders = checkouts * 0.6
    assert chance_of_no_end(orders, checkouts, 0) == 1.0
    assert chance_of_no_end(orders, checkouts, begun + 1) < chance_of_no_end(orders, checkouts, begun) <= 1.0


def test_ten_checkouts_without_an_order_are_no_chance_where_six_in_ten_are_usual():
    assert chance_of_no_end(600, 1000, 10) < 3e-4
    assert chance_of_no_end(0, 0, 10) == 1.0, "of a shop that tells of none nothing is known"


def test_too_little_history_says_nothing():
    hours = np.arange(LEAST_HISTORY_H - 1) % 168
    assert usual(np.ones(len(hours)), hours) is None
    assert usual(np.zeros(400), np.arange(400) % 168) is None


def test_the_lower_level_counts_once_a_promotion_is_over():
    hours = np.arange(40 * 24) % 168
    orders = np.where(np.arange(40 * 24) < 30 * 24, 6.0, 2.0)
    assert usual(orders, hours).a_month == pytest.approx(2 * 720, rel=0.25)


@pytest.mark.parametrize(("a_day", "shops"), [(5, 12), (50, 6)])
def test_false_alarms_are_as_many_as_are_put_up_with_and_a_dead_checkout_is_noticed(a_day, shops):
    judged = judge_shops(a_day, shops, false_alarms=1.0)
    assert judged.false_a_month["tail"] < 2.5
    assert judged.false_a_month["ratio"] > 10 * judged.false_a_month["tail"]
    assert judged.median_h("tail") < 8 * 24 / a_day + 30


def test_the_limit_shares_the_false_alarms_among_the_orders_of_a_month():
    assert limit(EVEN, 0.2) == pytest.approx(0.2 / 1440)
