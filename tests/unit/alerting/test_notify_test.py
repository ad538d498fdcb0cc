"""Tests of the way to people: every channel of a receiver is owed one, and they are accounted for as all messages are."""

import pytest

from sixfbd.journal.state import fold
from sixfbd.model import TestNotify


@pytest.fixture
def ledger(kit):
    receivers = {
        "primary": {"sms": kit.Channel(via="sms", to=("555-0100", "555-0101")), "mail": kit.Channel(via="mail")},
        "boss": {"sms": kit.Channel(via="sms", to=("555-0102",))},
    }
    severities = {"low": kit.SeverityTable(channels=("mail",))}
    made = kit.Ledger(kit.policy(receivers=receivers, severities=severities, sms={}, mail={}))
    yield made
    made.check()


def test_every_channel_of_every_receiver_gets_one_whatever_severities_use(kit, ledger):
    outcome = ledger.command(TestNotify())
    assert outcome.ok and outcome.id in ledger.state.open_of
    texts = sorted((one.target.address, one.text) for one in ledger.state.open_obligations(outcome.id))
    assert [address for address, _ in texts] == ["", "555-0100", "555-0101", "555-0102"]
    assert all(text.startswith("Test: ") and "Nothing is wrong" in text for _, text in texts)
    assert [receiver for receiver, _, _ in ledger.deliver_all()] == ["boss", "primary", "primary", "primary"]
    assert outcome.id not in ledger.state.open_of


def test_those_that_are_named_get_one_and_an_unknown_name_sends_none(kit, ledger):
    ledger.command(TestNotify(("boss",)))
    assert [receiver for receiver, _, _ in ledger.deliver_all()] == ["boss"]
    outcome = ledger.command(TestNotify(("boss", "bos")), at=kit.START + 1)
    assert not outcome.ok and "bos" in outcome.error and "primary" in outcome.error
    assert not ledger.sending


def test_whom_a_message_has_reached_is_remembered_over_a_restart(kit, ledger):
    ledger.command(TestNotify(("boss",)))
    assert not list(ledger.state.reached)
    ledger.deliver_all()
    [target] = ledger.state.reached
    assert (target.receiver, target.address) == ("boss", "555-0102")
    assert list(fold(ledger.records).reached) == [target]
    ledger.command(TestNotify(("primary",)), at=kit.START + 1)
    for message in ledger.sending:
        ledger.answer(message, kit.PermanentFailure("no such number"))
    assert list(ledger.state.reached) == [target], "what is dead has reached nobody"
