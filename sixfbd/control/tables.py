"""Text for people's terminals: columns, ages, numbers, colours by status. Pure: values to lines; who prints is not known here.

Texts that others wrote (summaries, labels) lose their control characters, so that none can steer a terminal.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import click
from msgspec import Struct

from sixfbd.control.terminal import clean
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
GAP: Final = "  "
INDENT: Final = 4  # of what stands below its row
MIN_TEXT: Final = 24  # columns below which a text is better off below its row
MIN_FIRST: Final = 20  # columns that names and ids have in any case; longer ones may have a line of their own


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    none: str = "none",
    *,
    width: int | None = None,
    drop: Sequence[str] = (),
    fold: Sequence[str] = (),
) -> list[str]:
    """Return lines in columns, heads first; `none` alone where there are no rows. The last column is not padded.

    In a terminal of `width` columns, what is too wide gives way in this order: a last column of `fold` (free texts) goes
    over several lines, columns of `drop` are left out, those of `fold` go below their row; a first cell that still leaves
    no room stands on a line of its own. Nothing is ever cut, and without `width` (a pipe) nothing gives way.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        return [none]
    shape = _fitting(heads, cells, width, drop, fold)
    lines = [click.style(_row([heads[at].upper() for at in shape.columns], shape.widths), bold=True)]
    for row in cells:
        lines += _shaped_row([row[at] for at in shape.columns], shape)
        for at in shape.below:
            if row[at]:
                lines += [" " * INDENT + line for line in wrapped(f"{heads[at]}: {row[at]}", (width or 0) - INDENT)]
    return lines


class _Shape(Struct, frozen=True):
    """Which columns a table shows side by side, how wide they are, and which stand below their row.

    `text_width`: where the last column goes over several lines, how wide they are.
    """

    columns: tuple[int, ...]
    widths: tuple[int, ...]
    below: tuple[int, ...] = ()
    text_width: int | None = None


def _fitting(
    heads: Sequence[str], cells: Sequence[Sequence[str]], width: int | None, drop: Sequence[str], fold: Sequence[str]
) -> _Shape:
    natural = [max(map(text_width, column)) for column in zip(heads, *cells, strict=True)]
    shape = _Shape(tuple(range(len(heads))), tuple(natural))
    if width is None or _total(natural) <= width:
        return shape
    for dropped, folded in _sacrifices(drop, fold):
        out = {*dropped, *folded}
        columns = tuple(at for at, head in enumerate(heads) if head not in out)
        below = tuple(at for at, head in enumerate(heads) if head in folded)
        widths = [natural[at] for at in columns]
        is_text = heads[columns[-1]] in fold
        least = min(widths[-1], MIN_TEXT) if is_text else widths[-1]
        room = width - _total([0, *widths[1:-1], least])
        first = max((text_width(row[0]) for row in cells if text_width(row[0]) <= room), default=0)
        widths[0] = max(first, text_width(heads[0]))
        if is_text:
            widths[-1] = max(least, min(widths[-1], width - _total([*widths[:-1], 0])))
        shape = _Shape(columns, tuple(widths), below, widths[-1] if is_text else None)
        if room >= min(natural[0], MIN_FIRST):
            break
    return shape


def _sacrifices(drop: Sequence[str], fold: Sequence[str]) -> Iterable[tuple[Sequence[str], Sequence[str]]]:
    """Yield what is left out and what goes below, the least first."""
    yield from ((drop[:count], ()) for count in range(len(drop) + 1))
    yield from ((drop, fold[:count]) for count in range(1, len(fold) + 1))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _shaped_row(cells: list[str], shape: _Shape) -> list[str]:
    lines: list[str] = []
    if text_width(cells[0]) > shape.widths[0] and len(cells) > 1:
        lines.append(_colored(cells[0]))
        cells = ["", *cells[1:]]
    if shape.text_width is None:
        return [*lines, _row(cells, shape.widths)]
    first, *more = wrapped(cells[-1], shape.text_width) or [""]
    lines.append(_row([*cells[:-1], first], shape.widths))
    set_in = " " * _total([*shape.widths[:-1], 0])
    return lines + [set_in + line for line in more]


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [_colored(cell) + " " * (width - text_width(cell)) for cell, width in zip(cells, widths, strict=True)]
    return GAP.join([*padded[:-1], _colored(cells[-1])]).rstrip()


def wrapped(text: str, width: int) -> list[str]:
    """Return a text's lines of at most `width` columns, broken between words; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(lines[-1]) + 1 + text_width(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def facts(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return `name  value` lines with the values in one column."""
    shown = [(clean(name), clean(value)) for name, value in pairs]
    width = max((text_width(name) for name, _ in shown), default=0)
    return [f"{name}{' ' * (width - text_width(name))}  {_colored(value)}".rstrip() for name, value in shown]


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
