"""500 rules over 10,000 series in one process: one value changes until the judge has published what that means.

The window, the bound rules, the rule engine and the judge are those of the daemon, over real files; there are no checks, no
HTTP and no other load. The series come of 100 checks of 100 each, the design point's; a rule reads 20 of them. From the
call of `intake.report` until the judge publishes, the decision being on the disk. All rules are evaluated every 15 s besides.
Beside it as many commits of one row by bare SQLite, as durable and with the same pauses: what the disk takes of it.
"""

import random
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from sixfbd.alerting.inputs import Answer, Deliver, Lookup
from sixfbd.alerting.policy import NotifierPolicy, Policy
from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config.tables import DEFAULT_SEVERITIES, Channel, RouteTable
from sixfbd.daemon import SWITCH_S
from sixfbd.intake import Declared, Intake
from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.records import AlertChanged, Record
from sixfbd.journal.samples import open_samples
from sixfbd.judge import Judge
from sixfbd.model import CheckName, MetricKind, Receipt, Report, Rule, RuleName, Sample, Severity, Status, labels_of
from sixfbd.rules import bind_rules, level_of, render_annotations
from sixfbd.rules.engine import RuleEngine
from sixfbd.window.window import Window
from sixfbd.world import RealWorld
from tests.bench.alerts import latencies
from tests.bench.journal import bare_rows, connect_bare, write_bare
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, row, take_turns

CHECKS: Final = 100
SERIES_A_CHECK: Final = 100
RULES_A_CHECK: Final = 5
PAUSE_S: Final = 0.07  # rules are judged at most every 50 ms
SETTLE_S: Final = 1.0
DECIDED_S: Final = 10.0
STALE_AFTER_S: Final = 3600.0
HIGH: Final = 200.0
SEED: Final = 13
PASSES: Final = 3
BARE: Final = "bare SQLite FULL, a commit"


def rules(checks: int) -> list[Rule]:
    return [
        Rule(
            name=RuleName(f"Bench{check}Group{group}"),
            expr=f'bench_value{{check="c{check}", group="{group}"}} > 100',
            severity=Severity.CRITICAL,
            annotations={"summary": "{{ $labels.id }} is {{ $value }}"},
        )
        for check in range(checks)
        for group in range(RULES_A_CHECK)
    ]


class Engine:
    """The parts from the door to the judge, and what was published last."""

    def __init__(self, intake: Intake, judge: Judge, evaluator: RuleEngine, checks: int) -> None:
        self._intake = intake
        self._evaluator = evaluator
        self.checks = checks
        self.decided = trio.Event()
        self.decided_at = 0.0
        self._values = [[float(number % 50) for number in range(SERIES_A_CHECK)] for _ in range(checks)]
        judge.listen(self._published)

    def _published(self, records: Sequence[Record]) -> None:
        if any(isinstance(record, AlertChanged) for record in records):
            self.decided_at = time.perf_counter()
            self.decided.set()

    async def fill(self) -> None:
        """Report everything a few times, and let every rule be evaluated."""
        for _ in range(3):
            for check in range(self.checks):
                await self.report(check)
        await self._evaluator.evaluate_all()

    async def report(self, check: int) -> None:
        samples = tuple(
            Sample(
                "bench_value",
                value,
                labels_of({"group": str(number % RULES_A_CHECK), "id": str(number)}),
                MetricKind.GAUGE,
            )
            for number, value in enumerate(self._values[check])
        )
        report = Report(Status.HEALTHY, "", samples)
        self.decided = trio.Event()
        self.began_at = time.perf_counter()
        await self._intake.report(CheckName(f"c{check}"), report)

    async def change(self, check: int, number: int, value: float) -> float:
        """Report one other value; return the seconds until it was decided what that means."""
        self._values[check][number] = value
        await self.report(check)
        with trio.move_on_after(DECIDED_S):
            await self.decided.wait()
            return self.decided_at - self.began_at
        raise BenchError(f"check c{check}: nothing was decided within {DECIDED_S:g} s of a change")


