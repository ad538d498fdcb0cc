"""Drills: every channel is owed one that says so, it counts when it has arrived, and one is held whenever its interval begins."""

import pytest

from sixfbd import model
from sixfbd.drills import ARRIVES_S, failed, is_due
from sixfbd.journal.records import DrillHeld
from sixfbd.journal.state import fold
from sixfbd.model import Receipt, Target

SMS, MAIL = Target("primary", "sms", "555-0100"), Target("primary", "mail")


@pytest.fixture
def ledger(kit):
    receivers = {"primary": {"sms": kit.Channel(via="sms", to=("555-0100",)), "mail": kit.Channel(via="mail")}}
    made = kit.Ledger(kit.policy(receivers=receivers, sms={"receipts": True}, mail={}))
    yield made
    made.check()


def lost(ledger, after_s=0.0):
    return [(one.drill, one.target) for one in failed(ledger.state, ledger.policy.routing, ledger.now + after_s)]


def sent(ledger):
    return {one.target: one.id for one in ledger.state.messages.values()}


def test_every_channel_is_owed_one_that_says_that_it_is_a_drill_and_nobody_has_to_act(kit, ledger):
    outcome = ledger.command(kit.HoldDrill(("primary",), "weekly"), by="schedule")
    assert outcome.ok
    owed = ledger.state.open_obligations(outcome.id)
    assert {one.target for one in owed} == {SMS, MAIL}
    assert all(one.text.startswith("DRILL: ") and "nobody has to act" in one.text for one in owed)
    assert ledger.state.drills["weekly"] == DrillHeld(ledger.now, "weekly", (SMS, MAIL))


def test_an_unknown_receiver_gets_none_and_nothing_is_noted(kit, ledger):
    outcome = ledger.command(kit.HoldDrill(("primry",), "weekly"))
    assert not outcome.ok and "primary" in outcome.error
    assert "weekly" not in ledger.state.drills


@pytest.mark.parametrize("command", ["HoldDrill", "TestNotify"])
def test_of_two_that_are_asked_for_at_the_same_moment_one_is_refused(kit, ledger, command):
    """What both owe could not be told apart."""
    assert ledger.command(getattr(model, command)(("primary",))).ok
    second = ledger.command(getattr(model, command)(("primary",)))
    assert not second.ok and "at this very moment" in second.error


def test_it_has_arrived_when_a_receipt_says_so_or_when_it_is_taken_where_there_are_none(kit, ledger):
    ledger.command(kit.HoldDrill((), "weekly"))
    messages = sent(ledger)
    for target in (SMS, MAIL):
        ledger.answer(messages[target], Receipt(provider_id=f"p {target.notifier}"), at=ledger.now + 1)
    assert list(ledger.state.drilled) == [MAIL]
    assert lost(ledger) == [], "its receipt may still come"
    assert lost(ledger, ARRIVES_S) == [("weekly", SMS)]
    ledger.receipt(at=ledger.now + 700, message_id=messages[SMS], state="delivered")
    assert lost(ledger) == []
    assert fold(ledger.records).drilled[SMS] == ledger.now


def test_one_that_is_given_up_has_failed_at_once_and_until_another_arrives(kit, ledger):
    ledger.command(kit.HoldDrill())
    messages = sent(ledger)
    ledger.answer(messages[SMS], Receipt(state="delivered", provider_id="p"))
    ledger.answer(messages[MAIL], kit.PermanentFailure("no such address"))
    assert lost(ledger) == [("", MAIL)]
    ledger.command(kit.HoldDrill((), "weekly"), at=ledger.now + 60)
    assert lost(ledger) == [("", MAIL)], "the next one is on its way"
    ledger.answer(sent(ledger)[MAIL], at=ledger.now + 1)
    assert lost(ledger) == []


def test_what_is_configured_no_more_fails_no_drill(kit, ledger):
    ledger.command(kit.HoldDrill())
    for message in ledger.sending:
        ledger.answer(message, kit.PermanentFailure("gone"))
    assert len(lost(ledger)) == 2
    ledger.policy = kit.policy(receivers={"primary": {"mail": kit.Channel(via="mail")}}, mail={})
    assert lost(ledger) == [("", MAIL)]


def test_no_other_message_counts_as_a_drill(kit, ledger):
    ledger.see(kit.found(host="a"))
    ledger.deliver_all()
    assert list(ledger.state.reached) and not list(ledger.state.drilled)


def test_one_is_due_when_its_interval_has_begun_since_the_last_and_is_on(kit):
    hour = kit.Every(3600.0)  # on in odd hours
    assert not is_due(hour, None, 1800.0)
    assert is_due(hour, None, 3600.0), "the first"
    assert not is_due(hour, 3600.0, 7199.0), "held in this hour"
    assert not is_due(hour, 3600.0, 7200.0)
    assert is_due(hour, 3600.0, 3 * 3600.0)
    assert is_due(hour, 3600.0, 999 * 3600.0 + 1), "after a long time away, once"


def test_an_interval_that_is_always_on_has_begun_once():
    always = _Always()
    assert is_due(always, None, 1000.0)
    assert not is_due(always, 1000.0, 1e6)


class _Always:
    def contains(self, at):
        return True

    def next_change(self, at):
        return at + 86_400.0
