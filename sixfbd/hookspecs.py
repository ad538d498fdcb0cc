"""The hooks that a plugin may implement: synchronous, called by keyword, all optional, returning values or classes.

Called once per load and reload, before any check runs. An exception disables the plugin, is logged as `plugin.failed`
and shown by `sixfbd plugins` and `sixfbctl status`; the others go on. Names are unique per kind over all plugins: of two
plugins that bring the same name, the one loaded second is left out and named.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pluggy

from sixfbd.model import Rule
from sixfbd.plugin import Check, EventType, FromEnvironment, Inbound, Notifier, PluginConfig, ReportType

hookspec: Final = pluggy.HookspecMarker("sixfbd")


@hookspec
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return check classes by plugin name, the name that `[checks.NAME] plugin = "..."` takes."""


@hookspec
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return notifier classes by plugin name, the name that `[notifiers.NAME] plugin = "..."` takes."""


@hookspec
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return the plugin's default rules; `[[rules]]` of the same name overrides single keys, `enabled = false` drops one."""


@hookspec
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return the event types that the plugin declares; events of undeclared types pass as they are."""


@hookspec
def sixfbd_inbound(config: PluginConfig) -> Mapping[str, type[Inbound[Any]]]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return inbound classes by kind, the name that `[inbound.NAME] kind = "..."` takes."""


@hookspec
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return what `sixfbd init --from-env` makes of variables of the environment by which shops name their accounts."""


@hookspec
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:  # type: ignore[empty-body]  # a hook specification has no body
    """Return the plugin's reports, each served at /api/monitoring/NAME, a page at /reports/NAME of the dashboard, and shown by
    `sixfbctl report NAME`."""
