"""What is known of each order, and what of it does not add up. Pure: events in, mismatches out, in whatever order they come.

A ticket is a `ticket_sale`, a payment a `stripe_event` whose payment's metadata name the order, a confirmation a
`confirmation`. What no source tells of is not missed: a shop that sends no confirmations misses none. An order is settled
when the money of all its tickets came back, as the shop or Stripe says.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, field

from sixfbd.plugin import Event
from sixfbd_plugins.figures import iso
from sixfbd_plugins.money import show_money

Kind: TypeAlias = Literal["paid_without_ticket", "ticket_without_payment", "confirmation_missing", "amount_differs"]

SHOWN: Final = 5  # orders in the text of an alert
TYPES: Final = ("ticket_sale", "refund", "stripe_event", "confirmation")
SAID_OF: Final[Mapping[Kind, str]] = {
    "paid_without_ticket": "paid, and no ticket was made",
    "ticket_without_payment": "a ticket was made, and no payment succeeded",
    "confirmation_missing": "no confirmation has arrived",
    "amount_differs": "what was paid is not what the tickets cost",
}


class Patience(Struct, frozen=True):
    """How long each part may come later than the one before it, in seconds, and whether both sums must be the same."""

    ticket_s: float = 300.0
    payment_s: float = 900.0
    confirmation_s: float = 600.0
    compares_amounts: bool = True


class Part(Struct, frozen=True):
    """The tickets of one tier in an order, and what they cost in minor units."""

    city: str
    tier: str
    quantity: int
    amount: int

    def __str__(self) -> str:
        return f"{self.quantity} × {self.tier.upper()} {self.city}" if self.quantity else "a ticket"


class Entry(Struct):
    """One order; times are unix seconds, None for what has not happened. Money in minor units.

    `parts` are its sales by the events' ids, `payments` what was taken by each of its payments.
    """

    order: str
    parts: dict[str, Part] = field(default_factory=dict)
    currency: str = ""
    sold_at: float | None = None
    payments: dict[str, int] = field(default_factory=dict)
    paid_in: str = ""
    paid_at: float | None = None
    confirmed_at: float | None = None
    unconfirmed: str = ""
    refunded_at: float | None = None
    returned: dict[str, int] = field(default_factory=dict)
    money_back: int = 0

    @property
    def first_at(self) -> float:
        """When it was first heard of."""
        times = (self.sold_at, self.paid_at, self.confirmed_at, self.refunded_at)
        return min((at for at in times if at is not None), default=0.0)

    @property
    def quantity(self) -> int:
        """Tickets of all tiers."""
        return sum(part.quantity for part in self.parts.values())

    @property
    def amount(self) -> int:
        """What they cost."""
        return sum(part.amount for part in self.parts.values())

    @property
    def paid(self) -> int:
        """What was taken by all payments; 0 for one that is authorized only."""
        return sum(self.payments.values())

    @property
    def differs(self) -> bool:
        """Tell whether both sums are known, of one currency, and not the same."""
        return bool(self.amount and self.paid and self.amount != self.paid and self.currency == self.paid_in)

    @property
    def is_settled(self) -> bool:
        """Tell whether it came back whole: its tickets, its money, or a refund that says of neither how much."""
        if self.refunded_at is None:
            return False
        tickets = sum(self.returned.values())
        whole = tickets >= self.quantity if tickets else not self.money_back
        return whole or self.sold_at is None or 0 < self.paid <= self.money_back

    def history(self) -> str:
        """Return what happened to it in one line, oldest first."""
        tickets = " and ".join(str(part) for part in self.parts.values()) or "a ticket"
        times = f" in {len(self.payments)} payments" if len(self.payments) > 1 else ""
        parts = [
            (self.paid_at, f"paid {show_money(self.paid, self.paid_in)}{times}" if self.paid else "authorized"),
            (self.sold_at, f"{tickets} for {show_money(self.amount, self.currency)}"),
            (self.confirmed_at, "confirmed"),
            (self.refunded_at, "refunded" if self.is_settled else "refunded in part"),
        ]
        said = [f"{iso(at)[11:19]} {what}" for at, what in sorted((at, what) for at, what in parts if at is not None)]
        return f"{self.order}: " + "; ".join([*said, *([self.unconfirmed] if self.unconfirmed else [])])


class Mismatch(Struct, frozen=True):
    """An order that does not add up, since when."""

    kind: Kind
    entry: Entry
    since: float


class Book:
    """Every order of which an event was taken. `knows_payments` and `knows_confirmations`: whether their source tells."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.knows_payments = False
        self.knows_confirmations = False

    def take(self, events: Iterable[Event]) -> None:
        """Note events; those that name no order, and those that were noted before, change nothing."""
        for event in events:
            data = event.data
            order = data.get("orderId")
            if not isinstance(order, str) or not order:
                continue
            match event.type:
                case "ticket_sale":
                    self._sold(self._of(order), event)
                case "refund":
                    entry = self._of(order)
                    entry.refunded_at = event.timestamp
                    entry.returned[event.id] = int(data.get("quantity", 0))
                case "stripe_event" if data.get("type") == "charge.refunded":
                    entry = self._of(order)
                    entry.refunded_at = event.timestamp
                    entry.money_back = max(entry.money_back, int(data.get("amount", 0)))
                case "stripe_event" if data.get("state") == "succeeded":
                    self._paid(self._of(order), event.timestamp, data)
                case "confirmation":
                    self._confirmed(self._of(order), event.timestamp, data)

    def _of(self, order: str) -> Entry:
        return self.entries.setdefault(order, Entry(order))

    def _sold(self, entry: Entry, event: Event) -> None:
        data = event.data
        entry.sold_at = event.timestamp if entry.sold_at is None else min(event.timestamp, entry.sold_at)
        city, tier = str(data.get("cityId", "")), str(data.get("tier", ""))
        entry.parts[event.id] = Part(city, tier, int(data.get("quantity", 0)), int(data.get("amount", 0)))
        entry.currency = entry.currency or str(data.get("currency", ""))

    def _paid(self, entry: Entry, at: float, data: Mapping[str, Any]) -> None:
        self.knows_payments = True
        entry.paid_at = at if entry.paid_at is None else min(at, entry.paid_at)
        payment = str(data.get("payment", ""))
        entry.payments[payment] = max(entry.payments.get(payment, 0), int(data.get("amount", 0)))
        entry.paid_in = entry.paid_in or str(data.get("currency", ""))

    def _confirmed(self, entry: Entry, at: float, data: Mapping[str, Any]) -> None:
        self.knows_confirmations = True
        if data.get("state") == "failed":
            entry.unconfirmed = f"{data.get('channel', 'its confirmation')} did not arrive"
        else:
            entry.confirmed_at, entry.unconfirmed = at, ""

    def mismatches(self, now: float, patience: Patience) -> list[Mismatch]:
        """Return what does not add up at a time, oldest first."""
        found = [
            Mismatch(kind, entry, since)
            for entry in self.entries.values()
            if not entry.is_settled
            for kind, since, wait_s in self._missing(entry, patience)
            if now - since > wait_s
        ]
        return sorted(found, key=lambda one: (one.since, one.entry.order))

    def _missing(self, entry: Entry, patience: Patience) -> Iterable[tuple[Kind, float, float]]:
        if entry.sold_at is None:
            if entry.paid_at is not None:
                yield "paid_without_ticket", entry.paid_at, patience.ticket_s
            return
        if entry.paid_at is None and self.knows_payments and entry.amount:
            yield "ticket_without_payment", entry.sold_at, patience.payment_s
        if entry.paid_at is not None and entry.differs and patience.compares_amounts:
            yield "amount_differs", max(entry.sold_at, entry.paid_at), patience.payment_s
        if entry.confirmed_at is None and self.knows_confirmations:
            yield "confirmation_missing", entry.sold_at, patience.confirmation_s

    def last_sold(self, city: str, tier: str, tickets: int) -> list[Entry]:
        """Return the newest orders of a tier that are not settled, as many as have so many tickets, the newest first."""
        found: list[Entry] = []
        for entry in sorted(self.entries.values(), key=lambda one: one.sold_at or 0.0, reverse=True):
            if entry.sold_at is None or tickets <= 0:
                break
            taken = [
                part.quantity for part in entry.parts.values() if (part.city, part.tier.lower()) == (city, tier.lower())
            ]
            if taken and not entry.is_settled:
                found.append(entry)
                tickets -= sum(taken)
        return found

    def forget(self, before: float, but: Collection[str] = ()) -> None:
        """Let go of orders that were first heard of before a time, but for some."""
        for order in [one.order for one in self.entries.values() if one.first_at < before and one.order not in but]:
            del self.entries[order]


def in_brief(entries: Sequence[Entry]) -> str:
    """Return the histories of the first few in one line, and how many more there are."""
    more = f"; and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
    return " | ".join(entry.history() for entry in entries[:SHOWN]) + more
