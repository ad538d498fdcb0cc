"""The life of one alert: both sides of every edge."""

import pytest
from msgspec.structs import replace

from sixfbd.model import AlertState, Severity


@pytest.fixture
def ledger(kit):
    return lambda *rules, **options: kit.Ledger(kit.policy(*rules, **options))


def state_of(ledger, rule="Hot"):
    keys = ledger.state.of_rule.of(rule)
    return ledger.state.alerts[keys[0]].state if keys else None


def test_without_for_an_alert_fires_at_once_and_resolves_at_once(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    assert state_of(one) is AlertState.FIRING
    assert one.alert().labels == {"host": "a", "alertname": "Hot", "severity": "high"}
    one.see(at=kit.START + 1)
    assert state_of(one) is None
    one.check()


def test_with_for_it_is_pending_until_the_time_is_over_and_not_a_moment_less(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    assert state_of(one) is AlertState.PENDING
    assert one.next_due == kit.START + 60
    one.tick(kit.START + 59.999)
    assert state_of(one) is AlertState.PENDING
    one.tick(kit.START + 60)
    assert state_of(one) is AlertState.FIRING
    assert one.alert().fired_at == kit.START + 60
    assert one.next_due is None
    one.check()


def test_a_pending_alert_that_ends_before_its_time_owes_nobody_and_begins_anew(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    first = one.alert().id
    one.see(at=kit.START + 59)
    assert state_of(one) is None
    one.see(kit.found(host="a"), at=kit.START + 61)
    assert one.alert().id != first
    one.tick(kit.START + 61 + 59)
    assert state_of(one) is AlertState.PENDING
    assert one.states() == []
    one.check()


def test_the_value_that_is_told_is_the_one_of_the_moment_it_fires(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(2.0, host="a"))
    one.see(kit.found(7.0, host="a"), at=kit.START + 30)
    one.tick(kit.START + 60)
    assert one.alert().value == 7.0
    assert one.alert().annotations == {"summary": "it is 7"}


def test_keep_firing_for_bridges_a_gap_and_ends_to_the_moment(kit, ledger):
    one = ledger(kit.rule(keep_firing_for_s=30))
    one.see(kit.found(host="a"))
    one.see(at=kit.START + 10)
    assert one.alert().absent_since == kit.START + 10
    one.see(at=kit.START + 39.999)
    assert state_of(one) is AlertState.FIRING
    one.see(kit.found(host="a"), at=kit.START + 39.9995)
    assert one.alert().absent_since is None
    one.see(at=kit.START + 50)
    one.tick(kit.START + 79.999)
    assert state_of(one) is AlertState.FIRING
    one.tick(kit.START + 80)
    assert state_of(one) is None
    assert one.states() == [("fire", "sending"), ("resolve", "pending")]
    one.check()


def test_an_evaluation_that_failed_changes_nothing(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    before = len(one.records)
    one.see(at=kit.START + 1, error="division by a vector")
    assert state_of(one) is AlertState.FIRING
    assert len(one.records) == before


def test_absence_resolves_nothing_while_a_check_that_feeds_the_alert_does_not_report(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a", checks=("web",)), kit.found(host="b", checks=("db",)))
    one.see(at=kit.START + 1, blind_checks=("web",))
    assert state_of(one) is AlertState.FIRING
    assert one.alert().labels["host"] == "a"
    assert one.alert().blind
    one.see(at=kit.START + 2, blind_checks=("web",))
    one.see(at=kit.START + 3)
    assert state_of(one) is None
    one.check()


def test_an_alert_whose_checks_are_not_known_is_blind_with_any_check_of_its_rule(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a", checks=()))
    one.see(at=kit.START + 1, blind_checks=("web",))
    assert state_of(one) is AlertState.FIRING


def test_a_blind_pending_alert_does_not_fire_by_time_and_fires_when_it_is_seen_again(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    one.see(at=kit.START + 30, blind_checks=("c",))
    one.tick(kit.START + 90)
    assert state_of(one) is AlertState.PENDING
    one.see(kit.found(host="a"), at=kit.START + 91)
    assert state_of(one) is AlertState.FIRING
    assert not one.alert().blind


def test_after_a_start_no_timer_fires_before_the_rule_was_evaluated(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    one.crash(at=kit.START + 300)
    one.tick(kit.START + 301)
    assert state_of(one) is AlertState.PENDING
    one.see(kit.found(host="a"), at=kit.START + 302)
    assert state_of(one) is AlertState.FIRING
    one.check()


def test_after_a_start_a_pending_alert_that_is_gone_ends_in_silence(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    one.crash(at=kit.START + 300)
    one.see(at=kit.START + 301)
    assert state_of(one) is None
    assert one.states() == []


def test_after_a_start_a_firing_alert_is_neither_sent_again_nor_forgotten(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    [message] = one.sending
    one.answer(message)
    one.crash()
    one.see(kit.found(host="a"), at=one.now + 1)
    assert one.states() == [("fire", "accepted")]
    one.see(at=one.now + 1)
    assert one.states() == [("fire", "accepted"), ("resolve", "sending")]
    one.check()


def test_after_a_start_a_firing_alert_waits_for_every_check_that_feeds_it(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a", checks=("c", "d")))
    one.answer(one.sending[0])
    incident = one.alert().id
    one.crash(at=kit.START + 300)
    for blind in (("c", "d"), ("d",)):
        one.see(blind_checks=blind, at=one.now + 1)
        assert (one.alert().id, state_of(one), one.alert().blind) == (incident, AlertState.FIRING, True)
    assert one.states() == [("fire", "accepted")]
    one.see(at=one.now + 1)
    assert one.states() == [("fire", "accepted"), ("resolve", "sending")]
    one.check()


def test_after_a_start_the_end_of_keep_firing_for_waits_for_an_evaluation(kit, ledger):
    one = ledger(kit.rule(keep_firing_for_s=60))
    one.see(kit.found(host="a"))
    one.answer(one.sending[0])
    one.see(at=kit.START + 1)
    one.crash(at=kit.START + 300)
    one.tick(kit.START + 301)
    assert (state_of(one), one.alert().blind) == (AlertState.FIRING, True)
    one.see(kit.found(host="a"), at=kit.START + 302)
    one.tick(kit.START + 1000)
    assert one.states() == [("fire", "accepted")]
    one.check()


def test_after_a_start_with_a_clock_set_back_nothing_waits_for_the_time_of_before(kit, ledger):
    """The wall clock is adopted at a start: what was to happen soon must not happen hours later."""
    one = ledger(kit.rule("Hot"), kit.rule("Slow", for_s=60), kit.rule("Kept", keep_firing_for_s=60))
    one.see(kit.found(host="a"))
    one.answer(one.sending[0], kit.TemporaryFailure("busy", retry_after_s=5.0))
    one.see(kit.found(host="a"), rule="Slow")
    one.see(kit.found(host="a"), rule="Kept")
    one.answer(one.sending[0])
    one.see(rule="Kept", at=kit.START + 1)
    now = kit.START - 7200
    one.crash(at=now)
    [again] = one.tick(now).effects
    assert again.message.attempt == 2
    one.see(kit.found(host="a"), rule="Slow", at=now + 1)
    one.see(rule="Kept", at=now + 1)
    one.tick(now + 61)
    assert one.alert("Slow").state is AlertState.FIRING
    assert one.state.of_rule.of("Kept") == []
    one.check()


def test_levels_change_within_the_incident_and_hold_until_they_clear(kit, ledger):
    one = ledger(kit.rule(levels=kit.STOCK_LEVELS))
    one.see(kit.found(9, city="dallas"))
    incident = one.alert().id
    assert one.alert().severity is Severity.MEDIUM
    one.answer(one.sending[0])
    one.see(kit.found(4, city="dallas"), at=kit.START + 1)
    assert (one.alert().severity, one.alert().labels["severity"], one.alert().id) == (Severity.HIGH, "high", incident)
    one.answer(one.sending[0])
    before = len(one.records)
    one.see(kit.found(6, city="dallas"), at=kit.START + 2)
    assert len(one.records) == before, "6 is above 5 but below what clears high"
    one.see(kit.found(7, city="dallas"), at=kit.START + 3)
    assert one.alert().severity is Severity.MEDIUM
    one.answer(one.sending[0])
    one.see(kit.found(12, city="dallas"), at=kit.START + 4)
    assert state_of(one) is None
    assert [kind for kind, _ in one.states()] == ["fire", "level", "level", "resolve"]
    told = [record.obligation.about for record in one.records if type(record).__name__ == "Owed"]
    assert [alert.value for alert in told] == [9, 4, 7, 12]
    assert [alert.value_at_end for alert in told] == [None, None, None, 12]
    assert told[3].annotations == told[2].annotations, "what it was is not said in today's words"
    one.check()


def test_a_value_that_json_cannot_hold_is_kept_as_text(kit, ledger):
    one = ledger()
    one.see(kit.found(float("nan"), host="a"), kit.found(float("-inf"), host="b"))
    assert sorted(alert.value for alert in one.state.alerts.values()) == ["-Inf", "NaN"]


def test_a_transition_never_lies_before_the_one_before_it(kit, ledger):
    one = ledger(kit.rule(for_s=10))
    one.see(kit.found(host="a"))
    one.tick(kit.START + 10)
    one.go(kit.seen(kit.START + 9), at=kit.START + 11)
    times = [record.alert.since for record in one.records if type(record).__name__ == "AlertChanged"]
    assert times == sorted(times)
    one.check()


def test_a_timer_that_ended_before_an_evaluation_comes_before_it(kit, ledger):
    one = ledger(kit.rule(for_s=10))
    one.see(kit.found(host="a"))
    one.go(kit.seen(kit.START + 9.9), at=kit.START + 12)
    assert one.states() == [], "it had ended before its time was over"
    one.see(kit.found(host="a"), at=kit.START + 20)
    one.go(kit.seen(kit.START + 30.1), at=kit.START + 31)
    assert one.states() == [("fire", "suppressed"), ("resolve", "suppressed")], "it held for its time, and nobody saw"
    one.check()


def test_a_reload_resolves_the_alerts_of_a_rule_that_is_gone(kit, ledger):
    one = ledger(kit.rule("Hot"), kit.rule("Cold", for_s=60))
    one.see(kit.found(host="a"))
    one.go(kit.seen(kit.START, kit.found(host="a"), rule="Cold"))
    one.answer(one.sending[0])
    decision = one.go(
        kit.Replaced(kit.START + 1, kit.policy(kit.rule("Other")), "h2", kit.Actor("me"), "slot"), at=kit.START + 1
    )
    assert len(one.state.alerts) == 0
    ended = [record.alert for record in decision.records if type(record).__name__ == "AlertChanged"]
    assert {(alert.state, alert.reason) for alert in ended} == {
        ("resolved", "rule removed"),
        ("inactive", "rule removed"),
    }
    assert one.states() == [("fire", "accepted"), ("resolve", "sending")]
    one.check()


def test_a_reload_moves_running_timers_to_the_new_durations(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    one.go(
        kit.Replaced(kit.START + 10, kit.policy(kit.rule(for_s=20)), "h2", kit.Actor("me"), "slot"), at=kit.START + 10
    )
    assert one.next_due == kit.START + 20
    one.tick(kit.START + 20)
    assert state_of(one) is AlertState.FIRING
    one.check()


def test_a_severity_that_a_label_gives_changes_within_the_incident(kit, ledger):
    one = ledger(kit.rule(severity=None, describing=("severity",)))
    one.see(replace(kit.found(9, city="dallas"), severity=Severity.MEDIUM))
    first = one.alert()
    one.see(replace(kit.found(4, city="dallas"), severity=Severity.HIGH), at=kit.START + 60)
    assert (one.alert().id, one.alert().severity) == (first.id, Severity.HIGH)
    assert (first.severity, one.alert().annotations["summary"]) == (Severity.MEDIUM, "it is 4")
    assert one.alert().labels["severity"] == "high"
    one.check()


def test_what_is_described_as_ended_resolves_with_that_reason_and_begins_nothing(kit, ledger):
    ended = replace(kit.found(1.0, host="a"), describing=(("ended", "sales_closed"),))
    one = ledger(kit.rule(keep_firing_for_s=60))
    one.see(ended)
    assert state_of(one) is None and one.records == []
    one.see(kit.found(host="a"), at=kit.START + 1)
    one.answer(one.sending[0])
    one.see(ended, at=kit.START + 2)
    assert state_of(one) is None, "it is not kept firing"
    [resolve] = [
        record.obligation
        for record in one.records
        if getattr(record, "obligation", None) and record.obligation.kind == "resolve"
    ]
    assert resolve.about.reason == "sales_closed"
    one.check()


def test_a_pending_alert_that_is_described_as_ended_never_was(kit, ledger):
    one = ledger(kit.rule(for_s=60))
    one.see(kit.found(host="a"))
    one.see(replace(kit.found(1.0, host="a"), describing=(("ended", "over"),)), at=kit.START + 1)
    assert state_of(one) is None and one.states() == []
    one.check()
