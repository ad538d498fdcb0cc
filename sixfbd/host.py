"""The plugin host: finds plugins, loads them, learns what they bring, and blames the one that is broken.

Owns the catalog of what may be configured. A plugin with anything wrong is left out whole and named with its file and
what does not match; the others load. The order is fixed: entry points by name, then the plugin directories as
configured, then the single files, each by name; of two plugins that bring the same name the later is left out. A module
is imported once per process: plugin code is not reloadable. Makes no instance of anything and starts nothing.
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from threading import Thread
from traceback import walk_stack, walk_tb
from types import FrameType, ModuleType
from typing import Any, Final, cast

import msgspec
import pluggy
from msgspec import Struct, field

from sixfbd import hookspecs
from sixfbd.config.convert import bounded_type, fields_of
from sixfbd.config.fit import wrong_matcher
from sixfbd.config.tables import CheckKeys, InboundKeys, NotifierKeys, PluginSources
from sixfbd.config.text import did_you_mean
from sixfbd.containment import described, kind_of
from sixfbd.kept_out import Note, check_stand_ins, inbound_stand_ins, notifier_stand_ins, read_notes
from sixfbd.model import Rule
from sixfbd.plugin import (
    ANY,
    Check,
    EventType,
    FromEnvironment,
    Inbound,
    Metric,
    Metrics,
    Notifier,
    PluginConfig,
    ReportType,
)
from sixfbd.rules.defaults import ENGINE_RULES

ENTRY_POINTS: Final = "sixfbd.plugins"
LOAD_LIMIT_S: Final = 20.0  # for one import, one hook
_ENGINE_KEYS: Final = {
    "check": frozenset(field.key for field in fields_of(CheckKeys)),
    "notifier": frozenset(field.key for field in fields_of(NotifierKeys)),
    "inbound": frozenset(field.key for field in fields_of(InboundKeys)),
}
_HOOKS: Final = {
    name: tuple(inspect.signature(spec).parameters)
    for name, spec in vars(hookspecs).items()
    if inspect.isfunction(spec) and hasattr(spec, "sixfbd_spec")
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_EVENT_TYPE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,63}")


class PluginInfo(Struct, frozen=True, kw_only=True):
    """One plugin as `sixfbd plugins` lists it. `problem` set: it is left out, and why."""

    name: str
    module: str
    origin: str  # the distribution, or the path
    file: str = ""  # "" if the module was not found
    version: str = ""
    doc: str = ""
    checks: tuple[str, ...] = ()
    notifiers: tuple[str, ...] = ()
    inbound: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    event_types: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    problem: str | None = None
    kept_out: bool = False  # because it blocked the daemon (kept_out.py)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it brings, such as ("check", "rules")."""
        brought = {
            "check": self.checks,
            "notifier": self.notifiers,
            "inbound": self.inbound,
            "rules": self.rules,
            "events": self.event_types,
            "reports": self.reports,
        }
        return tuple(kind for kind, names in brought.items() if names)


class CheckEntry(Struct, frozen=True):
    """A check class by the name that `[checks.NAME] plugin` takes; `plugin` brought it."""

    name: str
    cls: type[Check[Any]]
    plugin: str
    kept_out: bool = False  # a stand-in: its plugin is kept out


class NotifierEntry(Struct, frozen=True):
    """A notifier class by the name that `[notifiers.NAME] plugin` takes; `plugin` brought it."""

    name: str
    cls: type[Notifier[Any]]
    plugin: str
    kept_out: bool = False  # a stand-in: its plugin is kept out


class InboundEntry(Struct, frozen=True):
    """An inbound class by the name that `[inbound.NAME] kind` takes; `plugin` brought it."""

    name: str
    cls: type[Inbound[Any]]
    plugin: str
    kept_out: bool = False  # a stand-in: its plugin is kept out


class ReportEntry(Struct, frozen=True):
    """A report by its name; `plugin` brought it."""

    type: ReportType
    plugin: str


