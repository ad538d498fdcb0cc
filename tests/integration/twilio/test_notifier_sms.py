"""The `sms` notifier against a double of Twilio: what is sent, what failures mean, what is found again, what is never shown."""

import pytest
import trio

from sixfbd.model import Target
from sixfbd.plugin import (
    InvalidOptions,
    Message,
    MessageId,
    Notification,
    NotifiedAlert,
    PermanentFailure,
    Secret,
    Severity,
    TemporaryFailure,
)
from sixfbd_plugins.notifiers.sms import NOTIFICATION, SmsNotification, SmsNotifier, SmsNotifierOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.twilio import Step
from sixfbd_plugins.twilio.texts import last_reference, reference, segments

TO = "+1-352-555-0101"


def notification(name="m-1", **changes):
    values = {
        "id": MessageId(name), "receiver": "primary", "address": TO, "status": "firing", "severity": Severity.HIGH,
        "title": "[FIRING] Down (high) — shop.example.com fails", "text": "long",
    }  # fmt: skip
    return Notification(**(values | changes))


@pytest.fixture
def make(kit, wire, real_context):
    """Make a notifier of the served double."""

    def sms_notifier(**options):
        given = {"from_number": kit.SENDER, "rate": 1000.0, "base_url": wire.url} | options
        return SmsNotifier(SmsNotifierOptions(**kit.credentials(**given)), real_context)

    return sms_notifier


async def test_a_notification_is_one_message_that_ends_with_its_reference(make, wire, kit):
    receipt = await make().deliver(notification())
    [sent] = wire.double.messages.values()
    assert (receipt.state, receipt.message_id, receipt.provider_id) == ("accepted", "m-1", sent.sid)
    assert (sent.to, sent.from_, sent.callback) == ("+13525550101", kit.SENDER, "")
    assert sent.body == f"workshop: [FIRING] Down (high) - shop.example.com fails {reference('m-1')}"


async def test_a_messaging_service_chooses_the_sender(make, wire, kit):
    await make(from_number="", messaging_service_sid=kit.SERVICE).deliver(notification())
    [sent] = wire.double.messages.values()
    assert (sent.service, sent.from_) == (kit.SERVICE, kit.SENDER)


async def test_repeats_of_an_alert_differ_and_so_are_not_dropped(make, wire):
    made = make()
    for name in ("m-1", "m-2"):
        await made.deliver(notification(name))
    assert len({sent.body for sent in wire.double.messages.values()}) == 2


async def test_a_message_that_is_sent_once_more_has_another_text_and_is_found_by_that(make, wire):
    made = make()
    await made.deliver(notification())
    wire.double.faults = [Fault(lost=True, method="POST")]
    with pytest.raises(TemporaryFailure):
        await made.deliver(notification(attempt=2))
    first, second = wire.double.messages.values()
    assert first.body != second.body
    assert last_reference(first.body) == last_reference(second.body) == reference("m-1")
    assert (await made.lookup(notification(attempt=2))).provider_id == second.sid


async def test_remarks_come_first_and_other_alerts_after_the_title(make, wire):
    alerts = [
        NotifiedAlert(
            id=f"i-{name}", status="firing", severity=Severity.HIGH, labels={"alertname": name},
            annotations={"summary": f"{name} fails"}, value=1.0, starts_at=1.0,
        )
        for name in ("Down", "Slow")
    ]  # fmt: skip
    await make().deliver(notification(alerts=tuple(alerts), remarks=("sixfbd was away.",)))
    [sent] = wire.double.messages.values()
    assert sent.body.split("\n")[0] == "sixfbd was away."
    assert sent.body.split("\n")[2].startswith("firing: Slow fails #")


async def test_of_an_alert_that_is_over_the_text_says_so_before_it_says_what_it_was(make, wire):
    over = NotifiedAlert(
        id="i-1", status="resolved", severity=Severity.HIGH, labels={"alertname": "Down"}, value=1.0, starts_at=0.0,
        annotations={"summary": "the shop fails"}, ends_at=90.0,
    )  # fmt: skip
    await make().deliver(notification(alerts=(over, over)))
    [sent] = wire.double.messages.values()
    assert sent.body.split("\n")[1].startswith("resolved: ended after 1m30s, was: the shop fails #")


async def test_a_long_text_takes_no_more_segments_than_it_may(make, wire):
    await make(max_segments=2).deliver(notification(title="🚨 ж" * 300))
    [sent] = wire.double.messages.values()
    assert segments(sent.body) == 2
    assert sent.body.endswith(reference("m-1"))


