"""The `sms` check against a double of Twilio behind a port: what it finds, what each failure becomes, what is never shown."""

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from sixfbd.plugin import InvalidOptions, Message, MessageId, Secret, Status
from sixfbd_plugins.checks.sms import SmsCheck, SmsOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.twilio import SandboxMessage, Step
from sixfbd_plugins.twilio.texts import reference


@pytest.fixture
def make(kit, wire, real_context):
    """Make a check of the served double."""

    def sms_check(read=None, **options):
        real_context.read = read or kit.Reader()
        return SmsCheck(SmsOptions(**kit.credentials(base_url=wire.url, **options)), real_context)

    return sms_check


def values(report):
    return {(s.metric, *(value for _, value in s.labels)): s.value for s in report.samples}


def own(name, at, provider_id=None, *, state="unknown", attempt=2):
    """One of our own messages."""
    return Message(
        id=MessageId(name), target=("r", "n", ""), state=state, created_at=at, expires_at=at + 1, obligations=(),
        provider_id=provider_id, attempt=attempt,
    )  # fmt: skip


async def run_through(check, cursor=None):
    """Run a check as the schedule does, all its pages; return the last report and the events of all."""
    events = []
    for _ in range(50):
        report = await check.run(cursor)
        cursor = report.cursor
        events += report.events
        if not report.more:
            break
    return report, events


async def test_an_account_in_order_is_healthy_and_told_with_balance_and_latency(make, wire, kit):
    report = await make(from_number="+1 (352) 555-0100", min_balance="20.00").run(None)
    assert (report.status, report.reachable) == (Status.HEALTHY, True), report.summary
    found = values(report)
    assert found["twilio_balance", "USD"] == 100.0
    assert (found["twilio_balance_low",], found["sms_service_error",], found["sms_service_failures",]) == (0, 0, 0)
    assert 0 < found["sms_service_latency_seconds",] < 10
    assert {path for _, path in wire.double.requests} == {
        f"/2010-04-01/Accounts/{kit.ACCOUNT}{rest}.json"
        for rest in ("", "/Balance", "/IncomingPhoneNumbers", "/Messages")
    }
    assert {method for method, _ in wire.double.requests} == {"GET"}


async def test_an_api_key_is_enough(kit, wire, real_context):
    options = SmsOptions(
        account_sid=kit.ACCOUNT, api_key=kit.KEY, api_secret=Secret(kit.KEY_SECRET, "env S"), base_url=wire.url
    )
    assert (await SmsCheck(options, real_context).run(None)).status is Status.HEALTHY


async def test_failures_in_a_row_are_counted_across_restarts_and_end_with_the_first_success(make, wire):
    wire.double.status, cursor, counts = "suspended", None, []
    for status in ("suspended", "suspended", "suspended", "active"):
        wire.double.status = status
        report = await make().run(cursor)
        cursor = msgspec.json.decode(msgspec.json.encode(report.cursor))
        counts.append((report.status, values(report)["sms_service_failures",]))
    assert counts == [(Status.DEGRADED, 1), (Status.DEGRADED, 2), (Status.DEGRADED, 3), (Status.HEALTHY, 0)]


async def test_a_low_balance_is_degraded_and_no_failure_of_the_service(make, wire):
    wire.double.balance = "19.99999"
    report = await make(min_balance="20").run(None)
    assert (report.status, report.summary) == (Status.DEGRADED, "the balance is 19.99999 USD, below 20")
    assert (values(report)["twilio_balance_low",], values(report)["sms_service_failures",]) == (1, 0)


FAULTS = [
    (Fault(error=503), Status.UNHEALTHY, "answered 503: a fault of the sandbox"),
    (Fault(lost=True), Status.UNHEALTHY, "Server disconnected without sending a response"),
    (Fault(error=401, code=20003), Status.DEGRADED, "the account: answered 401, code 20003"),
    (Fault(error=429, code=20429), Status.DEGRADED, "the account: answered 429, code 20429"),
    (Fault(error=403, path="Balance"), Status.DEGRADED, "the balance cannot be read: answered 403"),
    (Fault(error=403, path="Messages"), Status.DEGRADED, "the message log cannot be read: answered 403"),
    (Fault(error=500, path="Messages"), Status.DEGRADED, "the message log cannot be read: answered 500"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "status", "words"), FAULTS, ids=lambda value: str(value)[:60])
