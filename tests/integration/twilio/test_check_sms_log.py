"""The message log through the reader, the real door and the real journal: what is counted equals what happened, exactly."""

import os
import random

import msgspec

from sixfbd.plugin import DAY, HOUR, MINUTE
from sixfbd_plugins.checks import sms
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.twilio import SandboxMessage, Step
from sixfbd_plugins.twilio import log

MESSAGES = int(os.environ.get("SIXFBD_SMS_MESSAGES", "1000"))  # a day of the issue is 25000
FAILURES = MESSAGES // 50
INTERVAL_S = 5 * MINUTE if MESSAGES > 10_000 else 25 * MINUTE  # each run waits for the disk several times


def shop_day(kit, double, rng, began):
    """Let a shop send for a day; return what was counted if nothing was missed and nothing counted twice."""
    truth = {}

    def count(*key, by=1.0):
        truth[key] = truth.get(key, 0.0) + by

    failing = set(rng.sample(range(MESSAGES), FAILURES))
    for number in range(MESSAGES):
        at = began + number * DAY / MESSAGES + rng.uniform(-1800, 1800)
        price = f"-0.{rng.choice([790, 1275, 83]):05d}"
        currency = rng.choice(["USD", "USD", "EUR"])
        inbound = rng.random() < 0.05 and number not in failing
        sent_after = rng.choice([0.0, 1.0, 30.0, 900.0])
        done_after = sent_after + rng.choice([1.0, 5.0, 600.0, 5 * HOUR, 20 * HOUR])
        if inbound:
            steps = (Step(0.0, "received"),)
        elif number in failing and rng.random() < 0.5:
            code = rng.choice([30003, 30007, 30034])
            steps = (Step(sent_after, "sent"), Step(done_after, "undelivered", code))
            count("twilio_messages_total", "sent")
            count("twilio_messages_total", "undelivered")
            count("twilio_message_errors_total", str(code))
        elif number in failing:
            steps = (Step(sent_after, "failed", 21610),)
            count("twilio_messages_total", "failed")
            count("twilio_message_errors_total", "21610")
        elif rng.random() < 0.02:
            steps = (Step(sent_after, "sent"),)  # a carrier that reports nothing
            count("twilio_messages_total", "sent")
        else:
            steps = (Step(sent_after, "sent"), Step(done_after, "delivered"))
            count("twilio_messages_total", "sent")
            count("twilio_messages_total", "delivered")
            count("twilio_delivery_seconds_count")
            count("twilio_delivery_seconds_sum", by=float(int(at + done_after) - int(at)))
        if steps[-1].status != "failed":
            count("twilio_spend_micros_total", currency, by=float(round(float(price[1:]) * 1_000_000)))
        if not inbound:
            count("twilio_segments_total", by=2.0)
        double.add(
            SandboxMessage(
                sid=double.new_sid(), to="+13525550101", from_=kit.SENDER, body="two tickets", created_at=at,
                updated_at=at, sent_at=at if inbound else None, direction="inbound" if inbound else "outbound-api",
                status="received" if inbound else "queued", steps=() if inbound else steps, segments=2,
                price_unit=currency, cost=price, price_after_s=rng.choice([2.0, 3000.0, 9 * HOUR]),
            )
        )  # fmt: skip
    return truth


class Unruly:
    """The double behind a network that fails, and with a list that repeats and shuffles its records."""

    def __init__(self, inner, rng):
        self.inner = inner
        self.rng = rng

    async def request(self, method, url, **given):
        answer = await self.inner.request(method, url, **given)
        if "/Messages.json" not in url or answer.status_code != 200:
            return answer
        body = answer.json()
        records = body["messages"]
        if records:
            records += self.rng.choices(records, k=len(records) // 20 + 1)
            self.rng.shuffle(records)
        answer._content = msgspec.json.encode(body)
        return answer


async def run_interval(check, engine, journal_cursor):
    """Run the check as the schedule does: page after page, each with the cursor that was committed."""
    cursor = journal_cursor
    for _ in range(50):
        report = await check.run(cursor)
        assert len(msgspec.json.encode(report.cursor)) < 64 * 1024
        refused = await engine.report(report)
        assert not refused.count or refused.cursor_stays, refused.named
        if refused.cursor_stays:
            break
        cursor = report.cursor
        if not report.more:
            break
    return report


async def test_a_day_of_messages_is_counted_exactly_through_restarts_failures_repeats_and_disorder(
    kit, tmp_path, clock, double
):
    rng = random.Random(25_000)
    began = clock.at
    truth = shop_day(kit, double, rng, began)
    double.faults = [
        Fault(error=503, rate=0.02), Fault(error=429, code=20429, retry_after_s=3, rate=0.01), Fault(lost=True, rate=0.01),
    ]  # fmt: skip
    http = Unruly(kit.InProcess(double), rng)
    engine = kit.Engine(tmp_path, clock, (*sms.sixfbd_events(None),))
    clock.at = began - HOUR
    ends = began + DAY + log.WATCHED_S + 4 * HOUR
    while clock.at < ends:
        restart_at = clock.at + rng.choice([20 * MINUTE, 2 * HOUR, 11 * HOUR])
        async with engine.running():
            check = sms.SmsCheck(sms.SmsOptions(**kit.credentials()), kit.PluginContext(http, clock, engine.read))
            while clock.at < min(restart_at, ends):
                cursor = await engine.journal.cursor("sms")
                await run_interval(check, engine, cursor)
                clock.at += INTERVAL_S
            counted = engine.counted()
        clock.at += rng.choice([0.0, 30.0, 40 * MINUTE])  # nobody watches meanwhile
    assert {key: value for key, value in counted.items() if key[0].endswith(("_total", "_sum", "_count"))} == truth
