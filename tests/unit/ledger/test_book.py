"""The ledger's book: whatever order events come in, the same orders add up, and the others are named with their history."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.plugin import Event
from sixfbd_plugins.ledger.book import Book, Patience

T = 1_800_000_000.0
PATIENCE = Patience(ticket_s=300, payment_s=900, confirmation_s=600)


def sale(order, at=T, **more):
    data = {"orderId": order, "cityId": "dallas", "tier": "ga", "quantity": 2, "amount": 5000, "currency": "USD"}
    return Event(f"{order}-sale", "ticket_sale", at, data | more)


def paid(order, at=T, payment="pi", **more):
    kind = {"type": "payment_intent.succeeded", "payment": payment, "state": "succeeded"}
    data = {**kind, "orderId": order, "amount": 5000, "currency": "USD", **more}
    return Event(f"{order}-{payment}-paid", "stripe_event", at, data)


def seats(order, tier, amount, quantity=1, at=T):
    """One tier of an order that has several."""
    data = {"orderId": order, "cityId": "dallas", "tier": tier, "quantity": quantity, "amount": amount}
    return Event(f"{order}-{tier}", "ticket_sale", at, {**data, "currency": "USD"})


def confirmed(order, at=T, state="delivered"):
    return Event(f"{order}-mail", "confirmation", at, {"orderId": order, "channel": "email", "state": state})


def refund(order, at=T, tickets=0, nth=1):
    return Event(f"{order}-back{nth}", "refund", at, {"orderId": order, "quantity": tickets})


def money_back(order, amount, at=T):
    data = {"type": "charge.refunded", "object": "ch", "orderId": order, "amount": amount, "currency": "USD"}
    return Event(f"{order}-charge-{amount}", "stripe_event", at, data)


WHOLE = (sale("whole"), paid("whole"), confirmed("whole"))


def missing(*events, at=T + 3600):
    book = Book()
    book.take([*WHOLE, *events])
    return [(one.entry.order, one.kind) for one in book.mismatches(at, PATIENCE)]


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ((paid("a"),), [("a", "paid_without_ticket")]),
        ((sale("a"), confirmed("a")), [("a", "ticket_without_payment")]),
        ((sale("a"), paid("a")), [("a", "confirmation_missing")]),
        ((sale("a"), paid("a"), confirmed("a", state="failed")), [("a", "confirmation_missing")]),
        ((sale("a"),), [("a", "ticket_without_payment"), ("a", "confirmation_missing")]),
        ((sale("a", amount=0), confirmed("a")), []),  # a free ticket
        ((sale("a"), paid("a", amount=4900), confirmed("a")), [("a", "amount_differs")]),
        ((sale("a"), paid("a"), paid("a", payment="again"), confirmed("a")), [("a", "amount_differs")]),
        ((sale("a"), paid("a"), paid("a"), confirmed("a")), []),  # its intent and its charge tell of one payment
        ((sale("a"), paid("a", amount=2000), paid("a", payment="rest", amount=3000), confirmed("a")), []),
        ((sale("a"), paid("a", amount=4900, currency="EUR"), confirmed("a")), []),  # nobody knows the rate
        ((sale("a"), paid("a", amount=0), confirmed("a")), []),  # authorized only
        ((seats("a", "ga", 2000), seats("a", "vip", 3000), paid("a"), confirmed("a")), []),
        ((seats("a", "ga", 2000), seats("a", "vip", 2000), paid("a"), confirmed("a")), [("a", "amount_differs")]),
        ((sale("a"), refund("a")), []),
        ((paid("a"), refund("a")), []),
        ((confirmed("a"),), []),
        ((sale("a"), confirmed("a"), refund("a", tickets=1)), [("a", "ticket_without_payment")]),
        ((sale("a"), refund("a", tickets=1), refund("a", tickets=1, nth=2)), []),
        ((sale("a"), paid("a"), money_back("a", 2000)), [("a", "confirmation_missing")]),
        ((sale("a"), paid("a"), money_back("a", 2000), money_back("a", 5000)), []),
        ((paid("a"), money_back("a", 5000)), []),
    ],
)
def test_each_part_that_is_missing_is_named(events, found):
    assert missing(*events) == found


@pytest.mark.parametrize(
    ("events", "wait_s"), [((paid("a"),), 300), ((sale("a"), confirmed("a")), 900), ((sale("a"), paid("a")), 600)]
)
def test_nothing_is_missed_before_its_time(events, wait_s):
    assert missing(*events, at=T + wait_s) == []
    assert len(missing(*events, at=T + wait_s + 1)) == 1


def test_what_no_source_tells_of_is_not_missed():
    book = Book()
    book.take([sale("a"), sale("b")])
    assert book.mismatches(T + 1e6, PATIENCE) == []


@given(st.integers(0, 10_000))
def test_order_and_repeats_of_events_make_no_difference(seed):
    draw = random.Random(seed)
    events = [
        make(f"o{number}", T + draw.random() * 100)
        for number in range(8)
        for make in (sale, paid, confirmed, refund)
        if draw.random() < 0.6
    ]
    once = Book()
    once.take(events)
    mixed = Book()
    twice = events + draw.sample(events, len(events) // 2)
    draw.shuffle(twice)
    for event in twice:
        mixed.take([event])
    assert mixed.mismatches(T + 3600, PATIENCE) == once.mismatches(T + 3600, PATIENCE)


def test_the_history_of_an_order_is_one_line_in_order_of_time():
    book = Book()
    book.take([sale("a", T + 5), paid("a", T), confirmed("a", T + 9, state="failed"), refund("a", T + 60)])
    assert book.entries["a"].history() == (
        "a: 08:00:00 paid $50.00; 08:00:05 2 × GA dallas for $50.00; 08:01:00 refunded; email did not arrive"
    )


def test_old_orders_are_let_go_but_for_those_that_are_named():
    book = Book()
    book.take([sale("old", T), sale("odd", T), sale("new", T + 10)])
    book.forget(T + 5, {"odd"})
    assert set(book.entries) == {"odd", "new"}


def test_an_authorization_and_a_refund_in_part_are_told_as_such():
    book = Book()
    authorized = Event(
        "auth", "stripe_event", T, {"type": "x", "state": "succeeded", "orderId": "a", "currency": "USD"}
    )
    book.take([authorized, sale("a", T + 5), refund("a", T + 60, tickets=1)])
    assert book.entries["a"].history() == (
        "a: 08:00:00 authorized; 08:00:05 2 × GA dallas for $50.00; 08:01:00 refunded in part"
    )


def test_the_orders_that_came_last_are_found_by_the_tickets_that_they_have():
    book = Book()
    book.take(sale(f"o{n}", T + n, tier="GA") for n in range(5))
    book.take([sale("vip", T + 9, tier="vip"), sale("austin", T + 9, cityId="austin"), refund("o4", T + 10)])
    assert [one.order for one in book.last_sold("dallas", "ga", 3)] == ["o3", "o2"]
    assert book.last_sold("dallas", "ga", 0) == []


@pytest.mark.parametrize("data", [{}, {"orderId": 7}, {"orderId": ""}])
def test_events_that_name_no_order_change_nothing(data):
    book = Book()
    book.take([Event("x", "stripe_event", T, data | {"state": "succeeded"})])
    assert book.entries == {} and not book.knows_payments


def test_sums_are_compared_only_where_they_are_of_the_same_thing():
    book = Book()
    book.take([*WHOLE, sale("a"), paid("a", amount=5450), confirmed("a")])
    found = book.mismatches(T + 3600, PATIENCE)
    assert [one.entry.history() for one in found] == [
        "a: 08:00:00 2 × GA dallas for $50.00; 08:00:00 confirmed; 08:00:00 paid $54.50"
    ]
    assert book.mismatches(T + 3600, Patience(compares_amounts=False)) == []


def test_an_order_of_several_tiers_is_whole_and_comes_back_whole():
    book = Book()
    book.take([*WHOLE, seats("a", "ga", 2000), seats("a", "vip", 3000, quantity=2), paid("a"), confirmed("a")])
    entry = book.entries["a"]
    assert entry.history().startswith("a: 08:00:00 1 × GA dallas and 2 × VIP dallas for $50.00; ")
    assert [one.order for one in book.last_sold("dallas", "vip", 1)] == ["a"]
    book.take([refund("a", tickets=1)])
    assert not entry.is_settled
    book.take([refund("a", tickets=2, nth=2)])
    assert entry.is_settled
