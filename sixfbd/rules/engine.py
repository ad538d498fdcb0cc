"""When rules are evaluated, and where: on change, on tick, inline or in a thread. Owns the touched set and one task.

Emits one Evaluated per evaluation, in time order per rule. Decides nothing about alerts.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, Protocol

import msgspec
import structlog
import trio

from sixfbd.model import CheckName, Evaluated, RuleName
from sixfbd.promql import Stop, cost, loaded
from sixfbd.rules.bind import BoundRule, BoundRules
from sixfbd.rules.evaluate import at_ms, evaluate_rule
from sixfbd.window.snapshot import Snapshot
from sixfbd.world import Clock

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

CHANGE_INTERVAL_S: Final = 0.05  # rounds caused by changes are at least this far apart
INLINE_COST: Final = 2000  # points; a rule above is evaluated in the thread
INLINE_SLICE_S: Final = 0.001  # of the event loop's time, then others have their turn
DEADLINE_S: Final = 5.0


class Offload(Protocol):
    """World.offload: runs a blocking function in a worker thread (a simulation: at once)."""

    def __call__(self, fn: Callable[[], Evaluated], /) -> Awaitable[Evaluated]: ...


class RuleEngine:
    """Evaluates bound rules. `run` is the one task; all methods belong to the event loop's thread.

    `snapshot_of` gives the latest snapshot, `emit` takes a result (must not block), `blind_checks` returns which of the
    checks that feed a rule are not reporting now: of those given, and of those that fed its alerts. `awaits` tells whether
    a report of one of the checks is still to come after a stand-still: until then a rule that they feed says nothing, for
    only time would speak; `look_again` evaluates those that it held, and those that a check left blind. `failures` counts
    failed evaluations per rule, `errors` holds the last text of the rules that fail now.
    """

    def __init__(
        self,
        bound: BoundRules,
        *,
        snapshot_of: Callable[[], Snapshot],
        clock: Clock,
        emit: Callable[[Evaluated], None],
        blind_checks: Callable[[RuleName, frozenset[CheckName], float], Iterable[str]],
        offload: Offload,
        interval_s: float,
        awaits: Callable[[frozenset[CheckName], float], bool] = lambda checks, at: False,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._bound = bound
        self._snapshot_of = snapshot_of
        self._clock = clock
        self._emit = emit
        self._blind_checks = blind_checks
        self._offload = offload
        self._awaits = awaits
        self._interval_s = interval_s
        self._deadline_s = deadline_s
        self._thread = trio.CapacityLimiter(1)
        self._wake = trio.Event()
        self._touched: set[RuleName] = set()
        self._in_flight: dict[RuleName, Stop] = {}
        self._unseen: set[RuleName] = set()  # due while a check that feeds them was awaited
        self._blinded: dict[CheckName, set[RuleName]] = {}  # evaluated while it was blind
        self._again: set[RuleName] = set()  # due while in flight: touched once the thread has answered
        self._not_before = 0.0
        self._ticks: dict[float, float] = {}
        self._places: dict[RuleName, int] = {}  # of the rules in the configuration
        self.failures: dict[RuleName, int] = {}
        self.errors: dict[RuleName, str] = {}
        self.evaluations = 0
        self._plan()

    # ---- from outside

    @property
    def rules(self) -> BoundRules:
        """The rules in force."""
        return self._bound

    def touch(self, rules: frozenset[RuleName]) -> None:
        """Have rules evaluated because what they read has changed. Rules with `evaluate = "interval"` wait for their tick."""
        if not rules:
            return
        known = self._bound.rules
        before = len(self._touched)
        self._touched.update(name for name in rules if name in known and known[name].rule.evaluate == "change")
        if not before and self._touched:
            self._wake.set()

    def replace(self, bound: BoundRules, interval_s: float) -> None:
        """Take other rules and another tick from now on, all rules touched. What the old ones still compute is dropped."""
        for stop in self._in_flight.values():
            stop.cancel("the rules were replaced")
        self._bound = bound
        self._interval_s = interval_s
        self._in_flight = {}
        self._again = set()
        self._blinded = {}
        self._touched = {name for name, each in bound.rules.items() if each.rule.evaluate == "change"}
        self.failures = {name: count for name, count in self.failures.items() if name in bound.rules}
        self.errors = {}
        self._plan()
        self._wake.set()

    def look_again(self, check: CheckName) -> None:
        """A report of a check has been taken: have the rules evaluated that awaited one, or were blind for want of it.

        What it says may be what was known before, so that nothing has changed; but it is known now.
        """
        again = self._unseen | self._blinded.pop(check, set())
        self._unseen = set()
        self.touch(frozenset(again))

    async def evaluate_all(self) -> None:
        """Evaluate every rule once, now; return when all results are emitted."""
        async with trio.open_nursery() as nursery:
            await self._round(self._bound.names, nursery)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Evaluate until cancelled. A cancel ends evaluations in the thread at their next node."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_thread_at_end)
            task_status.started()
            while True:
                await self._until_due()
                await self._round(self._take_due(), nursery)

    # ---- time

    def _plan(self) -> None:
        now = self._clock.now()
        self._places = {name: place for place, name in enumerate(self._bound.rules)}
        intervals = {self._interval_of(each) for each in self._bound.rules.values()}
        self._ticks = {interval: _next_tick(now, interval) for interval in intervals}

    def _interval_of(self, bound: BoundRule) -> float:
        return bound.rule.interval_s if bound.rule.evaluate == "interval" else self._interval_s

    async def _until_due(self) -> None:
        """Return when a tick is due, or a touched rule is and the last round on change is long enough ago."""
        while True:
            self._wake = trio.Event()
            due_at = min(self._ticks.values(), default=float("inf"))
            if self._touched:
                due_at = min(due_at, self._not_before)
            wait_s = due_at - self._clock.now()
            if wait_s <= 0:
                return
            with trio.move_on_after(wait_s):
                await self._wake.wait()

    def _take_due(self) -> list[RuleName]:
        """Return the rules to evaluate now, in the order of the configuration."""
        touched = self._take_touched()
        now = self._clock.now()
        ticked = {interval for interval, at in self._ticks.items() if at <= now}
        if not ticked:
            return touched
        self._ticks.update({interval: _next_tick(now, interval) for interval in ticked})
        due = set(touched)
        return [name for name, each in self._bound.rules.items() if name in due or self._interval_of(each) in ticked]

    def _take_touched(self) -> list[RuleName]:
        """Return the touched rules in the order of the configuration, none if the last round on change was just now."""
        now = self._clock.now()
        if not self._touched or now < self._not_before:
            return []
        touched, self._touched = self._touched, set()
        self._not_before = now + CHANGE_INTERVAL_S
        return sorted(touched, key=self._places.__getitem__)

    # ---- work

    async def _round(self, names: Iterable[RuleName], nursery: trio.Nursery) -> None:
        """Evaluate rules: small ones here, large ones in the thread, which this does not wait for.

        A rule that is touched meanwhile goes first: what changes does not wait for the rest of a tick. But once in a round
        only, or the last ones would never have their turn where more changes than can be evaluated.
        """
        bound, waiting = self._bound, dict.fromkeys(names)
        now = self._clock.now()  # the time first: after a stand-still it brings news of its own
        snapshot = self._snapshot_of()
        went_first: set[RuleName] = set()
        slice_ends = time.monotonic() + INLINE_SLICE_S
        while waiting:
            name = next(iter(waiting))
            del waiting[name]
            if name in self._in_flight:
                self._again.add(name)
                continue
            if self._awaits(bound.checks_of(name), now):
                self._unseen.add(name)
                continue
            self._start(bound, name, snapshot, now, nursery)
            if time.monotonic() >= slice_ends:
                await trio.lowlevel.checkpoint()
                if self._bound is not bound:  # replaced while others had their turn
                    return
                if urgent := self._take_touched():
                    waiting = dict.fromkeys([*(one for one in urgent if one not in went_first), *waiting])
                    self._touched.update(one for one in urgent if one not in waiting)  # for the next round
                    went_first.update(urgent)
                    now = self._clock.now()
                    snapshot = self._snapshot_of()
                slice_ends = time.monotonic() + INLINE_SLICE_S
        await trio.lowlevel.checkpoint()

    def _start(self, bound: BoundRules, name: RuleName, snapshot: Snapshot, now: float, nursery: trio.Nursery) -> None:
        rule = bound.rule(name)
        try:
            inline = _is_small(rule, snapshot, now)
        except Exception as error:  # noqa: BLE001 - a rule whose cost cannot be told fails alone
            self._finish(bound, Evaluated(name, now, error=f"{type(error).__name__}: {error}"))
            return
        if inline:
            self._finish(bound, evaluate_rule(rule, snapshot, now, Stop.within(self._deadline_s)))
            return
        self._in_flight[name] = Stop()
        nursery.start_soon(self._in_thread, bound, rule, snapshot, now)

    async def _in_thread(self, bound: BoundRules, rule: BoundRule, snapshot: Snapshot, now: float) -> None:
        try:
            async with self._thread:
                if self._bound is not bound:
                    return
                stop = self._in_flight[rule.name] = Stop.within(self._deadline_s)
                evaluated = await self._offload(partial(evaluate_rule, rule, snapshot, now, stop))
        finally:
            if self._bound is bound:
                self._in_flight.pop(rule.name, None)
        if stop.cancelled:  # by us: nothing is known of the rule, and it did not fail
            return
        self._finish(bound, evaluated)
        if rule.name in self._again:
            self._again.discard(rule.name)
            self._touched.add(rule.name)
            self._wake.set()

    async def _stop_thread_at_end(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            for stop in self._in_flight.values():
                stop.cancel("the daemon stops")

    def _finish(self, bound: BoundRules, evaluated: Evaluated) -> None:
        """Emit a result unless its rules are no longer in force. One in flight per rule keeps results in time order."""
        name = evaluated.rule
        if self._bound is not bound:
            return
        self.evaluations += 1
        self._count_failure(name, evaluated.error)
        checks = bound.checks_of(name) | {CheckName(check) for found in evaluated.found for check in found.checks}
        blind = tuple(sorted(self._blind_checks(name, frozenset(checks), evaluated.at)))
        for check in blind:
            self._blinded.setdefault(CheckName(check), set()).add(name)
        self._emit(msgspec.structs.replace(evaluated, blind_checks=blind) if blind else evaluated)

    def _count_failure(self, name: RuleName, error: str | None) -> None:
        if error is None:
            if self.errors.pop(name, None) is not None:
                log.info("rule.recovered", rule=name)
            return
        self.failures[name] = self.failures.get(name, 0) + 1
        if self.errors.get(name) != error:
            log.warning("rule.failed", rule=name, error=error, failures=self.failures[name])
        self.errors[name] = error


def _next_tick(now: float, interval: float) -> float:
    """Return the next multiple of `interval` after `now`, so that ticks are the same after a restart."""
    return (now // interval + 1) * interval


def _is_small(bound: BoundRule, snapshot: Snapshot, now: float) -> bool:
    instant = at_ms(now)
    if cost(bound.query, snapshot, instant, instant, 1) > INLINE_COST:
        return False
    return loaded(bound.query, snapshot, instant, instant)
