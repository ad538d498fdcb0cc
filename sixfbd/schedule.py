"""When checks run: one task, a heap of due times, a task for each check; no run ever waits for another check.

Owns the state of each check (last run, failures, pauses). Knows nothing of what checks measure; hands reports to intake.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Protocol

import msgspec
import structlog
import trio
from msgspec import Struct

from sixfbd.containment import MAX_LINE, call_guarded, described, kind_of, one_line
from sixfbd.journal.errors import JournalError
from sixfbd.model import (
    NONE_REFUSED,
    CheckName,
    CheckState,
    Json,
    Labels,
    MetricKind,
    Refusal,
    Refusals,
    Report,
    Sample,
    Status,
    labels_of,
)
from sixfbd.plugin import Check
from sixfbd.world import World

log = structlog.get_logger("sixfbd.schedule")

MAX_PAGES: Final = 50  # runs in a row that `more=True` may ask for
MAX_CURSOR_BYTES: Final = 64 * 1024
START_SPREAD_S: Final = 2.0  # first runs are spread over this long, so that a start is no storm
TICK_S: Final = 0.05
TICKED_FROM_S: Final = 1.0  # shorter intervals would be uneven by too much of themselves
GRACE_S: Final = 1.0  # what a cancelled run may take to clean up before it is called stuck
SAID_FOR_S: Final = 600.0  # a refusal that comes and goes is logged once in so long
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
    depends_on: tuple[CheckName, ...]


class NotRunError(Exception):
    """A check was not run; the text says why."""


class Ran(Struct, frozen=True):
    """How a run went: its report (of several pages the last), and what was refused or cut, of all pages."""

    report: Report
    refused: Refusals = NONE_REFUSED
    crashed: bool = False
    timed_out: bool = False


class Before(Struct, frozen=True):
    """What was known of a check before a start: failures in a row, and since when it was overdue (None: it was not)."""

    failures: int = 0
    overdue_since: float | None = None


@dataclass(slots=True)
class _Entry:
    instance: Instance
    state: CheckState
    due: float
    generation: int
    reported: bool = False  # a report was taken since the check was added or resumed, or the loop stood still
    awaited_until: float = 0.0  # after a stand-still: by when a report would come
    seen_again_at: float = -math.inf  # when the last report was taken that ended a blindness
    running: bool = False
    scope: trio.CancelScope | None = None  # of its task, which the first run begins
    waiting: trio.lowlevel.Task | None = None  # the same task, while it waits for the next run
    page_at: float = 0.0  # when the page that runs now began
    finished: trio.Event = field(default_factory=trio.Event)
    report: Report | None = None
    ran: Ran | None = None  # the last run that ended
    cursor: bytes | None = None  # the last one committed, as JSON; None: to be read
    refused: Refusals = NONE_REFUSED  # of the run that goes on, or the last one
    said: dict[str, float] = field(default_factory=dict)  # why parts of reports were refused, and when that was last so


Deliver = Callable[[CheckName, Report, Sequence[Sample]], Awaitable[Refusals]]


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
        self._still_at = 0.0
        self._nursery: trio.Nursery | None = None
        self._life = trio.CancelScope()
        self.ended = trio.Event()
        """Set when `run` has ended, and all runs with it."""

    # ---- what is known -----------------------------------------------------------------------------------------------

    def states(self) -> list[CheckState]:
        """Return every check's state, by name."""
        return [self._entries[name].state for name in sorted(self._entries)]

    def state(self, name: CheckName) -> CheckState | None:
        entry = self._entries.get(name)
        return entry.state if entry else None

    def is_awaited(self, name: CheckName, at: float = math.inf) -> bool:
        """Tell whether the check is to report for the first time since the loop stood still, and has still time to.

        `at` is the time of the snapshot that somebody judges by: a report that was taken since is not in it.
        """
        entry = self._entries.get(name)
        if entry is None or entry.state.paused or self._world.clock.now() >= entry.awaited_until:
            return False
        return not entry.reported or entry.seen_again_at > at

    def is_blind(self, name: CheckName, at: float = math.inf) -> bool:
        """Tell whether nothing is known of what the check watches: paused, no report since it was added or resumed, the
        last one `unknown`, or so old that its series have gone stale; or not in a snapshot of the time `at`, as its first
        report after that was taken later.

        A check that is not configured is not blind: what it fed may end.
        """
        entry = self._entries.get(name)
        return entry is not None and (self._is_unknown(entry) or entry.seen_again_at > at)

    def _is_unknown(self, entry: _Entry) -> bool:
        state = entry.state
        known = entry.reported and not state.paused and state.status is not Status.UNKNOWN
        return not known or self._is_overdue(entry, self._world.clock.now())

    # ---- what runs -----------------------------------------------------------------------------------------------------

    def add(self, instance: Instance, *, paused: bool = False, before: Before | None = None) -> trio.Event:
        """Start running a check; replaces one of the same name, whose run is cancelled: its report is dropped.

        Failures in a row go on counting, and what was overdue stays overdue until it reports: of the check that is
        replaced, else as `before` says. Returns an event that is set when the replaced one runs no more.
        """
        now = self._world.clock.now()
        previous = self._entries.get(instance.name)
        before = self._known_before(previous, now) or before or Before()
        ended = _stopped(previous)
        spread = min(instance.interval_s, START_SPREAD_S) if instance.jitter_s is None else instance.jitter_s
        due = _on_a_tick(now + self._world.rng("start", instance.name).uniform(0, spread), instance.interval_s)
        state = CheckState(
            instance.name,
            instance.plugin,
            instance.interval_s,
            service=instance.service,
            external=instance.external,
            paused=paused,
            next_run_at=None if paused else due,
            awaited_since=now if before.overdue_since is None else before.overdue_since,
            consecutive_failures=before.failures,
        )
        if instance.check is None:
            state = msgspec.structs.replace(state, summary=one_line(instance.problem), next_run_at=None)
        self._generation += 1
        entry = self._entries[instance.name] = _Entry(instance, state, due, self._generation)
        if instance.check is not None:
            self._push(entry)
        return ended

    def remove(self, name: CheckName) -> trio.Event:
        """Stop running a check; a run in progress is cancelled and its report dropped. The event is set when it ended."""
        return _stopped(self._entries.pop(name))

    def set_paused(self, name: CheckName, paused: bool) -> None:
        """Pause or resume; a run in progress goes on. Resuming runs the check at once."""
        entry = self._entries[name]
        if entry.state.paused == paused:
            return
        entry.due = now = self._world.clock.now()
        entry.state = msgspec.structs.replace(entry.state, paused=paused, next_run_at=None if paused else now)
        if not paused:
            entry.reported = False
            entry.state = msgspec.structs.replace(entry.state, awaited_since=now)
        self._generation += 1
        entry.generation = self._generation
        if not paused and entry.instance.check is not None:
            self._push(entry)

    def stood_still(self, since: float, until: float) -> None:
        """Nothing ran between these times: none is overdue for the gap, and who missed a run is blind until it reports."""
        self._still_at = until
        for entry in self._entries.values():
            if entry.instance.check is None or entry.state.paused:
                continue
            if not self._is_overdue(entry, since):
                entry.state = msgspec.structs.replace(entry.state, awaited_since=until)
            if entry.due <= until or entry.running:
                entry.reported = False
                entry.awaited_until = until + 2 * entry.instance.timeout_s + GRACE_S

    async def run_now(self, name: CheckName) -> Ran:
        """Run a check at once, out of turn, and return how it went; of one that is running, how that run goes.

        Raises NotRunError if there is none of that name, if it could not be started or does not end.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise NotRunError(f'there is no check "{name}"; sixfbctl checks lists them')
        if entry.instance.check is None:
            raise NotRunError(f'check "{name}" could not be started: {entry.state.summary}')
        if not entry.running:
            if self._nursery is None:
                raise NotRunError("the daemon is starting or stopping")
            self._begin(entry, self._nursery, self._world.clock.now())
        finished = entry.finished
        with trio.move_on_after(entry.instance.timeout_s * MAX_PAGES + GRACE_S):
            await finished.wait()
        if not finished.is_set() or entry.ran is None:
            raise NotRunError(f'check "{name}" did not finish')
        return entry.ran

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run checks as they fall due until `stop`. Ends with the last run: one that is stuck holds it up."""
        try:
            with self._life:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    try:
                        task_status.started()
                        while True:
                            await self._sleep_until_due()
                            self._start_due(nursery)
                    finally:
                        self._nursery = None
        finally:
            self.ended.set()

    def stop(self) -> None:
        """Cancel all runs and begin no more; `ended` is set when they have ended."""
        self._life.cancel()

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
            late = missed + entry.running
            entry.due += interval * (missed + 1)
            entry.state = msgspec.structs.replace(
                entry.state, next_run_at=entry.due, late_runs=entry.state.late_runs + late
            )
            self._push(entry)
            if not entry.running:
                self._begin(entry, nursery, now)
            else:
                log.warning("check.late", check=name, late_runs=entry.state.late_runs)
                if now > entry.page_at + entry.instance.timeout_s + GRACE_S:
                    nursery.start_soon(self._tell_stuck, entry, entry.page_at)

    def _begin(self, entry: _Entry, nursery: trio.Nursery, now: float) -> None:
        entry.running = True
        entry.page_at = now
        entry.finished = trio.Event()
        entry.report = None
        entry.refused = NONE_REFUSED
        entry.state = msgspec.structs.replace(entry.state, running=True)
        if entry.waiting is not None:
            trio.lowlevel.reschedule(entry.waiting)
            entry.waiting = None
        else:
            entry.scope = trio.CancelScope()
            nursery.start_soon(self._run_entry, entry, name=f"check {entry.instance.name}")

    # ---- one run -------------------------------------------------------------------------------------------------------

    async def _run_entry(self, entry: _Entry) -> None:
        """Run a check now and whenever `_begin` says so, until it is removed; a task of each run's own would cost more."""
        assert entry.scope is not None
        with entry.scope:
            while True:
                await self._run_once(entry)
                await _next_run(entry)

    async def _run_once(self, entry: _Entry) -> None:
        structlog.contextvars.clear_contextvars()  # of whoever asked for the first run, or of the check's in the last one
        structlog.contextvars.bind_contextvars(check=str(entry.instance.name))
        try:
            for _ in range(MAX_PAGES):
                entry.report = await self._run_page(entry)
                if not entry.report.more:
                    break
        finally:
            entry.running = False
            entry.ran = None if entry.report is None else Ran(entry.report, entry.refused)
            entry.state = msgspec.structs.replace(entry.state, running=False)
            entry.finished.set()

    async def _run_page(self, entry: _Entry) -> Report:
        entry.page_at = self._world.clock.now()
        ran = await self._ask(entry)
        now = self._world.clock.now()  # tells of a stand-still, if there was one
        if self._still_at > entry.page_at and ran.report.status in (Status.UNKNOWN, Status.UNHEALTHY):
            entry.page_at = now  # it may have failed because nothing ran meanwhile: asked once more
            ran = await self._ask(entry)
            now = self._world.clock.now()
        if ran.refused.count:
            entry.refused += ran.refused
        facts = {
            "duration_s": now - entry.page_at,
            "runs": entry.state.runs + 1,
            "crashes": entry.state.crashes + ran.crashed,
            "timeouts": entry.state.timeouts + ran.timed_out,
            "reachable": ran.report.reachable,
        }
        return await self._hand_over(entry, ran.report, facts)

    async def _ask(self, entry: _Entry) -> Ran:
        try:
            if entry.cursor is None:
                entry.cursor = msgspec.json.encode(await self._cursor_of(entry.instance.name))
        except JournalError as error:
            log.error("check.cursor_unread", error=str(error))
            return Ran(Report(Status.UNKNOWN, one_line(f"its cursor cannot be read: {error}")))
        return await run_guarded(
            entry.instance, msgspec.json.decode(entry.cursor)
        )  # a plugin may change what it is given

    async def _tell_stuck(self, entry: _Entry, page_at: float) -> None:
        """A run goes on although it was cancelled at its timeout: nothing is known of what the check watches.

        Not said at once: where the loop itself stood still, the run has not had its turn since.
        """
        limit = entry.instance.timeout_s
        await trio.sleep(GRACE_S)
        if not entry.running or entry.page_at != page_at:
            return
        report = Report(Status.UNKNOWN, f"its run does not end, though it was cancelled after {limit:g} s")
        log.error("check.stuck", check=entry.instance.name, plugin=entry.instance.plugin, timeout_s=limit)
        await self._hand_over(entry, report, {})

    async def _hand_over(self, entry: _Entry, report: Report, facts: dict[str, Any]) -> Report:
        """Have a report taken; what it says is known of the check from then on, not before. Returns what was known then.

        A report of a check that was removed or replaced meanwhile is dropped.
        """
        name = entry.instance.name
        if self._entries.get(name) is not entry:
            return msgspec.structs.replace(report, more=False)
        was_blind, was = self._is_unknown(entry), entry.state.status
        facts |= self._known_by(entry.state, report)
        own = run_samples(
            name, report.status, facts["consecutive_failures"], facts.get("duration_s", entry.state.duration_s)
        )
        try:
            entry.cursor = entry.cursor if report.cursor is None else None
            refusals = await self._deliver(name, report, own)
            if refusals.cursor_stays:
                report = msgspec.structs.replace(report, more=False)  # it would bring the same page again at once
            elif report.cursor is not None:
                entry.cursor = msgspec.json.encode(report.cursor)
        except JournalError as error:  # its samples are there; the next run brings its events again
            log.error("check.events_not_kept", error=str(error), events=len(report.events))
            report = msgspec.structs.replace(report, more=False)
            entry.reported, refusals = True, NONE_REFUSED
        except Exception as error:  # a report that breaks the door ends nobody
            log.error("check.not_taken", error=described(error), exc_info=True)
            report = Report(Status.UNKNOWN, one_line(f"its report was not taken: {error}"), reachable=report.reachable)
            facts |= self._known_by(entry.state, report)
            refusals = NONE_REFUSED
        else:
            entry.reported = True
        if refusals.count:
            entry.refused += refusals
            facts["refused_series"] = entry.state.refused_series + refusals.count
            facts["summary"] = _with_refusals(report.summary, refusals)
            if not refusals.reasons <= entry.said.keys():  # else it was said, and goes on or comes and goes
                log.warning("check.refused", count=refusals.count, refusals=refusals.named)
        if refusals.count or entry.said:
            now = self._world.clock.now()
            recent = {reason: at for reason, at in entry.said.items() if now - at < SAID_FOR_S}
            entry.said = recent | dict.fromkeys(refusals.reasons, now)
        if was_blind and entry.reported:
            entry.seen_again_at = self._world.clock.now()
        entry.state = msgspec.structs.replace(entry.state, **facts)
        if report.status is Status.UNHEALTHY and was is not Status.UNHEALTHY:
            self._run_early(entry.instance.depends_on)
        elif report.status is Status.HEALTHY and was is Status.UNHEALTHY:
            self._run_early(one.instance.name for one in self._entries.values() if self._suffers(one, name))
        return report

    def _suffers(self, entry: _Entry, parent: CheckName) -> bool:
        return parent in entry.instance.depends_on and entry.state.status is not Status.HEALTHY

    def _run_early(self, names: Iterable[CheckName]) -> None:
        """Run checks out of turn: a cause that waited its turn would be named too late, and what it explains no longer
        would be told for what it was."""
        for name in tuple(names):
            entry = self._entries.get(name)
            if entry is None or entry.instance.check is None or entry.state.paused or entry.running:
                continue
            if self._nursery is not None:
                self._begin(entry, self._nursery, self._world.clock.now())

    def _known_by(self, state: CheckState, report: Report) -> dict[str, Any]:
        """What a report changes in the state of its check."""
        now = self._world.clock.now()
        seen = report.status is not Status.UNKNOWN
        return {
            "status": report.status,
            "summary": report.summary,
            "last_run_at": now,
            "last_seen_at": now if seen else state.last_seen_at,
            "awaited_since": now if seen else state.awaited_since,
            "consecutive_failures": 0 if report.status is Status.HEALTHY else state.consecutive_failures + 1,
        }

    def _is_overdue(self, entry: _Entry, now: float) -> bool:
        return now - entry.state.awaited_since >= stale_after_s(entry.instance.interval_s, entry.instance.timeout_s)

    def _known_before(self, previous: _Entry | None, now: float) -> Before | None:
        if previous is None:
            return None
        since = previous.state.awaited_since
        overdue = not previous.state.paused and self._is_overdue(previous, now)
        return Before(previous.state.consecutive_failures, since if overdue else None)


