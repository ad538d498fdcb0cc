"""What Stripe's events say: an event of Stripe's as events of ours, and the metrics counted from them. Pure functions.

Owns the event types `stripe_event`, `stripe_payment`, `stripe_dispute` and `stripe_delivery`. Knows nothing of how an event
came, by the list or by a webhook, in any order, once or often: it is known by Stripe's id. No name, address, card or text
of a customer is kept; of the metadata that a shop writes on its payments, `cityId`, `tier` and `orderId` are.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import Counter, Event, EventType, Sample, Severity
from sixfbd_plugins.money import show_money
from sixfbd_plugins.stripe.payments import DECLINED, FAILED, SUCCEEDED, Attempt

MAX_AMOUNT: Final = 10**14  # sums stay whole numbers that a double holds
_CURRENCY: Final = re.compile("[A-Z]{3}")
_ID: Final = re.compile("[A-Za-z]{2,12}_[0-9A-Za-z_]{1,180}")
_NAME: Final = re.compile(r"[\w.-]{1,100}")

TYPES: Final = frozenset({
    "charge.captured", "charge.dispute.closed", "charge.dispute.created", "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn", "charge.dispute.updated", "charge.failed", "charge.refunded", "charge.succeeded",
    "checkout.session.completed", "checkout.session.expired", "payment_intent.amount_capturable_updated",
    "payment_intent.canceled", "payment_intent.created", "payment_intent.payment_failed", "payment_intent.processing",
    "payment_intent.requires_action", "payment_intent.succeeded", "payout.created", "payout.failed", "payout.paid",
    "refund.created", "refund.failed", "refund.updated",
})  # fmt: skip
"""Types that are counted by their names; those of all others together are "other"."""

DECLINES: Final = frozenset({
    "amount_too_large", "amount_too_small", "approve_with_id", "authentication_required", "blocked", "call_issuer",
    "card_declined", "card_not_supported", "card_velocity_exceeded", "currency_not_supported", "do_not_honor",
    "do_not_try_again", "duplicate_transaction", "expired_card", "fraudulent", "generic_decline", "highest_risk_level",
    "incorrect_address", "incorrect_cvc", "incorrect_number", "incorrect_pin", "incorrect_zip", "insufficient_funds",
    "invalid_account", "invalid_amount", "invalid_cvc", "invalid_expiry_month", "invalid_expiry_year", "invalid_number",
    "invalid_pin", "invalid_expiry", "lost_card", "merchant_blacklist", "new_account_information_available",
    "no_action_taken", "not_permitted", "offline_pin_required", "online_or_offline_pin_required",
    "payment_intent_authentication_failure", "payment_method_provider_decline", "pickup_card", "pin_try_exceeded",
    "restricted_card", "revocation_of_all_authorizations", "revocation_of_authorization", "security_violation",
    "service_not_allowed", "stolen_card", "stop_payment_order", "testmode_decline", "transaction_not_allowed",
    "withdrawal_count_limit_exceeded",
})  # fmt: skip
"""https://docs.stripe.com/declines/codes and https://docs.stripe.com/error-codes: the bank or the buyer's means say no."""
ERRORS: Final = frozenset({
    "api_error", "idempotency_error", "invalid_request_error", "issuer_not_available", "payment_intent_unexpected_state",
    "payment_method_provider_timeout", "payment_method_unexpected_state", "processing_error", "rate_limit_error",
    "reenter_transaction", "try_again_later", "lock_timeout", "rate_limit", "payment_intent_payment_attempt_expired",
    "payment_method_unactivated", "payment_method_invalid_parameter", "parameter_invalid_empty", "resource_missing",
})  # fmt: skip
"""What failed on the way: at Stripe, at a network or in the shop's request."""
DISPUTES: Final = frozenset({
    "bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated", "debit_not_authorized",
    "duplicate", "fraudulent", "general", "incorrect_account_details", "insufficient_funds", "noncompliant",
    "product_not_received", "product_unacceptable", "subscription_canceled", "unrecognized",
})  # fmt: skip
"""https://docs.stripe.com/api/disputes/object#dispute_object-reason"""

