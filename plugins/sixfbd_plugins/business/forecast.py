"""When the tickets of a city will be gone: the hour-of-week rhythm of its sales, a recent level, and paths drawn from both.

Pure functions of arrays. The level is a mean in which a day's sales weigh half of those `HALF_LIFE_D` later, bursts cut
off: a promotion that is over says little of next week. What is drawn on each path: how far off the level may be, how it
drifts, bursts to come, the rush before the end, and the sales themselves. Nothing here knows a provider, a clock or a
series; the caller brings hours of the week in the site's time zone.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Hours: TypeAlias = npt.NDArray[np.float64]
"""One number for each hour, oldest first."""
HoursOfWeek: TypeAlias = npt.NDArray[np.int64]
"""0..167 for each hour, 0 being Monday's first in the site's time zone."""

WEEK: Final = 168
PATHS: Final = 400
HORIZON_H: Final = 60 * 24
LEAST_HISTORY_H: Final = 24
HALF_LIFE_D: Final = 3.0
LONG_HALF_LIFE_D: Final = 14.0
RETURN_D: Final = 6.0  # in which the level of late goes two thirds of the way back to the long one
LOOKED_AHEAD: Final = 5  # times as long as the level says that it will take, and a week
RHYTHM_PRIOR: Final = 24.0  # sales of each hour of the day or day of the week that say "as every other"
BLOCK_TICKETS: Final = 8.0  # sold in the hours, 6 to 48, that are looked at as one to find bursts
BURST: Final = 1.4  # such hours with more than so many times what was usual, and BURST_SD deviations, are a burst
BURST_SD: Final = 2.0
LEVEL_SD: Final = 0.22  # of the logarithm: the level of the next days is not quite that of the last
DRIFT_SD: Final = 0.12  # of the logarithm, a day
BURSTS_A_DAY: Final = 1 / 10
BURST_H: Final = 18.0
BURST_TIMES: Final = (1.5, 4.0)
RUSH_H: Final = 48.0  # before the end of sale
RUSH_TIMES: Final = (1.0, 3.0)
TICKETS_AN_ORDER: Final = 2.0  # tickets are sold by the order, so that their number varies more than by one
ORDER_PRIOR: Final = 50.0
MOST_AN_ORDER: Final = 12.0
INTERVAL: Final = (0.1, 0.9)


class Forecast(Struct, frozen=True):
    """In how many hours the tickets are gone: the median, an interval of 80 %, and the chance that they are in time.

    None: not before the end of sale, nor within HORIZON_H.
    """

    median_h: float | None
    low_h: float | None
    high_h: float | None
    within_24h: float
    within_48h: float


def forecast(
    sold: Hours,
    hours_of_week: HoursOfWeek,
    remaining: int,
    next_hours_of_week: HoursOfWeek,
    closes_in_h: float | None,
    rng: np.random.Generator,
) -> Forecast | None:
    """Return when `remaining` tickets will be gone; None if too little is known of the sales, or nothing is sold.

    `sold` is what each hour sold, its first known one first; `hours_of_week` are those hours, `next_hours_of_week` the
    ones to come, as many as are looked ahead.
    """
    if remaining <= 0:
        return Forecast(0.0, 0.0, 0.0, 1.0, 1.0)
    if len(sold) < LEAST_HISTORY_H or sold.sum() <= 0:
        return None
    rhythm = weekly_rhythm(sold, hours_of_week)
    usual = rhythm[hours_of_week]
    steady = without_bursts(sold, usual)
    rate, evidence = level(steady, usual, HALF_LIFE_D)
    long_rate, _ = level(steady, usual, LONG_HALF_LIFE_D)
    order = tickets_an_order(steady, usual)
    ahead = min(len(next_hours_of_week), int(LOOKED_AHEAD * remaining / min(rate, long_rate)) + WEEK)
    if closes_in_h is not None:
        ahead = min(ahead, int(np.ceil(closes_in_h)))
    if ahead <= 0:
        return Forecast(None, None, None, 0.0, 0.0)
    returns = 1 - np.exp(-np.arange(ahead) / 24 / RETURN_D)
    rates = rate * (long_rate / rate) ** returns * rhythm[next_hours_of_week[:ahead]]
    times = _multipliers(ahead, evidence / TICKETS_AN_ORDER, closes_in_h, surge(sold, rate * usual), rng)
    gone = _hours_until_gone(rates * times, remaining, order, rng)
    low, median, high = (_known(np.quantile(gone, q, method="nearest")) for q in (INTERVAL[0], 0.5, INTERVAL[1]))
    return Forecast(median, low, high, float(np.mean(gone <= 24)), float(np.mean(gone <= 48)))


def seed_hours(sold: Hours, remaining: int) -> float | None:
    """Return the hours by the seed's formula (SEED S7): remaining / (sold in 24 hours / 24); None if nothing was sold."""
    per_hour = float(sold[-24:].sum()) / 24
    return remaining / per_hour if per_hour > 0 else None


