"""What must fit together in a configuration beyond each key's own type: names, references, addresses, paths, routes.

Pure but for the machine's time zones. Notes problems on the walk that made the values; changes nothing.
"""

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from sixfbd.config.convert import Walk
from sixfbd.config.tables import Channel, CheckKeys, Config, DrillTable, EscalationTable, Http, HttpPublic, RouteTable
from sixfbd.config.text import KeyPath, did_you_mean, show_value
from sixfbd.quantities import DAY, show_duration

RESERVED_CHECKS: Final = frozenset({"sixfbd", "events", "summaries"})
"""Names of the engine's own series and of those made of events: no check may be called so."""
MAX_SOCKET_PATH: Final = 107  # bytes; sun_path of unix(7) with its final NUL
LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LISTEN = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")
_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


def parse_listen(text: str) -> tuple[str, int]:
    """Return (host, port) of `127.0.0.1:9632`, `[::1]:9632` or `localhost:9632`. Raises ValueError: what; the mend."""
    mend = 'write "127.0.0.1:9632" or "[::1]:9632"'
    found = _LISTEN.fullmatch(text)
    if found is None:
        raise ValueError(f"is not an address and a port; {mend}")
    six, host, port = found.groups()
    if int(port) > 65535:
        raise ValueError(f"has a port above 65535; {mend}")
    try:
        if six is not None:
            ipaddress.IPv6Address(six)
        elif re.fullmatch("[0-9.]+", host):
            ipaddress.IPv4Address(host)
        elif not _HOST.fullmatch(host):
            raise ValueError("not a host name")
    except ValueError:
        raise ValueError(f"is not an address and a port; {mend}") from None
    return six or host, int(port)


