"""Faults in words: what may be written, what is refused in which words, and what a switch does to a whole sandbox."""

import base64
import random

import pytest

from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.switches import WORDS, PostFault, SwitchError, read_switch, words_of
from sixfbd_plugins.sandbox.town import DAEMON_NUMBER, Keys, Town

KEYS = Keys(
    twilio_sid="AC" + "0" * 32,
    twilio_token="token",
    stripe_key="rk_test_0",
    stripe_signing="whsec_0",
    sendgrid_key="SG.0",
    sendgrid_signing="seed",
    slack_token="xoxb-0",
    discord_webhooks={"/api/webhooks/1/x": "#alerts"},
    hook_secret="whsec_" + "QUFB" * 11,
)
HEADERS = {"authorization": "Basic " + base64.b64encode(f"{KEYS.twilio_sid}:token".encode()).decode()}


@pytest.fixture
def at():
    return [1_800_000_000.0]


@pytest.fixture
def town(at):
    return Town(KEYS, lambda: at[0], random.Random(3))


def text(town, to, body="hello"):
    form = f"To=%2B{to}&From=%2B{DAEMON_NUMBER[1:]}&Body={body}".encode()
    return town.twilio.handle("POST", f"/2010-04-01/Accounts/{KEYS.twilio_sid}/Messages.json", {}, HEADERS, form)


def test_words_about_requests_become_a_fault_of_them():
    switch = read_switch(1, "twilio", ["error=429", "retry_after=7", "rate=30%", "path=Messages", "latency=250ms"])
    assert switch.fault == Fault(error=429, retry_after_s=7, rate=0.3, path="Messages", latency_s=0.25)
    assert read_switch(1, "shop", ["down"]).fault == Fault(error=503, lost=True)
    assert read_switch(1, "hook", ["hang", "method=post"]).fault == Fault(silent=True, method="POST")
    assert read_switch(1, "twilio", ["webhooks=forged", "rate=0.5"]).post == PostFault("forged", 0.5)
    assert read_switch(1, "shop", ["rush=20", "oversell"]).own == {"rush": 20.0, "oversell": True}


@pytest.mark.parametrize(
    ("target", "words", "said"),
    [
        ("twillio", ["error=503"], "there is no such target; there are shop, twilio"),
        ("twilio", ["rush=3"], "rush means nothing here; there are error, "),
        ("twilio", ["error=200"], "error: '200' is no status of an error; write 503 or 429"),
        ("twilio", ["error"], 'error needs a value; write "error=..."'),
        ("twilio", ["lost=yes"], 'lost takes no value; write "lost"'),
        ("twilio", ["error=503", "rate=130%"], "is no part of a whole; write 30% or 0.3"),
        ("twilio", ["latency=3"], 'has no unit|is not a duration; write "5m"'),
        ("twilio", ["webhooks=late"], "is none of duplicate, disorder, forged, lost"),
        ("twilio", ["rate=30%"], "nothing is switched on"),
        ("shop", ["path=/"], "nothing is switched on"),
        ("shop", ["rush=5", "rate=30%"], "rate goes with requests or webhooks; rush has none"),
        ("shop", ["rush=0"], "is no factor; write 20"),
        ("twilio", ["balance=3"], "is no amount; write 3.50"),
    ],
)
def test_words_that_mean_nothing_are_refused_with_what_may_be_written(target, words, said):
    with pytest.raises(SwitchError, match=said.replace("(", "\\(")):
        read_switch(1, target, words)


def test_every_word_has_a_target_that_knows_it():
    assert all(word.doc and word.targets for word in WORDS.values())
    assert "balance" in words_of("twilio") and "balance" not in words_of("shop")


def test_a_switch_changes_the_house_and_clearing_it_changes_it_back(town, at):
    town.switch("twilio", ["error=503", "code=20503"])
    assert text(town, "13525550101").status == 503
    town.switch("twilio", ["account=suspended", "balance=1.00"])
    town.clear("1")
    assert text(town, "13525550101").status == 201
    assert (town.twilio.status, town.twilio.balance) == ("suspended", "1.00")
    town.switch("shop", ["rush=20"])
    assert town.shop.trade.rush == 20
    assert [one.number for one in town.clear()] == [2, 3]
    assert (town.twilio.status, town.twilio.balance, town.shop.trade.rush) == ("active", "100.00", 1.0)
    with pytest.raises(SwitchError, match="9: no fault of this number or target is on"):
        town.clear("9")


