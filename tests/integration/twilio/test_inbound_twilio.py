"""Inbound kind `twilio`: what Twilio signed becomes events that are counted once, whatever else is refused."""

import base64
import hmac
import json
import random
import urllib.parse
from hashlib import sha1, sha256

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from sixfbd.plugin import InboundRefused, InboundRequest, InvalidOptions, Secret
from sixfbd_plugins.checks import sms
from sixfbd_plugins.inbound.twilio import TwilioInbound
from sixfbd_plugins.sandbox.twilio import SandboxMessage, Step
from sixfbd_plugins.twilio.messages import STATUS, MessageStatus

NEW, OLD, OTHER = "new-token", "old-token", "of-somebody-else"
URL = "https://hooks.example.com/webhooks/twilio"
SID = "SM" + "0123456789abcdef" * 2
FORM = {
    "MessageSid": SID,
    "MessageStatus": "delivered",
    "To": "+13525550101",
    "From": "+13525550100",
    "AddOns": "x & é",
}
NOW = 1_800_000_000.0


def inbound():
    return TwilioInbound(TwilioInbound.Options(secrets=(Secret(NEW, "a"), Secret(OLD, "b"))), None)


def request(form=FORM, *, url=URL, token=NEW, signature=None, media="application/x-www-form-urlencoded", **headers):
    body = form if isinstance(form, bytes) else urllib.parse.urlencode(form).encode()
    if signature is None:
        signature = RequestValidator(token).compute_signature(url, form if isinstance(form, dict) else {})
    given_headers = {"Content-Type": media, "X-Twilio-Signature": signature, **headers}
    return InboundRequest(
        name="twilio", url=url, body=body, received_at=NOW, path="/webhooks/twilio", query=url.partition("?")[2],
        headers=httpx.Headers([(name, value) for name, value in given_headers.items() if value is not None], "utf-8"),
    )  # fmt: skip


@pytest.mark.parametrize("token", [NEW, OLD])
def test_a_status_signed_with_either_token_is_taken(token):
    events = inbound().receive(request(token=token))
    assert [(event.id, event.type, event.timestamp) for event in events] == [
        (f"{SID}/sent", "sms_status", NOW),
        (f"{SID}/delivered", "sms_status", NOW),
    ]
    assert events[1].data == {"sid": SID, "status": "delivered"}


def test_no_event_holds_a_number():
    assert "555" not in repr(inbound().receive(request()))


def test_a_failure_carries_its_code_and_our_message_its_id():
    url = f"{URL}?message=m-1"
    form = {"SmsSid": SID, "SmsStatus": "failed", "ErrorCode": "30034"}
    [event] = inbound().receive(request(form, url=url))
    data = {"sid": SID, "status": "failed", "code": "30034", "origin": "sixfbd", "message": "m-1"}
    assert (event.id, event.data) == (f"{SID}/failed", data)
    receipt = STATUS.receipt(msgspec.convert(event.data, MessageStatus))
    assert (receipt.state, receipt.message_id, receipt.provider_id) == ("failed", "m-1", SID)
    assert "not registered for A2P 10DLC" in receipt.detail
    assert not receipt.temporary


def test_only_what_became_of_our_own_messages_is_a_receipt():
    def of(status, **more):
        return STATUS.receipt(MessageStatus(sid=SID, status=status, **more))

    assert of("delivered") is None
    assert of("delivered", origin="sixfbd").state == "delivered"
    assert of("sent", origin="sixfbd") is None
    assert of("undelivered", origin="sixfbd", code="30003").temporary


@pytest.mark.parametrize("status", ["queued", "sending", "accepted", "received", "a status of next year"])
def test_a_status_that_is_not_counted_is_taken_and_says_nothing(status):
    assert inbound().receive(request(FORM | {"MessageStatus": status})) == []


def test_what_is_no_status_callback_is_taken_and_says_nothing():
    assert inbound().receive(request({"CallSid": "CA1", "CallStatus": "completed"})) == ()


def test_a_field_that_comes_twice_is_signed_with_both_values():
    body = urllib.parse.urlencode([*FORM.items(), ("Media", "b"), ("Media", "a")]).encode()
    signed = URL + "".join(name + value for name, value in sorted([*FORM.items(), ("Media", "a"), ("Media", "b")]))
    signature = base64.b64encode(hmac.new(NEW.encode(), signed.encode(), sha1).digest()).decode()
    assert len(inbound().receive(request(body, signature=signature))) == 2


