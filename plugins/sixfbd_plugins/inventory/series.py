"""The sources that are series in the daemon already: `prometheus`, which a scrape brought, and `events`, counted from sales."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from sixfbd.plugin import Context, OptionFaults
from sixfbd_plugins.inventory.stock import Reading, SourceError, Stock, stock_of_row, whole

SOLD_BY_CITY: Final = "sum by (city, type) (workshop_city_tickets_sold_total)"
REFUNDED_BY_CITY: Final = "sum by (city, type) (workshop_city_tickets_refunded_total)"


class PrometheusSource(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stock by PromQL over series that a scrape brings."""

    available: Annotated[str, Meta(description="PromQL of the tickets left.")] = 'inventory_tickets_available{job!=""}'
    sold: Annotated[str, Meta(description="PromQL of the tickets sold.")] = ""
    limit: Annotated[str, Meta(description="PromQL of the tickets that there are.")] = ""
    city_label: Annotated[str, Meta(description="Label that holds the city.", min_length=1)] = "city"
    tier_label: Annotated[str, Meta(description="Label that holds the tier.", min_length=1)] = "type"

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("available"):
                if not self.available.strip():
                    raise ValueError("is empty; write PromQL such as shop_tickets_left")

    def open(self, ctx: Context) -> "PrometheusReader":
        return PrometheusReader(self, ctx)


class PrometheusReader:
    """Asks the daemon's own reader."""

    def __init__(self, options: PrometheusSource, ctx: Context) -> None:
        self._options = options
        self._ctx = ctx

    async def read(self) -> Reading:
        columns = {}
        for name in ("available", "sold", "limit"):
            expr = getattr(self._options, name)
            columns[name] = await self._column(name, expr) if expr else {}
        if not columns["available"]:
            raise SourceError(f"there is no series {self._options.available}; is it scraped?")
        return whole(
            [
                stock_of_row(
                    {"city": city, "tier": tier} | {name: at.get((city, tier)) for name, at in columns.items()}, city
                )
                for city, tier in columns["available"]
            ]
        )

    async def _column(self, name: str, expr: str) -> dict[tuple[str, str], float]:
        values: dict[tuple[str, str], float] = {}
        for labels, value in await instant(self._ctx, expr, f"source.{name}"):
            key = (labels.get(self._options.city_label, ""), labels.get(self._options.tier_label, ""))
            if "" in key:
                raise SourceError(
                    f"a series of {expr} lacks the label {self._options.city_label} or {self._options.tier_label}"
                )
            if key in values:
                raise SourceError(f"{' '.join(key)} is there twice in {expr}; aggregate, or narrow its matchers")
            values[key] = value
        return values


class EventsSource(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stock counted from the shop's events: what there is, less `ticket_sale`, plus `refund`."""

    capacity: Annotated[dict[str, dict[str, int]], Meta(description="Tickets that there are, by city and tier.")]

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("capacity"):
                if not any(self.capacity.values()):
                    raise ValueError("is empty; write {dallas = {ga = 100, vip = 20}}")
                if any(count < 0 for tiers in self.capacity.values() for count in tiers.values()):
                    raise ValueError("a number of tickets is not below 0")

    def open(self, ctx: Context) -> "EventsReader":
        return EventsReader(self, ctx)


class EventsReader:
    """Counts; what is sold of cities and tiers without a capacity is not its business."""

    def __init__(self, options: EventsSource, ctx: Context) -> None:
        self._capacity = options.capacity
        self._ctx = ctx

    async def read(self) -> Reading:
        sold = await counted(self._ctx, SOLD_BY_CITY)
        refunded = await counted(self._ctx, REFUNDED_BY_CITY)
        stocks = []
        for city, tiers in self._capacity.items():
            for tier, limit in tiers.items():
                net = round(sold.get((city, tier), 0.0) - refunded.get((city, tier), 0.0))
                stocks.append(Stock(city, tier, limit - net, net, limit))
        return whole(stocks)


async def counted(ctx: Context, expr: str) -> dict[tuple[str, str], float]:
    """Return what an expression yields now by (city, type)."""
    return {
        (labels.get("city", ""), labels.get("type", "")): value for labels, value in await instant(ctx, expr, "events")
    }


async def instant(ctx: Context, expr: str, where: str) -> list[tuple[Mapping[str, str], float]]:
    """Return the series that an expression yields now. Raises SourceError that names the expression's place."""
    now = ctx.clock.now()
    try:
        found: Any = await ctx.read.query(expr, now, now, 1.0)
    except Exception as error:
        raise SourceError(f"{where}: {error}") from error
    return [(dict(labels), points[-1][1]) for labels, points in found if points]