EVENTS = Counter("stripe_events_total", "Stripe's events, by type.", labels=("type",))
PAID = Counter("stripe_paid_total", "Payments whose money came in.", labels=("currency",))
PAID_MINOR = Counter(
    "stripe_paid_minor_total", "Money that came in, in minor units, refunds apart.", labels=("currency",)
)
PAID_TICKETS_MINOR = Counter(
    "stripe_paid_tickets_minor_total",
    "Money that came in, in minor units, by the cityId and tier that the shop wrote into the payments' metadata.",
    labels=("city", "type", "currency"),
)
ATTEMPTS_FAILED = Counter(
    "stripe_attempts_failed_total",
    "Attempts to pay that failed: kind decline (the bank or the buyer's means) or error (on the way).",
    labels=("kind", "reason"),
)
PAYMENTS = Counter("stripe_payments_total", "Payments by final outcome.", labels=("outcome",))
ATTEMPTED = Counter("payments_attempted_total", "Payments that were attempted and have come to an end.")
FAILED_PAYMENTS = Counter("payments_failed_total", "Payments that were attempted and failed in the end.")
REFUNDS = Counter("stripe_refunds_total", "Refunds that were made.", labels=("currency",))
REFUNDED_MINOR = Counter("stripe_refunded_minor_total", "Money refunded, in minor units.", labels=("currency",))
REFUNDS_FAILED = Counter("stripe_refunds_failed_total", "Refunds that failed later.", labels=("currency",))
DISPUTED = Counter("stripe_disputes_total", "Disputes, inquiries included.", labels=("reason",))
DISPUTED_MINOR = Counter("stripe_disputed_minor_total", "Money disputed, in minor units.", labels=("currency",))
CHARGEBACKS = Counter("stripe_chargebacks_total", "Disputes for which money was withdrawn.")
PAYOUTS = Counter("stripe_payouts_total", "Payouts to the bank, by how they ended.", labels=("currency", "status"))

Text = Annotated[str, Meta(max_length=300)]
Amount = Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
Object: TypeAlias = Mapping[str, Any]
"""An object of Stripe's, of whatever kind: nothing of it is taken for granted, amounts are in minor units."""


class _Data(Struct, frozen=True):
    object: dict[str, Any]


class Snapshot(Struct, frozen=True):
    """An event as Stripe shows it. https://docs.stripe.com/api/events/object"""

    id: Annotated[str, Meta(pattern="^evt_[0-9A-Za-z_]{1,180}$")]
    type: Annotated[str, Meta(min_length=1, max_length=100)]
    created: Annotated[int, Meta(ge=0, le=10**10)]
    data: _Data


class StripeEvent(Struct, frozen=True, omit_defaults=True):
    """An event of Stripe's: of which `payment` in which `state` (see `payments`), `object` with which `amount`, and why."""

    type: str
    payment: str = ""
    state: Literal["", "succeeded", "declined", "error", "processing"] = ""
    reason: str = ""
    object: str = ""
    amount: Amount = 0
    currency: str = ""
    cityId: str = ""  # noqa: N815 - keys of events are camelCase
    tier: str = ""
    orderId: str = ""  # noqa: N815


class PaymentEnded(Struct, frozen=True, omit_defaults=True):
    """The outcome of a payment is final."""

    payment: str
    outcome: str
    reason: str = ""
    attempts: int = 1
    amount: Amount = 0
    currency: str = ""


class Dispute(Struct, frozen=True, omit_defaults=True):
    """A buyer's bank disputes a charge: `amount` in minor units, to be answered until `respondBy`."""

    dispute: str
    reason: str
    amount: Amount
    currency: str
    respondBy: str = ""  # noqa: N815 - keys of events are camelCase
    charge: str = ""


class Chargeback(Struct, frozen=True):
    """Money was withdrawn for a dispute."""

    dispute: str


class Delivery(Struct, frozen=True):
    """One of our inbounds got an event of Stripe's."""

    type: str
    inbound: str


def events_of(snapshot: Snapshot) -> list[Event]:
    """Return an event of Stripe's as events of ours; they are the same wherever it came from."""
    thing: Object = snapshot.data.object
    at = float(snapshot.created)
    said = _said(snapshot.type, thing)
    found = [Event(snapshot.id, EVENT.name, at, msgspec.to_builtins(said))]
    dispute = _id(thing.get("id"))
    if snapshot.type == "charge.dispute.created" and dispute:
        found.append(Event(dispute, DISPUTE.name, at, msgspec.to_builtins(_dispute(thing, dispute))))
    if dispute and _is_chargeback(snapshot.type, thing):
        found.append(Event(f"{dispute}/chargeback", CHARGEBACK.name, at, {"dispute": dispute}))
    return found


def attempt_of(event: Event) -> Attempt | None:
    """Return the attempt that a `stripe_event` tells of, if any."""
    data = event.data
    if not data.get("state"):
        return None
    return Attempt(
        data["payment"], event.timestamp, data["state"], data.get("reason", ""), data.get("amount", 0),
        data.get("currency", ""),
    )  # fmt: skip


