"""The `heartbeat` check: jobs that run now and then, such as backups, tell that they did; those that do not are late.

A job sends events of the type `heartbeat`. It is expected `every` so often after it ended last, or at the times of a cron
expression; it may be `grace` later, and may take that long if it said that it began. What is known of each job is the check's
cursor, so that a restart forgets nothing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Event,
    EventType,
    Gauge,
    Json,
    OptionFaults,
    PluginConfig,
    Reader,
    Report,
    Rule,
    Severity,
    Status,
    hookimpl,
    installed,
)
from sixfbd_plugins.checks.default_rules import default_rule

if TYPE_CHECKING:
    from cronsim import CronSim

PAGE: Final = 10_000  # events that a read returns at most
OVERLAP_S: Final = 1 * HOUR  # what comes later than that is found by a look farther back
FAR_BACK_S: Final = 2 * DAY
LOOKS_FAR_S: Final = 5 * MINUTE
EARLY_S: Final = 1 * MINUTE  # a job may end so long before its time: clocks differ
MOST_JOBS: Final = 500
SHOWN: Final = 5  # in the summary

LATE = Gauge("heartbeat_late_seconds", "By how much a job is later than it may be; 0: it is not.", ("job",))
FAILED = Gauge("heartbeat_failed", "1 if the job said at last that it failed.", ("job",))
DUE = Gauge("heartbeat_due_timestamp_seconds", "When the job is expected next.", ("job",))
SUCCEEDED = Gauge("heartbeat_last_success_timestamp_seconds", "When the job succeeded last.", ("job",))
TOOK = Gauge("heartbeat_duration_seconds", "How long the job took last, if it said that it began.", ("job",))

Name = Annotated[str, Meta(min_length=1, max_length=100)]


class Beat(Struct, frozen=True):
    """A job began, succeeded or failed."""

    job: Name
    state: Literal["start", "success", "fail"] = "success"
    message: Annotated[str, Meta(max_length=500)] = ""


HEARTBEAT: Final = EventType(
    "heartbeat",
    Beat,
    example={"job": "backup"},
    doc="A job that runs now and then began, succeeded or failed; see the check `heartbeat`.",
)


class JobOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a job is expected: `every` or `cron` is needed."""

    every: Annotated[Duration | None, Meta(description="After its last end, at most.", gt=0)] = None
    cron: Annotated[str, Meta(description='Times, as in a crontab, such as "30 2 * * *".')] = ""
    timezone: Annotated[str, Meta(description="Zone of cron; the site's if left out.")] = ""
    grace: Annotated[
        Duration,
        Meta(description="How much later it may be, and how long it may take if it says that it begins.", gt=0),
    ] = Duration(15 * MINUTE)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("every"):
                if (self.every is None) is not bool(self.cron):
                    raise ValueError('either every or cron is needed; write every = "1d" or cron = "30 2 * * *"')
            with faults.at("cron"):
                if self.cron:
                    installed("cronsim", extra="cron")
                    _times(self.cron, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC")))
            with faults.at("timezone"):
                _zone(self.timezone or "UTC")
                if self.timezone and not self.cron:
                    raise ValueError("is of cron; drop it, or write cron")


class HeartbeatOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `heartbeat` check."""

    jobs: Annotated[dict[str, JobOptions], Meta(description="Jobs by name.", min_length=1, max_length=MOST_JOBS)]


class Known(Struct):
    """What is known of a job, unix seconds; `since` is from when it is expected at all."""

    since: float
    started_at: float | None = None
    succeeded_at: float | None = None
    failed_at: float | None = None
    message: str = ""
    took_s: float | None = None

    @property
    def ended_at(self) -> float:
        """When it ended last, or from when it is expected."""
        return max(self.since, self.succeeded_at or 0.0, self.failed_at or 0.0)

    @property
    def has_failed(self) -> bool:
        return self.failed_at is not None and self.failed_at >= (self.succeeded_at or 0.0)

    @property
    def runs_since(self) -> float | None:
        """When it began, if it has not ended since."""
        ended_at = max(self.succeeded_at or 0.0, self.failed_at or 0.0)
        return self.started_at if self.started_at is not None and self.started_at > ended_at else None

    def take(self, beat: Beat, at: float) -> None:
        """Note what it told; events may come twice, and in any order."""
        match beat.state:
            case "start":
                self.started_at = max(at, self.started_at or 0.0)
            case "success":
                self._took(at, self.succeeded_at)
                self.succeeded_at = max(at, self.succeeded_at or 0.0)
            case "fail":
                self._took(at, self.failed_at)
                if at >= (self.failed_at or 0.0):
                    self.failed_at, self.message = at, beat.message

    def _took(self, at: float, before: float | None) -> None:
        if self.started_at is not None and self.started_at <= at and at > (before or 0.0):
            self.took_s = at - self.started_at


class Cursor(Struct):
    """What a restart needs: the jobs, and up to when events were read."""

    read_until: float
    jobs: dict[str, Known]


class HeartbeatCheck(Check[HeartbeatOptions]):
    """Jobs that run now and then (cron, backups): which are late, and which failed."""

    Options = HeartbeatOptions
    metrics = (LATE, FAILED, DUE, SUCCEEDED, TOOK)
    interval = Duration(15 * SECOND)

    def __init__(self, options: HeartbeatOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._zones = {name: _zone(job.timezone or ctx.timezone) for name, job in options.jobs.items()}
        self._known: dict[str, Known] = {}
        self._read_until: float | None = None
        self._looked_far_at = 0.0

    async def run(self, cursor: Json | None) -> Report:
        """Read what jobs told since the last run, and see which are late. Degraded while one is, or failed."""
        now = self.ctx.clock.now()
        since = self._since(cursor, now)
        before = msgspec.json.encode(self._known)
        for event in await read(self.ctx.read, since, now + MINUTE):
            if event.data.get("job") in self._known:
                beat = msgspec.convert(event.data, Beat)
                self._known[beat.job].take(beat, event.timestamp)
        self._read_until = now
        samples, wrong = [], []
        for name, job in self.options.jobs.items():
            known = self._known[name]
            due_at = self._due_at(name, job, known)
            late_s = max(0.0, now - due_at - job.grace)
            if known.runs_since is not None:
                late_s = max(late_s, now - known.runs_since - job.grace)
            samples += [LATE(late_s, job=name), FAILED(float(known.has_failed), job=name), DUE(due_at, job=name)]
            if known.succeeded_at is not None:
                samples.append(SUCCEEDED(known.succeeded_at, job=name))
            if known.took_s is not None:
                samples.append(TOOK(known.took_s, job=name))
            if late_s > 0:
                wrong.append(f"{name} is late: {self._last(name, known)}")
            elif known.has_failed:
                wrong.append(f"{name} failed" + (f": {known.message}" if known.message else ""))
        status = Status.DEGRADED if wrong else Status.HEALTHY
        kept = msgspec.to_builtins(Cursor(now, self._known))
        return Report(
            status,
            _summary(wrong, len(self.options.jobs)),
            tuple(samples),
            cursor=kept if msgspec.json.encode(self._known) != before or cursor is None else None,
        )

    def _since(self, cursor: Json | None, now: float) -> float:
        """Return from when to read events; at the first run take up what the one before knew."""
        if self._read_until is None:
            kept = _kept(cursor, now)
            self._known = {name: kept.jobs.get(name) or Known(now) for name in self.options.jobs}
            return min(kept.read_until, now) - FAR_BACK_S
        if now - self._looked_far_at >= LOOKS_FAR_S:
            self._looked_far_at = now
            return now - FAR_BACK_S
        return self._read_until - OVERLAP_S

    def _due_at(self, name: str, job: JobOptions, known: Known) -> float:
        if job.every is not None:
            return known.ended_at + float(job.every)
        after = datetime.fromtimestamp(known.ended_at + EARLY_S, self._zones[name])
        return float(next(_times(job.cron, after)).timestamp())

    def _last(self, name: str, known: Known) -> str:
        zone = self._zones[name]
        if known.runs_since is not None:
            return f"it began at {_shown(known.runs_since, zone)} and has not ended"
        if known.succeeded_at is None:
            return f"it has not succeeded since {_shown(known.since, zone)}, when it was first expected"
        return f"it succeeded last at {_shown(known.succeeded_at, zone)}"


async def read(reader: Reader, start: float, end: float) -> list[Event]:
    """Return the heartbeats of a span, however many there are."""
    found: list[Event] = []
    while True:
        page = await reader.events(HEARTBEAT.name, start, end)
        found += page
        if len(page) < PAGE or page[-1].timestamp <= start:
            return found
        start = page[-1].timestamp


def _kept(cursor: Json | None, now: float) -> Cursor:
    try:
        return msgspec.convert(cursor, Cursor)
    except msgspec.ValidationError:  # none yet
        return Cursor(now, {})


def _times(expression: str, after: datetime) -> "CronSim":
    """Return the times of a cron expression. Raises ValueError for what is none."""
    from cronsim import CronSim, CronSimError  # only who writes one needs it

    try:
        times = CronSim(expression, after)
    except CronSimError as error:
        raise ValueError(f'{expression!r} is no cron expression: {error}; write "30 2 * * *"') from None
    return times


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f'{name!r} is no time zone; write "Europe/Berlin"') from None


def _shown(at: float, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M %Z")


def _summary(wrong: Sequence[str], jobs: int) -> str:
    if not wrong:
        return f"{jobs} job{'s' if jobs > 1 else ''} on time"
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return "; ".join(wrong[:SHOWN]) + more


RULES: Final = (
    default_rule(
        "system",
        "JobLate",
        "heartbeat_late_seconds > 0",
        "⏰ {{ $labels.job }} has not reported, and is {{ $value | humanizeDuration }} later than it may be: {{ $summary }}",
        Severity.HIGH,
        impact="What it does, such as a backup, is not done.",
        action="See whether it ran, and why it did not say so.",
    ),
    default_rule(
        "system",
        "JobFailed",
        "heartbeat_failed == 1",
        "⏰ {{ $labels.job }} says that it failed: {{ $summary }}",
        Severity.HIGH,
        impact="What it does, such as a backup, is not done.",
        action="Read its log, and run it again.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `heartbeat`."""
    return {"heartbeat": HeartbeatCheck}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """The event type `heartbeat`."""
    return (HEARTBEAT,)


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of jobs."""
    return RULES
