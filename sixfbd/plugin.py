"""All that a plugin author imports: checks, notifiers, inbound webhooks, metrics, event types, rules, options, failures.

A plugin module implements one or more hooks of `sixfbd.hookspecs` and imports nothing else of sixfbd (a test keeps our
own plugins to that as well). A check is one class::

    import msgspec
    from sixfbd.plugin import Check, Gauge, Report, Status, hookimpl

    QUEUE = Gauge("shop_queue_length", "Orders waiting.", labels=("shop",))

    class QueueCheck(Check["QueueCheck.Options"]):
        '''Length of the order queue.'''

        class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
            url: str

        metrics = (QUEUE,)

        async def run(self, cursor):
            answer = await self.ctx.http.request("GET", self.options.url)
            return Report(Status.HEALTHY, "queue read", (QUEUE(answer.json()["length"], shop="main"),))

    @hookimpl
    def sixfbd_checks(config):
        return {"queue": QueueCheck}
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import datetime
from importlib.util import find_spec
from ssl import SSLContext
from typing import Any, ClassVar, Final, Generic, Protocol, TypeAlias, TypeVar

import httpx
import msgspec
import pluggy

from sixfbd.model import (
    Alert,
    Event,
    Json,
    Labels,
    Level,
    Message,
    MessageId,
    MetricKind,
    Receipt,
    Report,
    Rule,
    RuleName,
    Sample,
    Severity,
    Status,
    labels_of,
)
from sixfbd.quantities import DAY, HOUR, MINUTE, SECOND, Duration, FilePath, Secret, Size, show_duration, show_value

__all__ = [
    "ANY",
    "DAY",
    "HOUR",
    "MINUTE",
    "SECOND",
    "Alert",
    "Check",
    "Clock",
    "Configured",
    "Context",
    "Counter",
    "Duration",
    "Event",
    "EventType",
    "FilePath",
    "FromEnvironment",
    "Gauge",
    "Inbound",
    "InboundRefused",
    "InboundRequest",
    "InvalidOptions",
    "Json",
    "Labels",
    "Level",
    "Message",
    "MessageId",
    "Metric",
    "MetricKind",
    "Metrics",
    "Notification",
    "NotifiedAlert",
    "Notifier",
    "OptionFaults",
    "Outbound",
    "OverPace",
    "PermanentFailure",
    "PluginConfig",
    "Reader",
    "Receipt",
    "Report",
    "ReportRequest",
    "ReportType",
    "Rule",
    "RuleName",
    "Sample",
    "Secret",
    "Severity",
    "Size",
    "Status",
    "Summary",
    "TemporaryFailure",
    "Unknown",
    "hookimpl",
    "installed",
    "labels_of",
    "show_duration",
]

hookimpl: Final = pluggy.HookimplMarker("sixfbd")
"""Marks a function of a plugin module as an implementation of a hook of `sixfbd.hookspecs`."""

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - the type of a plugin's Options, as DESIGN section 6 writes it


# ---- metrics -----------------------------------------------------------------------------------------------------------


class Metric:
    """A declared metric: calling it with a value and its labels makes a sample. Raises TypeError on other label names."""

    kind: ClassVar[MetricKind] = MetricKind.UNTYPED

    def __init__(self, name: str, doc: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.doc = doc
        self.labels = tuple(sorted(labels))

    def __call__(self, value: float, **labels: str) -> Sample:
        if tuple(sorted(labels)) != self.labels:
            raise TypeError(f"{self.name} has the labels {list(self.labels)}, not {sorted(labels)}")
        return Sample(self.name, value, labels_of(labels), self.kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Gauge(Metric):
    """A value that goes up and down."""

    kind = MetricKind.GAUGE


class Counter(Metric):
    """A value that only grows (`..._total`). In an event type's `counts` the sample's value is what is added."""

    kind = MetricKind.COUNTER


class Summary(Metric):
    """Values whose quantiles over the last `window_s` seconds are shown, with `_sum` and `_count`; see `EventType.observes`.

    Kept as mergeable sketches with 1 % relative error.
    """

    kind = MetricKind.SUMMARY

    def __init__(
        self,
        name: str,
        doc: str,
        labels: Sequence[str] = (),
        *,
        quantiles: Sequence[float] = (0.5, 0.95),
        window_s: float = 5 * MINUTE,
    ) -> None:
        super().__init__(name, doc, labels)
        self.quantiles = tuple(quantiles)
        self.window_s = window_s

    def times(self, times: int, value: float, **labels: str) -> Sample:
        """Return a value that was observed so many times, at least once: one sample for what one event tells of many."""
        return msgspec.structs.replace(self(value, **labels), times=times)


class _Any:
    """The type of ANY."""

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
"""`metrics = ANY`: the check may report metrics that nobody can name beforehand (a scraped target's)."""

Metrics: TypeAlias = Sequence[Metric] | _Any


# ---- what the engine hands to a plugin -----------------------------------------------------------------------------------


class Clock(Protocol):
    """Engine time: wall time at start plus monotonic time since; it never steps (DESIGN promise 8)."""

    def now(self) -> float:
        """Return engine time in unix seconds."""
        ...

    def wall(self) -> datetime:
        """Return the wall clock, UTC; for display and signatures only."""
        ...

    async def sleep_until(self, at: float) -> None:
        """Return when `now()` is at least `at`."""
        ...


class Outbound(Protocol):
    """The way out for HTTP: a shared TLS context, no proxies from the environment, a limit on exchanges at once."""

    @property
    def ssl_context(self) -> SSLContext:
        """The TLS context that all of the daemon share. Whoever is the first to ask reads files: ask in a thread."""
        ...

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | str | None = None,
        json: Json | None = None,
        timeout_s: float = 10.0,
        max_bytes: int = 16 * 1024 * 1024,
    ) -> httpx.Response:
        """Exchange one request for a whole answer within `timeout_s` in all, redirects not followed.

        Raises `TemporaryFailure` when nothing came back: `sent` on it is False if the request certainly did not leave.
        """
        ...

    def slot(self, timeout_s: float) -> AbstractAsyncContextManager[None]:
        """Hold one of this service's slots, for exchanges made with another client; raises trio.TooSlowError at the end."""
        ...


