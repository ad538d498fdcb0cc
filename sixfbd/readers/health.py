"""/api/health (SEED S19): the services by the checks' last reports. Calls nobody."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sixfbd.model import CheckState, Status


def health_body(
    checks: Sequence[CheckState],
    declared_services: Collection[str],
    declared_externals: Collection[str],
    *,
    journal_failing: str,
    disk_problems: Sequence[str],
    blind_before_start_s: float | None,
    now: float,
    started_at: float,
    version: str,
    timestamp: str,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the bare object of /api/health, from the checks' last reports; calls nobody.

    An entry is as bad as the worst check that fills it. A service is `not_configured` without one; `unknown` does not count
    until two intervals have passed without a report. `database` is the journal unless a check claims it; a failing journal
    makes all unhealthy, other problems of the disk degrade it. `blindBeforeStart` is for how many seconds nobody watched
    before this start, null if there was no run before it.
    """
    services: dict[str, dict[str, Any]] = {
        name: {"status": "not_configured", "checkedAt": None} for name in declared_services
    }
    for check in checks:
        if check.service:
            shown = _service(check, now)
            known = services.get(check.service)
            if known is None or _BADNESS[shown["status"]] > _BADNESS[known["status"]]:
                services[check.service] = shown
    ours = {
        "status": "unhealthy" if journal_failing else "degraded" if disk_problems else "healthy",
        "summary": journal_failing or "; ".join(disk_problems) or "the journal takes writes",
        "checkedAt": timestamp,
    }
    claimed = services.get("database", {"status": "not_configured"})
    if (
        journal_failing
        or claimed["status"] == "not_configured"
        or _BADNESS[ours["status"]] > _BADNESS[claimed["status"]]
    ):
        services["database"] = ours
    external: dict[str, dict[str, Any]] = {
        name: {"status": "not_configured", "checkedAt": None} for name in declared_externals
    }
    for check in checks:
        if check.external:
            status = "unknown" if check.reachable is None else "reachable" if check.reachable else "unreachable"
            known = external.get(check.external)
            if known is None or _BADNESS[status] > _BADNESS[known["status"]]:
                external[check.external] = {"status": status, "checkedAt": iso_time(check.last_run_at)}
    bad = sum(one["status"] not in ("healthy", "not_configured", "starting") for one in services.values())
    status = "unhealthy" if bad > 2 or journal_failing else "degraded" if bad else "healthy"
    for one in services.values():
        if one["status"] == "starting":
            one["status"] = "unknown"
    return {
        "status": status,
        "timestamp": timestamp,
        "uptime": round(now - started_at, 3),
        "blindBeforeStart": None if blind_before_start_s is None else round(blind_before_start_s, 3),
        "version": version,
        "services": dict(sorted(services.items())),
        "metrics": metrics,
        "external": dict(sorted(external.items())),
    }


_BADNESS: Final = {
    "not_configured": -1, "healthy": 0, "reachable": 0, "starting": 1, "unknown": 2, "degraded": 3, "unhealthy": 4,
    "unreachable": 4,
}  # fmt: skip


def _service(check: CheckState, now: float) -> dict[str, Any]:
    status = check.status.value
    if check.status is Status.UNKNOWN and now - check.awaited_since <= 2 * check.interval_s:
        status = "starting"
    return {
        "status": status,
        "summary": check.summary,
        "checkedAt": iso_time(check.last_run_at),
        "responseTime": None if check.duration_s is None else round(check.duration_s * 1000, 3),
    }


def iso_time(at: float | None) -> str | None:
    """Return a time as `2026-11-23T21:07:30.123Z` (SEED, Units)."""
    if at is None:
        return None
    seconds, milliseconds = divmod(round(at * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{milliseconds:03d}Z"
