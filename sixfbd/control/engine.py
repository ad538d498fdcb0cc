"""What the control socket asks of the engine, and the forms of the answers; `--json` of sixfbctl prints them as they are.

`ControlEngine` is implemented by the daemon; `control.methods` turns it into the methods' table. Times are engine time
in unix seconds, durations in seconds. Import-light: sixfbctl reads answers with these forms.
"""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from msgspec import Raw, Struct, field

from sixfbd.journal.records import Acked, AlertChanged, Audited, MessageChanged, ObligationChanged, Owed, Postponed
from sixfbd.model import (
    Actor,
    AddSilence,
    Alert,
    AlertState,
    CheckState,
    Json,
    Message,
    Obligation,
    Refusals,
    Rule,
    Severity,
    Status,
    StoredEvent,
    Target,
)

Number: TypeAlias = float | str
"""A sample's value: NaN and the infinities as text, for JSON has no form for them."""


def number(value: float) -> Number:
    """Return the JSON form of a sample's value: the number, or "NaN", "+Inf", "-Inf"."""
    if not isinstance(value, int | float):
        return str(value)  # what a plugin gave in place of a number
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


class StatusView(Struct, frozen=True, kw_only=True):
    """`status`: the daemon at a glance. `checks`, `alerts` and `messages` count by status, severity and state."""

    version: str
    pid: int
    now: float
    started_at: float
    site: str
    state: str = "running"  # starting, running, stopping
    volatile: bool = False
    config_files: tuple[str, ...] = ()
    config_hash: str = ""
    state_directory: str = ""
    http: str = ""  # URL of the local port, for people and scripts on this machine
    public: str = ""  # where the port for the outside listens, "" if there is none
    sandbox: bool = False
    checks: dict[str, int] = field(default_factory=dict)
    paused: tuple[str, ...] = ()
    alerts: dict[str, int] = field(default_factory=dict)
    pending_alerts: int = 0
    messages: dict[str, int] = field(default_factory=dict)
    oldest_message_s: float | None = None
    rules: int = 0
    series: int = 0
    events: int = 0
    awaited: tuple[str, ...] = ()  # warm-up: checks that have not reported since the start
    blind_before_start_s: float | None = None
    stood_still: tuple[float, float] | None = None  # the last time that nothing of the daemon ran, from and until
    clock_offset_s: float = 0.0  # by which the wall clock is ahead of engine time; a restart adopts it
    heartbeat: str = ""  # "" if there is none
    nobody_told: str = ""  # why nobody may ever be told of an alert; "" once a message has reached somebody
    problems: tuple[str, ...] = ()  # plugins left out, rules that fail, what was refused


class CheckRun(Struct, frozen=True, kw_only=True):
    """`check.run`, `sixfbd check try`: one run's report. `samples` are (series, value), the first of them.

    `refused` is what the door did not take, or cut; `remarks` what it took and found odd, one line each.
    """

    check: str
    status: Status
    summary: str
    duration_s: float
    samples: tuple[tuple[str, Number], ...] = ()
    events: tuple[Json, ...] = ()
    more: bool = False
    refused: Refusals = Refusals()
    remarks: tuple[str, ...] = ()

    @property
    def is_fine(self) -> bool:
        """Whether the check is healthy and all of its report was taken."""
        return self.status is Status.HEALTHY and not self.refused.count


class SeriesLine(Struct, frozen=True):
    """One series: its name as PromQL writes it, its last value and when that was; `stale` once it has ended."""

    series: str
    kind: str
    value: Number | None = None
    at: float | None = None
    stale: bool = False


class SeriesView(Struct, frozen=True):
    """`series`: at most the asked number of them, and how many matched in all."""

    series: tuple[SeriesLine, ...]
    total: int


class QuerySeries(Struct, frozen=True):
    """One series of a query's answer; `labels` with `__name__`, `points` as (time, value), oldest first."""

    labels: dict[str, str]
    points: tuple[tuple[float, Number], ...]


class QueryView(Struct, frozen=True):
    """`query`: `type` is scalar, vector, matrix or string. A scalar is one series without labels; a string's text is the
    label `text` of one without points."""

    type: str
    series: tuple[QuerySeries, ...]
    warnings: tuple[str, ...] = ()


class OutboxView(Struct, frozen=True):
    """`outbox.list`: messages, newest first, and the number of open obligations by state."""

    messages: tuple[Message, ...]
    obligations: dict[str, int] = field(default_factory=dict)


