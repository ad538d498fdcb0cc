"""The shop's events: their forms, what they count, set and observe."""

import msgspec
import pytest

from sixfbd.plugin import PluginConfig, Sample
from sixfbd.rules import bind_rules
from sixfbd_plugins.business import events
from sixfbd_plugins.business.events import (
    INVENTORY_LOW,
    REFUND,
    TICKET_SALE,
    InventoryLow,
    Refund,
    TicketSale,
)
from sixfbd_plugins.business.requests import REQUEST, Request
from sixfbd_plugins.money import major_units, show_money
from tests import rules_kit

SALE = {
    "orderId": "o-1",
    "cityId": "dallas-2026-03",
    "tier": "ga",
    "quantity": 2,
    "amount": 19_998,
    "currency": "USD",
}
ANSWER = {"path": "/checkout", "method": "post", "statusCode": 201, "duration": 250}


def found(samples) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    assert all(isinstance(sample, Sample) for sample in samples)
    return {(sample.metric, sample.labels): sample.value for sample in samples}


def sale(**changes) -> TicketSale:
    return msgspec.convert(SALE | changes, TicketSale)


def answer(**changes) -> Request:
    return msgspec.convert(ANSWER | changes, Request)


def test_a_sale_counts_its_quantity_by_type_and_its_amount_in_major_units():
    assert found(TICKET_SALE.counts(sale())) == {
        ("workshop_tickets_sold_total", (("type", "ga"),)): 2,
        ("workshop_revenue_total", (("currency", "USD"),)): 199.98,
        ("workshop_city_tickets_sold_total", (("city", "dallas-2026-03"), ("type", "ga"))): 2,
        ("workshop_orders_total", (("city", "dallas-2026-03"),)): 1,
        ("workshop_city_revenue_total", (("city", "dallas-2026-03"), ("currency", "USD"), ("type", "ga"))): 199.98,
        ("workshop_payment_methods_total", (("method", "unknown"),)): 1,
    }


@pytest.mark.parametrize(
    ("amount", "currency", "major"),
    [
        (1999, "USD", 19.99),
        (1999, "jpy", 1999.0),
        (1999, "KRW", 1999.0),
        (1999, "KWD", 1.999),
        (1999, "CLF", 0.1999),
        (5, "EUR", 0.05),
    ],
)
def test_minor_units_become_major_ones_by_the_currencys_exponent(amount, currency, major):
    assert major_units(amount, currency) == pytest.approx(major, rel=1e-12)


def test_a_currency_in_small_letters_is_counted_as_the_same_one():
    assert ("workshop_revenue_total", (("currency", "EUR"),)) in found(TICKET_SALE.counts(sale(currency="eur")))


def test_a_sale_sets_what_remains_for_every_type_that_it_names():
    assert found(TICKET_SALE.sets(sale(remainingInventory={"ga": 9, "vip": 0}))) == {
        ("inventory_tickets_remaining", (("city", "dallas-2026-03"), ("type", "ga"))): 9,
        ("inventory_tickets_remaining", (("city", "dallas-2026-03"), ("type", "vip"))): 0,
    }
    assert list(TICKET_SALE.sets(sale())) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantity", 0),
        ("quantity", 1.5),
        ("amount", -1),
        ("amount", 19.99),
        ("currency", "dollar"),
        ("tier", ""),
        ("orderId", None),
        ("remainingInventory", {"ga": -1}),
    ],
)
def test_a_sale_with_an_impossible_field_is_refused_by_the_fields_name(field, value):
    with pytest.raises(msgspec.ValidationError, match=field):
        sale(**{field: value})


def test_unknown_fields_of_a_sale_are_left_alone():
    assert sale(campaign="spring", customerId="c-1").customer_id == "c-1"


def test_a_request_counts_by_method_and_status_and_observes_its_duration_in_seconds():
    assert found(REQUEST.counts(answer())) == {
        ("http_requests_total", (("method", "POST"), ("status", "201"))): 1,
        ("http_path_requests_total", (("class", "2xx"), ("path", "/checkout"))): 1,
        ("http_path_request_seconds_total", (("path", "/checkout"),)): 0.25,
    }
    assert found(REQUEST.observes(answer())) == {("http_request_duration_seconds", ()): 0.25}


def test_made_up_methods_share_one_series():
    series = {key for number in range(50) for key in found(REQUEST.counts(answer(method=f"X{number}")))}
    assert {one for one in series if one[0] == "http_requests_total"} == {
        ("http_requests_total", (("method", "other"), ("status", "201")))
    }
    assert len(series) == 3


@pytest.mark.parametrize(("field", "value"), [("statusCode", 99), ("statusCode", 600), ("duration", -1), ("path", "")])
def test_a_request_with_an_impossible_field_is_refused_by_the_fields_name(field, value):
    with pytest.raises(msgspec.ValidationError, match=field):
        answer(**{field: value})


