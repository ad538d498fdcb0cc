"""The `ledger` check over a real journal: late parts, restarts, and more events than a read returns."""

import pytest

from sixfbd.model import CheckName, MetricKind, Sample, labels_of
from sixfbd.plugin import DAY, PluginConfig, ReportRequest, Status
from sixfbd_plugins.business.events import sixfbd_events
from sixfbd_plugins.ledger import check as ledger_check
from sixfbd_plugins.ledger.check import FAR_BACK_S, LedgerCheck, LedgerOptions, ledger
from sixfbd_plugins.stripe.events import EVENT
from tests.provider_kit import Engine, ManualClock, PluginContext
from tests.unit.ledger.test_book import WHOLE, T, confirmed, paid, refund, sale


@pytest.fixture
async def engine(tmp_path):
    made = Engine(tmp_path, ManualClock(T + 60), [*sixfbd_events(config=PluginConfig()), EVENT], "ledger", LedgerCheck)
    async with made.running():
        yield made


def check_of(engine, **options):
    return LedgerCheck(LedgerOptions(**options), PluginContext(None, engine.clock, engine.read))


async def tell(engine, *events):
    answers = await engine.intake.events("shop", list(events))
    assert all(type(one).__name__ in ("Accepted", "Duplicate") for one in answers), answers


def values(report):
    return {(one.metric, *(value for _, value in one.labels)): one.value for one in report.samples}


async def test_what_does_not_add_up_is_counted_and_told_with_its_history_until_it_does(engine):
    check = check_of(engine)
    await tell(engine, sale("whole"), paid("whole"), confirmed("whole"), paid("odd", T + 10))
    assert (await check.run(None)).status is Status.HEALTHY
    engine.clock.at = T + 400
    report = await check.run(None)
    assert report.status is Status.DEGRADED and report.summary == "1 paid, and no ticket was made"
    found = values(report)
    assert found["ledger_mismatches", "paid_without_ticket"] == 1 and found["ledger_orders", "matched"] == 1
    assert found["ledger_mismatch_detail", "odd: 08:00:10 paid $50.00", "paid_without_ticket"] == 1
    await engine.report(report)
    await tell(engine, sale("odd", T + 390), confirmed("odd", T + 391))
    assert (await check.run(None)).status is Status.HEALTHY


async def test_a_part_that_comes_hours_later_is_found_by_the_order_that_waits_for_it(engine):
    check = check_of(engine)
    await tell(engine, sale("whole"), paid("whole"), confirmed("whole"), sale("late"), confirmed("late"))
    engine.clock.at = T + 5 * 3600
    assert (await check.run(None)).summary == "1 a ticket was made, and no payment succeeded"
    await tell(engine, paid("late", T + 2))  # as its provider says, hours ago
    engine.clock.at += FAR_BACK_S
    assert (await check.run(None)).status is Status.HEALTHY


async def test_a_payment_that_comes_hours_late_is_found_also_if_it_was_made_before_the_ticket(engine):
    check = check_of(engine)
    await tell(engine, *WHOLE, sale("late"), confirmed("late"))
    engine.clock.at = T + 5 * 3600
    assert (await check.run(None)).summary == "1 a ticket was made, and no payment succeeded"
    await tell(engine, paid("late", T - 2))
    engine.clock.at += FAR_BACK_S
    assert (await check.run(None)).status is Status.HEALTHY


async def test_the_report_names_whom_a_tier_was_sold_to_that_was_sold_out(engine):
    await tell(engine, *(one for n in range(3) for one in (sale(f"o{n}", T + n), paid(f"o{n}", T + n))))
    labels = labels_of({"city": "dallas", "type": "ga"})
    stock = [Sample("inventory_oversold_tickets", 3.0, labels, MetricKind.GAUGE)]
    engine.intake.report_own(CheckName("stock"), stock, 60)
    found = (await ledger(ReportRequest(read=engine.read, start=T - DAY, end=T + 60)))["oversold"]
    assert [(one["city"], one["type"], one["tickets"], one["order"]) for one in found] == [
        ("dallas", "ga", 3, "o2"),
        ("dallas", "ga", 3, "o1"),
    ]
    assert found[0]["history"].startswith("o2: ")