class AlertView(Struct, frozen=True, kw_only=True):
    """`alerts`: one alert, flat, for scripts. `labels` are all of its labels, `alertname` and `severity` included."""

    id: str
    rule: str
    state: AlertState
    severity: Severity
    since: float
    value: Number
    labels: dict[str, str]
    annotations: dict[str, str]
    fired_at: float | None = None
    resolved_at: float | None = None
    acked_by: str | None = None
    acked_at: float | None = None
    blind: bool = False
    reason: str = ""
    checks: tuple[str, ...] = ()
    held: tuple[str, ...] = ()  # why nobody is told of it for now
    flapping: bool = False
    escalate_at: float | None = None


def alert_view(alert: Alert) -> AlertView:
    """Return the flat form of an alert."""
    return AlertView(
        id=alert.id,
        rule=alert.key.rule,
        state=alert.state,
        severity=alert.severity,
        since=alert.since,
        value=alert.value,
        labels=alert.labels,
        annotations=alert.annotations,
        fired_at=alert.fired_at,
        resolved_at=alert.resolved_at,
        acked_by=alert.acked_by,
        acked_at=alert.acked_at,
        blind=alert.blind,
        reason=alert.reason,
        checks=alert.checks,
        held=tuple(map(str, alert.held)),
        flapping=alert.flapping,
        escalate_at=None if alert.acked_by is not None or alert.held else alert.escalate_at,
    )


class EmitView(Struct, frozen=True):
    """`events.emit`: the event's id and number; `duplicate` if it was known. Durable when answered."""

    id: str
    seq: int | None = None
    duplicate: bool = False


class MessageView(Struct, frozen=True):
    """`outbox.show`: one message, what it carries and all that happened to it, oldest first."""

    message: Message
    obligations: tuple[Obligation, ...]
    history: tuple[MessageChanged, ...]


class Routed(Struct, frozen=True):
    """One receiver that the route tree names for an alert, and the way there: the matchers of each node passed."""

    receiver: str
    path: tuple[str, ...] = ()


StoryRecord: TypeAlias = AlertChanged | Acked | Owed | ObligationChanged | Postponed | MessageChanged | Audited


class WhyView(Struct, frozen=True, kw_only=True):
    """`why`: one incident. `records` are the journal's own that concern it, in commit order."""

    alert: Alert
    rule: Rule | None = None
    routes: tuple[Routed, ...] = ()
    records: tuple[StoryRecord, ...] = ()


class SilenceView(Struct, frozen=True, kw_only=True):
    """`silence.list`: a silence that is not over; `matches` counts the alerts that it holds, or would."""

    id: str
    state: str  # pending, active
    matchers: tuple[str, ...]
    starts_at: float
    ends_at: float
    author: str
    comment: str = ""
    matches: int = 0


class SilencePreview(Struct, frozen=True):
    """`silence.preview`: the pending and firing alerts that matchers match."""

    alerts: tuple[AlertView, ...]


class SilenceMade(Struct, frozen=True):
    """`silence.add`: the silence's id, and what was done in words. Durable when answered."""

    id: str
    detail: str


class TestedTarget(Struct, frozen=True):
    """What came of a test message to one target; `after_s` is the time until then."""

    target: Target
    state: str
    after_s: float
    reason: str = ""


class NotifyTestView(Struct, frozen=True):
    """`notify.test`: each target that was tested."""

    targets: tuple[TestedTarget, ...]


class RouteView(Struct, frozen=True, kw_only=True):
    """One route that an alert ends at; times in seconds, `repeat_s` 0: never. `muted` says why it tells nobody now."""

    path: str
    matchers: tuple[str, ...]
    receiver: str
    targets: tuple[Target, ...]
    muted: str = ""
    group: str = ""
    wait_s: float = 0.0
    interval_s: float = 0.0
    repeat_s: float = 0.0


class EscalationView(Struct, frozen=True):
    """One step of an escalation: `after_s` without an acknowledgement `receiver` is told."""

    name: str
    after_s: float
    receiver: str


class RouteTestView(Struct, frozen=True, kw_only=True):
    """`route.test`: who would be told of an alert with these labels now; `nobody` says why, if nobody would."""

    labels: dict[str, str]
    severity: Severity
    known_rule: bool
    routes: tuple[RouteView, ...]
    holds: tuple[str, ...] = ()
    escalations: tuple[EscalationView, ...] = ()
    nobody: str = ""


class OnCallView(Struct, frozen=True, kw_only=True):
    """`oncall`: whose turn it is in one rotation at a time, and whose it is next, from `until` on."""

    name: str
    at: float
    member: str
    until: float
    next_member: str
    members: tuple[str, ...]


class WhyNotRow(Struct, frozen=True):
    """What the left side of a rule's comparison is for one label set: `value op threshold` does not hold, or does."""

    labels: dict[str, str]
    value: Number
    op: str
    threshold: Number


