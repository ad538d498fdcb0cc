"""Inbound kind `stripe`: what Stripe signed becomes events known by Stripe's ids, whatever else is refused."""

import json
import subprocess
import sys
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stripe import WebhookSignature

from sixfbd.plugin import InboundRefused, InboundRequest, InvalidOptions, Secret
from sixfbd_plugins.inbound.stripe import StripeInbound
from sixfbd_plugins.stripe.events import EVENT as EVENT_TYPE

NOW = 1_795_651_200
NEW, OLD, OTHER = (f"whsec_{letter * 32}" for letter in "abc")
EVENT: dict[str, Any] = {
    "object": "event", "id": "evt_1", "type": "payment_intent.succeeded", "created": NOW - 5, "pending_webhooks": 1,
    "data": {"object": {"id": "pi_1", "amount_received": 1999, "currency": "usd", "receipt_email": "j@example.com"}},
}  # fmt: skip
BODY = json.dumps(EVENT).encode()


def inbound() -> StripeInbound:
    ctx: Any = None
    return StripeInbound(StripeInbound.Options(secrets=(Secret(NEW, "a"), Secret(OLD, "b"))), ctx)


def signed(body: bytes, secret: str = NEW, at: int = NOW) -> str:
    header: str = WebhookSignature.generate_signature_header(body.decode("latin-1"), secret, at)
    return header


def request(body: bytes = BODY, header: str | None = None, *more: tuple[str, str]) -> InboundRequest:
    headers = [("Stripe-Signature", signed(body) if header is None else header)] if header != "" else []
    return InboundRequest(
        name="stripe", url="https://hooks.example.com/webhooks/stripe", body=body, received_at=float(NOW),
        headers=httpx.Headers([*headers, *more], "utf-8"),
    )  # fmt: skip


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_a_signature_of_either_secret_is_taken(secret):
    happened, delivered = inbound().receive(request(header=signed(BODY, secret)))
    assert (happened.id, happened.type, happened.timestamp) == ("evt_1", "stripe_event", NOW - 5)
    assert happened.data == {
        "type": "payment_intent.succeeded", "payment": "pi_1", "state": "succeeded", "amount": 1999, "currency": "USD",
    }  # fmt: skip
    assert (delivered.id, delivered.type) == ("evt_1", "stripe_delivery")
    assert delivered.data == {"type": "payment_intent.succeeded", "inbound": "stripe"}


def test_a_signature_among_others_is_enough_and_other_schemes_are_ignored():
    time, mine = signed(BODY).split(",")
    theirs = signed(BODY, OTHER).split(",")[1]
    assert inbound().receive(request(header=f"{time},v0=abc,{theirs}, {mine}"))


@pytest.mark.parametrize("off", [-300, 300])
def test_a_time_within_the_tolerance_is_taken(off):
    assert inbound().receive(request(header=signed(BODY, at=NOW + off)))


@pytest.mark.parametrize(("sent", "said"), [
    (request(header=""), "stripe-signature is missing, or there more than once"),
    (request(BODY, None, ("stripe-signature", "t=1,v1=x")), "stripe-signature is missing, or there more than once"),
    (request(header=signed(BODY, OTHER)), "stripe-signature fits none of the secrets"),
    (request(BODY.replace(b"1999", b"9999"), signed(BODY)), "stripe-signature fits none of the secrets"),
    (request(header=signed(BODY).replace("v1=", "v0=")), "stripe-signature fits none of the secrets"),
    (request(header=f"t={NOW}"), "stripe-signature fits none of the secrets"),
    (request(header=signed(BODY, at=NOW - 301)), "the time in stripe-signature is more than 5m from our time"),
    (request(header=signed(BODY, at=NOW + 301)), "the time in stripe-signature is more than 5m from our time"),
    (request(header="v1=abc"), "the time in stripe-signature is no whole number of seconds"),
    (request(header="t=soon,v1=abc"), "the time in stripe-signature is no whole number of seconds"),
    (request(header="garbage"), "the time in stripe-signature is no whole number of seconds"),
    (request(header=f"t={NOW},t={NOW - 1},v1=abc"), "stripe-signature has more than one time"),
    (request(header=f"t={NOW},v1=é"), "stripe-signature is not ASCII, or too long"),
    (request(header=f"t={NOW},v1=" + "a" * 5000), "stripe-signature is not ASCII, or too long"),
    (request(b"\xff", signed(b"x")), "the body is not UTF-8"),
    (request(b"{"), "the body is no event of Stripe's"),
    (request(b"[]"), "the body is no event of Stripe's"),
    (request(b'{"object": "charge"}'), "the body is no event of Stripe's"),
    (request(b'{"object": "event", "id": "evt_1"}'), "the body is no event of Stripe's"),
    (request(b'{"object": "event", "data": ' + b"[" * 100_000), "the body is no event of Stripe's"),
    (request(json.dumps({**EVENT, "id": "x" * 300}).encode()), "the body is no event of Stripe's"),
    (request(b'{"object": "v2.core.event", "id": "evt_1"}'),
     "the event is of API v2, without its object; let the endpoint send snapshots"),
], ids=lambda value: str(value)[:60])  # fmt: skip
def test_what_does_not_fit_is_refused_and_says_why_without_its_body(sent, said):
    with pytest.raises(InboundRefused) as refused:
        inbound().receive(sent)
    assert str(refused.value) == said


