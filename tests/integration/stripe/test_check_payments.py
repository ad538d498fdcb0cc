"""The `payments` check against a double of Stripe: what it finds, what each failure becomes, what is never shown."""

import json
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from sixfbd.plugin import DAY, HOUR, MINUTE, Configured, Event, InvalidOptions, Secret, Status
from sixfbd.world import EngineClock
from sixfbd_plugins.checks.payments import PaymentsCheck, PaymentsOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.stripe import Try
from sixfbd_plugins.stripe.events import DISPUTE

PAID = (Try(1.0, "succeeded"),)
DECLINED = (Try(1.0, "failed", "insufficient_funds"),)
BROKEN = (Try(1.0, "failed", "processing_error"),)


@pytest.fixture
async def engine(kit, tmp_path, clock):
    async with kit.Engine(tmp_path, clock).running() as running:
        yield running


@pytest.fixture
def look(kit, clock, double, engine):
    """Run a new check to its end, as after a restart; return its last report."""

    async def run(**options):
        return await kit.run_through(kit.check(kit.InProcess(double), clock, engine.read, **options), engine)

    return run


async def test_an_account_in_order_is_healthy_and_told_with_its_balance_in_minor_units(look, kit, double):
    double.balance = {"usd": (123_456, -78), "jpy": (5000, 0)}
    report = await look()
    assert (report.status, report.reachable) == (Status.HEALTHY, True), report.summary
    found = kit.values(report)
    assert found["stripe_balance_minor", "USD", "available"] == 123_456
    assert found["stripe_balance_minor", "USD", "pending"] == -78
    assert found["stripe_balance_minor", "JPY", "available"] == 5000
    assert found["stripe_api_latency_seconds",] > 0
    assert {method for method, _ in double.requests} == {"GET"}


async def test_a_buyer_with_four_declines_and_a_success_is_one_success(look, kit, double, clock, engine):
    declines = [Try(after, "failed", "do_not_honor") for after in (0.0, 60.0, 120.0, 180.0)]
    double.pay(4999, "usd", (*declines, Try(240.0, "succeeded")), at=clock.at - 20 * MINUTE)
    found = kit.values(await look())
    assert {name: found["stripe_payments_recent", name] for name in ("succeeded", "declined", "error")} == {
        "succeeded": 1, "declined": 0, "error": 0,
    }  # fmt: skip
    assert found["stripe_payment_failure_ratio",] == 0
    counted = engine.counted()
    assert counted["payments_attempted_total",] == counted["stripe_payments_total", "succeeded"] == 1
    assert ("payments_failed_total",) not in counted
    assert counted["stripe_attempts_failed_total", "decline", "do_not_honor"] == 4
    assert counted["stripe_paid_minor_total", "USD"] == 4999


async def test_declines_and_technical_errors_are_kept_apart(look, kit, double, clock, engine):
    for tries in (DECLINED, BROKEN, (Try(1.0, "failed", "", "api_error"),), (Try(1.0, "failed", "brand_new_code"),)):
        double.pay(1000, "usd", tries, at=clock.at - 5 * MINUTE)
    found = kit.values(await look())
    assert (found["stripe_payments_recent", "declined"], found["stripe_payments_recent", "error"]) == (2, 2)
    failed = {key[1:]: count for key, count in engine.counted().items() if key[0] == "stripe_attempts_failed_total"}
    assert failed == {
        ("decline", "insufficient_funds"): 1, ("decline", "card_declined"): 1, ("error", "processing_error"): 1,
        ("error", "api_error"): 1,
    }  # fmt: skip


async def test_a_failure_is_final_half_an_hour_after_the_first_attempt_and_stays_it(look, double, clock, engine):
    double.pay(1000, "usd", (Try(0.0, "failed", "do_not_honor"), Try(2 * HOUR, "succeeded")))
    counts = []
    for _ in range(15):
        await look()
        counted = engine.counted()
        counts.append((counted.get(("payments_failed_total",), 0), counted.get(("stripe_paid_minor_total", "USD"), 0)))
        clock.at += 10 * MINUTE
    assert counts[3] == (0, 0) and counts[5] == (1, 0) and counts[-1] == (1, 1000)
    assert counted["payments_attempted_total",] == 1