class PluginCatalog(Struct, frozen=True):
    """What may be configured. `rules` are the default rules, the engine's own first; `metrics` all declared metrics."""

    checks: Mapping[str, CheckEntry] = field(default_factory=dict)
    notifiers: Mapping[str, NotifierEntry] = field(default_factory=dict)
    inbound: Mapping[str, InboundEntry] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ENGINE_RULES
    event_types: Mapping[str, EventType] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    environment: tuple[FromEnvironment, ...] = ()
    reports: Mapping[str, ReportEntry] = field(default_factory=dict)
    plugins: tuple[PluginInfo, ...] = ()

    @property
    def failed(self) -> tuple[PluginInfo, ...]:
        """The plugins that are left out."""
        return tuple(plugin for plugin in self.plugins if plugin.problem is not None)


class _BrokenError(Exception):
    """A plugin is broken; the text says what does not match."""


class _Found(Struct):
    """A plugin before it is loaded. `root` is what its own frames' files begin with, "" if only the module tells."""

    name: str
    module: str
    origin: str
    load: Callable[[], object]
    version: str = ""
    root: str = ""


class _Brought(Struct):
    """What one plugin brings, valid in itself."""

    checks: dict[str, type[Check[Any]]] = field(default_factory=dict)
    notifiers: dict[str, type[Notifier[Any]]] = field(default_factory=dict)
    inbound: dict[str, type[Inbound[Any]]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    event_types: dict[str, EventType] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    environment: tuple[FromEnvironment, ...] = ()
    reports: dict[str, ReportType] = field(default_factory=dict)


class _Shelf(Struct):
    """The catalog while it fills."""

    checks: dict[str, CheckEntry] = field(default_factory=dict)
    notifiers: dict[str, NotifierEntry] = field(default_factory=dict)
    inbound: dict[str, InboundEntry] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=lambda: {rule.name: rule for rule in ENGINE_RULES})
    event_types: dict[str, EventType] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    environment: list[FromEnvironment] = field(default_factory=list)
    reports: dict[str, ReportEntry] = field(default_factory=dict)
    owners: dict[tuple[str, str], str] = field(
        default_factory=lambda: {("rule", r.name): "engine" for r in ENGINE_RULES}
    )
    plugins: dict[str, PluginInfo] = field(default_factory=dict)


def load_plugins(sources: PluginSources) -> PluginCatalog:
    """Load every plugin that can be found and is not kept out. Never raises for what a plugin does.

    Waits LOAD_LIMIT_S at most for each call of its code.

    Imports modules, so it blocks: call it before the loop runs or in a worker thread.
    """
    return _load(_find(sources), sources)


def load_modules(modules: Sequence[ModuleType], config: PluginConfig) -> PluginCatalog:
    """Load these modules as plugins, and no other: what an author's test or `sixfbd plugins check` looks at.

    Each is called what the last part of its module's name is. Never raises for what a plugin does.
    """
    found = [
        _Found(name, module.__name__, file, partial(_as_it_is, module), root=file.removesuffix("/__init__.py"))
        for module in modules
        for name, file in [(module.__name__.rpartition(".")[2], str(getattr(module, "__file__", None) or ""))]
    ]
    return _load(found, PluginSources(config=config))


def load_target(target: str, config: PluginConfig) -> PluginCatalog:
    """Load one plugin and no other: a module by its name, a file, a package, or a project with entry points.

    Never raises for what a plugin does; raises ValueError if there is no such thing.
    """
    path = Path(target)
    if re.fullmatch(r"\w+(\.\w+)*", target) and not path.exists():
        return _load([_named(target.rpartition(".")[2], target)], PluginSources(config=config))
    path = path.resolve()
    if path.is_file() and path.suffix == ".py" and path.name != "__init__.py":
        return _load([_single_file(path)], PluginSources(config=config))
    if path.name == "__init__.py":
        path = path.parent
    if (path / "__init__.py").is_file():
        return _load([_package(path)], PluginSources(config=config))
    if (path / "pyproject.toml").is_file():
        return _load(list(_of_project(path)), PluginSources(config=config))
    raise ValueError(f"{target} is no module, no Python file, and no directory of a package or a project")


def _named(name: str, module: str) -> _Found:
    return _Found(name, module, module, partial(importlib.import_module, module))