def _on_a_tick(at: float, interval_s: float) -> float:
    """Return the next tick from `at` on, so that checks fall due together: a wake-up of the loop costs more than a start.

    Intervals below TICKED_FROM_S are left as they are.
    """
    return at if interval_s < TICKED_FROM_S else math.ceil(at / TICK_S) * TICK_S


def _with_refusals(summary: str, refusals: Refusals) -> str:
    """Return a report's summary and, in the same line, what was refused of it."""
    refused = f"refused {refusals.count}: {refusals.named[0]}"
    others = f" (and {len(refusals.named) - 1} more kinds)" if len(refusals.named) > 1 else ""
    said = f"; {refused[: MAX_LINE // 2]}{others}"
    return one_line(f"{summary[: MAX_LINE - len(said)]}{said}")


async def _next_run(entry: _Entry) -> None:
    """Wait until `Schedule._begin` lets the entry's task go on; an event for each run would cost twice as much."""

    def abort(_: object) -> trio.lowlevel.Abort:
        entry.waiting = None
        return trio.lowlevel.Abort.SUCCEEDED

    entry.waiting = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(abort)


def _stopped(entry: _Entry | None) -> trio.Event:
    """End an entry's task; return an event that is set when what it runs has ended."""
    if entry is not None and entry.scope is not None:
        entry.scope.cancel()
        if entry.running:
            return entry.finished
    ended = trio.Event()
    ended.set()
    return ended


