"""What is known of each order, and what of it does not add up. Pure: events in, mismatches out, in whatever order they come.

A ticket is a `ticket_sale`, a payment a `stripe_event` whose payment's metadata name the order, a confirmation a
`confirmation`. What no source tells of is not missed: a shop that sends no confirmations misses none. An order is settled
when the money of all its tickets came back, as the shop or Stripe says.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct, field

from sixfbd.plugin import Event
from sixfbd_plugins.figures import iso
from sixfbd_plugins.money import show_money

Kind: TypeAlias = Literal["paid_without_ticket", "ticket_without_payment", "confirmation_missing"]

TYPES: Final = ("ticket_sale", "refund", "stripe_event", "confirmation")
SAID_OF: Final[Mapping[Kind, str]] = {
    "paid_without_ticket": "paid, and no ticket was made",
    "ticket_without_payment": "a ticket was made, and no payment succeeded",
    "confirmation_missing": "no confirmation has arrived",
}


class Patience(Struct, frozen=True):
    """How long each part may come later than the one before it, in seconds."""

    ticket_s: float = 300.0
    payment_s: float = 900.0
    confirmation_s: float = 600.0


class Entry(Struct):
    """One order; times are unix seconds, None for what has not happened. Money in minor units."""

    order: str
    city: str = ""
    tier: str = ""
    quantity: int = 0
    currency: str = ""
    sold_at: float | None = None
    amount: int = 0
    paid_at: float | None = None
    paid: int = 0
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
    def is_settled(self) -> bool:
        """Tell whether it came back whole: its tickets, its money, or a refund that says of neither how much."""
        if self.refunded_at is None:
            return False
        tickets = sum(self.returned.values())
        whole = tickets >= self.quantity if tickets else not self.money_back
        return whole or self.sold_at is None or 0 < self.paid <= self.money_back

    def history(self) -> str:
        """Return what happened to it in one line, oldest first."""
        tickets = f"{self.quantity} × {self.tier.upper()} {self.city}" if self.quantity else "a ticket"
        parts = [
            (self.paid_at, f"paid {show_money(self.paid, self.currency)}" if self.paid else "authorized"),
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
                    self._sold(self._of(order), event.timestamp, data)
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

    def _sold(self, entry: Entry, at: float, data: Mapping[str, Any]) -> None:
        entry.sold_at = at
        entry.city, entry.tier = str(data.get("cityId", "")), str(data.get("tier", ""))
        entry.quantity, entry.amount = int(data.get("quantity", 0)), int(data.get("amount", 0))
        entry.currency = entry.currency or str(data.get("currency", ""))

    def _paid(self, entry: Entry, at: float, data: Mapping[str, Any]) -> None:
        self.knows_payments = True
        entry.paid_at = at if entry.paid_at is None else min(at, entry.paid_at)
        entry.paid = max(entry.paid, int(data.get("amount", 0)))
        entry.currency = entry.currency or str(data.get("currency", ""))

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
        if entry.confirmed_at is None and self.knows_confirmations:
            yield "confirmation_missing", entry.sold_at, patience.confirmation_s

    def last_sold(self, city: str, tier: str, tickets: int) -> list[Entry]:
        """Return the newest orders of a tier that are not settled, as many as have so many tickets, the newest first."""
        found: list[Entry] = []
        for entry in sorted(self.entries.values(), key=lambda one: one.sold_at or 0.0, reverse=True):
            if entry.sold_at is None or tickets <= 0:
                break
            if (entry.city, entry.tier.lower()) == (city, tier.lower()) and not entry.is_settled:
                found.append(entry)
                tickets -= entry.quantity
        return found

    def forget(self, before: float, but: Collection[str] = ()) -> None:
        """Let go of orders that were first heard of before a time, but for some."""
        for order in [one.order for one in self.entries.values() if one.first_at < before and one.order not in but]:
            del self.entries[order]
