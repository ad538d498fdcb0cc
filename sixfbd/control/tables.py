"""Text for people's terminals: columns, ages, numbers, colours by status. Pure: values to lines; who prints is not known here.

Texts that others wrote (summaries, labels) lose their control characters, so that none can steer a terminal.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import click

from sixfbd.model import Severity
from sixfbd.quantities import show_duration

COLORS: Final = {
    "healthy": "green",
    "running": "green",
    "delivered": "green",
    "accepted": "green",
    "resolved": "green",
    "degraded": "yellow",
    "pending": "yellow",
    "unknown": "yellow",
    "suppressed": "bright_black",
    "paused": "bright_black",
    "unhealthy": "red",
    "firing": "red",
    "dead": "red",
    Severity.LOW: "cyan",
    Severity.MEDIUM: "yellow",
    Severity.HIGH: "red",
    Severity.CRITICAL: "bright_red",
}
SPARKS: Final = "▁▂▃▄▅▆▇█"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], none: str = "none") -> list[str]:
    """Return lines in columns, heads first; `none` alone where there are no rows. The last column is not padded."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        return [none]
    widths = [max(map(text_width, column)) for column in zip(heads, *cells, strict=True)]
    head = _row([head.upper() for head in heads], widths)
    return [click.style(head, bold=True), *(_row(row, widths) for row in cells)]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [_colored(cell) + " " * (width - text_width(cell)) for cell, width in zip(cells, widths, strict=True)]
    return "  ".join([*padded[:-1], _colored(cells[-1])]).rstrip()


def facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return `name  value` lines with the values in one column."""
    shown = [(name, clean(value)) for name, value in pairs]
    width = max((text_width(name) for name, _ in shown), default=0)
    return [f"{name:<{width}}  {_colored(value)}" for name, value in shown]


def clean(text: str) -> str:
    """Return the text on one line and without control characters."""
    return "".join(" " if char in "\n\t" else char for char in text if char in "\n\t" or char.isprintable())


def text_width(text: str) -> int:
    """Return the columns that a terminal gives the text: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def colored(text: str, kind: str | None = None) -> str:
    """Return the text in the colour of a status, state or severity (`kind`, or the text itself)."""
    return click.style(text, fg=COLORS.get(kind or text))


def _colored(cell: str) -> str:
    return colored(cell) if cell in COLORS else cell


def count_line(counts: dict[str, int]) -> str:
    """Return "3 healthy, 1 degraded", zeros left out; "none" without any."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def time(at: float | None) -> str:
    """Return a time as `2026-11-23 21:07:30Z`, "-" for None."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def clock_time(at: float) -> str:
    """Return a time of day with milliseconds, `21:07:30.123`, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]


def age(at: float | None, now: float) -> str:
    """Return how long ago (or in how long) a time is: "12s ago", "in 3m", "-" for None."""
    if at is None:
        return "-"
    seconds = now - at
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def span(seconds: float) -> str:
    """Return a duration of at most two units, and of one below a minute: "12s", "1m30s", "3h5m", "40ms"."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    grain = 3600 if seconds >= 86_400 else 60 if seconds >= 3600 else 1
    return show_duration(seconds // grain * grain)


def size(size_bytes: float) -> str:
    """Return bytes as "3.2 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def value(number: float | str | None) -> str:
    """Return a sample's value: whole numbers whole, others with ten digits, "-" for None."""
    if number is None or isinstance(number, str):
        return number or "-"
    if number == int(number) and abs(number) < 1e15:
        return str(int(number))
    return f"{number:.10g}"


def labels(pairs: dict[str, str]) -> str:
    """Return a label set as PromQL writes it: `up{job="shop"}`."""
    inside = ", ".join(f'{name}="{text}"' for name, text in sorted(pairs.items()) if name != "__name__")
    name = pairs.get("__name__", "")
    return f"{name}{{{inside}}}" if inside or not name else name


def spark(numbers: Sequence[float], width: int = 40) -> str:
    """Return a small chart of the numbers, at most `width` characters, each the mean of its share; gaps are not drawn."""
    finite = [number for number in numbers if math.isfinite(number)]
    if not finite:
        return ""
    count = min(width, len(finite))
    shares = [finite[i * len(finite) // count : (i + 1) * len(finite) // count] for i in range(count)]
    means = [math.fsum(share) / len(share) for share in shares]
    low, high = min(means), max(means)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((mean - low) * scale)] for mean in means)
