"""Forecasts of the cities on sale, as events: made once an hour, and scored when a city is sold out. Pure.

Owns the forms of `inventory_forecast` and `inventory_forecast_score`; how a forecast is made is `business.forecast`'s.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from hashlib import blake2b
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from sixfbd.plugin import HOUR, Event
from sixfbd_plugins.business.forecast import (
    HORIZON_H,
    Forecast,
    HoursOfWeek,
    covers,
    error_h,
    forecast,
    seed_hours,
)
from sixfbd_plugins.inventory.sales import Hourly

HISTORY_H: Final = 8 * 7 * 24


class Foretold(Struct, frozen=True, rename="camel"):
    """A forecast; null hours: not before the end of sale."""

    city_id: str
    remaining: int
    median_hours: float | None
    low_hours: float | None
    high_hours: float | None
    within_24h: float
    within_48h: float
    seed_hours: float | None


class Score(Struct, frozen=True, rename="camel"):
    """What became of a forecast: the hours that it really took, and by how many each method was off."""

    city_id: str
    forecast_id: str
    actual_hours: float
    error_hours: float | None
    seed_error_hours: float | None
    covered: bool


def forecasts(
    hourly: Mapping[str, Hourly], left: Mapping[str, int], closes: Mapping[str, float], now: float, zone: tzinfo
) -> dict[str, Forecast]:
    """Return the forecast of each city of whose sales enough is known; the same facts make the same forecast."""
    before, ahead = hours_of_week(now, -HISTORY_H, 0, zone), hours_of_week(now, 0, HORIZON_H, zone)
    found = {}
    for city, remaining in left.items():
        sold = known(hourly.get(city))
        closes_in_h = (closes[city] - now) / HOUR if city in closes else None
        chance = np.random.default_rng(int.from_bytes(blake2b(f"{city}/{now:.0f}".encode(), digest_size=8).digest()))
        one = None
        if 0 < len(sold) <= len(before):
            one = forecast(sold, before[-len(sold) :], remaining, ahead, closes_in_h, chance)
        if one is not None:
            found[city] = one
    return found


def known(hourly: Hourly | None) -> Hourly:
    """Return the hours from the first one on of which anything is known."""
    if hourly is None:
        return np.zeros(0)
    there = np.flatnonzero(~np.isnan(hourly))
    return np.nan_to_num(hourly[there[0] :]) if len(there) else np.zeros(0)


def hours_of_week(now: float, first: int, end: int, zone: tzinfo) -> HoursOfWeek:
    """Return the hour of the week, in a time zone, in the middle of each of the hours from `now`."""
    middles = (datetime.fromtimestamp(now + (hour + 0.5) * HOUR, zone) for hour in range(first, end))
    return np.array([at.weekday() * 24 + at.hour for at in middles], dtype=np.int64)


def made(
    found: Mapping[str, Forecast], hourly: Mapping[str, Hourly], left: Mapping[str, int], now: float
) -> list[Event]:
    """Return an event for each forecast of a city that has tickets left."""
    return [
        _event(
            "inventory_forecast",
            city,
            now,
            Foretold(
                city,
                left[city],
                one.median_h,
                one.low_h,
                one.high_h,
                one.within_24h,
                one.within_48h,
                seed_hours(known(hourly.get(city)), left[city]),
            ),
        )
        for city, one in found.items()
        if left.get(city)
    ]


def scored(told: Sequence[Event], city: str, sold_out_at: float) -> list[Event]:
    """Return a score for each forecast of a city that is sold out now. A horizon that was not reached stands for none."""
    scores = []
    for event in told:
        if event.data.get("cityId") != city:
            continue
        one = msgspec.convert(event.data, Foretold)
        actual = (sold_out_at - event.timestamp) / HOUR
        score = Score(
            city, event.id, actual, error_h(one.median_hours, actual), error_h(one.seed_hours, actual),
            covers(one.low_hours, one.high_hours, actual),
        )  # fmt: skip
        scores.append(_event("inventory_forecast_score", f"{city}/{event.id}", sold_out_at, score))
    return scores


def _event(kind: str, which: str, at: float, data: Any) -> Event:
    name = blake2b(which.encode(), digest_size=8).hexdigest()
    return Event(f"{name}/{at:.0f}", kind, at, msgspec.to_builtins(data))
