"""The configuration: TOML → typed, frozen Config. Every error carries file, key, value and the mend.

Owns the tables' forms and their defaults; reads files and secrets, and nothing else of the machine.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from sixfbd.model import Level, Severity
from sixfbd.quantities import DAY, HOUR, MINUTE, SECOND, Duration, Secret, Size


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration: frozen, unknown keys refused."""


class Site(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[site]`: whose shop this is; in every message and report."""

    name: Annotated[str, Meta(description="Name of the site, shown in every message.")] = "workshop"
    environment: Annotated[str, Meta(description="Such as production or staging.")] = "production"
    timezone: Annotated[str, Meta(description="IANA time zone of the site's days and hours.")] = "UTC"
    currency: Annotated[str, Meta(description="ISO 4217 code that reports are in.")] = "USD"
    url: Annotated[str, Meta(description="The shop's own address.")] = ""
    external_labels: Annotated[dict[str, str], Meta(description="Labels added to what leaves this daemon.")] = field(
        default_factory=dict
    )


class Daemon(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[daemon]`."""

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


class Http(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[http]`: the local port."""

    listen: Annotated[str, Meta(description="Address and port; port 0 takes a free one.")] = "127.0.0.1:9632"
    hosts: Annotated[tuple[str, ...], Meta(description="Host names accepted besides loopback's.")] = ()
    insecure_bind: Annotated[bool, Meta(description="Allow an address that is not loopback without TLS.")] = False
    max_body: Annotated[Size, Meta(description="Largest request body.")] = Size(4 * 1024 * 1024)
    body_timeout: Annotated[Duration, Meta(description="Time limit for reading a body.")] = Duration(30 * SECOND)
    request_timeout: Annotated[Duration, Meta(description="Time limit for answering.")] = Duration(30 * SECOND)


class Control(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[control]`: the local Unix socket."""

    socket: Annotated[str, Meta(description="Path of the socket.")] = "/run/sixfbd/control.sock"


class WindowTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[window]`."""

    memory: Annotated[Size, Meta(description="Memory for sealed chunks read back from disk.")] = Size(64 * 1024 * 1024)
    max_series_per_check: Annotated[int, Meta(description="Series that one check may have.", ge=1)] = 20_000


class JournalTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[journal]`: how long what is kept (SEED, Privacy)."""

    samples: Annotated[Duration, Meta(description="Raw samples are kept this long.")] = Duration(30 * DAY)
    events: Annotated[Duration, Meta(description="Events are kept this long.")] = Duration(396 * DAY)
    alerts: Annotated[Duration, Meta(description="Alerts and deliveries are kept this long.")] = Duration(730 * DAY)


class Log(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`."""

    level: Annotated[
        str, Meta(description="debug, info, warning or error.", pattern="^(debug|info|warning|error)$")
    ] = "info"
    format: Annotated[
        str, Meta(description="console, json, or auto (console on a terminal).", pattern="^(auto|console|json)$")
    ] = "auto"


class Token(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tokens.NAME]`: a fixed access token."""

    secret: Annotated[Secret, Meta(description="The token itself.")]
    scopes: Annotated[tuple[str, ...], Meta(description="What it allows: events, alerts, read.")] = ("events",)


class CheckTable(Struct, frozen=True, kw_only=True):
    """`[checks.NAME]`: the engine's own keys; every other key is an option of the plugin, in `options`."""

    name: str
    plugin: str
    interval: Duration
    timeout: Duration
    service: str | None = None
    external: str | None = None
    enabled: bool = True
    jitter: Duration | None = None
    options: Any = None  # the plugin's Options
    where: str = ""  # file, for later messages


class NotifierTable(Struct, frozen=True, kw_only=True):
    """`[notifiers.NAME]`: the engine's own keys; every other key is an option of the plugin, in `options`."""

    name: str
    plugin: str
    timeout: Duration
    concurrency: int
    expiry: Duration = Duration(24 * HOUR)
    retry_first: Duration = Duration(1 * SECOND)
    retry_most: Duration = Duration(5 * MINUTE)
    options: Any = None
    where: str = ""


class Channel(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `[receivers.NAME]`: which notifier, and to which addresses."""

    via: Annotated[str, Meta(description="Name of a notifier.")]
    to: Annotated[tuple[str, ...], Meta(description="Addresses; may be left out where the notifier has only one.")] = (
        "",
    )


class RouteTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[route]` and its `routes`, as Alertmanager's: a tree of matchers."""

    receiver: Annotated[str, Meta(description="Who is told; inherited from the parent where left out.")] = ""
    matchers: Annotated[tuple[str, ...], Meta(description='Such as severity="critical"; all must match.')] = ()
    continue_: bool = field(default=False, name="continue")
    routes: tuple["RouteTable", ...] = ()


class SeverityTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[severities.NAME]` (SEED S17): how a severity looks and by which channels it is told."""

    color: Annotated[str, Meta(description="Colour in messages and on pages.", pattern="^#[0-9A-Fa-f]{6}$")] = "#36B9CC"
    icon: str = ""
    channels: Annotated[tuple[str, ...], Meta(description="Kinds of channel of a receiver that are used.")] = ()


class RuleTable(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[rules]]`: a rule of one's own, or single keys of a default rule of the same name."""

    name: str
    expr: str | None = None
    for_: Duration | None = field(default=None, name="for")
    keep_firing_for: Duration | None = None
    severity: str | None = None
    levels: tuple[Level, ...] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    evaluate: str | None = None
    enabled: bool = True


class Config(Struct, frozen=True, kw_only=True):
    """The whole configuration, defaults filled in. `text_hash` is the sha256 of all files read, in order."""

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
    receivers: dict[str, dict[str, Channel]] = field(default_factory=dict)
    route: RouteTable = RouteTable()
    severities: dict[Severity, SeverityTable] = field(default_factory=dict)
    rules: tuple[RuleTable, ...] = ()
    files: tuple[str, ...] = ()
    text_hash: str = ""
