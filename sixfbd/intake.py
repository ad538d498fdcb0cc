"""The one door in: reports of checks and events of anybody are validated, journaled (durable) and made visible, in that order.

Owns the validation of what plugins and clients bring, and the counts of what was refused and why. Never evaluates a
rule: it says which rules were touched. Bad input is named and left out; the rest of the same report goes on.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec
import structlog
import trio
from msgspec import Struct

from sixfbd.containment import described, kind_of, one_line, receipt_in_writing, words_of
from sixfbd.faults import unfit
from sixfbd.journal.errors import JournalBroken, JournalError
from sixfbd.journal.event_log import Accepted, Duplicate, NewEvent
from sixfbd.model import (
    MAX_KINDS,
    NONE_REFUSED,
    CheckName,
    Event,
    Json,
    Labels,
    MetricKind,
    Receipt,
    Refusal,
    Refusals,
    Report,
    RuleName,
    Sample,
    Series,
    Status,
    StoredEvent,
)
from sixfbd.plugin import ANY, EventType, Metrics, Summary
from sixfbd.privacy import Privacy
from sixfbd.window.blocks import NEVER_STALE_MS
from sixfbd.window.writes import Write

log = structlog.get_logger("sixfbd.intake")

ENGINE_CHECK: Final = CheckName("sixfbd")
EVENTS_CHECK: Final = CheckName("events")
SUMMARIES_CHECK: Final = CheckName("summaries")
MAX_LABELS: Final = 32
MAX_LABEL_VALUE: Final = 1024  # characters
MAX_EVENT_BYTES: Final = 64 * 1024
MAX_EVENT_DEPTH: Final = 32  # objects and lists within each other
MAX_EVENT_ID: Final = 200  # characters
CLOCK_SKEW_S: Final = 60.0  # claimed times further ahead are clamped (DESIGN promise 8)
MAX_FREE_SERIES: Final = 20_000  # series made of events
METRIC_SHARE: Final = 2  # one metric may have this part of a check's series, so that its flood leaves room for others
LOOKED_AT: Final = 5  # times the series that a check may have: so many samples of a report are looked at
SLICE: Final = 1000  # samples that are looked at before others have their turn
MAX_REPORT_EVENTS: Final = 5000  # validating them takes the loop some 20 ms
EVENTS_A_SECOND: Final = 100.0  # of one check, in the long run; the design point of the whole daemon
EVENTS_AT_ONCE: Final = 30_000  # and so many in a row, for those who have to catch up
REPLAY_S: Final = 600.0  # sketches are written when their minute has ended, so that a crash loses less than this
REPLAY_PAGE: Final = 1000
MAX_UNANSWERED: Final = (
    10_000  # events whose fate is not known; of more than that only a restart shows what they counted
)
MINUTE_MS: Final = 60_000
TURNS: Final = 3  # of the loop, for rules and judge: they then wait for the disk while the event is answered
MAX_REMARKS: Final = 10  # about one report
MAX_EXAMPLES: Final = 2  # of each kind
MAX_EXAMPLE: Final = 80  # characters
ENGINE_PREFIX: Final = "sixfbd_"
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_EVENT_TYPE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,63}")


class Refused(Struct, frozen=True):
    """An event that was not taken: the field and what is wrong with it."""

    field: str
    message: str


_Rows: TypeAlias = list[tuple[Series, float]]
_Observed: TypeAlias = dict[Series, dict[float, int]]
"""How often which value was observed."""
_Put: TypeAlias = tuple[NewEvent, _Rows, _Observed]
"""An event as it is written, the gauges that it sets, and what it observed."""
Put: TypeAlias = Accepted | Duplicate | Refused


class Journal(Protocol):
    """What intake needs of journal.db."""

    @property
    def last_event_seq(self) -> int: ...
    async def put_events(
        self, source: str, events: Sequence[NewEvent], cursor: tuple[CheckName, Json] | None = None
    ) -> list[Accepted | Duplicate]: ...
    async def events(
        self, after_seq: int = 0, *, types: Collection[str] | None = None, start: float | None = None, limit: int = 1000
    ) -> list[StoredEvent]: ...


class Appended(Protocol):
    """What the window says of an append: the rules bound to series that changed, and the rows to persist."""

    @property
    def touched(self) -> frozenset[RuleName]: ...
    @property
    def rows(self) -> tuple[Write, ...]: ...


class Window(Protocol):
    """What intake needs of the window."""

    def append(
        self, check: str, at_ms: int, samples: Sequence[tuple[Series, float]], *, complete: bool, stale_after_ms: int
    ) -> Appended: ...
    def step(self, series: Series, at_ms: int, add: float) -> frozenset[RuleName]: ...
    def observe(self, series: Series, at_ms: int, values: Mapping[float, int]) -> None: ...
    def sketch(self, series: Series, lo_ms: int, hi_ms: int) -> object | None: ...


class Clock(Protocol):
    def now(self) -> float: ...


class Declared(Struct, frozen=True):
    """What one check may report: its plugin's metrics by name (None: anything), its series limit and staleness."""

    kinds: Mapping[str, MetricKind] | None
    labels: Mapping[str, tuple[str, ...]]
    max_series: int
    stale_after_s: float


