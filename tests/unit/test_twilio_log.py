"""Where the reading of the message log stands: which hour is read when, for how long, and what a pause means. Pure."""

from itertools import pairwise

import msgspec
import pytest

from sixfbd.plugin import DAY, HOUR, MINUTE
from sixfbd_plugins.checks.sms import Memory, _remembered
from sixfbd_plugins.twilio import log

NOON = 500_000 * HOUR


def run(position, now, is_open=lambda hour: 0):
    """Read all that is due; return the hours that were read, and the position after."""
    position, read = log.begun(position, now), []
    while (page := log.next_page(position)) is not None:
        read.append(page.hour - 500_000)
        position = log.went_on(position, page, is_open(page.hour - 500_000), "", now)
    return read, position


def times_read(hour, is_open, until_s):
    """When an hour is read, in seconds after its end, by runs of five minutes."""
    position, times = log.first_position(NOON, 1), []
    for step in range(int(until_s / (5 * MINUTE))):
        now = NOON + step * 5 * MINUTE
        read, position = run(position, now, is_open)
        times += [now - NOON - (hour + 1) * HOUR] * read.count(hour)
    return times


def test_the_first_run_reads_what_it_is_told_to_newest_first():
    read, position = run(log.first_position(NOON + 1, 3 * HOUR), NOON + 1)
    assert read == [0, -1, -2, -3]
    assert position.read_until == NOON + 1


def test_an_hour_is_read_at_every_run_until_it_is_an_hour_old_and_then_no_more_if_all_is_at_its_end():
    times = times_read(2, lambda hour: 0, 6 * HOUR)
    assert times == [-HOUR + n * 5 * MINUTE for n in range(25)]


def test_an_hour_with_a_message_on_its_way_is_read_ever_less_often_and_for_two_days():
    times = times_read(0, lambda hour: hour == 0, 3 * DAY)
    later = [at for at in times if at >= HOUR]
    gaps = [b - a for a, b in pairwise(later)]
    assert later[-1] == log.WATCHED_S
    assert gaps[:-1] == sorted(gaps[:-1])
    assert (min(gaps[:-1]), max(gaps)) == (15 * MINUTE, 2 * HOUR)
    assert log.is_last_read(log.Page(500_000), NOON + HOUR + log.WATCHED_S)
    assert not log.is_last_read(log.Page(500_000), NOON + HOUR + log.WATCHED_S - 1)


def test_after_a_pause_every_hour_that_was_not_seen_is_read():
    _, position = run(log.first_position(NOON, 1), NOON + 1)
    read, _ = run(position, NOON + 5 * HOUR)
    assert sorted(read) == [-1, 0, 1, 2, 3, 4, 5]


def test_what_was_read_before_is_not_read_again_once_its_events_may_be_forgotten():
    _, position = run(log.first_position(NOON, 1), NOON + 1, lambda hour: 1)
    assert [hour.number - 500_000 for hour in position.hours] == [-1, 0]
    read, _ = run(position, NOON + 6.5 * DAY)
    assert min(read) == 1
    assert len(read) == 6.5 * 24


def test_after_a_very_long_pause_no_more_than_a_week_is_read_and_the_position_stays_small():
    _, position = run(log.first_position(NOON, 1), NOON + 1)
    begun = log.begun(position, NOON + 300 * DAY)
    assert len(begun.hours) == 7 * 24 + 1
    assert len(msgspec.json.encode(begun)) < 16 * 1024


def test_pages_of_an_hour_follow_each_other_and_what_is_open_on_any_keeps_the_hour_open():
    position = log.begun(log.first_position(NOON, 5 * HOUR), NOON)
    first = log.next_page(position)
    position = log.went_on(position, first, 0, "token-1", NOON)
    second = log.next_page(position)
    assert (second.hour, second.number, second.token) == (first.hour, 1, "token-1")
    position = log.went_on(position, second, 1, "token-2", NOON)
    last = log.next_page(position)
    assert (last.number, last.open) == (2, 1)
    assert log.next_page(log.started_over(position)) == first
    position = log.went_on(position, last, 0, "", NOON)
    assert log.next_page(position).hour == first.hour - 1


@pytest.mark.parametrize("cursor", [None, 7, {"position": {"hours": []}}, {"position": {"hours": [[1]]}}, "x", []])
def test_a_cursor_of_another_form_is_as_good_as_none(cursor):
    assert _remembered(cursor) == Memory()


def test_a_cursor_comes_back_as_it_was():
    _, position = run(log.first_position(NOON, 3 * HOUR), NOON + 1, lambda hour: 1)
    memory = Memory(position, failures=2, canary_at=1.5, canaries=("SM1",))
    assert _remembered(msgspec.json.decode(msgspec.json.encode(memory))) == memory
