"""Loading the configuration: the text is read, every value converted, everything checked, every problem told at once.

Owns the order of these steps and the form in which values come out (defaults filled in, paths absolute). Blocks: call
it before the loop runs or in a worker thread.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct

from sixfbd.config.convert import Walk, fields_of
from sixfbd.config.fit import RESERVED_CHECKS, fit, fit_timing, refuse_bad_name
from sixfbd.config.rules import CompileRules, compile_problems, effective_rules
from sixfbd.config.secret_sources import SecretSources
from sixfbd.config.tables import (
    DEFAULT_SEVERITIES,
    TABLES,
    Channel,
    CheckKeys,
    CheckTable,
    Config,
    Control,
    Daemon,
    DrillTable,
    EscalationTable,
    InboundKeys,
    InboundTable,
    InhibitTable,
    MaintenanceTable,
    NotifierKeys,
    NotifierTable,
    OnCallTable,
    PluginSources,
    RouteTable,
    RuleTable,
    SeverityTable,
    TemplatesTable,
    TimeIntervalTable,
    Token,
    default_escalations,
    default_route,
)
from sixfbd.config.template_files import read_templates
from sixfbd.config.text import KeyPath, Problem, Tree, did_you_mean, read_tree, show_value
from sixfbd.containment import described, one_line, words_of
from sixfbd.model import Severity
from sixfbd.plugin import Configured, InvalidOptions, Notifier, PluginConfig, ProviderUrls
from sixfbd.quantities import Duration, Secret

if TYPE_CHECKING:
    from sixfbd.host import PluginCatalog, PluginInfo

S = TypeVar("S", bound=Struct)

_ONCE: Final = {table.header: table.struct for table in TABLES if table.repeats == "once" and table.header != "route"}
_HEADERS: Final = frozenset({table.header for table in TABLES} | {"receivers"})
_CHECK_KEYS: Final = frozenset(field.key for field in fields_of(CheckKeys))
_NOTIFIER_KEYS: Final = frozenset(field.key for field in fields_of(NotifierKeys))
_INBOUND_KEYS: Final = frozenset(field.key for field in fields_of(InboundKeys))


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has all of it, warnings included, and the text one line for each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def load_config(
    path: Path,
    plugins: "PluginCatalog",
    compile_rules: CompileRules | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Return the configuration. Raises ConfigError with everything that is wrong."""
    config, problems = check_config(path, plugins, compile_rules, environ)
    if config is None:
        raise ConfigError(problems)
    return config


def check_config(
    path: Path,
    plugins: "PluginCatalog",
    compile_rules: CompileRules | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Config | None, list[Problem]]:
    """Return the configuration, or None, and all that is wrong or odd: errors make it None, warnings do not.

    `compile_rules` is given the rules in force and tells what is wrong with their PromQL. `environ` (the process's
    unless given) is where secrets of the environment and systemd's credentials are looked up. Never raises for what
    the files hold.
    """
    tree, problems = read_tree(path)
    secrets = SecretSources(_directory(path), os.environ if environ is None else environ)
    walk = Walk(lambda key: (tree.file_of(key), tree.key_of(key)), secrets, _directory(path), partial=bool(problems))
    reader = _Reader(tree, walk, plugins, _directory(path))
    config = reader.read()
    rules, rule_problems = effective_rules(config, plugins.rules, reader.wrong_rule_keys)
    problems += [*walk.problems, *rule_problems]
    if compile_rules is not None:
        problems += compile_problems(config, rules, compile_rules)
    problems += [*reader.template_problems, *_tried_out(config, plugins)]
    whole = not any(problem.level == "error" for problem in problems)
    return (config if whole else None), [*problems, *_plugin_problems(plugins.failed)]


def _tried_out(config: Config, plugins: "PluginCatalog") -> list[Problem]:
    """Return what is wrong with the templates of messages."""
    if not config.template_texts:
        return []
    from sixfbd.outbox.previews import template_problems  # not above: messages know the configuration's tables

    return template_problems(config, plugins.event_types.values())