def test_every_metric_that_an_event_may_make_is_declared():
    for event_type, data in (
        (TICKET_SALE, sale(remainingInventory={"ga": 1}, discountCode="X")),
        (REQUEST, answer(duration=2001)),
    ):
        made = [fn(data) for fn in (event_type.counts, event_type.sets, event_type.observes) if fn is not None]
        assert {sample.metric for samples in made for sample in samples} == {
            metric.name for metric in event_type.metrics
        }


def test_the_module_brings_its_event_types_under_the_users_names():
    brought = events.sixfbd_events(config=PluginConfig())
    assert [event_type.name for event_type in brought] == [
        "ticket_sale", "refund", "inventory_low", "request", "logged_requests", "payment_failed", "system_error",
        "checkout_started", "confirmation", "registration", "membership_conversion", "node_process",
        "events_dropped",
    ]  # fmt: skip
    summary = next(metric for metric in REQUEST.metrics if metric.name == "http_request_duration_seconds")
    assert summary.quantiles == (0.5, 0.95)


def test_a_refund_counts_the_tickets_of_its_city_and_type_and_money_alone_counts_none():
    whole = msgspec.convert({"orderId": "o", "cityId": "dallas", "tier": "ga", "quantity": 2}, Refund)
    assert found(REFUND.counts(whole)) == {
        ("workshop_city_tickets_refunded_total", (("city", "dallas"), ("type", "ga"))): 2
    }
    assert found(REFUND.counts(msgspec.convert({"orderId": "o"}, Refund))) == {}


def test_inventory_low_sets_what_remains_as_a_sale_does():
    low = msgspec.convert({"cityId": "dallas", "remaining": {"ga": 4}}, InventoryLow)
    assert found(INVENTORY_LOW.sets(low)) == found(
        TICKET_SALE.sets(sale(cityId="dallas", remainingInventory={"ga": 4}))
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tier": "vip", "amount": 30_000}, "Sale: 2 × VIP dallas-2026-03, $300.00"),
        ({"quantity": 1200, "amount": 123_456_789, "currency": "CHF"}, "Sale: 1,200 × GA dallas-2026-03, 1,234,567.89 CHF"),
        ({"remainingInventory": {"ga": 7}, "currency": "jpy", "amount": 0}, "Sale: 2 × GA dallas-2026-03, ¥0, 7 left"),
    ],
)  # fmt: skip
def test_a_sale_is_told_with_what_was_sold_where_for_how_much_and_what_is_left(changes, text):
    assert TICKET_SALE.notice == "sale"
    assert TICKET_SALE.notice_text(sale(**changes)) == text


def test_routes_tell_sales_apart_by_city_and_tier():
    assert TICKET_SALE.notice_labels(sale()) == {"city": "dallas-2026-03", "tier": "ga"}


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(5, "usd", "$0.05"), (-30_000, "EUR", "-€300.00"), (1999, "KWD", "1.999 KWD"), (1999, "ISK", "1,999 ISK"), (1, "", "0.01")],
)  # fmt: skip
def test_money_is_shown_exactly_with_the_digits_of_its_currency(amount, currency, text):
    assert show_money(amount, currency) == text


@pytest.mark.parametrize(
    ("event_type", "data", "counted"),
    [
        (events.PAYMENT_FAILED, {"orderId": "o", "reason": "card declined", "amount": 5, "currency": "usd"},
         {("workshop_payments_failed_total", ()): 1}),
        (events.SYSTEM_ERROR, {"message": "no connection", "service": "database"},
         {("workshop_system_errors_total", (("component", "database"),)): 1}),
        (events.CHECKOUT_STARTED, {}, {("workshop_checkouts_started_total", ()): 1}),
        (events.REGISTRATION, {"customerId": "c-1"}, {("workshop_registrations_total", ()): 1}),
        (events.MEMBERSHIP_CONVERSION, {"plan": "gold"}, {("workshop_membership_conversions_total", ()): 1}),
    ],
)  # fmt: skip
def test_what_else_happens_in_the_shop_is_counted(event_type, data, counted):
    assert found(event_type.counts(msgspec.convert(data, event_type.data))) == counted
    assert event_type in events.sixfbd_events(PluginConfig())


@pytest.mark.parametrize(
    ("series", "value"),
    [
        ("_ _ _ 1", 1),
        ("1 1 1 3", 2.25),
        ("1 1 1 1", None),
    ],
)
def test_an_error_that_the_shop_reports_is_told_the_first_of_a_service_too(snapshot_of, series, value):
    bound = bind_rules(events.RULES)
    assert not bound.errors
    at = 60.0 * 3 if series.startswith("_") else 60.0 * 3 + 600
    whole = series if series.startswith("_") else " ".join(["1"] * 10) + " " + series
    snapshot = snapshot_of(f'workshop_system_errors_total{{component="database"}} {whole}')
    told = rules_kit.found(bound, "SystemErrorReported", snapshot, at)
    assert len(told) == (0 if value is None else 1)
    assert all(severity == "medium" and "errors of database in ten minutes" in text for _, severity, text in told)