class SelectorFound(Struct, frozen=True):
    """A selector of an expression, and how many series it finds."""

    selector: str
    series: int


class WhyNotCheck(Struct, frozen=True):
    """A check whose series a rule reads; `state`: its status, paused, or not configured."""

    name: str
    state: str
    last_run_at: float | None = None
    summary: str = ""


class WhyNotView(Struct, frozen=True, kw_only=True):
    """`why_not`: `verdict` is the answer in one sentence, the rest is what it is from; nearest rows first."""

    rule: Rule
    at: float
    labels: dict[str, str]
    verdict: str
    rows: tuple[WhyNotRow, ...] = ()
    more_rows: int = 0
    selectors: tuple[SelectorFound, ...] = ()
    checks: tuple[WhyNotCheck, ...] = ()
    alerts: tuple[str, ...] = ()


class PluginOption(Struct, frozen=True):
    """One option of a plugin: `required` without a default."""

    name: str
    type: str
    required: bool = False
    default: str = ""


class PluginView(Struct, frozen=True, kw_only=True):
    """`plugins`: one name that a plugin brings, or one plugin that was left out (`error` says why)."""

    name: str
    kind: str  # check, notifier, rules, events; plugin where it was left out as a whole
    origin: str
    version: str = ""
    doc: str = ""
    options: tuple[PluginOption, ...] = ()
    used_by: tuple[str, ...] = ()
    error: str = ""


class ReleaseView(Struct, frozen=True):
    """`plugins.release`: whether the plugin is in again (`needs_restart`: not before a restart), and what changed."""

    plugin: str
    needs_restart: str = ""  # why a restart is needed
    changed: tuple[str, ...] = ()


class TokenView(Struct, frozen=True, kw_only=True):
    """`token.list`: an access token without the token; `fixed`: from the configuration."""

    name: str
    scopes: tuple[str, ...]
    made_at: float | None = None
    by: str = ""
    fixed: bool = False
    revoked: bool = False


class TokenMade(Struct, frozen=True):
    """`token.create`: the only time that the token itself is shown."""

    name: str
    token: str
    scopes: tuple[str, ...]


class ReloadView(Struct, frozen=True):
    """`reload`: what changed, in words. An invalid configuration is Refused and changes nothing."""

    changed: tuple[str, ...]
    config_hash: str = ""


class PreviewAlert(Struct, frozen=True, kw_only=True):
    """One alert that a reload would change. `state` is the one that it would have; pending, it fires at `due_at`.

    `told` are the targets that the new routes name, `told_before` those of the routes in force if they are others. `id` is
    empty for an alert that does not exist yet.
    """

    id: str
    rule: str
    labels: dict[str, str]
    severity: Severity
    state: AlertState
    due_at: float | None = None
    reason: str = ""
    told: tuple[str, ...] = ()
    told_before: tuple[str, ...] = ()


class PreviewView(Struct, frozen=True, kw_only=True):
    """`reload.preview`: what a reload would do now. Things are written "check NAME", "notifier NAME", "rule NAME"; settings
    that differ stand among `changed`, with both values. With anything in `needs_restart` the reload would be refused."""

    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    would_fire: tuple[PreviewAlert, ...] = ()
    would_resolve: tuple[PreviewAlert, ...] = ()
    rerouted: tuple[PreviewAlert, ...] = ()
    needs_restart: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    config_hash: str = ""


class StopView(Struct, frozen=True):
    """`stop`: the stop began; the process `pid` ends within `within_s`."""

    pid: int
    within_s: float


class JournalView(Struct, frozen=True):
    """`journal.status`: named facts of both files, in the order in which they are shown."""

    facts: dict[str, Any]


class VerifyView(Struct, frozen=True):
    """`journal.verify`: what was checked (a count each) and what is wrong, in words."""

    checked: dict[str, int]
    problems: tuple[str, ...] = ()


class BackupView(Struct, frozen=True):
    """`journal.backup`: the file written, as the daemon's user."""

    path: str
    size_bytes: int


class ErasedView(Struct, frozen=True):
    """`journal.erase`: how many events held the customer, whether it was done, and files beside the journal that it is no part
    of: copies and what was set aside, with what was in them before."""

    events: int
    done: bool
    not_reached: tuple[str, ...] = ()


