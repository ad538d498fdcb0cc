"""A shop that sells tickets for workshops, as a pure state machine: cities, tiers, visitors, orders, refunds, pages.

Time, chance, the till (`charge`) and the confirmation (`confirm`) are given to it; what happened (`events`) is asked for.
Owns stock and money: reserved and sold never exceed a tier's limit unless `Trade.oversell` is on, and what was taken is what
the orders say. It opens no connection and knows no provider.
"""

import json
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from sixfbd.plugin import DAY, HOUR, MINUTE, SECOND
from sixfbd_plugins.sandbox.faults import NEVER_S, Answer, Fault, answered

CURRENCY: Final = "USD"
VISITORS_PER_HOUR: Final = 240.0  # on average, at speed 1
BUYING_IN_A_RUSH: Final = 0.9
TICKET_AFTER_S: Final = 1.0  # the till's word reaches the shop
REFUND_AFTER_S: Final = 1 * HOUR
REOPEN_AFTER_S: Final = 6 * HOUR  # sold out everywhere, a city sells its next workshop
ASLEEP_S: Final = 1 * MINUTE  # after a longer pause the visitors of that time have stayed away
MAX_VISITS: Final = 200  # of one `advance`
MAX_ORDERS: Final = 2000  # remembered; of more the oldest that are settled are forgotten
MAX_EVENTS: Final = 5000  # that nobody has asked for; of more the oldest are lost, and counted
PATIENCE_S: Final = 30.0  # a visitor waits no longer for a page
TIERS: Final = {"ga": (400, 4900), "vip": (40, 14900)}
CITIES: Final = ("dallas", "atlanta", "chicago", "houston")
FIRST_NAMES: Final = ("ana", "ben", "cleo", "dev", "eli", "fay", "gus", "ivy", "jo", "kit")

Card = Literal["good", "declined", "broken"]


class Tier(msgspec.Struct, kw_only=True):
    """Tickets of one kind."""

    limit: int
    price_minor: int
    reserved: int = 0
    sold: int = 0

    @property
    def available(self) -> int:
        return max(0, self.limit - self.reserved - self.sold)


class City(msgspec.Struct, kw_only=True):
    """One workshop in one city; times in unix seconds."""

    id: str
    name: str
    starts_at: float
    tiers: dict[str, Tier]
    sold_out_at: float | None = None


class Order(msgspec.Struct, kw_only=True):
    """An order. `paid`: the till has said yes, and the ticket is on its way."""

    id: str
    city: str
    tier: str
    quantity: int
    amount_minor: int
    customer: str
    at: float
    state: Literal["reserved", "failed", "paid", "ticketed", "forgotten", "refunded"] = "reserved"
    reference: str = ""
    confirmed: bool = False
    due_at: float | None = None  # the ticket, then the refund; None: nothing is


class Outcome(msgspec.Struct, frozen=True):
    """What the till says of a charge: taken, `declined` by the bank, or a fault of technique. `reference` is its own name."""

    state: Literal["succeeded", "declined", "failed"]
    reason: str = ""
    reference: str = ""


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """How business goes. Ratios in 0..1; `rush`: so many times the usual visitors, and most of them buy."""

    rush: float = 1.0
    buying: float = 0.1
    declines: float = 0.02
    technical: float = 0.0
    refunds: float = 0.002
    oversell: bool = False
    unticketed: float = 0.0
    unpaid: float = 0.0
    unconfirmed: float = 0.0


class State(msgspec.Struct, kw_only=True):
    """What outlives a restart. Money in minor units."""

    cities: dict[str, City] = msgspec.field(default_factory=dict)
    orders: dict[str, Order] = msgspec.field(default_factory=dict)
    taken_minor: int = 0
    refunded_minor: int = 0


