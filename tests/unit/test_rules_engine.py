"""When rules are evaluated: on change, on tick, inline or in the thread."""

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from sixfbd.model import CheckName, Evaluated, Rule, RuleName, Series, Severity
from sixfbd.rules import BoundRules, RuleEngine, bind_rules
from sixfbd.world import EngineClock

Make = Callable[..., Any]
START = 1_000_003.0  # three seconds after a tick of 15 s would be 1,000,005


async def inline(fn: Callable[[], Evaluated]) -> Evaluated:
    await trio.lowlevel.checkpoint()
    return fn()


class Bench:
    """An engine over one snapshot, and what it emitted, with the times since the start."""

    def __init__(
        self, snapshot: Any, *rules: Rule, offload: Any = inline, blind: Iterable[str] = (), **changes: Any
    ) -> None:
        self.clock = EngineClock(START)
        self.snapshot = snapshot
        self.emitted: list[Evaluated] = []
        self.asked_blind: list[frozenset[CheckName]] = []
        self.bound = bind_rules(rules)
        assert not self.bound.errors
        self.blind = set(blind)
        self.engine = RuleEngine(
            self.bound,
            snapshot_of=lambda: self.snapshot,
            clock=self.clock,
            emit=self.emitted.append,
            blind_checks=self._blind_of,
            offload=offload,
            interval_s=15.0,
            **changes,
        )

    def _blind_of(self, rule: RuleName, checks: frozenset[CheckName], at: float) -> set[str]:
        self.asked_blind.append(checks)
        return self.blind & checks

    @property
    def times(self) -> list[tuple[str, float]]:
        return [(each.rule, round(each.at - START, 6)) for each in self.emitted]

    def touch(self, *names: str) -> None:
        self.engine.touch(frozenset(RuleName(name) for name in names))


def rule(name: str, expr: str = "a > 0", **changes: Any) -> Rule:
    return Rule(name=RuleName(name), expr=expr, severity=Severity.HIGH, **changes)


