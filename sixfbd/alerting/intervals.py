"""Time intervals and maintenance windows: sets of times by the calendar of a place. Pure but for the machine's time zones.

Semantics and keys are Alertmanager's (https://prometheus.io/docs/alerting/latest/configuration/#time_interval-0): what is
left out matches always, ranges include both ends, a time range excludes its end. Local time is what the clocks of the place
show, so that an hour that is skipped in spring never comes, and one that is repeated in autumn comes twice.
"""

import calendar
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import Struct

from sixfbd.alerting.routes import Matcher, parse_matchers
from sixfbd.config.tables import IntervalTable, MaintenanceTable, TimeIntervalTable

DAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS: Final = tuple(name.lower() for name in calendar.month_name[1:])
MINUTES: Final = 24 * 60
LOOKED_AHEAD_D: Final = 2  # days; every midnight is a boundary
HOUR_S: Final = 3600.0


class Range(Struct, frozen=True):
    """From `first` to `last`, both included."""

    first: int
    last: int

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.first <= number <= self.last


class Part(Struct, frozen=True, kw_only=True):
    """One entry of an interval: all that it names must match. `times` in minutes since midnight, the last one excluded."""

    zone: ZoneInfo
    times: tuple[Range, ...] = ()
    weekdays: tuple[Range, ...] = ()  # 0 is Sunday
    days_of_month: tuple[Range, ...] = ()  # -1 is the last day
    months: tuple[Range, ...] = ()
    years: tuple[Range, ...] = ()

    def contains(self, at: float) -> bool:
        local = datetime.fromtimestamp(at, self.zone)
        return (
            _any(self.times, local.hour * 60 + local.minute)
            and _any(self.weekdays, local.isoweekday() % 7)
            and _any(self.months, local.month)
            and _any(self.years, local.year)
            and (not self.days_of_month or any(_holds_day(one, local.date()) for one in self.days_of_month))
        )

    def edges(self, at: float) -> Iterator[float]:
        """Yield times around and after `at` at which it may begin or end."""
        first = datetime.fromtimestamp(at, self.zone).date()
        minutes = {0, *(edge for one in self.times for edge in (one.first, one.last + 1))}
        for ahead in range(LOOKED_AHEAD_D + 1):
            midnight = datetime.combine(first + timedelta(days=ahead), datetime.min.time())
            for minute in minutes:
                for fold in (0, 1):
                    yield (midnight + timedelta(minutes=minute)).replace(tzinfo=self.zone, fold=fold).timestamp()
        yield from self._changes_of_clocks(at)

    def _changes_of_clocks(self, at: float) -> Iterator[float]:
        for hour in range(24 * LOOKED_AHEAD_D):
            before, after = at + hour * HOUR_S, at + (hour + 1) * HOUR_S
            if self._offset(before) != self._offset(after):
                yield self._change_between(int(before), int(after) + 1)

    def _change_between(self, before: int, after: int) -> float:
        old = self._offset(before)
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if self._offset(middle) == old else (before, middle)
        return float(after)

    def _offset(self, at: float) -> timedelta | None:
        return datetime.fromtimestamp(at, self.zone).utcoffset()


def _any(ranges: tuple[Range, ...], number: int) -> bool:
    return not ranges or any(number in one for one in ranges)


def _holds_day(days: Range, day: date) -> bool:
    length = calendar.monthrange(day.year, day.month)[1]
    first, last = (length + edge + 1 if edge < 0 else edge for edge in (days.first, days.last))
    return max(1, first) <= day.day <= min(length, last)