def is_loopback(host: str) -> bool:
    """Whether a host reaches this machine alone. Of names only localhost does, whatever else resolves to."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refuse_bad_name(walk: Walk, path: KeyPath, reserved: frozenset[str] = frozenset()) -> None:
    """Note a problem if the last step of a path cannot be the name of a check, a notifier, a receiver or a token."""
    name = str(path[-1])
    if not _NAME.fullmatch(name):
        walk.note(path, "is not a name", "letters, digits, _ and -, at most 64")
    elif name in reserved:
        walk.note(path, f"the name {name} is the engine's own", "choose another name")


def fit(config: Config, values: Mapping[str, Any], walk: Walk) -> None:
    """Note everything that does not fit together.

    `values` is the configuration as written: a reference to a table that could not be loaded is not wrong.
    """
    names = {header: frozenset(_table(values, header)) for header in ("notifiers", "receivers", "time_intervals")}
    named = names["receivers"] | frozenset(_table(values, "oncall"))
    _fit_site(config, walk)
    _fit_http(config, walk)
    _fit_paths(config, walk)
    _fit_quantities(config, walk)
    _warn_of_moved_port(config, _table(values, "checks"), walk)
    for receiver, channels in config.receivers.items():
        for kind, channel in channels.items():
            _fit_channel(channel, ("receivers", receiver, kind), names["notifiers"], walk)
            _fit_intervals(
                channel.quiet_hours, ("receivers", receiver, kind, "quiet_hours"), names["time_intervals"], walk
            )
            _fit_budget(channel, ("receivers", receiver, kind), walk)
            _warn_of_silent_channel(config, ("receivers", receiver, kind), walk)
    if not walk.failed(("route",)):
        _fit_route(config.route, ("route",), named, walk, root=True)
        _fit_intervals_of(config.route, ("route",), names["time_intervals"], walk)
    _fit_calendar(config, walk)
    _fit_drills(config.drills, names["receivers"], names["time_intervals"], walk)
    _fit_oncall(config, names["receivers"], walk)
    _fit_parents(config, frozenset(_table(values, "checks")), walk)
    for place, inhibit in enumerate(config.inhibit):
        for key in ("source_matchers", "target_matchers"):
            _fit_matchers(getattr(inhibit, key), ("inhibit", place, key), walk)
    if "escalations" in values:
        _fit_escalations(config.escalations, named, walk)
    if not 0 <= config.flapping.window <= DAY:
        walk.note(("flapping", "window"), "must be 0s to 1d", "", show_value(str(config.flapping.window)))
    if config.flapping.low > config.flapping.high:
        walk.note(("flapping", "low"), "is above high", "it must be the lower one", show_value(config.flapping.low))
    if not names["receivers"] and not walk.partial:
        walk.warn(("receivers",), "there is none: nobody is told of an alert", "add [receivers.primary]")


def _fit_site(config: Config, walk: Walk) -> None:
    timezone = config.site.timezone
    try:
        if timezone != "UTC":  # which needs no database
            ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        walk.note(
            ("site", "timezone"), "is not a time zone", 'write one such as "America/Chicago"', show_value(timezone)
        )
    refuse_bad_labels(config.site.external_labels, ("site", "external_labels"), walk)


def refuse_bad_labels(labels: Mapping[str, str], path: KeyPath, walk: Walk) -> None:
    """Note every label whose name Prometheus would not take."""
    for name in labels:
        if not LABEL_NAME.fullmatch(name):
            walk.note((*path, name), "is not the name of a label", "letters, digits and _, no digit first")


def _fit_http(config: Config, walk: Walk) -> None:
    mend = "listen on 127.0.0.1 behind a proxy that has TLS, or set insecure_bind = true"
    _fit_listen(config.http.listen, ("http", "listen"), walk, "" if config.http.insecure_bind else mend)
    for place, name in enumerate(config.http.hosts):
        if not _HOST.fullmatch(name):
            walk.note(("http", "hosts", place), "is not a host name", 'write "monitor.example.com"', show_value(name))
    public = config.http.public
    if public is not None:
        _fit_public(public, config.http.listen, walk)
    elif not walk.failed(("http", "public")):
        for name in config.inbound:
            walk.absent(("inbound", name), "cannot be reached", "add [http.public] with its url")


def _fit_listen(listen: str, path: KeyPath, walk: Walk, mend: str) -> None:
    """Note an address that is none, or that is open to the outside without TLS; `mend` "": that is meant so."""
    try:
        host, _ = parse_listen(listen)
    except ValueError as error:
        message, _, hint = str(error).partition("; ")
        walk.note(path, message, hint, show_value(listen))
        return
    if mend and not is_loopback(host):
        walk.note(path, "can be reached from outside, without TLS", mend, show_value(listen))


def _fit_public(public: HttpPublic, local: str, walk: Walk) -> None:
    path = ("http", "public")
    mend = "set cert_file and key_file, listen on 127.0.0.1 behind a proxy that has TLS, or set insecure_bind = true"
    safe = public.insecure_bind or public.cert_file is not None
    _fit_listen(public.listen, (*path, "listen"), walk, "" if safe else mend)
    if public.listen == local and not local.endswith(":0"):
        walk.note((*path, "listen"), "is where [http] listens", "choose another port", show_value(local))
    try:
        url = urlsplit(public.url)
        host = url.hostname or ""
        whole = url.scheme in ("http", "https") and (":" in host or _HOST.fullmatch(host)) and (url.port or 1)
    except ValueError:
        whole = None
    if not whole or url.query or url.fragment or url.username or not public.url.isascii():
        hint = 'write "https://hooks.example.com"'
        walk.note((*path, "url"), "is not an address without a query", hint, show_value(public.url))
    if (public.cert_file is None) != (public.key_file is None):
        missing, there = ("key_file", "cert_file") if public.key_file is None else ("cert_file", "key_file")
        walk.note((*path, missing), "is missing", f"{there} is set; TLS needs both")
        return
    try:
        tls_context(public)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        walk.note((*path, "cert_file"), f"cannot be used with key_file: {text}", "", show_value(str(public.cert_file)))


def tls_context(public: HttpPublic) -> SSLContext | None:
    """Return the TLS context of a listener, None if it has none. Reads the files; raises OSError (SSLError is one)."""
    if public.cert_file is None or public.key_file is None:
        return None
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public.cert_file, public.key_file, password=_no_password)
    return context


def _no_password() -> str:
    """Stand in for the prompt: a daemon has nobody to ask for the password of a key."""
    raise ValueError("the key is protected by a password; give one that is not")


def _fit_paths(config: Config, walk: Walk) -> None:
    paths: dict[KeyPath, str] = {
        ("daemon", "state_directory"): config.daemon.state_directory,
        ("daemon", "plugins_d"): config.daemon.plugins_d,
        ("control", "socket"): config.control.socket,
        **{("daemon", "plugin_directories", i): path for i, path in enumerate(config.daemon.plugin_directories)},
    }
    for path, value in paths.items():
        if "\0" in value:
            walk.note(path, "is not a path", "", show_value(value))
    length = len(os.fsencode(config.control.socket))
    if length > MAX_SOCKET_PATH:
        hint = f"a Unix socket's path has at most {MAX_SOCKET_PATH} bytes; choose a shorter one"
        walk.note(("control", "socket"), f"is {length} bytes long as a whole path", hint)


def _warn_of_moved_port(config: Config, checks: Mapping[str, Any], walk: Walk) -> None:
    """The first configuration checks the daemon itself at its default port; that address does not move with the port."""
    default = Http().listen
    if walk.failed(("http", "listen")) or parse_listen(config.http.listen)[1] == parse_listen(default)[1]:
        return
    for path, text in _texts(checks, ("checks",)):
        if f"//{default}" in text:
            mend = f"[http] listen is {config.http.listen}; change the address as well"
            walk.warn(path, f"reads {default}, where this daemon does not listen", mend)


def _texts(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, (*path, step))


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _fit_quantities(config: Config, walk: Walk) -> None:
    for path, value in _quantities(config):
        if value <= 0:
            walk.note(path, "must be more than 0", "", show_value(str(value)))


def _quantities(config: Config) -> Iterator[tuple[KeyPath, float]]:
    daemon, http, journal = config.daemon, config.http, config.journal
    yield ("daemon", "evaluation_interval"), daemon.evaluation_interval
    yield ("http", "max_body"), http.max_body
    yield ("http", "body_timeout"), http.body_timeout
    yield ("http", "request_timeout"), http.request_timeout
    if (public := http.public) is not None:
        yield ("http", "public", "max_body"), public.max_body
        yield ("http", "public", "body_timeout"), public.body_timeout
        yield ("http", "public", "request_timeout"), public.request_timeout
    yield ("heartbeat", "interval"), config.heartbeat.interval
    yield ("heartbeat", "timeout"), config.heartbeat.timeout
    yield ("journal", "samples"), journal.samples
    yield ("journal", "events"), journal.events
    yield ("journal", "alerts"), journal.alerts


def fit_timing(keys: CheckKeys, interval: float, timeout: float, path: KeyPath, walk: Walk) -> None:
    """Note a check's interval, timeout and jitter that contradict each other; those given in the text are blamed."""
    for name, value in (("interval", interval), ("timeout", timeout)):
        if value <= 0:
            walk.note((*path, name), "must be more than 0", "", show_value(str(getattr(keys, name))))
            return
    if timeout > interval:
        name = "interval" if keys.timeout is None else "timeout"
        message = f"the timeout ({show_duration(timeout)}) is longer than the interval ({show_duration(interval)})"
        walk.note((*path, name), message, "a run must end before the next one starts")
    if keys.jitter is not None and keys.jitter > interval:
        walk.note((*path, "jitter"), "is longer than the interval", "", show_value(str(keys.jitter)))


