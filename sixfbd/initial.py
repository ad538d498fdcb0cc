"""What `sixfbd init` writes: a commented configuration that passes `check-config`, and what it needs beside it.

The explanations are the descriptions of the tables and of the plugins' options; `etc/sixfbd.toml`, the packaged
default, is the same text for the place `system`. Overwrites nothing unless it is told to.
"""

import copy
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import tomli_w
from msgspec import Struct

from sixfbd.config.tables import (
    Channel,
    CheckKeys,
    Control,
    Daemon,
    DrillTable,
    EscalationTable,
    FlappingTable,
    Heartbeat,
    Http,
    HttpPublic,
    InboundKeys,
    InhibitTable,
    JournalTable,
    Log,
    MaintenanceTable,
    NoticesTable,
    NotifierKeys,
    OnCallTable,
    PluginSources,
    PrivacyTable,
    RouteTable,
    RuleTable,
    Site,
    TemplatesTable,
    TimeIntervalTable,
    Token,
    WindowTable,
    default_route,
)
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.plugin import Check, FromEnvironment, Inbound, Notifier
from sixfbd.schema import OptionDoc, describe_options, toml_value

Place: TypeAlias = Literal["run", "system"]
"""A run directory of one's own, or the system's /etc/sixfbd."""

CONFIG_NAME: Final = "sixfbd.toml"
ENVIRONMENT_NAME: Final = "conf.d/50-environment.toml"
TOKEN_NAME: Final = "events"
_LISTEN: Final = toml_value(Http().listen)
_PUBLIC: Final = {"listen": "127.0.0.1:9633", "url": "https://hooks.example.com"}
_CHANNELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "email": {
        "sender": "Workshop <alerts@example.com>",
        "smtp": {"host": "smtp.example.com", "username": "alerts", "password": {"file": "tokens/smtp"}},
    },
    "slack": {"token": {"file": "tokens/slack"}},
    "discord": {"webhooks": {"#alerts": {"file": "tokens/discord-alerts"}}},
}
_ADDRESSES: Final = {"email": "ops@example.com", "slack": "#alerts", "discord": "#alerts"}
_WIDTH: Final = 110

_HEAD: Final = """\
# Configuration of sixfbd. A line such as #key = value shows a default; remove the # to change it.
# `sixfbd check-config` names everything that is wrong; `sixfbd config schema` knows every key;
# files in conf.d/ beside this one are merged over it in the order of their names.
"""
_ENVIRONMENT_HEAD: Final = """\
# What `sixfbd init --from-env` found in the environment. The daemon needs these variables too, when it starts.
"""
_SECRETS: Final = """\
# A secret is never written here, but where it is found: {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}.
"""


class InitError(Exception):
    """`sixfbd init` cannot write; the text says what, where, and the mend."""


def initial_config(place: Place, catalog: PluginCatalog) -> str:
    """Return the text of the first configuration for a place."""
    run = place == "run"
    daemon = {"state_directory": "state"} if run else {"state_directory": Daemon().state_directory}
    control = {"socket": "control.sock"} if run else {"socket": Control().socket}
    token = {
        "secret": {"file": f"tokens/{TOKEN_NAME}"} if run else {"credential": "events_token"},
        "scopes": ["events"],
    }
    site = Site()
    sections = [
        _HEAD,
        _section("site", Site, {"name": site.name, "environment": site.environment, "timezone": site.timezone}),
        _section("daemon", Daemon, daemon),
        _section("http", Http, {"listen": _LISTEN}),
        _section("http.public", HttpPublic, _PUBLIC, "what providers may call from outside", example=True),
        _section("control", Control, control),
        _section("window", WindowTable, {}),
        _section("journal", JournalTable, {}),
        _section("log", Log, {}),
        _SECRETS + _section(f"tokens.{TOKEN_NAME}", Token, token, "what may post events", example=not run),
        *_checks(catalog),
        *_notifiers(catalog),
        *_inbound(catalog),
        *_receivers(),
        *_alerting(),
        _rule(),
    ]
    return "\n".join(sections)


