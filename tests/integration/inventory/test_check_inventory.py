"""The check `inventory` on an engine: levels, milestones, dates, what a sale says, what is wrong with the stock."""

import msgspec
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from sixfbd.model import Status
from sixfbd_plugins.inventory.stock import Dates, Stock

LOW = ("medium", "🚨 INVENTORY LOW: dallas GA - 9 tickets remaining")


def ga(available, sold=None, limit=None, city="dallas"):
    return Stock(city, "ga", available, sold, limit)


def vip(available, **more):
    return Stock("dallas", "vip", available, **more)


@pytest.fixture
async def running(engine):
    async with engine.running():
        yield engine


@pytest.mark.parametrize(
    ("stock", "text"),
    [
        (ga(11), None),
        (ga(10), ("medium", "🚨 INVENTORY LOW: dallas GA - 10 tickets remaining")),
        (ga(6), ("medium", "🚨 INVENTORY LOW: dallas GA - 6 tickets remaining")),
        (ga(5), ("high", "🚨 INVENTORY CRITICAL: dallas GA - 5 tickets remaining")),
        (ga(1), ("high", "🚨 INVENTORY CRITICAL: dallas GA - 1 tickets remaining")),
        (ga(0), ("critical", "🚨 INVENTORY SOLD OUT: dallas GA - 0 tickets remaining")),
        (ga(-2), ("critical", "🚨 INVENTORY SOLD OUT: dallas GA - 0 tickets remaining")),
        (vip(6), None),
        (vip(5), ("medium", "🚨 INVENTORY LOW: dallas VIP - 5 tickets remaining")),
        (vip(2), ("high", "🚨 INVENTORY CRITICAL: dallas VIP - 2 tickets remaining")),
        (vip(0), ("critical", "🚨 INVENTORY SOLD OUT: dallas VIP - 0 tickets remaining")),
        (Stock("dallas", "student", 1), None),
    ],
)
async def test_the_level_of_a_tier_and_its_text(running, stock, text):
    report = await running.look(running.check(), stock)
    assert report.status is Status.HEALTHY
    assert running.texts() == ([] if text is None else [text])


async def test_a_city_and_tier_is_one_alert_whose_severity_changes(running):
    check = running.check()
    found = set()
    for left in (9, 5, 0, 7):
        await running.look(check, ga(left))
        found |= {tuple(sorted(labels.items())) for labels, *_ in running.found("InventoryLow")}
    assert found == {(("city", "dallas"), ("type", "ga"))}


async def test_thresholds_of_a_tier_and_of_a_city_take_the_place_of_the_usual_ones(running):
    check = running.check(
        tiers={"student": {"low": 3, "critical": 1, "sold_out": 0}, "ga": {"low": 20}},
        cities={"austin": {"tiers": {"ga": {"low": 2, "critical": 1}}}},
    )
    await running.look(check, ga(18), ga(5, city="austin"), Stock("dallas", "student", 3))
    assert running.texts() == [
        ("medium", "🚨 INVENTORY LOW: dallas GA - 18 tickets remaining"),
        ("medium", "🚨 INVENTORY LOW: dallas STUDENT - 3 tickets remaining"),
    ]


async def test_an_outage_is_unknown_and_never_stock_zero(running):
    check = running.check()
    await running.look(check, ga(9, 91, 100))
    running.shelf.stock = None
    running.clock.at += 60
    report = await running.run(check)
    assert (report.status, report.summary, report.samples) == (Status.UNKNOWN, "the shop does not answer", ())
    assert running.texts() == [LOW], "what was known holds until it is stale"
    await running.look(check, ga(9, 91, 100))
    assert running.milestones() == []


async def test_a_sale_that_says_less_than_the_stock_is_believed_at_once(running):
    check = running.check()
    await running.look(check, ga(30))
    await running.sell(remainingInventory={"ga": 9})
    assert running.texts() == [LOW]
    await running.look(check, ga(28))
    assert running.texts() == [LOW], "the stock lags behind"


async def test_stock_that_rises_after_a_sale_is_believed_again(running):
    check = running.check()
    await running.look(check, ga(10))
    await running.sell(remainingInventory={"ga": 9})
    await running.look(check, ga(50))
    assert running.texts() == []


