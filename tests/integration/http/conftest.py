"""An engine in memory behind the real room: real hypercorn on loopback, a real client."""

import hmac
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import trio
from msgspec.structs import replace
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from sixfbd.config import Http, Site
from sixfbd.control.engine import WhyView
from sixfbd.http.engine import (
    Answered,
    Encoder,
    EventResult,
    Point,
    QueryAnswer,
    QueryFailed,
    QueryRefused,
    QueryTooLong,
    ReportFailed,
    ReportInfo,
    ResultSeries,
    TokenInfo,
)
from sixfbd.http.server import HttpServer, begin_listening, bind_listener
from sixfbd.model import (
    Actor,
    AddSilence,
    Alert,
    AlertKey,
    AlertState,
    CheckName,
    CheckState,
    Command,
    Event,
    Outcome,
    RuleName,
    Severity,
    Silence,
    Status,
    StoredEvent,
    labels_of,
)
from sixfbd.quantities import Duration, Size
from sixfbd.readers.exposition import encode_families

NOW = 1_795_471_650.0  # 2026-11-23T22:07:30Z
TOKENS = {
    "token-of-the-shop": TokenInfo("shop", ("events",)),
    "token-of-grafana": TokenInfo("grafana", ("read",)),
    "token-of-the-guard": TokenInfo("guard", ("alerts", "read")),
}

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"'><svg onload=document.title='owned'>",
    "</textarea></style></script><iframe src=javascript:document.title='owned'>",
    "{{ 7 * 191 }}{% raw %}",
    "\u202egnp.exe\u2066\x1b[31m\x00",
    "javascript:alert(1)",
)


def alert(name: str, severity: Severity, state: AlertState = AlertState.FIRING, **labels: str) -> Alert:
    return Alert(
        key=AlertKey(RuleName(name), labels_of(labels)),
        id=f"incident-{name}",
        state=state,
        since=NOW - 90,
        severity=severity,
        value=0.0,
        labels={"alertname": name, "severity": str(severity), **labels},
        annotations={"summary": f"{name} went wrong"},
        pending_at=NOW - 120,
        fired_at=NOW - 90 if state is AlertState.FIRING else None,
    )


