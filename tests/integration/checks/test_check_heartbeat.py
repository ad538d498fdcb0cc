"""The `heartbeat` check over a real journal: jobs on time, late and failed, by interval and by cron, over restarts."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from sixfbd.plugin import DAY, HOUR, Event, InvalidOptions, PluginConfig, Status
from sixfbd.quantities import Duration
from sixfbd_plugins.checks import heartbeat as heartbeat_check
from sixfbd_plugins.checks.heartbeat import HeartbeatCheck, HeartbeatOptions, JobOptions, sixfbd_events
from tests.provider_kit import Engine, ManualClock, PluginContext

T = datetime(2026, 11, 2, 12, 0, tzinfo=UTC).timestamp()
DAILY = JobOptions(every=Duration(DAY), grace=Duration(HOUR))


@pytest.fixture
async def engine(tmp_path):
    made = Engine(tmp_path, ManualClock(T), list(sixfbd_events(config=PluginConfig())), "jobs", HeartbeatCheck)
    async with made.running():
        yield made


def check_of(engine, **jobs):
    context = PluginContext(None, engine.clock, engine.read)
    return HeartbeatCheck(HeartbeatOptions(jobs=jobs or {"backup": DAILY}), context)


async def beat(engine, at=None, job="backup", **more):
    """A job tells, now, of what happened then."""
    at = engine.clock.at if at is None else at
    event = Event(f"{job}-{at}-{more}", "heartbeat", at, {"job": job, **more})
    [answer] = await engine.intake.events("cron", [event])
    assert type(answer).__name__ == "Accepted", answer


async def seen(check, at, cursor=None):
    """Run the check at a time; return its report and the values by metric."""
    check.ctx.clock.at = at
    report = await check.run(cursor)
    return report, {one.metric.removeprefix("heartbeat_"): one.value for one in report.samples}


async def test_a_job_is_late_when_it_has_not_ended_for_an_interval_and_its_grace(engine):
    check = check_of(engine)
    report, values = await seen(check, T)
    assert (report.status, report.summary) == (Status.HEALTHY, "1 job on time")
    assert values == {"late_seconds": 0, "failed": 0, "due_timestamp_seconds": T + DAY}
    await beat(engine, T)
    report, values = await seen(check, T + DAY + HOUR)
    assert report.status is Status.HEALTHY and values["last_success_timestamp_seconds"] == T
    report, values = await seen(check, T + DAY + HOUR + 60)
    assert (report.status, values["late_seconds"]) == (Status.DEGRADED, 60)
    assert report.summary == "backup is late: it succeeded last at 2026-11-02 12:00 UTC"
    await beat(engine, T + DAY + HOUR + 61)
    report, values = await seen(check, T + DAY + HOUR + 62)
    assert (report.status, values["late_seconds"]) == (Status.HEALTHY, 0)


async def test_a_job_that_never_told_is_expected_since_it_is_known(engine):
    check = check_of(engine)
    await seen(check, T)
    report, _ = await seen(check, T + DAY + 2 * HOUR)
    assert report.summary == (
        "backup is late: it has not succeeded since 2026-11-02 12:00 UTC, when it was first expected"
    )


async def test_a_job_that_began_and_does_not_end_is_late(engine):
    check = check_of(engine)
    await seen(check, T)
    await beat(engine, T + 10, state="start")
    assert (await seen(check, T + 10 + HOUR))[0].status is Status.HEALTHY
    report, values = await seen(check, T + 11 + HOUR)
    assert report.summary == "backup is late: it began at 2026-11-02 12:00 UTC and has not ended"
    assert values["late_seconds"] == 1
    await beat(engine, T + 12 + HOUR)
    report, values = await seen(check, T + 13 + HOUR)
    assert report.status is Status.HEALTHY and values["duration_seconds"] == HOUR + 2


async def test_a_job_that_failed_says_so_until_it_succeeds(engine):
    check = check_of(engine)
    await seen(check, T)
    await beat(engine, T + 1, state="fail", message="disk full")
    report, values = await seen(check, T + 2)
    assert (report.status, report.summary) == (Status.DEGRADED, "backup failed: disk full")
    assert values["failed"] == 1 and values["due_timestamp_seconds"] == T + 1 + DAY, "it did run"
    await beat(engine, T + 3)
    report, values = await seen(check, T + 4)
    assert (report.status, values["failed"]) == (Status.HEALTHY, 0)


@pytest.mark.parametrize(
    ("ended", "due"),
    [
        ("2026-11-02T02:45", "2026-11-03T02:30"),
        ("2026-11-02T02:29:30", "2026-11-03T02:30"),  # half a minute before its time, by another clock
        ("2026-10-24T03:00", "2026-10-25T02:30"),  # clocks go from three to two that night
        ("2026-03-28T03:00", "2026-03-29T03:00"),  # there is no half past two that night
    ],
)
async def test_a_job_by_cron_is_due_at_its_next_time_in_its_zone(engine, ended, due):
    berlin = ZoneInfo("Europe/Berlin")
    ended_at = datetime.fromisoformat(ended).replace(tzinfo=berlin).timestamp()
    engine.clock.at = ended_at - 1
    check = check_of(engine, backup=JobOptions(cron="30 2 * * *", timezone="Europe/Berlin"))
    await seen(check, ended_at - 1)
    await beat(engine, ended_at)
    _, values = await seen(check, ended_at + 120)
    assert datetime.fromtimestamp(values["due_timestamp_seconds"], berlin) == datetime.fromisoformat(due).replace(
        tzinfo=berlin
    )


async def test_a_restart_forgets_nothing(engine):
    check = check_of(engine)
    await seen(check, T)
    await beat(engine, T + 1, state="start")
    await beat(engine, T + 5)
    report, before = await seen(check, T + 10)
    cursor = report.cursor
    assert cursor is not None and (await seen(check, T + 11, cursor))[0].cursor is None, "nothing new to remember"
    at = T + 20 * DAY  # long after any look back
    report, values = await seen(check_of(engine), at, cursor)
    assert values["last_success_timestamp_seconds"] == before["last_success_timestamp_seconds"] == T + 5
    assert values["duration_seconds"] == 4 and values["late_seconds"] == at - (T + 5 + DAY + HOUR)


async def test_what_was_told_while_the_daemon_was_down_and_comes_hours_later_counts(engine):
    check = check_of(engine)
    cursor = (await seen(check, T))[0].cursor
    again = check_of(engine)
    assert (await seen(again, T + 2 * DAY, cursor))[0].status is Status.DEGRADED
    await beat(engine, T + DAY + 12 * HOUR)  # as it says; it waited with the job meanwhile
    report, values = await seen(again, T + 2 * DAY + 301)
    assert report.status is Status.HEALTHY and values["last_success_timestamp_seconds"] == T + DAY + 12 * HOUR


async def test_jobs_are_told_apart_and_those_that_nobody_configured_are_ignored(engine):
    jobs = dict.fromkeys(("a", "b", "c"), DAILY)
    check = check_of(engine, **jobs)
    await seen(check, T)
    engine.clock.at = T + DAY
    await beat(engine, T + DAY, job="b")
    await beat(engine, T + DAY, job="stranger")
    report, _ = await seen(check, T + DAY + 2 * HOUR)
    assert [one.partition(" ")[0] for one in report.summary.split("; ")] == ["a", "c"]


async def test_more_events_than_a_read_returns_are_all_read(engine, monkeypatch):
    monkeypatch.setattr(heartbeat_check, "PAGE", 7)
    real = engine.read.events

    async def few(kind, start, end):
        return (await real(kind, start, end))[:7]

    monkeypatch.setattr(engine.read, "events", few)
    check = check_of(engine)
    await seen(check, T)
    for n in range(1, 41):
        await beat(engine, T + n)
    _, values = await seen(check, T + 50)
    assert values["last_success_timestamp_seconds"] == T + 40


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "every: either every or cron is needed"),
        ({"every": Duration(60), "cron": "* * * * *"}, "every: either every or cron is needed"),
        ({"cron": "half past two"}, "cron: 'half past two' is no cron expression: .*; write"),
        ({"cron": "* * * * *", "timezone": "Mars/Base"}, "timezone: 'Mars/Base' is no time zone"),
        ({"every": Duration(60), "timezone": "Europe/Berlin"}, "timezone: is of cron"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(InvalidOptions, match=said):
        JobOptions(**options)
