"""Reads the parameters of requests: numbers, times, durations, lists; a bad one is named with its mend. No I/O."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl

from quart import request
from werkzeug.datastructures import MultiDict

from sixfbd.http.answers import Refusal
from sixfbd.http.asked import Body
from sixfbd.quantities import Duration

FORM: Final = "application/x-www-form-urlencoded"
LATEST: Final = 253_402_300_799.0  # the end of the year 9999, the last one that RFC 3339 can write
MAX_FIELDS: Final = 1000


async def whole_body() -> bytes:
    """Return the request's body; the app has waited for it already, within its limits of size and time."""
    body = request.body.whole if isinstance(request.body, Body) else None
    return await request.get_data(cache=True, as_text=False, parse_form_data=False) if body is None else body


async def merged() -> "MultiDict[str, str]":
    """Return the query string's parameters and a POSTed form's, as Prometheus' API takes either."""
    values: MultiDict[str, str] = MultiDict(request.args)
    if request.method == "POST":
        body = await whole_body()
        if body and (request.mimetype or FORM) != FORM:
            raise Refusal(415, "unsupported_media_type", f"the body is {request.mimetype}; send {FORM}")
        try:
            fields = parse_qsl(body.decode("utf-8"), errors="strict", keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except UnicodeDecodeError:
            raise  # the app says which byte
        except ValueError as error:
            raise Refusal(400, "bad_request", f"the form cannot be read: {error}") from error
        for name, value in fields:
            values.add(name, value)
    return values


def text(values: "MultiDict[str, str]", name: str) -> str:
    """Return a parameter that must be there."""
    value = values.get(name, "")
    if not value:
        raise bad(name, "is missing")
    return value


def integer(values: "MultiDict[str, str]", name: str, default: int | None, low: int, high: int) -> int | None:
    """Return a whole number between `low` and `high`, `default` if the parameter is not there."""
    value = values.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):
        raise bad(name, f"is not a whole number from {low} to {high}: {value!r:.60}")
    return int(value)


def moment(values: "MultiDict[str, str]", name: str, default: float | None) -> float:
    """Return a time in unix seconds, written as such or in RFC 3339; `default` None: it must be there."""
    value = values.get(name)
    if not value:
        if default is None:
            raise bad(name, "is missing")
        return default
    at = read_time(value)
    if at is None:
        raise bad(name, f"is not a time; write 2026-11-23T21:07:30Z or unix seconds, not {value!r:.60}")
    return at


def span(values: "MultiDict[str, str]", name: str) -> float:
    """Return a duration in seconds that must be there and positive, written "15s" or as a number of seconds."""
    value = text(values, name)
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = float(Duration.parse(value))
        except ValueError:
            seconds = math.nan
    if not 0 < seconds < LATEST:
        raise bad(name, f'is not a duration above zero; write "15s" or seconds, not {value!r:.60}')
    return seconds


def listed(values: "MultiDict[str, str]", name: str) -> Sequence[str]:
    """Return a list given as repeated parameters, or as one with commas, without repeats."""
    found = (part.strip() for value in values.getlist(name) for part in value.split(","))
    return tuple(dict.fromkeys(part for part in found if part))


def read_time(value: object) -> float | None:
    """Return unix seconds from a number or a text in RFC 3339 (without a zone: UTC); None if it is neither."""
    at: float | None = None
    if isinstance(value, str):
        try:
            at = float(value)
        except ValueError:
            at = _read_rfc3339(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        at = float(value)
    return at if at is not None and 0 <= at <= LATEST else None


def _read_rfc3339(value: str) -> float | None:
    try:
        moment_read = datetime.fromisoformat(value)
        return moment_read.replace(tzinfo=moment_read.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def bad(name: str, what: str) -> Refusal:
    """Return the refusal of one parameter."""
    return Refusal(400, "bad_parameter", f"parameter {name!r} {what}")
