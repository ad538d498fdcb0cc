"""Who is on call: receivers by turns, handed over by the clock of a place. Pure but for the machine's time zones.

A shift is counted in local time, so that a hand-over at 09:00 stays at 09:00 when clocks are changed. Nothing happens at a
hand-over by itself: what begins, is repeated or escalated after it goes to who is on call then, an end to whoever was told.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct

from sixfbd.alerting.intervals import parse_moment, zone_of
from sixfbd.config.tables import OnCallTable, OverrideTable

LEAST_SHIFT_S: Final = 2 * 3600.0  # a shorter one would fall out when clocks are set forward


class StandIn(Struct, frozen=True, order=True):
    """Somebody who is on call for a while, whoever's turn it is."""

    starts_at: float
    ends_at: float
    member: str


class Turns(Struct, frozen=True, kw_only=True):
    """One `[oncall.NAME]`: `start` is the local time, without a zone, at which the first member's first shift begins."""

    members: tuple[str, ...]
    start: datetime
    shift: timedelta
    zone: ZoneInfo
    stand_ins: tuple[StandIn, ...] = ()

    def on_call(self, at: float) -> str:
        """Return the receiver whose turn it is."""
        for one in self.stand_ins:
            if one.starts_at <= at < one.ends_at:
                return one.member
        return self.members[self._number(at) % len(self.members)]

    def until(self, at: float) -> float:
        """Return the earliest later time at which it may be another one's turn."""
        edges = [edge for one in self.stand_ins for edge in (one.starts_at, one.ends_at) if edge > at]
        return min([*edges, self._begin(self._number(at) + 1)])

    def _number(self, at: float) -> int:
        """Return which shift a time is in, the first one is 0."""
        local = datetime.fromtimestamp(at, self.zone).replace(tzinfo=None)
        number = (local - self.start) // self.shift
        while self._begin(number + 1) <= at:
            number += 1
        while self._begin(number) > at:  # an hour that comes twice
            number -= 1
        return number

    def _begin(self, number: int) -> float:
        return (self.start + number * self.shift).replace(tzinfo=self.zone).timestamp()


def compile_rotation(table: OnCallTable, zone: str) -> Turns:
    """Return the rotation of a table; `zone` is the place if it names none. Raises ValueError: what; the mend."""
    place = zone_of(table.location or zone)
    if table.shift < LEAST_SHIFT_S:
        raise ValueError(f'shift: "{table.shift}" is too short; write "2h" or more')
    return Turns(
        members=table.members,
        start=_start(table.start, place),
        shift=timedelta(seconds=float(table.shift)),
        zone=place,
        stand_ins=_stand_ins(table.overrides, table.location or zone),
    )


def _start(text: str, zone: ZoneInfo) -> datetime:
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'start: "{text}" is not a time; write "2026-01-05T09:00"') from None
    if start.tzinfo is not None:
        return start.astimezone(zone).replace(tzinfo=None)
    there = start.replace(tzinfo=zone)
    if datetime.fromtimestamp(there.timestamp(), zone).replace(tzinfo=None) != start:
        raise ValueError(f'start: "{text}" never came in {zone.key}; clocks were set forward then, write an hour later')
    return start


def _stand_ins(tables: Iterable[OverrideTable], zone: str) -> tuple[StandIn, ...]:
    """Overrides by time. Raises ValueError for one that ends before it begins, and for two at the same time."""
    made: list[StandIn] = []
    for place, table in enumerate(tables):
        one = StandIn(parse_moment(table.from_, zone), parse_moment(table.until, zone), table.member)
        if one.ends_at <= one.starts_at:
            raise ValueError(f"overrides[{place}]: until is not later than from; swap them")
        made.append(one)
    made.sort()
    for before, after in pairwise(made):
        if after.starts_at < before.ends_at:
            raise ValueError(
                f"overrides of {before.member} and {after.member} overlap; let one end as the other begins"
            )
    return tuple(made)
