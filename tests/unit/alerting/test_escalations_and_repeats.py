"""Who else is told of what nobody takes on, and who is told again; groups that wait for more of themselves."""

import pytest
from msgspec.structs import replace

from sixfbd.alerting.escalation import UNFINISHED_S, UNTOLD_S, unfinished
from sixfbd.alerting.holding import LOOK_S
from sixfbd.model import Hold

MINUTE = 60.0


@pytest.fixture
def critical(kit):
    """Critical alerts escalate to boss after 5 minutes and to owner after 15; what fires is repeated hourly."""
    receivers = {name: {"hook": kit.Channel(via="hook", to=(name,))} for name in ("primary", "boss", "owner")}
    steps = (
        kit.EscalationStep(after=kit.Duration(15 * MINUTE), receiver="owner"),
        kit.EscalationStep(after=kit.Duration(5 * MINUTE), receiver="boss"),
    )
    table = kit.EscalationTable(name="critical", matchers=('severity="critical"',), steps=steps)
    route = kit.RouteTable(receiver="primary", repeat_interval=kit.Duration(3600))
    rules = (
        kit.rule(severity=kit.Severity.CRITICAL),
        kit.rule("Stock", levels=kit.STOCK_LEVELS),
        kit.rule("SoldOut", severity=kit.Severity.CRITICAL, once=('tier="ga"',)),
    )
    ledger = kit.Ledger(kit.policy(*rules, receivers=receivers, route=route, escalations=(table,)))
    yield ledger
    ledger.check()


def told_at(ledger, at):
    ledger.tick(at)
    return ledger.deliver_all()


def test_each_step_is_taken_once_in_order_while_nobody_takes_the_alert_on(kit, critical):
    critical.see(kit.found(host="a"))
    assert critical.deliver_all() == [("primary", "fire", "critical")]
    assert told_at(critical, kit.START + 5 * MINUTE - 1) == []
    assert critical.next_due == kit.START + 5 * MINUTE
    assert told_at(critical, kit.START + 5 * MINUTE) == [("boss", "escalate", "critical")]
    assert told_at(critical, kit.START + 15 * MINUTE) == [("owner", "escalate", "critical")]
    assert critical.alert().escalated == ("critical: boss", "critical: owner")
    critical.see(at=kit.START + 20 * MINUTE)
    assert [receiver for receiver, kind, _ in critical.deliver_all() if kind == "resolve"] == [
        "boss",
        "owner",
        "primary",
    ]


def test_the_audit_finds_steps_that_were_not_taken_though_no_timer_runs_for_them(kit, critical):
    critical.see(kit.found(host="a"))
    critical.deliver_all()
    alert = critical.alert()
    due, escalations = alert.severity_at + 5 * MINUTE, critical.policy.escalations
    assert unfinished(critical.state, escalations, due + UNFINISHED_S) == set()
    for lost in (None, due + 7200):
        critical.state.alerts[alert.key] = replace(alert, escalate_at=lost)
        assert unfinished(critical.state, escalations, due + UNFINISHED_S + 1) == {(alert.id, "critical: boss")}
    for done in (
        replace(alert, acked_by="uid:0"),
        replace(alert, once=True),
        replace(alert, held=(Hold("silence", "s"),)),
    ):
        critical.state.alerts[alert.key] = done
        assert unfinished(critical.state, escalations, due + 7200) == set()
    critical.state.alerts[alert.key] = alert


def test_the_audit_finds_steps_of_which_nobody_was_told_for_too_long(kit, critical):
    critical.see(kit.found(host="a"))
    critical.deliver_all()
    at = kit.START + 5 * MINUTE
    critical.tick(at)
    incident, escalations = critical.alert().id, critical.policy.escalations
    assert unfinished(critical.state, escalations, at + UNTOLD_S) == set()
    assert unfinished(critical.state, escalations, at + UNTOLD_S + 1) >= {(incident, "boss through hook")}
    critical.deliver_all()
    assert (incident, "boss through hook") not in unfinished(critical.state, escalations, at + UNTOLD_S + 1)


def test_an_acknowledgement_stops_escalation_and_repeats_until_the_incident_ends(kit, critical):
    critical.see(kit.found(host="a"))
    critical.deliver_all()
    assert critical.command(kit.Ack(critical.alert().id), at=kit.START + 60).ok
    assert told_at(critical, kit.START + 7200) == []
    critical.see(at=kit.START + 7201)
    critical.deliver_all()
    critical.see(kit.found(host="a"), at=kit.START + 7300)
    critical.deliver_all()
    assert told_at(critical, kit.START + 7300 + 5 * MINUTE) == [("boss", "escalate", "critical")], "a new incident"


