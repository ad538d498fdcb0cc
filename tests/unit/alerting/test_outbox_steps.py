"""What becomes of a message next: both sides of every edge; delays, give-up, lost answers, look-ups."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.alerting.decide import SOONEST_S
from sixfbd.alerting.policy import NotifierPolicy
from sixfbd.model import Event, Message, StoredEvent, Target
from sixfbd.outbox.steps import LOST_TWICE, GiveUp, Look, Send, Suppress, Wait, next_step, retry_delay_s
from sixfbd.plugin import OverPace

PLAIN = NotifierPolicy(name="hook")
IDEMPOTENT = NotifierPolicy(name="hook", idempotent=True)
CAN_LOOK = NotifierPolicy(name="hook", can_look_up=True)


def message(state="pending", **options):
    options = {"created_at": 0.0, "expires_at": 100.0, "next_try_at": 10.0, **options}
    return Message(id="m", target=Target("r", "hook"), state=state, obligations=("o",), **options)


@pytest.mark.parametrize(
    ("given_message", "notifier", "now", "step"),
    [
        (message(), PLAIN, 9.9, Wait(10.0)),
        (message(), PLAIN, 10.0, Send()),
        (message(possibly_repeated=True), PLAIN, 10.0, Send(possibly_repeated=True)),
        (message(), PLAIN, 99.9, Send()),
        (message(last_error="refused"), PLAIN, 100.0, GiveUp("not accepted within 1m40s: refused")),
        (message(), PLAIN, 100.0, GiveUp("not accepted within 1m40s: never tried")),
        (message(next_try_at=200.0), PLAIN, 50.0, Wait(100.0)),
        (message(), None, 0.0, GiveUp("notifier hook is not configured")),
        (message("sending"), PLAIN, 1000.0, Wait(None)),
        (message("sending"), None, 1000.0, Wait(None)),
        (message("unknown"), PLAIN, 9.9, Wait(10.0)),
        (message("unknown"), PLAIN, 10.0, Send(possibly_repeated=True)),
        (message("unknown", possibly_repeated=True), PLAIN, 0.0, GiveUp(LOST_TWICE)),
        (message("unknown"), IDEMPOTENT, 10.0, Send()),
        (message("unknown", attempt=7), IDEMPOTENT, 99.0, Send()),
        (message("unknown"), CAN_LOOK, 10.0, Look()),
        (message("unknown"), CAN_LOOK, 9.9, Wait(10.0)),
        (message("unknown"), CAN_LOOK, 100.0, GiveUp("not accepted within 1m40s: never tried")),
    ],
)
def test_the_next_step_follows_from_state_time_and_what_the_notifier_promises(given_message, notifier, now, step):
    assert next_step(given_message, 1, notifier, now) == step


def test_a_message_that_carries_nothing_any_more_is_suppressed_unless_it_may_have_gone():
    assert next_step(message(), 0, PLAIN, 0.0) == Suppress("superseded")
    assert next_step(message("sending"), 0, PLAIN, 0.0) == Wait(None)


def rng(*key):
    return random.Random("/".join(key))


@given(attempt=st.integers(1, 60), wish=st.none() | st.floats(0, 1000))
def test_a_delay_grows_by_two_is_bounded_drawn_by_key_and_never_below_what_was_asked(attempt, wish):
    one = message(attempt=attempt)
    delay = retry_delay_s(one, PLAIN, rng, wish)
    longest = min(300.0, 2.0 ** (attempt - 1))
    assert max(longest / 2, wish or 0) <= delay <= max(longest, wish or 0)
    assert delay == retry_delay_s(one, PLAIN, rng, wish)


@pytest.fixture
def ledger(kit):
    return lambda **settings: kit.Ledger(kit.policy(hook=settings))


def test_a_failed_try_is_repeated_later_and_retry_after_is_honoured(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    [identity] = one.sending
    one.answer(identity, kit.TemporaryFailure("busy", retry_after_s=42.0))
    assert one.next_due == kit.START + 42
    assert one.tick(kit.START + 41.9).effects == ()
    [again] = one.tick(kit.START + 42).effects
    assert (again.message.id, again.message.attempt) == (identity, 2)
    one.answer(identity)
    assert one.states() == [("fire", "accepted")]
    assert one.next_due is None
    one.check()


@pytest.mark.parametrize("during", ["the try", "the wait"])
def test_what_ends_while_the_provider_wishes_to_wait_is_told_to_nobody(kit, ledger, during):
    one = ledger()
    one.see(kit.found(host="a"))
    [identity] = one.sending
    busy = kit.TemporaryFailure("busy", retry_after_s=42.0, sent=False)
    if during == "the try":
        one.see(at=kit.START + 1)
        one.answer(identity, busy)
    else:
        one.answer(identity, busy)
        one.see(at=kit.START + 1)
    assert one.states() == [("fire", "suppressed"), ("resolve", "suppressed")]
    assert one.next_due is None and not len(one.state.messages)
    assert one.tick(kit.START + 100).effects == ()
    one.check()


def test_what_is_not_accepted_before_it_expires_is_dead_to_the_moment(kit, ledger):
    one = ledger(expiry_s=60.0)
    one.see(kit.found(host="a"))
    one.answer(one.sending[0], kit.TemporaryFailure("refused", retry_after_s=1000.0))
    assert one.next_due == kit.START + 60
    one.tick(kit.START + 59.9)
    assert one.states() == [("fire", "pending")]
    one.tick(kit.START + 60)
    assert one.states() == [("fire", "dead")]
    assert one.records[-1].what == "not accepted within 1m: refused"
    one.check()


def test_an_answer_that_was_lost_is_looked_up_until_the_provider_says(kit, ledger):
    one = ledger(can_look_up=True, timeout_s=5.0)
    one.see(kit.found(host="a"))
    [identity] = one.sending
    one.answer(identity, kit.Lost("timed out"))
    [look] = one.tick(kit.START + 1).effects
    assert isinstance(look, kit.Lookup)
    assert one.tick(kit.START + 2).effects == (), "one look-up at a time"
    one.answer(identity, kit.TemporaryFailure("cannot tell"), lookup=True)
    assert one.states() == [("fire", "unknown")]
    assert [type(one) for one in one.tick(kit.START + 10).effects] == [kit.Lookup]
    one.answer(identity, kit.Receipt(state="delivered"), lookup=True)
    assert one.states() == [("fire", "delivered")]
    one.check()


def test_what_the_provider_does_not_have_is_sent_again_unmarked(kit, ledger):
    one = ledger(can_look_up=True)
    one.see(kit.found(host="a"))
    [identity] = one.sending
    one.answer(identity, kit.Lost("timed out"))
    one.tick(kit.START + 1)
    [again] = one.answer(identity, kit.Absent(), lookup=True, at=kit.START + 2).effects
    assert isinstance(again, kit.Deliver)
    assert not again.message.possibly_repeated
    one.check()


def test_without_look_up_and_idempotency_a_lost_answer_means_one_more_try_marked_and_then_the_end(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    [identity] = one.sending
    one.answer(identity, kit.TemporaryFailure("connection reset", sent=True))
    [again] = one.tick(kit.START + 30).effects
    assert again.message.possibly_repeated
    one.answer(identity, kit.Lost("timed out"))
    assert one.states() == [("fire", "dead")]
    assert one.records[-1].what == LOST_TWICE
    one.check()


def test_no_more_messages_are_on_their_way_than_the_notifier_takes_at_once(kit, ledger):
    one = ledger(concurrency=2)
    one.policy = kit.policy(*(kit.rule(f"R{n}") for n in range(5)), hook={"concurrency": 2})
    one.go(*(kit.seen(kit.START, kit.found(host="a"), rule=f"R{n}") for n in range(5)))
    assert len(one.sending) == 2
    assert one.next_due is None, "an answer brings the next one, not time"
    assert len(one.answer(one.sending[0]).effects) == 1
    assert len(one.sending) == 2
    while one.sending:
        one.answer(one.sending[0])
    assert one.states() == [("fire", "accepted")] * 5
    one.check()


def test_what_waits_for_room_goes_on_with_alerts_before_older_notices(kit, ledger):
    one = ledger(concurrency=1)
    one.policy = kit.policy(notices={"sale": "ticket sold"}, hook={"concurrency": 1})
    for seq in (1, 2, 3):
        one.go(
            kit.EventsCommitted(kit.START, seq, (StoredEvent(seq, "shop", kit.START, Event(f"e{seq}", "sale", 0.0)),))
        )
    one.see(kit.found(host="a"), at=kit.START + 1)
    order = []
    while one.sending:
        [message] = one.sending
        order += [carried.kind for carried in one.state.carried(one.state.messages[message])]
        one.answer(message)
    assert order == ["notice", "fire", "notice", "notice"]
    one.check()


def test_what_was_over_the_pace_waits_as_it_was_told_to_however_often_and_no_try_is_counted(kit, ledger):
    one = ledger(retry_first_s=60.0)
    one.see(kit.found(host="a"))
    [message] = one.sending
    for _ in range(5):
        one.answer(message, OverPace("slower", retry_after_s=4.0))
        waiting = one.state.messages[message]
        assert (waiting.state, waiting.attempt, waiting.next_try_at) == ("pending", 0, one.now + 4.0)
        one.tick(one.now + 4.0)
        assert one.sending == [message]
    one.answer(message, OverPace("at once", retry_after_s=0.0))
    assert one.next_due == one.now + SOONEST_S
    one.check()


def test_what_stays_over_the_pace_is_given_up_when_it_expires(kit, ledger):
    one = ledger(expiry_s=100.0)
    one.see(kit.found(host="a"))
    [message] = one.sending
    one.answer(message, OverPace("slower", retry_after_s=1000.0))
    one.tick(kit.START + 100.0)
    assert one.states() == [("fire", "dead")]
    one.check()


def test_a_late_answer_to_a_message_that_is_settled_changes_nothing(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    [identity] = one.sending
    one.answer(identity)
    assert one.answer(identity, kit.TemporaryFailure("late")).records == ()
    assert one.answer("unheard of", kit.Absent(), lookup=True).records == ()


def test_after_a_crash_what_was_on_its_way_is_unknown_and_handled_as_such(kit, ledger):
    for settings, expected in (
        ({"idempotent": True}, (kit.Deliver, False)),
        ({"can_look_up": True}, (kit.Lookup, False)),
        ({}, (kit.Deliver, True)),
    ):
        one = ledger(**settings)
        one.see(kit.found(host="a"))
        one.crash()
        assert one.states() == [("fire", "unknown")]
        [effect] = one.tick(one.now).effects
        assert (type(effect), effect.message.possibly_repeated) == expected
        one.check()


def test_what_may_have_arrived_is_sent_once_more_only_after_a_while(kit):
    ledger = kit.Ledger(kit.policy(mail={}))
    ledger.see(kit.found(host="a"))
    [message] = ledger.sending
    ledger.answer(message, kit.TemporaryFailure("connection lost", sent=True))
    assert ledger.next_due == kit.START + 30, "a provider that hangs up does so for a while"
    ledger.tick(kit.START + 30)
    assert ledger.state.messages[message].possibly_repeated
    ledger.answer(message, kit.TemporaryFailure("connection lost", sent=True))
    assert ledger.states() == [("fire", "dead")]
    ledger.check()
