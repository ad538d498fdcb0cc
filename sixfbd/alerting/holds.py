"""What keeps people from being told of a firing alert for a while: silences, maintenance, inhibition, the calendar. Pure.

A hold leaves what somebody believes as it is: it suppresses that something is told, never that it has ended. When the
last hold of an alert ends, who was kept from knowing is told what fires by then, if it differs from what they were told.
Silences and inhibition follow Alertmanager (https://prometheus.io/docs/alerting/latest/alertmanager/), but for that.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from sixfbd.alerting.routes import Matcher, Route, Routed, Routing, all_match, parse_matcher, parse_matchers
from sixfbd.config.tables import InhibitTable
from sixfbd.journal.state import State
from sixfbd.model import Alert, AlertKey, AlertState, Hold, RuleName, Severity, Silence
from sixfbd.rules.defaults import PARENT_DOWN


class Interval(Protocol):
    """A set of times."""

    def contains(self, at: float) -> bool: ...

    def next_change(self, at: float) -> float | None:
        """Return the earliest later time at which `contains` may say something else; None: never again."""
        ...


class Maintenance(Protocol):
    """A silence that comes back by the calendar."""

    @property
    def name(self) -> str: ...

    @property
    def comment(self) -> str: ...

    @property
    def matchers(self) -> tuple[Matcher, ...]: ...

    def contains(self, at: float) -> bool: ...

    def next_change(self, at: float) -> float | None: ...


class Inhibition(Struct, frozen=True, kw_only=True):
    """One `[[inhibit]]`; `rules` are the rules whose alerts alone can be sources, None if that cannot be told."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()
    rules: tuple[RuleName, ...] | None = None

    def values(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(labels.get(name, "") for name in self.equal)


def compile_inhibitions(tables: Iterable[InhibitTable]) -> tuple[Inhibition, ...]:
    """Return the inhibitions of a configuration. Raises ValueError with path and mend."""
    return tuple(_inhibition(table, f"inhibit[{place}]") for place, table in enumerate(tables))


def _inhibition(table: InhibitTable, path: str) -> Inhibition:
    source = parse_matchers(table.source_matchers, f"{path}.source_matchers")
    named = tuple(RuleName(one.value) for one in source if one.name == "alertname" and one.op == "=")
    return Inhibition(
        source=source,
        target=parse_matchers(table.target_matchers, f"{path}.target_matchers"),
        equal=table.equal,
        rules=named or None,
    )


class Calendar(Struct, frozen=True, kw_only=True):
    """What begins and ends by the clock in one configuration."""

    intervals: Mapping[str, Interval] = {}
    maintenance: tuple[Maintenance, ...] = ()

    def muted(self, route: Route, at: float) -> str:
        """Return why a route tells nobody at a time, "" if it does."""
        for name in route.mute:
            if self.intervals[name].contains(at):
                return f"muted by {name} on {route.path}"
        if route.active and not any(self.intervals[name].contains(at) for name in route.active):
            return f"not active on {route.path}: outside of {', '.join(route.active)}"
        return ""

    def kept(self, routed: Routed, severity: Severity, at: float) -> str:
        """Return why a target is not told of what is of a severity at a time, "" if it is."""
        if severity is not Severity.CRITICAL:
            for name in routed.quiet:
                if self.intervals[name].contains(at):
                    return f"quiet hours of {routed.target.receiver}: {name}"
        return self.muted(routed.route, at)

    def next_change(self, at: float) -> float | None:
        """Return when any of it begins or ends next."""
        times = [one.next_change(at) for one in (*self.intervals.values(), *self.maintenance)]
        return min((time for time in times if time is not None), default=None)


def next_boundary(silences: Iterable[Silence], calendar: Calendar, after: float) -> float | None:
    """Return when a hold begins or ends by the clock next, later than `after`."""
    times = [time for silence in silences for time in (silence.starts_at, silence.ends_at) if time > after]
    change = calendar.next_change(after)
    return min([*times, *([] if change is None else [change])], default=None)


class Held:
    """The holds of one moment: what is silenced, in maintenance, and inhibited, asked alert by alert.

    Made anew when an alert begins or ceases to fire; what fires is looked through once for each inhibition.
    """

    def __init__(
        self,
        state: State,
        calendar: Calendar,
        routing: Routing,
        inhibitions: Iterable[Inhibition],
        at: float,
        children: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._state = state
        self._calendar = calendar
        self._routing = routing
        self._at = at
        self._down = tuple(_parents_down(state, children)) if children else ()
        self._silences = sorted(
            (one for one in state.silences.values() if one.starts_at <= at < one.ends_at), key=lambda one: one.id
        )
        self._maintenance = [one for one in calendar.maintenance if one.contains(at)]
        self._inhibitions = tuple(inhibitions)
        self._sources: dict[int, dict[tuple[str, ...], list[tuple[AlertKey, bool]]]] = {}

    def holds_of(self, alert: Alert) -> tuple[Hold, ...]:
        """Return every hold on a firing alert, in a fixed order."""
        labels = alert.labels
        found = [
            Hold("silence", one.id, _of(one.author, one.comment))
            for one in self._silences
            if all_match(map(parse_matcher, one.matchers), labels)
        ]
        found += [
            Hold("maintenance", one.name, one.comment) for one in self._maintenance if all_match(one.matchers, labels)
        ]
        checks = {labels["check"]} if "check" in labels else set(alert.checks)
        for parent, below in self._down:
            own = frozenset() if alert.key.rule == PARENT_DOWN else frozenset({parent})  # its other alerts say the same
            if checks and checks <= below | own:
                found.append(Hold("parent", parent))
        return (*found, *self._inhibited(alert), *self._muted(alert))

    def _muted(self, alert: Alert) -> Iterator[Hold]:
        """An alert is held while the calendar keeps it from everybody whom the routes name."""
        if self._calendar.intervals:
            ways = self._routing.targets(alert.labels, alert.severity, self._at)
            kept = [self._calendar.kept(way, alert.severity, self._at) for way in ways]
            if kept and all(kept):
                yield Hold("mute", "; ".join(dict.fromkeys(kept)))

    def _inhibited(self, alert: Alert) -> Iterator[Hold]:
        """An alert that is both source and target is not held by one that is both as well, itself included."""
        for place, one in enumerate(self._inhibitions):
            if not all_match(one.target, alert.labels):
                continue
            is_both = all_match(one.source, alert.labels)
            for key, source_is_both in self._sources_of(place).get(one.values(alert.labels), ()):
                if not (is_both and source_is_both):
                    yield Hold("inhibition", self._state.alerts[key].id, str(key.rule))
                    break

    def _sources_of(self, place: int) -> dict[tuple[str, ...], list[tuple[AlertKey, bool]]]:
        if place not in self._sources:
            one = self._inhibitions[place]
            found: dict[tuple[str, ...], list[tuple[AlertKey, bool]]] = {}
            for key in sorted(self._candidates(one)):
                alert = self._state.alerts[key]
                if alert.state is AlertState.FIRING and all_match(one.source, alert.labels):
                    entry = (key, all_match(one.target, alert.labels))
                    found.setdefault(one.values(alert.labels), []).append(entry)
            self._sources[place] = found
        return self._sources[place]

    def _candidates(self, one: Inhibition) -> Iterable[AlertKey]:
        if one.rules is None:
            return self._state.alerts
        return (key for rule in one.rules for key in self._state.of_rule.of(rule))


def _parents_down(state: State, children: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the checks that others depend on and that are unhealthy now, each with all that depends on it."""
    for key in sorted(state.of_rule.of(RuleName(PARENT_DOWN))):
        parent = dict(key.labels).get("check", "")
        if parent in children and state.alerts[key].state is AlertState.FIRING:
            yield parent, children[parent]


def children_of(parents: Mapping[str, Iterable[str]]) -> dict[str, frozenset[str]]:
    """Return all that depends on a check, by whatever way, from what each check depends on."""
    below: dict[str, set[str]] = {}
    for check, direct in parents.items():
        waiting, seen = list(direct), set[str]()
        while waiting:
            parent = waiting.pop()
            if parent not in seen:
                seen.add(parent)
                below.setdefault(parent, set()).add(check)
                waiting += parents.get(parent, ())
    return {parent: frozenset(found) for parent, found in below.items()}


def inhibits_by(inhibitions: Iterable[Inhibition], alert: Alert) -> list[tuple[Inhibition, tuple[str, ...]]]:
    """Return the inhibitions that an alert is a source of, each with the values that its targets must share."""
    return [(one, one.values(alert.labels)) for one in inhibitions if all_match(one.source, alert.labels)]


def _of(author: str, comment: str) -> str:
    return f"{author}: {comment}" if comment else author
