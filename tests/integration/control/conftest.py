"""A control socket that is really served, from a thread of its own, by an engine that plays its part."""

import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from sixfbd.control.engine import (
    BackupView,
    CheckRun,
    ControlEngine,
    EmitView,
    ErasedView,
    EscalationView,
    JournalView,
    MessageView,
    NotifyTestView,
    OnCallView,
    OutboxView,
    PluginOption,
    PluginView,
    PreviewAlert,
    PreviewView,
    QuerySeries,
    QueryView,
    ReleaseView,
    ReloadView,
    Routed,
    RouteTestView,
    RouteView,
    SelectorFound,
    SeriesLine,
    SeriesView,
    SilenceMade,
    SilencePreview,
    SilenceView,
    StatusView,
    StopView,
    TestedTarget,
    TokenMade,
    TokenView,
    VerifyView,
    WhyNotCheck,
    WhyNotRow,
    WhyNotView,
    WhyView,
    alert_view,
    number,
)
from sixfbd.control.methods import methods_of
from sixfbd.control.protocol import Refused
from sixfbd.control.server import Limits, serve_control
from sixfbd.http.engine import ReportInfo
from sixfbd.journal.records import Acked, AlertChanged, MessageChanged, Owed
from sixfbd.model import (
    Actor,
    AddSilence,
    Alert,
    AlertKey,
    AlertState,
    CheckName,
    CheckState,
    Event,
    Evidence,
    Json,
    Message,
    MessageId,
    Obligation,
    Refusal,
    Refusals,
    Rule,
    RuleName,
    Severity,
    Status,
    StoredEvent,
    Target,
)

STARTED_AT = 1_800_000_000.0
TARGET = Target("primary", "hook")
ALERT = Alert(
    key=AlertKey(RuleName("ProbeFailed"), (("check", "shop"),)),
    id="inc-1",
    state=AlertState.FIRING,
    since=STARTED_AT + 10,
    severity=Severity.HIGH,
    value=0.0,
    labels={"alertname": "ProbeFailed", "check": "shop", "severity": "high"},
    annotations={"summary": "The shop does not answer"},
    evidence=(Evidence('probe_success{check="shop"}', 1_800_000_009_500, 0.0),),
)
MESSAGE = Message(
    id=MessageId("msg-1"),
    target=TARGET,
    state="accepted",
    created_at=STARTED_AT + 10,
    expires_at=STARTED_AT + 86_410,
    obligations=("owed-1",),
    attempt=2,
    last_error="HTTP 503",
)
OWED = Obligation(
    id="owed-1",
    kind="fire",
    target=TARGET,
    state="accepted",
    at=STARTED_AT + 10,
    subject="inc-1",
    severity=Severity.HIGH,
    about=ALERT,
    message=MESSAGE.id,
)