async def test_a_shop_that_only_sends_sales_is_alerted_of_what_they_say_and_once(running):
    await running.sell(remainingInventory={"ga": 5, "vip": 40})
    text = ("high", "🚨 INVENTORY CRITICAL: dallas GA - 5 tickets remaining")
    assert running.texts() == [text]
    await running.send("inventory_low", cityId="dallas", remaining={"ga": 5})
    assert running.texts() == [text], "the same alert"


# ---- milestones ------------------------------------------------------------------------------------------------------------


async def test_each_milestone_that_the_stock_falls_to_is_told_once(running):
    check = running.check()
    for left in (30, 26, 25, 24, 14, 14, 3):
        await running.look(check, ga(left, limit=100))
    told = [(milestone, covered) for _, _, milestone, covered in running.milestones()]
    assert told == [(25, False), (15, False), (10, True), (5, True)]


async def test_a_milestone_is_told_again_only_after_the_stock_rose_above_it(running):
    check = running.check()
    for left in (30, 25, 24, 25, 24, 26, 25):
        await running.look(check, ga(left))
    assert [milestone for _, _, milestone, _ in running.milestones()] == [25, 25]


async def test_milestones_above_the_total_are_skipped(running):
    check = running.check()
    await running.look(check, vip(8, limit=8))
    await running.look(check, vip(10, limit=12))
    await running.look(check, vip(12, limit=12))
    await running.look(check, vip(8, limit=8))
    assert running.milestones() == []


async def test_what_is_crossed_while_the_daemon_is_down_is_told_once_whatever_restarts(engine):
    for left in (30, 14, 14, 14, 1):
        async with engine.running():
            await engine.look(engine.check(), ga(left), after_s=3600)
    told = [milestone for _, _, milestone, _ in engine.milestones()]
    assert told == [25, 15, 10, 5, 2]


async def test_a_milestone_whose_report_was_not_committed_is_told_by_the_next(running):
    check = running.check()
    await running.look(check, ga(30))
    running.shelf.stock = (ga(20),)
    lost = await check.run(await running.journal.cursor("inventory"))
    assert [event.data["milestone"] for event in lost.events] == [25]
    await running.look(check, ga(20))
    await running.look(check, ga(20))
    assert [milestone for _, _, milestone, _ in running.milestones()] == [25]


async def test_at_first_sight_nothing_is_crossed(running):
    await running.look(running.check(), ga(3))
    assert running.milestones() == []
    assert running.texts() == [("high", "🚨 INVENTORY CRITICAL: dallas GA - 3 tickets remaining")]


async def test_an_outage_between_two_looks_tells_what_was_crossed_meanwhile(running):
    check = running.check()
    await running.look(check, ga(30))
    running.shelf.stock = None
    await running.run(check)
    await running.look(check, ga(24), after_s=7200)
    assert [milestone for _, _, milestone, _ in running.milestones()] == [25]


async def test_a_city_that_is_missing_for_a_while_is_remembered(running):
    check = running.check()
    other = ga(500, city="austin")
    await running.look(check, ga(30), other)
    await running.look(check, other)
    assert running.texts() == []
    await running.look(check, ga(24), other)
    assert [milestone for _, _, milestone, _ in running.milestones()] == [25]


# ---- dates -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["options", "source"])
async def test_past_the_end_of_sale_alerts_end_and_nothing_is_forecast(running, given):
    closes_at = running.clock.at + 90
    text = "2027-01-15T08:01:30+00:00"
    check = running.check(**({"cities": {"dallas": {"sales_close_at": text}}} if given == "options" else {}))
    if given == "source":
        running.shelf.dates = {"dallas": Dates(starts_at=closes_at + 3600, sales_close_at=closes_at)}
    await running.look(check, ga(9))
    assert running.texts() == [LOW]
    assert running.value("inventory_city_tickets_remaining", city="dallas") == 9
    await running.look(check, ga(0))
    assert running.texts() == []
    assert running.ended("InventoryLow") == [({"city": "dallas", "type": "ga"}, "sales_closed")]
    assert running.milestones() == []
    assert running.value("inventory_sales_closed", city="dallas") == 1
    assert not any(sample.metric.startswith("inventory_city") for sample in (await running.look(check, ga(0))).samples)