class Reader(Protocol):
    """The only read access to the engine that plugins have."""

    async def query(
        self, expr: str, start: float, end: float, step: float
    ) -> Sequence[tuple[Labels, list[tuple[float, float]]]]:
        """Evaluate PromQL from `start` to `end` (unix seconds) each `step` seconds; points are (time, value).

        Labels are sorted; the metric is one of them, `__name__`, unless the expression drops it.
        """
        ...

    async def events(self, type: str, start: float, end: float) -> Sequence[Event]:  # noqa: A002 - an event's field
        """Return the events of one type with `start <= timestamp < end`, oldest first, at most 10,000."""
        ...

    async def quantile(self, metric: str, q: float, start: float, end: float) -> float | None:
        """Return a quantile of what a Summary observed in the minutes from `start` to `end`, within 1 %; None of nothing."""
        ...

    async def recent_alerts(self, matchers: Mapping[str, str], limit: int) -> Sequence[Alert]:
        """Return the last form of the incidents with these labels that changed last, over or not, latest first."""
        ...

    async def alerts(self, matchers: Mapping[str, str]) -> Sequence[Alert]:
        """Return the pending and firing alerts whose labels equal all of `matchers`."""
        ...

    async def messages(self, notifier: str, start: float, end: float) -> Sequence[Message]:
        """Return our messages through one notifier that changed at `start <= time < end`, oldest change first.

        Each is as its last change of that time left it; `provider_id` is what the provider calls it. Of more than 10,000
        those that changed last.
        """
        ...

    async def messages_about(self, alert: str) -> Sequence[Message]:
        """Return our messages that tell, or told, of one alert (`NotifiedAlert.id`), each as it is now, the first one first.

        A message's `obligations` are what it carries: one for each alert and notice in it.
        """
        ...


