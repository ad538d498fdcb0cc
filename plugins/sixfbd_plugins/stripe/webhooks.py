"""Whether Stripe's webhooks arrive: what Stripe says of its deliveries, and events that it has and our receiver never saw.

Pure functions of what Stripe lists and of what the journal holds.
"""

from collections.abc import Collection, Sequence
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from sixfbd.plugin import DAY, Event, show_duration

MOST_MISSING: Final = 200  # that are named; a cursor has room for no more
MISSING_KEPT_S: Final = 4 * DAY  # Stripe tries for three: https://docs.stripe.com/webhooks#automatic-retries
NAMED: Final = 3


class Endpoint(Struct, frozen=True):
    """A webhook endpoint as Stripe lists it. https://docs.stripe.com/api/webhook_endpoints/object"""

    id: str
    url: str
    status: str
    enabled_events: tuple[str, ...] = ()
    created: int = 0

    def sends(self, kind: str) -> bool:
        return kind in self.enabled_events or "*" in self.enabled_events


class Missing(Struct, frozen=True):
    """An event of Stripe's that never came in."""

    id: str
    type: str
    at: float


def receiver(endpoints: Sequence[Endpoint], inbound: str) -> Endpoint | None:
    """Return the endpoint that calls one of our inbounds: its address ends in /webhooks/NAME."""
    ours = [one for one in endpoints if urlsplit(one.url).path.rstrip("/").endswith(f"/webhooks/{inbound}")]
    return min(ours, key=lambda one: (one.status != "enabled", one.created), default=None)


def missing(happened: Sequence[Event], arrived: Collection[str], endpoint: Endpoint) -> list[Missing]:
    """Return the `stripe_event`s that the endpoint sends, but that are not among the ids that arrived."""
    return [
        Missing(one.id, one.data["type"], one.timestamp)
        for one in happened
        if one.id not in arrived and one.timestamp >= endpoint.created and endpoint.sends(one.data["type"])
    ]


def named(gaps: Sequence[Missing], inbound: str, now: float) -> str:
    """Return what is missing in words, the oldest first, with type and age."""
    listed = [f"{one.id} ({one.type}, {show_duration(round(now - one.at))} old)" for one in gaps[:NAMED]]
    more = f" and {len(gaps) - NAMED} more" if len(gaps) > NAMED else ""
    return f"{len(gaps)} events never came in by inbound {inbound}: {', '.join(listed)}{more}"