def plugin_sources(path: Path) -> PluginSources:
    """Return where a configuration says that plugins are, read leniently: what is wrong is told by `check_config`."""
    tree, _ = read_tree(path)
    daemon, site = _table(tree.values, "daemon"), _table(tree.values, "site")
    defaults = Daemon()
    given = daemon.get("plugin_directories")
    directories = _texts(given) if isinstance(given, list) else defaults.plugin_directories
    directory = _directory(path)
    return PluginSources(
        directories=tuple(Path(_absolute(directory, name)) for name in directories),
        files_in=Path(_absolute(directory, (*_texts([daemon.get("plugins_d")]), defaults.plugins_d)[0])),
        config=PluginConfig(
            site=(*_texts([site.get("name")]), "")[0],
            environment=(*_texts([site.get("environment")]), "")[0],
            checks=tuple(_table(tree.values, "checks")),
            notifiers=tuple(_table(tree.values, "notifiers")),
            inbound=tuple(_table(tree.values, "inbound")),
            sandbox=daemon.get("sandbox") is True,
        ),
        state_directory=_state_directory(path, tree),
        checks=_plugins_asked_for(tree.values, "checks"),
        notifiers=_plugins_asked_for(tree.values, "notifiers"),
        inbound=_plugins_asked_for(tree.values, "inbound", "kind"),
    )


def state_directory(path: Path) -> Path:
    """Return where a configuration keeps the state, whatever else is wrong with it, such as secrets that only the daemon is given.

    Raises ConfigError if it cannot be read to the end.
    """
    tree, problems = read_tree(path)
    if any(problem.level == "error" for problem in problems):
        raise ConfigError(problems)
    return _state_directory(path, tree)


def _state_directory(path: Path, tree: Tree) -> Path:
    given = _texts([_table(tree.values, "daemon").get("state_directory")])
    return Path(_absolute(_directory(path), (*given, Daemon().state_directory)[0]))


def _plugins_asked_for(values: Mapping[str, Any], header: str, key: str = "plugin") -> tuple[str, ...]:
    tables = _table(values, header)
    return tuple(dict.fromkeys(_texts([_table(tables, name).get(key) for name in tables])))


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str) and "\0" not in value)


def _directory(path: Path) -> Path:
    return path.absolute().parent


def _absolute(directory: Path, path: str) -> str:
    return os.path.normpath(directory / path)


def _plugin_problems(failed: "Sequence[PluginInfo]") -> list[Problem]:
    return [
        Problem(
            file=plugin.file or plugin.origin,
            key=f"plugin {plugin.name}",
            message=f"is left out: {plugin.problem}",
            level="warning",
        )
        for plugin in failed
    ]


