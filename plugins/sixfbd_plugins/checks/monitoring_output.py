"""What a Monitoring plugin (Nagios, Icinga, Monitoring Plugins) writes: its line for people, and performance data. Pure.

https://www.monitoring-plugins.org/doc/guidelines.html#AEN33 and #AEN201. Times are returned in seconds, sizes in bytes
(KB are 1000, KiB 1024, as in Icinga 2), percentages as ratios; other units as they are.
"""

import math
import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

MOST_PERFDATA: Final = 200
MOST_LABEL: Final = 200  # characters
LIMITS: Final = ("warning", "critical", "min", "max")

_NUMBER: Final = re.compile(r"([-+]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][-+]?\d+)?)([^\d\s;]*)")
_TIMES: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PREFIXES: Final = ("", "k", "m", "g", "t", "p", "e")
_SIZES: Final = {f"{prefix}b": 1000.0**power for power, prefix in enumerate(_PREFIXES)} | {
    f"{prefix}ib": 1024.0**power for power, prefix in enumerate(_PREFIXES) if prefix
}


class Measured(Struct, frozen=True):
    """One item of performance data, in base units; `limits` are (name, value) of those of LIMITS that are one number."""

    label: str
    value: float
    unit: str = ""
    limits: tuple[tuple[str, float], ...] = ()


class Output(Struct, frozen=True):
    """The first line for people, the measured items, and those that could not be read."""

    text: str
    measured: tuple[Measured, ...] = ()
    unread: tuple[str, ...] = ()


def parse_output(written: str) -> Output:
    """Return what a plugin wrote: text, "|" and performance data; further lines of text, and behind a second "|" of data."""
    first, *rest = written.strip("\r\n").split("\n")
    text, _, data = first.partition("|")
    _, _, more = "\n".join(rest).partition("|")
    measured, unread = parse_perfdata(" ".join(f"{data} {more}".split()))
    return Output(text.strip(), measured, unread)


def parse_perfdata(data: str) -> tuple[tuple[Measured, ...], tuple[str, ...]]:
    """Return the items, each label once, at most MOST_PERFDATA, and what could not be read, at most as many.

    "U" is the word for a value that is not known: such an item is left out.
    """
    measured: dict[str, Measured] = {}
    unread: list[str] = []
    for label, written in _items(data):
        value, *limits = written.split(";")
        if label and value == "U":
            continue
        read = _measured(label, value, limits)
        if read is None or len(measured) == MOST_PERFDATA:
            unread.append(f"{label}={written}" if label else written)
        else:
            measured.setdefault(label, read)
    return tuple(measured.values()), tuple(unread[:MOST_PERFDATA])


def _items(data: str) -> Iterator[tuple[str, str]]:
    """Yield label and value of each item; of what is none "" and its text. A label with spaces is quoted, a quote doubled."""
    rest = data.strip()
    while rest:
        if not rest.startswith("'"):
            word, _, rest = rest.partition(" ")
            label, equals, value = word.partition("=")
            yield (label[:MOST_LABEL], value) if equals else ("", word)
        else:
            end = rest.find("'", 1)
            while end >= 0 and rest.startswith("''", end):
                end = rest.find("'", end + 2)
            if end < 0 or not rest.startswith("=", end + 1):
                yield "", rest[:MOST_LABEL]
                return
            label = rest[1:end].replace("''", "'").strip()
            value, _, rest = rest[end + 2 :].partition(" ")
            yield label[:MOST_LABEL], value
        rest = rest.lstrip()


def _measured(label: str, text: str, limits: list[str]) -> Measured | None:
    match = _NUMBER.fullmatch(text)
    if match is None or not label:
        return None
    unit, factor = _base(match[2])
    value = _number(match[1]) * factor
    if not math.isfinite(value):
        return None
    found = tuple((name, limit * factor) for name, limit in _limits(limits))
    return Measured(label, value, unit, found)


def _base(unit: str) -> tuple[str, float]:
    """Return the base unit, and what a number is to be multiplied with."""
    if unit == "%":
        return "ratio", 0.01
    if unit == "c":
        return "count", 1.0
    if unit in _TIMES:
        return "seconds", _TIMES[unit]
    if unit.lower() in _SIZES:
        return "bytes", _SIZES[unit.lower()]
    return unit[:MOST_LABEL], 1.0


def _limits(texts: list[str]) -> Iterator[tuple[str, float]]:
    """Yield those limits that are a number, or a range from 0 or without an end to one: "10", "0:10", "~:10"."""
    for name, text in zip(LIMITS, texts, strict=False):
        bare = text.removeprefix("0:").removeprefix("~:")
        match = _NUMBER.fullmatch(bare)
        if match is not None and math.isfinite(limit := _number(match[1])):
            yield name, limit


def _number(text: str) -> float:
    return float(text.replace(",", "."))