def write_initial(
    directory: Path,
    catalog: PluginCatalog | None = None,
    *,
    force: bool = False,
    keep: bool = False,
    environ: Mapping[str, str] | None = None,
) -> list[Path]:
    """Make a run directory: configuration, state directory, token for events. Return the files written.

    Directories that it makes have mode 0700, files 0600. A configuration that exists is refused (InitError); with
    `force` it is overwritten, with `keep` left as it is. A token that exists is always kept. A run that was cut off is
    completed by the next one. With `environ`, a second file has what the plugins make of these variables.
    """
    config = directory / CONFIG_NAME
    if config.exists() and not force and not keep:
        raise InitError(f"{config} exists and is left as it is; `sixfbd init --force` overwrites it")
    catalog = load_plugins(PluginSources()) if catalog is None else catalog
    text = initial_config("run", catalog)
    token = directory / "tokens" / TOKEN_NAME
    try:
        _make_directories(directory)
        written = [token] if _write(token, secrets.token_urlsafe(32) + "\n", overwrite=False) else []
        written += [config] if _write(config, text, overwrite=force) else []
        if environ is not None:
            found = directory / ENVIRONMENT_NAME
            written += [found] if _write(found, environment_config(catalog, environ), overwrite=force) else []
    except OSError as error:
        raise InitError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None
    return written


def environment_config(catalog: PluginCatalog, environ: Mapping[str, str]) -> str:
    """Return the configuration that uses what is there of the variables that plugins know; no value is in it.

    What cannot be known, such as who is told, is commented out.
    """
    used = [one for one in catalog.environment if not _missing(one, environ)]
    values: dict[str, Any] = {}
    for one in used:
        _merge(values, one.tables)
    if "route" in values:  # whoever routes goes on doing what is done without any route
        defaults = default_route(("primary", "secondary"))
        values["route"]["receiver"] = defaults.receiver
        values["route"]["routes"] += [
            {"receiver": one.receiver, "matchers": list(one.matchers), "continue": one.continue_}
            if one.matchers
            else {}
            for one in defaults.routes
        ]
    by_hand = "".join(f"\n#{line}" for one in used for line in one.by_hand.splitlines())
    complete = f"\n# To be completed: remove the # and put in who it is.{by_hand}\n" if by_hand else ""
    return f"{_ENVIRONMENT_HEAD}\n{tomli_w.dumps(values)}{complete}"


def environment_report(catalog: PluginCatalog, environ: Mapping[str, str]) -> list[str]:
    """Return what was found of the variables that plugins know, what is missing, and what that means, a line each."""
    known = dict.fromkeys(name for one in catalog.environment for name in one.names)
    found = [name for name in known if environ.get(name)]
    lines = [f"found {', '.join(found)}"] if found else []
    missed: dict[str, list[str]] = {}
    for one in catalog.environment:
        if missing := _missing(one, environ):
            missed.setdefault(", ".join(missing), []).append(one.missed)
    lines += [f"missing {names}: {', '.join(what)}" for names, what in missed.items()]
    if any(one.by_hand for one in catalog.environment if not _missing(one, environ)):
        lines.append(f"to be completed: the lines at the end of {ENVIRONMENT_NAME} that begin with #")
    return lines


def _missing(one: FromEnvironment, environ: Mapping[str, str]) -> list[str]:
    return [name for name in one.names if not environ.get(name)]


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        there = into.get(key)
        if isinstance(value, Mapping) and isinstance(there, dict):
            _merge(there, value)
        elif isinstance(value, list) and isinstance(there, list):
            into[key] = [*there, *value]
        else:
            into[key] = copy.deepcopy(value)


def _make_directories(directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    for path in (directory, *(directory / name for name in ("state", "tokens", "conf.d", "plugins.d"))):
        path.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, text: str, *, overwrite: bool) -> bool:
    """Write a whole file with mode 0600, or none of it; return whether it was written."""
    if path.exists() and not overwrite:
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


# ---- the sections --------------------------------------------------------------------------------------------------------


