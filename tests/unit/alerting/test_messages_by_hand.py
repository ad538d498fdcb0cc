"""Messages dropped and sent again by hand: what is still so is owed anew, and the account balances."""

import pytest

from sixfbd.journal.state import account
from sixfbd.model import DropMessage, RetryMessage


@pytest.fixture
def ledger(kit):
    made = kit.Ledger(kit.policy(hook={"retry_first_s": 60.0}))
    yield made
    made.check()


def carried(ledger, message):
    return tuple(one for one in account(ledger.records).values() if one.message == message)


def test_a_message_that_waits_is_dropped_and_who_did_it_is_its_reason(kit, ledger):
    ledger.see(kit.found(host="a"))
    [message] = ledger.sending
    refused = ledger.command(DropMessage(message))
    assert not refused.ok and "sending" in refused.error
    ledger.answer(message, kit.TemporaryFailure("not now"), at=kit.START + 1)
    assert ledger.command(DropMessage(message), at=kit.START + 2).ok
    assert ledger.reasons() == ["dropped by uid:1000 alice"] and not ledger.state.messages
    assert not ledger.command(DropMessage(message), at=kit.START + 3).ok


def test_what_was_given_up_and_still_fires_is_sent_again_in_a_message_of_its_own(kit, ledger):
    ledger.see(kit.found(host="a"))
    [message] = ledger.sending
    ledger.answer(message, kit.PermanentFailure("no such address"))
    assert ledger.command(RetryMessage(message, carried(ledger, message)), at=kit.START + 5).ok
    [again] = ledger.sending
    assert again != message
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    assert ledger.states() == [("fire", "dead"), ("fire", "accepted")]
    ledger.see(at=kit.START + 10)
    assert ledger.deliver_all() == [("primary", "resolve", "high")]


def test_what_is_over_by_now_or_was_delivered_is_not_sent_again(kit, ledger):
    ledger.see(kit.found(host="a"))
    [message] = ledger.sending
    ledger.answer(message, kit.PermanentFailure("no such address"))
    ledger.see(at=kit.START + 5)
    outcome = ledger.command(RetryMessage(message, carried(ledger, message)), at=kit.START + 6)
    assert not outcome.ok and "still to be told" in outcome.error
    ledger.see(kit.found(host="b"), at=kit.START + 7)
    [delivered] = ledger.sending
    ledger.answer(delivered)
    assert not ledger.command(RetryMessage(delivered, carried(ledger, delivered)), at=kit.START + 8).ok
