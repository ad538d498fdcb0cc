"""The daemon's care for itself, part by part: the clock watched, signs of life, its own series and how old they are."""

import gc
import weakref
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
import trio

from sixfbd import upkeep
from sixfbd.intake import ENGINE_CHECK, EVENTS_CHECK, SUMMARIES_CHECK
from sixfbd.journal.errors import JournalFull
from sixfbd.journal.records import ClockStepped
from sixfbd.model import CheckName, CheckState, Outcome, Series, Status, labels_of
from sixfbd.schedule import Before
from sixfbd.vitals import FAILURES, LAST_SEEN, STALE_AFTER, SUMMARY_STALE_S, Vitals, check_samples, known_before


class SteppingClock:
    """Engine time is trio's; the wall is off by `offset_s`."""

    offset_s = 0.0

    def now(self):
        return 1_800_000_000.0 + trio.current_time()

    def wall(self):
        return datetime.fromtimestamp(self.now() + self.offset_s, UTC)

    def wall_offset_s(self):
        return self.offset_s


class Notes:
    """A judge that writes down, or cannot."""

    def __init__(self):
        self.written = []
        self.ok = True

    async def note(self, records):
        await trio.lowlevel.checkpoint()
        if self.ok:
            self.written += records
        return Outcome(self.ok)


async def test_a_step_of_the_wall_clock_is_written_once_and_again_until_it_is(autojump_clock, nursery):
    clock, judge = SteppingClock(), Notes()
    nursery.start_soon(upkeep.watch_clock, SimpleNamespace(clock=clock, judge=judge))
    await trio.sleep(5)
    clock.offset_s = 0.9
    await trio.sleep(5)
    assert judge.written == [], "a clock that is disciplined does not step"
    clock.offset_s, judge.ok = 7200.0, False
    await trio.sleep(5)
    judge.ok = True
    await trio.sleep(10)
    [step] = judge.written
    assert isinstance(step, ClockStepped)
    assert step.by_s == pytest.approx(7200.0, abs=0.01)
    clock.offset_s = 0.0
    await trio.sleep(5)
    assert [round(one.by_s) for one in judge.written] == [7200, -7200]


async def test_signs_of_life_go_on_after_the_journal_failed(autojump_clock, nursery):
    touched = []

    class Journal:
        full = True

        async def touch(self, at):
            await trio.lowlevel.checkpoint()
            if self.full:
                raise JournalFull("no space left")
            touched.append(at)

    journal = Journal()
    clock = SteppingClock()
    nursery.start_soon(upkeep.stay_alive, SimpleNamespace(world=SimpleNamespace(clock=clock), journal=journal))
    await trio.sleep(5)
    journal.full = False
    await trio.sleep(upkeep.ALIVE_S + 1)
    assert touched


async def test_series_of_checks_that_are_no_more_end_and_the_engines_own_do_not(autojump_clock):
    ended = []

    class Window:
        def checks(self):
            return ["web", "gone", ENGINE_CHECK, EVENTS_CHECK, SUMMARIES_CHECK]

        def end_check(self, name, at_ms):
            ended.append(name)
            return SimpleNamespace(rows=(name,))

    put = []
    upkeep.end_gone_checks(
        SimpleNamespace(
            world=SimpleNamespace(clock=SteppingClock()),
            checks={"web": None},
            window=Window(),
            store=SimpleNamespace(put=put.append),
        )
    )
    assert (ended, put) == (["gone"], [("gone",)])


def series(metric, at_ms, value, check="web"):
    return Series(metric, labels_of({"check": check})), at_ms, value, "sixfbd"


@pytest.mark.parametrize(("age_s", "overdue_since"), [(299.0, None), (300.0, 700.0)])
def test_what_was_overdue_before_the_gap_is_overdue_after_it_and_nothing_else_is(age_s, overdue_since):
    at_ms = int((700.0 + age_s) * 1000)
    told = [series(LAST_SEEN, at_ms, 700.0), series(STALE_AFTER, at_ms, 300.0), series(FAILURES, at_ms, 4.0)]
    assert known_before(told) == {CheckName("web"): Before(4, overdue_since)}


def test_of_a_check_of_which_little_is_known_nothing_is_made_up():
    assert known_before([series(FAILURES, 1, 2.0), series("sixfbd_other", 1, 2.0, "x")]) == {
        CheckName("web"): Before(2, None)
    }


def test_a_paused_check_has_counts_and_no_age():
    state = CheckState(CheckName("web"), "p", 60.0, status=Status.HEALTHY, awaited_since=5.0)
    ages = {LAST_SEEN, STALE_AFTER}
    names = {sample.metric for sample in check_samples(state, 300.0)}
    assert ages <= names
    paused = CheckState(CheckName("web"), "p", 60.0, paused=True)
    assert {sample.metric for sample in check_samples(paused, 300.0)} == names - ages


def test_the_daemons_own_series_are_stale_before_the_first_report_and_when_the_last_is_old():
    vitals = Vitals()
    assert vitals.are_stale(1_800_000_000.0)
    vitals.reported_at = 1_800_000_000.0
    assert not vitals.are_stale(1_800_000_000.0 + SUMMARY_STALE_S)
    assert vitals.are_stale(1_800_000_001.0 + SUMMARY_STALE_S)


def test_the_daemons_own_series_are_unknown_to_who_judges_by_what_was_seen_before_their_report():
    vitals = Vitals()
    vitals.reported(1_800_000_010.0)
    vitals.reported(1_800_000_015.0)
    assert vitals.are_unknown(1_800_000_016.0, 1_800_000_009.0)
    assert not vitals.are_unknown(1_800_000_016.0, 1_800_000_010.0)


def test_the_longest_delay_of_the_loop_is_told_once():
    delays = iter((0.5, 0.0))
    vitals = Vitals(lambda: next(delays))
    first = {sample.metric: sample.value for sample in vitals.samples("127.0.0.1:9632", 1.0)}
    assert first["sixfbd_loop_delay_seconds"] == vitals.loop_delay_s == 0.5
    assert first["sixfbd_resident_memory_bytes"] > 1_000_000 and first["sixfbd_open_files"] > 0
    again = {sample.metric: sample.value for sample in vitals.samples("127.0.0.1:9632", 1.0)}
    assert again["sixfbd_loop_delay_seconds"] == 0.0


async def test_garbage_is_collected_again_once_the_start_is_over(autojump_clock):
    class Cycle:
        pass

    gc.disable()  # as `sixfbd run` does
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(upkeep.collect_garbage)
            await trio.sleep(1)
            assert gc.isenabled()
            cycle = Cycle()
            cycle.itself = cycle
            left = weakref.ref(cycle)
            del cycle
            await trio.sleep(upkeep.COLLECT_S)
            assert left() is None
            nursery.cancel_scope.cancel()
    finally:
        gc.enable()


async def test_garbage_of_the_start_is_collected_within_the_hour(autojump_clock):
    class Cycle:
        pass

    cycle = Cycle()
    cycle.itself = cycle
    left = weakref.ref(cycle)
    del cycle
    async with trio.open_nursery() as nursery:
        nursery.start_soon(upkeep.collect_garbage)
        await trio.sleep(upkeep.COLLECT_S * (upkeep.COLLECTIONS + 1))
        assert left() is None
        nursery.cancel_scope.cancel()
