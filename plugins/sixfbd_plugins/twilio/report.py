"""The report `sms` (SEED S5, S2): the service's health, what became of messages, what is configured, the last alerts."""

from collections.abc import Mapping
from typing import Any, Final

from sixfbd.plugin import DAY, ReportRequest, ReportType, Unknown
from sixfbd_plugins.figures import iso, known, latest, one, ratio, recent_alerts, total

SPANS: Final = {"last24h": 1, "last7d": 7, "last30d": 30}
NOT_CONFIGURED: Final = "no `sms` check is configured"
NO_SENDS: Final = "sixfbd has sent no SMS of its own lately"
RETRIES: Final = {"maxRetries": 3, "retryDelay": 1000}  # of notices (SEED S4); alerts are tried for a day


async def sms(request: ReportRequest) -> Mapping[str, Any]:
    """SEED S5. Durations in milliseconds, shares from 0 to 1. Our own messages are no part of `delivery`."""
    checks = [name for name, plugin in request.checks.items() if plugin == "sms"]
    has_account = bool(checks) or "sms" in request.notifiers.values()
    return {
        "service": await _service(request, checks),
        "delivery": {name: await _delivery(request, days) for name, days in SPANS.items()},
        "configuration": {
            "accountSid": "configured" if has_account else "missing",
            "phoneNumber": "configured" if "sms" in request.notifiers.values() else "missing",
            "targetNumbers": request.addresses.get("sms", 0),
            "retryConfig": RETRIES,
        },
        "recentAlerts": await recent_alerts(request, "sms"),
    }


async def _service(request: ReportRequest, checks: list[str]) -> Mapping[str, Any]:
    if not checks:
        return dict.fromkeys(("status", "uptime", "lastHealthCheck"), Unknown(NOT_CONFIGURED))
    chosen = "|".join(checks if not request.check else [request.check])
    states = await latest_status(request, chosen)
    seconds = round(request.end - request.start)
    uptime = await one(
        request, f'avg(avg_over_time(sixfbd_check_status{{check=~"{chosen}",status="healthy"}}[{seconds}s]))'
    )
    seen = await one(request, f'max(sixfbd_check_last_seen_timestamp_seconds{{check=~"{chosen}"}})')
    return {
        "status": states,
        "uptime": known(uptime, "the check has not run in that time"),
        "lastHealthCheck": known(None if seen is None else iso(seen), "the check has not run yet"),
    }


async def latest_status(request: ReportRequest, checks: str) -> str:
    """Return the worst status of some checks, written as the alternatives of a pattern."""
    expr = f'max by (status) (sixfbd_check_status{{check=~"{checks}"}}) == 1'
    rows = await request.read.query(expr, request.end, request.end, 1.0)
    found = {dict(labels)["status"] for labels, _ in rows}
    return next((status for status in ("unhealthy", "degraded", "unknown", "healthy") if status in found), "unknown")


async def _delivery(request: ReportRequest, days: int) -> Mapping[str, Any]:
    """SEED S2."""
    span = ReportRequest(read=request.read, start=request.end - days * DAY, end=request.end)
    sent = await total(span, "twilio_messages_total", 'status="sent",origin=""')
    failed = await total(span, "twilio_messages_total", 'status=~"failed|undelivered",origin=""')
    refused = await total(span, "twilio_messages_total", 'status="failed",origin=""')
    response = await latest(request, "sms_response_seconds", ())
    retries = await latest(request, "sms_retry_ratio", ())
    return {
        "totalSent": sent,
        "totalFailed": failed,
        "failureRate": ratio(failed, sent + refused, "no message was sent in that time"),
        "averageResponseTime": round(response[()] * 1000, 1) if response else Unknown(NO_SENDS),
        "retryRate": known(retries.get(()), NO_SENDS),
    }


REPORTS: Final = (
    ReportType(
        "sms",
        sms,
        doc="The SMS service: health, deliveries, what is configured.",
        title="SMS",
        units={"uptime": "ratio", "failureRate": "ratio", "retryRate": "ratio", "averageResponseTime": "ms"},
    ),
)
