"""What plugins bring, as `sixfbd plugins` and the control socket list it. Pure: a catalog to views."""

from collections.abc import Iterator, Mapping
from typing import Any

from sixfbd.control.engine import PluginOption, PluginView
from sixfbd.host import PluginCatalog, PluginInfo
from sixfbd.schema import describe_options


def plugin_views(
    catalog: PluginCatalog,
    checks: Mapping[str, str] | None = None,
    notifiers: Mapping[str, str] | None = None,
    inbound: Mapping[str, str] | None = None,
) -> list[PluginView]:
    """Return a view for each name that a plugin brings, and one for each plugin that is left out.

    `checks`, `notifiers` and `inbound` have the plugin (or kind) of each configured instance by the instance's name.
    """
    users = {"check": checks or {}, "notifier": notifiers or {}, "inbound": inbound or {}}
    return [view for info in catalog.plugins for view in _views(info, catalog, users)]


def _views(info: PluginInfo, catalog: PluginCatalog, users: Mapping[str, Mapping[str, str]]) -> Iterator[PluginView]:
    if info.problem is not None:
        yield PluginView(
            name=info.name, kind="plugin", origin=info.origin, version=info.version, doc=info.doc, error=info.problem
        )
        return
    for name in info.checks:
        yield _class_view(info, "check", name, catalog.checks[name].cls, users["check"])
    for name in info.notifiers:
        yield _class_view(info, "notifier", name, catalog.notifiers[name].cls, users["notifier"])
    for name in info.inbound:
        yield _class_view(info, "inbound", name, catalog.inbound[name].cls, users["inbound"])
    for kind, names in (("rules", info.rules), ("events", info.event_types)):
        if names:
            yield PluginView(name=info.name, kind=kind, origin=info.origin, version=info.version, doc=", ".join(names))


def _class_view(info: PluginInfo, kind: str, name: str, cls: Any, users: Mapping[str, str]) -> PluginView:
    return PluginView(
        name=name,
        kind=kind,
        origin=info.origin,
        version=info.version,
        doc=(cls.__doc__ or "").strip().partition("\n")[0],
        options=tuple(
            PluginOption(
                option.key, option.type, option.required, "" if option.default is None else str(option.default)
            )
            for option in describe_options(cls.Options)
        ),
        used_by=tuple(instance for instance, plugin in users.items() if plugin == name),
    )
