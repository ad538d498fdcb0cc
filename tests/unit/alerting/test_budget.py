"""Budgets: past them one digest says how many more there are; nothing is lost, nothing is told twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.alerting.budget import Budget, Limit, budget_of
from sixfbd.config.tables import Channel
from sixfbd.journal.records import MessageChanged, Postponed, Spent
from sixfbd.journal.state import account

HOUR = 3600.0
DAY = 24 * HOUR


# ---- how much room there is ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 100), max_size=30),
    st.integers(1, 5),
    st.integers(0, 6),
    st.booleans(),
)
@settings(max_examples=300)
def test_at_the_time_that_it_names_there_is_room_and_no_limit_is_ever_passed(times, most, reserve, urgent):
    budget = Budget((Limit(most, 10.0), Limit(2 * most, 40.0)), reserve=min(reserve, most - 1))
    spent: list[float] = []
    for asked in sorted(times):
        at = budget.free_at(spent, max([asked, *spent[-1:]]), urgent=urgent)
        assert budget.has_room(spent, at, urgent=urgent)
        spent.append(at)
    for limit in budget.limits:
        for at in spent:
            lately = [one for one in spent if at - limit.window_s < one <= at]
            assert len(lately) <= limit.most - (0 if urgent else budget.reserve)


def test_sms_has_a_budget_unless_told_otherwise_and_other_channels_none():
    assert budget_of("sms", Channel(via="x")) == Budget((Limit(30, HOUR), Limit(100, DAY)), reserve=20)
    assert budget_of("email", Channel(via="x")) is None
    assert budget_of("sms", Channel(via="x", per_hour=0, per_day=0)) is None
    assert budget_of("sms", Channel(via="x", per_hour=6)) == Budget((Limit(6, HOUR), Limit(100, DAY)), reserve=4)
    assert budget_of("email", Channel(via="x", per_day=5)) == Budget((Limit(5, DAY),), reserve=0)


# ---- what becomes of what is over ----------------------------------------------------------------------------------------


@pytest.fixture
def ledger(kit):
    """primary gets 5 messages an hour, the last 3 for what is critical and for digests; each alert is a group of its own."""
    route = kit.RouteTable(receiver="primary", group_by=("...",), repeat_interval=kit.Duration(0))
    budgets = {kit.Target("primary", "hook", ""): Budget((Limit(5, HOUR),), reserve=3)}
    rules = (kit.rule(), kit.rule("Dire", severity=kit.Severity.CRITICAL))
    made = kit.Ledger(kit.policy(*rules, route=route, budgets=budgets, notices={"sale": "sale"}))
    yield made
    made.check()


def hosts(kit, count, first=0):
    return [kit.found(host=f"h{number:04}") for number in range(first, first + count)]


def sent(ledger):
    """Have all that is on its way accepted; return each message as (digest, obligations that it carried, more)."""
    found = []
    while ledger.sending:
        for message in [ledger.state.messages[one] for one in ledger.sending]:
            found.append((message.digest, len(ledger.state.carried(message)), message.more))
            ledger.answer(message.id)
    return found


def test_past_the_budget_one_digest_carries_the_rest(kit, ledger):
    ledger.see(*hosts(kit, 6))
    assert sorted(sent(ledger)) == [(False, 1, 0), (False, 1, 0), (True, 4, 0)]
    assert {state for _, state in ledger.states()} == {"accepted"}


def test_what_is_over_after_the_digest_waits_for_room_and_then_comes_in_one(kit, ledger):
    ledger.see(*hosts(kit, 3))
    assert len(sent(ledger)) == 3
    ledger.see(*hosts(kit, 6), at=kit.START + 60)
    assert sent(ledger) == [] and ledger.states()[-1] == ("fire", "pending")
    waits = [one for one in ledger.records if isinstance(one, Postponed)]
    assert {one.until for one in waits} == {kit.START + HOUR}
    assert waits[0].why == "the budget of primary through hook is spent"
    ledger.tick(kit.START + HOUR - 1)
    assert sent(ledger) == []
    ledger.tick(kit.START + HOUR)
    assert sent(ledger) == [(True, 3, 0)]


def test_a_crash_forgets_neither_what_was_spent_nor_what_waits(kit, ledger):
    ledger.see(*hosts(kit, 3))
    sent(ledger)
    ledger.see(*hosts(kit, 4), at=kit.START + 60)
    ledger.crash(kit.START + 70)
    ledger.see(*hosts(kit, 5), at=kit.START + 80)
    assert sent(ledger) == []
    ledger.tick(kit.START + HOUR)
    assert sent(ledger) == [(True, 2, 0)]


def test_what_is_critical_uses_the_reserve_and_when_that_is_spent_waits_no_longer_than_it_must(kit, ledger):
    ledger.see(*hosts(kit, 3))  # two messages and the digest
    sent(ledger)
    for number in range(3):
        ledger.see(*hosts(kit, number + 1), rule="Dire", at=kit.START + 60 + number)
    assert sent(ledger) == [(False, 1, 0)] * 2
    ledger.tick(kit.START + HOUR)
    assert sent(ledger) == [(True, 1, 0)]


def test_what_ends_while_it_waits_is_told_to_nobody_and_what_was_told_ends_in_a_digest(kit, ledger):
    ledger.see(*hosts(kit, 3))
    sent(ledger)
    ledger.see(*hosts(kit, 4), at=kit.START + 60)
    ledger.see(at=kit.START + 120)
    assert sent(ledger) == []
    ledger.tick(kit.START + HOUR)
    assert sent(ledger) == [(True, 3, 0)], "the ends of the three that were told"
    assert ledger.reasons() == ["superseded", "superseded"]


def test_a_storm_is_counted_in_one_digest_of_a_bounded_size_and_the_account_says_where(kit, ledger):
    ledger.see(*hosts(kit, 1000))
    assert sorted(sent(ledger)) == [(False, 1, 0), (False, 1, 0), (True, 100, 898)]
    digest = next(one.message.id for one in ledger.records if isinstance(one, MessageChanged) and one.message.digest)
    assert set(ledger.reasons()) == {f"counted in the digest {digest}"}
    assert len(ledger.reasons()) == 898
    ledger.see(at=kit.START + 60)
    assert sent(ledger) == []
    ledger.tick(kit.START + HOUR)
    told = sent(ledger)
    assert told[0] == (True, 100, 0), "of 102 that were told the ends come, by hundreds"
    ledger.tick(kit.START + 2 * HOUR)
    assert sent(ledger) == [(True, 2, 0)]


def test_no_hour_ever_has_more_messages_than_its_budget(kit, ledger):
    for step in range(200):
        found = hosts(kit, step % 13, first=step % 7)
        ledger.see(*found, at=kit.START + 61.0 * step)
        ledger.see(*hosts(kit, step % 3), rule="Dire")
        sent(ledger)
    times = [one.at for one in ledger.records if isinstance(one, Spent)]
    made = {one.message.id: one.message.created_at for one in ledger.records if isinstance(one, MessageChanged)}
    assert sorted(made.values()) == times
    assert all(sum(at - HOUR < one <= at for one in times) <= 5 for at in times)


def test_a_critical_alert_whose_budget_is_spent_goes_by_the_next_channel_at_once(kit):
    receivers = {"primary": {"hook": kit.Channel(via="hook"), "mail": kit.Channel(via="mail")}}
    severities = {kit.Severity.CRITICAL: kit.SeverityTable(channels=("hook",))}
    budgets = {kit.Target("primary", "hook", ""): Budget((Limit(1, HOUR),))}
    ledger = kit.Ledger(
        kit.policy(
            kit.rule(severity=kit.Severity.CRITICAL), receivers=receivers, severities=severities, budgets=budgets,
            hook={}, mail={},
        )
    )  # fmt: skip
    ledger.see(*hosts(kit, 1))
    sent(ledger)
    ledger.see(*hosts(kit, 2), at=kit.START + 1)
    assert [one.target.notifier for one in ledger.state.messages.values()] == ["mail"]
    ledger.deliver_all()
    ledger.check()


# ---- notices -------------------------------------------------------------------------------------------------------------


def test_more_than_so_many_sales_become_a_digest_and_alerts_have_their_own_budget(kit):
    notice_budget = Budget((Limit(5, 600.0),))
    ledger = kit.Ledger(kit.policy(notices={"sale": "sale", "refund": "refund"}, notice_budget=notice_budget))

    def sell(number, at, event_type="sale"):
        event = kit.Event(f"s{number}", event_type, at, {"n": number})
        ledger.go(kit.EventsCommitted(at, number, (kit.StoredEvent(number, "shop", at, event),)), at=at)
        return sent(ledger)

    assert [sell(number, kit.START + number) for number in range(1, 9)] == [[(False, 1, 0)]] * 5 + [[]] * 3
    assert sell(9, kit.START + 9, "refund") == [(False, 1, 0)]
    ledger.see(kit.found(host="a"), at=kit.START + 10)
    assert sent(ledger) == [(False, 1, 0)]
    ledger.tick(kit.START + 601)
    assert sent(ledger) == [(True, 3, 0)]
    assert {one.state for one in account(ledger.records).values()} == {"accepted"}
    ledger.check()
