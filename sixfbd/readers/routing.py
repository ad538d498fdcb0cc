"""Who would be told of an alert with given labels, when, and what keeps them from it: the tree's answer without an alert."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from sixfbd.alerting.escalation import next_step
from sixfbd.alerting.holds import Held
from sixfbd.alerting.policy import Policy
from sixfbd.alerting.routes import Rotation, all_match, matching, parse_matcher
from sixfbd.control.engine import EscalationView, OnCallView, RouteTestView, RouteView
from sixfbd.journal.state import State
from sixfbd.model import Alert, AlertKey, AlertState, Rule, RuleName, Severity, labels_of
from sixfbd.readers.addresses import Addresses

MOST_HAND_OVERS = 100  # looked at for one that changes who is on call


def route_of(policy: Policy, state: State, labels: Mapping[str, str], at: float, addresses: Addresses) -> RouteTestView:
    """Return who would be told of an alert with these labels that began to fire at `at`; addresses as they may be shown.

    What a known rule adds to the labels is added; of its severities the worst is taken unless the labels name one.
    Raises ValueError if `severity` is none.
    """
    rule = policy.rules.get(RuleName(labels.get("alertname", "")))
    severity = severity_of(labels, rule)
    full = {**labels, **({} if rule is None else rule.labels), "severity": severity.value}
    alert = _alert(full, severity, at)
    held = Held(state, policy.calendar, policy.routing, policy.inhibitions, at, policy.children).holds_of(alert)
    views: list[RouteView] = []
    for route in matching(policy.routing.route, full):
        group, _ = route.timing.group_of(route.path, full, alert.id)
        named = policy.routing.of_receiver(route.receiver, severity, at, route)
        kept = [why for one in named if (why := policy.calendar.kept(one, severity, at))]
        views.append(
            RouteView(
                path=route.path,
                matchers=tuple(str(matcher) for matcher in route.matchers),
                receiver=route.receiver,
                targets=tuple(addresses.target(one.target) for one in named),
                muted=policy.calendar.muted(route, at) or "; ".join(dict.fromkeys(kept)),
                group=group,
                wait_s=route.timing.wait_s,
                interval_s=route.timing.interval_s,
                repeat_s=route.timing.repeat_s,
            )
        )
    return RouteTestView(
        labels=dict(sorted(full.items())),
        severity=severity,
        known_rule=rule is not None,
        routes=tuple(views),
        holds=tuple(map(str, held)),
        escalations=tuple(_steps(policy, alert)),
        nobody="" if any(view.targets for view in views) else policy.routing.nobody(full, severity),
    )


def on_call_view(name: str, rotation: Rotation, at: float) -> OnCallView:
    """Return whose turn it is at a time, and the next other one's; members of the same name follow one another unseen."""
    member = rotation.on_call(at)
    until = rotation.until(at)
    for _ in range(MOST_HAND_OVERS):
        if rotation.on_call(until) != member:
            break
        until = rotation.until(until)
    return OnCallView(
        name=name,
        at=at,
        member=member,
        until=until,
        next_member=rotation.on_call(until),
        members=tuple(dict.fromkeys(rotation.members)),
    )


def matched(state: State, matchers: Iterable[str]) -> list[Alert]:
    """Return the pending and firing alerts that all matchers match, worst first. Raises ValueError for a bad matcher."""
    parsed = [parse_matcher(text) for text in matchers]
    found = (alert for alert in state.alerts.values() if all_match(parsed, alert.labels))
    return sorted(found, key=lambda alert: (-alert.severity.rank, alert.since, alert.id))


def severity_of(labels: Mapping[str, str], rule: Rule | None) -> Severity:
    """Return the severity that the labels name, else the worst that the rule has, else medium."""
    if (word := labels.get("severity")) is not None:
        if word not in list(Severity):
            raise ValueError(f"severity is {word!r}; write {', '.join(Severity)}")
        return Severity(word)
    known = (
        [] if rule is None else [*([rule.severity] if rule.severity else []), *(one.severity for one in rule.levels)]
    )
    return max(known, key=lambda one: one.rank, default=Severity.MEDIUM)


def _alert(labels: Mapping[str, str], severity: Severity, at: float) -> Alert:
    key = AlertKey(RuleName(labels.get("alertname", "")), labels_of(labels))
    return Alert(
        key=key, id="test", state=AlertState.FIRING, since=at, severity=severity, value=0.0, labels=dict(labels),
        fired_at=at, severity_at=at,
    )  # fmt: skip


def _steps(policy: Policy, alert: Alert) -> Iterable[EscalationView]:
    """Every step that it would take, one after the other, if nobody acknowledged it."""
    while (due := next_step(policy.escalations, alert)) is not None:
        at, step = due
        yield EscalationView(step.name, at - alert.since, step.receiver)
        alert = replace(alert, escalated=(*alert.escalated, step.name))
