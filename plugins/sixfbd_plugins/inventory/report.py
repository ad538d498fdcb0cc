"""The report `inventory` (SEED S8): what is left where, how fast it goes, and what was told of it."""

from collections.abc import Mapping
from typing import Any, Final

from sixfbd.plugin import DAY, ReportRequest, ReportType, Unknown
from sixfbd_plugins.figures import Key, grown, iso, known, latest, one, shown
from sixfbd_plugins.money import MINOR_DIGITS

SPANS: Final = {"last24h": 1, "last7d": 7, "last30d": 30}
UNKNOWN: Final = "the stock is not known: the `inventory` check is not configured, or has not run"
LEVELS: Final = {"low": "low", "critical": "critical", "sold_out": "soldOut"}
MOST_ALERTS: Final = 100
OF_A_CITY: Final = 5
RECENT: Final = 10

TierCounts = Mapping[Key, float]


async def inventory(request: ReportRequest) -> Mapping[str, Any]:
    """SEED S8. Tickets are whole numbers; money in major units."""
    left = await latest(request, "inventory_tickets_available", ("city", "type"))
    limits = await latest(request, "inventory_tickets_limit", ("city", "type"))
    sold = await latest(request, "inventory_tickets_sold", ("city", "type"))
    if not sold:  # a stock that does not say what is sold
        sold = {key: limits[key] - count for key, count in left.items() if key in limits}
    alerts = [shown(alert) for alert in await request.read.recent_alerts({"service": "inventory"}, MOST_ALERTS)]
    cities = sorted({city for city, _ in left})
    return {
        "overview": {
            "totalCities": len(cities),
            "totalTicketsAvailable": _total(left),
            "totalTicketsSold": _total(sold),
            "revenue": await _revenue(request),
            "lastUpdated": await _last_updated(request),
        },
        "cities": [
            {
                "cityId": city,
                "status": {
                    "publicAvailable": _of_city(left, city),
                    "sold": _of_city(sold, city),
                    "publicLimits": _of_city(limits, city),
                },
                "velocity": await _velocity(request, city, left),
                "alerts": [one for one in alerts if one["labels"].get("city") == city][:OF_A_CITY],
            }
            for city in cities
        ],
        "alerts": {
            "active": [one for one in alerts if one["state"] == "firing"],
            "recent": alerts[:RECENT],
            "thresholds": await _thresholds(request),
        },
        "trends": {name: await _trend(request, days) for name, days in SPANS.items()},
    }


async def _last_updated(request: ReportRequest) -> str | Unknown:
    at = await one(request, "max(timestamp(inventory_tickets_available))")
    return Unknown(UNKNOWN) if at is None else iso(at)


def _total(counts: TierCounts) -> int | Unknown:
    return round(sum(counts.values())) if counts else Unknown(UNKNOWN)


def _of_city(counts: TierCounts, city: str) -> dict[str, int]:
    return {tier: round(count) for (of, tier), count in sorted(counts.items()) if of == city}


async def _revenue(request: ReportRequest) -> Any:
    found = {
        currency: value
        for (currency,), value in (await grown(request, "workshop_revenue_total", ("currency",))).items()
    }
    if len(found) > 1:
        return {currency: round(value, MINOR_DIGITS.get(currency, 2)) for currency, value in sorted(found.items())}
    return next((round(value, MINOR_DIGITS.get(currency, 2)) for currency, value in found.items()), 0.0)


async def _velocity(request: ReportRequest, city: str, left: TierCounts) -> Mapping[str, Any]:
    """SEED S7: no sales are no sell-out in sight."""
    hours = (await latest(request, "inventory_hours_until_sellout", ("city",))).get((city,))
    rates = await latest(request, "inventory_tickets_per_hour", ("city",))
    predicted = await latest(request, "inventory_predicted_sellout", ("city",))
    return {
        "predictedSellout": bool(predicted.get((city,), 0.0)),
        "hoursUntilSellout": hours,
        "ticketsPerHour": known(rates.get((city,)), "too little of its sales is known yet"),
        "totalRemaining": round(sum(count for (of, _), count in left.items() if of == city)),
    }


async def _thresholds(request: ReportRequest) -> Mapping[str, Any]:
    """The levels of each tier; where cities have their own, of the city that comes first."""
    found: dict[str, dict[str, int]] = {}
    for (_, level, tier), count in sorted(
        (await latest(request, "inventory_threshold_tickets", ("city", "level", "type"))).items()
    ):
        found.setdefault(tier, {}).setdefault(LEVELS.get(level, level), round(count))
    return found


async def _trend(request: ReportRequest, days: int) -> Mapping[str, Any]:
    span = ReportRequest(read=request.read, start=request.end - days * DAY, end=request.end)
    tickets = await grown(span, "workshop_city_tickets_sold_total", ("type",))
    return {
        "ticketsSold": round(sum(tickets.values())),
        "byTicketType": {tier: round(count) for (tier,), count in sorted(tickets.items())},
        "revenue": await _revenue(span),
    }


REPORTS: Final = (
    ReportType(
        "inventory",
        inventory,
        doc="What is left in each city, how fast it goes, its alerts.",
        units={"revenue": "money"},
    ),
)