class EngineInMemory:
    """What HttpEngine asks for, in memory: events are numbered and followed, everything else is as the test sets it."""

    def __init__(self) -> None:
        self.version = "1.2.3"
        self.site = Site(name="Workshop <Dallas>", environment="staging")
        self.sandbox = False
        self.readiness = (True, "")
        self.status = "healthy"
        self.check_states: list[CheckState] = []
        self.alert_list: list[Alert] = []
        self.metric_families: list[Metric] = []
        self.ranges: dict[str, tuple[ResultSeries, ...]] = {}
        self.range_error: Exception | None = None
        self.events: list[StoredEvent] = []
        self.answered_requests: list[Answered] = []
        self.acked: list[tuple[str, str, Actor]] = []
        self.silence_list: list[Silence] = []
        self.untold = ""
        self.commands: list[tuple[Command, Actor]] = []
        self.families_asked = 0
        self.generation = 0
        self.before_put: Callable[[], Any] | None = None
        self._ids = 0
        self._news = trio.Event()

    def now(self) -> float:
        return NOW

    def new_id(self) -> str:
        self._ids += 1
        return f"made-{self._ids}"

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    def checks(self) -> Sequence[CheckState]:
        return self.check_states

    def alerts(self) -> Sequence[Alert]:
        return self.alert_list

    def token(self, secret: str) -> TokenInfo | None:
        return next((info for known, info in TOKENS.items() if hmac.compare_digest(known, secret)), None)

    def answered(self, request: Answered) -> None:
        self.answered_requests.append(request)

    async def health(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "timestamp": "2026-11-23T22:07:30.000Z",
            "uptime": 12.5,
            "version": self.version,
            "services": {},
            "metrics": {},
            "external": {},
        }

    async def exposition(self, encode: Encoder, form: str) -> bytes:
        self.families_asked += 1
        return encode_families(encode, self.metric_families)

    async def query(self, expr: str, time: float) -> QueryAnswer:
        if expr == "nonsense(":
            raise QueryRefused("unexpected end of input", 1, 10)
        if expr == "many * many":
            raise QueryFailed("many-to-many matching is not allowed")
        if expr == "everything":
            raise QueryTooLong("the query ran longer than 10 s")
        if expr == "hang":
            await trio.sleep(60)
        if expr == "explode":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._explode)
        if expr == "1":
            return QueryAnswer("scalar", (ResultSeries({}, ((time, 1.0),)),))
        if expr == '"text"':
            return QueryAnswer("string", (ResultSeries({}, ((time, math.nan),)),), "text")
        labels = {"__name__": expr, "check": "web"}
        return QueryAnswer("vector", (ResultSeries(labels, ((time, math.inf),)), ResultSeries({}, ((time, 1e-7),))))

    async def _explode(self) -> None:
        raise RuntimeError("a fault with a secret in it: hunter2")

    async def query_range(self, expr: str, start: float, end: float, step: float) -> QueryAnswer:
        if self.range_error is not None:
            raise self.range_error
        if expr != "up":
            return QueryAnswer("matrix", self.ranges.get(expr, ()))
        points: list[Point] = []
        while start <= end:
            points.append((start, start - NOW))
            start += step
        return QueryAnswer("matrix", (ResultSeries({"__name__": expr}, tuple(points)),))

    async def series(self, selectors: Sequence[str], start: float, end: float) -> Sequence[Mapping[str, str]]:
        known = [
            {"__name__": "up", "check": "web"},
            {"__name__": "up", "check": "api", "zone": "b"},
            {"__name__": "load"},
        ]
        if "{" in selectors:
            raise QueryRefused("unexpected end of input", 1, 2)
        return [labels for labels in known if not selectors or labels["__name__"] in selectors]

    async def put_events(self, source: str, events: Sequence[Event]) -> Sequence[EventResult]:
        await trio.lowlevel.checkpoint()
        if self.before_put is not None:
            self.before_put()
        results: list[EventResult] = []
        seqs = {stored.event.id: stored.seq for stored in self.events}
        for event in events:
            known = seqs.get(event.id)
            if event.type == "impossible":
                results.append(EventResult("refused", field="data.amount", message="is below zero"))
            elif known is not None:
                results.append(EventResult("duplicate", known))
            else:
                self.events.append(StoredEvent(len(self.events) + 1, source, NOW, event))
                seqs[event.id] = len(self.events)
                results.append(EventResult("accepted", len(self.events)))
        self.changed()
        return results

    def changed(self) -> None:
        self.generation += 1
        self._news.set()
        self._news = trio.Event()

    def last_seq(self) -> int:
        return len(self.events)

    async def events_after(self, seq: int, types: Sequence[str], limit: int) -> Sequence[StoredEvent]:
        found = [stored for stored in self.events if stored.seq > seq and (not types or stored.event.type in types)]
        return found[:limit]

    async def last_events(self, types: Sequence[str], limit: int) -> Sequence[StoredEvent]:
        return [stored for stored in self.events if not types or stored.event.type in types][-limit:]

    async def wait_events(self, seq: int) -> None:
        while len(self.events) <= seq:
            await self._news.wait()

    async def wait_changed(self, generation: int) -> int:
        while self.generation <= generation:
            await self._news.wait()
        return self.generation

    def nobody_told(self) -> str:
        return self.untold

    def incident(self, alert: str) -> Alert | None:
        return next((one for one in self.alert_list if one.id == alert), None)

    async def why(self, alert: str) -> Mapping[str, Any] | None:
        if alert == "i":
            raise QueryRefused("i is the beginning of more than one id")
        found = self.incident(alert)
        return None if found is None else msgspec.to_builtins(WhyView(alert=found))

    async def why_not(self, rule: str, labels: Mapping[str, str], at: float | None) -> Mapping[str, Any] | None:
        if rule == "Many":
            raise QueryFailed("many to many")
        return {"rule": rule, "labels": dict(labels), "at": at} if rule == "Down" else None

    def reports(self) -> Sequence[ReportInfo]:
        return [
            ReportInfo(name, name.title(), "Of the tests.", "1d", f"/api/monitoring/{name}")
            for name in ("broken", "sales")
        ]

    async def report(self, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]:
        if name == "broken":
            raise ReportFailed("report broken of plugin tests: ValueError: no")
        if name != "sales":
            raise KeyError(name)
        return {"sold": None, "timeframe_s": timeframe_s, "check": check, "unknown": {"sold": "nobody counts"}}

    def is_ack_link(self, alert: str, receiver: str, signature: str) -> bool:
        return signature == "right"

    def silences(self) -> Sequence[Silence]:
        return self.silence_list

    async def command(self, command: Command, by: Actor) -> Outcome:
        self.commands.append((command, by))
        if isinstance(command, AddSilence) and command.duration_s <= 0:
            return Outcome(False, error="a silence must last for more than 0s")
        return Outcome(True, "done", id="silence-1")

    async def ack(self, alert: str, comment: str, by: Actor) -> Outcome:
        found = next(one for one in self.alert_list if one.id == alert)
        if found.state is not AlertState.FIRING:
            return Outcome(False, error="only a firing alert can be acknowledged; this one is pending")
        self.acked.append((alert, comment, by))
        return Outcome(True, "acknowledged")