def test_an_alert_that_becomes_critical_escalates_from_then_on(kit, critical):
    critical.see(kit.found(8.0, host="a"), rule="Stock")
    critical.see(kit.found(0.0, host="a"), rule="Stock", at=kit.START + 1000)
    critical.deliver_all()
    assert told_at(critical, kit.START + 1000 + 5 * MINUTE - 1) == []
    assert told_at(critical, kit.START + 1000 + 5 * MINUTE) == [("boss", "escalate", "critical")]


def test_an_alert_that_is_critical_no_longer_does_not_escalate(kit, critical):
    critical.see(kit.found(0.0, host="a"), rule="Stock")
    critical.see(kit.found(8.0, host="a"), rule="Stock", at=kit.START + 100)
    critical.deliver_all()
    assert critical.alert("Stock").escalate_at is None
    assert told_at(critical, kit.START + 1000) == []


def test_a_hold_keeps_a_step_back_and_it_is_taken_when_the_hold_ends(kit, critical):
    critical.see(kit.found(host="a"))
    critical.deliver_all()
    critical.command(kit.AddSilence(matchers=('host="a"',), duration_s=10 * MINUTE), at=kit.START + 1)
    assert told_at(critical, kit.START + 5 * MINUTE) == []
    assert told_at(critical, kit.START + 1 + 10 * MINUTE) == [("boss", "escalate", "critical")]


def test_a_step_taken_is_not_taken_again_after_a_crash(kit, critical):
    critical.see(kit.found(host="a"))
    critical.deliver_all()
    told_at(critical, kit.START + 5 * MINUTE)
    critical.crash(at=kit.START + 6 * MINUTE)
    critical.see(kit.found(host="a"), at=kit.START + 6 * MINUTE + 1)
    assert critical.deliver_all() == []
    assert told_at(critical, kit.START + 15 * MINUTE) == [("owner", "escalate", "critical")]


@pytest.fixture
def overdue(kit, critical):
    """A ledger that begins again when a step has fallen due."""
    critical.see(kit.found(host="a"))
    critical.deliver_all()
    critical.crash(at=kit.START + 6 * MINUTE)
    assert told_at(critical, kit.START + 6 * MINUTE) == []
    return critical


def test_a_step_that_fell_due_while_the_daemon_was_down_is_taken_once_the_alert_is_seen_again(kit, overdue):
    overdue.see(kit.found(host="a"), at=kit.START + 6 * MINUTE + 1)
    assert overdue.deliver_all() == [("boss", "escalate", "critical")]


def test_a_step_that_fell_due_while_the_daemon_was_down_does_not_wait_for_long_to_see_it(kit, overdue):
    overdue.see(kit.found(host="a"), at=kit.START + 6 * MINUTE + 1, blind_checks=("c",))
    assert overdue.deliver_all() == []
    assert kit.START + 6 * MINUTE + 1 < overdue.next_due <= kit.START + 6 * MINUTE + LOOK_S
    assert told_at(overdue, kit.START + 6 * MINUTE + LOOK_S) == [("boss", "escalate", "critical")]


def test_a_step_that_fell_due_while_the_daemon_was_down_is_not_taken_of_what_is_over(kit, overdue):
    overdue.see(at=kit.START + 6 * MINUTE + 1)
    assert overdue.deliver_all() == [("primary", "resolve", "critical")]
    assert told_at(overdue, kit.START + 6 * MINUTE + LOOK_S) == []


def test_who_took_over_from_whom_a_hold_kept_back_is_told_once_after_a_start_though_it_is_given_up(kit):
    receivers = {name: {"hook": kit.Channel(via="hook", to=(name,))} for name in ("primary", "boss")}
    turns = kit.ByTurns("primary", "boss", shift_s=5 * MINUTE)
    route = kit.RouteTable(receiver="week", repeat_interval=kit.Duration(0))
    ledger = kit.Ledger(kit.policy(receivers=receivers, route=route, rotations={"week": turns}))
    ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=MINUTE), at=kit.START)
    ledger.see(kit.found(host="a"), at=kit.START + 1)
    ledger.crash(at=kit.START + 6 * MINUTE)
    ledger.tick(kit.START + 6 * MINUTE)
    assert not ledger.sending
    ledger.see(kit.found(host="a"), at=kit.START + 6 * MINUTE + 1)
    [message] = ledger.sending
    ledger.answer(message, kit.PermanentFailure("no such number"))
    ledger.tick(kit.START + 6 * MINUTE + 2)
    assert ledger.states("fire") == [("fire", "suppressed"), ("fire", "dead")]
    ledger.check()


def test_the_audit_counts_from_a_start_what_fell_due_before_it(kit, overdue):
    at, escalations = kit.START + 6 * MINUTE, overdue.policy.escalations
    assert unfinished(overdue.state, escalations, at + UNFINISHED_S) == set()
    assert unfinished(overdue.state, escalations, at + UNFINISHED_S + 1) == {(overdue.alert().id, "critical: boss")}


