"""Draws the page's small charts as SVG paths: pure functions of points; the template sets the frame, the style the colours."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final
from zlib import crc32

from msgspec import Struct

from sixfbd.http.dashboard.charts import Spark, SparkLine
from sixfbd.http.dashboard.wording import amount
from sixfbd.http.engine import Point

WIDTH: Final = 240.0
HEIGHT: Final = 56.0
MARGIN: Final = 2.0  # so that a line at the edge keeps its full width
MAX_LINES: Final = 6  # as many as there are colours
ENDED: Final = "no data"


class Line(Struct, frozen=True):
    """One line: its legend, its colour (0 to MAX_LINES - 1), its value now ("no data" if it has ended), SVG path data of
    the line and of the area below it."""

    legend: str
    colour: int
    latest: str
    path: str
    area: str


class Chart(Struct, frozen=True):
    """A chart, ready for the template; `spoken` says it in words."""

    title: str
    latest: str
    low: str
    high: str
    spoken: str
    lines: tuple[Line, ...]
    more: int  # lines that are left out


def draw(spark: Spark) -> Chart:
    """Return a chart of at most MAX_LINES lines, those with the highest last values, in the order of their names.

    The scale begins at zero or below. A line's colour comes from its name: it keeps it while values and order change.
    """
    found = [line for line in spark.lines if _finite(line.points)]
    found.sort(key=lambda line: (-_finite(line.points)[-1][1], line.legend))
    more = max(0, len(found) - MAX_LINES)
    shown = sorted(found[:MAX_LINES], key=lambda line: line.legend)
    values = [value for line in shown for _, value in _finite(line.points)]
    if not values:
        return Chart(spark.title, "no data", "", "", f"{spark.title}: no data in the last hour", (), 0)
    low, high = min(0.0, *values), max(values)
    colours = _colours([line.legend for line in shown])
    lines = tuple(_line(spark, line, colour, low, high) for line, colour in zip(shown, colours, strict=True))
    latest = next((_latest(spark, line) for line in found if _goes_on(spark, line)), ENDED)
    least, most = amount(min(values), spark.unit), amount(high, spark.unit)
    spoken = f"{spark.title}, last hour: now {latest}, lowest {least}, highest {most}"
    return Chart(spark.title, latest, least, most, spoken, lines, more)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[1])]


def _colours(names: Sequence[str]) -> list[int]:
    """Return a colour for each of at most MAX_LINES names, each another one: its own if it is free, or the next one."""
    taken: list[int] = []
    for name in names:
        own = crc32(name.encode("utf-8", "replace"))
        taken.append(next(c for i in range(MAX_LINES) if (c := (own + i) % MAX_LINES) not in taken))
    return taken


def _goes_on(spark: Spark, line: SparkLine) -> bool:
    points = _finite(line.points)
    return spark.end - points[-1][0] <= 3 * _usual_step(points)


def _latest(spark: Spark, line: SparkLine) -> str:
    return amount(_finite(line.points)[-1][1], spark.unit) if _goes_on(spark, line) else ENDED


def _line(spark: Spark, line: SparkLine, colour: int, low: float, top: float) -> Line:
    points = _finite(line.points)
    span = max(spark.end - spark.start, 1.0)
    gap = 3 * _usual_step(points)
    runs: list[list[tuple[float, float]]] = []
    previous = -math.inf
    for at, value in points:
        if not runs or at - previous > gap:
            runs.append([])
        x = min(max((at - spark.start) / span, 0.0), 1.0) * WIDTH
        y = MARGIN + (1 - _share(value, low, top)) * (HEIGHT - 2 * MARGIN)
        runs[-1].append((x, y))
        previous = at
    path = " ".join(_path(run) for run in runs)
    area = " ".join(f"{_path(run)}V{HEIGHT:g}H{run[0][0]:.1f}Z" for run in runs)
    return Line(line.legend, colour, _latest(spark, line), path, area)


def _share(value: float, low: float, top: float) -> float:
    """Where a value stands between `low` and `top`, 0 to 1; 0 if there is nothing between them. Halves do not overflow."""
    span = top / 2 - low / 2
    return (value / 2 - low / 2) / span if span > 0 else 0.0


def _usual_step(points: Sequence[Point]) -> float:
    """The median distance of neighbours: three times that without a point is a gap in the line."""
    steps = sorted(b[0] - a[0] for a, b in pairwise(points))
    return steps[len(steps) // 2] if steps else math.inf


def _path(run: Sequence[tuple[float, float]]) -> str:
    head, *rest = (f"{x:.1f} {y:.1f}" for x, y in run)
    return f"M{head}" + ("".join(f"L{point}" for point in rest) if rest else "h0.1")
