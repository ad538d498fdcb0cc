"""Where the reading of the message log stands: pure functions of a position and a time; the position is a check's cursor.

The log is read by the hour of `date_sent`. An hour is read again and again until nothing more will become of any of its
messages, or for 48 h: at every run until it is an hour old, by when every message of it is listed, then less and less
often. What is read twice is recognised as events are, by id; so a position may be a step behind and never loses anything.
A thousand messages or a hundred thousand: a position has a few hours in it, and the page that is read next.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sixfbd.plugin import DAY, HOUR, MINUTE

WATCHED_S: Final = 48 * HOUR
LISTED_S: Final = 1 * HOUR  # after its end an hour may still get messages: of those just sent, listed late
LEAST_GAP_S: Final = 5 * MINUTE
MOST_GAP_S: Final = 2 * HOUR
AGE_A_GAP: Final = 4  # an hour that is so old is read again after this part of its age
KNOWN_S: Final = 6 * DAY  # events are recognised for 7; what was read before and is older is not read again
CAUGHT_UP_S: Final = 7 * DAY  # after a longer pause no more than this is read


class Hour(Struct, frozen=True):
    """An hour of the log that is watched: its number since 1970, when it is due, and whether it was read before."""

    number: int
    due_at: float
    read_before: bool = False

    @property
    def start(self) -> float:
        return self.number * HOUR

    @property
    def end(self) -> float:
        return (self.number + 1) * HOUR


class Page(Struct, frozen=True):
    """The page of an hour that is read next. `open`: messages before it of which something will still become."""

    hour: int
    number: int = 0
    token: str = ""
    open: int = 0


class Position(Struct, frozen=True):
    """How far the log was read. `next_hour` is the first that is not watched yet; `begun_at` is when this run began."""

    hours: tuple[Hour, ...]
    next_hour: int
    begun_at: float = 0.0
    page: Page | None = None
    read_until: float = 0.0  # everything that was sent before was seen at least once


def first_position(now: float, history_s: float) -> Position:
    """Return the position of a check that has read nothing yet."""
    first = int((now - history_s) // HOUR)
    return Position((), first, read_until=first * HOUR)


def begun(position: Position, now: float) -> Position:
    """Return the position at the start of a run: the hours that have begun meanwhile are watched too."""
    current = int(now // HOUR)
    first = max(position.next_hour, int((now - CAUGHT_UP_S) // HOUR))
    fresh = tuple(Hour(number, 0.0) for number in range(first, current + 1))
    kept = tuple(hour for hour in position.hours if not hour.read_before or now - hour.end < KNOWN_S)
    page = position.page if position.page is not None and any(h.number == position.page.hour for h in kept) else None
    return replace(
        position, hours=kept + fresh, next_hour=max(position.next_hour, current + 1), begun_at=now, page=page
    )


def next_page(position: Position) -> Page | None:
    """Return what is to be read now: the page that is due, of the newest hour first; None if nothing is."""
    if position.page is not None:
        return position.page
    due = [hour.number for hour in position.hours if hour.due_at <= position.begun_at]
    return Page(max(due)) if due else None


def is_last_read(page: Page, now: float) -> bool:
    """Tell whether an hour is watched no longer than this."""
    return now - (page.hour + 1) * HOUR >= WATCHED_S


def went_on(position: Position, page: Page, still_open: int, token: str, now: float) -> Position:
    """Return the position after a page. `still_open`: its messages that may change; `token`: of the next page, "" if none."""
    is_open = page.open + still_open
    if token:
        return replace(position, page=Page(page.hour, page.number + 1, token, is_open))
    hours = tuple(
        again
        for hour in position.hours
        if (again := _read(hour, is_open, now) if hour.number == page.hour else hour) is not None
    )
    unread = [hour.start for hour in hours if not hour.read_before]
    return replace(position, hours=hours, page=None, read_until=min(unread, default=position.begun_at))


def started_over(position: Position) -> Position:
    """Return the position with the hour that is being read begun anew: Twilio does not know the page any more."""
    return replace(position, page=None)


def _read(hour: Hour, is_open: int, now: float) -> Hour | None:
    """Return an hour that was read whole, with when it is due next; None if it need not be read again."""
    age = now - hour.end
    if age >= WATCHED_S or (age >= LISTED_S and not is_open):
        return None
    if age < LISTED_S:
        return Hour(hour.number, now + 1.0, read_before=True)  # due in the next run, not in this one again
    gap = min(max(age / AGE_A_GAP, LEAST_GAP_S), MOST_GAP_S)
    return Hour(hour.number, min(now + gap, hour.end + WATCHED_S), read_before=True)
