"""What reports are computed from: how much counters made of events have grown, exactly, and the last values of gauges.

Such a counter never starts anew, so that the growth within a span is the difference of two totals and nothing is estimated.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

from sixfbd.plugin import HOUR, Alert, ReportRequest, Severity, Unknown

V = TypeVar("V")
Key: TypeAlias = tuple[str, ...]
"""The values of the labels that were asked for, in their order."""

MOST_STEPS: Final = 24 * 31


async def grown(request: ReportRequest, metric: str, by: Sequence[str] = (), matchers: str = "") -> dict[Key, float]:
    """Return how much a counter grew within the timeframe, by labels; what has not grown is left out.

    `matchers` are as within the braces of a selector.
    """
    before, after = await _totals(request, metric, by, matchers)
    found = {key: value - before.get(key, 0.0) for key, value in after.items()}
    return {key: value for key, value in found.items() if value}


async def grown_by_step(
    request: ReportRequest, metric: str, by: Sequence[str] = (), step_s: float = HOUR
) -> list[tuple[float, dict[Key, float]]]:
    """Return the growth of each step of the timeframe, as (unix seconds of its beginning, growth by labels).

    Steps end at full ones (of UTC), the first and the last are cut by the timeframe; they are longer than asked for where
    there were more than MOST_STEPS.
    """
    while (request.end - request.start) / step_s > MOST_STEPS:
        step_s *= 2
    first = request.start // step_s * step_s
    count = int((request.end - first) // step_s) + 1
    rows = await _sums(request, metric, by, "", first, first + count * step_s, step_s)
    before_all, after_all = await _totals(request, metric, by, "")
    steps = []
    for number in range(count):
        added: dict[Key, float] = {}
        for key, points in rows.items():
            before = before_all.get(key, 0.0) if number == 0 else points.get(number, 0.0)
            after = after_all.get(key, 0.0) if number == count - 1 else points.get(number + 1, 0.0)
            if after != before:
                added[key] = after - before
        steps.append((max(first + number * step_s, request.start), added))
    return steps


async def _totals(
    request: ReportRequest, metric: str, by: Sequence[str], matchers: str
) -> tuple[dict[Key, float], dict[Key, float]]:
    """Return the totals at the timeframe's beginning and end. Each is asked for by itself: what lies between is not read."""
    found = []
    for at in (request.start, request.end):
        rows = await _sums(request, metric, by, matchers, at, at, 1.0)
        found.append({key: points[0] for key, points in rows.items() if 0 in points})
    return found[0], found[1]


async def _sums(
    request: ReportRequest, metric: str, by: Sequence[str], matchers: str, start: float, end: float, step: float
) -> dict[Key, dict[int, float]]:
    """Return totals by labels at each step, by the number of the step."""
    selector = f"{metric}{{{matchers}}}" if matchers else metric
    rows: Any = await request.read.query(f"sum by ({', '.join(by)}) ({selector})", start, end, step)
    found: dict[Key, dict[int, float]] = {}
    for labels, points in rows:
        named = dict(labels)
        key = tuple(named.get(name, "") for name in by)
        found[key] = {round((at - start) / step): value for at, value in points}
    return found


async def latest(request: ReportRequest, metric: str, by: Sequence[str], matchers: str = "") -> dict[Key, float]:
    """Return the last values of a gauge by labels, of the check that is asked for; of several checks the largest."""
    whole = ",".join(part for part in (matchers, f'check="{request.check}"' if request.check else "") if part)
    rows = await request.read.query(f"max by ({', '.join(by)}) ({metric}{{{whole}}})", request.end, request.end, 1.0)
    return {tuple(dict(labels).get(name, "") for name in by): points[-1][1] for labels, points in rows if points}


async def one(request: ReportRequest, expr: str) -> float | None:
    """Return the value of an expression of one series at the timeframe's end; None if there is none."""
    rows = await request.read.query(expr, request.end, request.end, 1.0)
    return rows[0][1][-1][1] if rows and rows[0][1] else None


async def total(request: ReportRequest, metric: str, matchers: str = "") -> int:
    """Return the growth of a counter of whole things."""
    return round(sum((await grown(request, metric, (), matchers)).values()))


def iso(at: float) -> str:
    """Return unix seconds as 2026-11-23T21:07:30.123Z (SEED, Units)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def known(value: V | None, why_not: str) -> V | Unknown:
    """Return a value, or why there is none."""
    return Unknown(why_not) if value is None else value


def ratio(part: float, whole: float, why_not: str) -> float | Unknown:
    """Return a share, 0 to 1; `why_not` if there is nothing that it would be a share of."""
    return part / whole if whole else Unknown(why_not)


async def recent_alerts(request: ReportRequest, service: str, most: int = 10) -> list[dict[str, Any]]:
    """Return the last incidents of a service, over or not, as reports show them."""
    return [shown(alert) for alert in await request.read.recent_alerts({"service": service}, most)]


def shown(alert: Alert) -> dict[str, Any]:
    """Return an alert as reports show it."""
    return {
        "rule": str(alert.key.rule),
        "state": str(alert.state),
        "severity": str(alert.severity if isinstance(alert.severity, Severity) else ""),
        "summary": alert.annotations.get("summary", ""),
        "labels": dict(alert.key.labels),
        "since": iso(alert.since),
        "acknowledgedBy": alert.acked_by,
        "id": alert.id,
    }
