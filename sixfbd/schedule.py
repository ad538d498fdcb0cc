"""When checks run: one task, a heap of due times, each run a task of its own; no run ever waits for another check.

Owns the state of each check (last run, failures, pauses). Knows nothing of what checks measure; hands reports to intake.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio

from sixfbd.intake import one_line
from sixfbd.journal.errors import JournalError
from sixfbd.model import CheckName, CheckState, Json, MetricKind, Report, Sample, Status, labels_of
from sixfbd.plugin import Check
from sixfbd.world import World

log = structlog.get_logger("sixfbd.schedule")

MAX_PAGES: Final = 50  # runs in a row that `more=True` may ask for
MAX_CURSOR_BYTES: Final = 64 * 1024
START_SPREAD_S: Final = 2.0  # first runs are spread over this long, so that a start is no storm
GRACE_S: Final = 1.0  # what a cancelled run may take to clean up before it is called hung
LEAST_STALE_S: Final = 300.0  # Prometheus' look-back


def stale_after_s(interval_s: float, timeout_s: float) -> float:
    """How long the last sample of a check's series speaks for it (DESIGN section 5, Staleness)."""
    return max(LEAST_STALE_S, 2.5 * interval_s + timeout_s)


class Instance(Protocol):
    """A check made ready to run, or the reason why it could not be made."""

    name: CheckName
    plugin: str
    interval_s: float
    timeout_s: float
    jitter_s: float | None
    service: str | None
    external: str | None
    check: Check[Any] | None
    problem: str


class NotRunError(Exception):
    """A check was not run; the text says why."""


@dataclass(slots=True)
class _Entry:
    instance: Instance
    state: CheckState
    due: float
    generation: int
    scope: trio.CancelScope | None = None
    finished: trio.Event = field(default_factory=trio.Event)
    report: Report | None = None


Deliver = Callable[[CheckName, Report, Sequence[Sample]], Awaitable[list[str]]]