def test_a_step_counts_from_the_end_of_a_hold_that_kept_everybody_from_knowing(kit, critical):
    critical.command(kit.AddSilence(matchers=('host="a"',), duration_s=20 * MINUTE), at=kit.START)
    critical.see(kit.found(host="a"), at=kit.START + 1)
    assert told_at(critical, kit.START + 10 * MINUTE) == []
    assert told_at(critical, kit.START + 20 * MINUTE) == [("primary", "fire", "critical")]
    assert told_at(critical, kit.START + 25 * MINUTE - 1) == []
    assert told_at(critical, kit.START + 25 * MINUTE) == [("boss", "escalate", "critical")]
    assert told_at(critical, kit.START + 35 * MINUTE) == [("owner", "escalate", "critical")]


def test_a_step_counts_from_the_end_of_a_hold_that_kept_everybody_from_knowing_how_bad_it_is(kit, critical):
    critical.see(kit.found(8.0, host="a"), rule="Stock")
    critical.deliver_all()
    critical.command(kit.AddSilence(matchers=('host="a"',), duration_s=20 * MINUTE), at=kit.START + 1)
    critical.see(kit.found(0.0, host="a"), rule="Stock", at=kit.START + 2)
    assert told_at(critical, kit.START + 1 + 20 * MINUTE) == [("primary", "level", "critical")]
    assert told_at(critical, kit.START + 25 * MINUTE) == []
    assert told_at(critical, kit.START + 1 + 25 * MINUTE) == [("boss", "escalate", "critical")]


def test_holds_that_begin_again_before_anybody_is_told_do_not_put_a_step_off_for_ever(kit, critical):
    silence = kit.AddSilence(matchers=('host="a"',), duration_s=2 * MINUTE)
    critical.command(silence, at=kit.START)
    critical.see(kit.found(host="a"), at=kit.START + 1)
    critical.claim = False
    for turn in range(1, 4):  # nothing leaves in between
        critical.tick(kit.START + turn * 2 * MINUTE)
        critical.command(silence, at=kit.START + turn * 2 * MINUTE + 1)
    critical.claim = True
    assert told_at(critical, kit.START + 8 * MINUTE + 1) == [
        ("boss", "escalate", "critical"),
        ("primary", "fire", "critical"),
    ]


def test_an_escalation_to_a_receiver_without_a_channel_is_accounted_for(kit):
    steps = (kit.EscalationStep(after=kit.Duration(60), receiver="nobody"),)
    table = kit.EscalationTable(name="all", matchers=('severity="high"',), steps=steps)
    ledger = kit.Ledger(kit.policy(escalations=(table,)))
    ledger.see(kit.found(host="a"))
    ledger.deliver_all()
    ledger.tick(kit.START + 60)
    assert ledger.states("escalate") == [("escalate", "suppressed")]
    assert "nobody has no channel" in ledger.reasons()[0]
    assert ledger.next_due is None
    ledger.check()


def test_what_still_fires_is_told_again_after_the_repeat_interval(kit, critical):
    critical.see(kit.found(8.0, host="a"), rule="Stock")
    critical.deliver_all()
    assert told_at(critical, kit.START + 3599) == []
    assert told_at(critical, kit.START + 3600) == [("primary", "repeat", "medium")]
    assert told_at(critical, kit.START + 7199) == []
    assert told_at(critical, kit.START + 7200) == [("primary", "repeat", "medium")]


def test_a_change_of_level_begins_the_repeat_interval_anew(kit, critical):
    critical.see(kit.found(8.0, host="a"), rule="Stock")
    critical.deliver_all()
    critical.see(kit.found(3.0, host="a"), rule="Stock", at=kit.START + 3000)
    critical.deliver_all()
    assert told_at(critical, kit.START + 3600) == []
    assert told_at(critical, kit.START + 6600) == [("primary", "repeat", "high")]


def test_a_hold_swallows_a_repeat_and_its_end_does_not_bring_it_back(kit, critical):
    critical.see(kit.found(8.0, host="a"), rule="Stock")
    critical.deliver_all()
    critical.command(kit.AddSilence(matchers=('host="a"',), duration_s=600), at=kit.START + 3500)
    assert told_at(critical, kit.START + 3600) == []
    assert told_at(critical, kit.START + 4100) == []
    assert told_at(critical, kit.START + 7200) == [("primary", "repeat", "medium")]


def test_what_is_told_once_is_neither_repeated_nor_escalated(kit, critical):
    critical.see(kit.found(tier="ga"), kit.found(tier="vip"), rule="SoldOut")
    critical.deliver_all()
    assert told_at(critical, kit.START + 5 * MINUTE) == [("boss", "escalate", "critical")], "vip alone"
    assert told_at(critical, kit.START + 3600 + 5 * MINUTE).count(("primary", "repeat", "critical")) == 1