@cache
def _own_labels(name: CheckName) -> tuple[Labels, tuple[tuple[Status, Labels], ...]]:
    return labels_of({"check": name}), tuple(
        (each, labels_of({"check": name, "status": each.value})) for each in Status
    )


@cache
def _status_samples(name: CheckName, status: Status) -> tuple[Sample, ...]:
    return tuple(
        Sample("sixfbd_check_status", float(status is each), labels, MetricKind.GAUGE)
        for each, labels in _own_labels(name)[1]
    )


def run_samples(name: CheckName, status: Status, failures: int, duration_s: float | None) -> tuple[Sample, ...]:
    """The engine's series about one run (DESIGN section 3, check): its status, failures in a row, how long it took."""
    check, _ = _own_labels(name)
    return (
        *_status_samples(name, status),
        Sample("sixfbd_check_consecutive_failures", float(failures), check, MetricKind.GAUGE),
        Sample("sixfbd_check_duration_seconds", duration_s or 0.0, check, MetricKind.GAUGE),
    )


async def run_guarded(instance: Instance, cursor: Json | None) -> Ran:
    """Run a check once and return how it went; whatever the check does, it cannot end the daemon."""
    check = instance.check
    assert check is not None
    ended = await call_guarded(lambda: check.run(cursor), instance.timeout_s, f"check {instance.name}")
    if ended.error is not None:
        log.error("check.crashed", plugin=instance.plugin, exc_info=ended.error)
        text = f"plugin {instance.plugin} raised {described(ended.error)}"
        return Ran(Report(Status.UNKNOWN, one_line(text)), crashed=True)
    if ended.overran:
        return Ran(Report(Status.UNKNOWN, f"no answer within {instance.timeout_s:g} s"), timed_out=True)
    fault = fault_of(ended.answer)
    if fault or not isinstance(ended.answer, Report):
        log.error("check.rubbish", plugin=instance.plugin, fault=fault)
        return Ran(Report(Status.UNKNOWN, one_line(f"plugin {instance.plugin} returned {fault}")), crashed=True)
    report, summary = ended.answer, ended.answer.summary
    line = one_line(summary) if summary else ""
    if line != summary:
        report = msgspec.structs.replace(report, summary=line)
    if len(summary) <= MAX_LINE:
        return Ran(report)
    cut = f"the summary: has {len(summary)} characters; {MAX_LINE} are kept"
    return Ran(report, Refusals(1, (Refusal(cut),)))


def fault_of(answer: object) -> str:
    """Say what is wrong with what a check returned, or ""."""
    if not isinstance(answer, Report):
        return f"{kind_of(answer)}, not a Report"
    if not isinstance(answer.status, Status):
        return f"a report whose status is {answer.status!r:.50}"
    if not isinstance(answer.summary, str):
        return f"a report whose summary is {kind_of(answer.summary)}, not text"
    if not isinstance(answer.more, bool) or not isinstance(answer.reachable, bool | None):
        return "a report whose `more` or `reachable` is neither true nor false"
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
