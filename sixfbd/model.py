"""The immutable values that flow from stage to stage; no behaviour beyond their own form, no I/O, no clock.

Every stage hands the next one values of this module (DESIGN section 1). All are msgspec Structs, so that the journal,
the control socket and the HTTP interface encode them the same way. Times named `_at` are engine time in unix seconds
(float); times named `_ms` are engine time in integer milliseconds, the unit of samples.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NewType, TypeAlias

from msgspec import Struct, field

Json: TypeAlias = dict[str, Any] | list[Any] | str | int | float | bool | None
"""Anything that `json.loads` may return."""

MAX_KINDS: Final = 10  # of refusals of one report that are named

CheckName = NewType("CheckName", str)
RuleName = NewType("RuleName", str)
SeriesId = NewType("SeriesId", int)
LayoutId = NewType("LayoutId", int)
MessageId = NewType("MessageId", str)

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Label pairs sorted by name, without `__name__` and without empty values: hashable, comparable, canonical."""


def labels_of(pairs: Mapping[str, str]) -> Labels:
    """Return the canonical form of a label mapping: sorted by name, empty values left out (as Prometheus does)."""
    return tuple(sorted((name, value) for name, value in pairs.items() if value != ""))


class Status(StrEnum):
    """What a check says of the thing that it checks (DESIGN section 3)."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Severity(StrEnum):
    """Severities of SEED S17, ordered by `rank`."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


class MetricKind(StrEnum):
    """Prometheus' metric types as far as a series can have them; `summary` is declared, its series are counters and gauges."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNTYPED = "untyped"


# ---- measurements ------------------------------------------------------------------------------------------------


class Sample(Struct, frozen=True):
    """One value of one series; its time is its report's. `labels` as the plugin gave them, `kind` as it was declared.

    `times`: so often was it observed, if it is a summary's.
    """

    metric: str
    value: float
    labels: Labels = ()
    kind: MetricKind = MetricKind.UNTYPED
    times: int = 1


class Series(Struct, frozen=True, cache_hash=True):
    """The identity of a series, with the check's label already in `labels`, and the type that it was declared with.

    Equality and hash are those of (metric, labels, kind); one metric and label set has one kind for its lifetime.
    """

    metric: str
    labels: Labels = ()
    kind: MetricKind = MetricKind.UNTYPED


class Event(Struct, frozen=True):
    """Something that happened once. `timestamp` is unix seconds as the source claims it; `data` is a JSON object."""

    id: str
    type: str
    timestamp: float
    data: dict[str, Any] = field(default_factory=dict)


class StoredEvent(Struct, frozen=True):
    """An event as the journal holds it: `seq` numbers events in commit order without gaps, from 1."""

    seq: int
    source: str
    received_at: float
    event: Event


class Report(Struct, frozen=True):
    """What one run of a check found.

    `summary` is one line for people. `cursor` (JSON, at most 64 KiB) is committed together with `events` or not at all.
    `more` asks for another run at once. `reachable` fills the check's `external` entry of /api/health.
    """

    status: Status
    summary: str
    samples: tuple[Sample, ...] = ()
    events: tuple[Event, ...] = ()
    cursor: Json | None = None
    more: bool = False
    reachable: bool | None = None


class Refusal(Struct, frozen=True):
    """One kind of what was refused of a report: what and why, how often, and the first examples."""

    reason: str
    count: int = 1
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        examples = ", ".join(self.examples)
        if self.count == 1:
            return f"{self.reason} ({examples})" if examples else self.reason
        return f"{self.reason}: {self.count} times" + (f", first {examples}" if examples else "")


class Refusals(Struct, frozen=True):
    """What was refused of a report: how many parts in all, and of which kinds, no more of them than a person reads.

    `cursor_stays`: its cursor was not taken. The refusals of several pages are added up.
    """

    count: int = 0
    kinds: tuple[Refusal, ...] = ()
    cursor_stays: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """One line for each kind, and one that counts what is of no kind named here."""
        others = self.count - sum(kind.count for kind in self.kinds)
        return (*map(str, self.kinds), *((f"and {others} more",) if others else ()))

    @property
    def reasons(self) -> frozenset[str]:
        """The kinds without their counts and examples, by which they are known again in the next report."""
        return frozenset(kind.reason for kind in self.kinds)

    def __add__(self, other: "Refusals") -> "Refusals":
        kinds = {kind.reason: kind for kind in self.kinds}
        for kind in other.kinds:
            if known := kinds.get(kind.reason):
                kinds[kind.reason] = Refusal(kind.reason, known.count + kind.count, known.examples or kind.examples)
            elif len(kinds) < MAX_KINDS:
                kinds[kind.reason] = kind
        count, cursor_stays = self.count + other.count, self.cursor_stays or other.cursor_stays
        return Refusals(count, tuple(kinds.values()), cursor_stays)


NONE_REFUSED: Final = Refusals()


class CheckState(Struct, frozen=True):
    """The last thing known of one check, as `sixfbctl checks` and /api/health show it. Durations in seconds."""

    name: CheckName
    plugin: str
    interval_s: float
    status: Status = Status.UNKNOWN
    summary: str = "has not run yet"
    paused: bool = False
    running: bool = False
    last_run_at: float | None = None
    last_seen_at: float | None = None  # the last report that was not `unknown`
    awaited_since: float = 0.0  # from when its age counts: `last_seen_at`, or when it was added or resumed
    next_run_at: float | None = None
    duration_s: float | None = None
    consecutive_failures: int = 0
    runs: int = 0
    late_runs: int = 0
    crashes: int = 0
    timeouts: int = 0
    refused_series: int = 0
    reachable: bool | None = None
    service: str | None = None
    external: str | None = None


# ---- rules and what they find -------------------------------------------------------------------------------------


class Level(Struct, frozen=True):
    """One rung of `levels`: `when` and `clear` compare the rule's value with a number, such as "<= 5"."""

    severity: Severity
    when: str
    clear: str | None = None


