"""Shops that sell tickets, simulated hour by hour: a daily and weekly rhythm, drift, promotions, a rush at the end.

Not the forecast's model: rhythm, bursts and rush have other shapes here, and differ from shop to shop.
"""

import math
from dataclasses import dataclass

import numpy as np

HISTORY_H = 8 * 7 * 24


@dataclass(frozen=True)
class Shop:
    """Tickets asked for in each hour until the sale closes; `first_hour` is the hour of the week of the first."""

    asked: np.ndarray
    first_hour: int

    def hours_of_week(self, start: int, count: int) -> np.ndarray:
        return (self.first_hour + np.arange(start, start + count)) % 168


def make_shop(rng: np.random.Generator) -> Shop:
    hours = int(rng.integers(30, 75)) * 24
    first = int(rng.integers(168))
    at = np.arange(hours)
    of_week = (first + at) % 168
    level = math.exp(rng.normal(math.log(1.5), 0.8))
    rate = level * _day(rng)[of_week % 24] * _week(rng)[of_week // 24]
    rate *= _drift(rng, hours) * _launch(rng, at) * _promotions(rng, hours) * _rush(rng, hours - at)
    orders = rng.poisson(rate / 1.8)
    sizes = rng.choice([1, 2, 3, 4], p=[0.45, 0.38, 0.09, 0.08], size=int(orders.sum()))
    asked = np.bincount(np.repeat(at, orders), sizes, hours)
    return Shop(asked, first)


def _day(rng: np.random.Generator) -> np.ndarray:
    hour = np.arange(24)
    noon, evening = rng.normal(12.5, 1), rng.normal(20, 1)
    shape = (
        0.12 + np.exp(-(((hour - noon) / 2.5) ** 2)) + rng.uniform(0.6, 1.8) * np.exp(-(((hour - evening) / 2.2) ** 2))
    )
    return shape / shape.mean()


def _week(rng: np.random.Generator) -> np.ndarray:
    shape = (
        np.array([1.0, 0.9, 0.95, 1.0, 1.1, 1.5, 1.35])
        if rng.random() < 0.5
        else np.array([1.5, 1.4, 1.3, 1.1, 0.9, 0.4, 0.5])
    )
    shape = shape * np.exp(rng.normal(0, 0.1, 7))
    return shape / shape.mean()


def _drift(rng: np.random.Generator, hours: int) -> np.ndarray:
    """The logarithm of the level returns to its mean, within a week or so."""
    days = hours // 24 + 1
    steps = np.zeros(days)
    for day in range(1, days):
        steps[day] = 0.85 * steps[day - 1] + rng.normal(0, 0.13)
    return np.exp(np.interp(np.arange(hours) / 24, np.arange(days), steps))


def _launch(rng: np.random.Generator, at: np.ndarray) -> np.ndarray:
    return 1 + rng.uniform(0, 4) * np.exp(-at / rng.uniform(12, 60))


def _promotions(rng: np.random.Generator, hours: int) -> np.ndarray:
    times = np.ones(hours)
    start = 0.0
    while (start := start + rng.exponential(9 * 24)) < hours:
        begin, lasts = int(start), int(rng.uniform(4, 40))
        decay = np.exp(-np.arange(lasts) / lasts)
        part = times[begin : begin + lasts]
        part *= 1 + (rng.uniform(2, 5) - 1) * decay[: len(part)]
    return times


def _rush(rng: np.random.Generator, left_h: np.ndarray) -> np.ndarray:
    return 1 + rng.uniform(0, 3.5) * np.exp(-left_h / rng.uniform(20, 60))
