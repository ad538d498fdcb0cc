"""Time: engine time that never steps, machines that sleep, and a loop that stood still; nothing happens for it but words."""

import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from sixfbd.alerting.inputs import Stood
from sixfbd.journal.records import StoodStill
from sixfbd.journal.state import base_of, fold
from sixfbd.judge import Judge
from sixfbd.model import CheckName, Refusals, Report, Status
from sixfbd.schedule import Schedule
from sixfbd.world import STILL_S, BootClock, EngineClock
from tests import judge_kit as kit

WEB, OTHER = CheckName("web"), CheckName("other")
HOUR = 3600.0


# ---- the clock itself ----------------------------------------------------------------------------------------------------


async def test_engine_time_does_not_follow_a_wall_clock_that_is_set(
    autojump_clock: MockClock, monkeypatch: Any
) -> None:
    clock = EngineClock()
    began = clock.now()
    for hours in (-7, 9):
        monkeypatch.setattr("sixfbd.world.time.time", lambda hours=hours: began + hours * HOUR)
        await trio.sleep(1)
    assert clock.now() - began == pytest.approx(2)


async def test_who_asks_for_the_time_after_a_stand_still_learns_of_it_first(autojump_clock: MockClock) -> None:
    clock = EngineClock(1000.0)
    told: list[tuple[float, float]] = []
    clock.tell(lambda since, until: told.append((since, until)))
    autojump_clock.jump(50)
    clock.now()
    assert told == [], "nobody said that the loop turns"
    clock.turned()
    autojump_clock.jump(STILL_S - 0.01)
    clock.now()
    assert told == []
    autojump_clock.jump(0.01)
    assert clock.now() == 1050 + STILL_S
    assert told == [(1050.0, 1050 + STILL_S)]
    clock.now()
    clock.turned()
    assert len(told) == 1, "it is told once"


async def test_engine_time_goes_on_from_the_newest_that_is_written_down(autojump_clock: MockClock) -> None:
    clock = EngineClock(1000.0)
    assert clock.not_before(900.0) == 0.0
    assert clock.not_before(1000.0 + 5 * HOUR) == 5 * HOUR
    await trio.sleep(1)
    assert clock.now() == 1001.0 + 5 * HOUR
    started = trio.current_time()
    await clock.sleep_until(clock.now() + 3)
    assert trio.current_time() - started == pytest.approx(3)


def test_what_the_machine_slept_counts_as_time() -> None:
    slept = 0.0

    def boot_time() -> float:
        return time.monotonic() + slept

    async def main() -> None:
        nonlocal slept
        clock = EngineClock(0.0)
        clock.turned()
        told: list[float] = []
        clock.tell(lambda since, until: told.append(until - since))
        woken = trio.Event()

        async def sleeper() -> None:
            await trio.sleep(7200)
            woken.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            await trio.sleep(0.01)
            slept += 8 * HOUR
            await trio.sleep(0.01)  # something wakes the loop: the watchdog's sign
            with trio.fail_after(5):
                await woken.wait()
        assert clock.now() >= 8 * HOUR and [round(gap) for gap in told] == [8 * 3600]

    trio.run(main, clock=BootClock(boot_time))


# ---- the judge -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal() -> Any:
    return kit.MemoryJournal()


@pytest.fixture
def judging(journal: Any, world: Any) -> Any:
    @asynccontextmanager
    async def open_judge(policy: Any) -> Any:
        judge = Judge(journal, world.clock, policy)
        world.clock.tell(judge.stood_still)
        async with judge.running("1", "hash"):
            yield judge

    return open_judge


async def settled(judge: Judge) -> None:
    with trio.fail_after(60):
        while judge._waiting():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
            await trio.sleep(0.001)
        await trio.sleep(0.001)


async def keep_turning(clock: EngineClock) -> None:
    while True:
        clock.turned()
        await trio.sleep(0.25)


async def test_a_for_that_would_end_while_nothing_ran_does_not_end_by_that(
    autojump_clock: MockClock, journal: Any, judging: Any, world: Any, nursery: trio.Nursery
) -> None:
    nursery.start_soon(keep_turning, world.clock)
    async with judging(kit.policy(kit.rule(for_s=60))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        await trio.sleep(30)
        autojump_clock.jump(HOUR)
        await settled(judge)
        await trio.sleep(100)
        [alert] = judge.state.alerts.values()
        assert alert.state == "pending" and alert.blind, "it waits until it has been evaluated"
        [gap] = [one for one in journal.records if isinstance(one, StoodStill)]
        assert round(gap.at - gap.since) == HOUR
        autojump_clock.jump(0)
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        [alert] = judge.state.alerts.values()
        assert alert.state == "firing", "100 s seen since, and 30 before"
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)
    nursery.cancel_scope.cancel()