async def test_each_failure_has_its_status_and_is_named(make, wire, fault, status, words):
    wire.double.faults = [fault]
    report = await make(from_number="+13525550100").run(None)
    assert (report.status, words in report.summary) == (status, True), report.summary
    assert values(report)["sms_service_error",] == (status is Status.UNHEALTHY)


async def test_a_balance_that_is_no_amount_is_named(make, wire):
    wire.double.balance = "plenty"
    report = await make(min_balance="20").run(None)
    assert "the balance cannot be read: the answer holds no amount" in report.summary


@pytest.mark.parametrize(("options", "words"), [
    ({"from_number": "+13525550199"}, "from_number is no number of this account"),
    ({"messaging_service_sid": "MG" + "1" * 32}, "the sender: answered 404"),
    ({"messaging_service_sid": "MG" + "2" * 32}, "the messaging service has no sender"),
    ({"from_number": "+13525550177"}, "from_number cannot send SMS"),
])  # fmt: skip
async def test_a_sender_that_is_not_there_or_cannot_send_is_named_and_not_shown(make, wire, options, words):
    wire.double.numbers["+13525550177"] = {"voice": True, "sms": False}
    wire.double.services["MG" + "2" * 32] = ()
    report = await make(**options).run(None)
    assert (report.status, words in report.summary) == (Status.DEGRADED, True), report.summary
    assert not any(value in report.summary for value in ("3525550199", "3525550177"))


async def test_the_test_credentials_are_tried_and_count_as_no_send(kit, make, wire):
    wire.double.add_key("AC" + "9" * 32, "test-token")
    sent = {"test_account_sid": "AC" + "9" * 32, "test_auth_token": Secret("test-token", "env T")}
    report = await make(**sent).run(None)
    assert report.status is Status.DEGRADED  # the double has no account of that name
    assert "the test credentials: answered 404" in report.summary
    assert not wire.double.messages


async def test_a_canary_is_one_real_message_a_day_and_counted_as_our_own(kit, clock, double):
    context = kit.PluginContext(kit.InProcess(double), clock)
    options = SmsOptions(**kit.credentials(from_number=kit.SENDER, canary="+1-352-555-0101"))
    cursor, counted = None, []
    for hours in (0, 1, 22, 2, 1):
        clock.at += hours * 3600
        cursor = (await run_through(SmsCheck(options, context), cursor))[0].cursor
        counted.append(len(double.messages))
    assert counted == [1, 1, 1, 2, 2]
    clock.at += 3600
    _, events = await run_through(SmsCheck(options, context))
    assert {event.data["status"] for event in events if event.type == "sms_status"} == {"sent", "delivered"}
    _, events = await run_through(SmsCheck(options, context), cursor)
    assert {event.data.get("origin") for event in events} == {"sixfbd"}


async def test_a_canary_is_not_repeated_when_its_answer_or_the_cursor_was_lost(kit, clock, double):
    context = kit.PluginContext(kit.InProcess(double), clock)
    options = SmsOptions(**kit.credentials(from_number=kit.SENDER, canary="+1-352-555-0101"))
    double.faults = [Fault(lost=True, method="POST")]
    report, _ = await run_through(SmsCheck(options, context))
    assert "the canary: no answer within" in report.summary
    double.faults = []
    for cursor in (report.cursor, None):
        report, _ = await run_through(SmsCheck(options, context), cursor)
        assert report.status is Status.HEALTHY
    assert len(double.messages) == 1


