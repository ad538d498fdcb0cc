"""Tickets sold by city and hour: from the shop's `ticket_sale` events where it sends them, else from the stock itself.

Reads the daemon's series; keeps nothing. Hours end at the time asked for, not at full hours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sixfbd.plugin import HOUR, Context
from sixfbd_plugins.inventory.stock import Stock

Hourly: TypeAlias = npt.NDArray[np.float64]
"""Tickets sold in each hour, oldest first; not a number where nothing is known."""

BY_EVENTS: Final = "sum by (city) (workshop_city_tickets_sold_total)"


async def hourly_sales(ctx: Context, hours: int, stocks: Sequence[Stock]) -> dict[str, Hourly]:
    """Return the sales of the last hours by city, of those cities of which anything is known.

    `stocks` is what there is now, which nobody has seen yet.
    """
    check = ctx.name.replace("\\", "\\\\").replace('"', '\\"')
    sold = f'sum by (city) (inventory_tickets_sold{{check="{check}"}})'
    gone = f'0 - sum by (city) (inventory_tickets_available{{check="{check}"}})'
    found = {}
    of_stock = ((gone, _by_city(stocks, lambda one: -one.available)), (sold, _by_city(stocks, lambda one: one.sold)))
    for expr, latest in of_stock:  # a later one is the better one
        for city, totals in (await _totals(ctx, expr, hours)).items():
            if city in latest:
                totals[-1] = latest[city]
                found[city] = _increments(totals)
    for city, totals in (await _totals(ctx, BY_EVENTS, hours)).items():
        found[city] = _counted(totals)
    return found


def _by_city(stocks: Sequence[Stock], count: Callable[[Stock], int | None]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for one in stocks:
        if (tickets := count(one)) is not None:
            totals[one.city] = totals.get(one.city, 0) + tickets
    return totals


async def _totals(ctx: Context, expr: str, hours: int) -> dict[str, Hourly]:
    """Return a running total by city at `hours` + 1 times an hour apart, the last being now."""
    end = ctx.clock.now()
    start = end - hours * HOUR
    found: Any = await ctx.read.query(expr, start, end, HOUR)
    totals = {}
    for labels, points in found:
        row = np.full(hours + 1, np.nan)
        for at, value in points:
            row[round((at - start) / HOUR)] = value
        totals[dict(labels).get("city", "")] = row
    return totals


def _increments(totals: Hourly) -> Hourly:
    """Return what each hour added. A gap's sales are those of the hour in which it ends; what came back is not sold."""
    present = np.flatnonzero(~np.isnan(totals))
    added = np.full(len(totals) - 1, np.nan)
    if len(present):
        added[present[0] :] = 0.0
        added[present[1:] - 1] = np.maximum(np.diff(totals[present]), 0.0)
    return added


def _counted(totals: Hourly) -> Hourly:
    """Return what each hour added to a count of events. Before the first of them nobody knows whether it was for sale."""
    added = np.diff(np.nan_to_num(totals))
    sold = np.flatnonzero(added > 0)
    return np.where(np.arange(len(added)) < sold[0], np.nan, added) if len(sold) else added


def velocity(sales: Mapping[str, Hourly], city: str, remaining: int) -> "Velocity":
    """Return a city's velocity by the seed's formula (SEED S7): what was sold in the last 24 hours, divided by 24."""
    hourly = sales.get(city)
    per_hour = 0.0 if hourly is None else float(np.nansum(hourly[-24:])) / 24
    if per_hour <= 0:
        return Velocity(0.0, None)
    return Velocity(per_hour, remaining / per_hour)


class Velocity:
    """Tickets an hour, and in how many hours they are gone at that rate; None: nothing is sold."""

    def __init__(self, per_hour: float, hours: float | None) -> None:
        self.per_hour = per_hour
        self.hours = hours

    @property
    def is_predicted(self) -> bool:
        return self.hours is not None and self.hours < 48