# ---- groups ------------------------------------------------------------------------------------------------------------


def grouping(kit, **timing):
    timing = {"repeat_interval": kit.Duration(0)} | timing
    return kit.Ledger(kit.policy(route=kit.RouteTable(receiver="primary", **timing), hook={"concurrency": 20}))


def test_a_new_group_waits_for_more_and_is_told_in_one_message(kit):
    ledger = grouping(kit, group_by=("host",), group_wait=kit.Duration(10))
    ledger.see(kit.found(host="a", disk="1"))
    ledger.see(kit.found(host="a", disk="1"), kit.found(host="a", disk="2"), kit.found(host="b"), at=kit.START + 9)
    assert ledger.next_due == kit.START + 10 and not ledger.sending
    ledger.tick(kit.START + 10)
    [message] = ledger.sending
    assert len(ledger.state.messages[message].obligations) == 2
    assert ledger.state.messages[message].group == 'route{"host":"a"}'
    ledger.deliver_all()
    ledger.tick(kit.START + 19)
    assert len(ledger.deliver_all()) == 1
    ledger.check()


def test_a_group_that_was_told_of_waits_for_its_interval_and_a_quiet_one_is_told_at_once(kit):
    ledger = grouping(kit, group_by=(), group_wait=kit.Duration(10), group_interval=kit.Duration(300))
    ledger.see(kit.found(host="a"))
    ledger.tick(kit.START + 10)
    ledger.deliver_all()
    ledger.see(kit.found(host="a"), kit.found(host="b"), at=kit.START + 20)
    ledger.tick(kit.START + 309)
    assert not ledger.sending
    ledger.tick(kit.START + 310)
    assert len(ledger.deliver_all()) == 1
    ledger.see(kit.found(host="a"), kit.found(host="b"), kit.found(host="c"), at=kit.START + 2000)
    assert len(ledger.deliver_all()) == 1
    ledger.check()


def test_what_ends_before_its_group_was_told_is_told_to_nobody(kit):
    ledger = grouping(kit, group_wait=kit.Duration(10))
    ledger.see(kit.found(host="a"))
    ledger.see(at=kit.START + 5)
    ledger.tick(kit.START + 10)
    assert not ledger.sending and not ledger.state.obligations
    assert not list(ledger.state.group_sizes) and not list(ledger.state.group_waits)
    ledger.check()


def test_a_group_is_forgotten_when_its_last_incident_is_over(kit):
    ledger = grouping(kit, group_by=(), group_wait=kit.Duration(10), group_interval=kit.Duration(300))
    ledger.see(kit.found(host="a"))
    ledger.tick(kit.START + 10)
    ledger.deliver_all()
    ledger.see(at=kit.START + 20)
    ledger.tick(kit.START + 310)
    assert ledger.deliver_all() == [("primary", "resolve", "high")]
    assert not list(ledger.state.group_sizes) and not list(ledger.state.flushed)
    ledger.see(kit.found(host="a"), at=kit.START + 311)
    assert ledger.next_due == kit.START + 321, "it is new again and waits"
    ledger.check()


def test_each_alert_has_a_message_of_its_own_where_the_group_is_by_all_labels(kit):
    ledger = grouping(kit, group_by=("...",))
    ledger.see(kit.found(host="a"), kit.found(host="b"))
    assert len(ledger.sending) == 2
    ledger.deliver_all()
    ledger.check()


def test_what_waits_for_its_group_survives_a_crash(kit):
    ledger = grouping(kit, group_wait=kit.Duration(10))
    ledger.see(kit.found(host="a"))
    ledger.crash(at=kit.START + 5)
    ledger.see(kit.found(host="a"), at=kit.START + 6)
    assert ledger.deliver_all() == []
    ledger.tick(kit.START + 10)
    assert len(ledger.deliver_all()) == 1
    ledger.check()


def test_what_waits_behind_a_message_on_its_way_is_told_when_that_has_ended(kit):
    ledger = kit.Ledger(
        kit.policy(
            kit.rule("Stock", levels=kit.STOCK_LEVELS),
            route=kit.RouteTable(receiver="primary", group_interval=kit.Duration(60), repeat_interval=kit.Duration(0)),
        )
    )
    ledger.see(kit.found(8.0, host="a"), rule="Stock")
    [first] = ledger.sending
    ledger.see(kit.found(3.0, host="a"), rule="Stock", at=kit.START + 1)
    ledger.tick(kit.START + 61)
    assert ledger.sending == [first] and ledger.next_due is None, "it must not be asked for again and again"
    ledger.answer(first, at=kit.START + 62)
    assert ledger.deliver_all() == [("primary", "level", "high")]
    ledger.check()