def test_the_inbox_says_what_was_sent_to_whom_and_what_became_of_it(town, at):
    text(town, "13525550101", "first")
    at[0] += 1
    town.switch("twilio", ["undelivered=30003"])
    town.switch("twilio", ["lost", "path=Messages"])
    assert text(town, "13525550102", "second").lost
    at[0] += 10
    town.advance()
    items = [one for one in town.inbox() if one.by == "sixfbd"]
    assert [(one.channel, one.to, one.text, one.state) for one in items] == [
        ("sms", "+13525550101", "first", "delivered"),
        ("sms", "+13525550102", "second", "undelivered (30003)"),
    ]
    assert [one.number for one in town.inbox(items[0].number)][:1] == [items[1].number]


def test_the_shop_confirms_its_tickets_by_text_and_mail_and_the_inbox_tells_them_apart(town, at):
    town.switch("shop", ["rush=100"])
    at[0] += 30
    town.advance()
    at[0] += 5
    town.advance()
    sold = [one for one in town.shop.state.orders.values() if one.state == "ticketed"]
    texts = [one.to for one in town.inbox() if one.by == "shop" and one.channel == "sms"]
    mails = [one.to for one in town.inbox() if one.by == "shop" and one.channel == "email"]
    assert len(texts) == len(mails) == len(sold) > 0
    assert all(one.startswith("+1352555") for one in texts)
    assert sorted(mails) == sorted(one.customer for one in sold)


def test_a_payment_of_the_shop_is_one_at_stripe_and_its_webhook_is_due_at_the_daemon(town, at):
    town.switch("shop", ["rush=100"])
    at[0] += 20
    town.advance()
    at[0] += 5
    parcels = [one for one in town.advance() if one.house == "stripe"]
    sold = [one for one in town.shop.state.orders.values() if one.state == "ticketed"]
    succeeded = [one for one in town.stripe.events.values() if one["type"] == "payment_intent.succeeded"]
    assert len(succeeded) >= len(sold) > 0
    assert {one.reference for one in sold} <= {one["data"]["object"]["id"] for one in succeeded}
    assert parcels[0].url == "http://127.0.0.1:9633/webhooks/stripe"
    assert parcels[0].headers["stripe-signature"].startswith("t=")


def test_an_outage_of_stripe_fails_payments_for_reasons_of_technique_and_refunds_wait(town, at):
    wish = b'{"cityId":"%s","tier":"ga","email":"a@example.com"}' % next(iter(town.shop.state.cities)).encode()
    assert town.shop.handle("POST", "/checkout", {}, {}, wish).status == 201
    at[0] += 2
    town.advance()
    town.switch("stripe", ["error=500"])
    assert town.shop.handle("POST", "/checkout", {}, {}, wish).status == 502
    town.switch("shop", ["refunds=100%"])
    at[0] += 11
    town.advance()
    assert town.shop.state.refunded_minor == 0
    town.clear("stripe")
    at[0] += 61
    town.advance()
    assert town.shop.state.refunded_minor >= 4900
    assert any(one["type"] == "refund.created" for one in town.stripe.events.values())


def test_disputes_and_payouts_strike_once_and_disputes_end_with_their_fault(town, at):
    wish = b'{"cityId":"%s","tier":"ga","email":"a@example.com"}' % next(iter(town.shop.state.cities)).encode()
    town.shop.handle("POST", "/checkout", {}, {}, wish)
    at[0] += 2
    town.advance()
    town.switch("stripe", ["disputes=100%"])
    town.switch("stripe", ["payouts=fail"])
    town.switch("stripe", ["endpoint=disabled"])
    assert [one["status"] for one in town.stripe.disputes.values()] == ["needs_response"]
    assert [one["type"] for one in town.stripe.events.values()].count("payout.failed") == 1
    assert town.endpoint.status == "disabled"
    town.clear()
    assert [one["status"] for one in town.stripe.disputes.values()] == ["won"]
    assert town.endpoint.status == "enabled"


def test_slack_refuses_in_its_own_words(town):
    town.switch("slack", ["refusal=channel_not_found"])
    answer = town.slack.handle("POST", "/api/chat.postMessage", {}, {"authorization": "Bearer xoxb-0"}, b"{}")
    assert (answer.status, answer.body) == (200, b'{"ok": false, "error": "channel_not_found"}')