async def test_a_bare_charge_is_a_payment_and_an_intents_charge_is_none(look, double, clock, engine):
    double.pay(500, "jpy", PAID, at=clock.at - MINUTE, bare=True)
    double.pay(700, "eur", (Try(0.0, "authorized"), Try(30.0, "captured")), at=clock.at - MINUTE)
    await look()
    counted = engine.counted()
    assert counted["payments_attempted_total",] == 2
    assert (counted["stripe_paid_minor_total", "JPY"], counted["stripe_paid_minor_total", "EUR"]) == (500, 700)
    assert (counted["stripe_paid_total", "JPY"], counted["stripe_paid_total", "EUR"]) == (1, 1)


async def test_refunds_disputes_and_payouts_are_counted_each_once(look, double, clock, engine):
    paid = [double.pay(1000, "usd", PAID, at=clock.at - HOUR) for _ in range(3)]
    double.advance()
    double.refund(paid[0], 400, at=clock.at - 60)
    double.refund(paid[0], 600, at=clock.at - 60, fails=True)
    double.dispute(paid[1], clock.at + 7 * DAY, at=clock.at - 60)
    double.dispute(paid[2], clock.at + 9 * DAY, at=clock.at - 60, inquiry=True)
    double.pay_out(5000, "usd", at=clock.at - 60)
    double.pay_out(6000, "usd", at=clock.at - 60, fails=True)
    for _ in range(2):
        report = await look()
    counted = engine.counted()
    assert (counted["stripe_refunds_total", "USD"], counted["stripe_refunded_minor_total", "USD"]) == (2, 1000)
    assert counted["stripe_refunds_failed_total", "USD"] == 1
    assert (counted["stripe_disputes_total", "fraudulent"], counted["stripe_chargebacks_total",]) == (2, 1)
    assert (counted["stripe_payouts_total", "USD", "paid"], counted["stripe_payouts_total", "USD", "failed"]) == (1, 1)
    found = {one.metric: one.value for one in report.samples}
    assert (found["stripe_disputes_open"], found["stripe_dispute_due_timestamp_seconds"]) == (2, clock.at + 7 * DAY)


async def test_a_new_dispute_is_one_notice_with_its_deadline(look, double, clock, engine):
    name = double.pay(1000, "usd", PAID, at=clock.at - HOUR)
    double.advance()
    dispute = double.dispute(name, clock.at + 7 * DAY, at=clock.at - 60)
    await look()
    [event] = await engine.read.events("stripe_dispute", 0.0, clock.at)
    assert (event.id, event.data["respondBy"], event.data["amount"]) == (dispute, "2027-01-22T08:00:00.000Z", 1000)
    said = DISPUTE.notice_text(msgspec.convert(event.data, DISPUTE.data))
    assert said.startswith("Dispute: $10.00, ")
    assert said.endswith("; answer it at Stripe by 2027-01-22 08:00 UTC, or the money is lost")


async def test_undelivered_webhooks_are_a_part_of_what_happened_and_known_after_an_hour(look, kit, double, clock):
    double.add_endpoint("https://shop.example.com/webhooks/stripe", kit.SIGNING)
    for _ in range(20):
        double.pay(1000, "usd", PAID)
    clock.at += 2
    for number, delivery in enumerate(double.deliveries()):
        double.answered(delivery, 200 if number % 4 else 500)
    await look()
    clock.at += 30 * MINUTE
    assert kit.values(await look())["stripe_webhook_failure_ratio",] == 0
    clock.at += 31 * MINUTE
    report = await look()
    assert kit.values(report)["stripe_webhook_failure_ratio",] == 0.25
    assert report.summary == "10 of 40 events are undelivered after 1h"


async def test_a_disabled_endpoint_is_told(look, kit, double):
    endpoint = double.add_endpoint("https://shop.example.com/hook", kit.SIGNING)
    assert kit.values(await look())["stripe_webhook_endpoint_enabled", endpoint.id] == 1
    endpoint.status = "disabled"
    assert kit.values(await look())["stripe_webhook_endpoint_enabled", endpoint.id] == 0


