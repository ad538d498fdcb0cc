"""Who is on call: turns by the clock of a place, stand-ins, and what a hand-over changes for an alert that fires."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from sixfbd.alerting.rotations import compile_rotation
from sixfbd.config.tables import OnCallTable, OverrideTable
from sixfbd.quantities import Duration

HOUR = 3600.0
DAY = 24 * HOUR


def turns(
    start="2026-03-02T09:00", shift_s=7 * DAY, location="Europe/Berlin", members=("anna", "bert", "cleo"), **keys
):
    return compile_rotation(
        OnCallTable(members=members, start=start, shift=Duration(shift_s), location=location, **keys), "UTC"
    )


def at(text, zone="Europe/Berlin", fold=0):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def stand_in(member, start, end):
    return OverrideTable(member=member, from_=start, until=end)


@pytest.mark.parametrize(
    ("moment", "member"),
    [
        ("2026-03-02T09:00", "anna"),
        ("2026-03-09T08:59:59", "anna"),
        ("2026-03-09T09:00", "bert"),
        ("2026-03-30T08:59:59", "cleo+1"),  # the clocks were set forward on the 29th
        ("2026-03-30T09:00", "bert"),
        ("2026-10-26T08:59:59", "anna"),  # and back on the 25th
        ("2026-10-26T09:00", "bert"),
        ("2026-02-24T12:00", "cleo"),  # before the first shift, as if it had always gone on
    ],
)
def test_hand_overs_stay_at_the_same_hour_when_clocks_are_changed(moment, member):
    expected = "anna" if member == "cleo+1" else member
    assert turns().on_call(at(moment)) == expected


def test_until_is_the_next_hand_over_in_the_places_time():
    rotation = turns(location="America/Chicago", start="2026-03-02T09:00")
    before = at("2026-03-03T12:00", "America/Chicago")
    assert rotation.until(before) == at("2026-03-09T09:00", "America/Chicago")
    assert rotation.until(before) - at("2026-03-02T09:00", "America/Chicago") == 7 * DAY - HOUR


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Chicago", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("shift_h", [2, 3, 12, 24])
def test_turns_go_on_in_order_and_none_comes_back_through_a_whole_year(zone, shift_h):
    rotation = turns("2026-01-01T02:00", shift_h * HOUR, zone)
    moment, members, steps = at("2026-01-01T02:00", zone), rotation.members, 0
    while moment < at("2027-01-01T00:00", zone):
        until = rotation.until(moment)
        assert until > moment
        assert rotation.on_call(moment) == rotation.on_call((moment + until) / 2) == members[steps % 3]
        moment, steps = until, steps + 1
    assert steps == pytest.approx(365 * 24 / shift_h, abs=2)


def test_a_stand_in_is_on_call_for_as_long_and_the_turns_go_on_meanwhile():
    rotation = turns(overrides=(stand_in("dora", "2026-03-04T18:00", "2026-03-09T12:00"),))
    assert rotation.until(at("2026-03-03T00:00")) == at("2026-03-04T18:00")
    assert [rotation.on_call(at(f"2026-03-{day}")) for day in ("04T17:59", "04T18:00", "09T11:59", "09T12:00")] == [
        "anna", "dora", "dora", "bert",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"start": "monday"}, '"monday" is not a time; write'),
        ({"start": "2026-03-29T02:30"}, "never came in Europe/Berlin"),
        ({"location": "Europe/Springfield"}, "is not a time zone"),
        ({"shift_s": 3600.0}, 'shift: "1h" is too short'),
        ({"overrides": (stand_in("bert", "2026-03-05", "2026-03-04"),)}, "until is not later than from"),
        (
            {"overrides": (stand_in("bert", "2026-03-04", "2026-03-06"), stand_in("cleo", "2026-03-05", "2026-03-07"))},
            "overrides of bert and cleo overlap",
        ),
    ],
)
def test_what_cannot_be_a_rotation_is_named_with_its_mend(keys, said):
    with pytest.raises(ValueError, match="; "):
        turns(**keys)
    with pytest.raises(ValueError) as error:
        turns(**keys)
    assert said in str(error.value)


def test_a_start_with_a_zone_of_its_own_is_taken_into_the_places():
    assert turns("2026-03-02T08:00:00+00:00") == turns("2026-03-02T09:00")


# ---- what is owed to whom ------------------------------------------------------------------------------------------------


@pytest.fixture
def by_turns(kit):
    """Everything goes to who is on call: anna and bert by turns of an hour; repeated every 40 minutes."""
    receivers = {name: {"hook": kit.Channel(via="hook", to=(name,))} for name in ("anna", "bert", "boss")}
    route = kit.RouteTable(receiver="week", repeat_interval=kit.Duration(40 * 60))
    rules = (kit.rule(), kit.rule("Stock", levels=kit.STOCK_LEVELS))
    step = kit.EscalationStep(after=kit.Duration(90 * 60), receiver="week")
    late = kit.EscalationTable(name="late", matchers=('alertname="Stock"',), steps=(step,))
    rotation = kit.ByTurns("anna", "bert", shift_s=HOUR)
    policy = kit.policy(
        *rules, receivers=receivers, route=route, rotations={"week": rotation}, escalations=(late,), flaps_s=0.0
    )
    ledger = kit.Ledger(policy)
    yield ledger
    ledger.check()


def test_who_is_on_call_is_told_and_the_end_goes_to_whoever_was_told(kit, by_turns):
    by_turns.see(kit.found(host="a"))
    assert by_turns.deliver_all() == [("anna", "fire", "high")]
    by_turns.see(kit.found(host="a"), kit.found(host="b"), at=kit.START + HOUR + 1)
    assert [one for one in by_turns.deliver_all() if one[1] == "fire"] == [("bert", "fire", "high")] * 2
    by_turns.see(at=kit.START + HOUR + 2)
    assert by_turns.deliver_all() == [
        ("anna", "resolve", "high"), ("bert", "resolve", "high"), ("bert", "resolve", "high"),
    ]  # fmt: skip


def test_a_repeat_after_the_hand_over_tells_the_next_one_that_it_fires_and_the_former_one_no_more(kit, by_turns):
    by_turns.see(kit.found(host="a"))
    by_turns.deliver_all()
    by_turns.tick(kit.START + 40 * 60)
    assert by_turns.deliver_all() == [("anna", "repeat", "high")]
    by_turns.tick(kit.START + 80 * 60)
    assert by_turns.deliver_all() == [("bert", "fire", "high")]
    assert by_turns.reasons() == ["handed over to bert"]
    by_turns.tick(kit.START + 120 * 60 - 1)
    assert by_turns.deliver_all() == []
    by_turns.tick(kit.START + 120 * 60)
    assert by_turns.deliver_all() == [("anna", "repeat", "high")], "it is her turn again"


def test_what_was_silenced_over_a_hand_over_is_told_to_who_is_on_call_at_its_end(kit, by_turns):
    by_turns.command(kit.AddSilence(matchers=('host="a"',), duration_s=HOUR + 60))
    by_turns.see(kit.found(host="a"))
    assert by_turns.deliver_all() == []
    by_turns.tick(kit.START + HOUR + 60)
    assert by_turns.deliver_all() == [("bert", "fire", "high")]


def test_a_step_of_an_escalation_goes_to_who_is_on_call_by_then(kit, by_turns):
    by_turns.see(kit.found(5, host="a"), rule="Stock")
    by_turns.deliver_all()
    by_turns.tick(kit.START + 90 * 60)
    assert ("bert", "escalate", "medium") in by_turns.deliver_all()


# ---- quiet hours ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(kit):
    """primary's sms is quiet in every second hour, the first one is not; stock of 10 and less has levels up to critical."""
    sms = kit.Channel(via="sms", quiet_hours=("odd",))
    receivers = {"primary": {"sms": sms, "hook": kit.Channel(via="hook")}}
    calendar = kit.Calendar(intervals={"odd": kit.Every(HOUR)})
    ledger = kit.Ledger(
        kit.policy(
            kit.rule(), kit.rule("Stock", levels=kit.STOCK_LEVELS), receivers=receivers, calendar=calendar,
            notices={"sale": "sale"}, sms={}, hook={},
        )
    )  # fmt: skip
    assert not calendar.intervals["odd"].contains(kit.START)
    yield ledger
    ledger.check()