def delivery_of(snapshot: Snapshot, inbound: str) -> Event:
    """Return the event that says that one of our inbounds got it."""
    return Event(snapshot.id, DELIVERY.name, float(snapshot.created), {"type": snapshot.type, "inbound": inbound})


def currency_of(text: Any) -> str:
    """Return a currency's code as a label."""
    code = text.upper() if isinstance(text, str) else ""
    return code if _CURRENCY.fullmatch(code) else "unknown"


def _said(kind: str, thing: Object) -> StripeEvent:
    family = kind.partition(".")[0]
    bare = family == "charge" and not kind.startswith("charge.dispute.") and not thing.get("payment_intent")
    payment = _id(thing.get("id")) if family == "payment_intent" or bare else ""
    if payment and kind in _FAILURES:
        failed, why = _failure(thing)
        return StripeEvent(kind, payment, failed, why)
    if payment and kind in _PROCESSING:
        return StripeEvent(kind, payment, "processing")
    if payment and kind in _SUCCESSES:
        paid, currency = _paid(kind, thing), currency_of(thing.get("currency"))
        city, tier, order = (_written(thing, key) for key in ("cityId", "tier", "orderId"))
        return StripeEvent(
            kind, payment, "succeeded", amount=paid, currency=currency, cityId=city, tier=tier, orderId=order
        )
    if kind == "charge.refunded" and (name := _id(thing.get("id"))):
        amount, currency = _amount(thing.get("amount_refunded")), currency_of(thing.get("currency"))
        return StripeEvent(
            kind, payment, object=name, amount=amount, currency=currency, orderId=_written(thing, "orderId")
        )
    if family in ("refund", "payout") and (name := _id(thing.get("id"))):
        amount = _amount(thing.get("amount"))
        return StripeEvent(kind, object=name, amount=amount, currency=currency_of(thing.get("currency")))
    return StripeEvent(kind, payment=payment)


_FAILURES: Final = ("payment_intent.payment_failed", "charge.failed")
_PROCESSING: Final = ("payment_intent.processing", "charge.pending")
_SUCCESSES: Final = (
    "payment_intent.succeeded",
    "payment_intent.amount_capturable_updated",  # authorized: the buyer's part is done
    "charge.succeeded",
    "charge.captured",
)


def _written(thing: Object, key: str) -> str:
    """Return what the shop wrote into an object's metadata, "" if it is no name."""
    text = _part(thing, "metadata").get(key)
    return text if isinstance(text, str) and _NAME.fullmatch(text) else ""


def _paid(kind: str, thing: Object) -> int:
    """Return the money that came in with this event; none with an authorization, it comes when it is captured."""
    if kind == "payment_intent.succeeded":
        return _amount(thing.get("amount_received"))
    if kind == "charge.captured":
        return _amount(thing.get("amount_captured"))
    if kind == "charge.succeeded" and thing.get("captured"):
        return _amount(thing.get("amount_captured"))
    return 0


def _failure(thing: Object) -> tuple[Literal["declined", "error"], str]:
    """Return whether it is a decline, and a reason that is one of a few; the most telling code first."""
    error, outcome = _part(thing, "last_payment_error"), _part(thing, "outcome")
    codes = [
        error.get("decline_code"), outcome.get("reason"), error.get("code"), thing.get("failure_code"), error.get("type"),
    ]  # fmt: skip
    known = [code for code in codes if isinstance(code, str) and (code in DECLINES or code in ERRORS)]
    if known:
        return ("error" if known[0] in ERRORS else "declined"), known[0]
    said_no = outcome.get("type") in ("issuer_declined", "blocked") or error.get("type") == "card_error"
    return ("declined" if said_no or error.get("decline_code") else "error"), "other"


def _part(thing: Object, name: str) -> Mapping[str, Any]:
    """Return a part of an object that is an object itself; an empty one where there is none."""
    part = thing.get(name)
    return part if isinstance(part, dict) else {}


def due_by(dispute: Object) -> int | None:
    """Return by when a dispute must be answered, in unix seconds."""
    at = _part(dispute, "evidence_details").get("due_by")
    return at if isinstance(at, int) and 0 < at <= 10**10 else None


def _dispute(thing: Object, dispute: str) -> Dispute:
    due_at, reason = due_by(thing), thing.get("reason")
    return Dispute(
        dispute=dispute,
        reason=reason if isinstance(reason, str) and reason in DISPUTES else "other",
        amount=_amount(thing.get("amount")),
        currency=currency_of(thing.get("currency")),
        respondBy="" if due_at is None else iso(due_at),
        charge=_id(thing.get("charge")),
    )


