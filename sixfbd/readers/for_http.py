"""The daemon as the HTTP room sees it (`sixfbd.http.engine.HttpEngine`): facts of the parts in the room's forms."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import trio
from prometheus_client import Metric

from sixfbd import __version__
from sixfbd.config import Site
from sixfbd.http.engine import (
    Answered,
    Encoder,
    EngineUnavailable,
    EventResult,
    QueryAnswer,
    QueryFailed,
    QueryRefused,
    QueryTooLong,
    ReportInfo,
    ResultSeries,
    TokenInfo,
    WebhookTaken,
)
from sixfbd.intake import Refused
from sixfbd.journal.errors import JournalError
from sixfbd.journal.event_log import Accepted
from sixfbd.journal.record_log import AmbiguousIdError
from sixfbd.model import Ack, Actor, Alert, CheckState, Command, Event, Outcome, Silence, StoredEvent
from sixfbd.promql import PromQLError, QueryError, QueryStopped, Value
from sixfbd.readers import tokens
from sixfbd.readers.addresses import Addresses
from sixfbd.readers.condition import blind_before_start_s, nobody_told, problems
from sixfbd.readers.exposition import Exposition
from sixfbd.readers.families import metric_families
from sixfbd.readers.health import health_body, iso_time
from sixfbd.readers.queries import selector_matchers
from sixfbd.readers.reports import listed, report
from sixfbd.readers.why import why
from sixfbd.readers.why_not import why_not
from sixfbd.running import Running
from sixfbd.vitals import DOCS
from sixfbd.window.window import Newest

FORMS: Final = 4  # of /metrics that are kept; clients choose


class HttpView:
    """`HttpEngine` over a running daemon."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.requests: Counter[tuple[str, int]] = Counter()
        self.request_seconds = 0.0
        self._expositions: dict[str, Exposition] = {}
        self._rendering = trio.Lock()

    @property
    def version(self) -> str:
        return __version__

    @property
    def site(self) -> Site:
        return self._running.config.site

    @property
    def sandbox(self) -> bool:
        return self._running.config.daemon.sandbox

    def now(self) -> float:
        return self._running.world.clock.now()

    def new_id(self) -> str:
        return self._running.world.new_id("event")

    def ready(self) -> tuple[bool, str]:
        if not self._running.ready:
            return False, "the daemon is starting"
        if self._running.stop.is_set():
            return False, "the daemon is stopping"
        if self._running.judge.journal_failing:
            return False, f"the journal cannot be written: {self._running.judge.last_journal_error}"
        return True, ""

    def checks(self) -> Sequence[CheckState]:
        return self._running.schedule.states()

    def alerts(self) -> Sequence[Alert]:
        return list(self._running.judge.state.alerts.values())

    def token(self, secret: str) -> TokenInfo | None:
        state = self._running.judge.state
        made = {name: state.tokens[name] for name in state.tokens}
        found = tokens.find(secret, self._running.config.tokens, made)
        return None if found is None else TokenInfo(*found)

    def answered(self, request: Answered) -> None:
        self.requests[request.route or "none", request.status] += 1
        self.request_seconds += request.duration_s

    async def health(self) -> dict[str, Any]:
        running = self._running
        await trio.lowlevel.checkpoint()
        classes = [entry.cls for entry in running.catalog.checks.values()]
        journal = running.judge.last_journal_error if running.judge.journal_failing else ""
        cpu = running.vitals.cpu_usage_ratio
        timestamp = iso_time(self.now())
        assert timestamp is not None
        return health_body(
            running.schedule.states(),
            {cls.service for cls in classes if cls.service},
            {cls.external for cls in classes if cls.external},
            journal_failing=journal,
            disk_problems=problems(running),
            blind_before_start_s=blind_before_start_s(running.judge.state.started),
            now=self.now(),
            started_at=running.started_at,
            version=__version__,
            timestamp=timestamp,
            metrics={
                "memory": {"rss": running.vitals.resident_bytes},
                "cpu": {"usage": cpu},
                "eventLoop": {"delay": round(running.vitals.loop_delay_s * 1000, 3)},
                "clock": _clock(running),
            },
        )

    async def exposition(self, encode: Encoder, form: str) -> bytes:
        running = self._running
        plugins = Counter(instance.plugin for instance in running.checks.values())
        lonely = frozenset(name for name, instance in running.checks.items() if plugins[instance.plugin] == 1)
        summaries = frozenset(summary.name for summary in running.intake.summaries)
        catalog = running.catalog

        def families(newest: Newest) -> Sequence[Metric]:
            docs = {name: metric.doc for name, metric in catalog.metrics.items()} | DOCS
            return metric_families(newest.series(), docs, summaries, lonely)

        async with self._rendering:
            rendered = self._expositions.pop(form, None) or Exposition(encode)
            self._expositions[form] = rendered
            if len(self._expositions) > FORMS:
                del self._expositions[next(iter(self._expositions))]
            newest = running.window.newest(round(self.now() * 1000))
            key = (id(catalog), lonely, summaries)
            if not rendered.fits(newest, key):
                await trio.to_thread.run_sync(rendered.lay_out, newest, key, families)
            for _ in rendered.take(newest):
                await trio.lowlevel.checkpoint()
            return rendered.page()

    # ---- queries ---------------------------------------------------------------------------------------------------------

    async def query(self, expr: str, time: float) -> QueryAnswer:
        return _answer(await self._evaluate(expr, time, time, 1.0), instant=True)

    async def query_range(self, expr: str, start: float, end: float, step: float) -> QueryAnswer:
        return _answer(await self._evaluate(expr, start, end, step), instant=False)

    async def _evaluate(self, expr: str, start: float, end: float, step: float) -> Value:
        with _no_answer():
            _, value = await self._running.reader.evaluate(expr, start, end, step)
        return value

    async def series(self, selectors: Sequence[str], start: float, end: float) -> Sequence[Mapping[str, str]]:
        lo_ms, hi_ms = round(start * 1000), round(end * 1000)
        snapshot = self._running.window.snapshot()

        def find() -> list[dict[str, str]]:
            found = {}
            for wanted in [selector_matchers(selector) for selector in selectors] or [()]:
                for block in snapshot.select(wanted, lo_ms, hi_ms):
                    for series in block.series:
                        found[series] = {"__name__": series.metric} | dict(series.labels)
            return list(found.values())

        try:
            return await self._running.reader.offload(find)
        except PromQLError as error:
            raise QueryRefused(error.message, error.line, error.column) from error

    # ---- events ----------------------------------------------------------------------------------------------------------

    async def put_events(self, source: str, events: Sequence[Event]) -> Sequence[EventResult]:
        with _unavailable():
            taken = await self._running.intake.events(source, events)
        return [event_result(one) for one in taken]

    async def webhook(
        self, name: str, url: str, query: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> WebhookTaken | None:
        public = self._running.config.http.public
        if public is None:  # a reload has taken it away; the connection is the last of it
            return None
        return await self._running.inbound.receive(
            name, url, query, headers, body, rate=public.max_rate, limit_s=float(public.request_timeout)
        )

    def last_seq(self) -> int:
        return self._running.journal.last_event_seq

    async def events_after(self, seq: int, types: Sequence[str], limit: int) -> Sequence[StoredEvent]:
        with _unavailable():
            return await self._running.journal.events(seq, types=types or None, limit=limit)

    async def last_events(self, types: Sequence[str], limit: int) -> Sequence[StoredEvent]:
        with _unavailable():
            newest = await self._running.journal.events(types=types or None, limit=limit, newest_first=True)
        return newest[::-1]

    async def wait_events(self, seq: int) -> None:
        bell = self._running.changed
        while self.last_seq() <= seq:
            await bell.wait(bell.generation)

    async def wait_changed(self, generation: int) -> int:
        return await self._running.changed.wait(generation)

    def silences(self) -> Sequence[Silence]:
        return list(self._running.judge.state.silences.values())

    async def command(self, command: Command, by: Actor) -> Outcome:
        return await self._running.judge.command(command, by)

    def nobody_told(self) -> str:
        return nobody_told(self._running)

    def incident(self, alert: str) -> Alert | None:
        return self._running.judge.state.incident(alert)

    async def why(self, alert: str) -> Mapping[str, Any] | None:
        shown = Addresses(self._running.config, self._running.catalog)
        try:
            with _unavailable():
                found = await why(self._running, alert, shown)
        except AmbiguousIdError as error:
            raise QueryRefused(str(error)) from error
        return None if found is None else msgspec.to_builtins(found)

    async def why_not(self, rule: str, labels: Mapping[str, str], at: float | None) -> Mapping[str, Any] | None:
        if rule not in self._running.evaluator.rules.rules:
            return None
        with _no_answer():
            found: Mapping[str, Any] = msgspec.to_builtins(await why_not(self._running, rule, labels, at))
        return found

    def reports(self) -> Sequence[ReportInfo]:
        return listed(self._running)

    async def report(self, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]:
        with _unavailable():
            return await report(self._running, name, timeframe_s, check, about)

    def is_ack_link(self, alert: str, receiver: str, signature: str) -> bool:
        return self._running.outbox.place.links.is_genuine(alert, receiver, signature)

    async def ack(self, alert: str, comment: str, by: Actor) -> Outcome:
        return await self._running.judge.command(Ack(alert, comment), by)


@contextmanager
def _no_answer() -> Iterator[None]:
    """Raise the room's error in place of a query's."""
    try:
        yield
    except PromQLError as error:
        raise QueryRefused(error.message, error.line, error.column) from error
    except QueryError as error:
        raise QueryFailed(str(error)) from error
    except QueryStopped as error:
        raise QueryTooLong(str(error)) from error


@contextmanager
def _unavailable() -> Iterator[None]:
    """Raise the room's error in place of the journal's."""
    try:
        yield
    except JournalError as error:
        raise EngineUnavailable(str(error)) from error


def _clock(running: Running) -> dict[str, Any]:
    """How far the wall clock is ahead of engine time, and when nothing ran last; in seconds."""
    shown: dict[str, Any] = {"offset": round(running.clock.wall_offset_s(), 3)}
    if running.stood_still is not None:
        since, until = running.stood_still
        shown |= {"stoodStill": round(until - since, 3), "stoodStillUntil": iso_time(until)}
    return shown


def event_result(taken: object) -> EventResult:
    """Return the room's form of what intake said of one event."""
    if isinstance(taken, Refused):
        return EventResult("refused", field=taken.field, message=taken.message)
    if isinstance(taken, Accepted):
        return EventResult("accepted", taken.seq, kept_at=taken.kept_at)
    return EventResult("duplicate", getattr(taken, "seq", None))


def _points(value: Value) -> list[tuple[tuple[float, float], ...]]:
    times = [at / 1000 for at in value.steps_ms.tolist()]
    return [
        tuple((at, v) for at, v, there in zip(times, row, present, strict=True) if there)
        for row, present in zip(value.values.tolist(), value.present.tolist(), strict=True)
    ]


def _answer(value: Value, *, instant: bool) -> QueryAnswer:
    """A range query's scalar is a matrix of one series, as in Prometheus."""
    if value.kind == "string":
        return QueryAnswer("string", (ResultSeries({}, ((float(value.steps_ms[0]) / 1000, 0.0),)),), value.text)
    rows = tuple(
        ResultSeries(labels, points)
        for labels, points in zip(value.label_dicts(), _points(value), strict=True)
        if points
    )
    kind = value.kind if instant else "matrix"
    return QueryAnswer(kind, rows)