class Log(Protocol):
    """A structlog logger bound to the plugin instance: a fixed event name, facts as keywords."""

    def debug(self, event: str, **facts: Any) -> Any: ...
    def info(self, event: str, **facts: Any) -> Any: ...
    def warning(self, event: str, **facts: Any) -> Any: ...
    def error(self, event: str, **facts: Any) -> Any: ...


class Context(Protocol):
    """What an instance of a check or a notifier gets; the engine owns and closes all of it."""

    name: str
    http: Outbound
    clock: Clock
    log: Log
    read: Reader
    site: str
    timezone: str  # of the site, an IANA name: its days and hours
    sandbox: bool  # providers are doubles on this machine (`[daemon] sandbox = true`)
    version: str

    async def to_thread(self, fn: Callable[..., T], *args: object) -> T:
        """Run a blocking function in a worker thread of this instance (at most 4 at once). Give it a time limit of its own."""
        ...


class PluginConfig(msgspec.Struct, frozen=True):
    """What hooks may know of the configuration: names only, no options and no secrets."""

    site: str = ""
    environment: str = ""
    checks: tuple[str, ...] = ()
    notifiers: tuple[str, ...] = ()
    inbound: tuple[str, ...] = ()
    sandbox: bool = False


class Configured(msgspec.Struct, frozen=True):
    """What is configured beside an instance, as far as it may follow from that: no options and no secrets.

    `notifiers` are the plugins of the notifiers by name. `webhooks` are, by kind, the public addresses
    (`[http.public] url` and /webhooks/NAME) of the inbounds that are enabled.
    """

    notifiers: Mapping[str, str] = {}
    webhooks: Mapping[str, tuple[str, ...]] = {}
    sandbox: bool = False


class FromEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What `sixfbd init --from-env` configures if all of these variables of the environment are there.

    `tables` are the configuration's, nested by header, {"checks": {"queue": {"plugin": "queue", ...}}}; a secret is its
    reference, {"env": "NAME"}, never a value. What several bring is merged, lists are joined. `missed` says what is not
    watched, or who is not told, without them. `by_hand` are lines of TOML that nobody can know, such as who is told.
    """

    names: tuple[str, ...]
    missed: str
    tables: Mapping[str, Json] = {}
    by_hand: str = ""


# ---- options ------------------------------------------------------------------------------------------------------------


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The options of a plugin that has none."""


class InvalidOptions(ValueError):  # noqa: N818 - said of options, not of the program
    """Options that do not fit: `faults` has each as (key, text); a text may end in "; " and the mend."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{key}: {text}" for key, text in faults))
        self.faults = tuple(faults)


class OptionFaults:
    """Collects what is wrong with options, so that `__post_init__` names all of it at once::

        def __post_init__(self) -> None:
            with OptionFaults() as faults:
                with faults.at("url"):
                    parse_url(self.url)          # whatever ValueError is raised here is a fault of `url`
                with faults.at("retries"):
                    parse_count(self.retries)

    Leaving it raises InvalidOptions if there were any.
    """

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def __enter__(self) -> "OptionFaults":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None and self._found:
            raise InvalidOptions(self._found)

    @contextmanager
    def at(self, key: str) -> Iterator[None]:
        """Take a ValueError raised inside as a fault of this option."""
        try:
            yield
        except ValueError as error:
            self._found.append((key, str(error)))


def installed(module: str, *, extra: str) -> None:
    """Raise ValueError, with the extra of sixfbd to install, if a package that some options need is not there.

    For `Options.__post_init__`, so that it is a fault of the configuration; imports nothing. The plugin imports the package
    itself in the constructor of its check, notifier or inbound, never at the top of its module: only who configures it
    pays for it::

        with OptionFaults() as faults, faults.at("kind"):
            installed("acme_sdk", extra="acme")
    """
    if find_spec(module) is None:
        raise ValueError(f"needs the package {module}, which is not installed; pip install 'sixfbd[{extra}]'")


# ---- checks ------------------------------------------------------------------------------------------------------------


ProviderUrls: TypeAlias = Mapping[str, str | tuple[str, ...]]
"""By option: its provider's one address, or what its addresses begin with."""


