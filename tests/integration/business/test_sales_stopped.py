"""The `sales` check over a real journal: what is usual it learns from orders, and why they stopped from what else is wrong."""

import random

import pytest

from sixfbd.model import Event
from sixfbd.plugin import DAY, HOUR, Gauge, PluginConfig, Report, Status
from sixfbd_plugins.business.events import sixfbd_events
from sixfbd_plugins.business.sales import SalesCheck, SalesOptions
from tests.provider_kit import Engine, ManualClock, PluginContext

NOW = 1_800_000_000.0
PROBE = Gauge("probe_success", "", ("instance",))
LEFT = Gauge("inventory_tickets_available", "", ("city", "type"))


class Scripted(SalesCheck):
    metrics = (*SalesCheck.metrics, PROBE, LEFT)


def order(number, at, kind="ticket_sale"):
    data = {"orderId": f"o{number}", "cityId": "dallas", "tier": "ga", "quantity": 1, "amount": 5000, "currency": "USD"}
    return Event(
        f"{kind}-{number}", kind, at, data if kind == "ticket_sale" else {"orderId": f"o{number}", "reason": "no"}
    )


@pytest.fixture
async def engine(tmp_path):
    """Five weeks of some forty orders a day until NOW."""
    made = Engine(tmp_path, ManualClock(NOW), sixfbd_events(config=PluginConfig()), "sales", Scripted)
    draw = random.Random(1)
    times = sorted(NOW - draw.random() * 35 * DAY for _ in range(1400))
    async with made.running():
        await tell(made, *(order(number, at) for number, at in enumerate([*times, NOW - 1])))
        yield made


async def tell(engine, *events):
    answers = await engine.intake.events("shop", list(events))
    assert all(type(one).__name__ == "Accepted" for one in answers), answers


def check_of(engine, **options):
    context = PluginContext(None, engine.clock, engine.read)
    context.timezone = "America/Chicago"
    return SalesCheck(SalesOptions(**options), context)


async def report_at(engine, check, hours):
    engine.clock.at = NOW + hours * HOUR
    return await check.run(None)


def values(report):
    return {one.metric: (one.value, dict(one.labels)) for one in report.samples}


async def test_sales_that_stop_are_no_chance_after_some_hours_and_what_that_costs_is_said(engine):
    check = check_of(engine)
    fine = await report_at(engine, check, 1)
    assert fine.status is Status.HEALTHY and values(fine)["sales_usual_orders_per_hour"][0] == pytest.approx(
        40 / 24, rel=0.4
    )
    assert "sales_stopped" not in values(fine)
    stopped = await report_at(engine, check, 9)
    assert stopped.status is Status.UNHEALTHY and "no demand: neither pages nor requests are watched" in stopped.summary
    value, labels = values(stopped)["sales_stopped"]
    assert (value, labels["severity"]) == (1.0, "high") and labels["cost"].endswith(" USD an hour")
    assert values(stopped)["sales_at_risk_per_hour"][0] == pytest.approx(40 / 24 * 50, rel=0.4)
    await tell(engine, order("back", NOW + 9 * HOUR))
    assert (await check.run(None)).status is Status.HEALTHY


async def test_fewer_false_alarms_mean_later_ones(engine):
    soon, late = check_of(engine, false_alarms=5.0), check_of(engine, false_alarms=0.01)
    for hours in range(1, 40):
        found = [(await report_at(engine, check, hours)).status for check in (soon, late)]
        if found[0] is Status.UNHEALTHY:
            break
    assert found == [Status.UNHEALTHY, Status.HEALTHY]


@pytest.mark.parametrize(
    ("series", "events", "diagnosis", "severity"),
    [
        ((PROBE(0, instance="a"), PROBE(1, instance="b")), (), "site down: 1 of 2 probes fail", "critical"),
        (
            (PROBE(1, instance="a"),),
            [order(number, NOW + HOUR + number, "payment_failed") for number in range(4)],
            "checkout broken: 4 payments failed since the last order",
            "critical",
        ),
        (
            (),
            [Event(f"c{number}", "checkout_started", NOW + HOUR + number, {}) for number in range(9)],
            "checkout broken: 9 checkouts began since the last order, and none became one",
            "critical",
        ),
        ((PROBE(1, instance="a"),), (), "no demand: pages answer and no payment fails", "high"),
    ],
)
async def test_why_is_told_by_what_else_is_wrong(engine, series, events, diagnosis, severity):
    check = check_of(engine)
    engine.clock.at = NOW + 10 * HOUR
    await engine.report(Report(Status.HEALTHY, "", series))
    await tell(engine, *events)
    labels = values(await check.run(None))["sales_stopped"][1]
    assert (labels["diagnosis"], labels["severity"]) == (diagnosis, severity)


async def test_where_nothing_is_left_to_sell_nothing_has_stopped(engine):
    check = check_of(engine)
    engine.clock.at = NOW + 10 * HOUR
    await engine.report(Report(Status.HEALTHY, "", (LEFT(0, city="dallas", type="ga"),)))
    report = await check.run(None)
    assert report.status is Status.HEALTHY and "nothing is left to sell" in report.summary


async def test_a_new_shop_is_learned_before_it_is_judged(tmp_path):
    made = Engine(tmp_path, ManualClock(NOW), sixfbd_events(config=PluginConfig()), "sales", Scripted)
    async with made.running():
        check = check_of(made)
        assert "no order has come" in (await check.run(None)).summary
        await tell(made, order(1, NOW - DAY))
        assert "learning: 20 orders within 7 days" in (await check.run(None)).summary
