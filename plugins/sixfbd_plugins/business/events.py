"""The shop's events (SEED S16) and the metrics counted from them (SEED S20).

Owns the forms of `ticket_sale`, `refund`, `inventory_low` and `request`. Keeps nothing: sums are the engine's step series,
quantiles its sketches.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from sixfbd.plugin import Counter, EventType, Gauge, PluginConfig, Sample, Summary, hookimpl
from sixfbd_plugins.money import major_units, show_money

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Methods of RFC 9110 section 9 and RFC 5789; any other is counted as "other", so that no client makes series at will."""

TICKETS_SOLD = Counter("workshop_tickets_sold_total", "Tickets sold, by type.", labels=("type",))
REVENUE = Counter(
    "workshop_revenue_total", "Revenue in major units of its currency, refunds apart.", labels=("currency",)
)
TICKETS_REMAINING = Gauge(
    "inventory_tickets_remaining", "Tickets left to sell, as the last sale said.", labels=("city", "type")
)
SOLD_IN_CITY = Counter("workshop_city_tickets_sold_total", "Tickets sold, by city and type.", labels=("city", "type"))
REFUNDED_IN_CITY = Counter(
    "workshop_city_tickets_refunded_total", "Tickets that came back by a refund, by city and type.", ("city", "type")
)
REQUESTS = Counter("http_requests_total", "Requests that the shop answered.", labels=("method", "status"))
REQUEST_DURATION = Summary("http_request_duration_seconds", "How long the shop took to answer.", quantiles=(0.5, 0.95))

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=0)]


class TicketSale(Struct, frozen=True, rename="camel"):
    """A sale. `amount` is the total of the order in minor units of `currency` (cents; yen where there are none)."""

    order_id: Text
    city_id: Text
    tier: Text
    quantity: Annotated[int, Meta(ge=1)]
    amount: Count
    currency: Annotated[str, Meta(pattern="^[A-Za-z]{3}$", description="ISO 4217 code.")]
    remaining_inventory: dict[Text, Count] | None = None
    customer_id: str | None = None
    payment_method: str | None = None
    discount_code: str | None = None


class Refund(Struct, frozen=True, rename="camel"):
    """A refund. `quantity` tickets of a city and tier are free again; 0, or without these: money alone came back."""

    order_id: Text
    city_id: Text | None = None
    tier: Text | None = None
    quantity: Count = 0


class InventoryLow(Struct, frozen=True, rename="camel"):
    """The shop says that few tickets are left; `remaining` by tier."""

    city_id: Text
    remaining: dict[Text, Count]


class Request(Struct, frozen=True, rename="camel"):
    """A request that the shop answered; `duration` in milliseconds."""

    path: Annotated[str, Meta(min_length=1, max_length=2000)]
    method: Text
    status_code: Annotated[int, Meta(ge=100, le=599)]
    duration: Annotated[float, Meta(ge=0)]
    user_agent: str | None = None
    ip: str | None = None


def _sold(sale: TicketSale) -> Sequence[Sample]:
    currency = sale.currency.upper()
    return (
        TICKETS_SOLD(sale.quantity, type=sale.tier),
        REVENUE(major_units(sale.amount, currency), currency=currency),
        SOLD_IN_CITY(sale.quantity, city=sale.city_id, type=sale.tier),
    )


def _sale_text(sale: TicketSale) -> str:
    left = (sale.remaining_inventory or {}).get(sale.tier)
    more = "" if left is None else f", {left:,} left"
    return (
        f"Sale: {sale.quantity:,} × {sale.tier.upper()} {sale.city_id}, {show_money(sale.amount, sale.currency)}{more}"
    )


def _remaining(city: str, left: Mapping[str, int] | None) -> Sequence[Sample]:
    return [TICKETS_REMAINING(count, city=city, type=tier) for tier, count in (left or {}).items()]


def _refunded(refund: Refund) -> Sequence[Sample]:
    if refund.city_id is None or refund.tier is None:
        return ()
    return (REFUNDED_IN_CITY(refund.quantity, city=refund.city_id, type=refund.tier),)


def _answered(request: Request) -> Sequence[Sample]:
    method = request.method.upper()
    return (REQUESTS(1, method=method if method in METHODS else "other", status=str(request.status_code)),)


def _took(request: Request) -> Sequence[Sample]:
    return (REQUEST_DURATION(request.duration / 1000),)


TICKET_SALE = EventType(
    "ticket_sale",
    TicketSale,
    counts=_sold,
    sets=lambda sale: _remaining(sale.city_id, sale.remaining_inventory),
    metrics=(TICKETS_SOLD, REVENUE, SOLD_IN_CITY, TICKETS_REMAINING),
    notice="sale",
    notice_text=_sale_text,
    notice_labels=lambda sale: {"city": sale.city_id, "tier": sale.tier},
    example={
        "orderId": "o-1001",
        "cityId": "dallas-2026-03",
        "tier": "vip",
        "quantity": 2,
        "amount": 30_000,
        "currency": "USD",
        "remainingInventory": {"vip": 18, "ga": 112},
    },
    doc="Tickets were sold.",
)
REFUND = EventType(
    "refund",
    Refund,
    counts=_refunded,
    metrics=(REFUNDED_IN_CITY,),
    doc="An order was refunded.",
)
INVENTORY_LOW = EventType(
    "inventory_low",
    InventoryLow,
    sets=lambda low: _remaining(low.city_id, low.remaining),
    metrics=(TICKETS_REMAINING,),
    doc="Few tickets are left; feeds the alert of the stock, as the sale does that says so.",
)
REQUEST = EventType(
    "request",
    Request,
    counts=_answered,
    observes=_took,
    metrics=(REQUESTS, REQUEST_DURATION),
    doc="The shop answered a request.",
)


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    return (TICKET_SALE, REFUND, INVENTORY_LOW, REQUEST)
