"""The shop's events (SEED S16) and the metrics counted from them (SEED S20).

Owns their forms, and the rule of what the shop reports as an error. Keeps nothing: sums are the engine's step series,
quantiles its sketches.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from sixfbd.plugin import Counter, EventType, Gauge, PluginConfig, ReportType, Rule, Sample, Severity, hookimpl
from sixfbd_plugins.business import process, reports, requests
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.money import major_units, show_money

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
ORDERS = Counter("workshop_orders_total", "Orders that were sold, by city.", labels=("city",))
CITY_REVENUE = Counter(
    "workshop_city_revenue_total",
    "Revenue in major units of its currency, by city and type.",
    labels=("city", "type", "currency"),
)
PAID_BY = Counter("workshop_payment_methods_total", "Orders by how they were paid, as the shop says.", ("method",))
DISCOUNTED = Counter("workshop_discounted_orders_total", "Orders with a discount code, by code.", ("code",))
CHECKOUTS = Counter("workshop_checkouts_started_total", "Checkouts that were begun.")
REGISTRATIONS = Counter("workshop_registrations_total", "Customers who registered.")
CONVERSIONS = Counter("workshop_membership_conversions_total", "Customers who became members.")
CONFIRMATIONS = Counter("workshop_confirmations_total", "Confirmations of orders, by what became of them.", ("state",))
PAYMENTS_FAILED = Counter(
    "workshop_payments_failed_total", "Payments that failed, as the shop says; Stripe's word is payments_failed_total."
)
ERRORS = Counter(
    "workshop_system_errors_total",
    "Errors that the shop reports, by the service that they name.",
    labels=("component",),
)

Text = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=0)]
Currency = Annotated[str, Meta(pattern="^[A-Za-z]{3}$", description="ISO 4217 code.")]


class TicketSale(Struct, frozen=True, rename="camel"):
    """A sale. `amount` is the total of the order in minor units of `currency` (cents; yen where there are none)."""

    order_id: Text
    city_id: Text
    tier: Text
    quantity: Annotated[int, Meta(ge=1)]
    amount: Count
    currency: Currency
    remaining_inventory: dict[Text, Count] | None = None
    customer_id: str | None = None
    payment_method: Annotated[str, Meta(max_length=100)] | None = None
    discount_code: Annotated[str, Meta(max_length=100)] | None = None


class Refund(Struct, frozen=True, rename="camel"):
    """A refund. `quantity` tickets of a city and tier are free again; 0, or without these: money alone came back."""

    order_id: Text
    city_id: Text | None = None
    tier: Text | None = None
    quantity: Count = 0


class PaymentFailed(Struct, frozen=True, rename="camel"):
    """A payment of an order failed, for a reason in words. `amount` in minor units of `currency`."""

    order_id: Text
    reason: Annotated[str, Meta(max_length=500)]
    amount: Count = 0
    currency: Currency | None = None


class ReportedError(Struct, frozen=True, rename="camel"):
    """Something broke in the shop: where, and what."""

    message: Annotated[str, Meta(max_length=2000)]
    service: Annotated[str, Meta(min_length=1, max_length=100)]


class CheckoutStarted(Struct, frozen=True, rename="camel"):
    """Somebody began to buy; sales divided by these is the conversion rate."""

    order_id: Text | None = None
    city_id: Text | None = None
    tier: Text | None = None
    quantity: Count = 0
    customer_id: str | None = None


class Registration(Struct, frozen=True, rename="camel"):
    """A customer registered."""

    customer_id: str | None = None
    city_id: Text | None = None


class MembershipConversion(Struct, frozen=True, rename="camel"):
    """A customer became a member."""

    customer_id: str | None = None
    plan: Text | None = None


class Confirmation(Struct, frozen=True, rename="camel"):
    """A buyer was told of an order, or could not be."""

    order_id: Text
    channel: Annotated[str, Meta(max_length=40)] = ""
    state: Literal["sent", "delivered", "failed"] = "delivered"


class InventoryLow(Struct, frozen=True, rename="camel"):
    """The shop says that few tickets are left; `remaining` by tier."""

    city_id: Text
    remaining: dict[Text, Count]


def _sold(sale: TicketSale) -> Sequence[Sample]:
    currency = sale.currency.upper()
    return (
        TICKETS_SOLD(sale.quantity, type=sale.tier),
        REVENUE(major_units(sale.amount, currency), currency=currency),
        SOLD_IN_CITY(sale.quantity, city=sale.city_id, type=sale.tier),
        ORDERS(1, city=sale.city_id),
        CITY_REVENUE(major_units(sale.amount, currency), city=sale.city_id, type=sale.tier, currency=currency),
        PAID_BY(1, method=sale.payment_method or "unknown"),
        *([DISCOUNTED(1, code=sale.discount_code)] if sale.discount_code else []),
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


TICKET_SALE = EventType(
    "ticket_sale",
    TicketSale,
    counts=_sold,
    sets=lambda sale: _remaining(sale.city_id, sale.remaining_inventory),
    metrics=(TICKETS_SOLD, REVENUE, SOLD_IN_CITY, ORDERS, CITY_REVENUE, PAID_BY, DISCOUNTED, TICKETS_REMAINING),
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
PAYMENT_FAILED = EventType(
    "payment_failed",
    PaymentFailed,
    counts=lambda failed: (PAYMENTS_FAILED(1),),
    metrics=(PAYMENTS_FAILED,),
    doc="A payment failed.",
)
SYSTEM_ERROR = EventType(
    "system_error",
    ReportedError,
    counts=lambda error: (ERRORS(1, component=error.service),),
    metrics=(ERRORS,),
    doc="Something broke in the shop; raises SystemErrorReported.",
)
CHECKOUT_STARTED = EventType(
    "checkout_started",
    CheckoutStarted,
    counts=lambda started: (CHECKOUTS(1),),
    metrics=(CHECKOUTS,),
    doc="Somebody began to buy.",
)
CONFIRMATION = EventType(
    "confirmation",
    Confirmation,
    counts=lambda told: (CONFIRMATIONS(1, state=told.state),),
    metrics=(CONFIRMATIONS,),
    doc="A buyer was told of an order; the ledger misses those that never are.",
)
REGISTRATION = EventType(
    "registration",
    Registration,
    counts=lambda registered: (REGISTRATIONS(1),),
    metrics=(REGISTRATIONS,),
    doc="A customer registered.",
)
MEMBERSHIP_CONVERSION = EventType(
    "membership_conversion",
    MembershipConversion,
    counts=lambda converted: (CONVERSIONS(1),),
    metrics=(CONVERSIONS,),
    doc="A customer became a member.",
)


_ERRORS: Final = "workshop_system_errors_total"
RULES: Final = (
    default_rule(
        "web",
        "SystemErrorReported",
        # The first error of a service makes its series, which shows no increase.
        f"(increase({_ERRORS}[10m]) > 0) or ({_ERRORS} unless {_ERRORS} offset 10m)",
        "The shop reports {{ $value | humanize }} errors of {{ $labels.component }} in ten minutes",
        Severity.MEDIUM,
        impact="What the service does for buyers may fail.",
        action="See what it said: sixfbctl events --type system_error",
    ),
)


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    return (
        TICKET_SALE,
        REFUND,
        INVENTORY_LOW,
        requests.REQUEST,
        requests.LOGGED_REQUESTS,
        PAYMENT_FAILED,
        SYSTEM_ERROR,
        CHECKOUT_STARTED,
        CONFIRMATION,
        REGISTRATION,
        MEMBERSHIP_CONVERSION,
        process.NODE_PROCESS,
        process.EVENTS_DROPPED,
    )


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    return (*RULES, *requests.RULES)


@hookimpl
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:
    return reports.REPORTS