async def test_the_callback_names_the_message(make, wire):
    await make(status_callback="https://hooks.example.com/webhooks/twilio").deliver(notification())
    [sent] = wire.double.messages.values()
    assert sent.callback == "https://hooks.example.com/webhooks/twilio?message=m-1"


MEANINGS = [
    (400, 30034, PermanentFailure, "not registered for A2P 10DLC"),
    (400, 21610, PermanentFailure, "unsubscribed with STOP"),
    (400, 21211, PermanentFailure, "the receiver's number is not valid"),
    (400, 21614, PermanentFailure, "is not a mobile number"),
    (400, 21408, PermanentFailure, "Geo permissions"),
    (401, 20003, PermanentFailure, "the credentials are refused"),
    (400, 29999, PermanentFailure, "a fault of the sandbox"),
    (429, 20429, TemporaryFailure, "too many requests"),
    (400, 21611, TemporaryFailure, "the sender's queue is full"),
    (429, 0, TemporaryFailure, "429"),
    (500, 0, TemporaryFailure, "500"),
    (503, 0, TemporaryFailure, "503"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "code", "kind", "words"), MEANINGS)
async def test_a_refusal_is_temporary_or_permanent_by_twilios_code_and_said_in_plain_words(
    make, wire, status, code, kind, words
):
    wire.double.faults = [Fault(error=status, code=code, retry_after_s=7)]
    with pytest.raises(kind, match=words) as failure:
        await make().deliver(notification())
    if kind is TemporaryFailure:
        assert (failure.value.retry_after_s, failure.value.sent) == (7.0, False)


async def test_the_numbers_of_twilios_test_credentials_mean_what_they_are_for(make):
    for number, words in (("+15005550004", "unsubscribed"), ("+15005550009", "not a mobile number")):
        with pytest.raises(PermanentFailure, match=words):
            await make().deliver(notification(address=number))


async def test_an_address_that_is_no_number_is_permanent_and_not_shown(make):
    with pytest.raises(PermanentFailure, match="is not a number with its country") as failure:
        await make().deliver(notification(address="352-555-0133"))
    assert "0133" not in str(failure.value)


@pytest.mark.parametrize("address", ["", "352-555-0133", "primary"])
def test_an_address_that_is_no_number_is_a_fault_of_the_configuration(kit, address):
    options = SmsNotifierOptions(**kit.credentials(from_number=kit.SENDER))
    SmsNotifier.check_address(options, TO)
    with pytest.raises(ValueError, match="is not a number with its country") as failure:
        SmsNotifier.check_address(options, address)
    assert "0133" not in str(failure.value)


async def test_a_message_whose_answer_was_lost_is_unknown_and_found_by_its_reference(make, wire):
    wire.double.faults = [Fault(lost=True, method="POST")]
    made = make()
    with pytest.raises(TemporaryFailure) as failure:
        await made.deliver(notification())
    assert failure.value.sent
    [sent] = wire.double.messages.values()
    receipt = await made.lookup(notification())
    assert (receipt.state, receipt.message_id, receipt.provider_id) == ("accepted", "m-1", sent.sid)


async def test_a_message_that_never_arrived_is_not_found_but_only_once_it_would_be_listed(kit, clock, double):
    made = SmsNotifier(
        SmsNotifierOptions(**kit.credentials(from_number=kit.SENDER)), kit.PluginContext(kit.InProcess(double), clock)
    )
    await made.deliver(notification("other"))
    double.faults = [Fault(error=200, lost=True, method="POST")]
    with pytest.raises(TemporaryFailure):
        await made.deliver(notification())
    with pytest.raises(TemporaryFailure, match="not in the log yet") as failure:
        await made.lookup(notification())
    assert 0 < failure.value.retry_after_s <= 30
    clock.at += 31
    assert await made.lookup(notification()) is None


async def test_a_look_up_that_is_refused_cannot_tell(make, wire):
    wire.double.faults = [Fault(error=401, code=20003)]
    with pytest.raises(TemporaryFailure, match="401"):
        await make().lookup(notification())


OUTCOMES = [
    ((), "accepted", "found by its reference: queued", False),
    ((Step(1.0, "sent"), Step(2.0, "delivered")), "delivered", "", False),
    ((Step(1.0, "sent"), Step(2.0, "undelivered", 30007)), "failed", "undelivered: the carrier took", False),
    ((Step(1.0, "sent"), Step(2.0, "undelivered", 30003)), "failed", "undelivered: the phone is", True),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "state", "words", "temporary"), OUTCOMES)
