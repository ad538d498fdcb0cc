"""The tables of the configuration: their keys, types, defaults, and a line on each key, which `sixfbd init`, the JSON
Schema and the error messages show. No reading, no checking."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

from msgspec import Meta, Struct, field

from sixfbd.model import Level, Severity
from sixfbd.plugin import PluginConfig
from sixfbd.quantities import DAY, HOUR, MINUTE, SECOND, Duration, FilePath, Secret, Size


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration: frozen, unknown keys refused."""


class Site(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[site]`: whose shop this is; in every message and report."""

    name: Annotated[str, Meta(description="Name of the site, shown in every message.", min_length=1)] = "workshop"
    environment: Annotated[str, Meta(description="Such as production or staging.")] = "production"
    timezone: Annotated[str, Meta(description="IANA time zone of the site's days and hours.")] = "UTC"
    currency: Annotated[
        str, Meta(description="ISO 4217 code that reports are in.", pattern="^[A-Z]{3}$", examples=["USD"])
    ] = "USD"
    url: Annotated[
        str,
        Meta(description="The shop's own address.", pattern="^(https?://.+)?$", examples=["https://shop.example.com"]),
    ] = ""
    external_labels: Annotated[dict[str, str], Meta(description="Labels added to what leaves this daemon.")] = field(
        default_factory=dict
    )


class Daemon(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[daemon]`: where it keeps its state, and which plugins it loads."""

    state_directory: Annotated[str, Meta(description="Where journal.db and samples.db live.")] = "/var/lib/sixfbd"
    evaluation_interval: Annotated[Duration, Meta(description="Tick of rules that no change touches.")] = Duration(
        15 * SECOND
    )
    stop_timeout: Annotated[Duration, Meta(description="How long a stop may drain.")] = Duration(10 * SECOND)
    plugin_directories: Annotated[tuple[str, ...], Meta(description="Directories of plugin packages.")] = (
        "/usr/local/lib/sixfbd/plugins",
    )
    plugins_d: Annotated[str, Meta(description="Directory of single-file plugins; relative to this file.")] = (
        "plugins.d"
    )
    sandbox: Annotated[
        bool, Meta(description="Providers are doubles on this machine: every message and page says so.")
    ] = False


class HttpPublic(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[http.public]`: the port for the outside, which serves webhooks and nothing else."""

    header: ClassVar[str] = "[http.public]"
    listen: Annotated[str, Meta(description="Address and port; port 0 takes a free one.")] = "127.0.0.1:9633"
    url: Annotated[
        str,
        Meta(
            description="What providers call it, before /webhooks/NAME; signatures are checked against it.",
            examples=["https://hooks.example.com"],
        ),
    ]
    cert_file: Annotated[FilePath | None, Meta(description="PEM file of the certificate and its chain.")] = None
    key_file: Annotated[FilePath | None, Meta(description="PEM file of the certificate's key.")] = None
    insecure_bind: Annotated[bool, Meta(description="Allow an address that is not loopback without TLS.")] = False
    max_body: Annotated[Size, Meta(description="Largest request body.")] = Size(1024 * 1024)
    max_rate: Annotated[int, Meta(description="Requests a second to one webhook, in the long run.", ge=1)] = 100
    body_timeout: Annotated[Duration, Meta(description="Time limit for reading a body.")] = Duration(5 * SECOND)
    request_timeout: Annotated[
        Duration, Meta(description="Time limit for answering; shorter than the providers' own.")
    ] = Duration(8 * SECOND)


class Http(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[http]`: the local port."""

    header: ClassVar[str] = "[http]"
    listen: Annotated[str, Meta(description="Address and port; port 0 takes a free one.")] = "127.0.0.1:9632"
    hosts: Annotated[tuple[str, ...], Meta(description="Host names accepted besides loopback's.")] = ()
    insecure_bind: Annotated[bool, Meta(description="Allow an address that is not loopback without TLS.")] = False
    max_body: Annotated[Size, Meta(description="Largest request body.")] = Size(4 * 1024 * 1024)
    max_event_rate: Annotated[
        int, Meta(description="Events a second by one token, in the long run; ten seconds' worth at once.", ge=1)
    ] = 5000
    body_timeout: Annotated[Duration, Meta(description="Time limit for reading a body.")] = Duration(30 * SECOND)
    request_timeout: Annotated[Duration, Meta(description="Time limit for answering.")] = Duration(30 * SECOND)
    public: Annotated[HttpPublic | None, Meta(description="The port for the outside.")] = None


class Control(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control]`: the local Unix socket that sixfbctl talks to."""

    socket: Annotated[str, Meta(description="Path of the socket.")] = "/run/sixfbd/control.sock"


class WindowTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[window]`: what is held in memory."""

    memory: Annotated[Size, Meta(description="Memory for sealed chunks read back from disk.")] = Size(64 * 1024 * 1024)
    max_series_per_check: Annotated[int, Meta(description="Series that one check may have.", ge=1)] = 20_000


class JournalTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[journal]`: how long what is kept."""

    samples: Annotated[Duration, Meta(description="Raw samples are kept this long.")] = Duration(30 * DAY)
    events: Annotated[Duration, Meta(description="Events are kept this long.")] = Duration(396 * DAY)
    alerts: Annotated[Duration, Meta(description="Alerts and deliveries are kept this long.")] = Duration(730 * DAY)
    max_size: Annotated[Size, Meta(description="Of a larger journal.db the oldest events and alerts go earlier.")] = (
        Size(4 * 1024**3)
    )
    max_samples_size: Annotated[Size, Meta(description="Of a larger samples.db the oldest samples go earlier.")] = Size(
        16 * 1024**3
    )


class Log(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`: what the daemon writes to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="debug, info, warning or error.")
    ] = "info"
    format: Annotated[
        Literal["auto", "console", "json"], Meta(description="console, json, or auto (console on a terminal).")
    ] = "auto"


