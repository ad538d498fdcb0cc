"""Draws the page's small charts as SVG paths: pure functions of points; the template sets the frame, the style the colours."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from msgspec import Struct

from sixfbd.http.dashboard.charts import Spark, SparkLine
from sixfbd.http.dashboard.wording import amount
from sixfbd.http.engine import Point

WIDTH: Final = 240.0
HEIGHT: Final = 56.0
MARGIN: Final = 2.0  # so that a line at the edge keeps its full width
MAX_LINES: Final = 6  # as many as there are colours


class Line(Struct, frozen=True):
    """One line: SVG path data of the line and of the area below it, the legend and the last value."""

    legend: str
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
    """Return a chart of at most MAX_LINES lines, those with the highest last values; the scale begins at zero or below."""
    shown = [line for line in spark.lines if _finite(line.points)]
    shown.sort(key=lambda line: -_finite(line.points)[-1][1])
    more = max(0, len(shown) - MAX_LINES)
    shown = shown[:MAX_LINES]
    values = [value for line in shown for _, value in _finite(line.points)]
    if not values:
        return Chart(spark.title, "no data", "", "", f"{spark.title}: no data in the last hour", (), 0)
    low, high = min(0.0, *values), max(values)
    lines = tuple(_line(spark, line, low, high) for line in shown)
    latest, least, most = lines[0].latest, amount(min(values), spark.unit), amount(high, spark.unit)
    spoken = f"{spark.title}, last hour: now {latest}, lowest {least}, highest {most}"
    return Chart(spark.title, latest, least, most, spoken, lines, more)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[1])]


def _line(spark: Spark, line: SparkLine, low: float, top: float) -> Line:
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
    return Line(line.legend, amount(points[-1][1], spark.unit), path, area)


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