class Schedule:
    """Runs checks on their intervals. `run()` is its one task; the other methods are called from the same loop."""

    def __init__(
        self, world: World, deliver: Deliver, cursor_of: Callable[[CheckName], Awaitable[Json | None]]
    ) -> None:
        self._world = world
        self._deliver = deliver
        self._cursor_of = cursor_of
        self._entries: dict[CheckName, _Entry] = {}
        self._heap: list[tuple[float, int, CheckName]] = []
        self._wake = trio.Event()
        self._generation = 0
        self._nursery: trio.Nursery | None = None

    # ---- what is known -----------------------------------------------------------------------------------------------

    def states(self) -> list[CheckState]:
        """Return every check's state, by name."""
        return [self._entries[name].state for name in sorted(self._entries)]

    def state(self, name: CheckName) -> CheckState | None:
        entry = self._entries.get(name)
        return entry.state if entry else None

    def is_blind(self, name: CheckName) -> bool:
        """Tell whether nothing is known of what the check watches: no report since the start, paused, or `unknown`.

        A check that is not configured is not blind: what it fed may end.
        """
        entry = self._entries.get(name)
        return entry is not None and (
            entry.state.paused or entry.state.last_run_at is None or entry.state.status is Status.UNKNOWN
        )

    # ---- what runs -----------------------------------------------------------------------------------------------------

    def add(self, instance: Instance, *, paused: bool = False) -> None:
        """Start running a check; replaces one of the same name (its state of failures is kept, a run is cancelled)."""
        previous = self._entries.get(instance.name)
        if previous is not None and previous.scope is not None:
            previous.scope.cancel()
        now = self._world.clock.now()
        spread = min(instance.interval_s, START_SPREAD_S) if instance.jitter_s is None else instance.jitter_s
        due = now + self._world.rng("start", instance.name).uniform(0, spread)
        state = CheckState(
            instance.name,
            instance.plugin,
            instance.interval_s,
            service=instance.service,
            external=instance.external,
            paused=paused,
            next_run_at=None if paused else due,
        )
        if instance.check is None:
            state = msgspec.structs.replace(state, summary=one_line(instance.problem), next_run_at=None)
        self._generation += 1
        entry = self._entries[instance.name] = _Entry(instance, state, due, self._generation)
        if instance.check is not None:
            self._push(entry)

    def remove(self, name: CheckName) -> None:
        """Stop running a check; a run in progress is cancelled and its report dropped."""
        entry = self._entries.pop(name)
        if entry.scope is not None:
            entry.scope.cancel()

    def set_paused(self, name: CheckName, paused: bool) -> None:
        """Pause or resume; a run in progress goes on. Resuming runs the check at once."""
        entry = self._entries[name]
        if entry.state.paused == paused:
            return
        entry.due = self._world.clock.now()
        entry.state = msgspec.structs.replace(entry.state, paused=paused, next_run_at=None if paused else entry.due)
        self._generation += 1
        entry.generation = self._generation
        if not paused and entry.instance.check is not None:
            self._push(entry)

    async def run_now(self, name: CheckName) -> Report:
        """Run a check at once, out of turn, and return its report. Raises NotRunError if it is unknown or running."""
        entry = self._entries.get(name)
        if entry is None:
            raise NotRunError(f'there is no check "{name}"; sixfbctl checks lists them')
        if entry.instance.check is None:
            raise NotRunError(f'check "{name}" could not be started: {entry.state.summary}')
        if entry.scope is not None:
            raise NotRunError(f'check "{name}" is running; its result is in sixfbctl checks when it is done')
        if self._nursery is None:
            raise NotRunError("the daemon is starting or stopping")
        self._begin(entry, self._nursery)
        finished = entry.finished
        with trio.move_on_after(entry.instance.timeout_s * MAX_PAGES + GRACE_S):
            await finished.wait()
        if entry.report is None:
            raise NotRunError(f'check "{name}" did not finish')
        return entry.report

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run checks as they fall due until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                while True:
                    await self._sleep_until_due()
                    self._start_due(nursery)
            finally:
                self._nursery = None

    def _push(self, entry: _Entry) -> None:
        heapq.heappush(self._heap, (entry.due, entry.generation, entry.instance.name))
        self._wake.set()

    async def _sleep_until_due(self) -> None:
        self._wake = trio.Event()
        if not self._heap:
            await self._wake.wait()
            return
        due = self._heap[0][0]
        with trio.move_on_after(max(0.0, due - self._world.clock.now())):
            await self._wake.wait()

    def _start_due(self, nursery: trio.Nursery) -> None:
        now = self._world.clock.now()
        while self._heap and self._heap[0][0] <= now:
            _, generation, name = heapq.heappop(self._heap)
            entry = self._entries.get(name)
            if entry is None or entry.generation != generation or entry.state.paused:
                continue
            interval = entry.instance.interval_s
            missed = math.floor((now - entry.due) / interval)  # whole intervals slept through are not run after
            late = missed + (1 if entry.scope is not None else 0)
            entry.due += interval * (missed + 1)
            entry.state = msgspec.structs.replace(
                entry.state, next_run_at=entry.due, late_runs=entry.state.late_runs + late
            )
            self._push(entry)
            if entry.scope is None:
                self._begin(entry, nursery)
            else:
                log.warning("check.late", check=name, late_runs=entry.state.late_runs)

    def _begin(self, entry: _Entry, nursery: trio.Nursery) -> None:
        entry.scope = trio.CancelScope()
        entry.finished = trio.Event()
        entry.report = None
        entry.state = msgspec.structs.replace(entry.state, running=True)
        nursery.start_soon(self._run_entry, entry, name=f"check {entry.instance.name}")

    # ---- one run -------------------------------------------------------------------------------------------------------

    async def _run_entry(self, entry: _Entry) -> None:
        assert entry.scope is not None
        try:
            with entry.scope, structlog.contextvars.bound_contextvars(check=str(entry.instance.name)):
                for _ in range(MAX_PAGES):
                    entry.report = await self._run_page(entry)
                    if not entry.report.more:
                        break
        finally:
            entry.scope = None
            entry.state = msgspec.structs.replace(entry.state, running=False)
            entry.finished.set()

    async def _run_page(self, entry: _Entry) -> Report:
        started_at = self._world.clock.now()
        cursor = await self._cursor_of(entry.instance.name)
        report, crashed, timed_out = await run_guarded(entry.instance, cursor)
        now = self._world.clock.now()
        failing = report.status is not Status.HEALTHY
        entry.state = msgspec.structs.replace(
            entry.state,
            status=report.status,
            summary=report.summary,
            last_run_at=now,
            last_seen_at=entry.state.last_seen_at if report.status is Status.UNKNOWN else now,
            duration_s=now - started_at,
            consecutive_failures=entry.state.consecutive_failures + 1 if failing else 0,
            runs=entry.state.runs + 1,
            crashes=entry.state.crashes + crashed,
            timeouts=entry.state.timeouts + timed_out,
            reachable=report.reachable,
        )
        try:
            refusals = await self._deliver(entry.instance.name, report, run_samples(entry.state))
        except JournalError as error:
            log.error("check.not_journaled", error=str(error))
            return msgspec.structs.replace(report, more=False)
        if refusals:
            refused = entry.state.refused_series + len(refusals)
            entry.state = msgspec.structs.replace(entry.state, refused_series=refused)
            log.warning("check.refused", refusals=refusals)
        return report


