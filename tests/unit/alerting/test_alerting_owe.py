"""owed = wanted − told: what each transition owes each target, and what becomes of it."""

import pytest

from sixfbd.alerting.owe import MAX_NOTICE_VALUE, MAX_NOTICE_VALUES
from sixfbd.model import Event, Severity

TWO = {"hook": {}, "mail": {}}


@pytest.fixture
def ledger(kit):
    return lambda *rules, **options: kit.Ledger(kit.policy(*rules, **options))


def answer_all(ledger, outcome=None):
    for message in ledger.sending:
        ledger.answer(message, outcome)


def test_every_target_of_the_routes_is_owed_once_and_claimed_in_the_same_commit(kit, ledger):
    one = ledger(**TWO)
    decision = one.see(kit.found(host="a"))
    assert one.states() == [("fire", "sending"), ("fire", "sending")]
    assert {effect.message.target.notifier for effect in decision.effects} == {"hook", "mail"}
    assert all(effect.message.attempt == 1 for effect in decision.effects)
    one.check()


def test_obligations_of_one_rule_and_round_share_a_message_of_at_most_a_hundred(kit, ledger):
    one = ledger(kit.rule("Hot"), kit.rule("Cold"))
    many = [kit.found(host=f"h{n}") for n in range(201)]
    decision = one.go(kit.seen(kit.START, *many), kit.seen(kit.START, kit.found(host="a"), rule="Cold"))
    sizes = [(effect.message.group, len(effect.obligations)) for effect in decision.effects]
    assert sizes == [("Hot", 100), ("Hot", 100), ("Hot", 1), ("Cold", 1)]
    one.check()


def test_fired_and_resolved_before_the_first_send_nobody_is_told(kit, ledger):
    one = ledger()
    one.claim = False
    one.see(kit.found(host="a"))
    one.see(at=kit.START + 1)
    assert one.states() == [("fire", "suppressed"), ("resolve", "suppressed")]
    assert len(one.state.messages) == len(one.state.closing) == len(one.state.told) == 0
    one.claim = True
    assert one.tick(kit.START + 2).effects == ()
    one.check()