# ---- what is wrong with the stock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stock", "by"), [(ga(0, 103, 100), 3), (ga(-2), 2), (ga(0, 100, 100), 0)])
async def test_more_sold_than_there_are_is_an_alert_of_its_own(running, stock, by):
    await running.look(running.check(), stock)
    assert running.texts("InventoryOversold") == ([("high", f"🚨 OVERSOLD: dallas GA by {by} tickets")] if by else [])


async def test_what_is_oversold_is_told_with_the_orders_that_came_last(running):
    check = running.check()
    for number in range(4):
        running.clock.at += 10
        await running.send(
            "ticket_sale", orderId=f"o{number}", cityId="dallas", tier="ga", quantity=2, amount=100, currency="USD"
        )
    await running.look(check, ga(0, 103, 100))
    [found] = running.found("InventoryOversold")
    assert (found[0], found[1]) == ({"check": "inventory", "city": "dallas", "type": "ga"}, 3.0)
    [advice] = running.advice("InventoryOversold")
    assert "o3: " in advice and "o2: " in advice and "o1: " not in advice
    await running.look(check, ga(0, 100, 100))
    assert running.found("InventoryOversold") == []


async def test_stock_that_rises_without_a_refund_is_told(running):
    check = running.check()
    await running.look(check, ga(40, 60, 100))
    await running.look(check, ga(43, 60, 100))
    text = ("medium", "3 tickets of dallas GA came back within an hour, and no refund says why")
    assert running.texts("InventoryRoseUnexplained") == [text]
    await running.send("refund", orderId="o1", cityId="dallas", tier="ga", quantity=3)
    await running.look(check, ga(43, 60, 100))
    assert running.texts("InventoryRoseUnexplained") == [], "a refund that comes later explains it"


@pytest.mark.parametrize("after", [ga(43, 57, 100), ga(43, 60, 103)])
async def test_stock_that_rises_with_fewer_sold_or_a_larger_limit_is_explained(running, after):
    check = running.check()
    await running.look(check, ga(40, 60, 100))
    await running.look(check, after)
    assert running.texts("InventoryRoseUnexplained") == []


async def test_two_sources_that_disagree_are_an_alert_that_names_both(running):
    one, other = running.check(), running.check("database")
    await running.look(one, ga(43))
    await running.look(other, ga(40))
    text = ("medium", "Sources disagree on dallas GA: inventory has 3 tickets more than database")
    assert running.texts("InventorySourcesDisagree") == [text]
    assert [labels for labels, *_ in running.found("InventorySourcesDisagree")] == [{"city": "dallas", "type": "ga"}]
    await running.look(one, ga(40))
    assert running.texts("InventorySourcesDisagree") == []


# ---- velocity --------------------------------------------------------------------------------------------------------------


async def test_velocity_is_what_was_sold_in_24_hours_divided_by_24(running):
    await running.sell(1, at=running.clock.at - 25 * 3600)
    await running.sell(30, at=running.clock.at - 20 * 3600)
    await running.sell(18, "vip", at=running.clock.at - 60)
    await running.look(running.check(), ga(30), vip(14))
    assert running.value("inventory_tickets_per_hour", city="dallas") == 2
    assert running.value("inventory_hours_until_sellout", city="dallas") == 22
    assert running.value("inventory_predicted_sellout", city="dallas") == 1
    text = "dallas is sold out in 22.0 hours at the rate of the last 24 hours"
    assert running.texts("InventorySelloutSoon") == [("medium", text)]


async def test_without_sales_no_sellout_is_predicted_and_its_hours_are_not_told(running):
    await running.look(running.check(), ga(30))
    assert running.value("inventory_predicted_sellout", city="dallas") == 0
    assert running.value("inventory_hours_until_sellout", city="dallas") is None
    assert running.texts("InventorySelloutSoon") == []


async def test_where_no_sales_are_sent_velocity_is_read_from_the_stock(running):
    check = running.check()
    for sold in (10, 16, 15, 22):
        await running.look(check, ga(100 - sold, sold, 100), after_s=3600)
    assert running.value("inventory_tickets_per_hour", city="dallas") == 13 / 24
    check = running.check("other")
    for left in (50, 44, 45, 38):
        await running.look(check, ga(left, city="austin"), after_s=3600)
    assert running.value("inventory_tickets_per_hour", city="austin") == 13 / 24