def run_samples(state: CheckState) -> tuple[Sample, ...]:
    """The engine's series about one run (DESIGN section 3, check)."""
    check = labels_of({"check": state.name})
    status = tuple(
        Sample(
            "sixfbd_check_status",
            float(state.status is each),
            labels_of({"check": state.name, "status": each.value}),
            MetricKind.GAUGE,
        )
        for each in Status
    )
    return (
        *status,
        Sample("sixfbd_check_consecutive_failures", float(state.consecutive_failures), check, MetricKind.GAUGE),
        Sample("sixfbd_check_duration_seconds", state.duration_s or 0.0, check, MetricKind.GAUGE),
    )


async def run_guarded(instance: Instance, cursor: Json | None) -> tuple[Report, bool, bool]:
    """Run a check once; return its report, whether it crashed, whether it ran over. Neither may end the daemon."""
    assert instance.check is not None
    crash: BaseExceptionGroup[Exception] | None = None
    answer: object = None
    with trio.move_on_after(instance.timeout_s) as scope:
        try:
            answer = await instance.check.run(cursor)
        except* Exception as group:  # noqa: BLE001 - a check may raise anything; it is named and contained
            crash = group
    if crash is not None:
        log.error("check.crashed", plugin=instance.plugin, exc_info=crash)
        return Report(Status.UNKNOWN, one_line(f"plugin {instance.plugin} raised {_innermost(crash)}")), True, False
    if scope.cancelled_caught:
        return Report(Status.UNKNOWN, f"no answer within {instance.timeout_s:g} s"), False, True
    fault = _fault(answer)
    if fault or not isinstance(answer, Report):
        log.error("check.rubbish", plugin=instance.plugin, fault=fault)
        return Report(Status.UNKNOWN, one_line(f"plugin {instance.plugin} returned {fault}")), True, False
    return msgspec.structs.replace(answer, summary=one_line(answer.summary)), False, False


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _fault(answer: object) -> str:
    """Say what is wrong with what a check returned, or ""."""
    if not isinstance(answer, Report):
        return f"a {type(answer).__name__}, not a Report"
    if not isinstance(answer.status, Status):
        return f"a report whose status is {answer.status!r:.50}"
    if not isinstance(answer.samples, tuple | list) or not isinstance(answer.events, tuple | list):
        return "a report whose samples or events are not a tuple"
    if answer.cursor is not None:
        try:
            size = len(msgspec.json.encode(answer.cursor))
        except (TypeError, ValueError, RecursionError) as error:
            return f"a cursor that is not JSON: {error}"
        if size > MAX_CURSOR_BYTES:
            return f"a cursor of {size} bytes (at most {MAX_CURSOR_BYTES})"
    return ""
