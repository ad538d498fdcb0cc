"""A day of payments through list, webhooks, the real door and the real journal: what is counted equals what happened, exactly."""

import os
import random
from collections import Counter

import httpx

from sixfbd.plugin import DAY, HOUR, MINUTE, InboundRequest, Secret
from sixfbd_plugins.inbound.stripe import StripeInbound
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.stripe import Try
from sixfbd_plugins.stripe.payments import FAILED

PAYMENTS = int(os.environ.get("SIXFBD_STRIPE_PAYMENTS", "600"))  # a day of the issue is 20000
INTERVAL_S = 10 * MINUTE if PAYMENTS > 10_000 else 25 * MINUTE  # each run waits for the disk several times
FINAL_AFTER_S = 30 * MINUTE
DECLINES = ("insufficient_funds", "do_not_honor", "expired_card")
ERRORS = (("processing_error", "card_error"), ("rate_limit", "api_error"))


class Truth(Counter[tuple[str, ...]]):
    """What is counted if nothing is missed and nothing counted twice."""

    def failed_attempt(self, step):
        kind = "decline" if step.code in DECLINES else "error"
        self["stripe_attempts_failed_total", kind, step.code] += 1

    def paid(self, amount, currency):
        self["stripe_paid_total", currency.upper()] += 1
        self["stripe_paid_minor_total", currency.upper()] += amount

    def ended(self, tries):
        counted = [one for one in tries if one.after_s <= tries[0].after_s + FINAL_AFTER_S]
        last = counted[-1]
        outcome = "succeeded" if last.becomes in ("succeeded", "authorized", "captured") else "declined"
        if last.becomes == "failed" and last.code not in DECLINES:
            outcome = "error"
        self["stripe_payments_total", outcome] += 1
        self["payments_attempted_total",] += 1
        if outcome in FAILED:
            self["payments_failed_total",] += 1


def tries_of(rng):
    """What becomes of one payment: tries in order, some of them long after the outcome was final."""
    tries, at = [], float(rng.randrange(1, 60))
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2, 4])):
        code, kind = (rng.choice(DECLINES), "card_error") if rng.random() < 0.8 else rng.choice(ERRORS)
        tries.append(Try(at, "failed", code, kind))
        at += rng.choice([7.0, 60.0, 600.0, 3 * HOUR])
    if rng.random() < 0.9 or not tries:
        tries.append(Try(at, rng.choice(["succeeded", "succeeded", "succeeded", "authorized"])))
        if tries[-1].becomes == "authorized":
            tries.append(Try(at + rng.choice([30.0, 2 * HOUR]), "captured"))
    return tries


def shop_day(double, rng, began):
    """Let a shop sell for a day; return the truth."""
    truth = Truth()
    for number in range(PAYMENTS):
        at = began + int(number * DAY / PAYMENTS)
        amount, currency = rng.choice([1, 999, 4999, 100_000_001]), rng.choice(["usd", "usd", "eur", "jpy", "kwd"])
        if rng.random() < 0.05:
            fails = rng.random() < 0.2
            tries = [Try(1.0, "failed", "expired_card") if fails else Try(1.0, "succeeded")]
            double.pay(amount, currency, tries, at=at, bare=True)
        else:
            tries = tries_of(rng)
            double.pay(amount, currency, tries, at=at)
        for one in tries:
            if one.becomes == "failed":
                truth.failed_attempt(one)
            if one.becomes in ("succeeded", "captured"):
                truth.paid(amount, currency)
        truth.ended(tries)
    return truth


def money_goes_back(double, rng, clock, truth):
    """Now and then something is refunded, disputed or paid out."""
    paid = [one for one in double.payments.values() if not one.tries and one.charge]
    if not paid:
        return
    one = rng.choice(paid)
    match rng.randrange(4):
        case 0:
            double.refund(one.id, 1 + one.amount // 3)
            truth["stripe_refunds_total", one.currency.upper()] += 1
            truth["stripe_refunded_minor_total", one.currency.upper()] += 1 + one.amount // 3
        case 1:
            inquiry = rng.random() < 0.5
            double.dispute(one.id, clock.at + 7 * DAY, reason="product_not_received", inquiry=inquiry)
            truth["stripe_disputes_total", "product_not_received"] += 1
            truth["stripe_disputed_minor_total", one.currency.upper()] += one.amount
            if not inquiry:
                truth["stripe_chargebacks_total",] += 1
        case 2:
            fails = rng.random() < 0.5
            double.pay_out(one.amount, "usd", fails=fails)
            truth["stripe_payouts_total", "USD", "failed" if fails else "paid"] += 1


async def post_webhooks(double, rng, engine, inbound, clock, held):
    """Post what is due, in any order, some twice, some late, some never answered."""
    posted = [*double.deliveries(), *held]
    rng.shuffle(posted)
    came = []
    held[:] = [one for one in posted if rng.random() < 0.1]
    for delivery in posted:
        if delivery in held or rng.random() < 0.1:
            continue
        headers = {
            **delivery.headers,
            "stripe-signature": double.signature(delivery.body, inbound.options.secrets[0].reveal()),
        }
        request = InboundRequest(
            name="stripe", url="", body=delivery.body, received_at=clock.at, headers=httpx.Headers(headers)
        )
        for _ in range(1 + (rng.random() < 0.1)):
            came += inbound.receive(request)
        double.answered(delivery, 200 if rng.random() < 0.95 else 500)
    for start in range(0, len(came), 1000):
        await engine.intake.events("inbound:stripe", came[start : start + 1000])


async def test_a_day_of_payments_is_counted_exactly_through_restarts_failures_repeats_and_disorder(
    kit, tmp_path, clock
):
    rng = random.Random(20_000)
    double = kit.double(clock.now, late=lambda event: rng.choice([0.0, 0.0, 5.0, 500.0]))
    double.add_endpoint("https://hooks.example.com/webhooks/stripe", kit.SIGNING)
    inbound = StripeInbound(StripeInbound.Options(secrets=(Secret(kit.SIGNING, "a"),)), None)
    began = clock.at
    truth = shop_day(double, rng, began)
    double.faults = [
        Fault(error=503, rate=0.02), Fault(error=429, retry_after_s=3, rate=0.01), Fault(lost=True, rate=0.01),
    ]  # fmt: skip
    engine, held = kit.Engine(tmp_path, clock), []
    ends = began + DAY + 14 * HOUR
    while clock.at < ends:
        restart_at = clock.at + rng.choice([20 * MINUTE, 2 * HOUR, 11 * HOUR])
        async with engine.running():
            check = kit.check(kit.InProcess(double), clock, engine.read, inbound="stripe")
            while clock.at < min(restart_at, ends):
                if clock.at < began + DAY:
                    money_goes_back(double, rng, clock, truth)
                await post_webhooks(double, rng, engine, inbound, clock, held)
                await kit.run_through(check, engine)
                clock.at += INTERVAL_S
            counted = engine.counted()
        clock.at += rng.choice([0.0, 30.0, 40 * MINUTE])  # nobody watches meanwhile
    types = Counter(event["type"] for event in double.events.values())
    truth.update({("stripe_events_total", name): count for name, count in types.items()})
    assert {key: count for key, count in counted.items() if key[0].endswith("_total")} == dict(truth)
