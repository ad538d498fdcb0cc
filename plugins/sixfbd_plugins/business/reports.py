"""The reports `business` (SEED S15) and `performance` (SEED S14, S12): sums of events, exact; forecasts with their intervals.

What nobody can know is Unknown, with the reason. Keeps nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from sixfbd.plugin import DAY, HOUR, Duration, ReportRequest, ReportType, Unknown
from sixfbd_plugins.figures import Key, grown, grown_by_step, iso, known, latest, one, ratio, total
from sixfbd_plugins.money import MINOR_DIGITS

TOP: Final = 10
ERASED: Final = "erased"  # a customer who was forgotten: `sixfbctl journal erase`
MOST_SALES_READ: Final = 5000  # of which customers are told apart
LEAST_DAYS: Final = 3  # with sales, for a projection of revenue
PROJECTED_DAYS: Final = 7
LEARNED_DAYS: Final = 28
DRAWS: Final = 1000
INTERVAL: Final = (10, 90)  # percent
SOON_H: Final = 72.0  # a tier that is gone within that is worth more tickets
STALE_H: Final = 60 * 24.0  # one that would take so long wants to be promoted
NO_FORECAST: Final = "no forecast: the `inventory` check is not configured, or its sales say too little"


async def business(request: ReportRequest) -> Mapping[str, Any]:
    """SEED S15. Money in major units; shares from 0 to 1."""
    revenue = await grown(request, "workshop_city_revenue_total", ("currency", "city"))
    tickets = await grown(request, "workshop_city_tickets_sold_total", ("city", "type"))
    orders = {
        city: round(count) for (city,), count in (await grown(request, "workshop_orders_total", ("city",))).items()
    }
    by_currency = _summed(revenue, 0)
    checkouts = await total(request, "workshop_checkouts_started_total")
    sold = sum(orders.values())
    cities = _summed(tickets, 0)
    return {
        "sales": {
            "revenue": _only(by_currency),
            "revenueByCurrency": {currency: _money(value, currency) for currency, value in sorted(by_currency.items())},
            "ticketsSold": round(sum(tickets.values())),
            "orders": sold,
            "conversionRate": ratio(sold, checkouts, "no `checkout_started` event came in that time"),
            "averageOrderValue": _average(by_currency, sold),
        },
        "customers": {
            "newRegistrations": await _counted(request, "workshop_registrations_total", "registration"),
            "returningCustomers": await _returning(request, sold),
            "membershipConversions": await _counted(
                request, "workshop_membership_conversions_total", "membership_conversion"
            ),
        },
        "geography": {
            "topCities": [
                {
                    "cityId": city,
                    "ticketsSold": round(count),
                    "orders": orders.get(city, 0),
                    "revenue": _only(_summed({key: value for key, value in revenue.items() if key[1] == city}, 0)),
                }
                for city, count in sorted(cities.items(), key=lambda one: (-one[1], one[0]))[:TOP]
            ],
            "geoDistribution": {city: count / sum(cities.values()) for city, count in sorted(cities.items())},
        },
        "trends": {
            "hourlyRevenue": await _hourly(request),
            "ticketTypeBreakdown": {tier: round(count) for tier, count in sorted(_summed(tickets, 1).items())},
            "discountUsage": await _discounts(request, sold),
        },
        "forecasting": {
            "projectedRevenue": await _projected(request),
            "selloutPredictions": await _sellouts(request),
            "inventoryRecommendations": await _recommended(request),
            "pastCoverage": await _coverage(request),
        },
    }


def _summed(found: Mapping[Key, float], place: int) -> dict[str, float]:
    """Add up what has the same value of one label."""
    sums: dict[str, float] = {}
    for key, value in found.items():
        sums[key[place]] = sums.get(key[place], 0.0) + value
    return sums


def _money(value: float, currency: str) -> float:
    """Sums of floats, to the minor unit that each of them was a whole number of."""
    return round(value, MINOR_DIGITS.get(currency, 2))


def _only(by_currency: Mapping[str, float]) -> float | Unknown:
    if len(by_currency) > 1:
        return Unknown(f"it came in several currencies: {', '.join(sorted(by_currency))}")
    return next((_money(value, currency) for currency, value in by_currency.items()), 0.0)


def _average(by_currency: Mapping[str, float], orders: int) -> float | Unknown:
    whole = _only(by_currency)
    if isinstance(whole, Unknown) or not orders:
        return whole if isinstance(whole, Unknown) else Unknown("nothing was sold in that time")
    return _money(whole / orders, next(iter(by_currency), "USD"))


async def _counted(request: ReportRequest, metric: str, event: str) -> int | Unknown:
    if not await request.read.query(metric, request.end, request.end, 1.0):
        return Unknown(f"no `{event}` event has ever come")
    return await total(request, metric)


async def _returning(request: ReportRequest, orders: int) -> int | Unknown:
    """Customers with more than one order in that time."""
    if orders > MOST_SALES_READ:
        return Unknown(f"customers are told apart among {MOST_SALES_READ} orders at most; ask for a shorter timeframe")
    seen: dict[str, set[str]] = {}
    for event in await request.read.events("ticket_sale", request.start, request.end):
        customer, order = event.data.get("customerId"), event.data.get("orderId")
        if isinstance(customer, str) and isinstance(order, str) and customer != ERASED:
            seen.setdefault(customer, set()).add(order)
    if not seen:
        return Unknown("no sale of that time names its customer (`customerId`)")
    return sum(len(of_one) > 1 for of_one in seen.values())


async def _hourly(request: ReportRequest) -> list[dict[str, Any]]:
    steps = await grown_by_step(request, "workshop_revenue_total", ("currency",))
    return [
        {"time": iso(at), "revenue": _only({currency: value for (currency,), value in added.items()})}
        for at, added in steps
    ]  # fmt: skip


async def _discounts(request: ReportRequest, orders: int) -> dict[str, Any]:
    codes = await grown(request, "workshop_discounted_orders_total", ("code",))
    used = round(sum(codes.values()))
    return {
        "orders": used,
        "share": ratio(used, orders, "nothing was sold in that time"),
        "byCode": {code: round(count) for (code,), count in sorted(codes.items(), key=lambda one: -one[1])[:TOP]},
    }


async def _projected(request: ReportRequest) -> dict[str, Any] | Unknown:
    """What the next week brings if it is as the days of the last four were: their mean, and 80 % of weeks drawn of them."""
    since = ReportRequest(read=request.read, start=request.end - LEARNED_DAYS * DAY, end=request.end)
    days = await grown_by_step(since, "workshop_revenue_total", ("currency",), DAY)
    currencies = {currency for _, added in days for (currency,) in added}
    if len(currencies) > 1:
        return Unknown(f"it comes in several currencies: {', '.join(sorted(currencies))}")
    sums = [sum(added.values()) for _, added in days]
    first = next((place for place, value in enumerate(sums) if value), len(sums))
    sums = sums[first:-1]  # today is not over
    if sum(value > 0 for value in sums) < LEAST_DAYS:
        return Unknown(f"fewer than {LEAST_DAYS} whole days of the last {LEARNED_DAYS} had sales")
    draws = np.random.default_rng(0).choice(np.array(sums), (DRAWS, PROJECTED_DAYS)).sum(axis=1)
    low, high = np.percentile(draws, INTERVAL)
    currency = next(iter(currencies))
    expected = float(np.mean(sums)) * PROJECTED_DAYS
    return {
        "days": PROJECTED_DAYS,
        "currency": currency,
        "expected": _money(expected, currency),
        "low": _money(float(low), currency),
        "high": _money(float(high), currency),
        "interval": 0.8,
        "learnedFromDays": len(sums),
    }


async def _sellouts(request: ReportRequest) -> list[dict[str, Any]] | Unknown:
    hours = await latest(request, "inventory_forecast_hours", ("city", "quantile"))
    chances = await latest(request, "inventory_forecast_probability", ("city", "within"))
    if not hours and not chances:
        return Unknown(NO_FORECAST)
    never = "not before the end of the sale, nor within 60 days"
    return [
        {
            "cityId": city,
            "hoursUntilSellout": known(hours.get((city, "0.5")), never),
            "low": known(hours.get((city, "0.1")), never),
            "high": known(hours.get((city, "0.9")), never),
            "probability": {within: chances[c, within] for c, within in sorted(chances) if c == city},
        }
        for city in sorted({city for city, _ in (*hours, *chances)})
    ]


async def _coverage(request: ReportRequest) -> float | Unknown:
    """The share of the past forecasts of sell-outs whose interval of 80 % held the truth."""
    scored = await one(request, 'sum(inventory_forecasts_scored_total{method="weighted"})')
    covered = await one(request, "sum(inventory_forecasts_covered_total)")
    return ratio(covered or 0.0, scored or 0.0, "no forecast has met its truth yet")


async def _recommended(request: ReportRequest) -> list[dict[str, Any]] | Unknown:
    """To which city and tier to add tickets, which to promote, and why: what is left against what a week sold."""
    left = await latest(request, "inventory_tickets_available", ("city", "type"))
    if not left:
        return Unknown("the stock is not known: the `inventory` check is not configured, or has not run")
    closed = await latest(request, "inventory_sales_closed", ("city", "type"))
    week = ReportRequest(read=request.read, start=request.end - 7 * DAY, end=request.end)
    sold = await grown(week, "workshop_city_tickets_sold_total", ("city", "type"))
    advice = []
    for (city, tier), tickets in sorted(left.items()):
        if closed.get((city, tier)):
            continue
        rate = sold.get((city, tier), 0.0) / (7 * 24)
        action, reason = _advised(round(tickets), rate)
        if action:
            advice.append({"cityId": city, "tier": tier, "action": action, "reason": reason})
    return advice


def _advised(left: int, rate: float) -> tuple[str, str]:
    """Return what to do for a tier of which `rate` are sold an hour, "" if nothing, and why."""
    if not left and rate:
        return "add", f"sold out, and {rate * 24:.1f} a day were sold in the last week"
    if not rate:
        return ("promote", f"{left} are left, and none was sold in the last week") if left else ("", "")
    hours = left / rate
    if hours < SOON_H:
        return "add", f"{left} are left, and last for {hours:.0f} hours at the last week's {rate * 24:.1f} a day"
    if hours > STALE_H:
        return (
            "promote",
            f"{left} are left, and last for {hours / 24:.0f} days at the last week's {rate * 24:.1f} a day",
        )
    return "", ""


async def performance(request: ReportRequest) -> Mapping[str, Any]:
    """SEED S12: times in milliseconds, shares from 0 to 1. An error is an answer of 500 or more."""
    statuses = {
        status: round(count) for (status,), count in (await grown(request, "http_requests_total", ("status",))).items()
    }
    requests = sum(statuses.values())
    none = "no request came in that time; the shop sends `request` events, or a `log` check reads them"
    seconds = sum((await grown(request, "http_request_duration_seconds_sum")).values())
    timed = await total(request, "http_request_duration_seconds_count")
    untimed = "no request came with its time; have the log write it, and say its `duration_unit`" if requests else none
    p95 = await request.read.quantile("http_request_duration_seconds", 0.95, request.start, request.end)
    errors = sum(count for status, count in statuses.items() if status >= "500")
    return {
        "totalRequests": requests,
        "averageResponseTime": round(seconds / timed * 1000, 3) if timed else Unknown(untimed),
        "p95ResponseTime": Unknown(untimed) if p95 is None else round(p95 * 1000, 3),
        "errorRate": ratio(errors, requests, none),
        "slowestEndpoints": await _slowest(request),
        "errorBreakdown": {status: count for status, count in sorted(statuses.items()) if status >= "400"},
    }


async def _slowest(request: ReportRequest, most: int = 5) -> Sequence[Mapping[str, Any]]:
    """The groups of paths with the largest mean time."""
    counts = _summed(await grown(request, "http_path_requests_total", ("path", "class")), 0)
    errors = _summed(await grown(request, "http_path_requests_total", ("path", "class"), 'class="5xx"'), 0)
    seconds = _summed(await grown(request, "http_path_request_seconds_total", ("path",)), 0)
    means = {path: seconds[path] / count for path, count in counts.items() if count and path in seconds}
    slowest = sorted(means.items(), key=lambda one: (-one[1], one[0]))[:most]
    return [
        {
            "path": path,
            "averageResponseTime": round(mean * 1000, 3),
            "requests": round(counts[path]),
            "errors": round(errors.get(path, 0.0)),
        }
        for path, mean in slowest
    ]


REPORTS: Final = (
    ReportType(
        "business",
        business,
        doc="Sales, customers, cities, trends, and what is to come.",
        units={
            **dict.fromkeys(("revenue", "revenueByCurrency", "averageOrderValue", "expected"), "money"),
            **dict.fromkeys(("conversionRate", "share", "pastCoverage", "interval", "geoDistribution"), "ratio"),
        },
    ),
    ReportType(
        "performance",
        performance,
        doc="Requests of the shop: how many, how long, which failed.",
        timeframe=Duration(HOUR),
        units={"averageResponseTime": "ms", "p95ResponseTime": "ms", "errorRate": "ratio"},
    ),
)