def _fit_channel(channel: Channel, path: KeyPath, notifiers: frozenset[str], walk: Walk) -> None:
    if channel.via not in notifiers:
        hint = did_you_mean(channel.via, notifiers) or "there is no [notifiers.NAME]"
        walk.absent((*path, "via"), "is not a notifier", hint, show_value(channel.via))
    for place, address in enumerate(channel.to):
        if address in channel.to[:place]:
            walk.note((*path, "to", place), "is there twice", f"leave it out, it is to[{channel.to.index(address)}]")


def _fit_budget(channel: Channel, path: KeyPath, walk: Walk) -> None:
    for key in ("per_hour", "per_day"):
        most = getattr(channel, key)
        if most and channel.reserve is not None and channel.reserve >= most:
            mend = f"write less, so that something of {key} = {most} is left for what is not critical"
            walk.note((*path, "reserve"), f"is all of {key}", mend, show_value(channel.reserve))


def _warn_of_silent_channel(config: Config, path: KeyPath, walk: Walk) -> None:
    kind = str(path[-1])
    known = {name for severity in config.severities.values() for name in severity.channels}
    if kind not in known:
        hint = did_you_mean(kind, known)
        walk.warn(path, f"no severity has the channel {kind}, so it is never used", hint)


def _fit_route(route: RouteTable, path: KeyPath, receivers: frozenset[str], walk: Walk, *, root: bool) -> None:
    if root and route.matchers:
        walk.note((*path, "matchers"), "the first route takes everything", "move the matchers into [[route.routes]]")
    if route.receiver:
        _fit_receiver(route.receiver, (*path, "receiver"), receivers, walk)
    elif root and receivers:
        walk.absent((*path, "receiver"), "is missing", did_you_mean("", receivers))
    _fit_matchers(route.matchers, (*path, "matchers"), walk)
    for key in ("group_wait", "group_interval", "repeat_interval"):
        if (value := getattr(route, key)) is not None and value < 0:
            walk.note((*path, key), "must not be less than 0", "", show_value(str(value)))
    for place, child in enumerate(route.routes):
        _fit_route(child, (*path, "routes", place), receivers, walk, root=False)


