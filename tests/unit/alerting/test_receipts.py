"""What providers say of messages later: once it has arrived it has; a failure ends a message, or has it tried again."""

import pytest

from sixfbd.journal.records import RECEIPT_WAITS_S, EventsJudged, ReceiptHeld, ReceiptMissed
from sixfbd.journal.state import MOST_HELD, account

EXPIRY_S = 3600.0


@pytest.fixture
def ledger(kit):
    """A ledger whose only notifier gets receipts, and on which an alert fires: one message is on its way."""
    made = kit.Ledger(kit.policy(sms={"receipts": True, "expiry_s": EXPIRY_S, "retry_first_s": 1.0}))
    made.see(kit.found(host="a"))
    yield made
    made.check()


def taken(kit, ledger, provider_id="SM1", at=None):
    [message] = ledger.sending
    ledger.answer(message, kit.Receipt(provider_id=provider_id), at=at)
    return message


@pytest.mark.parametrize("ours", [True, False])
def test_a_message_that_was_accepted_is_delivered_once_its_receipt_comes(kit, ledger, ours):
    message = taken(kit, ledger)
    assert ledger.states() == [("fire", "accepted")]
    ledger.receipt(**({"message_id": message} if ours else {"provider_id": "SM1"}), state="delivered", at=kit.START + 5)
    assert ledger.states() == [("fire", "delivered")]
    assert not len(ledger.state.awaited) and not len(ledger.state.awaited_as)


def test_a_receipt_and_that_it_was_judged_are_one_commit(kit, ledger):
    taken(kit, ledger)
    decision = ledger.receipt(provider_id="SM1", state="delivered")
    assert isinstance(decision.records[-1], EventsJudged)


def test_what_has_arrived_stays_so_whatever_comes_after(kit, ledger):
    message = taken(kit, ledger)
    ledger.receipt(message_id=message, state="delivered")
    for state in ("accepted", "failed", "delivered"):
        assert ledger.receipt(message_id=message, provider_id="SM1", state=state).records == ()
    assert ledger.states() == [("fire", "delivered")]


def test_a_receipt_that_it_was_taken_says_nothing_new_of_what_was_accepted(kit, ledger):
    taken(kit, ledger)
    assert ledger.receipt(provider_id="SM1", state="accepted").records == ()


def test_a_permanent_failure_ends_a_message_and_nobody_counts_as_told(kit, ledger):
    taken(kit, ledger)
    ledger.receipt(provider_id="SM1", state="failed", detail="30006 landline", at=kit.START + 5)
    [owed] = account(ledger.records).values()
    assert (owed.state, owed.reason) == ("dead", "30006 landline")
    ledger.see(at=kit.START + 10)  # it is over: who never heard of it is not told so
    assert ledger.states() == [("fire", "dead"), ("resolve", "suppressed")]


def test_a_temporary_failure_has_it_tried_again_as_one_more_try_of_the_same_message(kit, ledger):
    message = taken(kit, ledger)
    ledger.receipt(provider_id="SM1", state="failed", temporary=True, detail="30003 unreachable", at=kit.START + 5)
    assert ledger.states() == [("fire", "pending")]
    again = ledger.state.messages[message]
    assert (again.attempt, again.last_error, again.provider_id) == (1, "30003 unreachable", None)
    assert kit.START + 5 < again.next_try_at == ledger.next_due
    ledger.tick(ledger.next_due)
    assert ledger.sending == [message] and ledger.state.messages[message].attempt == 2
    ledger.answer(message, kit.Receipt(provider_id="SM2"))
    ledger.receipt(provider_id="SM2", state="delivered")
    assert ledger.states() == [("fire", "delivered")]


def test_the_provider_may_ask_for_patience_before_the_next_try(kit, ledger):
    message = taken(kit, ledger)
    ledger.receipt(provider_id="SM1", state="failed", temporary=True, retry_after_s=600.0)
    assert ledger.state.messages[message].next_try_at == ledger.now + 600


def test_what_comes_late_of_a_try_that_failed_says_nothing_of_the_next_one(kit, ledger):
    message = taken(kit, ledger)
    failed = {"message_id": message, "provider_id": "SM1", "state": "failed"}
    ledger.receipt(**failed, temporary=True)
    assert ledger.receipt(**failed).records == ()
    ledger.tick(ledger.next_due)
    ledger.receipt(**failed)  # held, because of which try it is only the answer will tell
    ledger.answer(message, kit.Receipt(provider_id="SM2"))
    assert ledger.states() == [("fire", "accepted")]
    assert ledger.receipt(**failed).records == ()


def test_what_failed_and_arrived_after_all_is_not_sent_again(kit, ledger):
    message = taken(kit, ledger)
    ledger.receipt(provider_id="SM1", state="failed", temporary=True)
    ledger.receipt(message_id=message, state="delivered")
    assert ledger.states() == [("fire", "delivered")]
    assert ledger.next_due is None


def test_a_failed_message_is_not_sent_again_once_the_alert_is_over(kit, ledger):
    taken(kit, ledger)
    ledger.see(at=kit.START + 10)  # the resolve is on its way
    ledger.receipt(provider_id="SM1", state="failed", temporary=True, at=kit.START + 11)
    assert ledger.states() == [("fire", "suppressed"), ("resolve", "sending")]


