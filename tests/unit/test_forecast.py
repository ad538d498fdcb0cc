"""The forecast as properties: order, edges, rhythm, and that it is a pure function of what it is given."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd_plugins.business import forecast as forecasting
from sixfbd_plugins.business.forecast import covers, forecast, level, seed_hours, surge, weekly_rhythm, without_bursts
from sixfbd_plugins.inventory.foresight import hours_of_week, known

AHEAD = np.arange(14 * 24) % 168


def of_week(hours):
    return np.arange(-hours, 0) % 168


def ask(sold, remaining, closes_in_h=None, seed=1):
    sold = np.asarray(sold, dtype=float)
    return forecast(sold, of_week(len(sold)), remaining, AHEAD, closes_in_h, np.random.default_rng(seed))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=24, max_size=24 * 9), st.integers(0, 3000), st.none() | st.floats(-5, 500))
def test_whatever_was_sold_the_interval_is_in_order_and_chances_grow(sold, remaining, closes_in_h):
    one = ask(sold, remaining, closes_in_h)
    if one is None:
        assert remaining > 0
        assert sum(sold) == 0
        return
    low, median, high = (np.inf if end is None else end for end in (one.low_h, one.median_h, one.high_h))
    assert 0 <= low <= median <= high
    assert 0 <= one.within_24h <= one.within_48h <= 1
    if closes_in_h is not None and remaining:
        assert all(end is None or end <= max(0, np.ceil(closes_in_h)) for end in (one.low_h, one.median_h, one.high_h))


def test_the_same_facts_make_the_same_forecast():
    assert ask([3] * 200, 400) == ask([3] * 200, 400)
    assert ask([3] * 200, 400) != ask([3] * 200, 400, seed=2)


def test_more_tickets_take_longer():
    medians = [ask([3] * 400, left).median_h for left in (10, 50, 200, 600)]
    assert medians == sorted(set(medians))


def test_sales_as_even_as_can_be_are_foretold_by_their_rate():
    one = ask([4] * 24 * 28, 400)
    assert 75 < one.median_h < 115
    assert one.low_h < 100 < one.high_h


def test_nothing_is_foretold_of_a_day_or_of_no_sales_and_what_is_gone_is_gone():
    assert ask([5] * 23, 10) is None
    assert ask([0] * 100, 10) is None
    one = ask([0] * 100, 0)
    assert (one.median_h, one.within_24h) == (0.0, 1.0)


def test_a_sale_that_closes_before_is_not_sold_out():
    one = ask([1] * 200, 10_000, closes_in_h=24)
    assert (one.low_h, one.median_h, one.high_h, one.within_48h) == (None, None, None, 0.0)


def test_a_rhythm_is_found_and_its_mean_is_one():
    sold = np.where(of_week(8 * 168) % 24 >= 12, 10.0, 0.0) * np.where(of_week(8 * 168) // 24 >= 5, 3.0, 1.0)
    rhythm = weekly_rhythm(sold, of_week(8 * 168))
    assert rhythm.mean() == pytest.approx(1)
    assert rhythm[5 * 24 + 13] == pytest.approx(3 * rhythm[13], rel=0.15)
    assert rhythm[3] < 0.2 * rhythm[13]


def test_a_promotion_that_is_over_hardly_moves_the_level():
    sold = np.full(20 * 24, 4.0)
    usual = np.ones(len(sold))
    sold[-48:-24] *= 5
    assert level(without_bursts(sold, usual), usual, 3.0)[0] == pytest.approx(4, rel=0.05)
    assert level(sold, usual, 3.0)[0] > 5


def test_a_shop_that_sells_a_ticket_now_and_then_sells_at_its_mean():
    sold = np.random.default_rng(3).poisson(0.1, 40 * 24).astype(float)
    usual = np.ones(len(sold))
    assert level(without_bursts(sold, usual), usual, 14.0)[0] == pytest.approx(0.1, rel=0.3)


def test_a_surge_is_seen_and_chance_is_none():
    usual = np.full(100, 4.0)
    assert surge(usual, usual) == 1
    assert surge(np.append(usual[3:], [20, 20, 20]), usual) == 5


def test_the_seeds_formula_is_remaining_over_a_24th_of_the_days_sales():
    assert seed_hours(np.array([100.0] + [2.0] * 24), 30) == 15
    assert seed_hours(np.array([100.0] + [0.0] * 24), 30) is None


def test_an_interval_whose_end_is_never_reached_holds_everything_later():
    assert covers(5.0, None, 1e6)
    assert not covers(5.0, None, 4)
    assert not covers(None, None, 4)
    assert covers(5.0, 6.0, 6.0)


def test_hours_of_the_week_are_those_of_the_site_and_follow_its_summer_time():
    from zoneinfo import ZoneInfo

    midnight = 1_772_949_600.0  # 2026-03-08T00:00-06:00, a Sunday whose hour of two o'clock is left out
    hours = hours_of_week(midnight, -1, 4, ZoneInfo("America/Chicago"))
    assert list(hours) == [5 * 24 + 23, 6 * 24, 6 * 24 + 1, 6 * 24 + 3, 6 * 24 + 4]


def test_what_is_known_begins_with_the_first_hour_of_which_anything_is():
    assert list(known(np.array([np.nan, np.nan, 2.0, 0.0]))) == [2.0, 0.0]
    assert not len(known(None))


def test_its_horizon_is_longer_than_any_interval_that_it_can_tell():
    assert forecasting.HORIZON_H >= 24 * forecasting.LONG_HALF_LIFE_D
