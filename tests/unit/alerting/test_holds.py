"""Silences, inhibition, maintenance and muted routes: what is held back, and what is told when the last hold ends."""

import pytest
from msgspec import Struct
from msgspec.structs import replace

from sixfbd.alerting.holds import children_of
from sixfbd.alerting.routes import parse_matcher
from sixfbd.journal.records import HoldsChecked
from sixfbd.journal.state import account

HOUR = 3600.0


class Window(Struct, frozen=True):
    """An interval of the tests: from `start` to `end`, for those whom the matchers match if it is a maintenance."""

    start: float
    end: float
    name: str = "deploy"
    comment: str = ""
    matchers: tuple = ()

    def contains(self, at):
        return self.start <= at < self.end

    def next_change(self, at):
        return next((edge for edge in (self.start, self.end) if edge > at), None)


@pytest.fixture
def silenced(kit):
    """A ledger in which everything of host a is silenced for an hour."""
    ledger = kit.Ledger(kit.policy(kit.rule(), kit.rule("Stock", levels=kit.STOCK_LEVELS)))
    outcome = ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=HOUR, comment="moving"))
    assert outcome.ok and outcome.id
    ledger.silence = outcome.id
    yield ledger
    ledger.check()


def test_of_a_silenced_alert_nobody_is_told_and_the_account_says_why(kit, silenced):
    silenced.see(kit.found(host="a"), kit.found(host="b"))
    assert silenced.deliver_all() == [("primary", "fire", "high")]
    assert silenced.reasons() == [f"silenced by {silenced.silence} (uid:1000 alice: moving)"]
    held = {dict(alert.key.labels)["host"]: bool(alert.held) for alert in silenced.state.alerts.values()}
    assert held == {"a": True, "b": False}


def test_what_still_fires_when_its_silence_ends_by_the_clock_is_told_then(kit, silenced):
    silenced.see(kit.found(host="a"))
    assert silenced.next_due == kit.START + HOUR
    silenced.tick(kit.START + HOUR - 1)
    assert not silenced.sending
    silenced.tick(kit.START + HOUR)
    assert silenced.deliver_all() == [("primary", "fire", "high")]
    assert not silenced.state.silences and silenced.alert().held == ()
    assert silenced.records.count(HoldsChecked(kit.START + HOUR)) == 1
    silenced.tick(kit.START + HOUR + 1)
    assert not silenced.sending and silenced.next_due is None


def test_what_began_and_ended_within_a_silence_is_told_to_nobody(kit, silenced):
    silenced.see(kit.found(host="a"))
    silenced.see(at=kit.START + 10)
    silenced.tick(kit.START + HOUR)
    assert not silenced.sending and not silenced.state.open_of
    assert silenced.states() == [("fire", "suppressed"), ("resolve", "suppressed")]


def test_who_was_told_before_the_silence_is_told_of_the_end_within_it(kit):
    ledger = kit.Ledger(kit.policy())
    ledger.see(kit.found(host="a"))
    ledger.deliver_all()
    ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=HOUR), at=kit.START + 1)
    ledger.see(at=kit.START + 2)
    assert ledger.deliver_all() == [("primary", "resolve", "high")]
    ledger.check()


def test_a_level_that_rose_and_fell_back_within_a_silence_is_told_to_nobody_and_one_that_stays_is(kit):
    ledger = kit.Ledger(kit.policy(kit.rule("Stock", levels=kit.STOCK_LEVELS)))
    ledger.see(kit.found(8.0, host="a"), rule="Stock")
    assert ledger.deliver_all() == [("primary", "fire", "medium")]
    silence = ledger.command(kit.AddSilence(matchers=('alertname="Stock"',), duration_s=HOUR), at=kit.START + 1).id
    ledger.see(kit.found(3.0, host="a"), rule="Stock", at=kit.START + 2)
    ledger.see(kit.found(8.0, host="a"), rule="Stock", at=kit.START + 3)
    assert ledger.command(kit.ExpireSilence(silence), at=kit.START + 4).ok
    assert not ledger.sending
    ledger.command(kit.AddSilence(matchers=('alertname="Stock"',), duration_s=HOUR), at=kit.START + 5)
    ledger.see(kit.found(0.0, host="a"), rule="Stock", at=kit.START + 6)
    assert not ledger.sending
    ledger.tick(kit.START + 5 + HOUR)
    assert ledger.deliver_all() == [("primary", "level", "critical")]
    ledger.check()