class Token(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tokens.NAME]`: a fixed access token."""

    secret: Annotated[Secret, Meta(description="The token itself.")]
    scopes: Annotated[
        tuple[Literal["events", "alerts", "read"], ...],
        Meta(description="What it allows: events, alerts, read.", min_length=1),
    ] = ("events",)


class CheckKeys(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's own keys of `[checks.NAME]`; every other key is an option of the plugin."""

    plugin: Annotated[str, Meta(description="Name of the check plugin.")]
    interval: Annotated[Duration | None, Meta(description="Time from start to start of two runs.")] = None
    timeout: Annotated[Duration | None, Meta(description="Time limit of one run.")] = None
    service: Annotated[str | None, Meta(description="Entry of /api/health that it fills.", min_length=1)] = None
    external: Annotated[str | None, Meta(description="External entry of /api/health that it fills.", min_length=1)] = (
        None
    )
    enabled: Annotated[bool, Meta(description="Whether it runs.")] = True
    jitter: Annotated[Duration | None, Meta(description="The first run starts at chance within this time.")] = None
    depends_on: Annotated[
        tuple[str, ...], Meta(description="Checks that are the cause if they are unhealthy: then its alerts are held.")
    ] = ()


class NotifierKeys(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's own keys of `[notifiers.NAME]`; every other key is an option of the plugin."""

    plugin: Annotated[str, Meta(description="Name of the notifier plugin.")]
    timeout: Annotated[Duration | None, Meta(description="Time limit of one try.")] = None
    concurrency: Annotated[int | None, Meta(description="Messages sent at once.", ge=1, le=64)] = None
    expiry: Annotated[Duration, Meta(description="A message is given up after this time.")] = Duration(24 * HOUR)
    retry_first: Annotated[Duration, Meta(description="Wait before the second try; doubles with each.")] = Duration(
        1 * SECOND
    )
    retry_most: Annotated[Duration, Meta(description="Longest wait between two tries.")] = Duration(5 * MINUTE)


class InboundKeys(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's own keys of `[inbound.NAME]`; every other key is an option of the plugin."""

    kind: Annotated[str, Meta(description="Kind of webhooks, which a plugin verifies and reads.")]
    enabled: Annotated[bool, Meta(description="Whether /webhooks/NAME is served.")] = True


class CheckTable(Struct, frozen=True, kw_only=True):
    """`[checks.NAME]` as loaded: defaults of the plugin filled in, the plugin's keys in `options`."""

    name: str
    plugin: str
    interval: Duration
    timeout: Duration
    service: str | None = None
    external: str | None = None
    enabled: bool = True
    jitter: Duration | None = None
    depends_on: tuple[str, ...] = ()
    options: Any = None  # the plugin's Options
    where: str = ""  # file, for later messages


class NotifierTable(Struct, frozen=True, kw_only=True):
    """`[notifiers.NAME]` as loaded: defaults of the plugin filled in, the plugin's keys in `options`."""

    name: str
    plugin: str
    timeout: Duration
    concurrency: int
    expiry: Duration = Duration(24 * HOUR)
    retry_first: Duration = Duration(1 * SECOND)
    retry_most: Duration = Duration(5 * MINUTE)
    options: Any = None
    where: str = ""


class InboundTable(Struct, frozen=True, kw_only=True):
    """`[inbound.NAME]` as loaded: the plugin's keys in `options`."""

    name: str
    kind: str
    enabled: bool = True
    options: Any = None
    where: str = ""


class Channel(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `[receivers.NAME]`: which notifier, and to which addresses."""

    via: Annotated[str, Meta(description="Name of a notifier.")]
    to: Annotated[
        tuple[str, ...],
        Meta(description="Addresses; may be left out where the notifier has only one.", min_length=1),
    ] = ("",)
    quiet_hours: Annotated[
        tuple[str, ...], Meta(description="Time intervals in which it is used for what is critical only.")
    ] = ()
    per_hour: Annotated[
        int | None, Meta(description="Messages an hour to each address; 0: no limit. 30 for sms.", ge=0, le=1000)
    ] = None
    per_day: Annotated[
        int | None, Meta(description="Messages a day to each address; 0: no limit. 100 for sms.", ge=0, le=1000)
    ] = None
    reserve: Annotated[
        int | None, Meta(description="The last so many are for what is critical, and for digests. 20 for sms.", ge=0)
    ] = None


class BudgetTable(Struct, frozen=True):
    """What an address gets by a kind of channel; 0: no limit. The last `reserve` are for what is critical, and for digests."""

    per_hour: int = 0
    per_day: int = 0
    reserve: int = 0


DEFAULT_BUDGETS: Final = MappingProxyType({"sms": BudgetTable(30, 100, 20)})
"""By kind of channel: each text is paid for."""


class OverrideTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of the `overrides` of `[oncall.NAME]`: somebody who is on call for a while, whoever's turn it is."""

    member: Annotated[str, Meta(description="A receiver.", min_length=1)]
    from_: Annotated[str, Meta(description='A time of the place, such as "2026-12-24T18:00".')] = field(name="from")
    until: Annotated[str, Meta(description="When it ends.")]


class OnCallTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[oncall.NAME]`: receivers who are on call by turns; its name stands wherever a receiver's does."""

    members: Annotated[tuple[str, ...], Meta(description="Receivers, in the order of their turns.", min_length=1)]
    start: Annotated[str, Meta(description='When the first one\'s first shift begins, such as "2026-01-05T09:00".')]
    shift: Annotated[Duration, Meta(description="How long a turn is, by the clocks of the place.")] = Duration(7 * DAY)
    location: Annotated[str, Meta(description="IANA time zone; by default the site's.")] = ""
    overrides: Annotated[
        tuple[OverrideTable, ...], Meta(description="Who is on call instead, from when until when.")
    ] = ()


class RouteTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[route]` and its `routes`, as Alertmanager's: a tree of matchers."""

    receiver: Annotated[str, Meta(description="Who is told; inherited from the parent where left out.")] = ""
    matchers: Annotated[tuple[str, ...], Meta(description='Such as severity="critical"; all must match.')] = ()
    continue_: Annotated[bool, Meta(description="Whether later siblings are tried after this one matched.")] = field(
        default=False, name="continue"
    )
    group_by: Annotated[
        tuple[str, ...] | None,
        Meta(description='Labels whose values share a message; by default the rule; ["..."]: each alert its own.'),
    ] = None
    group_wait: Annotated[Duration | None, Meta(description="How long a new group waits for more; by default 0s.")] = (
        None
    )
    group_interval: Annotated[
        Duration | None, Meta(description="Least time between two messages of a group; by default 0s.")
    ] = None
    repeat_interval: Annotated[
        Duration | None, Meta(description="What still fires is told again after this time; 0s: never; by default 4h.")
    ] = None
    mute_time_intervals: Annotated[tuple[str, ...], Meta(description="Time intervals in which nobody is told.")] = ()
    active_time_intervals: Annotated[
        tuple[str, ...], Meta(description="Time intervals outside of which nobody is told.")
    ] = ()
    routes: Annotated[tuple["RouteTable", ...], Meta(description="Routes below this one; the first that matches.")] = ()


class TimesTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Part of a day: from `start_time` until just before `end_time`."""

    start_time: Annotated[str, Meta(description='Such as "09:00".')]
    end_time: Annotated[str, Meta(description='Such as "17:00"; "24:00" is the end of the day.')]


class IntervalTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `[time_intervals.NAME]`; what is left out matches always."""

    times: Annotated[tuple[TimesTable, ...], Meta(description="Parts of the day.")] = ()
    weekdays: Annotated[tuple[str, ...], Meta(description='Such as "monday:friday".')] = ()
    days_of_month: Annotated[tuple[str, ...], Meta(description='Such as "1:5"; "-1" is the last day.')] = ()
    months: Annotated[tuple[str, ...], Meta(description='Such as "january:march" or "12".')] = ()
    years: Annotated[tuple[str, ...], Meta(description='Such as "2026:2027".')] = ()
    location: Annotated[str, Meta(description="IANA time zone; by default the site's.")] = ""


class TimeIntervalTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[time_intervals.NAME]`: times that routes and maintenance name."""

    intervals: Annotated[
        tuple[IntervalTable, ...],
        Meta(
            description='Such as {weekdays = ["monday:friday"], times = [{start_time = "09:00", end_time = "17:00"}]}.',
            min_length=1,
        ),
    ]


class MaintenanceTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[maintenance]]`: a silence that is planned, once or by a time interval."""

    name: Annotated[str, Meta(description="Name of the window.", min_length=1)]
    matchers: Annotated[tuple[str, ...], Meta(description="Which alerts it holds; all must match.", min_length=1)]
    comment: Annotated[str, Meta(description="Why; shown with what it holds.")] = ""
    during: Annotated[str, Meta(description="Name of a time interval.")] = ""
    from_: Annotated[str, Meta(description="When it begins, if it is held once; a time of the site.")] = field(
        default="", name="from"
    )
    until: Annotated[str, Meta(description="When it ends, if it is held once.")] = ""


class DrillTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[drills]]`: a message, marked as a drill, that tries out the way to people; `DrillFailed` if it does not arrive."""

    name: Annotated[str, Meta(description="Name of the drill.", min_length=1)]
    receivers: Annotated[tuple[str, ...], Meta(description="Receivers; each of their channels is used.", min_length=1)]
    during: Annotated[str, Meta(description="Name of a time interval; one is held whenever that begins.", min_length=1)]


class InhibitTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[inhibit]]`: while one alert fires, others are told to nobody, as Alertmanager's inhibit_rules."""

    source_matchers: Annotated[
        tuple[str, ...], Meta(description="Which alerts, firing, hold others back; all must match.", min_length=1)
    ]
    target_matchers: Annotated[
        tuple[str, ...], Meta(description="Which alerts they hold back; all must match.", min_length=1)
    ]
    equal: Annotated[tuple[str, ...], Meta(description="Labels that must have the same value in both.")] = ()


class EscalationStep(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of `[[escalations]]`."""

    after: Annotated[Duration, Meta(description="How long the alert fires by then without an acknowledgement.")]
    receiver: Annotated[str, Meta(description="Who is told then.", min_length=1)]


class EscalationTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[escalations]]`: who else is told of an alert that nobody acknowledges."""

    name: Annotated[str, Meta(description="Name of the escalation.", min_length=1)]
    matchers: Annotated[tuple[str, ...], Meta(description="Which alerts; all must match.", min_length=1)]
    steps: Annotated[
        tuple[EscalationStep, ...], Meta(description='Such as {after = "5m", receiver = "escalation"}.', min_length=1)
    ]


class Heartbeat(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[heartbeat]`: a sign of life to a dead man's switch outside, sent only on proof that the daemon does its work."""

    url: Annotated[
        Secret | None, Meta(description="The switch's address, which is a secret; without one there is none.")
    ] = None
    interval: Annotated[Duration, Meta(description="Time between two beats.")] = Duration(1 * MINUTE)
    timeout: Annotated[Duration, Meta(description="Time limit of one request.")] = Duration(10 * SECOND)
    method: Annotated[Literal["GET", "POST"], Meta(description="GET or POST.")] = "GET"


class NoticesTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[notices]`: how many messages about events, such as sales, anybody gets; more of them become a digest."""

    most: Annotated[
        int, Meta(description="Messages of one kind to one target within that time; 0: no limit.", ge=0, le=1000)
    ] = 5
    within: Annotated[Duration, Meta(description="The time, at most 1d.", gt=0, le=86_400)] = Duration(10 * MINUTE)


class PrivacyTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[privacy]`: what of people is kept of events; by default no name, address, program, text, and customers as pseudonyms."""

    keep: Annotated[
        tuple[str, ...], Meta(description='Fields of events that are kept as they come, such as ["ip", "email"].')
    ] = ()


class TemplatesTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[templates]`: how messages read. Files such as firing.text.j2, resolved@sms.title.j2, notice.sale.text.j2."""

    directory: Annotated[
        str,
        Meta(
            description="Where they are, relative to this file; if left out, in templates beside it, if that is there."
        ),
    ] = ""


class FlappingTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[flapping]`: an alert that comes and goes is kept firing until it has settled."""

    window: Annotated[Duration, Meta(description="Changes of this time count, at most 1d; 0s: nothing flaps.")] = (
        Duration(30 * MINUTE)
    )
    high: Annotated[float, Meta(description="It begins above this weighted share of changes.", gt=0, le=1)] = 0.30
    low: Annotated[float, Meta(description="It ends at this share.", gt=0, le=1)] = 0.25


class SeverityTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[severities.NAME]`: how a severity looks and by which channels it is told."""

    color: Annotated[
        str, Meta(description="Colour in messages and on pages.", pattern="^#[0-9A-Fa-f]{6}$", examples=["#E74A3B"])
    ] = "#36B9CC"
    icon: Annotated[str, Meta(description="Sign before the title of a message.", max_length=16)] = ""
    channels: Annotated[tuple[str, ...], Meta(description="Kinds of channel of a receiver that are used.")] = ()


class RuleTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[rules]]`: a rule of one's own, or single keys of a default rule of the same name."""

    name: Annotated[str, Meta(description="Name of the rule; a default rule's name changes that one.", min_length=1)]
    expr: Annotated[str | None, Meta(description="PromQL; each series that it returns is an alert.")] = None
    for_: Annotated[Duration | None, Meta(description="How long it must hold before the alert fires.")] = field(
        default=None, name="for"
    )
    keep_firing_for: Annotated[
        Duration | None, Meta(description="How long the alert still fires after it last held.")
    ] = None
    severity: Annotated[Severity | None, Meta(description="low, medium, high or critical.")] = None
    levels: Annotated[
        tuple[Level, ...] | None,
        Meta(
            description='Instead of a severity: {severity, when = "<= 5", clear = "> 6"}, by the value.', min_length=1
        ),
    ] = None
    labels: Annotated[dict[str, str], Meta(description="Labels of its alerts.")] = field(default_factory=dict)
    annotations: Annotated[dict[str, str], Meta(description="Texts of its alerts; {{ $labels.x }}, {{ $value }}.")] = (
        field(default_factory=dict)
    )
    once: Annotated[
        tuple[str, ...] | None, Meta(description="Matchers of what is neither told again nor escalated.")
    ] = None
    evaluate: Annotated[
        Literal["change", "interval"] | None,
        Meta(description="When it is judged: at each change, or on its tick only."),
    ] = None
    enabled: Annotated[bool, Meta(description="false drops it.")] = True


_QUIET: Final = ("email", "slack", "discord", "webhook", "log")
_LOUD: Final = ("sms", *_QUIET)
DEFAULT_SEVERITIES: Final = MappingProxyType(
    {
        Severity.LOW: SeverityTable(color="#36B9CC", icon="ℹ️", channels=_QUIET),
        Severity.MEDIUM: SeverityTable(color="#F6C23E", icon="⚠️", channels=_QUIET),
        Severity.HIGH: SeverityTable(color="#E74A3B", icon="🚨", channels=_LOUD),
        Severity.CRITICAL: SeverityTable(color="#000000", icon="💀", channels=_LOUD),
    }
)
"""SEED S17."""


def default_route(receivers: Sequence[str]) -> RouteTable:
    """Return the route of a configuration without one (SEED S17): everything to primary, critical also to secondary.

    With no receiver at all its receiver is "": nobody is told.
    """
    if not receivers:
        return RouteTable()
    if "secondary" not in receivers:
        return RouteTable(receiver="primary")
    critical = RouteTable(receiver="secondary", matchers=('severity="critical"',), continue_=True)
    return RouteTable(receiver="primary", routes=(critical, RouteTable()))


def default_escalations(receivers: Sequence[str]) -> tuple[EscalationTable, ...]:
    """Return the escalations of a configuration without any (SEED S17): critical to escalation after five minutes."""
    if "escalation" not in receivers:
        return ()
    step = EscalationStep(after=Duration(5 * MINUTE), receiver="escalation")
    return (EscalationTable(name="critical", matchers=('severity="critical"',), steps=(step,)),)


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration, defaults filled in, paths absolute.

    `files` are all files read, in order, `text_hash` the sha256 over them; `rule_places` has the file and the key of
    each of `rules`, for later messages.
    """

    site: Site = Site()
    daemon: Daemon = Daemon()
    http: Http = Http()
    control: Control = Control()
    window: WindowTable = WindowTable()
    journal: JournalTable = JournalTable()
    log: Log = Log()
    tokens: dict[str, Token] = field(default_factory=dict)
    checks: dict[str, CheckTable] = field(default_factory=dict)
    notifiers: dict[str, NotifierTable] = field(default_factory=dict)
    inbound: dict[str, InboundTable] = field(default_factory=dict)
    receivers: dict[str, dict[str, Channel]] = field(default_factory=dict)
    oncall: dict[str, OnCallTable] = field(default_factory=dict)
    route: RouteTable = RouteTable()
    inhibit: tuple[InhibitTable, ...] = ()
    time_intervals: dict[str, TimeIntervalTable] = field(default_factory=dict)
    maintenance: tuple[MaintenanceTable, ...] = ()
    drills: tuple[DrillTable, ...] = ()
    escalations: tuple[EscalationTable, ...] = ()
    flapping: FlappingTable = FlappingTable()
    notices: NoticesTable = NoticesTable()
    heartbeat: Heartbeat = Heartbeat()
    privacy: PrivacyTable = PrivacyTable()
    templates: TemplatesTable = TemplatesTable()
    severities: dict[Severity, SeverityTable] = field(default_factory=lambda: dict(DEFAULT_SEVERITIES))
    rules: tuple[RuleTable, ...] = ()
    files: tuple[str, ...] = ()
    text_hash: str = ""
    rule_places: tuple[tuple[str, str], ...] = ()
    template_texts: dict[str, str] = field(default_factory=dict)  # by the names of their files, without .j2


class PluginSources(Struct, frozen=True, kw_only=True):
    """Where to look for plugins, and what hooks may know of the configuration. Paths are absolute."""

    directories: tuple[Path, ...] = ()
    files_in: Path | None = None
    config: PluginConfig = PluginConfig()
    state_directory: Path | None = None  # where notes of plugins that are kept out are
    checks: tuple[str, ...] = ()  # what [checks.NAME], [notifiers.NAME] and [inbound.NAME] ask for
    notifiers: tuple[str, ...] = ()
    inbound: tuple[str, ...] = ()


class TableInfo(Struct, frozen=True):
    """One table as documentation and schema see it: its header, what it is, its struct, and how it repeats."""

    header: str
    struct: type[Struct]
    repeats: Literal["once", "named", "list"] = "once"


TABLES: Final[tuple[TableInfo, ...]] = (
    TableInfo("site", Site),
    TableInfo("daemon", Daemon),
    TableInfo("http", Http),
    TableInfo("control", Control),
    TableInfo("window", WindowTable),
    TableInfo("journal", JournalTable),
    TableInfo("log", Log),
    TableInfo("tokens", Token, "named"),
    TableInfo("checks", CheckKeys, "named"),
    TableInfo("notifiers", NotifierKeys, "named"),
    TableInfo("inbound", InboundKeys, "named"),
    TableInfo("route", RouteTable),
    TableInfo("inhibit", InhibitTable, "list"),
    TableInfo("oncall", OnCallTable, "named"),
    TableInfo("time_intervals", TimeIntervalTable, "named"),
    TableInfo("maintenance", MaintenanceTable, "list"),
    TableInfo("drills", DrillTable, "list"),
    TableInfo("escalations", EscalationTable, "list"),
    TableInfo("flapping", FlappingTable),
    TableInfo("notices", NoticesTable),
    TableInfo("heartbeat", Heartbeat),
    TableInfo("privacy", PrivacyTable),
    TableInfo("templates", TemplatesTable),
    TableInfo("severities", SeverityTable, "named"),
    TableInfo("rules", RuleTable, "list"),
)
"""Every table but `[receivers.NAME]`, which holds channels by kind."""
