"""Shops whose checkout dies at a random hour: how soon each way to notice notices, and how often it cries wolf.

`tail` is the daemon's, `checkouts` the same where the shop tells of checkouts that begin; `ratio` fires when an hour brings
less than 30 % of the mean of its like of four weeks, if that is an order or more; `silence` after two hours without an order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from sixfbd_plugins.business import silence
from tests.simulation.shops import _day, _drift, _promotions, _week

DAYS = 84
TRAINED_H = 42 * 24
CONVERSION = 0.6
GIVES_UP_H = 14 * 24.0
LOOKS_H = 0.25  # of the fixed rules

WAYS = ("tail", "checkouts", "ratio", "silence")


@dataclass
class Judged:
    """False alarms a month, and hours from the death of the checkout to the page, by way."""

    false_a_month: dict[str, float] = field(default_factory=dict)
    to_page_h: dict[str, list[float]] = field(default_factory=dict)

    def median_h(self, way: str) -> float:
        return float(np.median(self.to_page_h[way]))


class Shop:
    """Orders and checkouts at times in hours since a Monday's first."""

    def __init__(self, seed: int, a_day: float) -> None:
        rng = np.random.default_rng([seed, round(a_day * 100)])
        at = np.arange(DAYS * 24)
        rate = (
            a_day
            / 24
            * _day(rng)[at % 24]
            * _week(rng)[at // 24 % 7]
            * _drift(rng, len(at))
            * _promotions(rng, len(at))
        )
        counts = rng.poisson(rate)
        self.orders = np.sort(np.repeat(at, counts) + rng.random(int(counts.sum())))
        lost = int(len(self.orders) * (1 / CONVERSION - 1))
        others = rng.choice(self.orders, lost) + rng.normal(0, 0.3, lost)
        self.checkouts = np.sort(np.concatenate([self.orders - 0.02, others]))
        self.rng = rng

    def usual(self, until_h: float) -> silence.Usual | None:
        start = max(0, int(until_h) - 8 * 168)
        known = self.orders[(self.orders >= start) & (self.orders < int(until_h))].astype(int) - start
        counts = np.bincount(known, minlength=int(until_h) - start).astype(float)
        return silence.usual(counts, (start + np.arange(len(counts))) % 168)

    def begun(self, since: float, until: float) -> int:
        return int(np.searchsorted(self.checkouts, until) - np.searchsorted(self.checkouts, since))


def judge_shops(a_day: float, shops: int, *, false_alarms: float = 0.2, deaths: int = 5) -> Judged:
    """Simulate so many shops of so many orders a day."""
    judged = Judged(dict.fromkeys(WAYS, 0.0), {way: [] for way in WAYS})
    months = shops * (DAYS * 24 - TRAINED_H) / 720
    for seed in range(shops):
        shop = Shop(seed, a_day)
        for way, count in _false(shop, false_alarms).items():
            judged.false_a_month[way] += count / months
        for _ in range(deaths):
            dead_at = shop.rng.uniform(TRAINED_H, DAYS * 24 - GIVES_UP_H)
            for way, hours in _noticed(shop, dead_at, false_alarms).items():
                judged.to_page_h[way].append(hours)
    return judged


def _chances(shop: Shop, known: silence.Usual, last: float, now: float) -> tuple[float, float]:
    of_time = silence.chance_of_none(known, silence.expected(known, last, now))
    of_checkouts = silence.chance_of_no_end(1000 * CONVERSION, 1000, shop.begun(last, now))
    return of_time, of_checkouts


def _false(shop: Shop, false_alarms: float) -> dict[str, int]:
    found = dict.fromkeys(WAYS, 0)
    models: dict[int, silence.Usual | None] = {}
    first = int(np.searchsorted(shop.orders, TRAINED_H))
    for last, following in zip(shop.orders[first:-1], shop.orders[first + 1 :], strict=True):
        day = int(last // 24)
        if day not in models:
            models[day] = shop.usual(day * 24)
        known = models[day]
        if known is None:
            continue
        of_time, of_checkouts = _chances(
            shop, known, last, following - 0.021
        )  # before the checkout of the order itself
        most = silence.limit(known, false_alarms)
        found["tail"] += of_time < most
        found["checkouts"] += min(of_time, of_checkouts) < most / 2
    for way, rule in _fixed(shop.orders, shop.orders).items():
        fired = [rule(now) for now in np.arange(TRAINED_H, DAYS * 24, LOOKS_H)]
        found[way] = sum(now and not before for before, now in zip([False, *fired], fired, strict=False))
    return found


def _noticed(shop: Shop, dead_at: float, false_alarms: float) -> dict[str, float]:
    left = shop.orders[shop.orders < dead_at]
    last, known = float(left[-1]), shop.usual(float(left[-1]))
    assert known is not None
    most = silence.limit(known, false_alarms)

    def tail(now: float) -> bool:
        return _chances(shop, known, last, now)[0] < most

    def checkouts(now: float) -> bool:
        return min(_chances(shop, known, last, now)) < most / 2

    ways = {"tail": tail, "checkouts": checkouts, **_fixed(left, shop.orders)}
    times = np.arange(dead_at, dead_at + GIVES_UP_H, 1 / 30)
    return {way: next((now - dead_at for now in times if fires(now)), GIVES_UP_H) for way, fires in ways.items()}


def _fixed(orders: np.ndarray, whole: np.ndarray) -> dict[str, Callable[[float], bool]]:
    def within(which: np.ndarray, now: float, hours: float) -> int:
        return int(np.searchsorted(which, now) - np.searchsorted(which, now - hours))

    def ratio(now: float) -> bool:
        like = np.mean([within(whole, now - 168 * week, 1.0) for week in range(1, 5)])
        return bool(like >= 1 and within(orders, now, 1.0) < 0.3 * like)

    return {"ratio": ratio, "silence": lambda now: within(orders, now, 2.0) == 0}