async def test_events_that_our_receiver_never_saw_are_named_with_type_and_age_until_they_come(
    look, kit, double, clock, engine
):
    double.add_endpoint("https://hooks.example.com/webhooks/stripe", kit.SIGNING, enabled_events=("payout.failed",))
    await look(inbound="stripe")
    clock.at += 10
    double.pay(1000, "usd", PAID)  # of a type that the endpoint does not send
    double.pay_out(1, "usd", fails=True)
    double.pay_out(2, "usd", fails=True)
    clock.at += 10
    came, lost = [one.event for one in double.deliveries()]
    made_at = double.events[came]["created"]

    async def arrive(name):
        await engine.intake.events(
            "inbound:stripe",
            [Event(name, "stripe_delivery", made_at, {"type": "payout.failed", "inbound": "stripe"})],
        )

    await arrive(came)
    clock.at += 50 * MINUTE
    assert kit.values(await look(inbound="stripe"))["stripe_webhooks_missing",] == 0
    clock.at += 15 * MINUTE
    report = await look(inbound="stripe")
    assert kit.values(report)["stripe_webhooks_missing",] == 1
    assert f"1 events never came in by inbound stripe: {lost} (payout.failed, 1h5m10s old)" in report.summary
    await arrive(lost)
    report = await look(inbound="stripe")
    assert kit.values(report)["stripe_webhooks_missing",] == 0


async def test_an_inbound_that_stripe_does_not_call_is_told(look):
    report = await look(inbound="stripe")
    assert report.status is Status.DEGRADED
    assert report.summary == "no webhook endpoint has an address that ends in /webhooks/stripe"


# ---- over the wire -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def wired(kit, wire, outbound):
    """Run a check of the served double once."""

    def make(**options):
        return kit.check(outbound, EngineClock(), base_url=wire.url, **options)

    return make


FAULTS = [
    (Fault(error=503), Status.UNHEALTHY, "answered 503: a fault of the sandbox"),
    (Fault(lost=True), Status.UNHEALTHY, "Server disconnected without sending a response"),
    (Fault(error=401), Status.DEGRADED, "the balance: answered 401"),
    (Fault(error=429), Status.DEGRADED, "Stripe is asked again in 30 s"),
    (Fault(error=403, path="webhook_endpoints"), Status.DEGRADED, "webhook endpoints: answered 403"),
    (Fault(error=500, path="events"), Status.UNHEALTHY, "answered 500"),
    (Fault(latency_s=0.01), Status.HEALTHY, "answered in "),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "status", "words"), FAULTS, ids=lambda value: str(value)[:50])
async def test_each_failure_has_its_status_and_is_named(kit, wired, wire, fault, status, words):
    wire.double.faults = [fault]
    report = await kit.run_through(wired())
    assert (report.status, words in report.summary) == (status, True), report.summary
    assert kit.values(report).get(("stripe_service_error",), 0.0) == (status is Status.UNHEALTHY)


@pytest.mark.parametrize("headers", [{}, {"stripe-should-retry": "true"}, {"stripe-should-retry": "false"}])
async def test_who_asks_too_much_waits_as_long_as_stripe_says_and_goes_on_where_it_was(
    kit, look, double, clock, engine, headers
):
    for _ in range(70):
        double.pay(100, "usd", PAID, at=clock.at - 2 * HOUR)
    double.advance()
    double.faults, double.fault_headers = [Fault(error=429, retry_after_s=150, path="events")], headers
    report = await look()
    assert (report.status, "asked again in 150 s" in report.summary) == (Status.DEGRADED, True), report.summary
    asked = len(double.requests)
    clock.at += 2 * MINUTE
    report = await look()
    assert len(double.requests) == asked
    assert report.summary == "Stripe has had too many requests; the next in 30 s"
    double.faults = []
    clock.at += 2 * MINUTE
    assert (await look()).status is Status.HEALTHY
    assert engine.counted()["stripe_paid_total", "USD"] == 70


