"""The charts of the page: what they ask, and the answers as lines. One that has no data is left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
    """One chart: its title, the unit of its values, what it asks (one series a line), and the label that names its lines.

    A series with a label `check` is of that check; the daemon's own have none.
    """

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
    ChartSpec("CPU", "ratio", "max by (check) (system_cpu_usage_ratio)", "check"),
    ChartSpec("Memory", "ratio", "max by (check) (system_memory_usage_ratio)", "check"),
    ChartSpec("Disk", "ratio", "max by (mountpoint, check) (system_filesystem_usage_ratio)", "mountpoint"),
    ChartSpec("Probe time", "seconds", "max by (instance, check) (probe_duration_seconds)", "instance"),
    ChartSpec("Events a minute", "count", 'sum(rate(sixfbd_events_total{outcome="accepted",check=""}[5m])) * 60'),
    ChartSpec("Delay of the daemon's loop", "seconds", 'max(sixfbd_loop_delay_seconds{check=""})'),
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
    known = {
        "",
        *(check.name for check in engine.checks()),
    }  # what a removed check measured is history, not the present
    present = [series for series in answer.series if series.labels.get("check", "") in known]
    names = Counter(series.labels.get(spec.legend, "") for series in present)
    return Spark(spec.title, spec.unit, start, end, tuple(_line(spec, series, names) for series in present))


def _line(spec: ChartSpec, series: ResultSeries, names: Mapping[str, int]) -> SparkLine:
    """Name a line by its label, and by its check as well if another line has the same name."""
    name = series.labels.get(spec.legend, "")
    if names[name] > 1:
        name = f"{name} ({series.labels.get('check', '')})"
    return SparkLine(name or spec.title, series.points)