@asynccontextmanager
async def engine(directory: Path, checks: int) -> AsyncIterator[Engine]:
    """Open the parts as the daemon does; messages are claimed and taken at once."""
    bound = bind_rules(rules(checks))
    if bound.errors:
        raise BenchError(f"the rules cannot be bound: {bound.errors[0]}")
    policy = Policy(
        rules={name: each.rule for name, each in bound.rules.items()},
        level_of=lambda rule, value, current: level_of(bound.rule(rule.name), value, current),
        annotate=lambda rule, found: render_annotations(bound.rule(rule.name), dict(found.labels), found.value, ""),
        routing=Routing(
            compile_route(RouteTable(receiver="primary")),
            {"primary": {"webhook": Channel(via="hook")}},
            DEFAULT_SEVERITIES,
        ),
        notifiers={"hook": NotifierPolicy(name="hook")},
        rng=lambda *key: random.Random("/".join(key)),
    )
    window = Window()
    async with RealWorld() as world, JournalDatabase(directory / "journal.db") as journal:
        async with open_samples(directory / "samples.db", window) as store:
            judge = Judge(journal, world.clock, policy)
            evaluator = RuleEngine(
                bound,
                snapshot_of=window.snapshot,
                clock=world.clock,
                emit=judge.submit,
                blind_checks=lambda rule, names, at: (),
                offload=world.offload,
                interval_s=15.0,
            )
            intake = Intake(
                journal, window, world.clock, persist=store.put, touch=evaluator.touch, committed=lambda events: None
            )
            for check in range(checks):
                intake.declare_check(CheckName(f"c{check}"), Declared(None, {}, 1000, STALE_AFTER_S))
            window.bind(bound.touched)

            def deliver(effect: Deliver | Lookup) -> None:
                judge.submit(Answer(world.clock.now(), effect.message.id, Receipt(), isinstance(effect, Lookup)))

            async with judge.running("bench", "bench"), trio.open_nursery() as nursery:
                judge.attach(deliver)
                await nursery.start(evaluator.run)
                yield Engine(intake, judge, evaluator, checks)
                nursery.cancel_scope.cancel()


async def times_to_decide(directory: Path, checks: int, many: int) -> list[float]:
    chance = random.Random(SEED)
    async with engine(directory, checks) as running:
        await running.fill()
        await trio.sleep(SETTLE_S)
        taken = []
        for _ in range(many // 2):
            check, number = chance.randrange(checks), chance.randrange(SERIES_A_CHECK)
            for value in (HIGH, 0.0):
                taken.append(1000 * await running.change(check, number, value))
                await trio.sleep(PAUSE_S)
        return taken


def times_to_commit(path: Path, many: int) -> list[float]:
    connection = connect_bare(path)
    try:
        taken = []
        for ready in bare_rows(many):
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            write_bare(connection, [ready])
            taken.append(1000 * (time.perf_counter() - began))
        return taken
    finally:
        connection.close()


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of a decision."""
    checks, many = effort.pick((CHECKS, 200), (5, 4))
    passes = iter(range(sys.maxsize))

    def new_place() -> Path:
        place = directory / str(next(passes))
        place.mkdir()
        return place

    def measure() -> Mapping[str, float]:
        place = new_place()
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            taken = trio.run(times_to_decide, place, checks, many)
        finally:
            sys.setswitchinterval(interval_s)
        return latencies(taken)

    sides: dict[str, Side] = {
        "sixfbd": measure,
        BARE: lambda: latencies(times_to_commit(new_place() / "bare.db", many)),
    }
    measured = take_turns(sides, effort.at_most(PASSES))
    what = f"{checks * RULES_A_CHECK} rules, {checks * SERIES_A_CHECK:,} series, 1 value changed → decided"
    return [
        row(f"{what}, p99", "ms", measured, "p99", "sixfbd", BARE, Goal(5, absolute=True)),
        row(f"{what}, p50", "ms", measured, "p50", "sixfbd", BARE),
    ]