async def test_a_page_that_cannot_be_read_is_asked_for_again_and_what_came_before_is_kept(
    kit, look, double, clock, engine
):
    for _ in range(150):
        double.pay(100, "usd", PAID, at=clock.at - HOUR)
    double.advance()
    double.faults = [Fault(error=500, path="events", rate=0.6)]
    for _ in range(60):
        await look(history=2 * HOUR)
    assert engine.counted()["stripe_paid_total", "USD"] == 150
    assert engine.counted()["stripe_events_total", "payment_intent.succeeded"] == 150


async def test_a_provider_that_accepts_and_never_answers_costs_one_slot_for_one_deadline(kit, wired, wire, outbound):
    wire.double.faults = [Fault(silent=True)]
    check = wired()
    check._account._call_s = 0.5
    began = trio.current_time()
    report = await kit.run_through(check)
    assert (report.status, report.summary) == (Status.UNHEALTHY, "no answer within 0.5 s")
    assert trio.current_time() - began < 5
    assert len(wire.double.requests) == 1
    assert outbound._limiter.borrowed_tokens == 0


async def test_nothing_that_is_said_holds_the_key_or_an_address(kit, wired, wire):
    said = []
    for fault in (Fault(error=400), Fault(error=500), Fault(lost=True), Fault(error=401), Fault(error=429)):
        wire.double.faults = [fault]
        wire.double.fault_words = f"Invalid API Key provided: {kit.KEY} of jenny@example.com"
        with capture_logs() as lines:
            report = await kit.run_through(wired())
        said += [repr(report), repr(lines)]
    assert not [text for text in said if kit.KEY in text or "jenny" in text]
    assert any("***" in text for text in said)


async def test_nothing_personal_is_kept_of_what_stripe_says(look, double, clock, tmp_path, engine):
    name = double.pay(1000, "usd", PAID, at=clock.at - HOUR)
    double.pay(1000, "usd", DECLINED, at=clock.at - HOUR)
    double.advance()
    assert "Jenny" in json.dumps(double.events) and "jenny@example.com" in json.dumps(double.events)
    double.dispute(name, clock.at + DAY)
    double.refund(name, 1)
    clock.at += 1
    await look()
    kept = [event for kind in ("stripe_event", "stripe_payment", "stripe_dispute")
            for event in await engine.read.events(kind, 0.0, clock.at)]  # fmt: skip
    assert len(kept) >= 8
    for word in ("Jenny", "example.com", "4242", "visa", "secret", "exp_month"):
        assert word not in repr(kept), word