class TimeInterval:
    """One `[time_intervals.NAME]`: whenever one of its parts is."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)
        self._asked_at = self._answer = float("nan")  # between the two nothing changes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeInterval) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)

    def contains(self, at: float) -> bool:
        return any(part.contains(at) for part in self.parts)

    def next_change(self, at: float) -> float | None:
        """Return the earliest later time at which `contains` may say something else."""
        if not self._asked_at <= at < self._answer:
            self._answer = min(edge for part in self.parts for edge in part.edges(at) if edge > at)
            self._asked_at = at
        return self._answer


class Once(Struct, frozen=True):
    """From one time to another."""

    starts_at: float
    ends_at: float

    def contains(self, at: float) -> bool:
        return self.starts_at <= at < self.ends_at

    def next_change(self, at: float) -> float | None:
        return next((edge for edge in (self.starts_at, self.ends_at) if edge > at), None)


class Window(Struct, frozen=True):
    """One `[[maintenance]]`: whom it holds, and when."""

    name: str
    comment: str
    matchers: tuple[Matcher, ...]
    when: TimeInterval | Once

    def contains(self, at: float) -> bool:
        return self.when.contains(at)

    def next_change(self, at: float) -> float | None:
        return self.when.next_change(at)


# ---- from the configuration --------------------------------------------------------------------------------------------


def compile_interval(table: TimeIntervalTable, zone: str) -> TimeInterval:
    """Return the interval of a table; `zone` is the place where a part names none. Raises ValueError: what; the mend."""
    return TimeInterval(_part(part, zone) for part in table.intervals)


def compile_window(
    table: MaintenanceTable, intervals: Callable[[str], TimeInterval | None], zone: str, path: str
) -> Window:
    """Return the window of a table; `intervals` gives those that it may name. Raises ValueError: what; the mend."""
    matchers = parse_matchers(table.matchers, f"{path}.matchers")
    given = [key for key, value in (("during", table.during), ("from", table.from_), ("until", table.until)) if value]
    if given not in (["during"], ["from", "until"]):
        raise ValueError("has either during, or from and until; name a time interval, or write both times")
    if table.during:
        when: TimeInterval | Once | None = intervals(table.during)
        if when is None:
            raise ValueError(f'during: there is no [time_intervals."{table.during}"]; add it')
    else:
        when = Once(parse_moment(table.from_, zone), parse_moment(table.until, zone))
        if when.ends_at <= when.starts_at:
            raise ValueError("until is not later than from; swap them")
    return Window(table.name, table.comment, matchers, when)


def parse_moment(text: str, zone: str) -> float:
    """Return unix seconds of `2026-11-23T21:00:00Z`, or of a time without a zone, which is the place's. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f'"{text}" is not a time; write "2026-11-23T21:00:00" or "2026-11-23T21:00:00Z"') from None
    return moment.replace(tzinfo=moment.tzinfo or zone_of(zone)).timestamp()


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database. Raises ValueError: what; the mend."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f'"{name}" is not a time zone; write one such as "America/Chicago"') from None


def _part(table: IntervalTable, zone: str) -> Part:
    return Part(
        zone=zone_of(table.location or zone),
        times=tuple(_times(one.start_time, one.end_time) for one in table.times),
        weekdays=tuple(_named(text, DAYS, 0, "weekdays", "monday:friday") for text in table.weekdays),
        days_of_month=tuple(_days(text) for text in table.days_of_month),
        months=tuple(_named(text, MONTHS, 1, "months", "january:march") for text in table.months),
        years=tuple(_numbers(text, "years", "2026:2027", 1970, 9999) for text in table.years),
    )


def _times(start: str, end: str) -> Range:
    first, last = _minute(start), _minute(end)
    if last <= first:
        mend = f'write two: "{start}" to "24:00", and "00:00" to "{end}"'
        raise ValueError(f'end_time "{end}" is not later than start_time "{start}"; {mend}')
    return Range(first, last - 1)


def _minute(text: str) -> int:
    hours, colon, minutes = text.partition(":")
    if (
        colon
        and len(minutes) == 2
        and hours.isdecimal()
        and minutes.isdecimal()
        and hours.isascii()
        and minutes.isascii()
    ):
        minute = int(hours) * 60 + int(minutes)
        if int(minutes) < 60 and minute <= MINUTES:
            return minute
    raise ValueError(f'"{text}" is not a time of the day; write "09:00", or "24:00" for the end of the day')


def _named(text: str, names: tuple[str, ...], first: int, key: str, example: str) -> Range:
    """A range of names, or of numbers that stand for them."""

    def number(word: str) -> int:
        word = word.strip().lower()
        if word in names:
            return names.index(word) + first
        if key == "months" and word.isascii() and word.isdecimal() and 1 <= int(word) <= len(names):
            return int(word)
        raise ValueError(f'{key}: "{text}" is none of {names[0]} to {names[-1]}; write "{example}"')

    return _ordered(text, number, key, example)


def _days(text: str) -> Range:
    days = _numbers(text, "days_of_month", "1:5", -31, 31)
    if 0 in (days.first, days.last):
        raise ValueError(f'days_of_month: "{text}" has a day 0; the first is 1, the last -1')
    return days


def _numbers(text: str, key: str, example: str, least: int, most: int) -> Range:
    def number(word: str) -> int:
        try:
            found = int(word)
        except ValueError:
            found = least - 1
        if not least <= found <= most:
            raise ValueError(f'{key}: "{text}" is not within {least} to {most}; write "{example}"')
        return found

    return _ordered(text, number, key, example)


def _ordered(text: str, number: Callable[[str], int], key: str, example: str) -> Range:
    first, colon, last = text.partition(":")
    made = Range(number(first), number(last if colon else first))
    if made.first > made.last and (made.first > 0) == (made.last > 0):
        raise ValueError(f'{key}: "{text}" ends before it begins; write it as two, such as "{example}"')
    return made