def wrong_matcher(text: str) -> str:
    """Return what is wrong with a matcher and how to mend it, "" if nothing is."""
    from sixfbd.alerting.routes import parse_matcher  # late: that module is written in terms of our tables

    try:
        parse_matcher(text)
    except ValueError as error:
        return str(error)
    return ""


def _fit_matchers(matchers: Sequence[str], path: KeyPath, walk: Walk) -> None:
    for place, text in enumerate(matchers):
        if wrong := wrong_matcher(text):
            message, _, hint = wrong.partition("; ")
            walk.note((*path, place), message, hint)


def _fit_escalations(escalations: Sequence[EscalationTable], receivers: frozenset[str], walk: Walk) -> None:
    _fit_names([one.name for one in escalations], "escalations", walk)
    for place, table in enumerate(escalations):
        path = ("escalations", place)
        _fit_matchers(table.matchers, (*path, "matchers"), walk)
        for number, step in enumerate(table.steps):
            here = (*path, "steps", number)
            _fit_receiver(step.receiver, (*here, "receiver"), receivers, walk)
            if step.after <= 0:
                walk.note(
                    (*here, "after"),
                    "must be more than 0",
                    "whom to tell at once, routes say",
                    show_value(str(step.after)),
                )


def _fit_drills(drills: Sequence[DrillTable], receivers: frozenset[str], intervals: frozenset[str], walk: Walk) -> None:
    _fit_names([one.name for one in drills], "drills", walk)
    for place, drill in enumerate(drills):
        path = ("drills", place)
        for number, name in enumerate(drill.receivers):
            _fit_receiver(name, (*path, "receivers", number), receivers, walk)
        _fit_interval(drill.during, (*path, "during"), intervals, walk)


def _fit_receiver(name: str, path: KeyPath, known: frozenset[str], walk: Walk) -> None:
    if name not in known:
        hint = did_you_mean(name, known) or "there is no [receivers.NAME]"
        walk.absent(path, "is not a receiver", hint, show_value(name))


def _fit_interval(name: str, path: KeyPath, known: frozenset[str], walk: Walk) -> None:
    if name not in known:
        hint = did_you_mean(name, known) or "there is no [time_intervals.NAME]"
        walk.absent(path, "is not a time interval", hint, show_value(name))


def _fit_intervals(names: Sequence[str], path: KeyPath, known: frozenset[str], walk: Walk) -> None:
    for place, name in enumerate(names):
        _fit_interval(name, (*path, place), known, walk)


