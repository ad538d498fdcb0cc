"""The pace of a notifier's messages: turns, places in the queue, and alerts before notices."""

import pytest

from sixfbd.model import MessageId, Severity
from sixfbd.plugin import Notification, OverPace, TemporaryFailure
from sixfbd_plugins.notifiers.pace import Pace
from tests.provider_kit import ManualClock

AT = 1_800_000_000.0


def message(name, status="notice"):
    return Notification(
        id=MessageId(name), receiver="primary", address="#a", status=status, severity=Severity.LOW, title="t", text="t"
    )


@pytest.fixture
def clock():
    return ManualClock(AT)


@pytest.fixture
def turn(clock):
    """Ask for a message's turn at so many seconds; return when it went, or the failure, with when it may come again."""
    pace = Pace(0.5, clock)

    async def ask(name, at, status="notice", place=""):
        clock.at = AT + at
        try:
            await pace.turn(message(name, status), place)
        except OverPace as over:
            return ("again", at + over.retry_after_s)
        return ("went", clock.at - AT)

    ask.pace = pace
    return ask


async def test_messages_go_at_the_rate_and_who_would_wait_for_long_is_told_when_to_come(turn):
    assert [await turn(f"n{number}", 0) for number in range(3)] == [("went", 0), ("went", 2), ("went", 4)]
    assert [await turn(f"m{number}", 0) for number in range(3)] == [("again", 6), ("again", 8), ("again", 10)]


async def test_who_comes_at_his_turn_goes_and_who_came_later_stands_behind_him(turn):
    for number in range(3):
        await turn(f"n{number}", 0)
    assert (await turn("first", 0), await turn("second", 0)) == (("again", 6), ("again", 8))
    assert await turn("new", 5.75) == ("again", 10)
    assert (await turn("first", 6), await turn("second", 8), await turn("new", 10)) == (
        ("went", 6), ("went", 8), ("went", 10),
    )  # fmt: skip


async def test_an_alert_goes_before_all_notices_that_wait(turn):
    for number in range(30):
        await turn(f"n{number}", 0)
    assert await turn("alert", 1, "firing") == ("again", 6)
    assert await turn("end", 1, "resolved") == ("again", 8)
    assert await turn("n3", 6) == ("again", 10)  # it was its turn, and the alerts have not been here yet
    assert (await turn("alert", 6, "firing"), await turn("end", 8, "resolved")) == (("went", 6), ("went", 8))
    assert await turn("n3", 10) == ("went", 10)


async def test_an_alert_that_comes_at_its_turn_goes_though_notices_come_as_well(turn):
    for number in range(30):
        await turn(f"n{number}", 0)
    assert await turn("alert", 3, "firing") == ("went", 6)
    assert await turn("n3", 6) == ("went", 8)
    assert await turn("n4", 8) == ("went", 10)


async def test_a_place_that_nobody_takes_costs_no_more_than_its_turn(turn):
    for number in range(4):
        await turn(f"n{number}", 0)
    assert await turn("later", 7) == ("went", 8)
    assert await turn("n3", 200) == ("went", 200)


async def test_each_place_has_a_pace_of_its_own_and_a_pause_that_is_wished_is_kept(turn):
    assert (await turn("a", 0, place="#a"), await turn("b", 0, place="#b")) == (("went", 0), ("went", 0))
    turn.pace.hold(30, "#a")
    assert (await turn("c", 1, place="#a"), await turn("d", 2, place="#b")) == (("again", 30), ("went", 2))
    turn.pace.hold(5)
    assert await turn("e", 2, place="#b") == ("again", 7)


async def test_it_is_a_temporary_failure_for_whoever_knows_no_other(turn):
    turn.pace.hold(30)
    with pytest.raises(TemporaryFailure, match=r"more than 0.5 messages a second \(rate\)") as failure:
        await turn.pace.turn(message("a"))
    assert (failure.value.retry_after_s, failure.value.sent) == (30.0, False)