class PlayedEngine:
    """Answers as a daemon would, remembers what was asked, and may be told to fail, hang, or flood."""

    def __init__(self) -> None:
        self.audited: list[tuple[str, str, str]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.on_status: Callable[[], Any] | None = None
        self.on_audit: Callable[[], None] = lambda: None
        self.problems: tuple[str, ...] = ()
        self.erased: list[str] = []
        self.ready_to_end = lambda: None
        self.followers = 0
        self.stored = [self._event(1), self._event(2)]
        self.export_size = 3

    @staticmethod
    def _event(seq: int) -> StoredEvent:
        event = Event(f"sale-{seq}", "ticket_sale", STARTED_AT + seq, {"quantity": seq})
        return StoredEvent(seq, "http:shop", STARTED_AT + seq, event)

    async def status(self) -> StatusView:
        if self.on_status is not None:
            answer = self.on_status()
            return (await answer) if hasattr(answer, "__await__") else answer
        return StatusView(
            version="0.1.0",
            pid=os.getpid(),
            now=STARTED_AT + 90,
            started_at=STARTED_AT,
            site="workshop",
            http="http://127.0.0.1:9632",
            checks={"healthy": 2, "unhealthy": 1},
            alerts={"high": 1},
            messages={"accepted": 1},
            rules=7,
            series=42,
            problems=self.problems,
        )

    async def checks(self) -> Sequence[CheckState]:
        return [
            CheckState(CheckName("shop"), "webhook", 30.0, Status.UNHEALTHY, "connection refused", duration_s=0.02),
            CheckState(CheckName("machine"), "system", 15.0, Status.HEALTHY, "4 % CPU", last_run_at=STARTED_AT),
        ]

    def _known_check(self, name: str) -> None:
        if name not in ("shop", "machine"):
            raise Refused(f'there is no check "{name}"; sixfbctl checks lists them')

    async def run_check(self, name: str, actor: Actor) -> CheckRun:
        self._known_check(name)
        self.calls.append(("run_check", name, actor.name))
        return CheckRun(
            check=name,
            status=Status.HEALTHY,
            summary="200 in 3 ms",
            duration_s=0.003,
            samples=(("probe_success", 1.0), ("probe_weight", number(float("nan")))),
            events=({"type": "seen"},),
            refused=Refusals(1, (Refusal("speed: is not declared in the plugin's metrics"),))
            if name == "machine"
            else Refusals(),
        )

    async def pause_check(self, name: str, paused: bool, actor: Actor) -> str:
        self._known_check(name)
        self.calls.append(("pause_check", name, paused, actor.name))
        return f"{name} is {'paused' if paused else 'running again'}"

    async def series(self, matcher: str, limit: int) -> SeriesView:
        self.calls.append(("series", matcher, limit))
        return SeriesView((SeriesLine('up{job="shop"}', "gauge", 1.0, STARTED_AT),), 3)

    async def query(self, expr: str, at: float | None) -> QueryView:
        if expr == "up{":
            raise Refused("line 1, column 4: the braces are not closed\nup{\n   ^")
        self.calls.append(("query", expr, at))
        return QueryView("vector", (QuerySeries({"__name__": "up", "job": "shop"}, ((STARTED_AT, 1.0),)),))

    async def query_range(self, expr: str, start: float, end: float, step: float) -> QueryView:
        self.calls.append(("query_range", expr, start, end, step))
        points = tuple((start + i, float(i)) for i in range(8))
        return QueryView("matrix", (QuerySeries({"__name__": "up"}, points), QuerySeries({"a": "b"}, ())), ("cut",))

    async def alerts(self) -> Sequence[Alert]:
        return [ALERT]

    async def ack(self, alert: str, comment: str, actor: Actor) -> str:
        if alert != ALERT.id:
            raise Refused(f'no firing alert "{alert}"; sixfbctl alerts lists them')
        self.calls.append(("ack", alert, comment, actor.name))
        return f"acknowledged {alert}"

    async def silences(self) -> Sequence[SilenceView]:
        view = SilenceView(
            id="silence-1",
            state="active",
            matchers=('city="dallas"',),
            starts_at=STARTED_AT,
            ends_at=STARTED_AT + 3600,
            author="uid:1000 alice",
            comment="moving",
            matches=2,
        )
        return [view]

    async def preview_silence(self, matchers: tuple[str, ...]) -> SilencePreview:
        return SilencePreview((alert_view(ALERT),) if 'check="shop"' in matchers else ())

    async def add_silence(self, command: AddSilence, actor: Actor) -> SilenceMade:
        self.calls.append(("add_silence", command, actor.name))
        return SilenceMade("silence-1", "silence silence-1 matches 2 of the alerts that there are")

    async def expire_silence(self, silence: str, actor: Actor) -> str:
        if silence != "silence-1":
            raise Refused(f"there is no silence {silence!r}; see `sixfbctl silence list`")
        return f"silence {silence} has ended"

    async def test_notify(self, receivers: tuple[str, ...], wait_s: float, actor: Actor) -> NotifyTestView:
        self.calls.append(("test_notify", receivers, wait_s))
        reached = TestedTarget(TARGET, "accepted", 0.4)
        dead = TestedTarget(Target("boss", "sms", "…0101"), "dead", 2.0, "21610: the receiver has replied STOP")
        return NotifyTestView((reached, dead) if receivers == ("boss",) else (reached,))

    async def hold_drill(self, receivers: tuple[str, ...], wait_s: float, actor: Actor) -> NotifyTestView:
        self.calls.append(("hold_drill", receivers, wait_s))
        return NotifyTestView((TestedTarget(TARGET, "delivered", 0.4),))

    async def test_route(self, labels: dict[str, str]) -> RouteTestView:
        route = RouteView(
            path="route.routes[0]",
            matchers=('severity="critical"',),
            receiver="primary",
            targets=(TARGET,),
            group="Down",
            wait_s=10.0,
            interval_s=300.0,
            repeat_s=14_400.0,
        )
        told = labels.get("severity") == "critical"
        return RouteTestView(
            labels=labels,
            severity=Severity(labels.get("severity", "low")),
            known_rule=False,
            routes=(route,) if told else (),
            holds=("silenced by silence-1",) if told else (),
            escalations=(EscalationView("critical: boss", 300.0, "boss"),) if told else (),
            nobody="" if told else "no receiver: no route names one",
        )

    async def oncall(self, name: str | None, at: float | None) -> Sequence[OnCallView]:
        if name not in (None, "week"):
            raise Refused(f'there is no [oncall.NAME] of the name "{name}"; sixfbctl oncall lists them')
        now = 1_795_467_600.0
        moment = now if at is None else at
        two = ("anna", "bert")
        return [OnCallView(name="week", at=moment, member="anna", until=now + 3600, next_member="bert", members=two)]

    async def emit(
        self,
        type: str,  # noqa: A002 - an event's field
        data: dict[str, Any],
        id: str | None,  # noqa: A002 - an event's field
        timestamp: float | None,
        actor: Actor,
    ) -> EmitView:
        self.calls.append(("emit", type, data, id, timestamp, actor.name))
        return EmitView(id or "made-up", 3, duplicate=id == "sale-1")

    async def events(self, type: str | None, limit: int) -> Sequence[StoredEvent]:  # noqa: A002 - an event's field
        return [event for event in self.stored if type in (None, event.event.type)][-limit:]

    async def follow_events(
        self,
        type: str | None,  # noqa: A002 - an event's field
        after: int | None,
    ) -> AsyncIterator[StoredEvent]:
        self.followers += 1
        self.calls.append(("follow_events", type, after))
        try:
            yield self._event(3)
            yield self._event(4)
            await trio.sleep_forever()
        finally:
            self.followers -= 1

    async def outbox(self, state: str | None, limit: int) -> OutboxView:
        self.calls.append(("outbox", state, limit))
        return OutboxView((MESSAGE,) if state in (None, MESSAGE.state) else (), {"accepted": 1})

    async def message(self, id: str) -> MessageView:  # noqa: A002 - a message's field
        if id != MESSAGE.id:
            raise Refused(f'no message "{id}"')
        return MessageView(MESSAGE, (OWED,), (MessageChanged(STARTED_AT + 11, MESSAGE, "HTTP 200"),))

    async def drop_message(self, id: str, actor: Actor) -> str:  # noqa: A002 - a message's field
        if id != MESSAGE.id:
            raise Refused(f"no message {id} waits; see `sixfbctl outbox list --open`")
        return f"message {id} is dropped"

    async def retry_message(self, id: str, actor: Actor) -> str:  # noqa: A002 - a message's field
        return f"1 of message {id} are owed anew"

    async def why(self, alert: str) -> WhyView:
        if alert != ALERT.id:
            raise Refused(f'no alert "{alert}"')
        rule = Rule(name=ALERT.key.rule, expr="probe_success == 0", severity=Severity.HIGH, origin="plugin webhook")
        return WhyView(
            alert=ALERT,
            rule=rule,
            routes=(Routed("primary", ('severity="high"',)),),
            records=(
                AlertChanged(STARTED_AT + 10, ALERT, AlertState.INACTIVE),
                Owed(STARTED_AT + 10, OWED),
                MessageChanged(STARTED_AT + 11, MESSAGE, "HTTP 200"),
                Acked(STARTED_AT + 60, "inc-1", "uid:1000 alice", "on it"),
            ),
        )

    async def reports(self) -> Sequence[Any]:
        return [ReportInfo("sales", "Sales", "What was sold.", "1d", "/api/monitoring/sales")]

    async def report(self, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]:
        self.calls.append(("report", name, timeframe_s, check))
        return {"sold": {"tickets": 3, "money": None}, "unknown": {"sold.money": "nobody counts"}}

    async def why_not(self, rule: str, labels: dict[str, str], at: float | None) -> WhyNotView:
        if rule != "ProbeFailed":
            raise Refused(f'there is no rule "{rule}"; did you mean "ProbeFailed"?')
        self.calls.append(("why_not", rule, labels, at))
        return WhyNotView(
            rule=Rule(name=RuleName(rule), expr="probe_success == 0", severity=Severity.HIGH),
            at=STARTED_AT,
            labels=labels,
            verdict="its value is 1, which is not == 0",
            rows=(WhyNotRow({"check": "shop"}, 1.0, "==", 0.0),),
            more_rows=2,
            selectors=(SelectorFound("probe_success", 3),),
            checks=(WhyNotCheck("shop", "healthy", STARTED_AT, "200 in 3 ms"),),
        )

    async def plugins(self) -> Sequence[PluginView]:
        return [
            PluginView(
                name="webhook",
                kind="check",
                origin="sixfbd",
                doc="HTTP probes.",
                options=(PluginOption("url", "text", required=True), PluginOption("method", "text", default="GET")),
            ),
            PluginView(
                name="mine", kind="plugin", origin="/etc/sixfbd/plugins.d/mine.py", error="line 3: no such name"
            ),
        ]

    async def release_plugin(self, name: str, actor: Actor) -> ReleaseView:
        if name != "mine":
            raise Refused(f"plugin {name} is not kept out; those that are: mine")
        return ReleaseView(name, changed=("check toy changed",))

    async def create_token(self, name: str, scopes: tuple[str, ...], actor: Actor) -> TokenMade:
        return TokenMade(name, "sixfbd_0123456789abcdef", scopes)

    async def tokens(self) -> Sequence[TokenView]:
        return [TokenView(name="shop", scopes=("events",), made_at=STARTED_AT, by="uid:0 root")]

    async def revoke_token(self, name: str, actor: Actor) -> str:
        return f"revoked {name}"

    async def reload(self, actor: Actor) -> ReloadView:
        if self.problems:
            raise Refused("the configuration has errors; nothing has changed", list(self.problems))
        return ReloadView(("check shop: interval 30s → 10s",))

    async def preview_reload(self) -> PreviewView:
        alert = PreviewAlert(
            id="inc-1",
            rule="ProbeFailed",
            labels={"check": "shop"},
            severity=Severity.HIGH,
            state=AlertState.RESOLVED,
            reason="rule removed",
            told=("primary through hook",),
        )
        return PreviewView(
            kept=("check machine", "rule Other"),
            dropped=("rule ProbeFailed",),
            would_resolve=(alert,),
            needs_restart=self.problems,
        )

    async def stop(self, actor: Actor) -> StopView:
        self.ready_to_end()
        return StopView(pid=2**22 + 1, within_s=1.0)  # above the kernel's highest pid: a process that has ended

    async def journal_status(self) -> JournalView:
        return JournalView({"journal_bytes": 4096, "last_event_at": STARTED_AT, "events": 12, "schema": "1"})

    async def journal_verify(self) -> VerifyView:
        return VerifyView({"records": 10}, self.problems)

    async def journal_backup(self, path: str, actor: Actor) -> BackupView:
        return BackupView(path, 2048)

    async def journal_erase(self, customer: str, dry_run: bool, actor: Actor) -> ErasedView:
        self.erased += [] if dry_run else [customer]
        return ErasedView(3, not dry_run, ("/state/journal.db.v3",))

    async def journal_export(self) -> AsyncIterator[Json]:
        for seq in range(self.export_size):
            yield {"kind": "record", "seq": seq}
        if self.export_size == 0:
            await trio.sleep_forever()

    async def audit(self, actor: Actor, command: str, outcome: str) -> None:
        self.on_audit()
        self.audited.append((actor.name, command, outcome))


class Served:
    """A control socket, served from a thread until `stop`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.engine = PlayedEngine()
        self._limits = limits
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        assert self._ready.wait(10)

    async def _main(self) -> None:
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self.engine.ready_to_end = self._stop.set
        engine: ControlEngine = self.engine
        async with trio.open_nursery() as nursery:
            serve = partial(serve_control, clock=_Clock(), stop=self._stop, limits=self._limits)
            await nursery.start(serve, self.path, methods_of(engine))
            self._ready.set()

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(trio.RunFinishedError):  # it may have been stopped over the socket
                self._token.run_sync_soon(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


class _Clock:
    def now(self) -> float:
        return time.time()


def wait_until(what: str, probe: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Return when `probe()` is true; fail after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not probe():
        assert time.monotonic() < deadline, f"{what}: not within {limit_s:g} s"
        time.sleep(0.005)


def _drop(*_: object) -> dict[str, Any]:
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """Keep the served side's lines out of what a command prints; `capture_logs` still sees them."""
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


@pytest.fixture
def until() -> Callable[[str, Callable[[], bool]], None]:
    return wait_until


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serve a control socket with the given limits; all end with the test."""
    made: list[Served] = []

    def start(**limits: Any) -> Served:
        made.append(Served(tmp_path / f"control{len(made)}.sock", Limits(**limits)))
        return made[-1]

    yield start
    for served in made:
        served.stop()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()
