"""What became of e-mails that SendGrid took, as events that are each taken once; of our own they are receipts.

Owns the event type `email_status`. No event holds an address, an IP address, a mail program or a text.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct

from sixfbd.plugin import MINUTE, Counter, Event, EventType, MessageId, Receipt, Sample
from sixfbd_plugins.mail.sendgrid import CUSTOM_ARG

OURS: Final = "sixfbd"
"""The label `origin` of e-mails that this daemon sent; those of others have none."""
KEPT: Final = frozenset({"delivered", "bounce", "blocked", "dropped", "deferred", "spamreport"})
"""Who opened and clicked what is nobody's business. https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event"""
RETRY_AFTER_S: Final = 5 * MINUTE  # a server that blocked us may let the next one pass
LATEST: Final = 2**33  # unix seconds
_ID: Final = re.compile("[A-Za-z0-9_=+/.-]{1,100}")
_MESSAGE: Final = re.compile("[A-Za-z0-9_.:-]{1,64}")
_CODE: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_CLASS: Final = re.compile("[A-Za-z /-]{1,40}")

EMAILS = Counter("sendgrid_emails_total", "E-mails of the account that came to a status.", labels=("status", "origin"))


class EmailStatus(Struct, frozen=True, omit_defaults=True):
    """An e-mail came to a status. `message` is our own message's id, `code` and `why` say how it failed."""

    status: str
    origin: str = ""
    message: str = ""
    code: str = ""
    why: str = ""


def status_event(item: Mapping[str, Any], received_at: float) -> Event | None:
    """Return the event of one of SendGrid's, None of one that is not kept."""
    status = item.get("event")
    if status == "bounce" and item.get("type") == "blocked":
        status = "blocked"
    if not isinstance(status, str) or status not in KEPT:
        return None
    message = _matching(_MESSAGE, item.get(CUSTOM_ARG))
    data = {
        "status": status,
        "origin": OURS if message else "",
        "message": message,
        "code": _matching(_CODE, item.get("status")),
        "why": _matching(_CLASS, item.get("bounce_classification")),
    }
    at = item.get("timestamp")
    happened_at = float(at) if isinstance(at, int | float) and 0 < at < LATEST else received_at
    identity = _matching(_ID, item.get("sg_event_id")) or _hash(item)
    return Event(identity, STATUS.name, happened_at, {name: value for name, value in data.items() if value})


def _matching(pattern: re.Pattern[str], value: object) -> str:
    return value if isinstance(value, str) and pattern.fullmatch(value) else ""


def _hash(item: Mapping[str, Any]) -> str:
    """Return a name for an event that has none: the same when it is sent again."""
    return blake2b(msgspec.json.encode(item, order="deterministic"), digest_size=16).hexdigest()


def _receipt(status: EmailStatus) -> Receipt | None:
    """Return what a status says of a message of our own, None if nothing, or of another's."""
    if not status.message:
        return None
    message = MessageId(status.message)
    if status.status == "delivered":
        return Receipt(state="delivered", message_id=message)
    if status.status not in _FAILED:
        return None
    why = ", ".join(part for part in (status.code, status.why) if part)
    return Receipt(
        state="failed",
        message_id=message,
        detail=_FAILED[status.status] + (f" ({why})" if why else ""),
        temporary=status.status == "blocked",
        retry_after_s=RETRY_AFTER_S if status.status == "blocked" else None,
    )


def _counted(status: EmailStatus) -> Sequence[Sample]:
    return [EMAILS(1, status=status.status if status.status in KEPT else "other", origin=status.origin)]


_FAILED: Final = {
    "bounce": "bounced: the receiver's server refused it for good",
    "blocked": "blocked: the receiver's server refused it for now",
    "dropped": "dropped: SendGrid did not send it, as the address bounced or unsubscribed before",
}

STATUS: Final = EventType(
    "email_status",
    EmailStatus,
    counts=_counted,
    metrics=(EMAILS,),
    receipt=_receipt,
    doc="An e-mail that SendGrid took came to a status.",
)