async def test_the_time_in_which_nothing_ran_is_no_part_of_for(
    autojump_clock: MockClock, judging: Any, world: Any, nursery: trio.Nursery
) -> None:
    nursery.start_soon(keep_turning, world.clock)
    async with judging(kit.policy(kit.rule(for_s=60))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        await trio.sleep(30)
        autojump_clock.jump(HOUR)
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        [alert] = judge.state.alerts.values()
        assert alert.state == "pending" and not alert.blind
        await trio.sleep(27)
        assert [one.state for one in judge.state.alerts.values()] == ["pending"]
        await trio.sleep(5)
        assert [one.state for one in judge.state.alerts.values()] == ["firing"]
    nursery.cancel_scope.cancel()


async def test_a_keep_firing_for_is_longer_by_the_time_in_which_nothing_ran(
    autojump_clock: MockClock, judging: Any, world: Any, nursery: trio.Nursery
) -> None:
    nursery.start_soon(keep_turning, world.clock)
    async with judging(kit.policy(kit.rule(keep_firing_for_s=60))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        judge.submit(kit.seen(world.clock.now()))
        await settled(judge)
        await trio.sleep(30)
        autojump_clock.jump(HOUR)
        await settled(judge)
        judge.submit(kit.seen(world.clock.now()))
        await settled(judge)
        assert [one.state for one in judge.state.alerts.values()] == ["firing"]
        await trio.sleep(35)
        assert list(judge.state.alerts.values()) == []
    nursery.cancel_scope.cancel()


async def test_a_stand_still_that_could_not_be_written_is_tried_again(
    autojump_clock: MockClock, journal: Any, judging: Any
) -> None:
    async with judging(kit.policy()) as judge:
        await settled(judge)
        journal.failure = kit.JournalFull("journal.db: no space left")
        judge.stood_still(1.0, 61.0)
        await trio.sleep(1)
        assert judge.journal_failing
        journal.failure = None
        await trio.sleep(10)
        assert [one for one in journal.records if isinstance(one, StoodStill)] == [StoodStill(61.0, 1.0)]
        assert Stood(1.0, 61.0) not in judge._others


# ---- checks --------------------------------------------------------------------------------------------------------------


@dataclass
class Made:
    name: CheckName
    check: Any
    interval_s: float = 10.0
    plugin: str = "scripted"
    timeout_s: float = 5.0
    jitter_s: float | None = 0.0
    service: str | None = None
    external: str | None = None
    problem: str = ""


class Scripted:
    """A check that takes a while, and whose first answer may be another than healthy."""

    def __init__(self, first: Status = Status.HEALTHY, *, takes_s: float = 0.0) -> None:
        self.first = first
        self.takes_s = takes_s
        self.runs = 0

    async def run(self, cursor: Any) -> Report:
        self.runs += 1
        await trio.sleep(self.takes_s)
        return Report(self.first if self.runs == 1 else Status.HEALTHY, "said")


@pytest.fixture
async def reports() -> list[tuple[str, Status]]:
    return []


@pytest.fixture
async def schedule(world: Any, reports: Any, nursery: trio.Nursery, autojump_clock: MockClock) -> Any:
    async def deliver(check: CheckName, report: Report, own: Any) -> Refusals:
        reports.append((check, report.status))
        return Refusals()

    async def cursor(check: CheckName) -> None:
        return None

    made = Schedule(world, deliver, cursor)
    world.clock.tell(made.stood_still)
    await nursery.start(made.run)
    nursery.start_soon(keep_turning, world.clock)
    yield made
    nursery.cancel_scope.cancel()


async def test_a_check_that_missed_runs_is_blind_until_it_reports_and_not_overdue(
    schedule: Schedule, world: Any, autojump_clock: MockClock
) -> None:
    schedule.add(Made(WEB, Scripted(takes_s=1)))
    schedule.add(Made(OTHER, Scripted(), interval_s=2 * HOUR))
    await trio.sleep(2)
    assert not schedule.is_blind(WEB) and not schedule.is_awaited(WEB)
    autojump_clock.jump(HOUR)
    world.clock.now()
    assert schedule.is_blind(WEB) and schedule.is_awaited(WEB)
    assert not schedule.is_awaited(OTHER), "it was not to run before"
    state = schedule.state(WEB)
    assert state is not None and world.clock.now() - state.awaited_since < 1
    await trio.sleep(2)
    assert not schedule.is_blind(WEB) and not schedule.is_awaited(WEB)
    state = schedule.state(WEB)
    assert state is not None and (state.late_runs, state.runs) == (359, 2), "counted, and run once"


async def test_a_check_stays_blind_to_who_judges_by_what_was_seen_before_it_reported(
    schedule: Schedule, world: Any, autojump_clock: MockClock
) -> None:
    """A rule that is evaluated over a snapshot of before must not take the report for one that is in it."""
    schedule.add(Made(WEB, Scripted(takes_s=1)))
    began = world.clock.now()
    await trio.sleep(2)
    assert not schedule.is_blind(WEB) and schedule.is_blind(WEB, began)
    autojump_clock.jump(HOUR)
    resumed = world.clock.now()
    await trio.sleep(2)
    assert not schedule.is_blind(WEB) and not schedule.is_awaited(WEB)
    assert schedule.is_blind(WEB, resumed) and schedule.is_awaited(WEB, resumed)
    assert not schedule.is_blind(WEB, world.clock.now()) and not schedule.is_awaited(WEB, world.clock.now())


async def test_what_failed_because_nothing_ran_is_asked_once_more(
    schedule: Schedule, reports: Any, autojump_clock: MockClock
) -> None:
    check = Scripted(Status.UNHEALTHY, takes_s=3)
    schedule.add(Made(WEB, check))
    await trio.sleep(1)
    autojump_clock.jump(HOUR)  # its deadline passes meanwhile
    await trio.sleep(5)
    assert reports == [(WEB, Status.HEALTHY)] and check.runs == 2, "the second answer is its report"


async def test_a_check_that_does_not_answer_is_not_awaited_for_ever(
    schedule: Schedule, world: Any, autojump_clock: MockClock
) -> None:
    schedule.add(Made(WEB, Scripted(takes_s=1e6), timeout_s=100, interval_s=1000))
    await trio.sleep(1)
    schedule.stood_still(world.clock.now() - 10, world.clock.now())
    assert schedule.is_awaited(WEB)
    await trio.sleep(202)
    assert not schedule.is_awaited(WEB) and schedule.is_blind(WEB)