def test_a_message_that_waits_for_its_next_try_is_held_back_when_a_silence_begins(kit):
    ledger = kit.Ledger(kit.policy(hook={"retry_first_s": 60.0}))
    ledger.see(kit.found(host="a"))
    [message] = ledger.sending
    ledger.answer(message, kit.TemporaryFailure("not now"))
    ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=HOUR), at=kit.START + 1)
    ledger.tick(kit.START + 120)
    assert not ledger.sending and not ledger.state.messages
    ledger.tick(kit.START + 1 + HOUR)
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    ledger.check()


def test_a_silence_that_begins_later_holds_from_then_on(kit):
    ledger = kit.Ledger(kit.policy())
    ledger.command(kit.AddSilence(matchers=('host=~"a|b"',), duration_s=60, starts_at=kit.START + 100))
    ledger.see(kit.found(host="a"))
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    assert ledger.next_due == kit.START + 100
    ledger.tick(kit.START + 100)
    assert [str(hold).split()[0] for hold in ledger.alert().held] == ["silenced"]
    ledger.see(kit.found(host="a"), kit.found(host="b"), at=kit.START + 101)
    assert not ledger.sending
    ledger.tick(kit.START + 160)
    assert ledger.deliver_all() == [("primary", "fire", "high")], "only b, of which nobody knew"
    ledger.check()


def test_silences_and_what_they_keep_back_survive_a_crash(kit, silenced):
    silenced.see(kit.found(host="a"))
    silenced.crash(at=kit.START + 60)
    assert list(silenced.state.silences) == [silenced.silence]
    silenced.see(kit.found(host="a"), at=kit.START + 61)
    assert not silenced.sending
    silenced.tick(kit.START + HOUR)
    assert silenced.deliver_all() == [("primary", "fire", "high")]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"matchers": ()}, "without matchers"),
        ({"matchers": ('host=~".*"',)}, "every alert without these labels"),
        ({"matchers": ("host",)}, "is not a matcher"),
        ({"matchers": ('host=~"("',)}, "not a regular expression"),
        ({"matchers": ('host="a"',), "duration_s": 0.0}, "more than 0s"),
        ({"matchers": ('host="a"',) * 51}, "50 at most"),
    ],
)
def test_a_silence_that_cannot_be_meant_is_refused_with_the_mend(kit, asked, says):
    ledger = kit.Ledger(kit.policy())
    outcome = ledger.command(kit.AddSilence(**({"duration_s": HOUR} | asked)))
    assert not outcome.ok and says in outcome.error
    assert not ledger.state.silences


def test_to_end_a_silence_that_is_not_there_is_an_error_that_names_it(kit):
    outcome = kit.Ledger(kit.policy()).command(kit.ExpireSilence("nonesuch"))
    assert not outcome.ok and "nonesuch" in outcome.error


# ---- inhibition ------------------------------------------------------------------------------------------------------


@pytest.fixture
def inhibited(kit):
    """Down of a host holds back Hot of the same host."""
    inhibit = (
        kit.InhibitTable(
            source_matchers=('alertname="Down"',), target_matchers=('alertname=~"Hot|Down"',), equal=("host",)
        ),
    )
    ledger = kit.Ledger(kit.policy(kit.rule(), kit.rule("Down"), inhibit=inhibit))
    yield ledger
    ledger.check()


def test_while_its_source_fires_an_alert_is_held_back_and_told_when_the_source_has_ended(kit, inhibited):
    inhibited.see(kit.found(host="a"), rule="Down")
    assert inhibited.deliver_all() == [("primary", "fire", "high")]
    inhibited.see(kit.found(host="a"), kit.found(host="b"))
    assert inhibited.deliver_all() == [("primary", "fire", "high")], "of b alone"
    inhibited.see(rule="Down", at=kit.START + 5)
    assert inhibited.deliver_all() == [("primary", "fire", "high"), ("primary", "resolve", "high")]


def test_source_and_target_that_begin_in_one_round_are_told_as_one(kit, inhibited):
    inhibited.go(kit.seen(kit.START, kit.found(host="a")), kit.seen(kit.START, kit.found(host="a"), rule="Down"))
    assert inhibited.deliver_all() == [("primary", "fire", "high")]
    [reason] = inhibited.reasons()
    assert reason.startswith("inhibited by ") and reason.endswith("(Down)")


