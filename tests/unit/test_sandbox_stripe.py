"""The double of Stripe answers in the shapes of Stripe's own examples, pages as Stripe does, and signs as its SDK does."""

import json
import random
from typing import Any

import pytest
from stripe import WebhookSignature

from sixfbd_plugins.sandbox.stripe import SHAPES, StripeDouble, Try

KEY, SECRET = "rk_test_0123456789", "whsec_0123456789abcdef"


class Bench:
    """A double whose clock stands where a test puts it."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.double = StripeDouble(KEY, lambda: self.at, random.Random(1))

    def get(self, path: str, key: str = KEY, **query: str) -> tuple[int, Any]:
        answer = self.double.handle("GET", f"/v1/{path}", query, {"authorization": f"Bearer {key}"}, b"")
        return answer.status, json.loads(answer.body)


@pytest.fixture
def bench():
    made = Bench()
    made.double.add_endpoint("https://hooks.example.com/webhooks/stripe", SECRET)
    name = made.double.pay(1000, "usd", (Try(0.0, "failed", "do_not_honor"), Try(1.0, "succeeded")))
    made.double.pay(1000, "usd", (Try(0.0, "failed", "expired_card"),), bare=True)
    made.at += 5
    made.double.advance()
    made.double.refund(name, 1)
    made.double.dispute(name, 9000.0)
    made.double.pay_out(1, "usd")
    return made


def test_every_object_has_exactly_the_fields_of_the_published_example(bench):
    _, events = bench.get("events", limit="100")
    listed = [one for path in ("disputes", "webhook_endpoints") for one in bench.get(path)[1]["data"]]
    things = [*events["data"], *(one["data"]["object"] for one in events["data"]), *listed, bench.get("balance")[1]]
    assert {one["object"] for one in things} == SHAPES.keys()
    for one in things:
        assert one.keys() == SHAPES[one["object"]].keys()


def test_events_are_listed_newest_first_page_by_page_and_within_their_second(bench):
    ids, after = [], {}
    while True:
        _, page = bench.get("events", limit="3", **after)
        ids += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = {"starting_after": ids[-1]}
    assert ids == [one["id"] for one in bench.get("events", limit="100")[1]["data"]]
    assert len(set(ids)) == len(bench.double.events) == len(ids)
    made = [bench.double.events[name]["created"] for name in ids]
    assert made == sorted(made, reverse=True)
    _, some = bench.get("events", **{"created[gte]": "1001", "created[lt]": "1005"})
    assert [one["type"] for one in some["data"]] == ["payment_intent.succeeded", "charge.succeeded"]


def test_what_was_delivered_is_known_and_what_was_not_is_tried_again_later(bench):
    first, *others = bench.double.deliveries()
    for one in others:
        bench.double.answered(one, 200)
    bench.double.answered(first, 500)
    _, undelivered = bench.get("events", delivery_success="false")
    assert [(one["id"], one["pending_webhooks"]) for one in undelivered["data"]] == [(first.event, 1)]
    assert bench.double.deliveries() == []
    bench.at += 61
    [again] = bench.double.deliveries()
    bench.double.answered(again, 204)
    assert bench.get("events", delivery_success="false")[1]["data"] == []


def test_webhooks_are_signed_as_stripes_sdk_verifies_them(bench):
    for one in bench.double.deliveries():
        assert WebhookSignature.verify_header(one.body, one.headers["stripe-signature"], SECRET)


@pytest.mark.parametrize(("path", "query", "status", "code"), [
    ("events", {"starting_after": "evt_none"}, 400, "resource_missing"), ("nothing", {}, 404, None),
])  # fmt: skip
def test_what_is_not_there_is_refused_as_stripe_does(bench, path, query, status, code):
    found, body = bench.get(path, **query)
    assert (found, body["error"].get("code")) == (status, code)


def test_another_key_is_refused(bench):
    assert bench.get("balance", key="rk_test_other")[0] == 401
