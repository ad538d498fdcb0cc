"""Who is told: Alertmanager's tree of routes, then receivers, then the channels that a severity uses. Pure.

Semantics of the tree: https://prometheus.io/docs/alerting/latest/configuration/#route. A matcher is
`name="value"` with `=`, `!=`, `=~` or `!~`; a label that is missing has the value "". Regular expressions are RE2's
and match whole values.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import re2
from msgspec import Struct

from sixfbd.config.tables import Channel, RouteTable, SeverityTable
from sixfbd.model import Severity, Target

_MATCHER: Final = re.compile(r"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*(.*?)\s*", re.DOTALL)
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
ROOT: Final = "route"
_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # RE2 would write to stderr what we raise


class Matcher(Struct, frozen=True):
    """One condition on one label. `pattern` is the compiled expression of `=~` and `!~`, else None."""

    name: str
    op: str
    value: str
    pattern: Any = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.name, "")
        if self.pattern is None:
            return (value == self.value) == (self.op == "=")
        return (self.pattern.fullmatch(value) is not None) == (self.op == "=~")


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


def _unescape(match: "re.Match[str]") -> str:
    """Quotes, backslashes and line ends are unescaped; any other escape belongs to the regular expression."""
    return {"\\": "\\", '"': '"', "n": "\n"}.get(match[1], match[0])


class Route(Struct, frozen=True, kw_only=True):
    """One node of the tree; `path` is where it stands, such as `route.routes[1]`."""

    path: str
    receiver: str
    matchers: tuple[Matcher, ...] = ()
    go_on: bool = False
    routes: tuple["Route", ...] = ()


def compile_route(table: RouteTable, path: str = ROOT, inherited: str = "") -> Route:
    """Return the tree of a `[route]` table, receivers inherited. Raises ValueError with path and mend."""
    try:
        matchers = tuple(parse_matcher(text) for text in table.matchers)
    except ValueError as error:
        raise ValueError(f"{path}.matchers: {error}") from None
    receiver = table.receiver or inherited
    return Route(
        path=path,
        receiver=receiver,
        matchers=matchers,
        go_on=table.continue_,
        routes=tuple(
            compile_route(child, f"{path}.routes[{index}]", receiver) for index, child in enumerate(table.routes)
        ),
    )


def matching(route: Route, labels: Mapping[str, str]) -> list[Route]:
    """Return the routes that labels end at: the deepest that match, in order, more than one after a `continue`."""
    if not all(matcher.matches(labels) for matcher in route.matchers):
        return []
    found: list[Route] = []
    for child in route.routes:
        below = matching(child, labels)
        found += below
        if below and not child.go_on:
            break
    return found or [route]


class Routed(Struct, frozen=True):
    """A target and the path of the route that names it."""

    target: Target
    path: str


class Routing(Struct, frozen=True):
    """The tree, the receivers and the severities' channels."""

    route: Route
    receivers: Mapping[str, Mapping[str, Channel]]
    severities: Mapping[Severity, SeverityTable]

    def targets(self, labels: Mapping[str, str], severity: Severity) -> list[Routed]:
        """Return the targets that the routes of these labels name, each once, with the first path that names it."""
        found: dict[Target, Routed] = {}
        for route in matching(self.route, labels):
            for target in self._of_receiver(route.receiver, severity):
                found.setdefault(target, Routed(target, route.path))
        return list(found.values())

    def nobody(self, labels: Mapping[str, str], severity: Severity) -> str:
        """Return why `targets` is empty."""
        receivers = [route.receiver for route in matching(self.route, labels) if route.receiver]
        if not receivers:
            return "no receiver: no route names one"
        names = ", ".join(dict.fromkeys(receivers))
        return f"no receiver: {names} has no channel that severity {severity} uses"

    def _of_receiver(self, receiver: str, severity: Severity) -> list[Target]:
        used = self.severities[severity].channels if severity in self.severities else ()
        return [
            Target(receiver, channel.via, address)
            for kind, channel in self.receivers.get(receiver, {}).items()
            if not used or kind in used
            for address in channel.to
        ]