def told(ledger):
    """Which channels were told what."""
    found = []
    while ledger.sending:
        for message in ledger.sending:
            carried = ledger.state.carried(ledger.state.messages[message])
            found += [(one.target.notifier, one.kind) for one in carried]
            ledger.answer(message)
    return sorted(found)


def test_in_quiet_hours_the_channel_is_left_out_and_told_at_their_end_of_what_still_fires(kit, quiet):
    quiet.see(kit.found(host="a"), kit.found(host="b"), at=kit.START + HOUR)
    assert told(quiet) == [("hook", "fire")] * 2
    assert quiet.reasons() == ["quiet hours of primary: odd"] * 2
    quiet.see(kit.found(host="a"), at=kit.START + HOUR + 60)
    assert told(quiet) == [("hook", "resolve")]
    quiet.tick(kit.START + 2 * HOUR)
    assert told(quiet) == [("sms", "fire")]


def test_what_is_critical_or_becomes_so_is_told_in_quiet_hours_too(kit, quiet):
    quiet.see(kit.found(9, host="a"), rule="Stock", at=kit.START + HOUR)
    assert told(quiet) == [("hook", "fire")]
    quiet.see(kit.found(0, host="a"), rule="Stock", at=kit.START + HOUR + 60)
    assert quiet.alert("Stock").severity == "critical"
    assert told(quiet) == [("hook", "level"), ("sms", "fire")]


def test_the_end_of_what_was_told_before_is_told_in_quiet_hours(kit, quiet):
    quiet.see(kit.found(host="a"), at=kit.START + HOUR - 60)
    assert told(quiet) == [("hook", "fire"), ("sms", "fire")]
    quiet.see(at=kit.START + HOUR + 60)
    assert told(quiet) == [("hook", "resolve"), ("sms", "resolve")]


def test_a_notice_in_quiet_hours_is_not_sent_by_that_channel(kit, quiet):
    event = kit.StoredEvent(1, "shop", kit.START + HOUR, kit.Event("s1", "sale", kit.START + HOUR, {"n": 1}))
    quiet.go(kit.EventsCommitted(kit.START + HOUR, 1, (event,)), at=kit.START + HOUR)
    assert told(quiet) == [("hook", "notice")]
    assert quiet.reasons() == ["quiet hours of primary: odd"]