@pytest.fixture
async def engine() -> EngineInMemory:
    return EngineInMemory()


@pytest.fixture
def http_config() -> Http:
    return Http(
        max_body=Size(64 * 1024), body_timeout=Duration(0.5), request_timeout=Duration(0.5), hosts=("ops.example.com",)
    )


@pytest.fixture
def serving() -> Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]:
    """`async with serving(engine, config) as client`: a client of a room that serves until the block ends."""

    @asynccontextmanager
    async def serve(engine: EngineInMemory, config: Http) -> AsyncIterator[httpx.AsyncClient]:
        stop = trio.Event()
        with HttpServer(config, bind_listener("127.0.0.1:0")) as server:
            begin_listening(server.listener)
            async with trio.open_nursery() as nursery:
                url = await nursery.start(server.serve, engine, stop)
                async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False, verify=False) as client:
                    yield client
                stop.set()

    return serve


@pytest.fixture
async def client(engine, http_config, serving) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(engine, http_config) as connected:
        yield connected


@pytest.fixture
def shop() -> dict[str, str]:
    return {"Authorization": "Bearer token-of-the-shop"}


@pytest.fixture
def busy(engine) -> EngineInMemory:
    """The engine with something of everything."""
    engine.check_states = [
        CheckState(
            CheckName("web"),
            "webhook",
            30.0,
            Status.HEALTHY,
            "answered 200 in 12 ms",
            last_run_at=NOW - 12,
            next_run_at=NOW + 18,
        ),
        CheckState(
            CheckName("db"),
            "scrape",
            60.0,
            Status.UNHEALTHY,
            "<script>alert(1)</script> refused",
            last_run_at=NOW - 300,
            running=True,
        ),
        CheckState(CheckName("old"), "scrape", 60.0, paused=True),
    ]
    engine.alert_list = [
        alert("Slow", Severity.MEDIUM, AlertState.PENDING, check="web"),
        alert("Down", Severity.CRITICAL, check="db"),
        replace(alert("Warm", Severity.LOW, check="machine"), acked_by="token:guard", acked_at=NOW - 5, blind=True),
    ]
    engine.metric_families = [
        GaugeMetricFamily("up", "Whether it answers.", labels=["check"]),
        CounterMetricFamily("jobs", "Jobs done.", value=3),
    ]
    engine.metric_families[0].add_metric(["web"], 1)
    points = tuple((NOW - 3600 + 30 * step, 0.3 + 0.2 * math.sin(step / 7)) for step in range(120))
    with_gap = tuple(point for point in points if not NOW - 2000 < point[0] < NOW - 1500)
    slow = tuple((at, value / 3) for at, value in points)
    engine.ranges = {
        "max by (check) (system_cpu_usage_ratio)": (ResultSeries({"check": "web"}, with_gap),),
        "max by (instance, check) (probe_duration_seconds)": (
            ResultSeries({"instance": "shop", "check": "web"}, slow),
            ResultSeries({"instance": "api", "check": "db"}, points),
            ResultSeries({"instance": "bygone", "check": "removed"}, points),
        ),
    }
    for number in range(1, 26):
        event = Event(
            f"order-{number}", "ticket_sale" if number % 5 else "request", NOW - 60 + number, {"quantity": number}
        )
        engine.events.append(StoredEvent(number, "token:shop", NOW - 60 + number, event))
    return engine


@pytest.fixture
def made_hostile(engine, busy) -> Callable[[], None]:
    """Puts hostile text, and 10 kB of it, into whatever somebody else names on the page."""

    def make() -> None:
        text = " ".join(HOSTILE)
        labels = {"check": text, "long": "<&" * 5000, "quote": "\"'"}
        one = replace(engine.alert_list[0], key=AlertKey(RuleName(text), ()), labels=labels, acked_by=text)
        engine.alert_list = [
            replace(one, annotations={"summary": text}),
            replace(one, annotations={"description": text}),
        ]
        engine.check_states = [
            replace(engine.check_states[0], name=CheckName(text), plugin=text, summary=text + "\ud800" + "x" * 10_000)
        ]
        engine.events = [StoredEvent(1, text, 1.0, Event(text, text, 1.0, {text: text, "long": "<" * 10_000}))]
        expr = "max by (instance, check) (probe_duration_seconds)"
        engine.ranges = {
            expr: tuple(replace(one, labels={"instance": f"{text}{n}"}) for n, one in enumerate(engine.ranges[expr]))
        }
        engine.site = Site(name=text, environment=text)
        engine.readiness = (False, text)
        engine.changed()

    return make