def test_an_alert_that_is_source_and_target_does_not_hold_itself_back(kit, inhibited):
    inhibited.see(kit.found(host="a"), rule="Down")
    assert inhibited.alert("Down").held == ()


def test_an_inhibition_that_a_reload_brings_or_takes_takes_effect_at_once(kit, inhibited):
    plain = kit.policy(kit.rule(), kit.rule("Down"))
    inhibited.see(kit.found(host="a"), rule="Down")
    inhibited.see(kit.found(host="a"))
    inhibited.deliver_all()
    inhibited.go(kit.Replaced(inhibited.now, plain, "hash", kit.Actor("uid:0"), None))
    assert inhibited.deliver_all() == [("primary", "fire", "high")]


# ---- and reloads -----------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(kit):
    """Two receivers of which the default route names the first; and what a reload makes of it, that names the second."""
    both = {name: {"hook": kit.Channel(via="hook")} for name in ("primary", "other")}

    def policy(receiver, **more):
        return kit.policy(receivers=both, route=kit.RouteTable(receiver=receiver, **more), hook={})

    return policy


def test_whom_a_reload_names_during_a_silence_is_told_when_it_ends_if_it_fires_still(kit, moved):
    ledger = kit.Ledger(moved("primary"))
    ledger.see(kit.found(host="a"))
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=HOUR), at=kit.START + 1)
    for after in (2, 3):
        ledger.go(kit.Replaced(kit.START + after, moved("other"), "h", kit.Actor("me"), None), at=kit.START + after)
    assert ledger.deliver_all() == []
    ledger.see(kit.found(host="a"), at=kit.START + 4)
    ledger.tick(kit.START + 2 + HOUR)
    assert ledger.deliver_all() == [("other", "fire", "high")]
    ledger.check()


def test_whom_a_reload_names_during_a_silence_is_told_nothing_of_what_ends_within_it(kit, moved):
    ledger = kit.Ledger(moved("primary"))
    ledger.see(kit.found(host="a"))
    ledger.deliver_all()
    ledger.command(kit.AddSilence(matchers=('host="a"',), duration_s=HOUR), at=kit.START + 1)
    ledger.go(kit.Replaced(kit.START + 2, moved("other"), "h", kit.Actor("me"), None), at=kit.START + 2)
    ledger.see(at=kit.START + 3)
    assert ledger.deliver_all() == [("primary", "resolve", "high")]
    ledger.tick(kit.START + 2 + HOUR)
    assert ledger.deliver_all() == []
    ledger.check()


def test_whom_a_reload_names_by_a_muted_route_is_told_when_that_is_over(kit, moved):
    night = Window(kit.START, kit.START + 100)
    calendar = kit.Calendar(intervals={"night": night})
    ledger = kit.Ledger(moved("primary"))
    ledger.see(kit.found(host="a"))
    ledger.deliver_all()
    muted = replace(moved("other", mute_time_intervals=("night",)), calendar=calendar)
    ledger.go(kit.Replaced(kit.START + 1, muted, "h", kit.Actor("me"), None), at=kit.START + 1)
    assert ledger.deliver_all() == []
    ledger.tick(kit.START + 100)
    assert ledger.deliver_all() == [("other", "fire", "high")]
    ledger.check()


# ---- by the calendar -------------------------------------------------------------------------------------------------


def test_maintenance_holds_what_its_matchers_match_from_begin_to_end(kit):
    window = Window(kit.START + 10, kit.START + 20, comment="weekly", matchers=(parse_matcher('host="a"'),))
    ledger = kit.Ledger(kit.policy(calendar=kit.Calendar(maintenance=(window,))))
    ledger.see(kit.found(host="a"), at=kit.START + 11)
    assert ledger.reasons() == ["in maintenance by deploy (weekly)"]
    ledger.tick(kit.START + 20)
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    ledger.check()