class Shop:
    """`charge(order, card)` asks the till, `confirm(order)` tells the customer, `repay(order)` gives the money back."""

    def __init__(
        self,
        now: Callable[[], float],
        rng: random.Random,
        *,
        charge: Callable[[Order, Card], Outcome],
        confirm: Callable[[Order], None] = lambda order: None,
        repay: Callable[[Order], bool] = lambda order: True,
        state: State | None = None,
        speed: float = 1.0,
    ) -> None:
        self.faults: list[Fault] = []
        self.state = State() if state is None else state
        self.trade = Trade()
        self.visits = 0
        self.lost_events = 0
        self._charge, self._confirm, self._repay = charge, confirm, repay
        self._now = now
        self._rng = rng
        self._speed = speed
        self._events: deque[dict[str, Any]] = deque()
        if not self.state.cities:
            for place, name in enumerate(CITIES):
                self._open(name, now() + (21 + 14 * place) * DAY)
        self._visit_at = now() + self._pause_s()

    # ---- what happens ----------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Let time bring visitors, tickets, refunds and new workshops."""
        now = self._now()
        if now - self._visit_at > ASLEEP_S:
            self._visit_at = now
        for _ in range(MAX_VISITS):
            if self._visit_at > now:
                break
            self._visit_at += self._pause_s()
            self._visit()
        for order in [one for one in self.state.orders.values() if one.due_at is not None and one.due_at <= now]:
            if order.state == "paid":
                self._ticket(order)
            else:
                self._refund(order)
        self._reopen(now)
        self._forget()

    def events(self) -> list[dict[str, Any]]:
        """Return what happened since the last call, in the form of POST /api/events."""
        found = list(self._events)
        self._events.clear()
        return found

    def set_trade(self, trade: Trade) -> None:
        """Let business go differently from now on. More refunds than before are asked for by those who have tickets too; of
        those that were asked for, as many fewer are made as fewer are asked for now."""
        now = self._now()
        for order in self.state.orders.values():
            if order.state != "ticketed":
                continue
            if trade.refunds > self.trade.refunds and self._rng.random() < trade.refunds:
                order.due_at = now + self._rng.uniform(0, 10 * SECOND)
            elif trade.refunds < self.trade.refunds and self._rng.random() >= trade.refunds / self.trade.refunds:
                order.due_at = None
        self.trade = trade
        self._make_good(now)
        self._visit_at = now + self._pause_s()

    def _make_good(self, now: float) -> None:
        """Somebody makes up for what was forgotten, once nothing is any more."""
        for order in list(self.state.orders.values()):
            if order.state == "forgotten" and not self.trade.unticketed:
                order.state, order.due_at = "paid", now
            if order.state == "ticketed" and not order.reference and not self.trade.unpaid:
                order.reference = self._charge(order, "good").reference
            if order.state == "ticketed" and not order.confirmed and not self.trade.unconfirmed:
                self._tell_buyer(order)

    def _tell_buyer(self, order: Order) -> None:
        order.confirmed = True
        self._confirm(order)
        self._tell("confirmation", f"{order.id}-confirmed", orderId=order.id, channel="email", state="delivered")

    def _pause_s(self) -> float:
        """Return how long it is until the next visitor comes: most come in the evening."""
        hour = self._now() / HOUR % 24
        rhythm = 1 + 0.8 * math.cos((hour - 20) * math.tau / 24)
        return self._rng.expovariate(VISITORS_PER_HOUR / HOUR * rhythm * self._speed * self.trade.rush)

    def _visit(self) -> None:
        """Somebody looks at the shop, and may buy; a page that fails ends the visit."""
        self.visits += 1
        buying = max(self.trade.buying, BUYING_IN_A_RUSH if self.trade.rush > 1 else 0.0)
        if self.handle("GET", "/", {}, {}, b"").status != 200 or self._rng.random() >= buying:
            return
        if self.handle("GET", "/checkout", {}, {}, b"").status != 200:
            return
        city = self._rng.choice(list(self.state.cities.values()))
        dice = self._rng.random()
        wish = {
            "cityId": city.id,
            "tier": "vip" if self._rng.random() < 0.15 else "ga",
            "quantity": self._rng.choices((1, 2, 3, 4), (60, 30, 6, 4))[0],
            "email": f"{self._rng.choice(FIRST_NAMES)}{self._rng.randrange(1000)}@example.com",
            "card": "broken"
            if dice < self.trade.technical
            else "declined"
            if dice < self.trade.technical + self.trade.declines
            else "good",
        }
        self.handle("POST", "/checkout", {}, {}, json.dumps(wish).encode())

    def _ticket(self, order: Order) -> None:
        """The till's word has come: the ticket is made, told, and the sale is known."""
        if self._rng.random() < self.trade.unticketed:
            order.state, order.due_at = "forgotten", None
            return
        city = self.state.cities.get(order.city)
        order.state = "ticketed"
        wants_back = self._rng.random() < self.trade.refunds
        order.due_at = self._now() + REFUND_AFTER_S / self._speed * self._rng.random() if wants_back else None
        if city is not None:
            city.tiers[order.tier].reserved -= order.quantity
            city.tiers[order.tier].sold += order.quantity
        self.state.taken_minor += order.amount_minor
        left = {} if city is None else {"remainingInventory": _available(city)}
        self._tell("ticket_sale", f"{order.id}-sale", **_told(order), paymentMethod="card", **left)
        if self._rng.random() >= self.trade.unconfirmed:
            self._tell_buyer(order)

    def _refund(self, order: Order) -> None:
        if not self._repay(order):
            order.due_at = self._now() + 1 * MINUTE  # the till did not take it; again later
            return
        order.state, order.due_at = "refunded", None
        if (city := self.state.cities.get(order.city)) is not None:
            city.tiers[order.tier].sold -= order.quantity
        self.state.refunded_minor += order.amount_minor
        self._tell("refund", f"{order.id}-refund", **_told(order))

    def _open(self, name: str, starts_at: float) -> None:
        month = datetime.fromtimestamp(starts_at, UTC).strftime("%Y-%m")
        tiers = {tier: Tier(limit=limit, price_minor=price) for tier, (limit, price) in TIERS.items()}
        self.state.cities[f"{name}-{month}"] = City(id=f"{name}-{month}", name=name, starts_at=starts_at, tiers=tiers)

    def _reopen(self, now: float) -> None:
        for city in list(self.state.cities.values()):
            left = any(tier.available or tier.reserved for tier in city.tiers.values())
            city.sold_out_at = None if left else city.sold_out_at or now
            waited = city.sold_out_at is not None and now - city.sold_out_at >= REOPEN_AFTER_S / self._speed
            if waited or city.starts_at <= now:
                del self.state.cities[city.id]
                self._open(city.name, max(city.starts_at, now) + 35 * DAY)

    def _forget(self) -> None:
        if len(self.state.orders) > MAX_ORDERS:
            settled = [one.id for one in self.state.orders.values() if one.due_at is None]
            for order in settled[: len(self.state.orders) - MAX_ORDERS]:
                del self.state.orders[order]

    def _tell(self, kind: str, identity: str, **data: Any) -> None:
        if len(self._events) >= MAX_EVENTS:
            self._events.popleft()
            self.lost_events += 1
        self._events.append({"id": identity, "type": kind, "timestamp": self._now(), "data": data})

    # ---- pages -----------------------------------------------------------------------------------------------------------

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request; whoever asks, the shop tells of it as a `request`."""
        answer = answered(
            self.faults, method, path, self._rng,
            lambda: self._answer(method, path, body),
            lambda fault: _json({"error": "a fault of the sandbox"}, fault.error),
        )  # fmt: skip
        waited_s = min(answer.delay_s, PATIENCE_S) + self._rng.lognormvariate(-2.8, 0.5)
        status = 504 if answer.lost and answer.delay_s >= NEVER_S else answer.status
        known = path if path in ("/", "/checkout", "/health", "/internal/inventory") else "/other"
        self._tell(
            "request",
            f"r-{self._rng.getrandbits(80):020x}",
            path=known,
            method=method,
            statusCode=status,
            duration=round(waited_s * 1000, 1),
        )
        return answer

    def _answer(self, method: str, path: str, body: bytes) -> Answer:
        match method, path:
            case "GET", "/":
                names = ", ".join(sorted(city.id for city in self.state.cities.values()))
                return _page(f"Workshops: {names}")
            case "GET", "/checkout":
                return _page("Checkout")
            case "POST", "/checkout":
                return self._checkout(body)
            case "GET", "/health":
                return _json({"status": "ok"})
            case "GET", "/internal/inventory":
                return _json({"cities": [_status(city) for city in self.state.cities.values()]})
        return _json({"error": f"there is nothing at {method} {path}"}, 404)

    def _checkout(self, body: bytes) -> Answer:
        """Reserve, charge, and promise a ticket; without the money the tickets are free again."""
        try:
            wish = msgspec.json.decode(body, type=Wish)
            tier = self.state.cities[wish.city_id].tiers[wish.tier]
        except (msgspec.DecodeError, KeyError):
            return _json({"error": "cityId, tier, quantity, email and card are needed, of a workshop that is"}, 422)
        if tier.available < wish.quantity and not self.trade.oversell:
            return _json({"error": "sold out"}, 409)
        order = Order(
            id=f"o-{self._rng.getrandbits(64):016x}",
            city=wish.city_id,
            tier=wish.tier,
            quantity=wish.quantity,
            amount_minor=tier.price_minor * wish.quantity,
            customer=wish.email,
            at=self._now(),
        )
        self.state.orders[order.id] = order
        tier.reserved += order.quantity
        self._tell("checkout_started", f"{order.id}-checkout", orderId=order.id, cityId=order.city, tier=order.tier)
        is_free = self._rng.random() < self.trade.unpaid
        outcome = Outcome("succeeded") if is_free else self._charge(order, wish.card)
        order.reference = outcome.reference
        if outcome.state == "succeeded":
            order.state, order.due_at = "paid", self._now() + TICKET_AFTER_S
            return _json({"orderId": order.id}, 201)
        order.state = "failed"
        tier.reserved -= order.quantity
        self._tell(
            "payment_failed",
            f"{order.id}-failed",
            orderId=order.id,
            reason=outcome.reason,
            amount=order.amount_minor,
            currency=CURRENCY,
        )
        return _json({"orderId": order.id, "error": outcome.reason}, 402 if outcome.state == "declined" else 502)


class Wish(msgspec.Struct, frozen=True, rename="camel"):
    """What a checkout is asked for."""

    city_id: str
    tier: str
    email: str
    quantity: int = 1
    card: Card = "good"

    def __post_init__(self) -> None:
        if not 1 <= self.quantity <= 10:
            raise ValueError("quantity is 1 to 10")


def _told(order: Order) -> dict[str, Any]:
    return {
        "orderId": order.id, "cityId": order.city, "tier": order.tier, "quantity": order.quantity,
        "amount": order.amount_minor, "currency": CURRENCY,
    }  # fmt: skip


def _available(city: City) -> dict[str, int]:
    return {name: tier.available for name, tier in city.tiers.items()}


def _status(city: City) -> dict[str, Any]:
    """Return a city as the users' document has it (SEED S8)."""
    status = {
        "publicAvailable": _available(city),
        "sold": {name: tier.sold for name, tier in city.tiers.items()},
        "publicLimits": {name: tier.limit for name, tier in city.tiers.items()},
    }
    starts_at = datetime.fromtimestamp(city.starts_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"cityId": city.id, "startsAt": starts_at, "status": status}


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(status=status, headers={"content-type": "application/json"}, body=json.dumps(body).encode())


def _page(text: str) -> Answer:
    body = f"<!doctype html><title>Workshop (sandbox)</title><h1>Workshop (sandbox)</h1><p>{text}</p>\n"
    return Answer(headers={"content-type": "text/html; charset=utf-8"}, body=body.encode())
