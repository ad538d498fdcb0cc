"""Who is told: Alertmanager's tree of routes, then receivers, then the channels that a severity uses. Pure.

Semantics of the tree: https://prometheus.io/docs/alerting/latest/configuration/#route. A matcher is
`name="value"` with `=`, `!=`, `=~` or `!~`; a label that is missing has the value "". Regular expressions are RE2's
and match whole values.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

import re2
from msgspec import Struct
from msgspec.structs import replace

from sixfbd.config.tables import Channel, RouteTable, SeverityTable
from sixfbd.model import Severity, Target

_MATCHER: Final = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
ROOT: Final = "route"
EACH: Final = "..."  # of `group_by`, as in Alertmanager
REPEAT_S: Final = 4 * 3600.0  # Alertmanager's default
_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # RE2 would write to stderr what we raise


class Matcher(Struct, frozen=True):
    """One condition on one label. `pattern` is the compiled expression of `=~` and `!~`, else None."""

    name: str
    op: str
    value: str
    pattern: Any = None

    def __str__(self) -> str:
        return f"{self.name}{self.op}{json.dumps(self.value, ensure_ascii=False)}"

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.name, "")
        if self.pattern is None:
            return (value == self.value) == (self.op == "=")
        return (self.pattern.fullmatch(value) is not None) == (self.op == "=~")


@lru_cache(maxsize=4096)
def parse_matcher(text: str) -> Matcher:
    """Return the matcher that a text such as `severity=~"high|critical"` says. Raises ValueError with the mend."""
    match = _MATCHER.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a matcher; write severity="critical" or team=~"web|shop"')
    name, op, written = match[1], match[2], match[3]
    quoted = _QUOTED.fullmatch(written)
    if quoted is None and (written.startswith(('"', "'")) or any(mark in written for mark in '"{},')):
        raise ValueError(f'{text!r}: the value is not quoted right; write {name}{op}"value"')
    value = written if quoted is None else _ESCAPE.sub(_unescape, quoted[1])
    if op in ("=", "!="):
        return Matcher(name, op, value)
    try:
        return Matcher(name, op, value, re2.compile(value, _OPTIONS))
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"{text!r}: {value!r} is not a regular expression of RE2: {reason}") from None


def parse_matchers(texts: Iterable[str], path: str) -> tuple[Matcher, ...]:
    """Return the matchers of a list in the configuration. Raises ValueError with path and mend."""
    try:
        return tuple(map(parse_matcher, texts))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def all_match(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    return all(matcher.matches(labels) for matcher in matchers)


def _unescape(match: "re.Match[str]") -> str:
    """Quotes, backslashes and line ends are unescaped; any other escape belongs to the regular expression."""
    return {"\\": "\\", '"': '"', "n": "\n"}.get(match[1], match[0])


class Timing(Struct, frozen=True, kw_only=True):
    """What a route says of when: seconds. `group_by` None: by rule; "..." among it: each alert for itself."""

    group_by: tuple[str, ...] | None = None
    wait_s: float = 0.0
    interval_s: float = 0.0
    repeat_s: float = REPEAT_S

    def group_of(self, path: str, labels: Mapping[str, str], alone: str) -> tuple[str, dict[str, str]]:
        """Return the name and the common labels of the group that an alert belongs to; `alone` names it for itself."""
        if self.group_by is None:
            name = labels.get("alertname", "")
            return name, {"alertname": name}
        if EACH in self.group_by:
            return f"{path}/{alone}", dict(labels)
        common = {name: labels[name] for name in sorted(self.group_by) if name in labels}
        return f"{path}{json.dumps(common, ensure_ascii=False, separators=(',', ':'))}", common


AT_ONCE: Final = Timing()


class Route(Struct, frozen=True, kw_only=True):
    """One node of the tree; `path` is where it stands, such as `route.routes[1]`.

    It is silent within the time intervals `mute`, and outside of all that `active` names, if it names any.
    """

    path: str
    receiver: str
    matchers: tuple[Matcher, ...] = ()
    go_on: bool = False
    timing: Timing = AT_ONCE
    mute: tuple[str, ...] = ()
    active: tuple[str, ...] = ()
    routes: tuple["Route", ...] = ()


def compile_route(table: RouteTable, path: str = ROOT, inherited: str = "", timing: Timing = AT_ONCE) -> Route:
    """Return the tree of a `[route]` table; receivers and times are inherited, as in Alertmanager, time intervals are not.

    Raises ValueError with path and mend.
    """
    matchers = parse_matchers(table.matchers, f"{path}.matchers")
    receiver = table.receiver or inherited
    timing = Timing(
        group_by=timing.group_by if table.group_by is None else table.group_by,
        wait_s=timing.wait_s if table.group_wait is None else float(table.group_wait),
        interval_s=timing.interval_s if table.group_interval is None else float(table.group_interval),
        repeat_s=timing.repeat_s if table.repeat_interval is None else float(table.repeat_interval),
    )
    return Route(
        path=path,
        receiver=receiver,
        matchers=matchers,
        go_on=table.continue_,
        timing=timing,
        mute=table.mute_time_intervals,
        active=table.active_time_intervals,
        routes=tuple(
            compile_route(child, f"{path}.routes[{index}]", receiver, timing)
            for index, child in enumerate(table.routes)
        ),
    )


def matching(route: Route, labels: Mapping[str, str]) -> list[Route]:
    """Return the routes that labels end at: the deepest that match, in order, more than one after a `continue`."""
    if not all_match(route.matchers, labels):
        return []
    found: list[Route] = []
    for child in route.routes:
        below = matching(child, labels)
        found += below
        if below and not child.go_on:
            break
    return found or [route]


class Rotation(Protocol):
    """Receivers who are on call by turns; its name stands wherever a receiver's does."""

    @property
    def members(self) -> tuple[str, ...]: ...

    def on_call(self, at: float) -> str:
        """Return the receiver whose turn it is."""
        ...

    def until(self, at: float) -> float:
        """Return the earliest later time at which it may be another one's turn."""
        ...