def _fit_names(names: Sequence[str], header: str, walk: Walk) -> None:
    """Note each name of the tables of a list that an earlier one has."""
    for place, name in enumerate(names):
        if name in names[:place]:
            walk.note((header, place, "name"), "is there twice", "choose another name", show_value(name))


def _note_error(error: ValueError, path: KeyPath, walk: Walk) -> None:
    """Note what an error says: what; the mend."""
    message, _, hint = str(error).partition("; ")
    walk.note(path, message, hint)


def _fit_intervals_of(route: RouteTable, path: KeyPath, known: frozenset[str], walk: Walk) -> None:
    for key in ("mute_time_intervals", "active_time_intervals"):
        _fit_intervals(getattr(route, key), (*path, key), known, walk)
    for place, child in enumerate(route.routes):
        _fit_intervals_of(child, (*path, "routes", place), known, walk)


def _fit_calendar(config: Config, walk: Walk) -> None:
    from sixfbd.alerting.intervals import TimeInterval, compile_interval, compile_window  # late, as for matchers

    zone = "UTC" if walk.failed(("site", "timezone")) else config.site.timezone
    made: dict[str, TimeInterval] = {}
    for name, table in config.time_intervals.items():
        path = ("time_intervals", name, "intervals")
        for place, part in enumerate(table.intervals):
            try:
                compile_interval(msgspec.structs.replace(table, intervals=(part,)), zone)
            except ValueError as error:
                _note_error(error, (*path, place), walk)
        if not walk.failed(path):
            made[name] = compile_interval(table, zone)
    _fit_names([one.name for one in config.maintenance], "maintenance", walk)
    for place, window in enumerate(config.maintenance):
        here = ("maintenance", place)
        _fit_matchers(window.matchers, (*here, "matchers"), walk)
        if walk.failed((*here, "matchers")) or walk.failed(("time_intervals", window.during)):
            continue
        try:
            compile_window(window, made.get, zone, "maintenance")
        except ValueError as error:
            _note_error(error, here, walk)


def _fit_oncall(config: Config, receivers: frozenset[str], walk: Walk) -> None:
    from sixfbd.alerting.rotations import compile_rotation  # late, as for matchers

    zone = "UTC" if walk.failed(("site", "timezone")) else config.site.timezone
    for name, table in config.oncall.items():
        path = ("oncall", name)
        refuse_bad_name(walk, path)
        if name in receivers:
            walk.note(path, f"there is a [receivers.{name}] too", "a name stands for one of them; choose another")
        stand_ins = [(("overrides", place, "member"), one.member) for place, one in enumerate(table.overrides)]
        for below, member in (*((("members", place), one) for place, one in enumerate(table.members)), *stand_ins):
            _fit_receiver(member, (*path, *below), receivers, walk)
        try:
            compile_rotation(table, zone)
        except ValueError as error:
            _note_error(error, path, walk)


def _fit_parents(config: Config, known: frozenset[str], walk: Walk) -> None:
    """Note parents that there are not, and checks that depend on themselves, by whatever way."""
    for name, check in config.checks.items():
        for place, parent in enumerate(check.depends_on):
            path = ("checks", name, "depends_on", place)
            if parent not in known:
                hint = did_you_mean(parent, known) or "there is no [checks.NAME]"
                walk.absent(path, "is not a check", hint, show_value(parent))
            elif (way := _way(config, parent, name)) is not None:
                text = " → ".join((name, *way))
                walk.note(
                    path, f"closes a circle: {text}", "a cause has no cause that it is itself", show_value(parent)
                )


def _way(config: Config, start: str, end: str) -> list[str] | None:
    """Return the checks from one to another along what they depend on; None if there is no way."""
    ways: list[list[str]] = [[start]]
    seen = {start}
    while ways:
        way = ways.pop()
        if way[-1] == end:
            return way
        check = config.checks.get(way[-1])
        for parent in () if check is None else check.depends_on:
            if parent not in seen:
                seen.add(parent)
                ways.append([*way, parent])
    return None