def test_a_failed_resolve_is_sent_again_though_all_else_is_over(kit, ledger):
    taken(kit, ledger)
    ledger.see(at=kit.START + 10)
    [resolve] = ledger.sending
    ledger.answer(resolve, kit.Receipt(provider_id="SM2"))
    assert not len(ledger.state.closing)
    ledger.receipt(provider_id="SM2", state="failed", temporary=True, at=kit.START + 20)
    ledger.tick(ledger.next_due)
    ledger.answer(resolve, kit.TemporaryFailure("busy"))
    ledger.tick(ledger.next_due)
    ledger.answer(resolve, kit.Receipt(provider_id="SM3"))
    assert ledger.states() == [("fire", "accepted"), ("resolve", "accepted")]


def test_what_failed_after_its_time_is_given_up(kit, ledger):
    taken(kit, ledger, at=kit.START + EXPIRY_S - 1)
    ledger.receipt(provider_id="SM1", state="failed", temporary=True, at=kit.START + EXPIRY_S + 1)
    assert ledger.states() == [("fire", "dead")]


def test_a_receipt_that_is_faster_than_the_answer_waits_for_it(kit, ledger):
    ledger.receipt(provider_id="SM1", state="accepted")
    ledger.receipt(provider_id="SM1", state="delivered")
    ledger.receipt(provider_id="SM1", state="accepted")  # out of order, and in no way a step back
    assert ledger.states() == [("fire", "sending")]
    taken(kit, ledger, at=kit.START + RECEIPT_WAITS_S - 1)
    assert ledger.states() == [("fire", "delivered")]
    assert not len(ledger.state.held)


def test_it_waits_over_a_crash(kit, ledger):
    ledger.receipt(provider_id="SM1", state="delivered")
    [message] = ledger.sending
    ledger.crash()
    ledger.answer(message, kit.Receipt(provider_id="SM1"), lookup=True)
    assert ledger.states() == [("fire", "delivered")]


def test_it_does_not_wait_for_ever(kit, ledger):
    ledger.receipt(provider_id="SM1", state="delivered")
    taken(kit, ledger, at=kit.START + RECEIPT_WAITS_S)
    assert ledger.states() == [("fire", "accepted")]


def test_receipts_that_wait_are_bounded_in_number_and_age(kit, ledger):
    for number in range(MOST_HELD + 5):
        ledger.receipt(provider_id=f"SM{number}", state="delivered", at=kit.START + number / 100)
    assert len(ledger.state.held) == MOST_HELD and "theirs SM4" not in ledger.state.held
    ledger.receipt(provider_id="late", state="delivered", at=kit.START + RECEIPT_WAITS_S + 1)
    assert "theirs SM50" not in ledger.state.held


def test_a_receipt_of_somebody_elses_message_is_written_nowhere(kit, ledger):
    taken(kit, ledger)
    assert ledger.receipt(provider_id="of the shop", state="delivered").records == ()
    assert ledger.receipt(message_id="unheard of", state="delivered").records == ()


@pytest.mark.parametrize(
    ("receipt", "state"),
    [
        ({"state": "accepted"}, "accepted"),
        ({"state": "delivered"}, "delivered"),
        ({"state": "failed"}, "dead"),
        ({"state": "failed", "temporary": True}, "pending"),
    ],
)
def test_a_message_whose_answer_was_lost_is_known_by_its_receipt(kit, ledger, receipt, state):
    [message] = ledger.sending
    ledger.answer(message, kit.Lost("no answer"))
    assert ledger.states() == [("fire", "unknown")]
    ledger.receipt(message_id=message, provider_id="SM1", **receipt)
    assert ledger.states() == [("fire", state)]


def test_a_receipt_by_our_own_id_may_be_faster_than_the_loss_of_the_answer(kit, ledger):
    [message] = ledger.sending
    decision = ledger.receipt(message_id=message, provider_id="SM1", state="accepted")
    assert isinstance(decision.records[0], ReceiptHeld)
    ledger.answer(message, kit.Lost("no answer"))
    assert ledger.states() == [("fire", "accepted")]


def test_a_message_that_was_never_tried_is_nobodys_to_confirm(kit, ledger):
    ledger.see(kit.found(host="a"), kit.found(host="b"), at=kit.START + 1)
    ledger.claim = False
    ledger.see(kit.found(host="a"), kit.found(host="c"), at=kit.START + 2)
    waiting = [one.id for one in ledger.state.messages.values() if one.attempt == 0]
    assert waiting
    assert ledger.receipt(message_id=waiting[0], state="delivered").records == ()


def test_a_receipt_that_never_comes_is_missed_once_and_the_message_stays_accepted(kit, ledger):
    message = taken(kit, ledger)
    assert ledger.next_due == kit.START + EXPIRY_S
    decision = ledger.tick(kit.START + EXPIRY_S)
    assert decision.records == (ReceiptMissed(ledger.now, message),)
    assert ledger.next_due is None and ledger.states() == [("fire", "accepted")]
    assert ledger.receipt(provider_id="SM1", state="failed").records == ()


def test_no_receipt_is_awaited_of_a_notifier_that_gets_none(kit):
    ledger = kit.Ledger(kit.policy(hook={}))
    ledger.see(kit.found(host="a"))
    taken(kit, ledger)
    assert not len(ledger.state.awaited)
    assert ledger.receipt(provider_id="SM1", state="failed").records == ()
