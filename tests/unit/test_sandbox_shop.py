"""The sandbox's shop: stock and money add up whatever happens, and each order is told once."""

import json
import random
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.shop import MAX_EVENTS, REOPEN_AFTER_S, Outcome, Shop, State, Trade

START = 1_800_000_000.0


class Clock:
    def __init__(self):
        self.at = START

    def now(self):
        return self.at


def till(order, card):
    state = {"good": "succeeded", "declined": "declined", "broken": "failed"}[card]
    return Outcome(state, "" if card == "good" else card, f"ref-{order.id}")


def make(clock, seed=1, **more):
    return Shop(clock.now, random.Random(seed), charge=till, **more)


def tiers(shop):
    return [tier for city in shop.state.cities.values() for tier in city.tiers.values()]


def buy(shop, quantity=1, card="good", tier="ga"):
    city = next(iter(shop.state.cities))
    wish = {"cityId": city, "tier": tier, "quantity": quantity, "email": "ana@example.com", "card": card}
    return shop.handle("POST", "/checkout", {}, {}, json.dumps(wish).encode())


trades = st.builds(
    Trade,
    rush=st.sampled_from([1.0, 20.0, 300.0]),
    buying=st.floats(0, 1),
    declines=st.floats(0, 0.5),
    technical=st.floats(0, 0.5),
    refunds=st.floats(0, 1),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.floats(0.1, 50), trades), min_size=1, max_size=12))
def test_stock_is_never_negative_and_money_is_what_the_events_say(seed, steps):
    clock = Clock()
    shop = make(clock, seed)
    taken = refunded = 0
    ends = Counter()
    for span_s, trade in steps:
        shop.set_trade(trade)
        clock.at += span_s
        shop.advance()
        events = shop.events()
        assert shop.lost_events == 0
        taken += sum(one["data"]["amount"] for one in events if one["type"] == "ticket_sale")
        refunded += sum(one["data"]["amount"] for one in events if one["type"] == "refund")
        ends.update(one["id"] for one in events)
        for tier in tiers(shop):
            assert tier.reserved >= 0 and tier.sold >= 0
            assert tier.reserved + tier.sold <= tier.limit
    assert set(ends.values()) <= {1}, "an event is told once"
    assert (shop.state.taken_minor, shop.state.refunded_minor) == (taken, refunded)
    assert 0 <= refunded <= taken
    orders = shop.state.orders.values()
    assert taken == sum(one.amount_minor for one in orders if one.state in ("ticketed", "refunded"))
    assert refunded == sum(one.amount_minor for one in orders if one.state == "refunded")
    held = Counter()
    for one in orders:
        if one.state in ("paid", "ticketed"):
            held[one.city, one.tier] += one.quantity
    for city in shop.state.cities.values():
        for name, tier in city.tiers.items():
            assert held[city.id, name] == tier.reserved + tier.sold


def test_only_the_fault_sells_more_tickets_than_there_are():
    clock = Clock()
    shop = make(clock)
    statuses = Counter(buy(shop, 10, tier="vip").status for _ in range(5))
    assert statuses == {201: 4, 409: 1}
    shop.set_trade(Trade(oversell=True))
    assert buy(shop, 10, tier="vip").status == 201
    clock.at += 2
    shop.advance()
    sold = next(iter(shop.state.cities.values())).tiers["vip"]
    assert (sold.sold, sold.limit, sold.available) == (50, 40, 0)


def test_a_card_that_is_refused_leaves_the_tickets_to_others_and_is_told():
    shop = make(Clock())
    assert [buy(shop, 10, card).status for card in ("declined", "broken")] == [402, 502]
    assert all(tier.available == tier.limit for tier in tiers(shop))
    failed = [one["data"]["reason"] for one in shop.events() if one["type"] == "payment_failed"]
    assert failed == ["declined", "broken"]


def test_an_answer_that_is_lost_is_an_order_nevertheless():
    shop = make(Clock())
    shop.faults.append(Fault(lost=True, path="/checkout"))
    assert buy(shop).lost
    assert [order.state for order in shop.state.orders.values()] == ["paid"]


def test_a_dead_checkout_sells_nothing_and_its_requests_are_told_as_errors():
    clock = Clock()
    shop = make(clock)
    shop.faults.append(Fault(error=500, path="/checkout"))
    shop.set_trade(Trade(rush=100))
    clock.at += 50
    shop.advance()
    events = shop.events()
    assert shop.state.orders == {}
    seen = Counter((one["data"]["path"], one["data"]["statusCode"]) for one in events)
    assert seen["/checkout", 500] > 10 and seen["/", 200] > 30


