"""Alerts that come and go: when one flaps, that it is told once, and its end when it has settled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sixfbd.alerting.flapping import PARTS, Flapping
from sixfbd.journal.state import FLIPS_KEPT_S, fold

FLAPPING = Flapping(window_s=1200.0)
times = st.lists(st.floats(0, 3000, allow_nan=False), max_size=40).map(sorted)


def test_six_changes_within_the_window_are_flapping_and_five_old_ones_are_not():
    assert FLAPPING.is_flapping([600.0 + 60 * n for n in range(6)], 900.0, already=False)
    assert not FLAPPING.is_flapping([0.0 + 60 * n for n in range(5)], 900.0, already=False)
    assert FLAPPING.share([1000.0], 1000.0) == pytest.approx(1.2 / PARTS)
    assert FLAPPING.share([1000.0], 1000.0 + 1199) == pytest.approx(0.8 / PARTS)
    assert FLAPPING.share([1000.0], 1000.0 + 1200) == 0.0


def test_without_a_window_nothing_flaps():
    assert not Flapping(window_s=0.0).is_flapping([float(n) for n in range(40)], 40.0, already=True)


@given(times, st.floats(0, 3000))
def test_what_flaps_settles_when_it_says_if_nothing_changes_any_more_and_not_before(changes, later):
    at = changes[-1] if changes else 0.0
    settles_at = FLAPPING.settles_at(changes, at)
    assert settles_at >= at
    assert settles_at <= at + FLAPPING.window_s + 0.01
    assert not FLAPPING.is_flapping(changes, settles_at + 1e-3, already=True)
    if FLAPPING.is_flapping(changes, at, already=True):
        between = at + (settles_at - at) * min(0.999, later / 3000)
        assert FLAPPING.is_flapping(changes, between, already=True) or between == settles_at


@given(times, st.floats(0, 1000), st.floats(0, 1000))
def test_the_share_never_grows_while_nothing_changes(changes, some, more):
    at = (changes[-1] if changes else 0.0) + some
    assert FLAPPING.share(changes, at + more) <= FLAPPING.share(changes, at) + 1e-9


@pytest.fixture
def ledger(kit):
    made = kit.Ledger(replace(kit.policy(kit.rule("Hot")), flapping=FLAPPING))
    yield made
    made.check()


def flap(kit, ledger, cycles, step_s=60.0):
    """Let the alert come and go; return what was told meanwhile."""
    told = []
    for n in range(cycles):
        begin = ledger.now + step_s if n else ledger.now
        ledger.see(kit.found(host="a"), at=begin)
        told += ledger.deliver_all()
        ledger.see(at=begin + step_s)
        told += ledger.deliver_all()
    return told


def kinds(told):
    return [kind for _, kind, _ in told]


def test_an_alert_that_comes_and_goes_is_kept_firing_and_told_once_more_when_it_has_settled(kit, ledger):
    assert kinds(flap(kit, ledger, 2)) == ["fire", "resolve"] * 2
    assert kinds(flap(kit, ledger, 3)) == ["fire"], "the third time it stays"
    alert = ledger.alert()
    assert alert.flapping and ledger.next_due == alert.due_at
    ledger.tick(alert.due_at - 1)
    assert ledger.deliver_all() == []
    ledger.tick(alert.due_at)
    assert kinds(ledger.deliver_all()) == ["resolve"]


def test_a_flapping_alert_that_settles_firing_is_not_told_again(kit, ledger):
    flap(kit, ledger, 4)
    ledger.see(kit.found(host="a"), at=ledger.now + 60)
    assert ledger.alert().flapping and ledger.alert().absent_since is None
    ledger.tick(ledger.alert().due_at)
    assert not ledger.alert().flapping and ledger.deliver_all() == []
    ledger.see(at=ledger.now + 3600)
    assert kinds(ledger.deliver_all()) == ["resolve"]


def test_flapping_survives_a_crash(kit, ledger):
    flap(kit, ledger, 4)
    due_at = ledger.alert().due_at
    ledger.crash()
    ledger.see(at=ledger.now + 1)
    assert ledger.alert().flapping and ledger.alert().due_at == due_at
    ledger.tick(due_at)
    assert kinds(ledger.deliver_all()) == ["resolve"]


def test_what_has_been_quiet_for_long_is_forgotten(kit, ledger):
    ledger.see(kit.found(host="a"))
    ledger.see(at=kit.START + 1)
    assert len(ledger.state.flips) == 1
    for number in range(2):
        ledger.see(kit.found(host="b"), at=kit.START + FLIPS_KEPT_S + 10 + number)
    ledger.deliver_all()
    assert [dict(key.labels)["host"] for key in fold(ledger.records).flips] == ["b"]