class Rule(Struct, frozen=True, kw_only=True):
    """An alerting rule. Exactly one of `severity` and `levels` is set. Annotations may use `{{ $labels.x }}`,
    `{{ $value }}` and `{{ $summary }}`; durations in seconds. `origin` says where it comes from (a file or a plugin).

    `describing` names labels of what `expr` yields that tell of an alert and do not name it: an alert stays the same when
    they change. If `severity` is among them it is the alert's, and the rule needs neither `severity` nor `levels`: for
    thresholds that are series themselves. One called `ended` says that what it describes is over, and why: then nothing
    fires, and what does resolves with that reason. `once` are matchers of all these labels: what they all match is neither
    told again while nothing changes, nor escalated.
    """

    name: RuleName
    expr: str
    for_s: float = 0.0
    keep_firing_for_s: float = 0.0
    severity: Severity | None = None
    levels: tuple[Level, ...] = ()
    describing: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    once: tuple[str, ...] = ()
    evaluate: Literal["change", "interval"] = "change"
    interval_s: float = 15.0
    origin: str = ""


class Evidence(Struct, frozen=True):
    """One sample that a rule read for one label set."""

    series: str
    at_ms: int
    value: float | str  # NaN and infinities as text: JSON has no form for them


class Found(Struct, frozen=True):
    """One label set that a rule's expression returned, with the samples read for it (at most 4 KiB encoded).

    `checks` names the checks whose series were read: what warm-up and `blind` ask about. `describing` are the labels that
    the rule leaves out of an alert's identity, `severity` what they say of it.
    """

    labels: Labels
    value: float
    evidence: tuple[Evidence, ...] = ()
    checks: tuple[str, ...] = ()
    describing: Labels = ()
    severity: Severity | None = None


class Evaluated(Struct, frozen=True):
    """The result of one evaluation of one rule at one time. `error` set: nothing is known, no state may change.

    `blind_checks`: checks whose series the rule reads and which are not reporting now (never since the start, or their
    last report was `unknown`): absence of a label set that they feed resolves nothing.
    """

    rule: RuleName
    at: float
    found: tuple[Found, ...] = ()
    error: str | None = None
    blind_checks: tuple[str, ...] = ()


# ---- alerts --------------------------------------------------------------------------------------------------------


class AlertState(StrEnum):
    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class AlertKey(Struct, frozen=True, order=True):
    """The identity of an alert: rule and labels, severity left out (DESIGN section 3)."""

    rule: RuleName
    labels: Labels


