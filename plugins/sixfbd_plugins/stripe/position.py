"""Where the reading of Stripe's events stands: pure functions of a position and a time.

Events are listed newest first, by the second they were created in. They are read span by span; each span begins a while
before the last one ended, because an event may be listed late. What is read twice is recognised by its id. A span that
was begun goes on behind the event that was read last, so that new ones do not move its pages.
"""

from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from sixfbd.plugin import DAY, HOUR, MINUTE

LATE_S: Final = 10 * MINUTE  # an event is listed at most so much later
SPAN_S: Final = 1 * HOUR
KEPT_S: Final = 30 * DAY  # by Stripe: https://docs.stripe.com/api/events
KNOWN_S: Final = 6 * DAY  # events are recognised for 7; what was read longer ago is not read again
PAGE_SIZE: Final = 100  # the most that Stripe lists


class Span(Struct, frozen=True):
    """A part of the list that is being read: events created at `start <= created < end`, those behind the event `after`."""

    start: int
    end: int
    after: str = ""

    def params(self) -> dict[str, Any]:
        """Return how its next page is asked for."""
        asked: dict[str, Any] = {"created": {"gte": self.start, "lt": self.end}, "limit": PAGE_SIZE}
        return {**asked, "starting_after": self.after} if self.after else asked


class Position(Struct, frozen=True):
    """Events that were created before `read_until` have been read, but for those listed late."""

    read_until: int
    span: Span | None = None


def first_position(now: float, history_s: float) -> Position:
    """Return the position of who has read nothing yet."""
    return Position(int(now - history_s))


def begun(position: Position, now: float) -> Position:
    """Return the position with a span to read; without one if everything before this second was read."""
    read_until = max(position.read_until, int(now - KEPT_S))
    if position.span is not None or read_until >= int(now):
        return position
    again_s = round(LATE_S) if now - read_until < KNOWN_S else 0
    return Position(read_until, Span(read_until - again_s, min(int(now), read_until + round(SPAN_S))))


def went_on(position: Position, last: str, has_more: bool) -> Position:
    """Return the position after a page: `last` is the id of its last event."""
    span = position.span
    if span is None:
        return position
    if has_more and last:
        return replace(position, span=replace(span, after=last))
    return Position(max(position.read_until, span.end))


def started_over(position: Position) -> Position:
    """Return the position with its span begun anew: Stripe does not know the event that was read last any more."""
    return replace(position, span=None)
