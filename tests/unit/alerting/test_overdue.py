"""A page counts when it arrived: receipts are asked for, and what does not arrive in time goes by the next channel."""

import pytest

from sixfbd.journal.records import MessageLate, ReceiptAsked
from sixfbd.journal.state import account

EXPIRY_S = 3600.0
BOTH = {"sms": {"receipts": True, "expiry_s": EXPIRY_S}, "mail": {}, "hook": {}}


def by_channels(kit, severity, rule=None, used=("sms",), **notifiers):
    """primary has sms, mail and hook; alerts of the severity use those of `used`."""
    receivers = {"primary": {name: kit.Channel(via=name) for name in BOTH}}
    severities = {severity: kit.SeverityTable(channels=used)}
    rule = rule or kit.rule(severity=severity)
    return kit.Ledger(kit.policy(rule, receivers=receivers, severities=severities, **{**BOTH, **notifiers}))


@pytest.fixture
def critical(kit):
    ledger = by_channels(kit, kit.Severity.CRITICAL)
    yield ledger
    ledger.check()


def channels(ledger):
    """What each channel is owed or was, in order, with its state."""
    return [(one.target.notifier, one.kind, one.state) for one in account(ledger.records).values()]


def take(ledger, at=None, **receipt):
    [message] = ledger.sending
    ledger.answer(message, receipt.get("outcome"), at=at)
    return message


# ---- late ----------------------------------------------------------------------------------------------------------------


def test_without_a_receipt_in_two_minutes_a_critical_alert_goes_by_the_next_channel_once(kit, critical):
    critical.see(kit.found(host="a"))
    take(critical, outcome=kit.Receipt(provider_id="SM1"))
    critical.tick(kit.START + 119)
    assert not critical.sending
    assert critical.next_due == kit.START + 120
    critical.tick(kit.START + 120)
    assert channels(critical) == [("sms", "fire", "accepted"), ("mail", "fire", "sending")]
    take(critical)
    owed = list(account(critical.records).values())[-1]
    assert owed.passed_on == "sms: taken, but no receipt came within 2m"
    assert [one.what for one in critical.records if isinstance(one, MessageLate)] == [owed.passed_on]
    critical.tick(kit.START + 1000)
    assert not critical.sending, "once"
    critical.see(at=kit.START + 1001)
    assert critical.deliver_all() == [("primary", "resolve", "critical")] * 2, "both are told of the end"


def test_a_receipt_in_time_keeps_the_next_channel_out_of_it(kit, critical):
    critical.see(kit.found(host="a"))
    take(critical, outcome=kit.Receipt(provider_id="SM1"))
    critical.receipt(provider_id="SM1", state="delivered", at=kit.START + 119)
    critical.tick(kit.START + 500)
    assert channels(critical) == [("sms", "fire", "delivered")]


def test_what_is_over_acknowledged_or_silenced_by_then_goes_nowhere(kit):
    for end in ("resolve", "ack", "silence"):
        ledger = by_channels(kit, kit.Severity.CRITICAL)
        ledger.see(kit.found(host="a"))
        take(ledger, outcome=kit.Receipt(provider_id="SM1"))
        if end == "resolve":
            ledger.see(at=kit.START + 10)
        elif end == "ack":
            assert ledger.command(kit.Ack(ledger.alert().id), at=kit.START + 10).ok
        else:
            assert ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=600), at=kit.START + 10).ok
        ledger.tick(kit.START + 130)
        assert {name for name, kind, _ in channels(ledger) if kind == "fire"} == {"sms"}, end
        ledger.check()


def test_a_provider_that_takes_nothing_for_two_minutes_makes_way_for_the_next_channel(kit, critical):
    critical.see(kit.found(host="a"))
    take(critical, outcome=kit.TemporaryFailure("503"))
    for at in (1, 30, 60, 90):
        critical.tick(kit.START + at)
        if critical.sending:
            take(critical, outcome=kit.TemporaryFailure("503"))
    critical.tick(kit.START + 120)
    assert ("mail", "fire", "sending") in channels(critical)
    owed = next(one for one in account(critical.records).values() if one.target.notifier == "mail")
    assert owed.passed_on == "sms: not taken within 2m"


def test_a_crash_neither_forgets_that_it_is_late_nor_says_so_twice(kit, critical):
    critical.see(kit.found(host="a"))
    take(critical, outcome=kit.Receipt(provider_id="SM1"))
    critical.crash(kit.START + 60)
    critical.tick(kit.START + 120)
    assert ("mail", "fire", "sending") in channels(critical)
    critical.crash(kit.START + 130)
    critical.tick(kit.START + 200)
    assert [name for name, *_ in channels(critical)] == ["sms", "mail"]


def test_of_a_high_alert_the_next_channel_is_told_only_if_no_other_one_was(kit):
    for used, also in ((("sms", "hook"), set()), (("sms",), {"mail"})):
        ledger = by_channels(kit, kit.Severity.HIGH, used=used)
        ledger.see(kit.found(host="a"))
        for message in ledger.sending:
            sms = ledger.state.messages[message].target.notifier == "sms"
            ledger.answer(message, kit.TemporaryFailure("503", retry_after_s=300) if sms else None)
        ledger.tick(kit.START + 120)
        assert {name for name, *_ in channels(ledger)} == {*used, *also}
        ledger.check()


