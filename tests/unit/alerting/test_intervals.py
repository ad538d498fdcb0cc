"""Time intervals by the calendar of a place, over changes of its clocks; maintenance windows."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.alerting.intervals import compile_interval, compile_window, parse_moment
from sixfbd.config.tables import MaintenanceTable, TimeIntervalTable

CHICAGO = ZoneInfo("America/Chicago")
SPRING, AUTUMN = datetime(2026, 3, 8, tzinfo=CHICAGO), datetime(2026, 11, 1, tzinfo=CHICAGO)  # days of change there


def interval(*parts, zone="UTC"):
    return compile_interval(msgspec.convert({"intervals": list(parts)}, TimeIntervalTable), zone)


def times(start, end):
    return [{"start_time": start, "end_time": end}]


def at(*moment, zone=UTC):
    return datetime(*moment, tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("part", "inside", "outside"),
    [
        (
            {"times": times("09:00", "17:00")},
            [(2026, 11, 26, 9, 0), (2026, 11, 26, 16, 59, 59)],
            [(2026, 11, 26, 17, 0)],
        ),
        ({"times": times("22:00", "24:00")}, [(2026, 11, 26, 23, 59, 59)], [(2026, 11, 27, 0, 0)]),
        ({"weekdays": ["monday:friday"]}, [(2026, 11, 26), (2026, 11, 27)], [(2026, 11, 28), (2026, 11, 29)]),
        ({"weekdays": ["Sunday"]}, [(2026, 11, 29)], [(2026, 11, 28)]),
        (
            {"days_of_month": ["1:5", "-1"]},
            [(2026, 2, 5), (2026, 2, 28), (2028, 2, 29)],
            [(2026, 2, 27), (2028, 2, 28)],
        ),
        ({"days_of_month": ["30:31"]}, [(2026, 1, 30)], [(2026, 2, 28)]),
        ({"months": ["november:december", "1"]}, [(2026, 12, 1), (2026, 1, 31)], [(2026, 2, 1)]),
        ({"years": ["2026"]}, [(2026, 12, 31, 23, 59)], [(2027, 1, 1)]),
        (
            {"times": times("09:00", "17:00"), "location": "America/Chicago"},
            [(2026, 11, 26, 15, 0)],
            [(2026, 11, 26, 14, 59)],
        ),
        ({}, [(2026, 1, 1)], []),
    ],
)
def test_an_interval_is_when_all_that_it_names_is(part, inside, outside):
    made = interval(part)
    assert [moment for moment in inside if not made.contains(at(*moment))] == []
    assert [moment for moment in outside if made.contains(at(*moment))] == []


def test_of_several_parts_one_is_enough():
    nights = interval({"times": times("22:00", "24:00")}, {"times": times("00:00", "08:00")}, zone="America/Chicago")
    assert nights.contains(at(2026, 11, 26, 23, zone=CHICAGO)) and nights.contains(at(2026, 11, 26, 7, zone=CHICAGO))
    assert not nights.contains(at(2026, 11, 26, 8, zone=CHICAGO))


def test_an_hour_that_is_skipped_never_comes_and_one_that_is_repeated_comes_twice():
    skipped = interval({"times": times("02:00", "03:00")}, zone="America/Chicago")
    minutes = [SPRING.timestamp() + 60 * n for n in range(24 * 60)]
    assert not any(skipped.contains(minute) for minute in minutes)
    repeated = interval({"times": times("01:00", "02:00")}, zone="America/Chicago")
    minutes = [AUTUMN.timestamp() + 60 * n for n in range(25 * 60)]
    assert sum(repeated.contains(minute) for minute in minutes) == 120


parts = st.fixed_dictionaries(
    {},
    optional={
        "times": st.tuples(st.integers(0, 95), st.integers(0, 95))
        .filter(lambda one: one[0] != one[1])
        .map(lambda one: times(*(f"{edge // 4:02}:{edge % 4 * 15:02}" for edge in sorted(one)))),
        "weekdays": st.sampled_from((["monday:friday"], ["sunday"], ["saturday"])),
        "location": st.sampled_from(("UTC", "America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata")),
    },
)
BEGINS = [datetime(2026, 3, 7, 12), datetime(2026, 3, 28, 12), datetime(2026, 10, 31, 12), datetime(2026, 4, 4, 3)]


@settings(max_examples=60, deadline=None)
@given(st.lists(parts, min_size=1, max_size=2), st.sampled_from(BEGINS), st.integers(0, 24 * 60))
def test_nothing_changes_before_the_time_that_it_names(made_of, begin, offset):
    made = interval(*made_of)
    now = begin.replace(tzinfo=UTC).timestamp() + 60 * offset
    change = made.next_change(now)
    assert change is not None and now < change <= now + 2 * 86400
    inside = made.contains(now)
    minute = now
    while minute < change:
        assert made.contains(minute) == inside, datetime.fromtimestamp(minute, UTC)
        minute += 60
    assert made.next_change(now) == change, "asked again it says the same"
    assert made.next_change(change) > change


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({"times": times("22:00", "08:00")}, 'write two: "22:00" to "24:00", and "00:00" to "08:00"'),
        ({"times": times("9", "17:00")}, '"9" is not a time of the day'),
        ({"times": times("09:00", "24:01")}, '"24:01" is not a time of the day'),
        ({"weekdays": ["mon"]}, 'write "monday:friday"'),
        ({"weekdays": ["friday:monday"]}, "ends before it begins"),
        ({"days_of_month": ["0"]}, "has a day 0"),
        ({"days_of_month": ["32"]}, "not within -31 to 31"),
        ({"months": ["13"]}, "none of january to december"),
        ({"years": ["soon"]}, "not within 1970 to 9999"),
        ({"location": "Mars/Olympus"}, "is not a time zone"),
    ],
)
def test_what_is_no_interval_is_refused_with_the_mend(part, says):
    with pytest.raises(ValueError) as refused:
        interval(part)
    assert says in str(refused.value)


def window(**keys):
    table = msgspec.convert({"name": "deploy", "matchers": ['city="dallas"'], **keys}, MaintenanceTable)
    known = {"nights": interval({"times": times("00:00", "06:00")})}
    return compile_window(table, known.get, "America/Chicago", "maintenance[0]")


def test_a_window_is_held_once_or_by_an_interval():
    once = window(**{"from": "2026-11-26T20:00:00", "until": "2026-11-27T04:00:00Z"})
    assert not once.contains(at(2026, 11, 27, 1, 59)) and once.contains(at(2026, 11, 27, 2))
    assert once.next_change(at(2026, 11, 27, 2)) == at(2026, 11, 27, 4)
    assert once.next_change(at(2026, 11, 27, 4)) is None
    often = window(during="nights", comment="backups")
    assert often.contains(at(2026, 11, 27, 3)) and not often.contains(at(2026, 11, 27, 6))
    assert often.matchers[0].matches({"city": "dallas"})


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "either during, or from and until"),
        ({"during": "nights", "until": "2026-11-26"}, "either during, or from and until"),
        ({"from": "2026-11-26"}, "either during, or from and until"),
        ({"during": "days"}, 'there is no [time_intervals."days"]'),
        ({"from": "2026-11-27", "until": "2026-11-26"}, "swap them"),
        ({"from": "today", "until": "2026-11-26"}, "is not a time"),
    ],
)
def test_what_is_no_window_is_refused_with_the_mend(keys, says):
    with pytest.raises(ValueError) as refused:
        window(**keys)
    assert says in str(refused.value)


def test_a_time_without_a_zone_is_the_places():
    assert parse_moment("2026-07-01T12:00:00", "America/Chicago") == at(2026, 7, 1, 17)
