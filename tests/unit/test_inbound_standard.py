"""Inbound kind `standard`: what is signed by one of its secrets becomes an event, whatever else is refused."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from sixfbd.plugin import InboundRefused, InboundRequest, InvalidOptions, Secret
from sixfbd_plugins.inbound.standard import StandardInbound

NOW = 1_795_651_200.0
NEW, OLD, OTHER = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
BODY = {"type": "ticket_sale", "timestamp": "2026-11-25T23:00:00.5Z", "data": {"orderId": "o-1"}}


def inbound() -> StandardInbound:
    ctx: Any = None
    return StandardInbound(StandardInbound.Options(secrets=(Secret(NEW, "a"), Secret(OLD, "b"))), ctx)


def request(
    body: bytes = json.dumps(BODY).encode(), *, secret: str = NEW, at: float = NOW, **headers: str | None
) -> InboundRequest:
    signed = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode("latin-1"))
    given_headers: dict[str, str | None] = {
        "Webhook-Id": "msg_1",
        "Webhook-Timestamp": str(int(at)),
        "Webhook-Signature": signed,
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    return InboundRequest(
        name="shop",
        url="https://hooks.example.com/webhooks/shop",
        body=body,
        received_at=NOW,
        headers=httpx.Headers([(name, value) for name, value in given_headers.items() if value is not None], "utf-8"),
    )


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_a_signature_of_either_secret_is_taken(secret):
    [event] = inbound().receive(request(secret=secret))
    assert (event.id, event.type, event.data) == ("msg_1", "ticket_sale", {"orderId": "o-1"})
    assert event.timestamp == datetime(2026, 11, 25, 23, 0, 0, 500_000, UTC).timestamp()


def test_one_signature_of_several_is_enough():
    sent = request()
    sent.headers["webhook-signature"] = f"v1,AAAA v1a,x {sent.headers['webhook-signature']}"
    assert len(inbound().receive(sent)) == 1


def test_an_event_without_a_time_happened_when_it_was_sent():
    [event] = inbound().receive(request(b'{"type": "x"}', at=NOW - 7))
    assert (event.timestamp, event.data) == (NOW - 7, {})


@pytest.mark.parametrize("off", [-300, 300])
def test_a_time_within_the_tolerance_is_taken(off):
    assert inbound().receive(request(at=NOW + off))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (request(secret=OTHER), "webhook-signature fits none of the secrets"),
        (request(Webhook_Id="msg_2"), "webhook-signature fits none of the secrets"),
        (request(Webhook_Timestamp=str(int(NOW) + 1)), "webhook-signature fits none of the secrets"),
        (request(Webhook_Signature="v1"), "webhook-signature fits none of the secrets"),
        (request(Webhook_Signature="v1,é"), "webhook-signature fits none of the secrets"),
        (request(at=NOW - 301), "webhook-timestamp is more than 5m from our time"),
        (request(at=NOW + 301), "webhook-timestamp is more than 5m from our time"),
        (request(Webhook_Timestamp="nan"), "webhook-timestamp is no whole number of seconds"),
        (request(Webhook_Timestamp="99999999999"), "webhook-timestamp is no whole number of seconds"),
        (request(Webhook_Timestamp=None), "webhook-timestamp is missing, or there more than once"),
        (request(Webhook_Signature=""), "webhook-signature is missing, or there more than once"),
        (request(Webhook_Id=None), "webhook-id is missing, or there more than once"),
        (request(b"\xff"), "the body is not UTF-8"),
        (request(b"{"), 'the body is not {"type", "timestamp", "data"} in JSON'),
        (request(b'{"type": 5}'), 'the body is not {"type", "timestamp", "data"} in JSON'),
        (request(b"[" * 100_000), 'the body is not {"type", "timestamp", "data"} in JSON'),
    ],
)
def test_what_does_not_fit_is_refused_and_says_why_without_its_body(sent, said):
    with pytest.raises(InboundRefused) as refused:
        inbound().receive(sent)
    assert str(refused.value) == said


def test_a_signature_of_another_body_is_refused():
    sent = request()
    tampered = InboundRequest(
        name="shop", url=sent.url, body=sent.body.replace(b"o-1", b"o-2"), received_at=NOW, headers=sent.headers
    )
    with pytest.raises(InboundRefused, match="fits none"):
        inbound().receive(tampered)


def test_a_header_given_twice_is_refused():
    sent = request()
    twice = httpx.Headers([*sent.headers.multi_items(), ("webhook-id", "msg_1")])
    with pytest.raises(InboundRefused, match="more than once"):
        inbound().receive(InboundRequest(name="shop", url=sent.url, body=sent.body, received_at=NOW, headers=twice))


@given(
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
        st.one_of(st.text(max_size=30), st.just(str(int(NOW)))),
    ),
)
def test_whatever_comes_is_refused_in_words_unless_it_is_signed(body, headers):
    sent = InboundRequest(
        name="shop",
        url="",
        body=body,
        received_at=NOW,
        headers=httpx.Headers([(name.encode(), value.encode("utf-8")) for name, value in headers.items()]),
    )
    with pytest.raises(InboundRefused):
        inbound().receive(sent)


def test_a_secret_of_another_form_is_refused_without_being_shown():
    with pytest.raises(InvalidOptions) as refused:
        StandardInbound.Options(secrets=(Secret(NEW, "a"), Secret("hunter2", "b")))
    [(key, said)] = refused.value.faults
    assert key == "secrets" and "hunter2" not in said
    assert "Standard Webhooks" in said
