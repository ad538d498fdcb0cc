"""The report `payments` (SEED S11): what came in, how it was paid, whether Stripe and its webhooks work."""

from collections.abc import Mapping
from typing import Any, Final

from sixfbd.plugin import ReportRequest, ReportType, Unknown
from sixfbd_plugins.figures import grown, known, latest, one, ratio, recent_alerts
from sixfbd_plugins.money import MINOR_DIGITS, major_units
from sixfbd_plugins.twilio.report import latest_status

NOT_CONFIGURED: Final = "no `payments` check is configured"
NO_PAYMENTS: Final = "no payment has come to an end in that time"


async def payments(request: ReportRequest) -> Mapping[str, Any]:
    """SEED S11. Money in major units, times in milliseconds, shares from 0 to 1. Revenue is what came in, refunds apart."""
    paid = {
        currency: value
        for (currency,), value in (await grown(request, "stripe_paid_minor_total", ("currency",))).items()
    }
    count = round(sum((await grown(request, "stripe_paid_total")).values()))
    ended = {
        outcome: round(n) for (outcome,), n in (await grown(request, "stripe_payments_total", ("outcome",))).items()
    }
    attempted = sum(ended.values())
    return {
        "summary": {
            "totalRevenue": _only(paid),
            "totalTransactions": count,
            "averageOrderValue": _average(paid, count),
            "successRate": ratio(ended.get("succeeded", 0), attempted, NO_PAYMENTS),
        },
        "breakdown": {
            "byTicketType": await _revenue_by(request, "type"),
            "byCity": await _revenue_by(request, "city"),
            "byPaymentMethod": {
                method: round(orders)
                for (method,), orders in sorted(
                    (await grown(request, "workshop_payment_methods_total", ("method",))).items()
                )
            },
        },
        "health": await _health(request, ended, attempted),
        "alerts": await recent_alerts(request, "payments"),
    }


def _only(minor: Mapping[str, float]) -> float | Unknown:
    if len(minor) > 1:
        return Unknown(f"it came in several currencies: {', '.join(sorted(minor))}")
    return next((major_units(round(value), currency) for currency, value in minor.items()), 0.0)


def _average(minor: Mapping[str, float], count: int) -> float | Unknown:
    whole = _only(minor)
    if isinstance(whole, Unknown):
        return whole
    if not count:
        return Unknown("no money came in in that time")
    return round(whole / count, MINOR_DIGITS.get(next(iter(minor), "USD"), 2))


async def _revenue_by(request: ReportRequest, label: str) -> Mapping[str, Any]:
    """By the metadata of payments where the shop writes them there, else by what the shop says that it sold."""
    found = await grown(request, "stripe_paid_tickets_minor_total", (label, "currency"))
    if found:
        sums = {key: major_units(round(value), key[1]) for key, value in found.items()}
    else:
        told = await grown(request, "workshop_city_revenue_total", (label, "currency"))
        sums = {key: round(value, MINOR_DIGITS.get(key[1], 2)) for key, value in told.items()}
    several = len({currency for _, currency in sums}) > 1
    return {f"{name} {currency}" if several else name: value for (name, currency), value in sorted(sums.items())}


async def _health(request: ReportRequest, ended: Mapping[str, int], attempted: int) -> Mapping[str, Any]:
    checks = [name for name, plugin in request.checks.items() if plugin == "payments"]
    if not checks:
        missing = Unknown(NOT_CONFIGURED)
        return dict.fromkeys(("stripeStatus", "webhookStatus", "processingTimes", "errorRates"), missing)
    chosen = request.check or "|".join(checks)
    undelivered = await latest(request, "stripe_webhook_failure_ratio", ())
    enabled = await latest(request, "stripe_webhook_endpoint_enabled", ("endpoint",))
    api = await latest(request, "stripe_api_latency_seconds", ())
    checkout = await one(
        request,
        'sum(increase(http_path_request_seconds_total{path=~".*checkout.*"}[1h]))'
        ' / sum(increase(http_path_requests_total{path=~".*checkout.*"}[1h]))',
    )
    attempts = await grown(request, "stripe_attempts_failed_total", ("kind",))
    return {
        "stripeStatus": await latest_status(request, chosen),
        "webhookStatus": _webhooks(undelivered.get(()), list(enabled.values())),
        "processingTimes": {
            "api": round(api[()] * 1000, 1) if api else Unknown("Stripe has not answered yet"),
            "checkout": Unknown("no request to a path with `checkout` came in the last hour")
            if checkout is None or checkout != checkout
            else round(checkout * 1000, 1),
        },
        "errorRates": {
            "payments": ratio(attempted - ended.get("succeeded", 0), attempted, NO_PAYMENTS),
            "webhooks": known(undelivered.get(()), "no event of Stripe's is old enough to be missed"),
            "attempts": {kind: round(count) for (kind,), count in sorted(attempts.items())},
        },
    }


def _webhooks(undelivered: float | None, enabled: list[float]) -> str | Unknown:
    if not enabled and undelivered is None:
        return Unknown("nothing is known of webhooks yet")
    if enabled and not all(enabled):
        return "disabled"
    return "failing" if (undelivered or 0.0) > 0.1 else "healthy"  # SEED S10


REPORTS: Final = (
    ReportType(
        "payments",
        payments,
        doc="Money that came in, how it was paid, whether Stripe works.",
        units={
            **dict.fromkeys(("totalRevenue", "averageOrderValue", "byTicketType", "byCity"), "money"),
            **dict.fromkeys(("successRate", "payments", "webhooks"), "ratio"),
            **dict.fromkeys(("api", "checkout"), "ms"),
        },
    ),
)