class Check(Generic[O]):
    """One configured instance of a check plugin (`[checks.NAME]`). The class docstring's first line describes it to users.

    `Options` is a frozen msgspec Struct; `metrics` declares what `run` may report (other names are refused and named).
    `service` and `external` name the entries of /api/health that the check fills; `[checks.NAME]` may set them.
    `interval` and `timeout` are the defaults that `[checks.NAME]` overrides.
    `provider_urls` gives, by option, the address at which a provider serves everybody, such as
    {"url": "https://api.example.com"}: another one is a fault of the configuration unless `[daemon] sandbox = true`.
    Where each account has its own, a tuple of what they begin with; an option may be a table of them.
    """

    Options: ClassVar[type] = NoOptions
    metrics: ClassVar[Metrics] = ()
    provider_urls: ClassVar[ProviderUrls] = {}
    service: ClassVar[str | None] = None
    external: ClassVar[str | None] = None
    interval: ClassVar[Duration] = Duration(MINUTE)
    timeout: ClassVar[Duration] = Duration(10 * SECOND)

    def __init__(self, options: O, ctx: Context) -> None:
        self.options = options
        self.ctx = ctx

    @classmethod
    def complete(cls, options: Any, configured: Configured) -> Any:
        """Return the options, those that were left out and follow from what is configured beside it filled in.

        Called when a configuration is read. Raises ValueError or InvalidOptions for options that do not fit to that.
        """
        return options

    async def run(self, cursor: Json | None) -> Report:
        """Measure once. Cancelled at the timeout. An exception becomes an `unknown` report that names the plugin."""
        raise NotImplementedError(f"{type(self).__name__} has no run()")

    async def close(self) -> None:
        """Let go of what the instance holds (connections). Called once, after the last run."""


# ---- notifiers ---------------------------------------------------------------------------------------------------------


class TemporaryFailure(Exception):  # noqa: N818 - the contract's word: a delivery failed, the program did not
    """Try again later. `retry_after_s` is the provider's wish; `sent=False`: the provider certainly did not take it.

    With `sent=True` (the default is False) nobody knows whether the message was taken: it becomes `unknown`.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None, sent: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.sent = sent


class OverPace(TemporaryFailure):
    """Nothing was asked of the provider, which takes no more messages just now: come again in `retry_after_s` seconds.

    It is no try: it counts as none, and the wait is that one, however often it happens, until the message expires.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class PermanentFailure(Exception):  # noqa: N818 - as above
    """This message will never be taken: it becomes `dead`, and that is itself alerted."""


