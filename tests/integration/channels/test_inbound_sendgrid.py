"""Inbound kind `sendgrid`: what SendGrid signed becomes events that hold nobody's data, whatever else is refused."""

import json
import random

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.plugin import InboundRefused, InboundRequest, InvalidOptions, Secret
from sixfbd_plugins.inbound.sendgrid import SIGNATURE, TIMESTAMP, SendGridInbound
from sixfbd_plugins.mail.events import EmailStatus, _receipt
from sixfbd_plugins.sandbox.sendgrid import SendGridDouble

NOW = 1_800_000_000.0


def double(seed_rng):
    return SendGridDouble("key", lambda: NOW, seed_rng)


@pytest.fixture
def new(kit):
    return double(kit.rng())


def inbound(*doubles):
    secrets = tuple(Secret(one.public_key, "env K") for one in doubles)
    return SendGridInbound(SendGridInbound.Options(secrets=secrets), None)


def request(headers, body, at=NOW):
    return InboundRequest(
        name="mail", url="https://h.test/webhooks/mail", body=body, received_at=at, headers=httpx.Headers(headers)
    )


def event(kind="delivered", **changes):
    return {
        "email": "ops@example.org", "timestamp": int(NOW) - 5, "event": kind, "sg_event_id": "ev-1", "ip": "192.0.2.9",
        "useragent": "a mail program", "reason": "550 <ops@example.org>", "sixfbd_message": "m-1",
    } | changes  # fmt: skip


def test_events_are_taken_by_their_own_ids_and_hold_nobodys_data(new):
    headers, body = new.webhook([event(), event("open", sg_event_id="ev-2"), event("processed", sg_event_id="ev-3")])
    [taken] = inbound(new).receive(request(headers, body))
    assert (taken.id, taken.type, taken.timestamp) == ("ev-1", "email_status", NOW - 5)
    assert taken.data == {"status": "delivered", "origin": "sixfbd", "message": "m-1"}


@pytest.mark.parametrize(("kind", "changes", "state", "temporary", "words"), [
    ("delivered", {}, "delivered", False, ""),
    ("bounce", {"status": "5.1.1", "bounce_classification": "Invalid Address"}, "failed", False, "bounced"),
    ("bounce", {"type": "blocked"}, "failed", True, "blocked"),
    ("dropped", {}, "failed", False, "dropped"),
])  # fmt: skip
def test_what_becomes_of_our_own_messages_is_a_receipt(new, kind, changes, state, temporary, words):
    [taken] = inbound(new).receive(request(*new.webhook([event(kind, **changes)])))
    receipt = _receipt(msgspec.convert(taken.data, EmailStatus))
    assert (receipt.state, receipt.message_id, receipt.temporary) == (state, "m-1", temporary)
    assert receipt.detail.startswith(words)
    if changes.get("status"):
        assert receipt.detail.endswith("(5.1.1, Invalid Address)")


@pytest.mark.parametrize("kind", ["deferred", "spamreport"])
def test_what_is_still_on_its_way_or_was_read_is_no_receipt(new, kind):
    [taken] = inbound(new).receive(request(*new.webhook([event(kind)])))
    assert _receipt(msgspec.convert(taken.data, EmailStatus)) is None


def test_what_becomes_of_others_messages_is_counted_and_no_receipt(new):
    [taken] = inbound(new).receive(request(*new.webhook([event("bounce", sixfbd_message="not ours!")])))
    assert taken.data == {"status": "bounce"}
    assert _receipt(msgspec.convert(taken.data, EmailStatus)) is None


def test_an_event_without_a_name_has_the_same_one_when_it_comes_again(new):
    bare = event()
    del bare["sg_event_id"]
    [first], [again] = (inbound(new).receive(request(*new.webhook([bare]))) for _ in range(2))
    assert first.id == again.id != ""


def test_during_a_rotation_either_key_is_taken(kit, new):
    old = SendGridDouble("key", lambda: NOW, random.Random(99))
    for one in (new, old):
        assert len(inbound(new, old).receive(request(*one.webhook([event()])))) == 1
    with pytest.raises(InboundRefused, match="fits none of the keys"):
        inbound(new).receive(request(*old.webhook([event()])))


@pytest.mark.parametrize("late_s", [601, -601])
def test_a_request_of_another_time_is_refused_though_its_signature_fits(new, late_s):
    headers, body = new.webhook([event()])
    assert inbound(new).receive(request(headers, body, NOW + late_s * 0.99))
    with pytest.raises(InboundRefused, match="from our time"):
        inbound(new).receive(request(headers, body, NOW + late_s))


@pytest.mark.parametrize(("changes", "words"), [
    ({SIGNATURE: None}, "is missing"),
    ({SIGNATURE: ""}, "is missing"),
    ({SIGNATURE: "no base64!"}, "fits none of the keys"),
    ({SIGNATURE: "YWJj"}, "fits none of the keys"),
    ({TIMESTAMP: None}, "is missing"),
    ({TIMESTAMP: "soon"}, "no whole number"),
    ({TIMESTAMP: str(int(NOW) + 1)}, "fits none of the keys"),
])  # fmt: skip
def test_headers_that_are_missing_or_wrong_are_refused_and_named(new, changes, words):
    headers, body = new.webhook([event()])
    given_headers = {name: value for name, value in (headers | changes).items() if value is not None}
    with pytest.raises(InboundRefused, match=words) as refused:
        inbound(new).receive(request(given_headers, body))
    assert new.public_key not in str(refused.value)


def test_a_tampered_or_a_repeated_header_is_refused(new):
    headers, body = new.webhook([event()])
    with pytest.raises(InboundRefused, match="fits none"):
        inbound(new).receive(request(headers, body.replace(b"delivered", b"bounce")))
    with pytest.raises(InboundRefused, match="more than once"):
        inbound(new).receive(request([*headers.items(), (SIGNATURE, "x")], body))
    with pytest.raises(InboundRefused, match="not UTF-8"):
        inbound(new).receive(request(headers, b"\xff"))


NAMES = st.sampled_from(["event", "timestamp", "sg_event_id", "sixfbd_message", "type", "status", "x"])
VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["bounce", "blocked"])
CONTENTS = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5))


@settings(deadline=None)
@given(CONTENTS | st.lists(st.dictionaries(NAMES, VALUES, max_size=7), max_size=3))
def test_whatever_is_signed_is_taken_or_refused_and_breaks_nothing(content):
    signer = double(random.Random(5))
    try:
        events = inbound(signer).receive(request(*signer.webhook(content)))
    except InboundRefused:
        return
    assert all(isinstance(json.dumps(one.data), str) for one in events)


@given(st.binary(max_size=200), st.text(max_size=40))
def test_whatever_is_not_signed_is_refused(body, signature):
    signer = double(random.Random(5))
    headers = httpx.Headers([(SIGNATURE, signature), (TIMESTAMP, str(int(NOW)))], "utf-8")
    with pytest.raises(InboundRefused):
        inbound(signer).receive(InboundRequest(name="m", url="u", body=body, received_at=NOW, headers=headers))


@pytest.mark.parametrize("key", ["", "no key", "YWJjZA=="])
def test_a_key_that_is_none_is_named_and_not_shown(key):
    with pytest.raises(InvalidOptions, match="key 1 is no verification key") as failure:
        SendGridInbound.Options(secrets=(Secret(key, "env K"),))
    assert not key or key not in str(failure.value)
