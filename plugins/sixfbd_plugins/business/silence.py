"""Is it still chance that nobody buys? The orders that an hour of the week usually brings, and an exact tail of none at all.

Orders since the last one are counted by a process whose rate is known but for a factor: what is expected of the time is
summed over the hours of the week, and the factor, how far off the level may be, is a Gamma's. The chance of no order is then
(1 + expected / shape) ** -shape, exact for however few are expected. Every pause between two orders is one trial, so that
a limit of (false alarms a month) / (orders a month) for each keeps to so many. Where the shop tells of checkouts that begin,
those that lead nowhere are a sharper test: a shop that is asked for tickets and sells none. Pure functions; nothing here
knows a clock.
"""

import math
from typing import Final

import numpy as np
from msgspec import Struct

from sixfbd_plugins.business.forecast import LEVEL_SD, WEEK, Hours, HoursOfWeek, level, weekly_rhythm, without_bursts

LEAST_HISTORY_H: Final = 7 * 24
LEAST_ORDERS: Final = 20
HALF_LIFE_D: Final = 10.0
RECENT_D: Final = 3.0
RECENT_EVIDENCE: Final = 10.0  # orders that the level of the last days rests on, for it to count
HOURS_A_MONTH: Final = 30 * 24
MOST_SURE: Final = 60.0


class Usual(Struct, frozen=True):
    """What is usual: orders in each hour of the week (0 is Monday's first), and how sure the level is (a Gamma's shape)."""

    rates: tuple[float, ...]
    shape: float

    @property
    def a_month(self) -> float:
        """Orders of thirty days."""
        return sum(self.rates) / WEEK * HOURS_A_MONTH


def usual(orders: Hours, hours_of_week: HoursOfWeek) -> Usual | None:
    """Return what was usual of orders by hour, oldest first, up to the last order; None if that is too little to know.

    Of the level of the last days and that of the last weeks the lower one counts: a promotion that is over is no stop.
    """
    if len(orders) < LEAST_HISTORY_H or orders.sum() < LEAST_ORDERS:
        return None
    rhythm = weekly_rhythm(orders, hours_of_week)
    like = rhythm[hours_of_week]
    steady = without_bursts(orders, like)
    rate, evidence = level(steady, like, HALF_LIFE_D)
    recent, recent_evidence = level(steady, like, RECENT_D)
    if recent < rate and recent_evidence >= RECENT_EVIDENCE:
        rate, evidence = recent, recent_evidence
    return Usual(tuple((rate * rhythm).tolist()), 1 / (LEVEL_SD**2 + 1 / max(evidence, 1.0)))


def expected(usual: Usual, since_h: float, until_h: float) -> float:
    """Return the orders that are expected between two times, in hours since a Monday's first."""
    edges = np.unique(np.clip(np.arange(np.floor(since_h), np.ceil(until_h) + 1), since_h, until_h))
    if len(edges) < 2:
        return 0.0
    rates = np.array(usual.rates)
    return float((np.diff(edges) * rates[np.floor(edges[:-1]).astype(int) % WEEK]).sum())


def chance_of_none(usual: Usual, expected_orders: float) -> float:
    """Return how likely no order is where so many are expected."""
    return float((1 + expected_orders / usual.shape) ** -usual.shape)


def chance_of_no_end(orders: float, checkouts: float, begun: int) -> float:
    """Return how likely it is that so many checkouts begin and none ends in an order, where usually `orders` of `checkouts`
    did: beta-binomial, exact; how often they do is not surer than MOST_SURE checkouts would make it."""
    if not begun or checkouts <= 0:
        return 1.0
    weight = min(1.0, MOST_SURE / checkouts)
    ended, open_ = weight * min(orders, checkouts) + 0.5, weight * max(checkouts - orders, 0.0) + 0.5
    return math.exp(
        math.lgamma(open_ + begun)
        - math.lgamma(open_)
        + math.lgamma(ended + open_)
        - math.lgamma(ended + open_ + begun)
    )


def limit(usual: Usual, false_alarms_a_month: float) -> float:
    """Return the chance below which a pause is no chance any more, for so many false alarms a month."""
    return min(false_alarms_a_month / max(usual.a_month, 1.0), 0.5)