def declare(metrics: Metrics, max_series: int, stale_after_s: float) -> Declared:
    """Return the declaration of a check from its class's `metrics`."""
    if metrics is ANY or not isinstance(metrics, Sequence):
        return Declared(None, {}, max_series, stale_after_s)
    return Declared(
        {metric.name: metric.kind for metric in metrics},
        {metric.name: metric.labels for metric in metrics},
        max_series,
        stale_after_s,
    )


class _Known:
    """The series that a check has reported lately, at most as many as it may have; and what events it may still bring.

    Places that nobody uses any more become free once their series have gone stale: a check whose labels change all the
    time (pids, containers) must not go deaf by and by. What the window remembers of them has a bound of its own.
    """

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        share = 1 if declared.kinds is not None and len(declared.kinds) == 1 else METRIC_SHARE
        self.most_of_metric = max(1, declared.max_series // share)
        self._now: dict[tuple[str, Labels], Series] = {}
        self._before: dict[tuple[str, Labels], Series] = {}
        self._of_metric: Counter[str] = Counter()
        self._turns_at = 0.0
        self._events_left = float(EVENTS_AT_ONCE)
        self._events_at: float | None = None

    def turn(self, at: float) -> None:
        """Begin a new age if this one has lasted `stale_after`; what the last one did not see is forgotten."""
        if at >= self._turns_at:
            self._turns_at = at + self.declared.stale_after_s
            self._now, self._before = {}, self._now
            self._of_metric = Counter(metric for metric, _ in self._before)

    def get(self, key: tuple[str, Labels]) -> Series | None:
        series = self._now.get(key)
        if series is None and key in self._before:
            series = self._now[key] = self._before.pop(key)
        return series

    def refuse_flood(self, metric: str) -> None:
        """Raise _LimitError if another series of this metric is one too many."""
        if len(self._now) + len(self._before) >= self.declared.max_series:
            raise _LimitError(f"is over the limit of {self.declared.max_series} series of this check")
        if self._of_metric[metric] >= self.most_of_metric:
            raise _LimitError(f"is over the limit of {self.most_of_metric} series of one metric")

    def keep(self, key: tuple[str, Labels], series: Series) -> None:
        self._now[key] = series
        self._of_metric[series.metric] += 1

    def may_bring(self, events: int, at: float) -> str:
        """Count so many events against what the check may bring; return why not, or ""."""
        if events > MAX_REPORT_EVENTS:
            return f"the report has more than {MAX_REPORT_EVENTS}; bring them page by page, with `more`"
        if self._events_at is not None:
            left = self._events_left + (at - self._events_at) * EVENTS_A_SECOND
            self._events_left = min(float(EVENTS_AT_ONCE), left)
        self._events_at = at
        if events > self._events_left:
            return f"the check brings more than {EVENTS_A_SECOND:g} a second"
        self._events_left -= events
        return ""


class _Refused:
    """Collects the refusals of one report: by what and why, with the first examples, and no more kinds than are named."""

    def __init__(self) -> None:
        self.count = 0
        self.cursor_stays = False
        self._kinds: dict[str, tuple[int, list[str]]] = {}

    def add(self, what: str, why: str, example: str = "", times: int = 1) -> None:
        self.count += times
        reason = one_line(f"{what}: {why}")
        if reason not in self._kinds and len(self._kinds) >= MAX_KINDS:
            return
        before, examples = self._kinds.setdefault(reason, (0, []))
        if example and len(examples) < MAX_EXAMPLES:
            examples.append(one_line(example[:MAX_EXAMPLE]))
        self._kinds[reason] = (before + times, examples)

    def result(self) -> Refusals:
        if not self.count and not self.cursor_stays:
            return NONE_REFUSED
        kinds = (Refusal(reason, times, tuple(examples)) for reason, (times, examples) in self._kinds.items())
        return Refusals(self.count, tuple(kinds), self.cursor_stays)


class Intake:
    """The door. Its methods may be called from any number of tasks of the loop."""

    def __init__(
        self,
        journal: Journal,
        window: Window,
        clock: Clock,
        *,
        persist: Callable[[Sequence[Write]], None],
        touch: Callable[[frozenset[RuleName]], None],
        committed: Callable[[Sequence[StoredEvent]], None],
        volatile: Callable[[], str] = lambda: "",
        failed: Callable[[], None] = lambda: None,
        privacy: Privacy | None = None,
    ) -> None:
        """`privacy` says what of people is kept of events; None keeps all.

        `volatile` says why nothing can be kept now, "" if it can: then events are refused, samples are not. `failed` is
        called when the journal did not take events."""
        self._journal = journal
        self._window = window
        self._clock = clock
        self._persist = persist
        self._touch = touch
        self._committed = committed
        self._volatile = volatile
        self._failed = failed
        self.privacy = privacy
        self._known: dict[CheckName, _Known] = {}
        self._types: dict[str, EventType] = {}
        self._own_series: dict[tuple[str, Labels], Series] = {}
        self._free_series: dict[tuple[str, Labels], Series] = {}
        self._unanswered: dict[tuple[str, str], tuple[_Put, int]] = {}
        """Events that may be written, by source and id, each with the number that it is above if it is."""
        self._set_by: dict[Series, int] = {}  # number of the event that set a gauge last
        self.event_outcomes: Counter[tuple[str, str]] = Counter()
        self.clamped_times = 0

    # ---- what may come in ------------------------------------------------------------------------------------------

    def declare_check(self, check: CheckName, declared: Declared) -> None:
        """Allow reports of this check; called before its first run and at every reload."""
        self._known[check] = _Known(declared)

    def forget_check(self, check: CheckName) -> None:
        """The check is no longer configured."""
        self._known.pop(check, None)

    def declare_types(self, types: Sequence[EventType]) -> None:
        """Replace the declared event types."""
        self._types = {event_type.name: event_type for event_type in types}
        for name in (*self._types, "other"):
            self.event_outcomes[name, "accepted"] += 0  # a counter begins at 0, or its first events show in no rate

    @property
    def summaries(self) -> list[Summary]:
        """The summaries that event types observe, whose quantiles the engine shows."""
        found = (metric for event_type in self._types.values() for metric in event_type.metrics)
        return [metric for metric in found if isinstance(metric, Summary)]

    # ---- reports -----------------------------------------------------------------------------------------------------

    async def report(self, check: CheckName, report: Report, own: Sequence[Sample] = ()) -> Refusals:
        """Take one report; `own` are the engine's samples about the run, visible in the same instant.

        Events and cursor are durable on return, samples visible. Returns what was refused. Raises JournalError: then its
        samples were taken, its events and cursor were not. Of a check that is forgotten or declared anew meanwhile only the
        events are taken. Of a report with too many events neither they nor the cursor are taken: the next run begins where
        this one did.
        """
        known, refused = self._known.get(check), _Refused()
        if known is None:
            refused.add("the report", f"there is no check {check}")
            return refused.result()
        declared, at = known.declared, self._clock.now()
        failure: JournalError | None = None
        if report.events or report.cursor is not None:
            try:
                await self._events_of(check, known, report, refused)
            except JournalError as error:
                failure = error
        rows: _Rows = []
        if self._known.get(check) is known:
            known.turn(at)
            rows = await self._rows(check, known, report.samples, refused) if report.samples else []
        if self._known.get(check) is not known:
            if failure is not None:
                raise failure
            refused.add("the samples", "the check was removed or replaced meanwhile")
            return refused.result()
        rows += [(self._own(sample), sample.value) for sample in own]
        appended = self._window.append(
            check,
            round(at * 1000),
            rows,
            complete=report.status in (Status.HEALTHY, Status.DEGRADED),
            stale_after_ms=round(declared.stale_after_s * 1000),
        )
        self._persist(appended.rows)
        self._touch(appended.touched)
        if failure is not None:
            raise failure
        return refused.result()

    async def _events_of(self, check: CheckName, known: _Known, report: Report, refused: _Refused) -> None:
        """Take the events and the cursor of a report."""
        if why := known.may_bring(len(report.events), self._clock.now()):
            refused.add("events", why, times=len(report.events))
            refused.cursor_stays = True
            return
        cursor = None if report.cursor is None else (check, report.cursor)
        for index, result in enumerate(await self.events(f"check:{check}", report.events, cursor)):
            if isinstance(result, Refused):
                why = f"{result.field}: {result.message}" if result.field else result.message
                refused.add("event", why, f"number {index}")

    def remarks(self, report: Report) -> list[str]:
        """Return what is odd about a report's events and yet taken, one line for each type that no plugin declares."""
        types = dict.fromkeys(event.type for event in report.events[:MAX_REPORT_EVENTS] if _refusal(event) is None)
        return [
            f"event type {name}: no plugin declares it; its events are kept and count nothing"
            for name in types
            if name not in self._types
        ][:MAX_REMARKS]

    def report_own(self, check: CheckName, samples: Sequence[Sample], stale_after_s: float) -> None:
        """Take the engine's own samples of one moment; they carry no label of the check and are not validated."""
        rows = [(self._own(sample), sample.value) for sample in samples]
        at_ms = round(self._clock.now() * 1000)
        appended = self._window.append(check, at_ms, rows, complete=True, stale_after_ms=round(stale_after_s * 1000))
        self._persist(appended.rows)
        self._touch(appended.touched)

    async def _rows(
        self, check: CheckName, known: _Known, samples: Sequence[Sample], refused: _Refused
    ) -> list[tuple[Series, float]]:
        """Return what is to be written of a report, looking at SLICE samples at a time: a flood must not hold the loop."""
        rows: list[tuple[Series, float]] = []
        seen: set[tuple[str, Labels]] = set()
        most = min(len(samples), LOOKED_AT * known.declared.max_series)
        for first in range(0, most, SLICE):
            if first:
                await trio.lowlevel.checkpoint()
            for sample in samples[first : min(first + SLICE, most)]:
                try:
                    key = (sample.metric, sample.labels)
                    series = known.get(key) or self._admit(check, known, sample)
                    if key in seen:
                        raise ValueError("is there twice in one report")
                    rows.append((series, float(sample.value)))
                    seen.add(key)
                except Exception as error:  # noqa: BLE001 - what a plugin calls a sample may do anything; it is refused
                    refused.add(*_named(sample, error))
        if over := len(samples) - most:
            refused.add("the report", f"has more than {most} samples", times=over)
        return rows

    def _admit(self, check: CheckName, known: _Known, sample: Sample) -> Series:
        """Validate a series that this check has not reported before; raises ValueError or TypeError that names the fault."""
        _validate_form(sample)
        kind, declared = sample.kind, known.declared
        if declared.kinds is not None:
            if sample.metric not in declared.kinds:
                raise ValueError("is not declared in the plugin's metrics")
            kind = declared.kinds[sample.metric]
            if not {name for name, _ in sample.labels} <= set(declared.labels[sample.metric]):
                raise ValueError(f"has other labels than the declared {list(declared.labels[sample.metric])}")
        if sample.metric.startswith(ENGINE_PREFIX) and "instance" not in dict(sample.labels):
            raise ValueError(
                f"begins with {ENGINE_PREFIX}, as only the engine's do and those of another daemon's instance"
            )
        known.refuse_flood(sample.metric)
        labels = tuple(sorted((*sample.labels, ("check", str(check)))))
        series = Series(sample.metric, labels, kind)
        known.keep((sample.metric, sample.labels), series)
        return series

    def _own(self, sample: Sample) -> Series:
        """The series of one of the engine's own samples: no check label, no limit but what is configured."""
        key = (sample.metric, sample.labels)
        series = self._own_series.get(key)
        if series is None:
            series = self._own_series[key] = Series(*key, sample.kind)
        return series

    def _series_of(self, sample: Sample, suffix: str = "") -> Series:
        """The series of an event's sample: no check label, and a limit on what events may make."""
        key = (sample.metric + suffix, sample.labels)
        series = self._free_series.get(key)
        if series is None:
            if len(self._free_series) >= MAX_FREE_SERIES:
                raise _LimitError(f"{sample.metric} is over the limit of {MAX_FREE_SERIES} series made of events")
            series = self._free_series[key] = Series(*key, MetricKind.COUNTER if suffix else sample.kind)
        return series

    # ---- events ------------------------------------------------------------------------------------------------------

    async def events(
        self, source: str, events: Sequence[Event], cursor: tuple[CheckName, Json] | None = None
    ) -> list[Put]:
        """Take events of one source; the answer at index i is that of events[i]; durable on return.

        Raises JournalFull: then none was taken, and the cursor did not move; JournalBroken: nobody can tell. What was
        taken all the same is shown with the next events that are; who repeats it is told that it is a duplicate.
        """
        if problem := self._volatile():
            raise JournalBroken(f"events are refused while the journal cannot be written: {problem}")
        now = self._clock.now()
        results: list[Put | None] = [None] * len(events)
        fresh: list[_Put] = []
        places: list[int] = []
        for index, event in enumerate(events):
            refusal, new, sets, observed = self._prepare(event, now)
            if refusal is not None or new is None:
                results[index] = refusal
                self.event_outcomes[self._bounded_type(event), "refused"] += 1
                continue
            fresh.append((new, sets, observed))
            places.append(index)
        taken = await self._put(source, fresh, cursor) if fresh or cursor is not None else []
        accepted: list[tuple[StoredEvent, _Put]] = []
        for index, put, result in zip(places, fresh, taken, strict=True):
            results[index] = result
            if isinstance(result, Accepted):
                if (kept_at := put[0].event.timestamp) != events[index].timestamp:
                    results[index] = Accepted(result.seq, kept_at)
                accepted.append((StoredEvent(result.seq, put[0].source or source, now, put[0].event), put))
            else:
                self.event_outcomes[self._bounded_type(put[0].event), "duplicate"] += 1
        if self._accept(accepted, now):
            for _ in range(TURNS):
                await trio.lowlevel.cancel_shielded_checkpoint()
        if self._unanswered:
            await self._find_unanswered()
        return [result for result in results if result is not None]

    def _is_heeded(self, event: Event) -> bool:
        """Tell whether the judge has to do with an event."""
        declared = self._types.get(event.type)
        return declared is not None and (declared.notice is not None or declared.receipt is not None)

    def receipt_of(self, stored: StoredEvent) -> Receipt | None:
        """Return what an event says of a message, None if nothing; a fault of its type's is named and counted."""
        declared, event = self._types.get(stored.event.type), stored.event
        if declared is None or declared.receipt is None:
            return None
        try:
            said = declared.receipt(msgspec.convert(event.data, declared.data))
            if said is None:
                return None
            receipt = receipt_in_writing(said, ("accepted", "delivered", "failed"))
            if receipt is None or (receipt.message_id is None and receipt.provider_id is None):
                raise TypeError(f"returned {kind_of(said)}, not a Receipt with a message's id")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's code may raise anything; it is contained
            self._blame(declared, event, error)
            return None
        return receipt

    def notice_of(self, stored: StoredEvent) -> tuple[str, dict[str, str]]:
        """Return an event's notice in one line and its labels for routes, "" and none if its type has none to say; a fault
        of its type's is named and counted."""
        declared, event = self._types.get(stored.event.type), stored.event
        if declared is None or (declared.notice_text is None and declared.notice_labels is None):
            return "", {}
        try:
            data = msgspec.convert(event.data, declared.data)
            text = "" if declared.notice_text is None else declared.notice_text(data)
            labels = {} if declared.notice_labels is None else declared.notice_labels(data)
            return msgspec.convert((one_line(text), dict(labels)), tuple[str, dict[str, str]])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's code may raise anything; it is contained
            self._blame(declared, event, error)
            return "", {}

    def _blame(self, declared: EventType, event: Event, error: BaseException) -> None:
        self.event_outcomes[declared.name, "derive_failed"] += 1
        log.error("event_type.failed", type=declared.name, event_id=event.id, error=described(error))

    async def _put(
        self, source: str, fresh: Sequence["_Put"], cursor: tuple[CheckName, Json] | None
    ) -> list[Accepted | Duplicate]:
        """Write events. What a sender repeats because the answer was lost is shown here if it was written the first time."""
        keys = [(new.source or source, new.event.id) for new, _, _ in fresh]
        repeated = {key: self._unanswered.pop(key) for key in dict.fromkeys(keys) if key in self._unanswered}
        above = self._journal.last_event_seq
        try:
            taken = await self._journal.put_events(source, [new for new, _, _ in fresh], cursor)
        except JournalBroken:
            self._failed()
            room = MAX_UNANSWERED - len(self._unanswered)
            self._unanswered |= dict(zip(keys, ((put, above) for put in fresh), strict=True)) if room > 0 else {}
            self._unanswered |= repeated
            raise
        except JournalError:
            self._failed()
            self._unanswered |= repeated
            raise
        for key, result in zip(keys, taken, strict=True):
            put, above = repeated.pop(key, (None, 0))
            if put is not None and isinstance(result, Duplicate) and result.seq > above:
                now = self._clock.now()
                self._accept([(StoredEvent(result.seq, key[0], now, put[0].event), put)], now)
        return taken

    async def _find_unanswered(self) -> None:
        """A later write was answered, so that the fate of those before it is known: show what was written of them."""
        missing, self._unanswered = self._unanswered, {}
        try:
            found = await self._written_of(missing)
        except JournalError as error:
            log.warning("events.unanswered", count=len(missing), error=str(error))
        else:
            missing = {}
            self._accept(found, self._clock.now())
        finally:
            self._unanswered |= missing

    async def _written_of(
        self, missing: "Mapping[tuple[str, str], tuple[_Put, int]]"
    ) -> "list[tuple[StoredEvent, _Put]]":
        found: list[tuple[StoredEvent, _Put]] = []
        after = min(above for _, above in missing.values())
        while page := await self._journal.events(after, limit=REPLAY_PAGE):
            after = page[-1].seq
            for stored in page:
                put, above = missing.get((stored.source, stored.event.id), (None, 0))
                if put is not None and stored.seq > above:
                    found.append((stored, put))
        return found

    def _accept(self, accepted: Sequence[tuple[StoredEvent, "_Put"]], now: float) -> bool:
        """Events are in the journal: count and show them, and say so. Tells whether rules or judge have to do with them."""
        touched: set[RuleName] = set()
        for stored, (new, sets, observed) in accepted:
            self.event_outcomes[self._bounded_type(new.event), "accepted"] += 1
            touched |= self._show(new, stored.seq, sets, observed, now)
        if accepted:
            self._touch(frozenset(touched))
            self._committed([stored for stored, _ in accepted])
        return bool(touched) or any(self._is_heeded(stored.event) for stored, _ in accepted)

    async def observe_again(self) -> int:
        """After a crash: put what events of the last minutes observed back into sketches that were not yet written.

        A minute that has a sketch is left as it is. Returns how many values were put back. Before the first event.
        """
        now = self._clock.now()
        types = [name for name, event_type in self._types.items() if event_type.observes is not None]
        missing: dict[tuple[Series, int], bool] = {}
        count, seq = 0, 0
        while page := await self._journal.events(seq, types=types, start=now - REPLAY_S, limit=REPLAY_PAGE):
            seq = page[-1].seq
            for stored in page:
                _, _, _, observed = self._prepare(stored.event, now)
                at_ms = round(stored.event.timestamp * 1000)
                for series, values in observed.items():
                    key = (series, at_ms // MINUTE_MS)
                    if key not in missing:
                        missing[key] = self._window.sketch(series, at_ms, at_ms) is None
                    if missing[key]:
                        self._window.observe(series, at_ms, values)
                        count += sum(values.values())
        return count

    def _show(self, new: NewEvent, seq: int, sets: "_Rows", observed: "_Observed", now: float) -> set[RuleName]:
        """Make an accepted event visible: its counts as steps, its observations in sketches, its gauges as samples.

        Of events that wait for one commit any may get here first: a gauge keeps what the one of highest number set.
        """
        touched: set[RuleName] = set()
        for series, at_ms, add in new.increments:
            touched |= self._window.step(series, at_ms, add)
        at_ms = round(new.event.timestamp * 1000)
        for series, values in observed.items():
            self._window.observe(series, at_ms, values)
        sets = [row for row in sets if seq >= self._set_by.get(row[0], 0)]
        if sets:
            self._set_by.update((series, seq) for series, _ in sets)
            appended = self._window.append(
                EVENTS_CHECK, round(now * 1000), sets, complete=False, stale_after_ms=NEVER_STALE_MS
            )
            self._persist(appended.rows)
            touched |= appended.touched
        return touched

    def _bounded_type(self, event: Any) -> str:
        """The type as a label value; undeclared ones share one, so that no client makes series at will."""
        name = getattr(event, "type", None)
        return name if name in self._types else "other"

    def _prepare(self, event: Event, now: float) -> "tuple[Refused | None, NewEvent | None, _Rows, _Observed]":
        refusal = _refusal(event)
        if refusal is not None:
            return refusal, None, [], {}
        if event.timestamp > now + CLOCK_SKEW_S:
            self.clamped_times += 1
            event = msgspec.structs.replace(event, timestamp=now)
        if self.privacy is not None and (kept := self.privacy.masked(event.data)) is not event.data:
            event = msgspec.structs.replace(event, data=kept)
        declared = self._types.get(event.type)
        if declared is None:
            return None, NewEvent(event, now, ()), [], {}
        try:
            data = msgspec.convert(event.data, declared.data)
        except msgspec.ValidationError as error:
            return _data_refusal(error), None, [], {}
        except Exception as error:  # noqa: BLE001 - the form of the data is a plugin's class; it may do anything
            return Refused("data", described(error)), None, [], {}
        at_ms = round(event.timestamp * 1000)
        counted = self._derive(declared, declared.counts, data, event)
        seen = self._derive(declared, declared.observes, data, event, ("", "_sum", "_count"))
        sets = [(series, value) for series, value, _ in self._derive(declared, declared.sets, data, event)]
        increments = [(series, at_ms, value) for series, value, _ in counted]
        observed: _Observed = {}
        for series, value, times in seen:
            if series.kind is MetricKind.SUMMARY:
                values = observed.setdefault(series, {})
                values[value] = values.get(value, 0) + times
            elif series.metric.endswith(("_sum", "_count")):
                increments.append((series, at_ms, times if series.metric.endswith("_count") else value * times))
        of = f"type:{declared.name}" if declared.shared else ""
        return None, NewEvent(event, now, tuple(increments), of), sets, observed

    def _derive(
        self,
        declared: EventType,
        derive: Callable[[Any], Sequence[Sample]] | None,
        data: object,
        event: Event,
        suffixes: Sequence[str] = ("",),
    ) -> list[tuple[Series, float, int]]:
        """Call a plugin's function of an event, for series, value and how often. What it raises or returns amiss is named
        and counted, the event stays."""
        if derive is None:
            return []
        rows: list[tuple[Series, float, int]] = []
        try:
            for sample in derive(data):
                if not isinstance(sample, Sample) or not math.isfinite(sample.value):
                    raise TypeError(f"returned a {type(sample).__name__}, not a sample with a finite value")
                if not isinstance(sample.metric, str) or not _METRIC_NAME.fullmatch(sample.metric):
                    raise ValueError("returned a sample without a metric name")
                if sample.kind is MetricKind.COUNTER and sample.value < 0:
                    raise ValueError(f"{sample.metric} is a counter and cannot fall by {-sample.value:g}")
                if not isinstance(sample.times, int) or sample.times < 1:
                    raise ValueError(f"{sample.metric} was observed {sample.times!r:.20} times")
                _validate_labels(sample.labels)
                rows += [(self._series_of(sample, suffix), sample.value, sample.times) for suffix in suffixes]
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's code may raise anything; it is contained
            self._blame(declared, event, error)
            return []
        return rows


class _LimitError(ValueError):
    """There are more series than there may be."""


def _named(sample: object, error: Exception) -> tuple[str, str, str]:
    """Return what was refused, why, and its labels as an example.

    A fault of its form comes first: what Python says of one without a form tells nobody anything.
    """
    if not isinstance(sample, Sample):
        return type(sample).__name__, "is not a Sample", ""
    try:
        _validate_form(sample)
    except Exception as fault:  # noqa: BLE001 - as in `_rows`
        error = fault
    name = sample.metric[:100] if isinstance(sample.metric, str) else f"a {type(sample.metric).__name__}"
    return name, words_of(error), _shown_labels(sample.labels)


def _shown_labels(labels: object) -> str:
    try:
        pairs = ",".join(f'{name}="{value}"' for name, value in labels)  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - it was refused, perhaps for its labels
        return f"(labels that cannot be shown: {type(error).__name__})"
    return f"{{{pairs}}}" if pairs else ""


def is_well_formed(sample: object) -> bool:
    """Tell whether a sample has the form of one, whatever its check has declared."""
    try:
        _validate_form(sample)
        float(sample.value)  # type: ignore[attr-defined]  # the line before has made sure
    except Exception:  # noqa: BLE001 - as in `_rows`
        return False
    return True


def _validate_form(sample: object) -> None:
    """Raise ValueError or TypeError that names the fault."""
    if not isinstance(sample, Sample):
        raise TypeError("is not a Sample")
    if not isinstance(sample.metric, str) or not _METRIC_NAME.fullmatch(sample.metric) or len(sample.metric) > 200:
        raise ValueError("is not a metric name")
    _validate_labels(sample.labels)
    if not isinstance(sample.kind, MetricKind):
        raise TypeError(f"has a kind that is none: {sample.kind!r:.60}")


def _validate_labels(labels: Labels) -> None:
    if not isinstance(labels, tuple) or len(labels) > MAX_LABELS:
        raise ValueError(f"has labels that are not a tuple of at most {MAX_LABELS} pairs")
    for pair in labels:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError("has a label that is not a (name, value) pair")
        name, value = pair
        if not isinstance(name, str) or not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
            raise ValueError(f"has a label name that is not one: {name!r:.60}")
        if name == "check":
            raise ValueError('has the label "check", which the engine sets')
        if not isinstance(value, str) or len(value) > MAX_LABEL_VALUE:
            raise ValueError(f"has a label {name} whose value is not text of at most {MAX_LABEL_VALUE} characters")
        if "\0" in value or not _is_unicode(value):
            raise ValueError(f"has a label {name} whose value is not text: {value!r:.60}")


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be written: one with half a surrogate pair (of a file's name, say) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(event: object) -> Refused | None:
    """Say what is wrong with the envelope of an event, or None."""
    if not isinstance(event, Event):
        return Refused("", "is not an Event")
    if not isinstance(event.id, str) or not 0 < len(event.id) <= MAX_EVENT_ID or not event.id.isprintable():
        return Refused("id", f"is not printable text of 1 to {MAX_EVENT_ID} characters")
    if not isinstance(event.type, str) or not _EVENT_TYPE.fullmatch(event.type):
        return Refused("type", "is not a name such as ticket_sale (letters, digits, _ . -, at most 64)")
    if not isinstance(event.timestamp, int | float) or not 0 < event.timestamp < 1e11:
        return Refused("timestamp", "is not a time; write 2026-11-23T21:07:30.123Z or unix seconds")
    if not isinstance(event.data, dict):
        return Refused("data", "is not an object")
    try:
        written = msgspec.json.encode(event.data)
    except (TypeError, ValueError, RecursionError) as error:
        return Refused("data", f"cannot be written as JSON: {error}")
    if len(written) > MAX_EVENT_BYTES:
        return Refused("data", f"is {len(written)} bytes; at most {MAX_EVENT_BYTES} are kept")
    if written.count(b"{") + written.count(b"[") > MAX_EVENT_DEPTH and _is_deeper(event.data, MAX_EVENT_DEPTH):
        return Refused("data", f"nests objects or lists more than {MAX_EVENT_DEPTH} deep")
    return None


def _is_deeper(value: object, depth: int) -> bool:
    """Tell whether objects and lists are nested deeper; looks at one level after the other."""
    level = [value]
    for _ in range(depth):
        parts = (
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list | tuple)
        )
        level = [part for each in parts for part in each]
    return any(isinstance(one, dict | list | tuple) for one in level)


def _data_refusal(error: msgspec.ValidationError) -> Refused:
    """Name the field of an event's data, and the fault."""
    path, message = unfit(error)
    return Refused(f"data.{path}" if path else "data", message)