async def test_a_look_up_says_what_became_of_the_message_that_it_finds(
    kit, clock, double, steps, state, words, temporary
):
    double.plan = lambda to: steps
    made = SmsNotifier(
        SmsNotifierOptions(**kit.credentials(from_number=kit.SENDER)), kit.PluginContext(kit.InProcess(double), clock)
    )
    await made.deliver(notification())
    clock.at += 5
    receipt = await made.lookup(notification())
    assert (receipt.state, receipt.temporary) == (state, temporary)
    assert words in receipt.detail


async def test_no_more_messages_go_out_in_a_second_than_the_sender_may_send(kit, clock, double):
    made = SmsNotifier(
        SmsNotifierOptions(**kit.credentials(from_number=kit.SENDER)), kit.PluginContext(kit.InProcess(double), clock)
    )
    began = clock.at
    for number in range(4):
        await made.deliver(notification(f"m-{number}"))
    assert clock.at - began == 3.0
    made._pace.hold(5)
    with pytest.raises(TemporaryFailure, match="more than 1 messages a second") as failure:
        await made.deliver(notification("late"))
    assert (failure.value.retry_after_s, failure.value.sent) == (5.0, False)


async def test_a_provider_that_accepts_and_never_answers_costs_one_slot_for_one_deadline(make, wire, real_context):
    wire.double.faults = [Fault(silent=True, path="Messages")]
    made, answered = make(), []
    made._account._call_s = 1.0

    async def hang():
        with pytest.raises(TemporaryFailure, match="no answer within 1 s"):
            await made.deliver(notification())
        answered.append("hanging")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang)
        await wire.asked.wait()
        wire.double.faults = []
        await made.deliver(notification("m-2"))
        answered.append("good")
    assert answered == ["good", "hanging"]
    assert real_context.http._limiter.borrowed_tokens == 0


async def test_no_failure_holds_a_secret_or_a_number_whatever_twilio_says(kit, make, wire):
    wire.double.fault_words = f"To +1 (352) 555-0101, {kit.ACCOUNT} {kit.TOKEN} from {kit.SENDER}"
    said = [repr(make().options)]
    for fault in (Fault(error=400, code=29999), Fault(error=500), Fault(lost=True)):
        wire.double.faults = [fault]
        for call in (make().deliver, make().lookup):
            with pytest.raises((TemporaryFailure, PermanentFailure)) as failure:
                await call(notification())
            said.append(str(failure.value))
    for hidden in (kit.TOKEN, "555-0101", "5550101", "5550100"):
        assert not [text for text in said[1:] if hidden in text], hidden
    assert kit.TOKEN not in said[0]


@pytest.mark.parametrize(("options", "words"), [
    ({"from_number": ""}, "one of from_number and messaging_service_sid is needed"),
    ({"messaging_service_sid": "MG" + "0" * 32}, "one of from_number and messaging_service_sid is needed"),
    ({"from_number": "3525550100"}, "is no sender"),
    ({"status_callback": "hooks.example.com"}, "is not an address"),
    ({"auth_token": Secret("a b", "env T")}, "auth_token: has a blank"),
])  # fmt: skip
def test_a_wrong_option_is_named(kit, options, words):
    with pytest.raises(InvalidOptions, match=words):
        SmsNotifierOptions(**kit.credentials(**({"from_number": kit.SENDER} | options)))


def test_each_of_our_messages_is_counted_as_taken_or_given_up(kit, clock, double):
    states = ("delivered", "accepted", "dead", "pending", "unknown", "sending")
    messages = [
        Message(
            id=MessageId(f"m-{state}"), target=Target("primary", "twilio", TO), state=state, created_at=1.0,
            expires_at=2.0, obligations=(),
        )
        for state in states
    ]  # fmt: skip
    context = kit.PluginContext(kit.InProcess(double), clock)
    made = SmsNotifier(SmsNotifierOptions(**kit.credentials(from_number=kit.SENDER)), context)
    found = {one.id: one.data["outcome"] for one in made.events(messages)}
    assert found == {"m-delivered/sent": "sent", "m-accepted/sent": "sent", "m-dead/failed": "failed"}
    assert TO not in str(made.events(messages))
    [begun] = made.events(())
    counted = {sample.metric: sample.value for sample in NOTIFICATION.counts(SmsNotification(**begun.data))}
    assert counted == {"sms_notifications_sent_total": 0.0, "sms_notifications_failed_total": 0.0}
