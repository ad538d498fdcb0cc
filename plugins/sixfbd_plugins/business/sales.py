"""The `sales` check: have sales stopped, by more than chance, and why? What each hour without them costs.

Owns the diagnosis. What is usual it learns from the orders of the last eight weeks, anew each hour; keeps nothing that a
restart would lose.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Meta, Struct

from sixfbd.plugin import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Gauge,
    Json,
    PluginConfig,
    Report,
    Rule,
    Status,
    hookimpl,
)
from sixfbd_plugins.business import silence
from sixfbd_plugins.business.forecast import WEEK
from sixfbd_plugins.business.silence import Usual
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.inventory.foresight import hours_of_week

HISTORY_H: Final = 8 * 7 * 24
LOOKS_BACK_S: Final = (HOUR, 6 * HOUR, DAY, 7 * DAY, 28 * DAY)  # for the last order, one after the other
FAILED: Final = 3  # payments since the last order that say that the checkout is broken
PAGES_FAIL: Final = 0.2  # of the requests

USUAL = Gauge("sales_usual_orders_per_hour", "Orders that an hour like this one usually brings.")
PAUSE = Gauge("sales_pause_seconds", "How long there has been no order.")
EXPECTED = Gauge("sales_pause_expected_orders", "Orders that were expected of that time.")
CHANCE = Gauge("sales_pause_chance", "How likely so long a pause is if all is well.")
LIMIT = Gauge("sales_pause_chance_limit", "The chance below which sales are taken to have stopped.")
STOPPED = Gauge(
    "sales_stopped",
    "1 while sales have stopped; with why, how severe that is, and what it costs.",
    ("severity", "diagnosis", "cost"),
)
AT_RISK = Gauge("sales_at_risk_per_hour", "What an hour like this one usually brings, in major units.", ("currency",))


class SalesOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `sales` check."""

    false_alarms: Annotated[
        float, Meta(description="False alarms a month that are put up with; fewer mean later ones.", gt=0, le=10)
    ] = 0.2


class _Why(Struct, frozen=True):
    """Why sales have stopped, as far as that shows elsewhere."""

    severity: str
    text: str


