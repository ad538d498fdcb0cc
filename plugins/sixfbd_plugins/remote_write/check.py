"""The `remote_write` check: sends what the daemon knows to Prometheus, Mimir or VictoriaMetrics, and knows what they have.

Every `step` all series are looked at as a scrape of /metrics would, and sent with that time. The journal is the queue: the
cursor says until when all has been taken, and what was not is read again and sent after an outage or a restart, oldest
first. What is refused for good is dropped and counted. Owns the rules of how far behind it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    MINUTE,
    SECOND,
    Check,
    Context,
    Counter,
    Duration,
    Gauge,
    Json,
    Labels,
    OptionFaults,
    PluginConfig,
    Report,
    Rule,
    Sample,
    Secret,
    Severity,
    Status,
    TemporaryFailure,
    hookimpl,
    installed,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.checks.targets import (
    BasicAuth,
    authorization,
    hiding,
    merged_headers,
    parse_http_url,
    passwords,
    validate_credentials,
    validate_headers,
)
from sixfbd_plugins.notifiers.webhook import retry_after_s
from sixfbd_plugins.remote_write.wire import HEADERS, STALE, Points, encode

SETTLE_S: Final = 2.0  # before a moment is sent: what is measured then has been taken in
SAMPLES_A_REQUEST: Final = 2000
SAMPLES_A_RUN: Final = 10_000
STEPS_A_RUN: Final = 40
MAX_ANSWER_BYTES: Final = 64 * 1024
SAID: Final = 200  # characters of an answer that are shown
MENDABLE: Final = frozenset({401, 403, 404, 407, 408, 429})
"""Statuses that ask for a mend of the configuration, or for patience: nothing is dropped for them. The specification would
have all of 4xx but 429 dropped; a token that has run out is no reason to lose the night's samples."""

SENT = Counter("remote_write_samples_total", "Samples that were taken.")
DROPPED = Counter(
    "remote_write_samples_dropped_total", "Samples that were refused for good, or were too old to be sent."
)
LAG = Gauge("remote_write_lag_seconds", "Until so long ago all samples have been taken.")


class RemoteWriteOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `remote_write` check."""

    url: Annotated[str, Meta(description="Where to, such as https://prometheus.example.com/api/v1/write.")]
    external_labels: Annotated[
        dict[str, str],
        Meta(description="Labels for every series that does not have them, such as which machine it is."),
    ] = msgspec.field(default_factory=dict)
    match: Annotated[str, Meta(description="Which series are sent, as a PromQL selector.")] = '{__name__=~".+"}'
    step: Annotated[Duration, Meta(description="Time between two samples of a series.", ge=1, le=300)] = Duration(
        15 * SECOND
    )
    max_age: Annotated[Duration, Meta(description="Older samples are not sent any more after an outage.", ge=60)] = (
        Duration(120 * MINUTE)
    )
    headers: Annotated[dict[str, str], Meta(description="Headers to send.")] = msgspec.field(default_factory=dict)
    basic_auth: Annotated[BasicAuth | None, Meta(description="User name and password.")] = None
    bearer: Annotated[Secret | None, Meta(description="Bearer token.")] = None

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("url"):
                installed("cramjam", extra="remote-write")
                parse_http_url(self.url)
            with faults.at("bearer"):
                validate_credentials(self.basic_auth, self.bearer)
            with faults.at("headers"):
                validate_headers(self.headers)
            with faults.at("external_labels"):
                for name in self.external_labels:
                    if not name.isascii() or not name.isidentifier() or name.startswith("__"):
                        raise ValueError(f"{name!r} is not a label's name; write letters, digits and _")


class Memory(Struct, frozen=True, omit_defaults=True):
    """The cursor: until when (unix seconds) all has been taken or dropped, and how much was."""

    until: float = 0.0
    sent: int = 0
    dropped: int = 0


SeriesPoints: TypeAlias = list[tuple[Labels, Points]]


class _Batch(Struct, frozen=True):
    """What one request sends."""

    series: SeriesPoints
    samples: int


class RemoteWriteCheck(Check[RemoteWriteOptions]):
    """Sends samples on by Prometheus remote write, and those of an outage afterwards."""

    Options = RemoteWriteOptions
    metrics = (SENT, DROPPED, LAG)
    interval = Duration(15 * SECOND)
    timeout = Duration(14 * SECOND)

    def __init__(self, options: RemoteWriteOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        credentials = authorization(options.basic_auth, options.bearer)
        self._headers = merged_headers(HEADERS, options.headers) | credentials
        self._hide = hiding([*options.headers.values(), *credentials.values(), *passwords(options.basic_auth)])
        self._series = 0  # that were there at the last look
        self._not_before = 0.0

    async def run(self, cursor: Json | None) -> Report:
        """Send what has not been taken, as far as a run may; more of it in the next run, which is asked for at once."""
        now, step = self.ctx.clock.now(), float(self.options.step)
        settled = now - SETTLE_S
        memory, said = self._without_too_old(_remembered(cursor, settled // step * step), now)
        if now < self._not_before:
            return self._behind(memory, now, f"asked to wait for {self._not_before - now:.0f} s more")
        waiting = int((settled - memory.until) / step)
        steps = min(waiting, max(1, SAMPLES_A_RUN // max(self._series, 1)), STEPS_A_RUN)
        if steps < 1:
            return self._report(Status.HEALTHY, "up to date", memory, now)
        until = memory.until + steps * step
        sent = dropped = 0
        try:
            for batch in _batches(await self._look(memory.until, until, step)):
                if refused := await self._send(batch):
                    dropped, said = dropped + batch.samples, refused
                else:
                    sent += batch.samples
        except TemporaryFailure as failure:
            self._not_before = now + (failure.retry_after_s or 0.0)
            return self._behind(memory, now, self._hide(str(failure)))
        memory = Memory(until, memory.sent + sent, memory.dropped + dropped)
        status = Status.DEGRADED if said else Status.HEALTHY
        summary = said or f"{self._series} series sent" + (
            f", {waiting - steps} steps are left" if steps < waiting else ""
        )
        return self._report(status, summary, memory, now, more=steps < waiting)

    def _without_too_old(self, memory: Memory, now: float) -> tuple[Memory, str]:
        """Give up what is older than it may be."""
        step = float(self.options.step)
        oldest = (now - float(self.options.max_age)) // step * step
        if memory.until >= oldest:
            return memory, ""
        lost = round((oldest - memory.until) / step) * self._series
        memory = msgspec.structs.replace(memory, until=oldest, dropped=memory.dropped + lost)
        return memory, f"samples from before max_age ({self.options.max_age}) are not sent any more"

    async def _look(self, after: float, until: float, step: float) -> SeriesPoints:
        """Return what there was at every step after one time until another; a series that ended has STALE where it did."""
        found: SeriesPoints = []
        times = [round((after + number * step) * 1000) for number in range(round((until - after) / step) + 1)]
        rows = await self.ctx.read.query(self.options.match, after, until, step)
        for labels, points in rows:
            values = {round(at * 1000): value for at, value in points}
            sent = []
            for before, at in pairwise(times):
                if at in values:
                    sent.append((at, values[at]))
                elif before in values:
                    sent.append((at, STALE))
            if sent:
                found.append((self._labels(labels), sent))
        self._series = len(rows)
        return found

    def _labels(self, labels: Labels) -> Labels:
        return tuple(sorted({**self.options.external_labels, **dict(labels)}.items()))

    async def _send(self, batch: _Batch) -> str:
        """Send one request; return why it was refused for good, "" if it was taken. Raises TemporaryFailure else."""
        body = await self.ctx.to_thread(encode, batch.series)
        answer = await self.ctx.http.request(
            "POST",
            self.options.url,
            headers=self._headers,
            content=body,
            timeout_s=float(self.timeout),
            max_bytes=MAX_ANSWER_BYTES,
        )
        if answer.is_success:
            return ""
        said = self._hide(f"{self.options.url} answered {answer.status_code}: {answer.text[:SAID].strip()}")
        if answer.status_code in MENDABLE or answer.status_code >= 500 or answer.is_redirect:
            asked = retry_after_s(answer.headers.get("Retry-After"), datetime.fromtimestamp(self.ctx.clock.now(), UTC))
            raise TemporaryFailure(said, retry_after_s=asked)
        return said

    def _behind(self, memory: Memory, now: float, why: str) -> Report:
        return Report(Status.UNHEALTHY, f"samples wait: {why}", self._samples(memory, now))

    def _report(self, status: Status, summary: str, memory: Memory, now: float, *, more: bool = False) -> Report:
        after: Json = msgspec.to_builtins(memory)
        return Report(status, summary, self._samples(memory, now), cursor=after, more=more)

    def _samples(self, memory: Memory, now: float) -> tuple[Sample, ...]:
        return SENT(memory.sent), DROPPED(memory.dropped), LAG(max(0.0, now - memory.until))


def _remembered(cursor: Json | None, since: float) -> Memory:
    """Return the cursor; whoever begins sends what is measured from then on."""
    try:
        return Memory(since) if cursor is None else msgspec.convert(cursor, Memory)
    except msgspec.ValidationError:
        return Memory(since)


def _batches(series: SeriesPoints) -> Iterator[_Batch]:
    """Put what is to be sent into requests of SAMPLES_A_REQUEST or so; a series is whole in one."""
    some: SeriesPoints = []
    samples = 0
    for one in series:
        some.append(one)
        samples += len(one[1])
        if samples >= SAMPLES_A_REQUEST:
            yield _Batch(some, samples)
            some, samples = [], 0
    if some:
        yield _Batch(some, samples)


RULES: Final = (
    default_rule(
        "system",
        "RemoteWriteBehind",
        "remote_write_lag_seconds > 300",
        "Samples for {{ $labels.check }} wait since {{ $value | humanizeDuration }}: {{ $summary }}",
        Severity.MEDIUM,
        impact="Dashboards that read there show nothing new; what waits longer than max_age is never sent.",
        action="See whether it answers, and whether address and credentials are right: sixfbctl check run {{ $labels.check }}",
    ),
    default_rule(
        "system",
        "RemoteWriteRefused",
        "increase(remote_write_samples_dropped_total[10m]) > 0",
        "{{ $value | humanize }} samples for {{ $labels.check }} were refused: {{ $summary }}",
        Severity.MEDIUM,
        impact="They are missing there for good.",
        action="The check says what was answered: sixfbctl check run {{ $labels.check }}",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `remote_write`."""
    return {"remote_write": RemoteWriteCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of remote write."""
    return RULES