class NotifiedAlert(msgspec.Struct, frozen=True, kw_only=True):
    """One alert of a notification. Times are unix seconds; `ends_at` is None while it fires. `id` is what `ack` takes.

    `annotations` say what the fault was, even when it is over: then `sentence` says so. `reason` is why it ended, if not
    because all is well, and `value_at_end` what was measured then, if that is known. `ack_url` leads to a page with a button
    that acknowledges it, "" if there is no address for the outside.
    """

    id: str
    status: str  # "firing" or "resolved"
    severity: Severity
    labels: dict[str, str]
    annotations: dict[str, str]
    value: float | str
    starts_at: float
    ends_at: float | None = None
    kind: str = "fire"
    fingerprint: str = ""
    generator_url: str = ""
    reason: str = ""
    value_at_end: float | str | None = None
    ack_url: str = ""

    @property
    def ending(self) -> str:
        """That it is over, after how long, and how it is now: "ended after 12m (now 0.02)". "" while it fires."""
        if self.status != "resolved":
            return ""
        lasted = "" if self.ends_at is None else f" after {show_duration(max(0, round(self.ends_at - self.starts_at)))}"
        now = "" if self.value_at_end is None else f"now {show_value(self.value_at_end)}"
        details = "; ".join(part for part in (self.reason, now) if part)
        return f"ended{lasted}" + (f" ({details})" if details else "")

    @property
    def sentence(self) -> str:
        """What it says in one line: its summary, and once it is over how it ended before what it was."""
        summary = self.annotations.get("summary") or self.labels.get("alertname", self.id)
        return f"{self.ending}, was: {summary}" if self.ending else summary


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One message, rendered: what a notifier delivers to one address.

    `status` is "firing" if any alert fires, "resolved" if none does, "notice" for a notice (which has no alerts).
    `title` is one line, `text` the whole message in plain text. `remarks` are sentences about the daemon itself that `text`
    holds already: a channel that shortens it says them first. `own_text`: the text is of the site's own template, and a channel
    that has words of its own shows it instead. `color` ("#E74A3B") and `icon` are the severity's.
    """

    id: MessageId
    receiver: str
    address: str
    status: str
    severity: Severity
    title: str
    text: str
    alerts: tuple[NotifiedAlert, ...] = ()
    group_key: str = ""
    group_labels: dict[str, str] = msgspec.field(default_factory=dict)
    external_url: str = ""
    attempt: int = 1
    sent_at: float = 0.0
    possibly_repeated: bool = False
    remarks: tuple[str, ...] = ()
    own_text: bool = False
    color: str = ""
    icon: str = ""


class Notifier(Generic[O]):
    """One configured account (`[notifiers.NAME]`). `deliver` is one try; the outbox retries, repeats and gives up.

    `idempotent`: a repeat with the same `id` is dropped by the far side. `can_look_up`: `lookup` tells whether a message
    whose answer was lost had arrived. With neither, such a message is sent once more, marked `possibly_repeated`.
    `receipts`: the provider tells later what became of a message, by an event type's `receipt` (see EventType).
    `reaches_people`: who configures it has told somebody. `provider_urls` as a check's.
    """

    Options: ClassVar[type] = NoOptions
    metrics: ClassVar[Metrics] = ()
    provider_urls: ClassVar[ProviderUrls] = {}
    reaches_people: ClassVar[bool] = True
    idempotent: ClassVar[bool] = False
    can_look_up: ClassVar[bool] = False
    receipts: ClassVar[bool] = False
    concurrency: ClassVar[int] = 4
    timeout: ClassVar[Duration] = Duration(15 * SECOND)

    def __init__(self, options: O, ctx: Context) -> None:
        self.options = options
        self.ctx = ctx

    @classmethod
    def complete(cls, options: Any, configured: Configured) -> Any:
        """Return the options, those that were left out and follow from what is configured beside it filled in.

        Called when a configuration is read. Raises ValueError or InvalidOptions for options that do not fit to that.
        """
        return options

    @classmethod
    def gets_receipts(cls, options: Any) -> bool:
        """Tell whether receipts may come with these options, if `receipts` is not true of all."""
        return cls.receipts

    @classmethod
    def looks_for_receipts(cls, options: Any) -> bool:
        """Tell whether nobody calls with receipts with these options, so that `lookup` is asked what became of a message.

        It is asked 5, 15, 30 and 60 s after the message was taken; takes effect if `can_look_up`.
        """
        return False

    @classmethod
    def check_address(cls, options: Any, address: str) -> None:
        """Raise ValueError, which does not show it, if `address` cannot be a receiver's ("" if none is configured).

        Called when a configuration is read, with the notifier's options, for each address that leads to it.
        """

    @classmethod
    def show_address(cls, address: str) -> str:
        """Return a receiver's address as people may see it outside the configuration: less of it, if it is private."""
        return address

    @classmethod
    def shows(cls, options: Any, notification: Notification, site: str) -> str:
        """Return what people get to see of a message, in plain text; `sixfbd template preview` prints it."""
        title, text = notification.title, notification.text
        return text if text.startswith(title) else f"{title}\n\n{text}"

    async def deliver(self, notification: Notification) -> Receipt:
        """Try once. Raises TemporaryFailure or PermanentFailure; cancelled at `timeout`, which makes it `unknown`."""
        raise NotImplementedError(f"{type(self).__name__} has no deliver()")

    async def lookup(self, notification: Notification) -> Receipt | None:
        """Return the receipt if the provider has the message, None if it has not. TemporaryFailure: cannot tell."""
        raise NotImplementedError(f"{type(self).__name__} has no lookup()")

    def events(self, messages: Sequence[Message]) -> Sequence[Event]:
        """Return events about our messages through this notifier, such as that one was taken, to be counted; () by default.

        Called with none when the instance begins, then with messages that changed, each as it is now: after a start with
        all of the last days. So an id is made of the message's, by which a repeat is recognised, and the event type is
        `shared` if the notifier may get another name. Neither waits nor blocks.
        """
        return ()

    async def close(self) -> None:
        """Let go of what the instance holds. Called once, after the last delivery."""