class Routed(Struct, frozen=True):
    """A target and the route that names it; `rotation` is the name that stood for the receiver, "" if its own did.

    `channel` is its kind. Within the time intervals `quiet` it is used for critical only.
    """

    target: Target
    route: Route
    quiet: tuple[str, ...] = ()
    rotation: str = ""
    channel: str = ""

    @property
    def path(self) -> str:
        return self.route.path


class Routing(Struct, frozen=True):
    """The tree, the receivers, the severities' channels, and the rotations that stand for receivers."""

    route: Route
    receivers: Mapping[str, Mapping[str, Channel]]
    severities: Mapping[Severity, SeverityTable]
    rotations: Mapping[str, Rotation] = {}

    def targets(self, labels: Mapping[str, str], severity: Severity, at: float) -> list[Routed]:
        """Return the targets that the routes of these labels name at a time, each once, with the first that names it."""
        found: dict[Target, Routed] = {}
        for route in matching(self.route, labels):
            for routed in self.of_receiver(route.receiver, severity, at, route):
                found.setdefault(routed.target, routed)
        return list(found.values())

    def nobody(self, labels: Mapping[str, str], severity: Severity) -> str:
        """Return why `targets` is empty."""
        receivers = [route.receiver for route in matching(self.route, labels) if route.receiver]
        if not receivers:
            return "no receiver: no route names one"
        names = ", ".join(dict.fromkeys(receivers))
        return f"no receiver: {names} has no channel that severity {severity} uses"

    def of_receiver(self, receiver: str, severity: Severity, at: float, route: Route) -> list[Routed]:
        """Return the targets of a receiver's channels that a severity uses; of a rotation, those of who is on call then."""
        used = self.severities[severity].channels if severity in self.severities else ()
        rotation = self.rotations.get(receiver)
        found = self.channels_of(receiver if rotation is None else rotation.on_call(at), route)
        by_turns = "" if rotation is None else receiver
        return [replace(one, rotation=by_turns) for one in found if not used or one.channel in used]

    def channels_of(self, receiver: str, route: Route) -> list[Routed]:
        """Return all targets of a receiver that is no rotation, whatever a severity uses, in the order of its channels."""
        return [
            Routed(Target(receiver, channel.via, address), route, channel.quiet_hours, "", kind)
            for kind, channel in self.receivers.get(receiver, {}).items()
            for address in channel.to
        ]

    def all_of(self, receiver: str) -> list[Target]:
        """Return the targets of all of a receiver's channels."""
        return [
            Target(receiver, channel.via, address)
            for channel in self.receivers.get(receiver, {}).values()
            for address in channel.to
        ]

    def inherits(self, heir: Routed, target: Target) -> bool:
        """Tell whether a target took over from another one: the same rotation's, whose turn it is no longer."""
        rotation = self.rotations.get(heir.rotation)
        return rotation is not None and heir.target.receiver != target.receiver and target.receiver in rotation.members