class Hold(Struct, frozen=True, order=True):
    """Why nobody is told of a firing alert for now: what kind of hold, and which one (a silence's id, a name, an alert, or
    what mutes every way to people)."""

    kind: Literal["silence", "inhibition", "maintenance", "parent", "mute"]
    by: str
    comment: str = ""

    def __str__(self) -> str:
        words = {
            "silence": "silenced by ",
            "inhibition": "inhibited by ",
            "maintenance": "in maintenance by ",
            "parent": "put down to ",
            "mute": "",  # says itself by what
        }
        return words[self.kind] + self.by + (f" ({self.comment})" if self.comment else "")


class Alert(Struct, frozen=True, kw_only=True):
    """An alert in one state. `id` names the incident (pending: the incident to be); it is what `ack` and `why` take.

    `since` is when it entered its state; `absent_since` is set while the expression no longer holds but
    `keep_firing_for` (or warm-up, or a blind check) keeps it firing. `annotations` are rendered when it fires or changes its
    severity, and stay when it ends. `value_at_end` is what the expression yielded then, if that is known.
    `held`: nobody is told of it for now, and why. `unheard_until`: when holds ended that had kept from everybody that it
    fires, with the severity that it had then. `escalated` names the steps of escalations that were taken.
    """

    key: AlertKey
    id: str
    state: AlertState
    since: float
    severity: Severity
    value: float | str
    labels: dict[str, str]  # the alert's full labels: the rule's own added, `alertname` and `severity` included
    annotations: dict[str, str] = field(default_factory=dict)
    pending_at: float | None = None
    fired_at: float | None = None
    resolved_at: float | None = None
    absent_since: float | None = None
    due_at: float | None = None  # when time alone moves it on: the end of `for`, or of `keep_firing_for`
    blind: bool = False
    reason: str = ""
    acked_by: str | None = None
    acked_at: float | None = None
    evidence: tuple[Evidence, ...] = ()
    checks: tuple[str, ...] = ()
    value_at_end: float | str | None = None
    severity_at: float | None = None  # since when it fires with this severity
    flapping: bool = False  # it comes and goes, and is kept firing until it has settled
    once: bool = False
    held: tuple[Hold, ...] = ()
    unheard_until: float | None = None
    escalated: tuple[str, ...] = ()
    escalate_at: float | None = None  # when the next step of an escalation is due


class Silence(Struct, frozen=True, kw_only=True):
    """Alerts whose labels all matchers match are told to nobody from `starts_at` to `ends_at`. Matchers as written."""

    id: str
    matchers: tuple[str, ...]
    starts_at: float
    ends_at: float
    author: str
    comment: str = ""


# ---- what is owed and delivered --------------------------------------------------------------------------------------


class Target(Struct, frozen=True, order=True):
    """One address of one receiver through one notifier. `address` is "" where the notifier has only one."""

    receiver: str
    notifier: str
    address: str = ""


ObligationKind: TypeAlias = Literal["fire", "level", "resolve", "repeat", "escalate", "notice"]
ObligationState: TypeAlias = Literal["pending", "sending", "unknown", "accepted", "delivered", "dead", "suppressed"]
OPEN_STATES: frozenset[str] = frozenset({"pending", "sending", "unknown"})
TOLD_STATES: frozenset[str] = frozenset({"accepted", "delivered", "unknown"})


class Notice(Struct, frozen=True, kw_only=True):
    """What a message about an event may say of it: the notice's name, the event's type, source and time (unix seconds).

    `labels` are those that routes see. `data` holds the plain values of the event's data, bounded in number and length.
    """

    name: str
    type: str
    source: str
    at: float
    labels: dict[str, str] = field(default_factory=dict)
    data: dict[str, str | int | float | bool] = field(default_factory=dict)


class Obligation(Struct, frozen=True, kw_only=True):
    """What one transition, repeat, escalation step or notice owes one target. Always in exactly one state.

    `subject` is the incident id (alerts) or the event's `source/id` (notices). `about` is the alert as it was when the
    obligation arose (None for a notice, whose text is in `text` and whose event in `notice`). `reason` is given when
    suppressed or dead, `held` when a hold suppressed it. Obligations of one `group` may share a message, none before
    `not_before`; `interval_s` is what must lie between two messages of the group, `repeat_s` after what time it is told
    again (0: never). One that another channel passed on says why in `passed_on`, and in `tried` by which channels it was
    to go before; one that is `postponed` waits for its target's budget.
    """

    id: str
    kind: ObligationKind
    target: Target
    state: ObligationState
    at: float
    subject: str
    severity: Severity
    about: Alert | None = None
    notice: Notice | None = None
    text: str = ""
    message: MessageId | None = None
    reason: str = ""
    changed_at: float = 0.0
    held: bool = False
    group: str = ""
    group_labels: dict[str, str] = field(default_factory=dict)
    not_before: float = 0.0
    interval_s: float = 0.0
    repeat_s: float = 0.0
    passed_on: str = ""
    tried: tuple[str, ...] = ()
    postponed: bool = False