def _checks(catalog: PluginCatalog) -> list[str]:
    sections = []
    if (entry := catalog.checks.get("system")) is not None:
        sections.append(_plugin_section("checks.system", CheckKeys, entry.cls, {"plugin": "system"}))
    if (entry := catalog.checks.get("webhook")) is not None:
        own = {"plugin": "webhook", "url": f"http://{_LISTEN}/healthz"}
        shop = {"plugin": "webhook", "interval": "1m", "url": "https://shop.example.com/", "expected_status": ["2xx"]}
        sections.append(_plugin_section("checks.self", CheckKeys, entry.cls, own))
        sections.append(_example("checks.shop", CheckKeys, entry.cls, shop))
    if (entry := catalog.checks.get("scrape")) is not None:
        values = {"plugin": "scrape", "targets": [f"http://{_LISTEN}/metrics"]}
        sections.append(_example("checks.own-metrics", CheckKeys, entry.cls, values))
    if (entry := catalog.checks.get("sales")) is not None:
        sections.append(_example("checks.sales", CheckKeys, entry.cls, {"plugin": "sales", "false_alarms": 0.2}))
    if (entry := catalog.checks.get("ledger")) is not None:
        sections.append(_example("checks.ledger", CheckKeys, entry.cls, {"plugin": "ledger"}))
    if (entry := catalog.checks.get("log")) is not None:
        access = {
            "files": ["/var/log/nginx/access.log"],
            "format": "combined",
            "errors": {"no_memory": "Out of memory"},
        }
        sections.append(_example("checks.access", CheckKeys, entry.cls, {"plugin": "log", **access}))
    if (entry := catalog.checks.get("remote_write")) is not None:
        central = {"url": "https://prometheus.example.com/api/v1/write", "external_labels": {"site": "shop-1"}}
        sections.append(_example("checks.central", CheckKeys, entry.cls, {"plugin": "remote_write", **central}))
    if (entry := catalog.checks.get("payments")) is not None:
        account = {"plugin": "payments", "api_key": {"file": "tokens/payments-key"}}
        sections.append(_example("checks.payments", CheckKeys, entry.cls, account))
    return sections


def _notifiers(catalog: PluginCatalog) -> list[str]:
    sections = []
    if (entry := catalog.notifiers.get("log")) is not None:
        sections.append(_plugin_section("notifiers.log", NotifierKeys, entry.cls, {"plugin": "log"}))
    if (entry := catalog.notifiers.get("webhook")) is not None:
        values = {"plugin": "webhook", "url": {"file": "tokens/webhook-url"}}
        sections.append(_example("notifiers.webhook", NotifierKeys, entry.cls, values))
    for name, options in _CHANNELS.items():
        if (entry := catalog.notifiers.get(name)) is not None:
            sections.append(_example(f"notifiers.{name}", NotifierKeys, entry.cls, {"plugin": name, **options}))
    return sections


def _inbound(catalog: PluginCatalog) -> list[str]:
    if (entry := catalog.inbound.get("standard")) is None:
        return []
    values = {"kind": "standard", "secrets": [{"file": "tokens/shop-webhooks"}]}
    return [_example("inbound.shop", InboundKeys, entry.cls, values)]


def _receivers() -> list[str]:
    """Who is told, channel by channel; without a [route] everything goes to primary, critical alerts to secondary too."""
    options = describe_options(Channel)
    explained = [f"# {option.key} ({option.type}): {option.description}" for option in options]
    who = {
        "primary": "Who is told of everything.",
        "secondary": "Who is told of critical alerts as well.",
        "escalation": "Who is told of critical alerts that nobody acknowledges within five minutes.",
    }
    lines = ["# Receivers: who is told, by which channels. Each channel names a notifier.", *explained]
    for name, doc in who.items():
        lines += ["", f"# {doc}", f"[receivers.{name}]", f"log = {_toml({'via': 'log'})}"]
        lines += [f"#webhook = {_toml({'via': 'webhook'})}"]
        lines += [f"#{kind} = {_toml({'via': kind, 'to': [address]})}" for kind, address in _ADDRESSES.items()]
    return ["\n".join(lines) + "\n"]


def _alerting() -> list[str]:
    """How alerts are told, each table as an example: what holds without it is what most want."""
    primary = {"receiver": "primary"}
    critical = {"matchers": ['severity="critical"'], "receiver": "secondary", "continue": True}
    examples: tuple[tuple[str, type[Struct], dict[str, Any], str], ...] = (
        (
            "route",
            RouteTable,
            {
                **primary,
                "group_by": ["alertname", "city"],
                "group_wait": "10s",
                "group_interval": "5m",
                "routes": [critical, {}],
            },
            "who is told of what, and when; without it primary of everything, secondary of critical alerts too",
        ),
        (
            "[inhibit]",
            InhibitTable,
            {
                "source_matchers": ['alertname="ServiceDown"'],
                "target_matchers": ['alertname="ProbeFailed"'],
                "equal": ["check"],
            },
            "",
        ),
        (
            "[escalations]",
            EscalationTable,
            {
                "name": "critical",
                "matchers": ['severity="critical"'],
                "steps": [{"after": "5m", "receiver": "escalation"}, {"after": "30m", "receiver": "secondary"}],
            },
            "",
        ),
        (
            "oncall.week",
            OnCallTable,
            {
                "members": ["primary", "secondary"],
                "start": "2026-01-05T09:00",
                "overrides": [{"member": "escalation", "from": "2026-12-24T18:00", "until": "2026-12-26T09:00"}],
            },
            "",
        ),
        (
            "time_intervals.nights",
            TimeIntervalTable,
            {
                "intervals": [
                    {
                        "times": [
                            {"start_time": "22:00", "end_time": "24:00"},
                            {"start_time": "00:00", "end_time": "07:00"},
                        ]
                    }
                ]
            },
            "",
        ),
        (
            "time_intervals.monday-noon",
            TimeIntervalTable,
            {"intervals": [{"weekdays": ["monday"], "times": [{"start_time": "12:00", "end_time": "12:15"}]}]},
            "",
        ),
        (
            "[maintenance]",
            MaintenanceTable,
            {"name": "backup", "matchers": ['service="system"'], "comment": "backups", "during": "nights"},
            "",
        ),
        ("[drills]", DrillTable, {"name": "weekly", "receivers": ["primary"], "during": "monday-noon"}, ""),
        ("heartbeat", Heartbeat, {"url": {"file": "tokens/heartbeat-url"}, "interval": "1m"}, ""),
    )
    made = [_section(header, struct, values, doc, example=True) for header, struct, values, doc in examples]
    sections = (
        ("flapping", FlappingTable),
        ("notices", NoticesTable),
        ("privacy", PrivacyTable),
        ("templates", TemplatesTable),
    )
    return [*made, *(_section(header, struct, {}) for header, struct in sections)]