class SalesCheck(Check[SalesOptions]):
    """Sales that have stopped: by the hours of the week, right at few sales too, with why and what it costs."""

    Options = SalesOptions
    metrics = (USUAL, PAUSE, EXPECTED, CHANCE, LIMIT, STOPPED, AT_RISK)
    interval = Duration(30 * SECOND)
    timeout = Duration(25 * SECOND)

    def __init__(self, options: SalesOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._usual: Usual | None = None
        self._learned_at = -HOUR
        self._last: float | None = None

    async def run(self, cursor: Json | None) -> Report:
        """Look whether the pause since the last order is chance. Unhealthy while it is not."""
        now = self.ctx.clock.now()
        self._last = await self._last_order(now)
        if self._last is None:
            return Report(Status.HEALTHY, "no order has come in four weeks: nothing to miss")
        if now - self._learned_at >= HOUR:
            self._usual, self._learned_at = await self._learn(self._last), now
        if self._usual is None:
            said = f"learning: {silence.LEAST_ORDERS} orders within {silence.LEAST_HISTORY_H // 24} days and more are needed"
            return Report(Status.HEALTHY, said, (PAUSE(now - self._last),))
        return await self._judged(self._usual, self._last, now)

    async def _judged(self, usual: Usual, last: float, now: float) -> Report:
        since, until = self._hours(last), self._hours(last) + (now - last) / HOUR
        expected = silence.expected(usual, since, until)
        begun = await self._begun(last, now)
        chance = min(silence.chance_of_none(usual, expected), await self._of_checkouts(begun, last))
        limit = silence.limit(usual, self.options.false_alarms) / 2  # two tests share it
        rate = usual.rates[int(until) % WEEK]
        currency, worth = await self._worth(now)
        samples = [USUAL(rate), PAUSE(now - last), EXPECTED(expected), CHANCE(chance), LIMIT(limit)]
        if currency:
            samples.append(AT_RISK(rate * worth, currency=currency))
        if chance >= limit:
            return Report(
                Status.HEALTHY, f"last order {_span(now - last)} ago, usually {rate:.2g} an hour", tuple(samples)
            )
        if await self._nothing_to_sell(now):
            return Report(
                Status.HEALTHY, f"last order {_span(now - last)} ago: nothing is left to sell", tuple(samples)
            )
        why = await self._why(begun, last, now)
        cost = f"{rate * worth:,.0f} {currency} an hour" if currency else "not known"
        samples.append(STOPPED(1.0, severity=why.severity, diagnosis=why.text, cost=cost))
        said = f"no order for {_span(now - last)}, where {expected:.1f} were expected: {why.text}"
        return Report(Status.UNHEALTHY, said, tuple(samples))

    # ---- what is known -------------------------------------------------------------------------------------------------

    async def _last_order(self, now: float) -> float | None:
        if self._last is not None:
            found = await self.ctx.read.events("ticket_sale", self._last, now + MINUTE)
            return found[-1].timestamp if found else self._last
        for back_s in LOOKS_BACK_S:
            if found := await self.ctx.read.events("ticket_sale", now - back_s, now + MINUTE):
                return found[-1].timestamp
        return None

    async def _learn(self, last: float) -> Usual | None:
        """What was usual until the last order: the pause after it is what is judged."""
        start = last - HISTORY_H * HOUR
        rows = await self.ctx.read.query("sum(workshop_orders_total)", start, last, HOUR)
        totals = np.zeros(HISTORY_H + 1)
        for _, points in rows:
            for at, value in points:
                totals[round((at - start) / HOUR)] = value
        orders = np.diff(totals)
        first = int(np.argmax(orders > 0))
        weeks = hours_of_week(last, -HISTORY_H, 0, ZoneInfo(self.ctx.timezone))
        return silence.usual(orders[first:], weeks[first:])

    def _hours(self, at: float) -> float:
        """Hours since a Monday's first, by the clock of the site."""
        local = datetime.fromtimestamp(at, ZoneInfo(self.ctx.timezone))
        return local.weekday() * 24 + local.hour + local.minute / 60 + local.second / 3600

    async def _begun(self, last: float, now: float) -> int:
        return len(await self.ctx.read.events("checkout_started", last, now + MINUTE))

    async def _of_checkouts(self, begun: int, last: float) -> float:
        orders = await self._grew("workshop_orders_total", last - 28 * DAY, last)
        checkouts = await self._grew("workshop_checkouts_started_total", last - 28 * DAY, last)
        return silence.chance_of_no_end(orders, checkouts, begun)

    async def _grew(self, metric: str, start: float, end: float) -> float:
        rows = await self.ctx.read.query(f"sum({metric})", start, end, end - start)
        values = dict(rows[0][1]) if rows else {}
        return values.get(end, 0.0) - values.get(start, 0.0)

    async def _value(self, expr: str, now: float) -> float | None:
        rows = await self.ctx.read.query(expr, now, now, 1.0)
        return rows[0][1][-1][1] if rows and rows[0][1] else None

    async def _worth(self, now: float) -> tuple[str, float]:
        """What an order of the last four weeks is worth, in the currency of most."""
        rows = await self.ctx.read.query("sum by (currency) (workshop_revenue_total)", now - 28 * DAY, now, 28 * DAY)
        grew = {
            dict(labels)["currency"]: points[-1][1] - (points[0][1] if len(points) > 1 else 0.0)
            for labels, points in rows
            if points
        }
        orders = await self._grew("workshop_orders_total", now - 28 * DAY, now)
        if not grew or not orders:
            return "", 0.0
        currency = max(grew, key=lambda one: grew[one])
        return currency, grew[currency] / orders

    async def _nothing_to_sell(self, now: float) -> bool:
        """Whether the stock is known, and all of it gone or its sale over."""
        left = await self._value("sum(inventory_tickets_available unless inventory_sales_closed == 1)", now)
        known = await self._value("count(inventory_tickets_available)", now)
        return known is not None and not left

    # ---- why -----------------------------------------------------------------------------------------------------------

    async def _why(self, begun: int, last: float, now: float) -> _Why:
        span = f"{max(round(now - last), 60)}s"
        down = await self._value("count(probe_success == 0)", now)
        probes = await self._value("count(probe_success)", now)
        if down and probes:
            return _Why("critical", f"site down: {down:.0f} of {probes:.0f} probes fail")
        errors = await self._value(
            f'sum(increase(http_requests_total{{status=~"5.."}}[{span}])) / sum(increase(http_requests_total[{span}]))',
            now,
        )
        if errors is not None and errors > PAGES_FAIL:
            return _Why("critical", f"site down: {errors:.0%} of the requests fail")
        failed = await self._failures(last, now)
        if failed >= FAILED:
            return _Why("critical", f"checkout broken: {failed:.0f} payments failed since the last order")
        if begun >= FAILED:
            return _Why(
                "critical", f"checkout broken: {begun} checkouts began since the last order, and none became one"
            )
        seen = probes is not None or errors is not None
        fine = "pages answer and no payment fails" if seen else "neither pages nor requests are watched"
        return _Why("high", f"no demand: {fine}")

    async def _failures(self, last: float, now: float) -> float:
        told = len(await self.ctx.read.events("payment_failed", last, now + MINUTE))
        return max(told, await self._grew("stripe_attempts_failed_total", last, now))


def _span(seconds: float) -> str:
    hours = seconds / HOUR
    return f"{hours:.1f} hours" if hours >= 1 else f"{seconds / MINUTE:.0f} minutes"


RULES: Final[Sequence[Rule]] = (
    default_rule(
        "payments",
        "SalesStopped",
        "sales_stopped == 1",
        "Sales have stopped: {{ $labels.diagnosis }}",
        describing=("severity", "diagnosis", "cost"),
        impact="What such hours usually bring: {{ $labels.cost }}.",
        action="Buy a ticket yourself; the check says since when and how sure it is: sixfbctl check run {{ $labels.check }}",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `sales`."""
    return {"sales": SalesCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rule of sales."""
    return RULES