# ---- webhooks of providers ---------------------------------------------------------------------------------------------


class InboundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to `/webhooks/NAME`, whole, as `Inbound.receive` gets it.

    `url` is what the provider called as far as we know: `[http.public] url`, `/webhooks/NAME` and the query string as it
    came; never made of the request's Host. `path` and `query` are its parts. `headers` are case-insensitive;
    `headers.get_list(name)` has all values of one that came more than once. `body` is as it came. `received_at` is the wall
    clock in unix seconds, which is what a provider's times are compared with.
    """

    name: str
    url: str
    body: bytes
    received_at: float
    headers: httpx.Headers = msgspec.field(default_factory=httpx.Headers)
    method: str = "POST"
    path: str = ""
    query: str = ""

    def __repr__(self) -> str:
        return f"InboundRequest({self.method} {self.path}, {len(self.body)} bytes)"


class InboundRefused(Exception):  # noqa: N818 - the contract's word: the request is refused, the program did not fail
    """The request is not from whom it says, is too old or cannot be read: answered 400, and counted.

    The text says which, such as "the signature fits none of the secrets"; it goes to the log, never to the sender, and
    holds nothing of the body, of the signature or of a secret.
    """


class Inbound(Generic[O]):
    """One configured source of webhooks (`[inbound.NAME] kind = "..."`), served at `/webhooks/NAME` of `[http.public]`.

    The class docstring's first line describes it to users. Options that hold what requests are signed with are called
    `secrets: tuple[Secret, ...]`, at least one, the newest first: during a rotation each is tried, and one that fits is
    enough. The engine limits size, time and rate before `receive` is called, and answers 200 once the events are durable.
    """

    Options: ClassVar[type] = NoOptions

    def __init__(self, options: O, ctx: Context) -> None:
        self.options = options
        self.ctx = ctx

    def receive(self, request: InboundRequest) -> Sequence[Event]:
        """Verify a request and return its events; nothing to say is (). A pure function of the request and the options.

        Called in the loop: it neither waits nor blocks. Raises InboundRefused for whatever the sender got wrong: a header
        that is missing or given twice, a time too far from `received_at` either way, a signature that fits no secret, a
        body that cannot be read. Verify before you parse. Any other exception is a fault of the plugin: it is named, and
        answered 503, so that the provider tries again.

        An event's `id` is the provider's, or made of what does not change when it is sent again: a repeat is recognised
        by it, for 7 days, within this inbound. Its `timestamp` is when it happened; events may come in any order.
        """
        raise NotImplementedError(f"{type(self).__name__} has no receive()")


# ---- events ------------------------------------------------------------------------------------------------------------


class EventType:
    """A declared type of event: the form of its data and what it counts, sets, observes.

    `data` is a msgspec Struct (unknown fields are kept in the event and ignored here). `counts` returns samples of
    Counters whose value is added; `sets` samples of Gauges, set at arrival; `observes` samples of Summaries. Each takes
    the decoded data. `notice` names the notice that the event sends, of severity `notice_severity`; an event whose data has
    a text `suppressed` sends none, and that text is the reason. `notice_text` says it in one line for people, without it
    the event's data are listed; `notice_labels` returns labels by which routes may tell such notices apart, such as a city.
    An exception in one of them is named and counted; the event is kept. `example` is data as the event may have them, with
    which templates of messages are tried out.

    `receipt` returns what the event says of a message of ours, such as that it arrived, or None: a Receipt with our
    message's id or with what the provider calls it. It takes effect if the message's notifier has `receipts = True`;
    receipts may come late, twice and in any order, and one that is faster than the answer to its message waits for
    10 minutes. It is called when the event is judged, after a crash once more.

    `shared`: an id names the same event whoever brings it, such as a provider's webhook and a check that reads the
    provider's list: it is taken once, from the first. Otherwise each source has ids of its own.
    """

    def __init__(
        self,
        name: str,
        data: type[Any],
        *,
        counts: Callable[[Any], Sequence[Sample]] | None = None,
        sets: Callable[[Any], Sequence[Sample]] | None = None,
        observes: Callable[[Any], Sequence[Sample]] | None = None,
        metrics: Sequence[Metric] = (),
        notice: str | None = None,
        notice_severity: Severity = Severity.LOW,
        notice_text: Callable[[Any], str] | None = None,
        notice_labels: Callable[[Any], Mapping[str, str]] | None = None,
        example: Mapping[str, Any] | None = None,
        receipt: Callable[[Any], Receipt | None] | None = None,
        shared: bool = False,
        doc: str = "",
    ) -> None:
        self.name = name
        self.data = data
        self.counts = counts
        self.sets = sets
        self.observes = observes
        self.metrics = tuple(metrics)
        self.notice = notice
        self.notice_severity = notice_severity
        self.notice_text = notice_text
        self.notice_labels = notice_labels
        self.example = dict(example or {})
        self.receipt = receipt
        self.shared = shared
        self.doc = doc


# ---- reports -----------------------------------------------------------------------------------------------------------


class Unknown(msgspec.Struct, frozen=True):
    """In a report, the value of what cannot be known: it is shown as null, and why among the report's `unknown`."""

    reason: str


class ReportRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is asked for: how it was from `start` to `end` (unix seconds).

    `check` names the only instance that is asked for, "" asks for all; `about` what it is about, such as an
    order. `checks` and `notifiers` are the plugins of those that
    are configured, by name; `addresses` how many there are, by kind of channel.
    """

    read: Reader
    start: float
    end: float
    check: str = ""
    about: str = ""
    timezone: str = "UTC"
    checks: Mapping[str, str] = {}
    notifiers: Mapping[str, str] = {}
    addresses: Mapping[str, int] = {}


A_DAY: Final = Duration(DAY)


class ReportType:
    """A report at /api/monitoring/NAME: `make` returns what can be written as JSON, with `Unknown` for what nobody knows.

    Keys are camelCase. `timeframe` is how far back it looks if nobody says. Cut off after 10 s. It has a page too, at
    /reports/NAME, called `title`; `units` says by the names of keys what their numbers are: "ratio" (0 to 1), "ms", "seconds",
    "bytes", "money" or "count", which is what all others are.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[ReportRequest], Awaitable[Mapping[str, Any]]],
        *,
        doc: str,
        timeframe: Duration = A_DAY,
        title: str = "",
        units: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.title = title or name.capitalize()
        self.units = dict(units or {})
        self.make = make
        self.doc = doc
        self.timeframe = timeframe
