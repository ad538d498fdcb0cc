"""A configuration under which plugins can be tried: the author's own, or one made up from what their options may hold."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import tomli_w
from msgspec import Struct

from sixfbd.config import Config, check_config, plugin_sources
from sixfbd.config.convert import Shape, TableField, fields_of
from sixfbd.conformance.declared import classes_of
from sixfbd.conformance.finding import NotRun
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.rules.problems import rule_problems

NOWHERE: Final = "127.0.0.1:9"  # the port of `discard`, where nobody listens
SECRET: Final = "canary-0f8b2c1d-"  # what is looked for afterwards
_TABLES: Final = {"check": "checks", "notifier": "notifiers", "inbound": "inbound"}


class Tried(Struct, frozen=True):
    """A configuration, the catalog that it was read with, the names in it of what is to be run, and what is not."""

    config: Config | None
    catalog: PluginCatalog
    not_run: tuple[NotRun, ...] = ()


def configured(path: Path, catalog: PluginCatalog) -> tuple[Tried, list[str]]:
    """Read the author's configuration; what keeps it from being used is returned as lines."""
    others = load_plugins(plugin_sources(path))
    whole = msgspec.structs.replace(
        others,
        checks={**others.checks, **catalog.checks},
        notifiers={**others.notifiers, **catalog.notifiers},
        inbound={**others.inbound, **catalog.inbound},
        event_types={**others.event_types, **catalog.event_types},
        rules=tuple({rule.name: rule for rule in (*others.rules, *catalog.rules)}.values()),
    )
    config, problems = check_config(path, whole, rule_problems)
    wrong = [str(problem) for problem in problems if problem.level == "error"]
    used = {
        *(("check", one.plugin) for one in config.checks.values()),
        *(("notifier", one.plugin) for one in config.notifiers.values()),
        *(("inbound", one.kind) for one in config.inbound.values()),
    } if config else set()  # fmt: skip
    unused = tuple(
        NotRun(f"{kind} {name}", f"{path} configures none of it; add [{_TABLES[kind]}.NAME]")
        for kind, name, _ in classes_of(catalog)
        if (kind, name) not in used
    )
    return Tried(config, whole, unused), wrong


def made_up(directory: Path, catalog: PluginCatalog) -> Tried:
    """Make a configuration up for each class of a catalog, one by one; those whose options refuse it are not run.

    Each is tried with all secrets that it may have, then with what it needs alone.
    """
    tables: dict[str, dict[str, Any]] = {table: {} for table in _TABLES.values()}
    environ: dict[str, str] = {}
    not_run = []
    for kind, name, cls in classes_of(catalog):
        key = "kind" if kind == "inbound" else "plugin"
        guess = _Guess(directory)
        for whole in (True, False):
            options = {key: name, **guess.table(cls.Options, getattr(cls, "provider_urls", {}), secrets=whole)}
            alone = {_TABLES[kind]: {name: options}}
            _, wrong = _read(directory, alone, environ | guess.environ, catalog)
            if not wrong:
                tables[_TABLES[kind]][name] = options
                environ |= guess.environ
                break
        else:
            mend = f'give it some: --config FILE with a table [{_TABLES[kind]}.NAME] {key} = "{name}"'
            not_run.append(NotRun(f"{kind} {name}", f"no options could be made up for it ({wrong[0]}); {mend}"))
    config, _ = _read(directory, tables, environ, catalog)
    return Tried(config, catalog, tuple(not_run))


def _read(
    directory: Path, tables: dict[str, Any], environ: dict[str, str], catalog: PluginCatalog
) -> tuple[Config | None, list[str]]:
    path = directory / "sixfbd.toml"
    base: dict[str, Any] = {
        "daemon": {"sandbox": True, "state_directory": str(directory / "state"), "plugin_directories": []},
        "control": {"socket": str(directory / "control.sock")},
        "http": {"listen": "127.0.0.1:0", "public": {"listen": "127.0.0.1:0", "url": "https://hooks.example.com"}},
        "receivers": {"primary": {}, "secondary": {}, "escalation": {}},
    }
    path.write_text(tomli_w.dumps({**base, **tables}), encoding="utf-8")
    config, problems = check_config(path, catalog, rule_problems, environ)
    prefix = f"{path}: "
    return config, [str(one).removeprefix(prefix) for one in problems if one.level == "error"]


class _Guess:
    """Values for options by their form and name, and the secrets that they name."""

    def __init__(self, directory: Path) -> None:
        self.environ: dict[str, str] = {}
        self._directory = directory
        self._numbers = itertools.count(1)

    def table(self, table: type[Struct], urls: Any, *, secrets: bool) -> dict[str, Any]:
        return dict(self._values(table, urls, secrets=secrets))

    def _values(self, table: type[Struct], urls: Any, *, secrets: bool) -> Iterator[tuple[str, Any]]:
        for field in fields_of(table):
            if field.attribute in urls and field.shape.kind == "text":
                yield field.key, f"http://{NOWHERE}"
            elif field.required or (secrets and field.shape.kind == "secret"):
                yield field.key, self._value(field, field.shape)

    def _value(self, field: TableField, shape: Shape) -> Any:
        match shape.kind:
            case "secret":
                name = f"SIXFBD_CANARY_{next(self._numbers)}"
                self.environ[name] = f"{SECRET}{name.lower()}"
                return {"env": name}
            case "choice":
                return shape.words[0]
            case "whole":
                return max([1, *(meta.ge for meta in shape.metas if isinstance(meta.ge, int))])
            case "number":
                return 1.0
            case "flag":
                return False
            case "duration":
                return "1s"
            case "size":
                return "1KiB"
            case "file":
                file = self._directory / "file"
                file.touch()
                return str(file)
            case "list":
                return [self._value(field, part) for part in shape.inner[: shape.length or 1]]
            case "map":
                return {"example": self._value(field, shape.inner[1])}
            case "union":
                return self._value(field, next((one for one in shape.inner if one.kind == "secret"), shape.inner[0]))
            case "table":
                return self.table(shape.type, {}, secrets=False)
        return self._text(field.key)

    def _text(self, key: str) -> str:
        if "url" in key or key == "targets":
            return f"http://{NOWHERE}/"
        if "host" in key or "address" in key or "server" in key:
            return "127.0.0.1"
        if any(word in key for word in ("director", "path", "folder", "file")):
            return str(self._directory)
        return "example"
