"""Forms of log lines: what a line says of a request. Pure functions of a line; none takes longer than the line is long.

`combined` is that of nginx and Apache (https://httpd.apache.org/docs/current/logs.html#combined), with what its formats
put before or after; `json` an object a line; a pattern of one's own is RE2, which knows no backtracking.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from sixfbd_plugins.checks.regex import compile_regex

UNITS: Final = {"s": 1000.0, "ms": 1.0, "us": 0.001}
"""Milliseconds of what durations are written in."""
GROUPS: Final = ("time", "method", "path", "status", "duration")
OLDEST_S: Final = 946_684_800.0  # the year 2000: what is smaller is no time
NEEDED: Final = ("path", "status")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_QUOTED: Final = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
# Anchored, and each part ends where the next one begins: there is nothing that could be tried twice.
_COMBINED: Final = re.compile(
    rb'[^"\[]*\[([^\]"]{1,64})\] (' + _QUOTED + rb") (\d{3}) (?:\d+|-)(?: " + _QUOTED + rb" " + _QUOTED
    + rb')?(?: "?(\d{1,15}(?:\.\d{1,9})?)"?(?= |$))?'
)  # fmt: skip
_CLF_TIME: Final = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_NUMBER: Final = re.compile(r"\d{1,19}(?:\.\d{1,9})?")


class Entry(NamedTuple):
    """A request as a line tells of it. `time` in unix seconds, `duration` in milliseconds, None where it says none."""

    time: float | None
    method: str
    path: str
    status: int
    duration: float | None


class Other(NamedTuple):
    """A line that could be read and is of no request."""

    time: float | None


Read: TypeAlias = Callable[[bytes], Entry | Other | None]
"""Reads a line; None if it has not the form."""


def text() -> Read:
    """Lines of any form: none is of a request."""
    anything = Other(None)
    return lambda line: anything


def combined(unit: str) -> Read:
    """Lines of `combined`, `common` and `vhost_combined`. With a unit, a number behind them is the duration."""
    scale, zone = UNITS.get(unit), UTC

    def read(line: bytes) -> Entry | None:
        match = _COMBINED.match(line)
        if match is None:
            return None
        time, request, status, duration = match.groups()
        method, path = _request(request)
        at = _time_of(time.decode("ascii", "replace"), zone)
        if at is None or not 100 <= int(status) <= 599:
            return None
        return Entry(at, method, path, int(status), float(duration) * scale if scale and duration else None)

    return read


def json(fields: Mapping[str, str], unit: str, zone: tzinfo) -> Read:
    """Lines that are JSON objects, by the names of their fields (`a.b`: the field b of a). Without path or status: Other.
    Without a unit no duration is read."""
    scale, decode = UNITS.get(unit), msgspec.json.Decoder().decode
    where = {field: (name, name.split(".")) for field, name in fields.items()}

    def read(line: bytes) -> Entry | Other | None:
        try:
            found = decode(line)
        except (msgspec.DecodeError, RecursionError):
            return None
        if not isinstance(found, dict):
            return None
        time, method, path, status, duration = (_field(found, *where[field]) for field in GROUPS)
        if path is None or status is None:
            return Other(_time_of(str(time), zone) if time is not None else None)
        return _entry(time, method, path, status, duration, scale, zone)

    return read


def pattern(expression: str, unit: str, zone: tzinfo) -> Read:
    """Lines that an RE2 expression matches from their beginning, by its named groups. Raises ValueError for a wrong one."""
    groups = pattern_groups(expression)
    compiled, scale = compile_regex(expression.encode()), UNITS.get(unit)
    places = [groups.get(name, 0) - 1 for name in GROUPS]

    def read(line: bytes) -> Entry | None:
        match = compiled.match(line)
        if match is None:
            return None
        found = match.groups()
        parts = [found[place].decode("utf-8", "replace") if place >= 0 and found[place] else None for place in places]
        time, method, path, status, duration = parts
        return _entry(time, method, path, status, duration, scale, zone)

    return read


def pattern_groups(expression: str) -> Mapping[str, int]:
    """Return the groups of an expression by name. Raises ValueError if it is wrong, or has not those that are needed."""
    groups: Mapping[str, int] = compile_regex(expression).groupindex
    if unknown := sorted(set(groups) - set(GROUPS)):
        raise ValueError(f"has the group {unknown[0]!r}; named groups are {', '.join(GROUPS)}")
    for name in NEEDED:
        if name not in groups:
            raise ValueError(f"has no group {name!r}; write (?P<{name}>...)")
    return groups


def _entry(
    time: Any, method: Any, path: Any, status: Any, duration: Any, scale: float | None, zone: tzinfo
) -> Entry | None:
    """Return what was found as a request; None if it cannot be one."""
    at = None if time is None else _time_of(str(time), zone)
    try:
        code = int(status)
        took = None if scale is None or duration in (None, "", "-") else float(duration) * scale
    except (TypeError, ValueError, OverflowError):
        return None
    if not 100 <= code <= 599 or (time is not None and at is None) or (took is not None and not 0 <= took < 1e12):
        return None
    return Entry(at, str(method or "-"), str(path) or "-", code, took)


def _field(found: dict[str, Any], name: str, parts: list[str]) -> Any:
    value = found.get(name)
    if value is not None or len(parts) == 1:
        return value
    inner: Any = found
    for part in parts:
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner


@lru_cache(maxsize=4096)
def _request(quoted: bytes) -> tuple[str, str]:
    """Return method and path of a request line in quotes; a server writes "-" or what came if it was none."""
    parts = quoted[1:-1].decode("utf-8", "replace").split(" ")
    is_one = len(parts) in (2, 3) and parts[0].isalpha() and parts[1]
    return (parts[0], parts[1]) if is_one else ("-", "-")


@lru_cache(maxsize=1024)
def _time_of(written: str, zone: tzinfo) -> float | None:
    """Return a time in unix seconds: as servers write it, ISO 8601, or seconds (milli-, micro-, nanoseconds) since 1970."""
    try:
        if clf := _CLF_TIME.fullmatch(written):
            day, month, year, hour, minute, second, sign, hours, minutes = clf.groups()
            ahead = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
            numbers = int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), min(59, int(second))
            return datetime(*numbers, tzinfo=timezone(ahead)).timestamp()
        if _NUMBER.fullmatch(written):
            number = float(written)
            while number >= 1e11:
                number /= 1000
            return number if number >= OLDEST_S else None
        at = datetime.fromisoformat(written.replace(",", "."))
        return (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return None