def test_a_shared_key_signs_with_sha256_as_its_header_says():
    signature = RequestValidator(NEW).compute_signature(URL, FORM, "HMAC_SHA256")
    settings = {"X-Twilio-Webhooks-Signature-Settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
    assert len(inbound().receive(request(signature=signature, **settings))) == 2
    with pytest.raises(InboundRefused, match="fits none"):
        inbound().receive(request(signature=signature))


def test_a_json_body_is_known_by_its_hash_in_the_signed_address():
    body = json.dumps({"a": 1}).encode()
    url = f"{URL}?bodySHA256={sha256(body).hexdigest()}"
    signature = RequestValidator(NEW).compute_signature(url, {})
    assert inbound().receive(request(body, url=url, signature=signature, media="application/json")) == ()
    with pytest.raises(InboundRefused, match="fits none"):
        inbound().receive(request(body + b" ", url=url, signature=signature, media="application/json"))
    with pytest.raises(InboundRefused, match="its hash is not in the address"):
        inbound().receive(request(body, media="application/json"))


REFUSED = [
    (request(token=OTHER), "fits none of the secrets"),
    (request(signature=""), "is missing"),
    (request(signature="n0t/base64==="), "fits none of the secrets"),
    (request(signature="é"), "is not ASCII"),
    (request(FORM | {"MessageSid": "SM1"}), "MessageSid is no sid"),
    (request(b"\xff\xfe"), "not UTF-8"),
    (request(b"<xml/>", media="text/xml"), "neither a form nor JSON"),
    (request(b"a=%ff"), "is not a form"),
    (request(b"&".join(b"a%d=1" % n for n in range(300))), "is not a form"),
    (request(**{"X-Twilio-Webhooks-Signature-Settings": "key=k,algorithm=HMAC_MD5"}), "algorithm that is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_not_from_twilio_or_cannot_be_read_is_refused_and_named(made, words):
    with pytest.raises(InboundRefused, match=words) as refused:
        inbound().receive(made)
    assert NEW not in str(refused.value)


def test_a_missing_or_repeated_signature_is_refused():
    bare = request()
    for headers in ([], [("x-twilio-signature", "a"), ("x-twilio-signature", "b")]):
        changed = msgspec.structs.replace(bare, headers=httpx.Headers(headers))
        with pytest.raises(InboundRefused, match=r"is missing|more than once"):
            inbound().receive(changed)


def test_a_tampered_form_or_another_address_is_refused():
    good = request()
    with pytest.raises(InboundRefused, match="fits none"):
        inbound().receive(msgspec.structs.replace(good, body=good.body.replace(b"delivered", b"failed")))
    with pytest.raises(InboundRefused, match="fits none"):
        inbound().receive(msgspec.structs.replace(good, url=f"{URL}?message=m-1", query="message=m-1"))


@given(st.binary(max_size=300), st.text(max_size=40), st.sampled_from(["", "application/json", "text/plain"]))
def test_whatever_comes_is_refused_and_breaks_nothing(body, signature, media):
    headers = httpx.Headers([("x-twilio-signature", signature), ("content-type", media)], "utf-8")
    made = InboundRequest(name="t", url=URL, body=body, received_at=NOW, headers=headers)
    with pytest.raises(InboundRefused):
        inbound().receive(made)


def test_a_secret_that_cannot_be_one_is_named_and_not_shown():
    with pytest.raises(InvalidOptions, match="secrets: has a blank") as failure:
        TwilioInbound.Options(secrets=(Secret("to ken", "env T"),))
    assert "to ken" not in str(failure.value)


async def test_callbacks_and_the_log_count_a_message_once_whichever_is_first(kit, tmp_path, clock, double):
    rng = random.Random(7)
    receiving = TwilioInbound(TwilioInbound.Options(secrets=(Secret(kit.TOKEN, "env T"),)), None)
    for number in range(120):
        last = Step(rng.choice([3.0, 900.0]), "undelivered" if number % 10 == 0 else "delivered", 30007)
        double.add(
            SandboxMessage(
                sid=double.new_sid(), to="+13525550101", from_=kit.SENDER, body="tickets", steps=(Step(1.0, "sent"), last),
                created_at=clock.at + number * 20, updated_at=clock.at + number * 20, callback=URL,
            )
        )  # fmt: skip
    engine = kit.Engine(tmp_path, clock, (*sms.sixfbd_events(None),))
    cursor, again = None, []
    async with engine.running():
        check = sms.SmsCheck(sms.SmsOptions(**kit.credentials()), kit.PluginContext(kit.InProcess(double), clock))
        for _ in range(16):
            clock.at += 300
            due = double.advance()
            rng.shuffle(due)
            posted, again = [*again, *due, *due[::3]], due[::2]  # some twice, some once more a round later
            for one in posted:
                made = InboundRequest(
                    name="twilio", url=one.url, body=one.body, received_at=clock.at, headers=httpx.Headers(one.headers)
                )
                await engine.intake.events("inbound:twilio", receiving.receive(made))
            for _ in range(50):
                report = await check.run(cursor)
                assert not (await engine.report(report)).count
                cursor = report.cursor
                if not report.more:
                    break
        counted = engine.counted()
    of_status = {key[1]: value for key, value in counted.items() if key[0] == "twilio_messages_total"}
    assert of_status == {"sent": 120.0, "delivered": 108.0, "undelivered": 12.0}
    assert counted["twilio_message_errors_total", "30007"] == 12.0