def _is_chargeback(kind: str, thing: Object) -> bool:
    """An inquiry is none until money is withdrawn for it."""
    if kind == "charge.dispute.created":
        return not str(thing.get("status")).startswith("warning_")
    return kind == "charge.dispute.funds_withdrawn"


def iso(at: float) -> str:
    """Return a time as JSON has it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _id(name: Any) -> str:
    return name if isinstance(name, str) and _ID.fullmatch(name) else ""


def _amount(minor: Any) -> int:
    """Return an amount; what is none is nothing, so that one odd object loses no event."""
    return minor if isinstance(minor, int) and not isinstance(minor, bool) and 0 <= minor <= MAX_AMOUNT else 0


def _counted(said: StripeEvent) -> Sequence[Sample]:
    counted = [EVENTS(1, type=said.type if said.type in TYPES else "other")]
    if said.state in FAILED:
        counted.append(ATTEMPTS_FAILED(1, kind="decline" if said.state == DECLINED else "error", reason=said.reason))
    if said.state == SUCCEEDED and said.amount:
        counted += [PAID(1, currency=said.currency), PAID_MINOR(said.amount, currency=said.currency)]
        if said.cityId or said.tier:
            city, tier = said.cityId or "unknown", said.tier or "unknown"
            counted.append(PAID_TICKETS_MINOR(said.amount, city=city, type=tier, currency=said.currency))
    match said.type if said.object else "":
        case "refund.created":
            counted += [REFUNDS(1, currency=said.currency), REFUNDED_MINOR(said.amount, currency=said.currency)]
        case "refund.failed":
            counted.append(REFUNDS_FAILED(1, currency=said.currency))
        case "payout.paid" | "payout.failed":
            counted.append(PAYOUTS(1, currency=said.currency, status=said.type.partition(".")[2]))
    return counted


def _ended(ended: PaymentEnded) -> Sequence[Sample]:
    counted = [PAYMENTS(1, outcome=ended.outcome), ATTEMPTED(1)]
    return [*counted, FAILED_PAYMENTS(1)] if ended.outcome in FAILED else counted


def _disputed(dispute: Dispute) -> Sequence[Sample]:
    return [DISPUTED(1, reason=dispute.reason), DISPUTED_MINOR(dispute.amount, currency=dispute.currency)]


def _dispute_text(one: Dispute) -> str:
    charge = f", charge {one.charge}" if one.charge else ""
    until = f" by {one.respondBy[:16].replace('T', ' ')} UTC" if one.respondBy else ""
    reason = one.reason.replace("_", " ")
    return f"Dispute: {show_money(one.amount, one.currency)}, {reason}{charge}; answer it at Stripe{until}, or the money is lost"


EVENT: Final = EventType(
    "stripe_event",
    StripeEvent,
    counts=_counted,
    metrics=(
        EVENTS,
        PAID,
        PAID_MINOR,
        PAID_TICKETS_MINOR,
        ATTEMPTS_FAILED,
        REFUNDS,
        REFUNDED_MINOR,
        REFUNDS_FAILED,
        PAYOUTS,
    ),
    shared=True,
    doc="Something happened at Stripe.",
)
PAYMENT: Final = EventType(
    "stripe_payment",
    PaymentEnded,
    counts=_ended,
    metrics=(PAYMENTS, ATTEMPTED, FAILED_PAYMENTS),
    shared=True,
    doc="The outcome of a payment is final.",
)
DISPUTE: Final = EventType(
    "stripe_dispute",
    Dispute,
    counts=_disputed,
    metrics=(DISPUTED, DISPUTED_MINOR),
    notice="dispute",
    notice_severity=Severity.HIGH,
    notice_text=_dispute_text,
    notice_labels=lambda one: {"reason": one.reason, "currency": one.currency},
    example={
        "dispute": "dp_1001",
        "reason": "product_not_received",
        "amount": 30_000,
        "currency": "USD",
        "respondBy": "2026-12-01T12:00:00.000Z",
        "charge": "ch_1001",
    },
    shared=True,
    doc="A charge is disputed.",
)
CHARGEBACK: Final = EventType(
    "stripe_chargeback",
    Chargeback,
    counts=lambda one: [CHARGEBACKS(1)],
    metrics=(CHARGEBACKS,),
    shared=True,
    doc="Money was withdrawn for a dispute.",
)
DELIVERY: Final = EventType("stripe_delivery", Delivery, doc="An event of Stripe's came in by a webhook.")
ALL: Final = (EVENT, PAYMENT, DISPUTE, CHARGEBACK, DELIVERY)