def _of_project(path: Path) -> Iterator[_Found]:
    """The plugins of a project as its entry points name them, imported from its own directory."""
    text = (path / "pyproject.toml").read_text(encoding="utf-8")
    try:
        project = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path / 'pyproject.toml'}: {error}") from None
    points = project.get("entry-points", {}).get(ENTRY_POINTS, {})
    if not points:
        raise ValueError(f'{path / "pyproject.toml"} has no entry points [project.entry-points."{ENTRY_POINTS}"]')
    roots = [str(root) for root in (path / "src", path) if root.is_dir()]
    sys.path[:0] = [root for root in roots if root not in sys.path]
    for name, module in points.items():
        yield _named(name, module)


def _as_it_is(module: ModuleType) -> ModuleType:
    return module


def _load(all_found: Iterable[_Found], sources: PluginSources) -> PluginCatalog:
    shelf = _Shelf()
    notes = read_notes(sources.state_directory)
    kept_out: list[Note] = []
    for found in all_found:
        info = PluginInfo(name=found.name, module=found.module, origin=found.origin, version=found.version)
        name = found.name if found.name not in shelf.plugins else f"{found.name} ({found.origin})"
        try:
            if found.name in shelf.plugins:
                other = shelf.plugins[found.name].origin
                raise _BrokenError(f"the plugin name {found.name} is taken by {other}; rename one of them")
            if (note := notes.get(found.name)) is not None:
                kept_out.append(note)
                shelf.plugins[name] = msgspec.structs.replace(info, problem=note.reason, kept_out=True)
                continue
            shelf.plugins[name] = _take(found, info, sources.config, shelf)
        except _BrokenError as error:
            shelf.plugins[name] = msgspec.structs.replace(info, file=_file_of(found), problem=str(error))
    for note in kept_out:
        _stand_in(note, sources, shelf)
    return PluginCatalog(
        checks=shelf.checks,
        notifiers=shelf.notifiers,
        inbound=shelf.inbound,
        rules=tuple(shelf.rules.values()),
        event_types=shelf.event_types,
        metrics=shelf.metrics,
        environment=tuple(shelf.environment),
        reports=shelf.reports,
        plugins=tuple(shelf.plugins.values()),
    )


def _stand_in(note: Note, sources: PluginSources, shelf: _Shelf) -> None:
    """Keep the places of a plugin that is kept out, as far as nobody else has them."""
    for name, check in check_stand_ins(note, dict.fromkeys(sources.checks)):
        shelf.checks.setdefault(name, CheckEntry(name, check, note.plugin, kept_out=True))
    for name, notifier in notifier_stand_ins(note, dict.fromkeys(sources.notifiers)):
        shelf.notifiers.setdefault(name, NotifierEntry(name, notifier, note.plugin, kept_out=True))
    for name, inbound in inbound_stand_ins(note, dict.fromkeys(sources.inbound)):
        shelf.inbound.setdefault(name, InboundEntry(name, inbound, note.plugin, kept_out=True))
    for rule in note.rules:
        shelf.rules.setdefault(rule.name, rule)


# ---- finding -----------------------------------------------------------------------------------------------------------


def _find(sources: PluginSources) -> Iterator[_Found]:
    yield from _entry_points()
    for directory in sources.directories:
        for path in _listed(directory):
            if (path / "__init__.py").is_file():
                yield _package(path)
    if sources.files_in is not None:
        for path in _listed(sources.files_in):
            if path.suffix == ".py":
                yield _single_file(path)


def _listed(directory: Path) -> list[Path]:
    """The visible entries of a directory by name; none if it is not there or cannot be read (it need not exist)."""
    try:
        return sorted(path for path in directory.iterdir() if path.name[0] not in "._")
    except OSError:
        return []


def _entry_points() -> Iterator[_Found]:
    points = {(point.name, point.value): point for point in metadata.entry_points(group=ENTRY_POINTS)}
    known: dict[metadata.Distribution, tuple[str, str]] = {}
    for (name, value), point in sorted(points.items(), key=lambda pair: pair[0]):
        origin, version = value, ""
        if (dist := point.dist) is not None:
            if dist not in known:
                known[dist] = (dist.name, dist.version)  # reads the whole of its metadata, each time that it is asked
            version = known[dist][1]
            origin = " ".join(known[dist])
        yield _Found(name, point.module, origin, point.load, version)