class _Reader:
    """Makes the Config of a tree. A table that cannot be made is left out, so that the rest is checked as well."""

    def __init__(self, tree: Tree, walk: Walk, plugins: "PluginCatalog", directory: Path) -> None:
        self._tree = tree
        self._walk = walk
        self._plugins = plugins
        self._directory = directory
        self._sandbox = _table(tree.values, "daemon").get("sandbox") is True
        self.wrong_rule_keys: list[frozenset[str]] = []
        """Of each rule of the Config made, the keys that something is wrong with."""
        self.template_problems: list[Problem] = []
        """Of the files of templates, those that cannot be read."""

    def read(self) -> Config:
        self._walk.unknown_keys(self._tree.values, _HEADERS, (), ())
        once = {header: self._once(header, struct) for header, struct in _ONCE.items()}
        receivers = {name: self._receiver(name, raw) for name, raw in self._named("receivers")}
        config = Config(
            **cast(dict[str, Any], once),
            tokens=self._made("tokens", Token),
            checks=self._present(self._check(name, raw) for name, raw in self._named("checks")),
            notifiers=self._present(self._notifier(name, raw) for name, raw in self._named("notifiers")),
            inbound=self._present(self._inbound(name, raw) for name, raw in self._named("inbound")),
            receivers=receivers,
            route=self._route(tuple(receivers)),
            inhibit=self._list("inhibit", InhibitTable),
            oncall=self._made("oncall", OnCallTable),
            time_intervals=self._made("time_intervals", TimeIntervalTable),
            maintenance=self._list("maintenance", MaintenanceTable),
            drills=self._list("drills", DrillTable),
            escalations=self._escalations(tuple(receivers)),
            severities=self._severities(),
            files=self._tree.files,
            text_hash=self._tree.text_hash,
        )
        config = self._with_rules(self._with_paths(config))
        fit(config, self._tree.values, self._walk)
        config = self._completed(config)
        self._check_addresses(config)
        return config

    def _completed(self, config: Config) -> Config:
        """Let each check and notifier fill in what follows from the rest of the configuration."""
        if self._walk.partial:
            return config  # nobody can tell what else is configured
        configured = self._configured(config)

        def complete(header: str, table: Any, entry: Any) -> Any:
            made = table.options if entry.kept_out else self._complete(header, table, entry.cls, configured)
            return table if made is table.options else msgspec.structs.replace(table, options=made)

        known = self._plugins
        return msgspec.structs.replace(
            config,
            checks={name: complete("checks", one, known.checks[one.plugin]) for name, one in config.checks.items()},
            notifiers={
                name: complete("notifiers", one, known.notifiers[one.plugin]) for name, one in config.notifiers.items()
            },
        )

    def _configured(self, config: Config) -> Configured:
        """Return what an instance may know of the others; of a notifier with an error of its own the name as well."""
        public = None if self._walk.failed(("http", "public")) else config.http.public
        webhooks: dict[str, tuple[str, ...]] = {}
        for name, inbound in config.inbound.items():
            if public is not None and inbound.enabled:
                url = f"{public.url.rstrip('/')}/webhooks/{name}"
                webhooks[inbound.kind] = (*webhooks.get(inbound.kind, ()), url)
        tables = _table(self._tree.values, "notifiers")
        notifiers = {name: plugin for name in tables for plugin in _texts([_table(tables, name).get("plugin")])}
        return Configured(notifiers, webhooks, self._sandbox)

    def _complete(self, header: str, table: Any, cls: Any, configured: Configured) -> Any:
        path = (header, table.name)
        try:
            made = cls.complete(table.options, configured)
        except InvalidOptions as error:
            for key, text in error.faults:
                message, _, hint = one_line(text).partition("; ")
                self._walk.note((*path, key), message, hint)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; it is named
            own = isinstance(error, ValueError) and bool(words_of(error))
            text = words_of(error) if own else f"is refused by the plugin: {described(error)}"
            message, _, hint = text.partition("; ")
            self._walk.note(path, message, hint)
        else:
            if isinstance(made, cls.Options):
                return made
            self._walk.note(path, f"is refused by the plugin: complete() returned {type(made).__name__}, no options")
        return table.options

    def _check_addresses(self, config: Config) -> None:
        """Let each notifier say which of the receivers' addresses can be none of its own."""
        for receiver, channels in config.receivers.items():
            for kind, channel in channels.items():
                table = config.notifiers.get(channel.via)
                entry = None if table is None else self._plugins.notifiers.get(table.plugin)
                if table is None or entry is None or entry.kept_out:
                    continue
                for place, address in enumerate(channel.to):
                    path = ("receivers", receiver, kind, "to", place)
                    self._check_address(entry.cls, table.options, address, path if address else path[:-1])

    def _check_address(self, cls: type[Notifier[Any]], options: Any, address: str, path: KeyPath) -> None:
        try:
            cls.check_address(options, address)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; it is named
            own = isinstance(error, ValueError) and bool(words_of(error))
            message, _, hint = (one_line(str(error)) if own else f"no address: {described(error)}").partition("; ")
            self._walk.note(path, message, hint)

    def _once(self, header: str, struct: type[Struct]) -> Struct:
        raw = self._tree.values.get(header, {})
        return self._walk.table(struct, raw, (header,)) or struct()

    def _named(self, header: str) -> Iterator[tuple[str, Any]]:
        """The tables `[header.NAME]`; a bad name is noted, its table still read."""
        raw = self._tree.values.get(header, {})
        if not isinstance(raw, dict):
            self._walk.note((header,), "is not a table of tables", f"write [{header}.NAME]", show_value(raw))
            return
        for name, table in raw.items():
            if header != "severities":
                refuse_bad_name(self._walk, (header, name), RESERVED_CHECKS if header == "checks" else frozenset())
            yield name, table

    def _made(self, header: str, struct: type[S]) -> dict[str, S]:
        made = {name: self._walk.table(struct, raw, (header, name)) for name, raw in self._named(header)}
        return {name: table for name, table in made.items() if table is not None}

    def _present(self, tables: Iterator[S | None]) -> dict[str, S]:
        return {cast(Any, table).name: table for table in tables if table is not None}

    def _check(self, name: str, raw: object) -> CheckTable | None:
        path = ("checks", name)
        keys, options = self._split(CheckKeys, _CHECK_KEYS, raw, path)
        entry = self._entry(self._plugins.checks, keys, "check", name)
        if keys is None or entry is None:
            return None
        interval = Duration(entry.cls.interval) if keys.interval is None else keys.interval
        timeout = Duration(entry.cls.timeout) if keys.timeout is None else keys.timeout
        if entry.kept_out or (keys.timeout is None and keys.interval is not None):
            timeout = min(timeout, interval)  # who asks for a shorter interval need not know the plugin's time limit
        timing_read = not self._walk.failed((*path, "interval")) and not self._walk.failed((*path, "timeout"))
        if timing_read and not entry.kept_out:
            fit_timing(keys, interval, timeout, path, self._walk)
        made = self._options(entry, options, path, _CHECK_KEYS)
        if made is None:
            return None
        return CheckTable(
            name=name,
            plugin=keys.plugin,
            interval=interval,
            timeout=timeout,
            service=keys.service,
            external=keys.external,
            enabled=keys.enabled,
            jitter=keys.jitter,
            depends_on=keys.depends_on,
            options=made,
            where=self._tree.file_of(path),
        )

    def _notifier(self, name: str, raw: object) -> NotifierTable | None:
        path = ("notifiers", name)
        keys, options = self._split(NotifierKeys, _NOTIFIER_KEYS, raw, path)
        entry = self._entry(self._plugins.notifiers, keys, "notifier", name)
        if keys is None or entry is None:
            return None
        for key in ("timeout", "expiry", "retry_first", "retry_most"):
            value = getattr(keys, key)
            if value is not None and value <= 0:
                self._walk.note((*path, key), "must be more than 0", "", show_value(str(value)))
        if keys.retry_first > keys.retry_most:
            self._walk.note((*path, "retry_most"), "is shorter than retry_first", "", show_value(str(keys.retry_most)))
        made = self._options(entry, options, path, _NOTIFIER_KEYS)
        if made is None:
            return None
        return NotifierTable(
            name=name,
            plugin=keys.plugin,
            timeout=Duration(entry.cls.timeout) if keys.timeout is None else keys.timeout,
            concurrency=entry.cls.concurrency if keys.concurrency is None else keys.concurrency,
            expiry=keys.expiry,
            retry_first=keys.retry_first,
            retry_most=keys.retry_most,
            options=made,
            where=self._tree.file_of(path),
        )

    def _inbound(self, name: str, raw: object) -> InboundTable | None:
        path = ("inbound", name)
        keys, options = self._split(InboundKeys, _INBOUND_KEYS, raw, path)
        entry = self._entry(self._plugins.inbound, keys, "inbound", name)
        if keys is None or entry is None:
            return None
        made = self._options(entry, options, path, _INBOUND_KEYS)
        if made is None:
            return None
        where = self._tree.file_of(path)
        return InboundTable(name=name, kind=keys.kind, enabled=keys.enabled, options=made, where=where)

    def _options(
        self, entry: Any, options: dict[str, Any], path: tuple[str, ...], further: frozenset[str]
    ) -> Struct | None:
        """Make a plugin's options; those of one that is kept out are nobody's to judge."""
        options = {} if entry.kept_out else options
        made: Struct | None = self._walk.table(entry.cls.Options, options, path, further=further)
        if made is not None and not self._sandbox and not entry.kept_out:
            self._refuse_doubles(getattr(entry.cls, "provider_urls", {}), made, path)
        return made

    def _refuse_doubles(self, provider_urls: ProviderUrls, made: Struct, path: tuple[str, ...]) -> None:
        """Note each address that is not its provider's own: what looks like an outage there, or like none, would be a lie."""
        for key, own in provider_urls.items():
            for name, given in _addresses(getattr(made, key)):
                is_secret = isinstance(given, Secret)
                if not _is_of_provider(given.reveal() if is_secret else str(given), own):
                    is_it = f'leave it out (it is "{own}"),' if isinstance(own, str) else f'it begins with "{own[0]}";'
                    mend = f"{is_it} or set sandbox = true in [daemon] if no real provider is meant"
                    shown = None if is_secret else show_value(given)
                    self._walk.note((*path, key, *name), "is not the provider's address", mend, shown)

    def _split(
        self, struct: type[S], own: frozenset[str], raw: object, path: tuple[str, ...]
    ) -> tuple[S | None, dict[str, Any]]:
        """Make the engine's keys of a table; return them and the plugin's keys as they are."""
        if not isinstance(raw, dict):
            return self._walk.table(struct, raw, path), {}
        return (
            self._walk.table(struct, {key: value for key, value in raw.items() if key in own}, path),
            {key: value for key, value in raw.items() if key not in own},
        )

    def _entry(self, known: Mapping[str, Any], keys: Any, kind: str, name: str) -> Any:
        """Return the plugin that a table names; an unknown one is noted with the nearest known one."""
        if keys is None:
            return None
        asked, path, what = (
            (keys.kind, ("inbound", name, "kind"), "a kind of inbound webhooks")
            if isinstance(keys, InboundKeys)
            else (keys.plugin, (f"{kind}s", name, "plugin"), f"a {kind} plugin")
        )
        entry = known.get(asked)
        if entry is None:
            hint = did_you_mean(asked, known) or "`sixfbd plugins` lists what is installed"
            note = self._walk.note if hint.startswith("did") else self._walk.absent
            note(path, f"is not {what}", hint, show_value(asked))
        return entry

    def _receiver(self, name: str, raw: object) -> dict[str, Channel]:
        path = ("receivers", name)
        if not isinstance(raw, dict):
            self._walk.note(path, "is not a table of channels", 'write email = {via = "NOTIFIER"}', show_value(raw))
            return {}
        made = {kind: self._walk.table(Channel, channel, (*path, kind)) for kind, channel in raw.items()}
        return {kind: channel for kind, channel in made.items() if channel is not None}

    def _route(self, receivers: Sequence[str]) -> RouteTable:
        raw = self._tree.values.get("route")
        if raw is None:
            return default_route(receivers)
        root = default_route(receivers).receiver if "primary" in receivers else ""
        return self._walk.table(RouteTable, raw, ("route",), base=RouteTable(receiver=root)) or RouteTable()

    def _escalations(self, receivers: Sequence[str]) -> tuple[EscalationTable, ...]:
        if "escalations" not in self._tree.values:
            return default_escalations(receivers)
        return self._list("escalations", EscalationTable)

    def _list(self, header: str, struct: type[S]) -> tuple[S, ...]:
        """The tables `[[header]]`; one that cannot be made is left out."""
        raw = self._tree.values.get(header, [])
        if not isinstance(raw, list):
            self._walk.note((header,), "is not a list of tables", f"write [[{header}]]", show_value(raw))
            return ()
        made = [self._walk.table(struct, table, (header, place)) for place, table in enumerate(raw)]
        return tuple(table for table in made if table is not None)

    def _severities(self) -> dict[Severity, SeverityTable]:
        made = dict(DEFAULT_SEVERITIES)
        for name, raw in self._named("severities"):
            if name not in list(Severity):
                self._walk.note(("severities", name), "is not a severity", did_you_mean(name, list(Severity)))
                continue
            severity = Severity(name)
            table = self._walk.table(SeverityTable, raw, ("severities", name), base=made[severity])
            made[severity] = table or made[severity]
        return made

    def _with_paths(self, config: Config) -> Config:
        daemon: Daemon = msgspec.structs.replace(
            config.daemon,
            state_directory=_absolute(self._directory, config.daemon.state_directory),
            plugins_d=_absolute(self._directory, config.daemon.plugins_d),
            plugin_directories=tuple(_absolute(self._directory, path) for path in config.daemon.plugin_directories),
        )
        control = Control(socket=_absolute(self._directory, config.control.socket))
        given = config.templates.directory
        directory = Path(_absolute(self._directory, given or "templates"))
        texts, problems = read_templates(directory, needed=bool(given))
        for problem in problems:
            if given and problem.file == str(directory):  # of the key: a path that cannot be one is no place to name
                self._walk.note(("templates", "directory"), problem.message, problem.hint, show_value(given))
            else:
                self.template_problems.append(problem)
        return msgspec.structs.replace(
            config,
            daemon=daemon,
            control=control,
            templates=TemplatesTable(directory=str(directory) if given or texts else ""),
            template_texts=texts,
        )

    def _with_rules(self, config: Config) -> Config:
        raw = self._tree.values.get("rules", [])
        if not isinstance(raw, list):
            self._walk.note(("rules",), "is not a list of tables", "write [[rules]]", show_value(raw))
            return config
        made = [(place, self._walk.table(RuleTable, table, ("rules", place))) for place, table in enumerate(raw)]
        whole = [(place, table) for place, table in made if table is not None]
        places = [(self._tree.file_of(("rules", place)), self._tree.key_of(("rules", place))) for place, _ in whole]
        self.wrong_rule_keys = [
            frozenset(key for key in raw[place] if self._walk.failed(("rules", place, key))) for place, _ in whole
        ]
        return msgspec.structs.replace(config, rules=tuple(table for _, table in whole), rule_places=tuple(places))


def _addresses(option: Any) -> list[tuple[KeyPath, Any]]:
    """Return the addresses that an option holds, one or a table of them, each with its key within the option."""
    if isinstance(option, Mapping):
        return [((name,), given) for name, given in option.items()]
    return [] if option is None else [((), option)]


def _is_of_provider(given: str, own: str | tuple[str, ...]) -> bool:
    return given.rstrip("/") == own.rstrip("/") if isinstance(own, str) else given.startswith(own)
