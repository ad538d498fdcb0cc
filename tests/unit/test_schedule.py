"""The scheduler: due times, no overlap, containment, pauses; on trio's clock, without sockets or threads."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
import trio

from sixfbd.journal.errors import JournalBroken
from sixfbd.model import CheckName, Json, Refusal, Refusals, Report, Sample, Status
from sixfbd.schedule import NotRunError, Schedule, stale_after_s
from tests.schedule_kit import Made


class Scripted:
    """A check whose runs do what the test says."""

    def __init__(self, *, takes_s: float = 0.0, answer: Any = None, raises: Exception | None = None) -> None:
        self.takes_s = takes_s
        self.answer = answer if answer is not None else Report(Status.HEALTHY, "fine")
        self.raises = raises
        self.started: list[float] = []
        self.cursors: list[Json | None] = []

    async def run(self, cursor: Json | None) -> Any:
        self.started.append(trio.current_time())
        self.cursors.append(cursor)
        await trio.sleep(self.takes_s)
        if self.raises:
            raise self.raises
        return self.answer(cursor) if callable(self.answer) else self.answer


@dataclass
class Door:
    """Takes what the scheduler hands to intake."""

    reports: list[tuple[str, Report, dict[str, float]]] = field(default_factory=list)
    cursors: dict[str, Json | None] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)

    async def deliver(self, check: CheckName, report: Report, own: Any) -> Refusals:
        await trio.lowlevel.checkpoint()
        values = {sample.metric + str(dict(sample.labels).get("status", "")): sample.value for sample in own}
        self.reports.append((check, report, values))
        if report.cursor is not None:
            self.cursors[check] = report.cursor
        return self.refusals

    async def cursor(self, check: CheckName) -> Json | None:
        return self.cursors.get(check)


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def schedule(world, door, nursery, autojump_clock):
    made = Schedule(world, door.deliver, door.cursor)
    await nursery.start(made.run)
    yield made
    nursery.cancel_scope.cancel()


def add(schedule: Schedule, name: str, check: Scripted, **more: Any) -> Scripted:
    schedule.add(Made(CheckName(name), check, **more))
    return check


async def test_intervals_count_from_start_to_start(schedule, autojump_clock):
    check = add(schedule, "a", Scripted(takes_s=3))
    await trio.sleep(35)
    gaps = [round(b - a, 3) for a, b in zip(check.started, check.started[1:], strict=False)]
    assert gaps == [10.0, 10.0, 10.0]


async def test_a_slow_check_never_delays_another(schedule, autojump_clock):
    add(schedule, "slow", Scripted(takes_s=1000), timeout_s=500)
    quick = add(schedule, "quick", Scripted())
    await trio.sleep(45)
    assert [round(at - quick.started[0], 3) for at in quick.started] == [0, 10, 20, 30, 40]


async def test_a_late_run_is_counted_and_never_stacked(schedule, autojump_clock):
    slow = add(schedule, "slow", Scripted(takes_s=25), timeout_s=30)
    await trio.sleep(29)
    assert len(slow.started) == 1
    state = schedule.state(CheckName("slow"))
    assert state is not None and state.late_runs == 2
    await trio.sleep(6)
    assert len(slow.started) == 2


async def test_a_check_that_hangs_reports_unknown_after_its_timeout(schedule, door, autojump_clock):
    add(schedule, "hung", Scripted(takes_s=1e6))
    await trio.sleep(6)
    (name, report, _), *_ = door.reports
    assert (name, report.status, report.summary) == ("hung", Status.UNKNOWN, "no answer within 5 s")
    assert schedule.states()[0].timeouts == 1
    assert schedule.is_blind(CheckName("hung"))


async def test_a_check_that_raises_is_named_and_goes_on(schedule, door, autojump_clock):
    add(schedule, "bad", Scripted(raises=ValueError("boom")))
    await trio.sleep(15)
    assert [report.summary for _, report, _ in door.reports] == ["plugin scripted raised ValueError: boom"] * 2
    assert [values["sixfbd_check_consecutive_failures"] for *_, values in door.reports] == [1, 2]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("fine", "returned a str, not a Report"),
        (Report("great", "x"), "returned a report whose status is 'great'"),  # type: ignore[arg-type]
        (Report(Status.HEALTHY, "x", samples=7), "samples or events are not a tuple"),  # type: ignore[arg-type]
        (Report(Status.HEALTHY, "x", cursor="y" * 70_000), "a cursor of 70002 bytes"),
        (Report(Status.HEALTHY, "x", cursor={"a": object()}), "a cursor that is not JSON"),  # type: ignore[dict-item]
    ],
)
async def test_rubbish_from_a_check_is_contained_and_named(schedule, door, answer, said, autojump_clock):
    add(schedule, "bad", Scripted(answer=answer))
    await trio.sleep(1)
    (_, report, _), *_ = door.reports
    assert report.status is Status.UNKNOWN
    assert said in report.summary


async def test_ten_megabytes_of_text_become_one_line(schedule, door, autojump_clock):
    add(schedule, "wordy", Scripted(answer=Report(Status.HEALTHY, "many\nwords " * 1_000_000)))
    await trio.sleep(1)
    (_, report, _), *_ = door.reports
    assert len(report.summary) == 500 and "\n" not in report.summary


async def test_status_becomes_series_of_which_one_is_set(schedule, door, autojump_clock):
    add(schedule, "a", Scripted(answer=Report(Status.DEGRADED, "so so", (Sample("x", 1.0),))))
    await trio.sleep(1)
    *_, values = door.reports[0]
    states = {key.removeprefix("sixfbd_check_status"): v for key, v in values.items() if "status" in key}
    assert states == {"healthy": 0, "degraded": 1, "unhealthy": 0, "unknown": 0}


async def test_the_next_run_gets_the_last_cursor_and_more_runs_at_once(schedule, door, autojump_clock):
    def page(cursor: Any) -> Report:
        number = (cursor or 0) + 1
        return Report(Status.HEALTHY, "page", cursor=number, more=number < 3)

    check = add(schedule, "pages", Scripted(answer=page))
    await trio.sleep(1)
    assert check.cursors == [None, 1, 2]


async def test_a_cursor_whose_commit_failed_is_read_again(schedule, door, autojump_clock):
    deliver, failing = door.deliver, True

    async def fails_first(check, report, own):
        nonlocal failing
        if report.cursor is not None and failing:
            failing = False
            raise JournalBroken("nobody can tell whether it was written")
        return await deliver(check, report, own)

    schedule._deliver = fails_first
    door.cursors[CheckName("pages")] = 7
    check = add(schedule, "pages", Scripted(answer=lambda cursor: Report(Status.HEALTHY, "x", cursor=cursor + 1)))
    await trio.sleep(25)
    assert check.cursors == [7, 7, 8]


async def test_what_a_plugin_does_to_its_cursor_is_not_there_in_the_next_run(schedule, door, autojump_clock):
    def spoil(cursor: Any) -> Report:
        cursor["at"] = "spoiled"
        return Report(Status.HEALTHY, "x")

    seen: list[Any] = []
    door.cursors[CheckName("pages")] = {"at": 1}
    add(schedule, "pages", Scripted(answer=lambda cursor: seen.append(dict(cursor)) or spoil(cursor)))
    await trio.sleep(15)
    assert seen == [{"at": 1}, {"at": 1}]


async def test_a_paused_check_does_not_run_until_it_is_resumed(schedule, autojump_clock):
    check = add(schedule, "a", Scripted())
    await trio.sleep(1)
    schedule.set_paused(CheckName("a"), True)
    await trio.sleep(50)
    assert len(check.started) == 1
    schedule.set_paused(CheckName("a"), False)
    await trio.sleep(1)
    assert len(check.started) == 2
    await trio.sleep(10)
    assert len(check.started) == 3


async def test_run_now_runs_out_of_turn_and_leaves_the_rhythm(schedule, autojump_clock):
    check = add(schedule, "a", Scripted())
    await trio.sleep(4)
    ran = await schedule.run_now(CheckName("a"))
    assert (ran.report.summary, ran.refused) == ("fine", Refusals())
    await trio.sleep(7)
    assert [round(at - check.started[0]) for at in check.started] == [0, 4, 10]


async def test_what_a_check_depends_on_is_asked_at_once_when_it_fails_and_not_again_while_it_goes_on(
    schedule, autojump_clock
):
    answers = {3: Status.UNHEALTHY, 4: Status.UNHEALTHY}
    parent = add(schedule, "net", Scripted(), interval_s=60.0, timeout_s=5.0)
    paused = add(schedule, "other", Scripted(), interval_s=60.0)
    child = Scripted(answer=lambda cursor: Report(answers.get(len(child.started), Status.HEALTHY), "x"))
    add(schedule, "shop", child, depends_on=(CheckName("net"), CheckName("other"), CheckName("dropped")))
    await trio.sleep(1)
    schedule.set_paused(CheckName("other"), True)
    await trio.sleep(54)
    assert [round(at - child.started[2]) for at in parent.started[1:]] == [0]
    assert len(paused.started) == 1


async def test_what_suffered_with_a_check_is_asked_at_once_when_that_is_well_again(schedule, autojump_clock):
    began = trio.current_time()

    def of_the_net(cursor: Any) -> Report:
        return Report(Status.UNHEALTHY if trio.current_time() < began + 9 else Status.HEALTHY, "x")

    net = Scripted(answer=of_the_net)
    add(schedule, "net", net, interval_s=10.0, timeout_s=5.0)
    ill = Scripted(answer=lambda cursor: Report(Status.UNHEALTHY if len(ill.started) == 1 else Status.HEALTHY, "x"))
    well = Scripted()
    for name, check in (("shop", ill), ("mail", well)):
        add(schedule, name, check, interval_s=600.0, timeout_s=5.0, depends_on=(CheckName("net"),))
    await trio.sleep(55)
    assert [round(at - net.started[0]) for at in ill.started] == [0, 10]
    assert len(well.started) == 1, "it had nothing to recover from"


async def test_run_now_tells_what_was_refused_of_every_page(schedule, door, autojump_clock):
    pages = iter([Report(Status.HEALTHY, "x" * 600, more=True), Report(Status.HEALTHY, "last")])
    add(schedule, "a", Scripted(answer=lambda cursor: next(pages)), jitter_s=9.0)
    weight = Refusal("weight: is not declared in the plugin's metrics", 3, ('{at="4"}',))
    door.refusals = Refusals(4, (weight,))
    ran = await schedule.run_now(CheckName("a"))
    assert ran.report.summary == "last"
    assert ran.refused.count == 9
    assert ran.refused.named == (
        "the summary: has 600 characters; 500 are kept",
        'weight: is not declared in the plugin\'s metrics: 6 times, first {at="4"}',
        "and 2 more",
    )


async def test_run_now_says_why_it_does_not_run(schedule, autojump_clock):
    schedule.add(Made(CheckName("broken"), None, problem="no such file"))
    await trio.sleep(1)
    for name, why in (("none", "there is no check"), ("broken", "no such file")):
        with pytest.raises(NotRunError, match=why):
            await schedule.run_now(CheckName(name))


async def test_run_now_of_a_check_that_is_running_tells_how_that_run_goes(schedule, autojump_clock):
    check = add(schedule, "busy", Scripted(takes_s=3))
    await trio.sleep(1)
    began = trio.current_time()
    ran = await schedule.run_now(CheckName("busy"))
    assert ran.report.summary == "fine"
    assert trio.current_time() - began == pytest.approx(2, abs=0.1)
    assert len(check.started) == 1


async def test_run_now_of_a_check_that_is_removed_meanwhile_says_that_it_did_not_finish(
    schedule, nursery, autojump_clock
):
    add(schedule, "busy", Scripted(takes_s=3))
    await trio.sleep(1)
    schedule.remove(CheckName("busy"))
    add(schedule, "late", Scripted(takes_s=3))
    await trio.sleep(1)

    async def remove():
        await trio.sleep(1)
        schedule.remove(CheckName("late"))

    nursery.start_soon(remove)
    with pytest.raises(NotRunError, match="did not finish"):
        await schedule.run_now(CheckName("late"))


async def test_a_removed_check_is_cancelled_and_its_report_dropped(schedule, door, autojump_clock):
    add(schedule, "a", Scripted(takes_s=3))
    await trio.sleep(1)
    schedule.remove(CheckName("a"))
    await trio.sleep(20)
    assert door.reports == [] and schedule.states() == []


async def test_after_a_pause_of_the_machine_missed_runs_are_counted_and_not_run_after(schedule, autojump_clock):
    check = add(schedule, "a", Scripted())
    await trio.sleep(1)
    autojump_clock.jump(1000)
    await trio.sleep(1)
    assert len(check.started) == 2
    state = schedule.state(CheckName("a"))
    assert state is not None and state.late_runs == 99


def test_staleness_covers_two_and_a_half_intervals_and_the_timeout():
    assert stale_after_s(300, 10) == 760
    assert stale_after_s(15, 10) == 300


async def test_checks_fall_due_together_so_that_the_loop_wakes_20_times_a_second_at_most(schedule, autojump_clock):
    checks = [add(schedule, f"c{n}", Scripted(), interval_s=1.0, timeout_s=0.5, jitter_s=1.0) for n in range(200)]
    hasty = add(schedule, "hasty", Scripted(), interval_s=0.5, timeout_s=0.2, jitter_s=0.333)
    await trio.sleep(11)
    begun = sorted(at for check in checks for at in check.started if at >= checks[0].started[0] + 5)
    instants = {round(at, 3) for at in begun if at < begun[0] + 5}
    assert 15 <= len(instants) / 5 <= 20.4, "200 checks a second"
    assert [round(b - a, 3) for a, b in zip(hasty.started, hasty.started[1:], strict=False)] == [0.5] * (
        len(hasty.started) - 1
    )


async def test_what_a_check_logs_names_the_check_alone_whoever_asked_for_its_first_run(schedule, autojump_clock):
    bound = []

    def noting(cursor: Json | None) -> Report:
        bound.append(structlog.contextvars.get_contextvars())
        return Report(Status.HEALTHY, "")

    add(schedule, "a", Scripted(answer=noting), interval_s=10, jitter_s=60)
    with structlog.contextvars.bound_contextvars(request="r1"):
        await schedule.run_now(CheckName("a"))
    await trio.sleep(100)
    assert len(bound) > 2
    assert all(one == {"check": "a"} for one in bound)


async def test_a_run_that_is_asked_for_while_the_schedule_stops_says_that_it_did_not_finish(schedule, autojump_clock):
    check = add(schedule, "a", Scripted())
    await trio.sleep(1)
    schedule.stop()
    with pytest.raises(NotRunError, match="did not finish"):
        await schedule.run_now(CheckName("a"))
    await schedule.ended.wait()
    assert len(check.started) == 2  # it was begun, and cancelled at its first wait


async def test_what_a_check_binds_to_its_log_lines_in_one_run_is_gone_in_the_next(schedule, autojump_clock):
    bound = []

    def answer(_cursor):
        bound.append(structlog.contextvars.get_contextvars())
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(order="o1")
        return Report(Status.HEALTHY, "fine")

    add(schedule, "a", Scripted(answer=answer))
    await trio.sleep(25)
    assert bound == [{"check": "a"}] * 3