@given(st.binary(max_size=200), st.one_of(st.text(max_size=60), st.just(f"t={NOW},v1=00")))
def test_whatever_comes_is_refused_in_words_unless_it_is_signed(body, header):
    sent = InboundRequest(
        name="stripe", url="", body=body, received_at=float(NOW),
        headers=httpx.Headers([(b"stripe-signature", header.encode("utf-8"))]),
    )  # fmt: skip
    with pytest.raises(InboundRefused):
        inbound().receive(sent)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=12), inner, max_size=3)),
    max_leaves=8,
)
FIELDS = ("id", "amount", "amount_received", "currency", "status", "reason", "payment_intent", "charge", "outcome",
          "last_payment_error", "failure_code", "evidence_details", "captured")  # fmt: skip
KINDS = ("payment_intent.payment_failed", "payment_intent.succeeded", "charge.failed", "charge.succeeded",
         "charge.dispute.created", "refund.created", "payout.failed", "made.up")  # fmt: skip


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_an_object_of_any_form_that_stripe_signed_becomes_events(kind, thing):
    body = json.dumps({**EVENT, "type": kind, "data": {"object": thing}}).encode()
    found = inbound().receive(request(body))
    assert (found[0].type, found[-1].type) == ("stripe_event", "stripe_delivery")
    assert all(0 <= one.data.get("amount", 0) < 2**53 for one in found)


def test_nothing_personal_of_an_event_is_kept():
    thing = {
        **EVENT["data"]["object"], "customer": "cus_1", "client_secret": "pi_1_secret_x", "metadata": {"name": "Jenny"},
        "payment_method_details": {"card": {"last4": "4242"}}, "billing_details": {"email": "jenny@example.com"},
    }  # fmt: skip
    found = inbound().receive(request(json.dumps({**EVENT, "data": {"object": thing}}).encode()))
    for word in ("example.com", "Jenny", "4242", "secret", "cus_1"):
        assert word not in repr(found)


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        ({"cityId": "dallas-2026-03", "tier": "ga", "note": "Jenny"}, {"cityId": "dallas-2026-03", "tier": "ga"}),
        ({"cityId": "dallas-2026-03"}, {"cityId": "dallas-2026-03"}),
        ({"cityId": "5 Elm Street, Dallas", "tier": 7}, {}),
        ({"cityId": "x" * 101}, {}),
        ("none", {}),
    ],
)
def test_the_city_and_tier_that_a_shop_wrote_on_a_payment_are_kept_and_counted(metadata, kept):
    thing = {**EVENT["data"]["object"], "amount_received": 4200, "currency": "usd", "metadata": metadata}
    body = {**EVENT, "type": "payment_intent.succeeded", "data": {"object": thing}}
    said = inbound().receive(request(json.dumps(body).encode()))[0]
    assert {key: said.data[key] for key in ("cityId", "tier") if key in said.data} == kept
    counted = {one.metric: one for one in EVENT_TYPE.counts(msgspec.convert(said.data, EVENT_TYPE.data))}
    assert ("stripe_paid_tickets_minor_total" in counted) == bool(kept)
    if kept:
        labels = dict(counted["stripe_paid_tickets_minor_total"].labels)
        assert (labels["city"], labels["type"]) == (kept["cityId"], kept.get("tier", "unknown"))
        assert counted["stripe_paid_tickets_minor_total"].value == 4200


@pytest.mark.parametrize(
    "secret", ["hunter2", "whsec_short", "whsec_with a blank in it ....", "sk_live_0123456789abcdef"]
)
def test_a_secret_of_another_form_is_refused_without_being_shown(secret):
    with pytest.raises(InvalidOptions) as refused:
        StripeInbound.Options(secrets=(Secret(NEW, "a"), Secret(secret, "b")))
    [(key, said)] = refused.value.faults
    assert key == "secrets" and secret not in said


def test_the_sdk_is_imported_by_nobody_who_has_not_configured_it():
    program = "import sys; import sixfbd_plugins.checks.payments, sixfbd_plugins.inbound.stripe; sys.exit('stripe' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