async def test_the_sdk_writes_no_file_and_asks_for_one_version_of_the_api(kit, wired, wire, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    seen = []
    handle = wire.double.handle

    def watch(method, path, query, headers, body):
        seen.append(headers)
        return handle(method, path, query, headers, body)

    wire.double.handle = watch
    assert (await kit.run_through(wired())).status is Status.HEALTHY
    assert {one["stripe-version"] for one in seen} == {"2026-10-28.endive"}
    assert not [one for one in seen if "x-stripe-client-telemetry" in one]
    assert list(Path(tmp_path).iterdir()) == []


def day_before(found):
    return {key[1]: value for key, value in found.items() if key[0] == "stripe_payments_day_before" and value}


async def test_payments_of_the_same_hours_a_day_before_are_told_as_they_were_then(look, kit, double, clock):
    then = clock.at - DAY
    for tries in (PAID, PAID, DECLINED, (Try(0.0, "failed", "do_not_honor"), Try(20 * MINUTE, "succeeded"))):
        double.pay(1000, "usd", tries, at=then - 10 * MINUTE)
    for at in (then - HOUR - MINUTE, then + MINUTE, clock.at - MINUTE):
        double.pay(1000, "usd", BROKEN, at=at)
    with capture_logs() as lines:
        report = await look(history=2 * DAY)
    assert day_before(kit.values(report)) == {"succeeded": 2, "declined": 2}
    [record] = [line for line in lines if line["event"] == "payment_health_check"]
    assert record["dayBefore"] == {"totalPayments": 4, "failureRate": 0.5}


async def test_nothing_is_told_of_a_day_before_that_was_not_read_whole(look, kit, double, clock):
    double.pay(1000, "usd", PAID, at=clock.at - DAY + 45 * MINUTE)
    told = []
    for _ in range(4):
        told.append(day_before(kit.values(await look(history=DAY))))
        clock.at += 30 * MINUTE + 1
    assert told == [{}, {}, {"succeeded": 1}, {"succeeded": 1}]


async def test_each_run_leaves_one_record_in_the_log_with_whole_minor_units(look, double, clock):
    for amount in (1000, 1001):
        double.pay(amount, "usd", PAID, at=clock.at - 60)
    double.pay(1, "usd", DECLINED, at=clock.at - 60)
    with capture_logs() as lines:
        await look()
    [record] = [line for line in lines if line["event"] == "payment_health_check"]
    assert (record["totalPayments"], record["successfulPayments"], record["failedPayments"]) == (3, 2, 1)
    assert (record["totalAmount"], record["averageOrderValue"]) == ({"USD": 2001}, {"USD": 1000})
    assert record["topFailureReasons"] == {"insufficient_funds": 1}
    assert record["averageResponseTime"] is None and record["unknown"]["averageResponseTime"]


WRONG = [
    ({"api_key": Secret("", "env K")}, "api_key: is missing"),
    ({"api_key": Secret("pk_live_0123456789", "env K")}, "api_key: is a publishable key"),
    ({"api_key": Secret("hunter2", "env K")}, "api_key: is no key of Stripe's"),
    ({"base_url": "https://user:pw@example.com/x"}, "base_url: is not an address"),
    ({"base_url": "http://[::1"}, "base_url: is not an address"),
    ({"history": 31 * DAY}, "history: is more than 30d"),
    ({"final_after": 0.0}, "final_after: is more than 1d, or nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_option_is_named_and_its_value_is_not_shown(options, words):
    with pytest.raises(InvalidOptions) as failure:
        PaymentsOptions(**{"api_key": Secret("rk_test_0123456789", "env K"), **options})
    assert words in str(failure.value)
    assert not [value for value in ("hunter2", "0123456789", "user:pw") if value in str(failure.value)]


HOOKS = ("https://hooks.example.com/webhooks/a", "https://hooks.example.com/webhooks/b")


@pytest.mark.parametrize(("given", "hooks", "inbound"), [("", HOOKS[:1], "a"), ("", HOOKS, ""), ("b", HOOKS, "b")])
def test_the_only_inbound_of_kind_stripe_need_not_be_named(kit, given, hooks, inbound):
    options = PaymentsOptions(api_key=Secret(kit.KEY, "env K"), inbound=given)
    assert PaymentsCheck.complete(options, Configured(webhooks={"stripe": hooks})).inbound == inbound


def test_an_inbound_that_is_none_of_stripes_is_named(kit):
    options = PaymentsOptions(api_key=Secret(kit.KEY, "env K"), inbound="c")
    with pytest.raises(InvalidOptions, match="inbound: names no inbound of kind stripe; write one of these: a, b"):
        PaymentsCheck.complete(options, Configured(webhooks={"stripe": HOOKS}))


async def test_figures_stay_in_every_page_of_a_run(kit, double, clock, engine):
    double.pay(1, "usd", DECLINED, at=clock.at - 60)
    await kit.run_through(kit.check(kit.InProcess(double), clock, engine.read), engine)
    for _ in range(2000):
        double.pay(1, "usd", PAID, at=clock.at + 1)
    clock.at += 10
    check, cursor, pages = (
        kit.check(kit.InProcess(double), clock, engine.read),
        await engine.journal.cursor("stripe"),
        [],
    )
    while not pages or pages[-1].more:
        pages.append(await check.run(cursor))
        await engine.report(pages[-1])
        cursor = msgspec.json.decode(msgspec.json.encode(pages[-1].cursor))
    assert len(pages) > 3
    assert all(("stripe_payment_failure_ratio",) in kit.values(page) for page in pages)
