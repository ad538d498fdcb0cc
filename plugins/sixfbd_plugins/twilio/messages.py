"""What becomes of messages: Twilio's statuses as events that are each taken once, and the metrics counted from them.

Owns the event types `sms_status` and `sms_settled`. Knows nothing of how a status was learned: by the message log or by a
status callback, in any order, once or often. No event holds a number or a text.
"""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

from msgspec import Meta, Struct

from sixfbd.plugin import Counter, Event, EventType, MessageId, Receipt, Sample, Summary
from sixfbd_plugins.twilio.failures import is_temporary, words_of

OURS: Final = "sixfbd"
"""The label `origin` of messages that this daemon sent; those of others have none."""
RETRY_AFTER_S: Final = 60.0  # a phone that was out of reach is so a moment later
MICROS: Final = 1_000_000
MAX_PRICE: Final = 10**9

MESSAGES = Counter(
    "twilio_messages_total",
    "Outgoing messages of the account that reached a status; each is counted once in each status that it reached.",
    labels=("status", "origin"),
)
ERRORS = Counter(
    "twilio_message_errors_total", "Outgoing messages that failed, by Twilio's error code.", labels=("code", "origin")
)
DELIVERY = Summary(
    "twilio_delivery_seconds",
    "From the creation of a message until its delivery was reported.",
    labels=("origin",),
    window_s=3600.0,
)
SPEND = Counter(
    "twilio_spend_micros_total", "What messages cost, in millionths of the currency's unit.", labels=("currency",)
)
SEGMENTS = Counter("twilio_segments_total", "Segments that were billed for outgoing messages.", labels=("origin",))

REACHED: Final = {
    "sent": ("sent",),
    "partially_delivered": ("sent",),
    "delivered": ("sent", "delivered"),
    "read": ("sent", "delivered", "read"),
    "undelivered": ("sent", "undelivered"),
    "failed": ("failed",),
    "canceled": ("canceled",),
}
"""What a message has reached that is in a status. A log that is read now and then skips some: who was delivered was sent.

Statuses before these (accepted, scheduled, queued, sending) are passed by too fast to be counted.
https://www.twilio.com/docs/messaging/api/message-resource#message-status-values
"""
FINAL: Final = frozenset({"delivered", "read", "undelivered", "failed", "canceled"})
FAILED: Final = frozenset({"undelivered", "failed", "canceled"})
UNBILLED: Final = frozenset({"failed", "canceled"})  # may never have a price
OUTGOING: Final = "outbound"  # how the directions of messages that were sent begin
_CODE: Final = re.compile("[1-9][0-9]{2,5}")
_CURRENCY: Final = re.compile("[A-Z]{3}")


class MessageStatus(Struct, frozen=True, omit_defaults=True):
    """A message reached a status. `message` is our own message's id, if we sent it and know which."""

    sid: str
    status: Annotated[str, Meta(min_length=1, max_length=40)]
    code: str = ""
    origin: str = ""
    message: str = ""


class MessageSettled(Struct, frozen=True, omit_defaults=True):
    """Nothing more will become of a message. `micros` is its price, `seconds` how long a delivery took."""

    sid: str
    direction: str
    micros: Annotated[int, Meta(ge=0)] = 0
    currency: str = ""
    segments: int = 0
    seconds: Annotated[float, Meta(ge=0)] | None = None
    origin: str = ""


def status_events(
    sid: str,
    status: str,
    at: float,
    *,
    code: str = "",
    origin: str = "",
    message: str = "",
    sent_at: float | None = None,
) -> list[Event]:
    """Return the events of a message that is in a status since `at`; none before it was sent.

    Their ids are the same wherever the status was learned.
    """
    found = []
    for reached in REACHED.get(status, ()):
        since = at if reached == status or sent_at is None else sent_at
        data = {"sid": sid, "status": reached, "origin": origin, "message": message}
        if reached == status:
            data["code"] = _bounded(code)
        found.append(
            Event(f"{sid}/{reached}", STATUS.name, since, {key: value for key, value in data.items() if value})
        )
    return found


def micros_of(price: str | None) -> int | None:
    """Return a price in millionths, as what it costs; None if there is none yet, or none that is one."""
    if price is None:
        return None
    try:
        amount = abs(Decimal(price))
    except InvalidOperation:
        return None
    return round(amount * MICROS) if amount.is_finite() and amount <= MAX_PRICE else None


def currency_of(text: str | None) -> str:
    """Return a currency's code as a label."""
    code = (text or "").upper()
    return code if _CURRENCY.fullmatch(code) else "unknown"


def _bounded(code: str) -> str:
    """Return an error code as a label; a signed callback may say anything."""
    return code if not code or _CODE.fullmatch(code) else "other"


def _counted(status: MessageStatus) -> Sequence[Sample]:
    counted = [MESSAGES(1, status=status.status, origin=status.origin)]
    if status.status in ("failed", "undelivered"):
        counted.append(ERRORS(1, code=status.code or "none", origin=status.origin))
    return counted


def receipt_of(status: str, code: int, message: MessageId | None, sid: str) -> Receipt | None:
    """Return what a status says of a message of our own, None if nothing that is not known by its being taken."""
    if status in ("delivered", "read"):
        return Receipt(state="delivered", message_id=message, provider_id=sid)
    if status not in FAILED:
        return None
    return Receipt(
        state="failed",
        message_id=message,
        provider_id=sid,
        detail=f"{status}: {words_of(code)}",
        temporary=is_temporary(code, default=False),
        retry_after_s=RETRY_AFTER_S,
    )


def _receipt(status: MessageStatus) -> Receipt | None:
    """Return what an event says of a message of our own, None of another's."""
    if status.origin != OURS:
        return None
    code = int(status.code) if status.code.isdecimal() else 0
    return receipt_of(status.status, code, MessageId(status.message) if status.message else None, status.sid)


def _settled(settled: MessageSettled) -> Sequence[Sample]:
    counted = []
    if settled.micros:
        counted.append(SPEND(settled.micros, currency=settled.currency))
    if settled.segments and settled.direction.startswith(OUTGOING):
        counted.append(SEGMENTS(settled.segments, origin=settled.origin))
    return counted


def _took(settled: MessageSettled) -> Sequence[Sample]:
    return () if settled.seconds is None else (DELIVERY(settled.seconds, origin=settled.origin),)


STATUS: Final = EventType(
    "sms_status",
    MessageStatus,
    counts=_counted,
    metrics=(MESSAGES, ERRORS),
    receipt=_receipt,
    shared=True,
    doc="A message reached a status.",
)
SETTLED: Final = EventType(
    "sms_settled",
    MessageSettled,
    counts=_settled,
    observes=_took,
    metrics=(SPEND, SEGMENTS, DELIVERY),
    shared=True,
    doc="Nothing more will become of a message.",
)