def _package(path: Path) -> _Found:
    load = partial(_import_file, path.name, path / "__init__.py", path)
    return _Found(path.name, path.name, str(path), load, root=str(path))


def _single_file(path: Path) -> _Found:
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    module = f"sixfbd_plugin_{re.sub('[^A-Za-z0-9_]', '_', path.stem)}_{digest}"
    return _Found(path.stem, module, str(path), partial(_import_file, module, path, None), root=str(path))


def _import_file(name: str, file: Path, package: Path | None) -> ModuleType:
    if (loaded := sys.modules.get(name)) is not None:
        if getattr(loaded, "__file__", None) != str(file):
            raise _BrokenError(f"a module called {name} is loaded already; rename the directory")
        return loaded
    if package is not None and importlib.util.find_spec(name) is not None:
        raise _BrokenError(f"a module called {name} is installed already; rename the directory")
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=None if package is None else [str(package)]
    )
    if spec is None or spec.loader is None:
        raise _BrokenError(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # msgspec looks annotations up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


# ---- loading -----------------------------------------------------------------------------------------------------------


def _take(found: _Found, info: PluginInfo, config: PluginConfig, shelf: _Shelf) -> PluginInfo:
    """Load one plugin and put what it brings on the shelf; raises _BrokenError and leaves the shelf as it was."""
    if not _NAME.fullmatch(found.name):
        raise _BrokenError(f"{found.name!r} is not a plugin name: letters, digits, _ and -, at most 64")
    plugin = _contained(found.load, "import", found)
    all_hooks_s = LOAD_LIMIT_S * (len(_HOOKS) + 1)
    brought = _contained(partial(_ask, plugin, found, config), "loading", found, all_hooks_s)
    _refuse_taken(brought, shelf)
    _put(brought, found.name, shelf)
    doc = inspect.getdoc(plugin) if isinstance(plugin, ModuleType) else inspect.getdoc(type(plugin))
    version = found.version or getattr(plugin, "__version__", "")
    return msgspec.structs.replace(
        info,
        file=_file_of(found),
        version=version if isinstance(version, str) else "",
        doc=(doc or "").strip().partition("\n")[0],
        checks=tuple(brought.checks),
        notifiers=tuple(brought.notifiers),
        inbound=tuple(brought.inbound),
        rules=tuple(str(rule.name) for rule in brought.rules),
        event_types=tuple(brought.event_types),
        reports=tuple(brought.reports),
    )


class _Call(Thread):
    """Plugin code in a thread of its own, so that what hangs can be left behind."""

    def __init__(self, call: Callable[[], Any], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._call = call
        self.answer: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.answer = self._call()
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a plugin must not end anything; who started it is told
            self.error = error


def _contained(call: Callable[[], Any], doing: str, found: _Found, limit_s: float | None = None) -> Any:
    """Call plugin code; whatever it raises, sys.exit included, becomes _BrokenError with the plugin's own line.

    So does code that is not done after `limit_s`, LOAD_LIMIT_S unless given; its thread is left behind.
    """
    limit_s = LOAD_LIMIT_S if limit_s is None else limit_s
    thread = _Call(call, f"load {found.name}")
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        place = _own_place(walk_stack(frame), found, innermost_first=True)
        raise _BrokenError(f"{doing} is not done after {limit_s:g} s{place}")
    if isinstance(thread.error, _BrokenError):
        raise thread.error
    if thread.error is not None:
        raise _BrokenError(f"{doing} failed: {described(thread.error)}{_place(thread.error, found)}") from None
    return thread.answer


def _place(error: BaseException, found: _Found) -> str:
    """Return " (FILE:LINE)" of the innermost frame in the plugin, or of the syntax error; no values of variables."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    return _own_place(walk_tb(error.__traceback__), found)


def _own_place(walked: Iterable[tuple[FrameType, int]], found: _Found, *, innermost_first: bool = False) -> str:
    frames = [(frame.f_code.co_filename, line) for frame, line in walked]
    if innermost_first:
        frames.reverse()
    module = found.module.replace(".", "/")
    own = [
        (file, line)
        for file, line in frames
        if (found.root and file.startswith(found.root))
        or (not found.root and (file.endswith(f"{module}.py") or f"{module}/" in file))
    ]
    return f" ({own[-1][0]}:{own[-1][1]})" if own else ""


def _file_of(found: _Found) -> str:
    return found.root or str(getattr(sys.modules.get(found.module), "__file__", None) or "")


def _ask(plugin: object, found: _Found, config: PluginConfig) -> _Brought:
    """Register the plugin by itself, call its hooks, and check what they return."""
    _refuse_misfits(plugin, found)
    manager = pluggy.PluginManager("sixfbd")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin, found.name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise _BrokenError(" ".join(str(error).split())) from None
    results: dict[str, object] = {}
    for hook in _HOOKS:
        caller = getattr(manager.hook, hook)
        if not caller.get_hookimpls():
            continue
        returned = _contained(partial(caller, config=config), f"{hook}()", found)
        if not returned:
            raise _BrokenError(f"{hook}() returned None; is `return` missing?")
        results[hook] = returned[0]
    if not results:
        raise _BrokenError(f"it implements no hook; there are {', '.join(sorted(_HOOKS))}")
    return _validated(results)


def _refuse_misfits(plugin: object, found: _Found) -> None:
    """Name every function that means to be a hook and is not one; pluggy would say less, or nothing."""
    faults = []
    for name, function in inspect.getmembers(plugin, inspect.isroutine):
        marks = getattr(function, "sixfbd_impl", None)
        if not isinstance(marks, dict):
            own = getattr(function, "__module__", None) == getattr(plugin, "__name__", found.module)
            if name.startswith("sixfbd_") and own:
                faults.append(f"{name}() is not marked; write @hookimpl above it")
            continue
        hook = marks.get("specname") or name
        if hook not in _HOOKS:
            faults.append(f"{hook}() is not a hook; {did_you_mean(hook, _HOOKS)}")
        else:
            faults += _signature_faults(function, hook)
    if faults:
        raise _BrokenError("; ".join(faults))


def _signature_faults(function: Callable[..., object], hook: str) -> list[str]:
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return [f"{hook}() is async; hooks are plain functions"]
    faults = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            faults.append(f"{hook}(): write the argument {parameter.name} plainly, with neither * nor a default")
        elif parameter.name not in _HOOKS[hook]:
            faults.append(f"{hook}() has no argument {parameter.name}; it may take ({', '.join(_HOOKS[hook])})")
    return faults


# ---- checking what hooks return ------------------------------------------------------------------------------------------


def _validated(results: Mapping[str, object]) -> _Brought:
    brought = _Brought()
    for name, cls in _mapping(results, "sixfbd_checks").items():
        brought.checks[name] = _check_class(name, cls)
        _declare(brought.metrics, cls.metrics, f"check {name}")
    for name, cls in _mapping(results, "sixfbd_notifiers").items():
        brought.notifiers[name] = _notifier_class(name, cls)
        _declare(brought.metrics, cls.metrics, f"notifier {name}")
    for name, cls in _mapping(results, "sixfbd_inbound").items():
        brought.inbound[name] = _inbound_class(name, cls)
    for event_type in _sequence(results, "sixfbd_events", EventType):
        _event_type(event_type, brought)
        _declare(brought.metrics, event_type.metrics, f"event type {event_type.name}")
    brought.environment = tuple(_sequence(results, "sixfbd_environment", FromEnvironment))
    for report in _sequence(results, "sixfbd_reports", ReportType):
        _report_type(report, brought)
    brought.rules = tuple(_sequence(results, "sixfbd_rules", Rule))
    for rule in brought.rules:
        _check_rule(rule)
    if repeated := _repeated([rule.name for rule in brought.rules]):
        raise _BrokenError(f"sixfbd_rules() returned two rules called {repeated}")
    return brought


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for place, name in enumerate(names) if name in names[:place]), None)


def _mapping(results: Mapping[str, object], hook: str) -> dict[str, Any]:
    returned = results.get(hook, {})
    if not isinstance(returned, Mapping):
        raise _BrokenError(f"{hook}() returned {kind_of(returned)}, not a mapping of names to classes")
    for name in returned:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _BrokenError(f"{hook}() returned the name {name!r}; letters, digits, _ and -, at most 64")
    return dict(returned)


def _sequence(results: Mapping[str, object], hook: str, wanted: type) -> list[Any]:
    returned = results.get(hook, ())
    if not isinstance(returned, list | tuple):
        raise _BrokenError(f"{hook}() returned {kind_of(returned)}, not a list of {wanted.__name__}s")
    for item in returned:
        if not isinstance(item, wanted):
            raise _BrokenError(f"{hook}() returned {kind_of(item)} among its {wanted.__name__}s")
    return list(returned)


def _check_class(name: str, cls: object) -> type[Check[Any]]:
    if not (isinstance(cls, type) and issubclass(cls, Check)):
        raise _BrokenError(f"sixfbd_checks()[{name!r}] is {kind_of(cls)}, not a subclass of Check")
    _check_constructor(cls)
    _check_method(cls, "run", Check.run)
    _check_close(cls, Check.close)
    _check_options(cls, "check")
    _check_limits(cls, ("interval", "timeout"))
    if cls.timeout > cls.interval:
        raise _BrokenError(f"{cls.__qualname__}.timeout is longer than its interval")
    for key in ("service", "external"):
        if not isinstance(getattr(cls, key), str | types.NoneType):
            raise _BrokenError(f"{cls.__qualname__}.{key} is {kind_of(getattr(cls, key))}, not a str or None")
    return cls


def _notifier_class(name: str, cls: object) -> type[Notifier[Any]]:
    if not (isinstance(cls, type) and issubclass(cls, Notifier)):
        raise _BrokenError(f"sixfbd_notifiers()[{name!r}] is {kind_of(cls)}, not a subclass of Notifier")
    _check_constructor(cls)
    _check_method(cls, "deliver", Notifier.deliver)
    _check_close(cls, Notifier.close)
    if cls.can_look_up:
        _check_method(cls, "lookup", Notifier.lookup)
    _check_options(cls, "notifier")
    _check_limits(cls, ("timeout", "concurrency"))
    return cls


def _inbound_class(name: str, cls: object) -> type[Inbound[Any]]:
    if not (isinstance(cls, type) and issubclass(cls, Inbound)):
        raise _BrokenError(f"sixfbd_inbound()[{name!r}] is {kind_of(cls)}, not a subclass of Inbound")
    _check_constructor(cls)
    mend = "write `def receive(self, request)`"
    if cls.receive is Inbound.receive:
        raise _BrokenError(f"{cls.__qualname__} has no method receive()")
    function = inspect.unwrap(cls.receive) if callable(cls.receive) else cls.receive
    for is_async in (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction):
        if is_async(function):
            raise _BrokenError(f"{cls.__qualname__}.receive() is no plain function; {mend}, which returns its events")
    _check_arguments(cls, "receive", ("self", "request"), mend)
    _check_options(cls, "inbound")
    return cls


def _check_method(cls: type, name: str, inherited: object) -> None:
    method = getattr(cls, name)
    if method is inherited:
        raise _BrokenError(f"{cls.__qualname__} has no method {name}()")
    arguments = tuple(inspect.signature(cast(Callable[..., object], inherited)).parameters)
    mend = f"write `async def {name}({', '.join(arguments)})`"
    function = inspect.unwrap(method) if callable(method) else method
    if inspect.isasyncgenfunction(function):
        raise _BrokenError(f"{cls.__qualname__}.{name}() yields; it has to return its answer, once")
    if not inspect.iscoroutinefunction(function):
        raise _BrokenError(f"{cls.__qualname__}.{name}() is not async; {mend}")
    _check_arguments(cls, name, arguments, mend)


def _check_close(cls: type, inherited: object) -> None:
    if cls.close is not inherited:  # type: ignore[attr-defined]  # both kinds have it
        _check_method(cls, "close", inherited)


def _check_constructor(cls: type) -> None:
    _check_arguments(cls, "__init__", ("self", "options", "ctx"), "write `def __init__(self, options, ctx)`")


def _check_arguments(cls: type, name: str, arguments: Sequence[str], mend: str) -> None:
    """Raise _BrokenError if a method cannot be called with the contract's arguments, which are given by their place."""
    signature = inspect.signature(getattr(cls, name))
    takes_self = not isinstance(inspect.getattr_static(cls, name), staticmethod | classmethod)
    try:
        signature.bind(*(arguments if takes_self else arguments[1:]))
    except TypeError:
        raise _BrokenError(
            f"{cls.__qualname__}.{name}() has the arguments {_shown_arguments(signature)}; {mend}"
        ) from None


def _shown_arguments(signature: inspect.Signature) -> str:
    """The names of the arguments, without what they are annotated with and their defaults' values."""
    plain = [
        parameter.replace(
            annotation=parameter.empty, default=parameter.empty if parameter.default is parameter.empty else ...
        )
        for parameter in signature.parameters.values()
    ]
    return str(inspect.Signature(plain)).replace("Ellipsis", "...")


def _check_limits(cls: type, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(cls, name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise _BrokenError(f"{cls.__qualname__}.{name} is {value!r}, not a number above 0")


def _check_options(cls: type[Check[Any]] | type[Notifier[Any]] | type[Inbound[Any]], kind: str) -> None:
    options = cls.Options
    if not (isinstance(options, type) and issubclass(options, Struct)):
        raise _BrokenError(f"{cls.__qualname__}.Options is {kind_of(options)}, not a msgspec Struct")
    _check_table(options, set())
    if shared := _ENGINE_KEYS[kind] & {option.key for option in fields_of(options)}:
        raise _BrokenError(f"{cls.__qualname__}.Options has the key {min(shared)}, which is the engine's; rename it")
    urls = getattr(cls, "provider_urls", {})
    if not isinstance(urls, Mapping) or not set(urls) <= {option.attribute for option in fields_of(options)}:
        raise _BrokenError(f"{cls.__qualname__}.provider_urls is not a mapping from options to addresses")


def _check_table(table: type[Struct], seen: set[type[Struct]]) -> None:
    """Raise _BrokenError if configuration cannot give a table, or one inside it."""
    if table in seen:
        return
    seen.add(table)
    try:
        shapes = [option.shape for option in fields_of(table)]
    except (TypeError, NameError) as error:
        raise _BrokenError(f"Options: {error}") from None
    while shapes:
        shape = shapes.pop()
        shapes += shape.inner
        if shape.kind == "table":
            _check_table(shape.type, seen)
        elif shape.kind in ("text", "whole", "number"):
            _refuse_unfit_bounds(table, bounded_type(shape))


def _refuse_unfit_bounds(table: type[Struct], bounded: Any) -> None:
    try:
        msgspec.inspect.type_info(bounded)
    except TypeError as error:
        raise _BrokenError(f"Options: {table.__qualname__}: {error}") from None


def _event_type(event_type: EventType, brought: _Brought) -> None:
    name = event_type.name
    if not isinstance(name, str) or not _EVENT_TYPE.fullmatch(name):
        raise _BrokenError(
            f"{name!r} is not the name of an event type: letters, digits, _ . -, at most 64, a letter first"
        )
    if not (isinstance(event_type.data, type) and issubclass(event_type.data, Struct)):
        raise _BrokenError(f"event type {name}: its data is {kind_of(event_type.data)}, not a msgspec Struct")
    if name in brought.event_types:
        raise _BrokenError(f"sixfbd_events() returned two event types called {name}")
    brought.event_types[name] = event_type


def _report_type(report: ReportType, brought: _Brought) -> None:
    if not isinstance(report.name, str) or not _NAME.fullmatch(report.name):
        raise _BrokenError(f"{report.name!r} is not the name of a report: letters, digits, _ and -, at most 64")
    if not inspect.iscoroutinefunction(report.make):
        raise _BrokenError(f"report {report.name}: what makes it is {kind_of(report.make)}, not an async function")
    if report.name in brought.reports:
        raise _BrokenError(f"sixfbd_reports() returned two reports called {report.name}")
    brought.reports[report.name] = report


def _check_rule(rule: Rule) -> None:
    if not rule.name or not isinstance(rule.name, str):
        raise _BrokenError("sixfbd_rules() returned a rule without a name")
    by_label = "severity" in rule.describing and rule.severity is None and not rule.levels
    if not by_label and (rule.severity is None) == (not rule.levels):
        raise _BrokenError(f"rule {rule.name} needs either a severity or levels")
    for text in rule.once:
        if wrong := wrong_matcher(text):
            raise _BrokenError(f"rule {rule.name}: once: {wrong}")


def _declare(declared: dict[str, Metric], metrics: Metrics, where: str) -> None:
    """Add metrics to those declared; raise _BrokenError for one that is no metric or that contradicts another of its name."""
    if metrics is ANY:
        return
    if not isinstance(metrics, list | tuple):
        raise _BrokenError(f"{where}: metrics is {kind_of(metrics)}, not a list of metrics")
    for metric in metrics:
        if not isinstance(metric, Metric):
            raise _BrokenError(f"{where}: metrics holds {kind_of(metric)}, not a metric")
        if not isinstance(metric.name, str) or not _METRIC.fullmatch(metric.name):
            raise _BrokenError(f"{where}: {metric.name!r} is not the name of a metric")
        if metric.name.startswith("sixfbd_"):
            raise _BrokenError(f"{where}: metric {metric.name}: names that begin with sixfbd_ are the engine's")
        for label in metric.labels:
            if not isinstance(label, str) or not _LABEL.fullmatch(label) or label == "check":
                raise _BrokenError(f"{where}: metric {metric.name} cannot have the label {label!r}")
        if (other := declared.setdefault(metric.name, metric)) is not metric:
            _refuse_contradiction(metric, other, where)


def _refuse_contradiction(metric: Metric, other: Metric, where: str) -> None:
    if (metric.kind, metric.labels) != (other.kind, other.labels):
        raise _BrokenError(
            f"{where}: metric {metric.name} is a {metric.kind} of {list(metric.labels)} here "
            f"and a {other.kind} of {list(other.labels)} elsewhere; give one of them another name"
        )


# ---- the shelf -----------------------------------------------------------------------------------------------------------


def _names(brought: _Brought) -> Iterator[tuple[str, str]]:
    yield from (("check", name) for name in brought.checks)
    yield from (("notifier", name) for name in brought.notifiers)
    yield from (("inbound kind", name) for name in brought.inbound)
    yield from (("rule", rule.name) for rule in brought.rules)
    yield from (("event type", name) for name in brought.event_types)
    yield from (("report", name) for name in brought.reports)


def _refuse_taken(brought: _Brought, shelf: _Shelf) -> None:
    for kind, name in _names(brought):
        if (owner := shelf.owners.get((kind, name))) is not None:
            who = "the engine" if owner == "engine" else f"plugin {owner} ({shelf.plugins[owner].origin})"
            raise _BrokenError(f"the {kind} {name} is registered already, by {who}")
    for metric in brought.metrics.values():
        if metric.name in shelf.metrics:
            _refuse_contradiction(metric, shelf.metrics[metric.name], "another plugin declared it first")


def _put(brought: _Brought, plugin: str, shelf: _Shelf) -> None:
    shelf.owners.update(dict.fromkeys(_names(brought), plugin))
    shelf.checks.update({name: CheckEntry(name, cls, plugin) for name, cls in brought.checks.items()})
    shelf.notifiers.update({name: NotifierEntry(name, cls, plugin) for name, cls in brought.notifiers.items()})
    shelf.inbound.update({name: InboundEntry(name, cls, plugin) for name, cls in brought.inbound.items()})
    shelf.event_types.update(brought.event_types)
    for metric in brought.metrics.values():
        shelf.metrics.setdefault(metric.name, metric)
    shelf.environment += brought.environment
    shelf.reports.update({name: ReportEntry(report, plugin) for name, report in brought.reports.items()})
    for rule in brought.rules:
        shelf.rules[rule.name] = msgspec.structs.replace(rule, origin=rule.origin or f"plugin {plugin}")
