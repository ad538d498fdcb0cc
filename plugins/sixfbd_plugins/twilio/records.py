"""What a record of the message log says: events, and whether anything more will become of it. Pure functions of a record.

A record is a `MessageInstance` of Twilio's SDK. Its text and its numbers are read for nothing but whose message it is.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from sixfbd.plugin import Event
from sixfbd_plugins.twilio.messages import (
    FINAL,
    OURS,
    OUTGOING,
    SETTLED,
    UNBILLED,
    currency_of,
    micros_of,
    status_events,
)
from sixfbd_plugins.twilio.texts import last_reference

DELIVERED = ("delivered", "read")


class Record(Protocol):
    """What is read of a record of the log."""

    sid: str
    status: str
    direction: str
    body: str | None
    error_code: int | None
    price: str | None
    price_unit: str | None
    num_segments: str | None
    date_created: datetime | None
    date_updated: datetime | None
    date_sent: datetime | None


class Sent(Struct, frozen=True):
    """What we sent ourselves: Twilio's sids of it, and the references that its texts end with."""

    sids: Collection[str] = ()
    references: Collection[str] = ()

    def holds(self, record: Record) -> bool:
        return record.sid in self.sids or last_reference(record.body or "") in self.references


class Reading(Struct, frozen=True):
    """What a page of the log brought. `mark` of each message: what it is known by to be as it was."""

    events: tuple[Event, ...]
    marks: dict[str, str]
    still_open: int
    delivered_at: float  # of the last delivery on it, 0 without one


def read_records(
    records: Sequence[Any], start: float, end: float, ours: Sent, known: dict[str, str], *, is_last: bool
) -> Reading:
    """Return what the records of one hour bring; those of other times are left for their own hour.

    `known` are the marks of messages as they were taken: who is the same brings nothing. `is_last`: the hour is not read
    again, so that nothing is waited for.
    """
    events: list[Event] = []
    marks: dict[str, str] = {}
    still_open, delivered_at = 0, 0.0
    for record in records:
        sent_at = _unix(record.date_sent)
        if not (record.sid and record.status and record.direction) or sent_at is None or not start <= sent_at < end:
            continue
        settled = is_last or _is_settled(record)
        still_open += not settled
        if record.status in DELIVERED and record.direction.startswith(OUTGOING):
            delivered_at = max(delivered_at, _unix(record.date_updated) or sent_at)
        mark = f"{record.status} {settled}"
        if known.get(record.sid) == mark or marks.get(record.sid) == mark:
            continue
        marks[record.sid] = mark
        events += _events(record, sent_at, OURS if ours.holds(record) else "", settled)
    return Reading(tuple(events), marks, still_open, delivered_at)


def _events(record: Record, sent_at: float, origin: str, settled: bool) -> list[Event]:
    updated_at = _unix(record.date_updated) or sent_at
    found = []
    if record.direction.startswith(OUTGOING):
        code = str(record.error_code or "")
        found += status_events(record.sid, record.status, updated_at, code=code, origin=origin, sent_at=sent_at)
    if settled:
        found.append(Event(f"{record.sid}/settled", SETTLED.name, updated_at, _settlement(record, sent_at, origin)))
    return found


def _settlement(record: Record, sent_at: float, origin: str) -> dict[str, Any]:
    segments = str(record.num_segments or "")
    data: dict[str, Any] = {
        "sid": record.sid,
        "direction": record.direction,
        "micros": micros_of(record.price) or 0,
        "currency": currency_of(record.price_unit),
        "segments": int(segments) if segments.isdecimal() else 0,
    }
    if origin:
        data["origin"] = origin
    if record.status in DELIVERED and record.direction.startswith(OUTGOING):
        created_at = _unix(record.date_created) or sent_at
        data["seconds"] = max(0.0, (_unix(record.date_updated) or sent_at) - created_at)
    return data


def _is_settled(record: Record) -> bool:
    """Tell whether nothing more will become of a message: it is at its end, and billed."""
    if record.direction.startswith(OUTGOING) and record.status not in FINAL:
        return False
    return micros_of(record.price) is not None or record.status in UNBILLED


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