async def test_the_first_touch_is_evaluated_at_once_and_the_next_after_50_ms(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(snapshot_of("a 1", start_s=START), rule("A"), rule("B"))
    await nursery.start(bench.engine.run)
    await trio.sleep(1)
    bench.touch("A")
    await trio.sleep(0.01)
    bench.touch("A")
    bench.touch("B", "A")
    await trio.sleep(0.5)
    bench.touch("B")
    await trio.sleep(0.01)
    assert bench.times == [("A", 1.0), ("A", 1.05), ("B", 1.05), ("B", 1.51)]
    nursery.cancel_scope.cancel()


async def test_rules_that_nothing_touches_are_evaluated_on_aligned_ticks(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    slow = rule("Slow", evaluate="interval", interval_s=60.0)
    bench = Bench(snapshot_of(), rule("A"), slow)
    await nursery.start(bench.engine.run)
    await trio.sleep(50)
    assert START % 15 == 13
    assert bench.times == [("A", 2.0), ("A", 17.0), ("Slow", 17.0), ("A", 32.0), ("A", 47.0)]
    nursery.cancel_scope.cancel()


async def test_a_rule_on_interval_is_not_evaluated_by_touch(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(snapshot_of(), rule("Slow", evaluate="interval", interval_s=60.0), rule("A"))
    await nursery.start(bench.engine.run)
    bench.touch("Slow", "Unknown")
    await trio.sleep(1)
    assert bench.times == []
    nursery.cancel_scope.cancel()


async def test_touched_rules_are_evaluated_in_the_order_of_the_configuration(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    names = ["Zebra", "Ant", "Mole"]
    bench = Bench(snapshot_of(), *map(rule, names))
    await nursery.start(bench.engine.run)
    bench.touch("Ant", "Mole", "Zebra")
    await trio.sleep(1)
    assert [each.rule for each in bench.emitted] == names
    nursery.cancel_scope.cancel()


async def test_evaluate_all_emits_every_rule_once_and_returns_when_it_has(snapshot_of: Make) -> None:
    bench = Bench(snapshot_of("a 1", start_s=START), rule("A"), rule("B", "a > 5"), rule("I", evaluate="interval"))
    await bench.engine.evaluate_all()
    assert [(each.rule, len(each.found)) for each in bench.emitted] == [("A", 1), ("B", 0), ("I", 1)]
    assert bench.engine.evaluations == 3


async def test_what_a_rule_reads_decides_which_checks_are_asked_for_being_blind(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1", start_s=START, check="door")
    bench = Bench(
        snapshot, rule("A", 'a > 0 or b{check="named"} > 0'), rule("C", "c > 0"), blind=["window", "door", "attic"]
    )
    bench.bound.touched(Series("a", (("check", "window"),)))
    await bench.engine.evaluate_all()
    assert bench.asked_blind == [{"door", "named", "window"}, frozenset()]
    assert [each.blind_checks for each in bench.emitted] == [("door", "window"), ()]


async def test_a_rule_that_fails_is_named_counted_logged_once_and_emitted_as_error(
    snapshot_of: Make,
) -> None:
    snapshot = snapshot_of('a{x="1"} 1\na{x="2"} 1\nb 1', start_s=START)
    bench = Bench(snapshot, rule("Bad", "b * on () a"), rule("Good", "b > 0"))
    with capture_logs() as logged:
        await bench.engine.evaluate_all()
        await bench.engine.evaluate_all()
        bench.snapshot = snapshot_of('a{x="1"} 1\nb 1', start_s=START)
        await bench.engine.evaluate_all()
    assert bench.engine.failures == {"Bad": 2}
    assert bench.engine.errors == {}
    assert [each.error is None for each in bench.emitted] == [False, True, False, True, True, True]
    assert [(line["event"], line["rule"]) for line in logged] == [("rule.failed", "Bad"), ("rule.recovered", "Bad")]


async def test_a_rule_whose_cost_cannot_be_told_fails_alone(snapshot_of: Make) -> None:
    snapshot = snapshot_of("b 1", start_s=START)

    class HalfBroken:
        select, loaded = snapshot.select, snapshot.loaded

        def points(self, matchers: Any, lo_ms: int, hi_ms: int) -> int:
            if matchers[0].value == "a":
                raise OSError("no index")
            return int(snapshot.points(matchers, lo_ms, hi_ms))

        def look_back_ms(self, matchers: Any) -> int:
            return int(snapshot.look_back_ms(matchers))

    bench = Bench(HalfBroken(), rule("Bad", "a > 0"), rule("Good", "b > 0"))
    await bench.engine.evaluate_all()
    assert [each.error for each in bench.emitted] == ["OSError: no index", None]


async def test_replaced_rules_are_evaluated_at_once_and_the_old_ones_no_more(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(snapshot_of(), rule("Old"), rule("Kept"))
    await nursery.start(bench.engine.run)
    bench.touch("Old")
    await trio.sleep(0.5)
    bench.engine.replace(bind_rules([rule("Kept"), rule("New"), rule("I", evaluate="interval", interval_s=5.0)]), 15.0)
    await trio.sleep(0.5)
    bench.touch("Old", "New")
    await trio.sleep(0.5)
    assert bench.times == [("Old", 0.0), ("Kept", 0.5), ("New", 0.5), ("New", 1.0)]
    await trio.sleep(1)
    assert bench.times[4:] == [("Kept", 2.0), ("New", 2.0), ("I", 2.0)]
    nursery.cancel_scope.cancel()


async def test_another_tick_holds_from_the_replacement_on(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(snapshot_of(), rule("A"))
    await nursery.start(bench.engine.run)
    await trio.sleep(1)
    bench.engine.replace(bind_rules([rule("A")]), 3.0)
    await trio.sleep(8)
    assert bench.times == [("A", 1.0), ("A", 2.0), ("A", 5.0), ("A", 8.0)]
    nursery.cancel_scope.cancel()


# ---- the thread


class Gate:
    """An offload that shows what is in the thread, and waits to be opened."""

    def __init__(self) -> None:
        self.waiting = 0
        self.most = 0
        self._open = trio.Event()

    async def __call__(self, fn: Callable[[], Evaluated]) -> Evaluated:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await self._open.wait()
        self.waiting -= 1
        return fn()

    def open(self) -> None:
        self._open.set()


async def test_large_or_unloaded_rules_go_to_the_one_thread_and_hold_up_no_others(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    wide = "\n".join(f'wide{{x="{i}"}} 1' for i in range(2100))
    snapshot = snapshot_of(wide + "\na 1", start_s=START)
    gate = Gate()
    bench = Bench(
        snapshot, rule("Large", "sum(wide) > 0"), rule("Large2", "count(wide) > 0"), rule("Small"), offload=gate
    )
    await nursery.start(bench.engine.run)
    bench.touch("Large", "Large2", "Small")
    await trio.sleep(1)
    assert [each.rule for each in bench.emitted] == ["Small"]
    gate.open()
    await trio.sleep(0.5)
    assert {each.rule for each in bench.emitted[1:]} == {"Large", "Large2"}
    assert gate.most == 1
    snapshot.on_disk = True
    bench.touch("Small")
    await trio.sleep(0.5)
    assert [each.rule for each in bench.emitted][3:] == ["Small"]
    assert gate.waiting == 0
    nursery.cancel_scope.cancel()


async def test_a_rule_touched_while_it_is_in_the_thread_is_evaluated_again_afterwards(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    snapshot = snapshot_of("a 1", start_s=START)
    snapshot.on_disk = True
    gate = Gate()
    bench = Bench(snapshot, rule("A"), offload=gate)
    await nursery.start(bench.engine.run)
    bench.touch("A")
    await trio.sleep(0.2)
    bench.touch("A")
    await trio.sleep(0.2)
    bench.touch("A")
    await trio.sleep(0.2)
    assert (gate.waiting, bench.times) == (1, [])
    gate.open()
    await trio.sleep(0.5)
    assert bench.times == [("A", 0.0), ("A", 0.6)]
    nursery.cancel_scope.cancel()


async def test_what_the_thread_still_computes_for_replaced_rules_is_dropped(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    snapshot = snapshot_of("a 1", start_s=START)
    snapshot.on_disk = True
    gate = Gate()
    bench = Bench(snapshot, rule("A"), rule("B"), offload=gate)
    await nursery.start(bench.engine.run)
    bench.touch("A", "B")
    await trio.sleep(0.2)
    bench.engine.replace(bind_rules([rule("A", "a > 10")]), 15.0)
    await trio.sleep(0.2)
    gate.open()
    await trio.sleep(0.5)
    assert [(each.rule, each.found) for each in bench.emitted] == [("A", ())]
    nursery.cancel_scope.cancel()


async def test_a_rule_that_exceeds_its_deadline_is_named_and_emitted_as_error(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1", start_s=START)
    bench = Bench(snapshot, rule("A"), deadline_s=-1.0)
    await bench.engine.evaluate_all()
    assert bench.engine.failures == {"A": 1}
    assert bench.emitted[0].error == "the evaluation took longer than it may"


async def test_a_cancel_ends_what_runs_in_a_real_thread_at_its_next_node(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1", start_s=START)
    entered, released = trio.Event(), threading.Event()

    class Slow:
        """Its first select tells that it is there and blocks its thread until it is released."""

        points, look_back_ms = snapshot.points, snapshot.look_back_ms

        def loaded(self, *span: object) -> bool:
            return False

        def select(self, *span: Any) -> Any:
            trio.from_thread.run_sync(entered.set)
            released.wait(10)
            return snapshot.select(*span)

    bench = Bench(Slow(), rule("A", "a + a offset 1s > 0"), offload=trio.to_thread.run_sync)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(bench.engine.run)
            bench.touch("A")
            await entered.wait()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            released.set()
    assert snapshot.selects == 1
    assert (bench.emitted, bench.engine.failures) == ([], {})


def test_touching_nothing_is_cheap_and_harmless(snapshot_of: Make) -> None:
    async def main() -> None:
        bench = Bench(snapshot_of(), rule("A"))
        bench.touch()
        bench.touch("Unknown")
        with trio.move_on_after(0.01):
            await bench.engine.run()
        assert bench.emitted == [] or math.isclose(bench.emitted[0].at % 15, 0)

    trio.run(main)


def test_an_engine_without_rules_waits(snapshot_of: Make) -> None:
    async def main() -> None:
        bench = Bench(snapshot_of())
        assert isinstance(bench.bound, BoundRules)
        with trio.move_on_after(0.01) as scope:
            await bench.engine.run()
        assert scope.cancelled_caught

    trio.run(main)


async def test_a_round_of_many_rules_lets_other_tasks_have_their_turn(snapshot_of: Make) -> None:
    count = 300
    bench = Bench(snapshot_of("a 1", start_s=START), *(rule(f"R{i}") for i in range(count)))
    turns = []

    async def other() -> None:
        while len(bench.emitted) < count:
            turns.append(len(bench.emitted))
            await trio.lowlevel.checkpoint()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            nursery.start_soon(bench.engine.evaluate_all)
    assert len({seen for seen in turns if 0 < seen < count}) >= 2


async def test_a_rule_whose_check_is_awaited_says_nothing_until_a_report_is_taken(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    awaited: set[CheckName] = set()
    bench = Bench(snapshot_of("a 1", start_s=START), rule("A"), awaits=lambda checks, at: bool(awaited & checks))
    bench.bound.touched(Series("a", (("check", "test"),)))
    await nursery.start(bench.engine.run)
    await trio.sleep(3)
    awaited.add(CheckName("test"))
    bench.touch("A")
    await trio.sleep(20)
    assert bench.times == [("A", 2.0)], "neither on change nor on a tick"
    awaited.clear()
    bench.engine.look_again(CheckName("test"))
    await trio.sleep(1)
    assert bench.times == [("A", 2.0), ("A", 23.0)]
    bench.engine.look_again(CheckName("test"))
    await trio.sleep(1)
    assert len(bench.times) == 2
    nursery.cancel_scope.cancel()


async def test_a_rule_that_was_blind_is_evaluated_when_the_check_reports_though_nothing_changed(
    snapshot_of: Make, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    bench = Bench(snapshot_of("a 1", start_s=START), rule("A"), blind={"test"})
    bench.bound.touched(Series("a", (("check", "test"),)))
    await nursery.start(bench.engine.run)
    bench.touch("A")
    await trio.sleep(0.25)
    bench.blind.clear()
    bench.engine.look_again(CheckName("other"))
    await trio.sleep(0.25)
    assert len(bench.emitted) == 1
    for _ in range(2):
        bench.engine.look_again(CheckName("test"))
        await trio.sleep(0.25)
        assert [one.blind_checks for one in bench.emitted] == [("test",), ()]
    nursery.cancel_scope.cancel()


async def test_a_report_that_is_taken_after_the_snapshot_of_a_round_ends_no_blindness_in_it(
    snapshot_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was so: after a stand-still an alert resolved, since its check had reported between the snapshot and its turn."""
    monkeypatch.setattr("sixfbd.rules.engine.INLINE_SLICE_S", 0.0)  # a turn after each rule
    asked: list[float] = []

    def awaits(checks: frozenset[CheckName], at: float) -> bool:
        asked.append(at)
        return False

    bench = Bench(snapshot_of("a 1", start_s=START), *(rule(f"R{number}") for number in range(5)), awaits=awaits)
    await bench.engine.evaluate_all()
    assert asked == [each.at for each in bench.emitted] and len(set(asked)) == 1, "all as of the snapshot's time"


async def test_a_rule_that_is_touched_within_a_large_round_goes_before_the_rest_of_it(
    snapshot_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sixfbd.rules.engine.INLINE_SLICE_S", 0.0)  # a turn after each rule
    names = [f"R{number}" for number in range(50)]
    bench = Bench(snapshot_of("a 1", start_s=START), *(rule(name) for name in names))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.engine.evaluate_all)
        with trio.fail_after(5):
            while len(bench.emitted) < 5:
                await trio.lowlevel.checkpoint()
        bench.touch("R40", "R2")
    order = [each.rule for each in bench.emitted]
    begun = order.index("R40")
    assert order[begun - 1] == "R2", "again, in the order of the configuration"
    assert begun < 15
    assert sorted(order) == sorted([*names, "R2"])


async def test_every_rule_has_its_turn_and_its_tick_while_all_are_touched_again_and_again(
    snapshot_of: Make, mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    monkeypatch.setattr("sixfbd.rules.engine.INLINE_SLICE_S", 0.0)  # a turn after each rule
    names = [f"R{number}" for number in range(50)]
    slow = rule("Slow", evaluate="interval", interval_s=1.0)
    bench = Bench(snapshot_of("a 1", start_s=START), *map(rule, names), slow)
    await nursery.start(bench.engine.run)
    for _ in range(1000):
        mock_clock.jump(0.01)  # each takes so long that a round takes ten times as long as changes keep apart
        bench.touch(*names)
        await trio.lowlevel.checkpoint()
    evaluated = Counter(each.rule for each in bench.emitted)
    assert set(evaluated) == {*names, "Slow"}
    assert min(evaluated.values()) > 1
    nursery.cancel_scope.cancel()