async def test_what_we_sent_ourselves_is_known_by_its_sid_or_by_the_reference_in_its_text(kit, clock, double):
    sids = {}
    for name, body in (("known", "x"), ("lost", f"y {reference('lost')}"), ("shop's", "y #notours1")):
        sids[name] = double.new_sid()
        double.add(
            SandboxMessage(
                sid=sids[name], to="+13525550101", from_=kit.SENDER, body=body, created_at=clock.at - 60,
                updated_at=clock.at - 60, steps=(Step(1.0, "sent"), Step(2.0, "delivered")),
            )
        )  # fmt: skip
    reader = kit.Reader((own("known", clock.at - 60, sids["known"]), own("lost", clock.at - 60)))
    context = kit.PluginContext(kit.InProcess(double), clock, reader)
    report, events = await run_through(SmsCheck(SmsOptions(**kit.credentials(notifier="twilio")), context))
    origins = {one.data["sid"]: one.data.get("origin", "") for one in events if one.type == "sms_status"}
    assert origins == {sids["known"]: "sixfbd", sids["lost"]: "sixfbd", sids["shop's"]: ""}
    assert (values(report)["sms_retry_ratio",], values(report)["sms_messages_tried",]) == (1.0, 2.0)


async def test_a_provider_that_accepts_and_never_answers_costs_one_slot_for_one_deadline(make, wire, real_context):
    wire.double.faults = [Fault(silent=True)]
    check = make()
    check._account._call_s = 2.0
    began = trio.current_time()
    report = await check.run(None)
    assert (report.status, report.summary) == (Status.UNHEALTHY, "no answer within 2 s")
    assert trio.current_time() - began < 10
    assert len(wire.double.requests) == 1
    assert real_context.http._limiter.borrowed_tokens == 0


async def test_nothing_that_is_said_holds_a_secret_or_a_number(kit, make, wire):
    said = []
    double_error = "The number +1 (352) 555-0101 of AC0123456789abcdef0123456789abcdef with t0ken-that-nobody-may-see"
    for fault in (Fault(error=400, code=21211), Fault(error=500), Fault(lost=True), Fault(error=401)):
        wire.double.faults = [fault]
        wire.double.fault_words = double_error
        with capture_logs() as lines:
            report = await make(from_number=kit.SENDER, targets=("+13525550101",)).run(None)
        said += [repr(report), repr(lines)]
    for hidden in kit.HIDDEN:
        assert not [text for text in said if hidden in text], hidden
    assert any("…0101" in text for text in said)


WRONG = [
    ({"account_sid": "AC123"}, "account_sid: is not AC and 32 hexadecimal digits"),
    ({"auth_token": None}, "auth_token: one of auth_token and api_key with api_secret is needed"),
    ({"auth_token": Secret("", "env T")}, "auth_token: is missing"),
    ({"auth_token": Secret("to ken", "env T")}, "auth_token: has a blank"),
    ({"api_secret": Secret("x", "env S")}, "api_key: api_key and api_secret are given both or neither"),
    ({"from_number": "352-555-0133"}, "from_number: is no sender"),
    ({"targets": ("+1-352-555-0101", "352-555-0133")}, "targets: number 2 is not a number with its country"),
    ({"messaging_service_sid": "MG1"}, "messaging_service_sid: is not MG and 32"),
    ({"min_balance": "much"}, "min_balance: is not an amount"),
    ({"canary": "+13525550101"}, "canary: needs from_number"),
    ({"base_url": "https://user:pw@example.com/x"}, "base_url: is not an address"),
    ({"test_account_sid": "AC" + "1" * 32}, "test_account_sid: test_account_sid and test_auth_token"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_option_is_named_and_its_value_is_not_shown(kit, options, words):
    with pytest.raises(InvalidOptions) as failure:
        SmsOptions(**kit.credentials(**options))
    assert words in str(failure.value)
    for value in ("AC123", "352-555-0133", "to ken", "user:pw", "much", "MG1"):
        assert value not in str(failure.value)


async def test_each_run_leaves_one_record_in_the_log(make):
    with capture_logs() as lines:
        await run_through(make())
    [record] = [line for line in lines if line["event"] == "sms_health_check"]
    assert {"timestamp", "service", "status", "responseTime", "errorRate", "lastSuccessfulSend"} <= record.keys()
    assert (record["service"], record["status"], record["lastSuccessfulSend"]) == ("twilio-sms", "healthy", None)