def weekly_rhythm(sold: Hours, hours_of_week: HoursOfWeek) -> Hours:
    """Return how much each hour of the week sells, 1 being the mean: hour of the day times day of the week.

    Both are drawn towards 1 by RHYTHM_PRIOR sales: little history has little rhythm.
    """
    mean = sold.mean()
    of_day = _factors(sold, np.full(len(sold), mean), hours_of_week % 24, 24)
    of_week = _factors(sold, mean * of_day[hours_of_week % 24], hours_of_week // 24, 7)
    rhythm = np.tile(of_day, 7) * np.repeat(of_week, 24)
    even: Hours = rhythm / rhythm.mean()
    return even


def without_bursts(sold: Hours, usual: Hours) -> Hours:
    """Return the sales with bursts cut off: hours that sold far more than their like in the median count as these."""
    size = int(np.clip(np.ceil(BLOCK_TICKETS / max(float(sold.mean()), 1e-9)), 6, 48))
    if len(sold) < 2 * size:
        return sold
    starts = np.arange(len(sold) % size, len(sold), size)
    sums, expected = np.add.reduceat(sold, starts), np.add.reduceat(usual, starts)
    ratios = sums / expected
    weights = 0.5 ** ((len(starts) - 1 - np.arange(len(starts))) * size / 24 / (2 * HALF_LIFE_D)) * expected
    usually = max(_weighted_median(ratios, weights), 0.5 * float(np.average(ratios, weights=weights)))
    most = BURST * usually + BURST_SD * np.sqrt(TICKETS_AN_ORDER * np.maximum(usually, 1e-9) / expected)
    cut = np.where(ratios > most, usually / np.maximum(ratios, 1e-9), 1.0)
    factors = np.ones(len(sold))
    factors[starts[0] :] = np.repeat(cut, size)
    return sold * factors


def level(sold: Hours, usual: Hours, half_life_d: float) -> tuple[float, float]:
    """Return the tickets an hour of mean rhythm, recent hours weighing more, and how many sales it rests on."""
    age_d = (len(sold) - 1 - np.arange(len(sold))) / 24
    weights = 0.5 ** (age_d / half_life_d)
    exposure = float((weights * usual).sum())
    rate = float((weights * sold).sum()) / exposure
    evidence = float((weights * sold).sum()) ** 2 / max(1e-9, float((weights**2 * sold).sum()))
    return max(rate, 0.5 / exposure), evidence


def tickets_an_order(sold: Hours, usual: Hours) -> float:
    """Return of how many tickets an order is, as far as the spread of an hour's sales tells: large orders weigh more, since
    they are what makes a total uncertain. Drawn towards TICKETS_AN_ORDER by ORDER_PRIOR tickets."""
    expected = usual * (float(sold.sum()) / max(float(usual.sum()), 1e-9))
    spread = float((sold**2).sum() - (expected**2).sum())
    order = (spread + TICKETS_AN_ORDER * ORDER_PRIOR) / (float(sold.sum()) + ORDER_PRIOR)
    return float(np.clip(order, 1.0, MOST_AN_ORDER))


def surge(sold: Hours, expected: Hours) -> float:
    """Return how many times the usual the last three hours sold if that is no chance (four deviations), else 1."""
    recent, usual = float(sold[-3:].sum()), float(expected[-3:].sum())
    if recent - usual < 4 * np.sqrt(TICKETS_AN_ORDER * max(usual, 1.0)):
        return 1.0
    return min(recent / max(usual, 1.0), 10.0)


def error_h(predicted: float | None, actual: float) -> float | None:
    """Return by how many hours a prediction was off; None if there was none."""
    return None if predicted is None else abs(predicted - actual)


def covers(low: float | None, high: float | None, actual: float) -> bool:
    """Tell whether an interval holds the truth; an end that is None is never reached."""
    return low is not None and low <= actual and (high is None or actual <= high)


# ---- paths -----------------------------------------------------------------------------------------------------------------


def _multipliers(
    ahead: int, orders: float, closes_in_h: float | None, surging: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return what each path multiplies each hour to come with: level, drift, bursts, the rush before the end."""
    level_sd = np.hypot(LEVEL_SD, np.sqrt(1 / max(orders, 1 / TICKETS_AN_ORDER)))
    hours = np.arange(ahead)
    days = np.arange(ahead // 24 + 2)
    drift = np.cumsum(rng.normal(0.0, DRIFT_SD, (PATHS, len(days))), axis=1)
    drift = drift / np.sqrt(1 + days / RETURN_D)  # it does not go on for ever
    log = rng.normal(0.0, level_sd, (PATHS, 1)) + drift[:, hours // 24]
    times: npt.NDArray[np.float64] = np.exp(log - np.var(log, axis=0) / 2)
    if surging > 1:  # it has lasted for some time already, and may go on as long
        lasts = rng.exponential(BURST_H / 2, (PATHS, 1))
        times = np.where(hours < lasts, times * surging, times)
    begins = rng.random((PATHS, ahead)) < BURSTS_A_DAY / 24
    since = hours - np.maximum.accumulate(np.where(begins, hours, -HORIZON_H), axis=1)
    height = rng.uniform(*BURST_TIMES, (PATHS, 1))
    times = np.where(since < BURST_H, times * height, times)
    if closes_in_h is not None:
        before_end = np.clip(1 - (closes_in_h - hours) / RUSH_H, 0.0, 1.0)
        times = times * (1 + (rng.uniform(*RUSH_TIMES, (PATHS, 1)) - 1) * before_end)
    return times


def _hours_until_gone(rates: npt.NDArray[np.float64], remaining: int, order: float, rng: np.random.Generator) -> Hours:
    """Draw each path's sales, `order` tickets at a time, and return when they reach what remains; infinite if they do not."""
    total = np.cumsum(rng.poisson(rates / order) * order, axis=1)
    reached = total >= remaining
    hour = np.argmax(reached, axis=1)
    before = np.where(hour > 0, np.take_along_axis(total, np.maximum(hour - 1, 0)[:, None], axis=1)[:, 0], 0.0)
    within = np.take_along_axis(total, hour[:, None], axis=1)[:, 0] - before
    gone = hour + np.clip((remaining - before) / np.maximum(within, 1e-9), 0.0, 1.0)
    return np.where(reached.any(axis=1), gone, np.inf)


def _factors(sold: Hours, expected: Hours, group: HoursOfWeek, count: int) -> Hours:
    own = np.bincount(group, sold, count)
    usual = np.bincount(group, expected, count)
    factors: Hours = (own + RHYTHM_PRIOR) / (usual + RHYTHM_PRIOR)
    return factors


def _weighted_median(values: Hours, weights: Hours) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def _known(hours: np.floating) -> float | None:
    return float(hours) if np.isfinite(hours) else None