class ControlEngine(Protocol):
    """The daemon as seen from the control socket. Methods raise `protocol.Refused` to say no, with the mend.

    They are called from the loop, any number at once, and must not block it. Those that take an actor change something
    and return when that is durable. Streams are async iterators; they are closed (`aclose`) when the client leaves.
    """

    async def status(self) -> StatusView: ...
    async def checks(self) -> Sequence[CheckState]: ...
    async def run_check(self, name: str, actor: Actor) -> CheckRun: ...
    async def pause_check(self, name: str, paused: bool, actor: Actor) -> str:
        """Return what was done, in words."""
        ...

    async def series(self, matcher: str, limit: int) -> SeriesView:
        """`matcher`: a selector as in PromQL; "" matches all."""
        ...

    async def query(self, expr: str, at: float | None) -> QueryView:
        """`at` None: now."""
        ...

    async def query_range(self, expr: str, start: float, end: float, step: float) -> QueryView: ...
    async def alerts(self) -> Sequence[Alert]:
        """Return the pending and firing alerts, worst and oldest first."""
        ...

    async def ack(self, alert: str, comment: str, actor: Actor) -> str:
        """Return what was done, in words. `alert`: an incident id."""
        ...

    async def silences(self) -> Sequence[SilenceView]:
        """Return the silences that are not over, the next to end first."""
        ...

    async def preview_silence(self, matchers: tuple[str, ...]) -> SilencePreview: ...
    async def add_silence(self, command: AddSilence, actor: Actor) -> SilenceMade: ...
    async def expire_silence(self, silence: str, actor: Actor) -> str:
        """Return what was done, in words."""
        ...

    async def test_notify(self, receivers: tuple[str, ...], wait_s: float, actor: Actor) -> NotifyTestView:
        """Send test messages and wait, `wait_s` at most, until each has come to something."""
        ...

    async def hold_drill(self, receivers: tuple[str, ...], wait_s: float, actor: Actor) -> NotifyTestView:
        """As `test_notify`, with messages that say that they are a drill; whether they arrive is kept."""
        ...

    async def test_route(self, labels: dict[str, str]) -> RouteTestView: ...
    async def oncall(self, name: str | None, at: float | None) -> Sequence[OnCallView]: ...
    async def emit(
        self,
        type: str,  # noqa: A002 - an event's field
        data: dict[str, Any],
        id: str | None,  # noqa: A002 - an event's field
        timestamp: float | None,
        actor: Actor,
    ) -> EmitView: ...
    async def events(self, type: str | None, limit: int) -> Sequence[StoredEvent]:  # noqa: A002 - an event's field
        """Return the last `limit` events, of one type if given, oldest first."""
        ...

    def follow_events(self, type: str | None, after: int | None) -> AsyncIterator[StoredEvent]:  # noqa: A002 - an event's field
        """Yield stored events with a number above `after` (None: those to come) for as long as it is read."""
        ...

    async def outbox(self, state: str | None, limit: int) -> OutboxView:
        """Return the newest `limit` messages; `state` None: in any, "open": in one of `model.OPEN_STATES`."""
        ...

    async def message(self, id: str) -> MessageView: ...  # noqa: A002 - a message's field
    async def drop_message(self, id: str, actor: Actor) -> str:  # noqa: A002 - a message's field
        """Return what was done, in words."""
        ...

    async def retry_message(self, id: str, actor: Actor) -> str: ...  # noqa: A002 - a message's field
    async def why(self, alert: str) -> WhyView: ...
    async def why_not(self, rule: str, labels: dict[str, str], at: float | None) -> WhyNotView:
        """`at` None: now, with what the judge holds of the rule."""
        ...

    async def reports(self) -> Sequence[Any]: ...
    async def report(self, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]: ...
    async def plugins(self) -> Sequence[PluginView]: ...
    async def release_plugin(self, name: str, actor: Actor) -> ReleaseView: ...
    async def create_token(self, name: str, scopes: tuple[str, ...], actor: Actor) -> TokenMade: ...
    async def tokens(self) -> Sequence[TokenView]: ...
    async def revoke_token(self, name: str, actor: Actor) -> str: ...
    async def reload(self, actor: Actor) -> ReloadView: ...
    async def preview_reload(self) -> PreviewView:
        """What `reload` would do now; changes nothing. An invalid configuration is Refused."""
        ...

    async def stop(self, actor: Actor) -> StopView:
        """Begin the stop; the answer leaves before the socket closes."""
        ...

    async def journal_status(self) -> JournalView: ...
    async def journal_verify(self) -> VerifyView: ...
    async def journal_backup(self, path: str, actor: Actor) -> BackupView: ...
    async def journal_erase(self, customer: str, dry_run: bool, actor: Actor) -> ErasedView: ...
    def journal_export(self) -> AsyncIterator[Json | Raw]:
        """Yield every record and event as a JSON object (msgspec.Raw: encoded already), oldest first."""
        ...

    async def audit(self, actor: Actor, command: str, outcome: str) -> None:
        """Write down who commanded what and what came of it; called once after each method that changes something."""
        ...