def _rule() -> str:
    """A rule of a default's name changes that one; `sixfbd plugins` names the default rules."""
    values = {"name": "CheckStale", "severity": "medium", "labels": {"team": "shop"}}
    return _section("[rules]", RuleTable, values, example=True)


def _plugin_section(
    header: str, keys: type[Struct], cls: type[Check[Any]] | type[Notifier[Any]], values: Mapping[str, Any]
) -> str:
    """A table with a plugin: the engine's keys with the plugin's own defaults, then every option."""
    lines = [f"# {_first_line(cls)}", f"[{header}]"]
    for option in describe_options(keys):
        default = toml_value(getattr(cls, option.key, None)) if option.default is None else option.default
        lines += _key_lines(option, default, values)
    for option in describe_options(cls.Options):
        lines += _key_lines(option, option.default, values)
    return "\n".join(lines) + "\n"


def _example(
    header: str,
    keys: type[Struct],
    cls: type[Check[Any]] | type[Notifier[Any]] | type[Inbound[Any]],
    values: Mapping[str, Any],
) -> str:
    """A table that is commented out, only the keys that it sets."""
    options = [*describe_options(keys), *describe_options(cls.Options)]
    lines = [f"# Example: {_first_line(cls)}", f"#[{header}]"]
    for option in options:
        if option.key in values:
            lines += [f"# {option.description}", f"#{option.key} = {_toml(values[option.key])}"]
    return "\n".join(lines) + "\n"


def _section(
    header: str, struct: type[Struct], values: Mapping[str, Any], doc: str = "", *, example: bool = False
) -> str:
    text = doc or _first_line(struct).partition(": ")[2].rstrip(".")
    title = f"# {text[:1].upper()}{text[1:]}."
    if example:
        lines = [f"# Example: {text}.", f"#[{header}]"]
        for option in describe_options(struct):
            if option.key in values:
                lines += [f"# {option.description}", f"#{option.key} = {_toml(values[option.key])}"]
        return "\n".join(lines) + "\n"
    lines = [title, f"[{header}]"]
    for option in describe_options(struct):
        if option.type == "table":
            continue  # it has a section of its own
        lines += _key_lines(option, option.default, values)
    return "\n".join(lines) + "\n"


def _key_lines(option: OptionDoc, default: Any, values: Mapping[str, Any]) -> list[str]:
    """A line of explanation and the key: set, or its default commented out; without a default only its type."""
    if option.key in values:
        return [f"# {option.description}", f"{option.key} = {_toml(values[option.key])}"]
    if default is None:
        return [f"# {option.key} ({option.type}): {option.description}"]
    return [f"# {option.description}", f"#{option.key} = {_toml(default)}"]


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _toml(value: Any) -> str:
    """A value on one line; tomli-w itself would spread lists and tables over several."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return tomli_w.dumps({"k": value}).removeprefix("k = ").rstrip("\n")


def _toml_key(key: str) -> str:
    return tomli_w.dumps({key: 0}).removesuffix(" = 0\n")


def main() -> None:
    """Print the packaged default (`python -m sixfbd.initial > etc/sixfbd.toml`)."""
    sys.stdout.write(initial_config("system", load_plugins(PluginSources())))


if __name__ == "__main__":
    main()
