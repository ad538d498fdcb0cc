"""The charts of the page: what they ask, and the answers as lines. One that has no data is left out."""

from collections.abc import Sequence
from typing import Final, Literal

import structlog
from msgspec import Struct

from sixfbd.http.engine import HttpEngine, Point, QueryFailed, QueryRefused, QueryTooLong, ResultSeries
from sixfbd.quantities import HOUR

log = structlog.get_logger("sixfbd.http")

SPAN_S: Final = HOUR
STEP_S: Final = 30.0

Unit = Literal["ratio", "seconds", "count"]


class ChartSpec(Struct, frozen=True):
    """One chart: its title, the unit of its values, what it asks, and the label that tells its lines apart."""

    title: str
    unit: Unit
    expr: str
    legend: str = ""


class SparkLine(Struct, frozen=True):
    """One line of a chart: its legend, and points oldest first; a missing point is a gap."""

    legend: str
    points: tuple[Point, ...]


class Spark(Struct, frozen=True):
    """The data of one chart, from `start` to `end` in unix seconds."""

    title: str
    unit: Unit
    start: float
    end: float
    lines: tuple[SparkLine, ...] = ()


CHARTS: Final = (
    ChartSpec("CPU", "ratio", "system_cpu_usage_ratio", "check"),
    ChartSpec("Memory", "ratio", "system_memory_usage_ratio", "check"),
    ChartSpec("Disk", "ratio", "max by (mountpoint) (system_filesystem_usage_ratio)", "mountpoint"),
    ChartSpec("Probe time", "seconds", "max by (instance) (probe_duration_seconds)", "instance"),
    ChartSpec("Events a minute", "count", 'sum(rate(sixfbd_events_total{outcome="accepted"}[5m])) * 60'),
    ChartSpec("Delay of the daemon's loop", "seconds", "sixfbd_loop_delay_seconds"),
)


async def sparks_of(engine: HttpEngine, specs: Sequence[ChartSpec] = CHARTS) -> list[Spark]:
    """Return the data of those charts that have any in the last hour."""
    end = engine.now() // STEP_S * STEP_S  # the same steps each time, so that a line does not tremble
    found = [await _spark(engine, spec, end - SPAN_S, end) for spec in specs]
    return [spark for spark in found if spark.lines]


async def _spark(engine: HttpEngine, spec: ChartSpec, start: float, end: float) -> Spark:
    try:
        answer = await engine.query_range(spec.expr, start, end, STEP_S)
    except (QueryFailed, QueryRefused, QueryTooLong) as error:
        log.warning("page.chart_failed", chart=spec.title, error=str(error))
        return Spark(spec.title, spec.unit, start, end)
    return Spark(spec.title, spec.unit, start, end, tuple(_line(spec, series) for series in answer.series))


def _line(spec: ChartSpec, series: ResultSeries) -> SparkLine:
    return SparkLine(series.labels.get(spec.legend, spec.title), series.points)