def test_a_wave_of_refunds_reaches_those_who_bought_before_it():
    clock = Clock()
    shop = make(clock)
    for _ in range(10):
        buy(shop)
    clock.at += 2
    shop.advance()
    shop.set_trade(Trade(refunds=1.0))
    clock.at += 11
    shop.advance()
    refunds = [one for one in shop.events() if one["type"] == "refund"]
    assert len(refunds) >= 10
    assert shop.state.refunded_minor == sum(one["data"]["amount"] for one in refunds)


def test_a_wave_of_refunds_that_is_over_brings_no_more_of_them():
    clock = Clock()
    shop = make(clock)
    for _ in range(10):
        buy(shop)
    clock.at += 2
    shop.advance()
    shop.events()
    shop.set_trade(Trade(refunds=1.0, buying=0.0))
    shop.set_trade(Trade(refunds=0.0, buying=0.0))
    clock.at += 60
    shop.advance()
    assert [one for one in shop.events() if one["type"] == "refund"] == []


def test_money_that_the_till_does_not_give_back_is_asked_for_again():
    clock = Clock()
    answers = [False, True]
    shop = make(clock, repay=lambda order: answers.pop(0))
    buy(shop)
    clock.at += 2
    shop.advance()
    shop.trade = Trade(buying=0.0)
    next(iter(shop.state.orders.values())).due_at = clock.at
    shop.advance()
    assert shop.state.refunded_minor == 0
    clock.at += 61
    shop.advance()
    assert shop.state.refunded_minor == shop.state.taken_minor > 0


def test_more_visitors_come_in_the_evening_than_in_the_morning():
    def visits(hour):
        clock = Clock()
        clock.at = START - START % 86400 + hour * 3600
        shop = make(clock, speed=20)
        for _ in range(60):
            clock.at += 10
            shop.advance()
        return shop.visits

    assert visits(20) > 3 * visits(8)


def test_after_a_long_sleep_the_visitors_of_that_time_have_stayed_away():
    clock = Clock()
    shop = make(clock)
    clock.at += 30 * 86400
    shop.advance()
    assert shop.visits <= 1


def test_a_city_that_is_sold_out_sells_its_next_workshop_later():
    clock = Clock()
    shop = make(clock)
    shop.trade = Trade(buying=0.0)
    [city, *_] = shop.state.cities.values()
    for tier in city.tiers.values():
        tier.sold = tier.limit
    shop.advance()
    assert city.id in shop.state.cities
    clock.at += REOPEN_AFTER_S
    shop.advance()
    assert city.id not in shop.state.cities
    assert len({one.name for one in shop.state.cities.values()}) == 4


def test_stock_is_shown_as_the_status_that_the_document_reads():
    shop = make(Clock())
    buy(shop, 3)
    shown = json.loads(shop.handle("GET", "/internal/inventory", {}, {}, b"").body)["cities"][0]
    assert shown["status"] == {
        "publicAvailable": {"ga": 397, "vip": 40},
        "sold": {"ga": 0, "vip": 0},
        "publicLimits": {"ga": 400, "vip": 40},
    }


def test_events_that_nobody_asks_for_are_bounded_and_counted():
    shop = make(Clock())
    for _ in range(MAX_EVENTS + 7):
        shop.handle("GET", "/", {}, {}, b"")
    assert shop.lost_events == 7
    assert len(shop.events()) == MAX_EVENTS


@given(st.binary(max_size=200) | st.just(b'{"cityId":"x","tier":"ga","email":"a","quantity":11}'))
def test_a_checkout_that_makes_no_sense_is_refused(body):
    shop = make(Clock())
    assert shop.handle("POST", "/checkout", {}, {}, body).status == 422
    assert shop.state.orders == {}


def test_a_shop_goes_on_with_the_state_that_it_left():
    clock = Clock()
    shop = make(clock)
    buy(shop, 4)
    kept = msgspec.json.decode(msgspec.json.encode(shop.state), type=State)
    again = make(clock, state=kept)
    clock.at += 2
    again.advance()
    assert [one.state for one in again.state.orders.values()] == ["ticketed"]
    assert msgspec.json.decode(msgspec.json.encode(again.state), type=State) == again.state, "whatever state it is in"