def test_a_muted_route_tells_its_receivers_nothing_and_catches_up_afterwards_while_others_are_told(kit):
    night = Window(kit.START + 10, kit.START + 20)
    receivers = {"primary": {"hook": kit.Channel(via="hook")}, "day": {"mail": kit.Channel(via="mail")}}
    never = kit.Duration(0)
    route = kit.RouteTable(
        receiver="primary",
        repeat_interval=never,
        routes=(
            kit.RouteTable(receiver="day", mute_time_intervals=("night",), continue_=True),
            kit.RouteTable(receiver="primary"),
        ),
    )
    policy = kit.policy(
        receivers=receivers, route=route, calendar=kit.Calendar(intervals={"night": night}), hook={}, mail={}
    )
    ledger = kit.Ledger(policy)
    ledger.see(kit.found(host="a"), at=kit.START + 15)
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    assert ledger.reasons() == ["muted by night on route.routes[0]"]
    ledger.tick(kit.START + 20)
    assert ledger.deliver_all() == [("day", "fire", "high")]
    ledger.check()


def test_outside_of_its_active_times_a_route_tells_nobody(kit):
    office = Window(kit.START + 10, kit.START + 20)
    route = kit.RouteTable(receiver="primary", repeat_interval=kit.Duration(0), active_time_intervals=("office",))
    ledger = kit.Ledger(kit.policy(route=route, calendar=kit.Calendar(intervals={"office": office})))
    ledger.see(kit.found(host="a"))
    assert ledger.reasons() == ["not active on route: outside of office"]
    ledger.tick(kit.START + 10)
    assert ledger.deliver_all() == [("primary", "fire", "high")]
    assert [one.state for one in account(ledger.records).values()] == ["suppressed", "accepted"]
    ledger.check()


# ---- parents -------------------------------------------------------------------------------------------------------------

PARENTS = {"shop": ("internet",), "stripe": ("internet", "shop"), "internet": ("router",), "machine": ()}


def test_all_that_depends_on_a_check_is_below_it_by_whatever_way():
    assert children_of(PARENTS) == {
        "internet": frozenset({"shop", "stripe"}),
        "shop": frozenset({"stripe"}),
        "router": frozenset({"internet", "shop", "stripe"}),
    }
    assert children_of({"a": ("b",), "b": ("a",)}) == {"a": {"a", "b"}, "b": {"a", "b"}}, "a circle ends"


@pytest.fixture
def family(kit):
    ledger = kit.Ledger(kit.policy(kit.rule(), kit.rule("ParentDown"), parents=PARENTS))
    yield ledger
    ledger.check()


def test_while_a_parent_is_down_what_depends_on_it_is_held_and_the_outage_is_told_once(kit, family):
    down = kit.found(check="internet", checks=("internet",))
    family.see(down, rule="ParentDown")
    assert family.deliver_all() == [("primary", "fire", "high")]
    children = [kit.found(check=name, checks=(name,)) for name in ("shop", "stripe")]
    other = kit.found(check="machine", checks=("machine",))
    family.see(*children, other, at=kit.START + 1)
    assert family.deliver_all() == [("primary", "fire", "high")], "the machine alone"
    assert family.reasons() == ["put down to internet"] * 2
    family.see(rule="ParentDown", at=kit.START + 60)
    assert family.deliver_all() == [("primary", "fire", "high")] * 2 + [("primary", "resolve", "high")]


def test_the_other_alerts_of_a_parent_that_is_down_are_held_too(kit, family):
    family.see(kit.found(check="internet", checks=("internet",)), rule="ParentDown")
    family.deliver_all()
    family.see(kit.found(check="internet", checks=("internet",)), at=kit.START + 1)
    assert family.deliver_all() == [] and family.reasons() == ["put down to internet"]


def test_of_a_chain_the_first_cause_is_told_alone(kit, family):
    family.see(*(kit.found(check=name, checks=(name,)) for name in ("router", "internet")), rule="ParentDown")
    assert family.deliver_all() == [("primary", "fire", "high")]
    assert family.reasons() == ["put down to router"]


def test_an_alert_without_the_label_check_is_held_if_all_that_feeds_it_depends_on_the_parent(kit, family):
    family.see(kit.found(check="internet", checks=("internet",)), rule="ParentDown")
    family.deliver_all()
    family.see(
        kit.found(city="dallas", checks=("shop", "stripe")), kit.found(city="austin", checks=("shop", "machine")),
        at=kit.START + 1,
    )  # fmt: skip
    assert family.deliver_all() == [("primary", "fire", "high")], "the machine has no such cause"