def test_fired_and_resolved_while_the_receiver_could_not_be_reached_nobody_is_told(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    answer_all(one, kit.TemporaryFailure("connection refused"))
    one.see(at=kit.START + 1)
    assert one.states() == [("fire", "suppressed"), ("resolve", "suppressed")]
    one.check()


def test_resolved_while_the_first_is_on_its_way_the_end_waits_for_its_answer(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    [first] = one.sending
    one.see(at=kit.START + 1)
    assert one.sending == [first]
    assert one.states() == [("fire", "sending"), ("resolve", "pending")]
    one.answer(first)
    assert one.states() == [("fire", "accepted"), ("resolve", "sending")]
    answer_all(one)
    assert one.states() == [("fire", "accepted"), ("resolve", "accepted")]
    assert len(one.state.told) == len(one.state.closing) == 0, "a resolved incident leaves memory"
    one.check()


@pytest.mark.parametrize("sent", [False, True])
def test_resolved_while_the_first_is_on_its_way_and_fails(kit, ledger, sent):
    one = ledger()
    one.see(kit.found(host="a"))
    one.see(at=kit.START + 1)
    answer_all(one, kit.TemporaryFailure("no", sent=sent))
    if sent:  # nobody knows: the fire is sent once more before its end
        assert one.states() == [("fire", "unknown"), ("resolve", "pending")]
        one.tick(kit.START + 40)
        answer_all(one)
        answer_all(one)
        assert one.states() == [("fire", "accepted"), ("resolve", "accepted")]
    else:
        assert one.states() == [("fire", "suppressed"), ("resolve", "suppressed")]
    one.check()


def test_the_end_of_what_was_never_told_is_suppressed_by_name(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    answer_all(one, kit.PermanentFailure("no such address"))
    assert one.states() == [("fire", "dead")]
    one.see(at=kit.START + 1)
    assert one.states() == [("fire", "dead"), ("resolve", "suppressed")]
    assert one.records[-1].reason == "never told"
    one.check()


def test_who_may_have_been_told_is_told_the_end_also_after_the_message_was_given_up(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"))
    answer_all(one, kit.Lost("no answer"))
    one.tick(kit.START + 40)
    answer_all(one, kit.Lost("no answer"))
    assert one.states() == [("fire", "dead")]
    one.see(at=kit.START + 41)
    assert one.states() == [("fire", "dead"), ("resolve", "sending")]
    one.check()


def test_a_route_that_names_nobody_leaves_one_suppressed_obligation_for_each_transition(kit, ledger):
    one = ledger(route=kit.RouteTable())
    one.see(kit.found(host="a"))
    one.see(at=kit.START + 1)
    assert one.states() == [("fire", "suppressed"), ("resolve", "suppressed")]
    reasons = {record.obligation.reason for record in one.records if type(record).__name__ == "Owed"}
    assert reasons == {"no receiver: no route names one"}
    assert len(one.state.closing) == 0
    one.check()


def test_who_was_told_that_it_fires_is_told_the_end_after_the_routes_have_changed(kit, ledger):
    one = ledger(**TWO)
    one.see(kit.found(host="a"))
    answer_all(one)
    narrowed = kit.policy(receivers={"primary": {"mail": kit.Channel(via="mail")}}, **TWO)
    one.go(kit.Replaced(kit.START + 1, narrowed, "h", kit.Actor("me"), None), at=kit.START + 1)
    one.see(at=kit.START + 2)
    told = {effect.message.target.notifier for effect in one.effects[-2:]}
    assert told == {"hook", "mail"}
    one.check()


def test_a_new_target_of_the_routes_is_not_told_the_end_of_what_it_never_heard_of(kit, ledger):
    one = ledger(receivers={"primary": {"hook": kit.Channel(via="hook")}}, **TWO)
    one.see(kit.found(host="a"))
    answer_all(one)
    one.go(kit.Replaced(kit.START + 1, kit.policy(**TWO), "h", kit.Actor("me"), None), at=kit.START + 1)
    one.see(at=kit.START + 2)
    assert one.states() == [("fire", "accepted"), ("resolve", "sending"), ("resolve", "suppressed")]
    one.check()


def test_a_receiver_that_a_reload_routes_to_is_told_of_what_fires_and_who_was_named_before_is_not_told_again(
    kit, ledger
):
    both = {name: {"hook": kit.Channel(via="hook")} for name in ("primary", "other")}
    one = ledger(receivers=both, hook={})
    one.see(kit.found(host="a"))
    answer_all(one)
    moved = kit.policy(receivers=both, route=kit.RouteTable(receiver="other"), hook={})
    for after in (1, 2):
        one.go(kit.Replaced(kit.START + after, moved, "h", kit.Actor("me"), None), at=kit.START + after)
        answer_all(one)
    assert one.states() == [("fire", "accepted"), ("fire", "accepted")]
    assert {effect.message.target.receiver for effect in one.effects if isinstance(effect, kit.Deliver)} == set(both)
    one.see(at=kit.START + 3)
    assert one.states("resolve") == [("resolve", "sending"), ("resolve", "sending")]
    one.check()


def test_nobody_new_is_told_at_a_reload_of_what_somebody_has_taken_on(kit, ledger):
    both = {name: {"hook": kit.Channel(via="hook")} for name in ("primary", "other")}
    one = ledger(receivers=both, hook={})
    one.see(kit.found(host="a"))
    answer_all(one)
    assert one.command(kit.Ack(one.alert().id)).ok
    moved = kit.policy(receivers=both, route=kit.RouteTable(receiver="other"), hook={})
    one.go(kit.Replaced(kit.START + 1, moved, "h", kit.Actor("me"), None), at=kit.START + 1)
    assert one.states() == [("fire", "accepted")]
    one.check()


def test_a_level_is_told_as_a_level_to_who_knows_and_as_a_fire_to_who_does_not(kit, ledger):
    from sixfbd.model import Severity

    severities = {
        Severity.MEDIUM: kit.SeverityTable(channels=("mail",)),
        Severity.HIGH: kit.SeverityTable(channels=("mail", "hook")),
    }
    one = ledger(kit.rule(levels=kit.STOCK_LEVELS), severities=severities, **TWO)
    one.see(kit.found(9, city="dallas"))
    answer_all(one)
    one.see(kit.found(4, city="dallas"), at=kit.START + 1)
    kinds = {effect.message.target.notifier: effect.obligations[0].kind for effect in one.effects[-2:]}
    assert kinds == {"mail": "level", "hook": "fire"}
    answer_all(one)
    one.see(kit.found(8, city="dallas"), at=kit.START + 2)
    answer_all(one)
    one.see(kit.found(20, city="dallas"), at=kit.START + 3)
    answer_all(one)
    ends = {effect.message.target.notifier for effect in one.effects if effect.obligations[0].kind == "resolve"}
    assert ends == {"mail", "hook"}, "hook is no channel of medium, but it was told high"
    one.check()


def test_of_levels_that_wait_for_an_answer_only_the_last_is_told(kit, ledger):
    one = ledger(kit.rule(levels=kit.STOCK_LEVELS))
    one.see(kit.found(9, city="dallas"))
    one.see(kit.found(4, city="dallas"), at=kit.START + 1)
    one.see(kit.found(0, city="dallas"), at=kit.START + 2)
    answer_all(one)
    assert one.states() == [("fire", "accepted"), ("level", "suppressed"), ("level", "sending")]
    assert one.effects[-1].obligations[0].severity == "critical"
    one.check()


def test_a_level_supersedes_a_fire_that_nobody_got_and_is_told_as_the_fire(kit, ledger):
    one = ledger(kit.rule(levels=kit.STOCK_LEVELS))
    one.see(kit.found(9, city="dallas"))
    answer_all(one, kit.TemporaryFailure("refused"))
    one.see(kit.found(4, city="dallas"), at=kit.START + 0.1)
    assert one.states() == [("fire", "suppressed"), ("fire", "sending")]
    one.check()


def test_one_of_a_shared_message_may_be_superseded_and_the_others_still_go(kit, ledger):
    one = ledger()
    one.see(kit.found(host="a"), kit.found(host="b"))
    answer_all(one, kit.TemporaryFailure("refused"))
    one.see(kit.found(host="b"), at=kit.START + 0.1)
    one.tick(kit.START + 2)
    assert [obligation.about.labels["host"] for obligation in one.effects[-1].obligations] == ["b"]
    answer_all(one)
    assert one.states() == [("fire", "suppressed"), ("fire", "accepted"), ("resolve", "suppressed")]
    one.check()


def test_a_notifier_that_is_not_configured_makes_its_messages_dead_by_name(kit, ledger):
    one = ledger(receivers={"primary": {"sms": kit.Channel(via="twilio")}})
    one.see(kit.found(host="a"))
    assert one.states() == [("fire", "dead")]
    assert one.records[-1].what == "notifier twilio is not configured"
    one.check()


def sale(kit, seq, type_="sale"):
    return kit.StoredEvent(seq, "shop", kit.START, Event(f"e{seq}", type_, kit.START, {"tier": "ga", "quantity": 2}))


def test_an_event_with_a_notice_is_owed_once_and_its_number_moves_in_the_same_commit(kit, ledger):
    one = ledger(notices={"sale": "ticket sold"})
    decision = one.go(kit.EventsCommitted(kit.START, 3, (sale(kit, 1), sale(kit, 2, "other"))))
    assert one.states() == [("notice", "sending")]
    [effect] = decision.effects
    assert effect.obligations[0].subject == "shop/e1"
    assert effect.obligations[0].text == "ticket sold: tier=ga, quantity=2"
    assert one.state.judged_event == 3
    answer_all(one)
    one.go(kit.EventsCommitted(kit.START, 3, (sale(kit, 1),)))
    assert one.states() == [("notice", "accepted")], "judged once"
    assert len(one.state.told) == 0
    one.check()


def test_events_without_a_notice_are_written_as_judged_only_now_and_then(kit, ledger):
    one = ledger(notices={"sale": "ticket sold"})
    assert one.go(kit.EventsCommitted(kit.START, 999)).records == ()
    assert [type(record).__name__ for record in one.go(kit.EventsCommitted(kit.START, 1000)).records] == [
        "EventsJudged"
    ]


def test_a_notice_that_no_route_takes_is_suppressed_by_name(kit, ledger):
    one = ledger(notices={"sale": "ticket sold"}, route=kit.RouteTable())
    one.go(kit.EventsCommitted(kit.START, 1, (sale(kit, 1),)))
    assert one.states() == [("notice", "suppressed")]
    one.check()


def test_a_notice_is_routed_by_its_labels(kit, ledger):
    route = kit.RouteTable(
        receiver="nobody", routes=(kit.RouteTable(matchers=('notice="ticket sold"',), receiver="primary"),)
    )
    one = ledger(notices={"sale": "ticket sold"}, route=route)
    one.go(kit.EventsCommitted(kit.START, 1, (sale(kit, 1),)))
    assert one.states() == [("notice", "sending")]


def test_a_notice_is_as_severe_as_its_type_says(kit, ledger):
    one = ledger(notices={"sale": "milestone"}, notice_severities={"sale": Severity.HIGH})
    [effect] = one.go(kit.EventsCommitted(kit.START, 1, (sale(kit, 1),))).effects
    assert [obligation.severity for obligation in effect.obligations] == [Severity.HIGH]


def test_a_notice_that_its_event_suppresses_is_owed_to_nobody_for_the_reason_given(kit, ledger):
    one = ledger(notices={"sale": "milestone"})
    event = Event("e1", "sale", kit.START, {"milestone": 5, "suppressed": "covered_by_alert"})
    decision = one.go(kit.EventsCommitted(kit.START, 1, (kit.StoredEvent(1, "shop", kit.START, event),)))
    assert decision.effects == ()
    assert one.states() == [("notice", "suppressed")]
    assert [record.obligation.reason for record in one.records if hasattr(record, "obligation")] == ["covered_by_alert"]
    one.check()


def test_a_notice_is_routed_by_the_labels_of_its_event_and_told_in_its_words(kit, ledger):
    route = kit.RouteTable(
        receiver="nobody", routes=(kit.RouteTable(matchers=('city="dallas"', 'tier="vip"'), receiver="primary"),)
    )
    one = ledger(
        notices={"sale": "sale"}, route=route, notice_of=lambda stored: ("Sale: 1 VIP", stored.event.data["of"])
    )
    for seq, tier in ((1, "ga"), (2, "vip")):
        event = Event(f"e{seq}", "sale", kit.START, {"of": {"city": "dallas", "tier": tier, "notice": "other"}, "n": 1})
        one.go(kit.EventsCommitted(kit.START, seq, (kit.StoredEvent(seq, "shop", kit.START, event),)))
    assert one.states() == [("notice", "suppressed"), ("notice", "sending")]
    [told] = one.state.obligations.values()
    assert (told.text, told.notice.data) == ("Sale: 1 VIP", {"n": 1})
    assert told.notice.labels == {
        "city": "dallas", "tier": "vip", "notice": "sale", "type": "sale", "source": "shop", "severity": "low"
    }, "an event cannot say that it is another"  # fmt: skip
    one.check()


def test_what_a_notice_keeps_of_its_event_is_bounded(kit, ledger):
    one = ledger(notices={"sale": "sale"})
    data = {"long": "x" * 10_000, "deep": {"a": 1}, "huge": 2**80, "none": None, **{f"k{n}": n for n in range(100)}}
    event = Event("e1", "sale", kit.START, data)
    one.go(kit.EventsCommitted(kit.START, 1, (kit.StoredEvent(1, "shop", kit.START, event),)))
    [told] = one.state.obligations.values()
    assert len(told.notice.data["long"]) == MAX_NOTICE_VALUE
    assert len(told.notice.data) == MAX_NOTICE_VALUES and not {"deep", "huge", "none"} & told.notice.data.keys()
    one.check()


def test_notices_of_one_name_share_a_message_whatever_their_words(kit, ledger):
    one = ledger(notices={"sale": "sale"}, notice_of=lambda stored: (f"{stored.event.id}: sold", {}))
    decision = one.go(kit.EventsCommitted(kit.START, 2, (sale(kit, 1), sale(kit, 2))))
    assert [len(effect.obligations) for effect in decision.effects] == [2]