@pytest.mark.parametrize(("paid_at", "sold_at"), [(T - 2, T + 2), (T + 2, T - 2)])
async def test_an_order_over_the_edge_of_the_window_is_whole(engine, paid_at, sold_at):
    new = T + DAY - 2000
    await tell(engine, paid("edge", paid_at), sale("edge", sold_at), confirmed("edge", T + 2))
    check = check_of(engine)
    engine.clock.at = new
    await tell(engine, sale("new", new), paid("new", new), confirmed("new", new))
    assert (await check.run(None)).status is Status.HEALTHY
    engine.clock.at = T + DAY
    assert (await check.run(None)).status is Status.HEALTHY
    after_restart = await check_of(engine).run(None)
    assert (after_restart.status, after_restart.summary) == (Status.HEALTHY, "1 orders add up")
    report = await ledger(ReportRequest(read=engine.read, start=T, end=T + DAY))
    assert report["mismatches"] == []


async def test_confirmations_that_ended_long_ago_are_missed_after_a_restart_too(engine):
    check = check_of(engine)
    await tell(engine, *WHOLE)
    await check.run(None)
    engine.clock.at = T + 3 * DAY
    await tell(engine, sale("mute", T + 3 * DAY), paid("mute", T + 3 * DAY))
    engine.clock.at += 3600
    before = values(await check.run(None))
    assert before["ledger_mismatches", "confirmation_missing"] == 1
    assert values(await check_of(engine).run(None)) == before


async def test_what_does_not_add_up_is_not_over_because_it_is_old_also_after_a_restart(engine):
    check = check_of(engine)
    await tell(engine, *WHOLE, paid("odd", T + 10))
    engine.clock.at = T + 3600
    cursor = (await check.run(None)).cursor
    assert (await check.run(None)).cursor is None, "nothing new to remember"
    engine.clock.at = T + 3 * DAY
    await tell(engine, sale("new", T + 3 * DAY), paid("new", T + 3 * DAY), confirmed("new", T + 3 * DAY))
    before = await check.run(None)
    assert before.summary == "1 paid, and no ticket was made" and values(before)["ledger_orders", "matched"] == 1
    restarted = check_of(engine)
    assert values(await restarted.run(cursor)) == values(before)
    await tell(engine, refund("odd", T + 3 * DAY))
    after = await restarted.run(None)
    assert after.status is Status.HEALTHY and after.cursor == {"unsettled": {}}
    engine.clock.at += FAR_BACK_S
    assert (await restarted.run(None)).status is Status.HEALTHY


async def test_a_cursor_that_is_none_of_ours_is_as_none(engine):
    for cursor in (7, {"unsettled": 7}, {"unsettled": {"a": "b"}}, {"other": 1}):
        assert (await check_of(engine).run(cursor)).status is Status.HEALTHY


async def test_a_restart_finds_the_same(engine):
    await tell(engine, sale("whole"), paid("whole"), confirmed("whole"), paid("odd"), sale("back"), refund("back"))
    engine.clock.at = T + 3600
    before = values(await check_of(engine).run(None))
    assert values(await check_of(engine).run(None)) == before
    assert before["ledger_mismatches", "paid_without_ticket"] == 1


async def test_more_events_than_a_read_returns_are_all_read(engine, monkeypatch):
    monkeypatch.setattr(ledger_check, "PAGE", 40)
    real = engine.read.events

    async def few(kind, start, end):
        return (await real(kind, start, end))[:40]

    engine.read.events = few
    await tell(engine, *(one for n in range(300) for one in (sale(f"o{n}", T - n), paid(f"o{n}", T - n))))
    found = values(await check_of(engine).run(None))
    assert found["ledger_orders", "matched"] == 300


async def test_the_report_is_of_all_orders_or_of_one(engine):
    await tell(engine, sale("whole"), paid("whole"), confirmed("whole"), paid("odd"))
    asked = ReportRequest(read=engine.read, start=T - DAY, end=T + 3600)
    report = await ledger(asked)
    assert (report["orders"], report["matched"]) == (2, 1)
    [odd] = report["mismatches"]
    assert (odd["order"], odd["missing"]) == ("odd", "paid, and no ticket was made")
    one = await ledger(ReportRequest(read=engine.read, start=T - DAY, end=T + 3600, about="odd"))
    assert one == {"order": "odd", "history": "odd: 08:00:00 paid $50.00", "missing": ["paid, and no ticket was made"]}