class Message(Struct, frozen=True, kw_only=True):
    """One delivery to one target, carrying one or more obligations, oldest first. Rendered when it is sent.

    `attempt` counts from 1 on the first try; `possibly_repeated` marks the one further try of a message whose answer was
    lost and whose notifier can neither look up nor drop repeats. `expires_at`: after that it is given up (dead).
    `receipt_until`: accepted, and until then its provider may still say what became of it; `look_at`: it is asked for the
    next time, after `looks` times. `late_at`: the next channel takes over if it has not arrived by then (None: no more). A
    `digest` carries what was over a budget, and says of `more` alerts only that they are there.
    """

    id: MessageId
    target: Target
    state: ObligationState
    created_at: float
    expires_at: float
    obligations: tuple[str, ...]
    group: str = ""
    attempt: int = 0
    lookups: int = 0
    next_try_at: float = 0.0
    possibly_repeated: bool = False
    last_error: str = ""
    provider_id: str | None = None
    receipt_until: float | None = None
    late_at: float | None = None
    look_at: float | None = None
    looks: int = 0
    digest: bool = False
    more: int = 0


class Receipt(Struct, frozen=True, kw_only=True):
    """The provider took the message (`accepted`), says that it arrived (`delivered`), or that it did not (`failed`).

    `message_id` is ours, `provider_id` the provider's; one of the two is enough to find the message. `detail` says more,
    in one line. Of a failure `temporary` tells whether another try may do, after `retry_after_s` at the earliest; a try
    that fails raises instead.
    """

    state: Literal["accepted", "delivered", "failed"] = "accepted"
    message_id: MessageId | None = None
    provider_id: str | None = None
    detail: str = ""
    temporary: bool = False
    retry_after_s: float | None = None


# ---- commands ----------------------------------------------------------------------------------------------------------


class Actor(Struct, frozen=True):
    """Who gave a command: a Unix user over the control socket ("uid:1000 alice") or a token by name ("token:grafana")."""

    name: str


class Ack(Struct, frozen=True, tag="ack"):
    alert: str
    comment: str = ""


class PauseCheck(Struct, frozen=True, tag="pause"):
    check: str
    paused: bool = True


class AddSilence(Struct, frozen=True, tag="silence", kw_only=True):
    """Hold the alerts that all matchers match, from `starts_at` (None: now) for `duration_s` seconds."""

    matchers: tuple[str, ...]
    duration_s: float
    starts_at: float | None = None
    comment: str = ""


class ExpireSilence(Struct, frozen=True, tag="expire_silence"):
    silence: str


class TestNotify(Struct, frozen=True, tag="notify_test"):
    """Send a test through every channel of these receivers; of all if none is named."""

    __test__ = False  # not a test of pytest's

    receivers: tuple[str, ...] = ()


class HoldDrill(Struct, frozen=True, tag="drill"):
    """Send a message that says that it is a drill through every channel of these receivers; of all if none is named.

    `name` is that of `[[drills]]`, "" if somebody asked for it.
    """

    receivers: tuple[str, ...] = ()
    name: str = ""


class DropMessage(Struct, frozen=True, tag="drop_message"):
    """Give a message up that is not sent yet."""

    message: MessageId


class RetryMessage(Struct, frozen=True, tag="retry_message"):
    """Owe anew what a message carried that was given up; `obligations` as the journal has them."""

    message: MessageId
    obligations: tuple[Obligation, ...]


Command: TypeAlias = Ack | PauseCheck | AddSilence | ExpireSilence | TestNotify | HoldDrill | DropMessage | RetryMessage


class Outcome(Struct, frozen=True):
    """What came of a command: durable when it is returned. `ok` False: `error` says why and how to mend it.

    `id` is that of what the command made, if it made something.
    """

    ok: bool
    detail: str = ""
    error: str = ""
    id: str = ""