async def test_a_cursor_of_another_form_is_begun_anew_and_tells_nothing(running):
    running.shelf.stock = (ga(3),)
    report = await running.check().run({"tiers": [1, 2]})
    assert (report.status, report.events) == (Status.HEALTHY, ())


async def test_the_cursor_of_the_most_that_there_may_be_fits(running):
    check = running.check()
    stock = [Stock(f"{n:03d}" + "c" * 90, "t" * 20, 10, 10, 20) for n in range(300)]
    for left in (40, 12, 13, 14):
        report = await running.look(check, *[replace(one, available=left) for one in stock])
        assert report.status is Status.HEALTHY
    assert len(msgspec.json.encode(report.cursor)) < 64 * 1024 * 0.75


# ---- forecasts -------------------------------------------------------------------------------------------------------------


async def sell_for(running, hours, a_hour=4):
    """Sales of so many hours until now."""
    for hour in range(hours):
        await running.sell(a_hour, at=running.clock.at - (hour + 0.5) * 3600)


def told(running, kind):
    return [one for one in running.seen if one.type == kind]


async def test_a_forecast_is_shown_kept_once_an_hour_and_scored_when_all_is_sold(running):
    await sell_for(running, 60)
    check = running.check()
    for left in (40, 40, 38):
        await running.look(check, ga(left))
    low, median, high = (
        running.value("inventory_forecast_hours", city="dallas", quantile=name) for name in ("0.1", "0.5", "0.9")
    )
    assert 2 < low <= median <= high < 40
    assert running.value("inventory_forecast_probability", city="dallas", within="48h") > 0.9
    [first] = told(running, "inventory_forecast")
    assert (first.data["remaining"], first.data["seedHours"]) == (40, 10)
    await running.look(check, ga(36), after_s=3600)
    assert len(told(running, "inventory_forecast")) == 2
    assert told(running, "inventory_forecast_score") == []
    await running.look(check, ga(0), after_s=8 * 3600 - 120)
    await running.look(check, ga(0))
    scores = {one.data["forecastId"]: one.data for one in told(running, "inventory_forecast_score")}
    assert len(scores) == 2
    score = scores[first.id]
    assert score["actualHours"] == pytest.approx(9)
    assert score["seedErrorHours"] == pytest.approx(1)
    assert running.value("inventory_forecasts_scored_total", method="weighted") == 2
    assert running.value("inventory_forecast_error_hours_total", method="weighted") == pytest.approx(
        sum(one["errorHours"] for one in scores.values())
    )
    assert running.value("inventory_forecasts_covered_total") == sum(one["covered"] for one in scores.values())


async def test_forecasts_made_before_the_stock_rose_are_not_scored(running):
    await sell_for(running, 30)
    check = running.check()
    await running.look(check, ga(40))
    await running.look(check, ga(80, limit=100))
    await running.look(check, ga(0), after_s=7200)
    assert len(told(running, "inventory_forecast")) == 1
    assert told(running, "inventory_forecast_score") == []


async def test_forecasts_are_scored_across_a_restart_and_once(engine):
    async with engine.running():
        await sell_for(engine, 30)
        await engine.look(engine.check(), ga(40))
    for left in (0, 0):
        async with engine.running():
            await engine.look(engine.check(), ga(left), after_s=3600)
    assert len(told(engine, "inventory_forecast_score")) == 1


async def test_nothing_is_foretold_past_the_end_of_sale_or_of_a_city_without_sales(running):
    await sell_for(running, 30)
    check = running.check(cities={"dallas": {"starts_at": "2020-01-01T00:00:00Z"}})
    report = await running.look(check, ga(40), ga(40, city="austin"))
    assert not any(sample.metric.startswith("inventory_forecast") for sample in report.samples)
    assert told(running, "inventory_forecast") == []


async def test_a_citys_stock_is_recorded_when_it_changes_and_once_a_minute(running):
    check = running.check()
    with capture_logs() as lines:
        for stock in (ga(9), ga(9), ga(8)):
            await running.look(check, stock, after_s=1)
        await running.look(check, ga(8), after_s=61)
    recorded = [line["ga"]["available"] for line in lines if line["event"] == "inventory_metrics"]
    assert recorded == [9, 8, 8]
