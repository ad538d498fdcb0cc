"""The scheduler under attack: what checks raise, swallow and keep; doors that fail; pauses, replacements, the end."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from sixfbd.journal.errors import JournalBroken
from sixfbd.model import CheckName, Refusal, Refusals, Report, Status
from sixfbd.schedule import Before, Schedule, stale_after_s
from tests.containment_kit import kept_cancelled
from tests.schedule_kit import Made

A, B = CheckName("a"), CheckName("b")
FINE = Report(Status.HEALTHY, "fine")


class Acts:
    """A check whose runs do what `act()` does; counts them."""

    def __init__(self, act=None):
        self.act = act
        self.runs = 0

    async def run(self, cursor):
        self.runs += 1
        await trio.lowlevel.checkpoint()
        return FINE if self.act is None else await self.act()


@dataclass
class Door:
    """Takes reports, unless it is told to fail."""

    reports: list[Any] = field(default_factory=list)
    failure: Exception | None = None
    unreadable: Exception | None = None

    async def deliver(self, check, report, own):
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.reports.append((check, report, {one.metric: one.value for one in own}))
        return Refusals()

    async def cursor(self, check):
        if self.unreadable is not None:
            raise self.unreadable


@pytest.fixture
def door():
    return Door()


@pytest.fixture
async def schedule(world, door, nursery, autojump_clock):
    made = Schedule(world, door.deliver, door.cursor)
    await nursery.start(made.run)
    yield made
    nursery.cancel_scope.cancel()


async def raises(error):
    raise error


async def keeps_and_raises_again():
    raise await kept_cancelled()


async def shields():
    with trio.CancelScope(shield=True):
        await trio.sleep(3600)
    return FINE


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: raises(SystemExit(3)), "SystemExit: 3"),
        (lambda: raises(KeyboardInterrupt()), "KeyboardInterrupt"),
        (lambda: raises(BaseExceptionGroup("x", [SystemExit(1), ValueError("v")])), "SystemExit: 1"),
        (keeps_and_raises_again, "Cancelled"),
    ],
)
async def test_what_is_no_exception_is_contained_and_the_other_checks_go_on(schedule, door, act, said, autojump_clock):
    schedule.add(Made(A, Acts(act)))
    other = Acts()
    schedule.add(Made(B, other))
    await trio.sleep(25)
    summaries = [report.summary for check, report, _ in door.reports if check == A]
    assert len(summaries) == 3 and all(one.startswith(f"plugin scripted raised {said}") for one in summaries)
    assert schedule.state(A).crashes == 3
    assert other.runs == 3


@pytest.mark.parametrize("changes", [{"summary": 7}, {"more": "yes"}, {"reachable": "no"}])
async def test_a_report_with_fields_of_wrong_types_is_rubbish(schedule, door, changes, autojump_clock):
    async def act():
        return Report(**{"status": Status.HEALTHY, "summary": "x", **changes})

    schedule.add(Made(A, Acts(act)))
    await trio.sleep(1)
    [(_, report, _)] = door.reports
    assert report.status is Status.UNKNOWN and "plugin scripted returned a report whose" in report.summary


async def test_a_check_that_does_not_heed_its_cancel_is_called_stuck_and_blind(schedule, door, autojump_clock):
    schedule.add(Made(A, Acts(), interval_s=10, timeout_s=5))
    await trio.sleep(1)
    schedule.add(Made(A, Acts(shields), interval_s=10, timeout_s=5))
    await trio.sleep(9)
    assert len(door.reports) == 1, "it may still end"
    await trio.sleep(3)
    _, report, own = door.reports[-1]
    assert (report.status, report.summary) == (
        Status.UNKNOWN,
        "its run does not end, though it was cancelled after 5 s",
    )
    assert own["sixfbd_check_consecutive_failures"] == 1
    assert schedule.is_blind(A) and schedule.state(A).running
    await trio.sleep(3600)
    assert schedule.state(A).runs > 0, "it goes on when its run has ended"


async def test_a_cursor_that_cannot_be_read_costs_the_run_and_not_the_daemon(schedule, door, autojump_clock):
    check = Acts()
    door.unreadable = JournalBroken("journal.db: disk I/O error")
    schedule.add(Made(A, check))
    await trio.sleep(1)
    assert check.runs == 0
    assert schedule.state(A).summary == "its cursor cannot be read: journal.db: disk I/O error"
    door.unreadable = None
    await trio.sleep(10)
    assert check.runs == 1 and schedule.state(A).status is Status.HEALTHY


async def test_a_check_whose_cursor_was_read_once_goes_on_while_the_journal_cannot_be_read(
    schedule, door, autojump_clock
):
    check = Acts()
    schedule.add(Made(A, check))
    await trio.sleep(1)
    door.unreadable = JournalBroken("journal.db: disk I/O error")
    runs = check.runs
    await trio.sleep(20)
    assert check.runs > runs and schedule.state(A).status is Status.HEALTHY


async def more_to_read():
    return Report(Status.HEALTHY, "fine", cursor=1, more=True)


async def test_a_report_whose_events_cannot_be_kept_was_seen_all_the_same(schedule, door, autojump_clock):
    check = Acts(more_to_read)
    door.failure = JournalBroken("no space left")
    schedule.add(Made(A, check))
    await trio.sleep(1)
    assert check.runs == 1, "a cursor that did not move is not asked again at once"
    state = schedule.state(A)
    assert (state.status, state.summary) == (Status.HEALTHY, "fine")
    assert not schedule.is_blind(A)


@pytest.mark.parametrize("failure", [KeyError("a"), ValueError("odd")])
async def test_what_was_not_taken_is_not_known(schedule, door, failure, autojump_clock):
    schedule.add(Made(A, Acts()))
    await trio.sleep(1)
    assert not schedule.is_blind(A)
    seen_at = schedule.state(A).last_seen_at
    door.failure = failure
    await trio.sleep(10)
    state = schedule.state(A)
    assert state.status is Status.UNKNOWN and "was not taken" in state.summary
    assert schedule.is_blind(A), "its samples are not there, so that their absence means nothing"
    assert (state.last_seen_at, state.consecutive_failures) == (seen_at, 1)
    door.failure = None
    await trio.sleep(10)
    assert not schedule.is_blind(A) and schedule.state(A).consecutive_failures == 0


async def test_what_a_report_says_is_known_when_it_is_visible_and_not_before(schedule, world, door, autojump_clock):
    took = trio.Event()

    async def slowly(check, report, own):
        await took.wait()
        return Refusals()

    schedule._deliver = slowly
    schedule.add(Made(A, Acts()))
    await trio.sleep(1)
    assert schedule.is_blind(A) and schedule.state(A).status is Status.UNKNOWN
    took.set()
    await trio.sleep(1)
    assert not schedule.is_blind(A)


async def test_a_resumed_check_is_blind_until_it_has_reported(schedule, world, autojump_clock):
    async def act():
        await trio.sleep(3)
        return FINE

    schedule.add(Made(A, Acts(act)))
    await trio.sleep(5)
    assert not schedule.is_blind(A)
    schedule.set_paused(A, True)
    await trio.sleep(4000)
    assert schedule.is_blind(A)
    schedule.set_paused(A, False)
    resumed_at = world.clock.now()
    await trio.sleep(1)
    assert schedule.is_blind(A), "what it fed went stale during the pause"
    assert schedule.state(A).awaited_since == pytest.approx(resumed_at), "nobody waited for it while it was paused"
    await trio.sleep(3)
    assert not schedule.is_blind(A)


async def test_after_a_pause_of_the_process_a_check_is_blind_until_it_has_reported(schedule, autojump_clock):
    schedule.add(Made(A, Acts(), interval_s=100, timeout_s=100))
    await trio.sleep(1)
    autojump_clock.jump(stale_after_s(100, 100) - 2)
    assert not schedule.is_blind(A)
    autojump_clock.jump(2)
    assert schedule.is_blind(A), "its series have gone stale"
    await trio.sleep(1)
    assert not schedule.is_blind(A)


async def test_the_report_of_a_run_that_outlives_its_check_is_dropped(schedule, door, autojump_clock):
    async def answers_when_cancelled():
        try:
            await trio.sleep(100)
        except trio.Cancelled:
            return Report(Status.HEALTHY, "of the old one")

    schedule.add(Made(A, Acts(answers_when_cancelled)))
    schedule.add(Made(B, Acts(answers_when_cancelled)))
    await trio.sleep(1)
    ended = [schedule.add(Made(A, Acts())), schedule.remove(B)]
    assert not any(one.is_set() for one in ended)
    await trio.sleep(1)
    assert all(one.is_set() for one in ended)
    assert [(check, report.summary) for check, report, _ in door.reports] == [("a", "fine")]


async def test_a_replaced_check_goes_on_counting_its_failures_and_is_blind(schedule, door, world, autojump_clock):
    async def fails():
        return Report(Status.UNHEALTHY, "down")

    schedule.add(Made(A, Acts(fails)))
    await trio.sleep(25)
    assert schedule.state(A).consecutive_failures == 3
    schedule.add(Made(A, Acts(fails), jitter_s=0.0))
    assert schedule.is_blind(A)
    assert schedule.state(A).awaited_since == pytest.approx(world.clock.now())
    await trio.sleep(1)
    assert schedule.state(A).consecutive_failures == 4
    assert door.reports[-1][2]["sixfbd_check_consecutive_failures"] == 4


async def test_what_was_overdue_stays_overdue_until_it_reports(schedule, world, autojump_clock):
    schedule.add(Made(A, Acts(shields)))
    began = schedule.state(A).awaited_since
    await trio.sleep(1000)
    schedule.add(Made(A, Acts()))
    assert schedule.state(A).awaited_since == began, "not seen for 1000 s, whatever its new options are"
    await trio.sleep(1)
    assert schedule.state(A).awaited_since > began + 900
    schedule.add(Made(B, Acts(shields)), before=Before(3, 17.0))
    assert (schedule.state(B).consecutive_failures, schedule.state(B).awaited_since) == (3, 17.0)


async def test_a_stop_ends_all_runs_and_says_when(world, door, nursery, autojump_clock):
    schedule = Schedule(world, door.deliver, door.cursor)
    await nursery.start(schedule.run)
    schedule.add(Made(A, Acts(trio.sleep_forever)))
    await trio.sleep(1)
    schedule.stop()
    with trio.fail_after(1):
        await schedule.ended.wait()
    assert door.reports == [] and not schedule.state(A).running


async def test_what_is_refused_is_counted_shown_in_the_summary_and_logged_once(schedule, door, autojump_clock):
    refusals = Refusals(99, (Refusal("odd: is over the limit", 98), Refusal("even: is not declared")))
    more = Refusals(1, (Refusal("new: is not declared"),))
    answers = [refusals, refusals, refusals, more, Refusals()]

    async def deliver(check, report, own):
        await trio.lowlevel.checkpoint()
        return answers.pop(0)

    schedule._deliver = deliver
    with capture_logs() as logged:
        schedule.add(Made(A, Acts()))
        await trio.sleep(25)
        state = schedule.state(A)
        assert state.refused_series == 3 * 99
        assert state.summary == "fine; refused 99: odd: is over the limit: 98 times (and 1 more kinds)"
        await trio.sleep(10)
        assert schedule.state(A).summary == "fine; refused 1: new: is not declared"
        await trio.sleep(10)
        assert schedule.state(A).summary == "fine"
    assert [entry["count"] for entry in logged if entry["event"] == "check.refused"] == [99, 1]


async def test_a_refusal_that_comes_and_goes_is_logged_anew_when_it_had_been_gone_for_long(
    schedule, door, autojump_clock
):
    refusals = Refusals(1, (Refusal("events: too many"),))
    answers = [refusals, Refusals(), refusals, Refusals(), refusals, *[Refusals()] * 65, refusals]

    async def deliver(check, report, own):
        await trio.lowlevel.checkpoint()
        return answers.pop(0) if answers else Refusals()

    schedule._deliver = deliver
    with capture_logs() as logged:
        schedule.add(Made(A, Acts()))
        await trio.sleep(60)
        assert len([entry for entry in logged if entry["event"] == "check.refused"]) == 1
        await trio.sleep(700)
    assert len([entry for entry in logged if entry["event"] == "check.refused"]) == 2


async def test_a_page_whose_events_were_refused_is_not_asked_for_again_before_its_time(schedule, door, autojump_clock):
    async def act():
        return Report(Status.HEALTHY, "page", cursor=1, more=True)

    async def deliver(check, report, own):
        await trio.lowlevel.checkpoint()
        return Refusals(7, (Refusal("events: too many", 7),), cursor_stays=True)

    schedule._deliver = deliver
    schedule.add(Made(A, Acts(act)))
    await trio.sleep(25)
    assert schedule.state(A).runs == 3, "one page a run"
    assert schedule._entries[A].cursor is None, "the next run reads the cursor that was committed"