def test_a_medium_alert_waits_for_its_own_channel(kit):
    ledger = by_channels(kit, kit.Severity.MEDIUM)
    ledger.see(kit.found(host="a"))
    take(ledger, outcome=kit.PermanentFailure("no such number"))
    ledger.tick(kit.START + 500)
    assert channels(ledger) == [("sms", "fire", "dead")]


# ---- given up ------------------------------------------------------------------------------------------------------------


def test_what_is_given_up_goes_by_the_next_channel_at_once_and_on_to_the_one_after(kit, critical):
    critical.see(kit.found(host="a"))
    take(critical, outcome=kit.PermanentFailure("21610: the receiver has replied STOP"))
    assert channels(critical) == [("sms", "fire", "dead"), ("mail", "fire", "sending")]
    take(critical, outcome=kit.PermanentFailure("no such mailbox"))
    assert channels(critical)[-1] == ("hook", "fire", "sending")
    take(critical, outcome=kit.PermanentFailure("410"))
    assert len(channels(critical)) == 3, "no channel is left"


def test_what_arrived_not_after_all_goes_by_the_next_channel(kit, critical):
    critical.see(kit.found(host="a"))
    take(critical, outcome=kit.Receipt(provider_id="SM1"))
    critical.receipt(provider_id="SM1", state="failed", detail="30005 unknown handset", at=kit.START + 5)
    assert channels(critical) == [("sms", "fire", "dead"), ("mail", "fire", "sending")]


# ---- what is itself broken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "used", "told"),
    [
        ("sms", ("sms",), ["sms", "mail"]),
        ("sms", ("sms", "hook"), ["sms", "hook"]),
        ("mail", ("mail",), ["mail", "sms"]),
        ("web", ("sms",), ["sms"]),
    ],
)
def test_an_alert_about_a_channel_is_not_carried_by_that_channel_alone(kit, service, used, told):
    rule = kit.rule(severity=kit.Severity.LOW, labels={"service": service})
    ledger = by_channels(kit, kit.Severity.LOW, rule=rule, used=used)
    ledger.see(kit.found(host="a"))
    assert {name for name, *_ in channels(ledger)} == set(told)
    ledger.deliver_all()
    ledger.see(at=kit.START + 1)
    assert {name for name, kind, _ in channels(ledger) if kind == "resolve"} == set(told)
    ledger.check()


# ---- asked for -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(kit):
    """Of sms nobody calls with receipts: the provider is asked."""
    options = {"receipts": True, "can_look_up": True, "looks_for_receipts": True, "expiry_s": EXPIRY_S}
    ledger = by_channels(kit, kit.Severity.CRITICAL, sms=options)
    ledger.see(kit.found(host="a"))
    take(ledger, outcome=kit.Receipt(provider_id="SM1"))
    yield ledger
    ledger.check()


def asked_at(kit, ledger, until):
    """Step through time; return the seconds at which the provider was asked."""
    times = []
    while ledger.next_due is not None and ledger.next_due <= kit.START + until:
        at = ledger.next_due
        effects = ledger.tick(at).effects
        times += [at - kit.START for one in effects if isinstance(one, kit.Lookup)]
    return times


def test_a_provider_is_asked_after_5_15_30_and_60_seconds_and_then_no_more(kit, asking):
    assert asked_at(kit, asking, 119) == [5, 15, 30, 60]
    assert [one.look_at for one in asking.records if isinstance(one, ReceiptAsked)][-1] is None


def test_what_it_says_has_arrived_is_delivered_and_nobody_asks_again(kit, asking):
    message = next(iter(asking.state.awaited))
    asking.tick(kit.START + 5)
    asking.answer(message, kit.Receipt(state="delivered"), lookup=True)
    assert channels(asking) == [("sms", "fire", "delivered")]
    assert asked_at(kit, asking, 500) == []


def test_what_it_says_has_failed_is_dead_and_goes_by_the_next_channel(kit, asking):
    message = next(iter(asking.state.awaited))
    asking.tick(kit.START + 5)
    asking.answer(message, kit.Receipt(state="failed", detail="30003"), lookup=True)
    assert channels(asking) == [("sms", "fire", "dead"), ("mail", "fire", "sending")]


@pytest.mark.parametrize("outcome", ["accepted", "absent", "temporary", "lost", "permanent"])
def test_an_answer_that_says_nothing_new_changes_nothing(kit, asking, outcome):
    message = next(iter(asking.state.awaited))
    asking.tick(kit.START + 5)
    said = {
        "accepted": kit.Receipt(), "absent": kit.Absent(), "temporary": kit.TemporaryFailure("503"),
        "lost": kit.Lost("no answer"), "permanent": kit.PermanentFailure("404"),
    }[outcome]  # fmt: skip
    assert asking.answer(message, said, lookup=True).records == ()
    assert channels(asking) == [("sms", "fire", "accepted")]
    assert asked_at(kit, asking, 119) == [15, 30, 60]


def test_after_a_standstill_it_is_asked_once_and_not_for_every_time_that_passed(kit, asking):
    decision = asking.tick(kit.START + 40)
    assert sum(isinstance(one, kit.Lookup) for one in decision.effects) == 1
    assert asked_at(kit, asking, 119) == [60]
