"""What a transition or a notice owes, and to whom: owed = wanted − told. Pure; the account of DESIGN promise 2.

For every transition and every target that its routes name there is one obligation; who was told that an alert fires is
owed its end, whatever the routes say by then. A route that names nobody leaves one suppressed obligation that says so.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import Final, Literal

from msgspec.structs import replace

from sixfbd.alerting.identity import obligation_id
from sixfbd.alerting.policy import Policy
from sixfbd.alerting.routes import Route, Routed, Routing
from sixfbd.journal.state import NOTICE_GROUP, State
from sixfbd.model import Alert, Notice, Obligation, ObligationKind, Severity, StoredEvent, Target
from sixfbd.privacy import is_personal

NOBODY: Final = Target("", "")
EVIDENCE_CARRIED: Final = 3  # samples that an obligation keeps for its message; the transition keeps all
MAX_NOTICE_TEXT: Final = 500  # characters
MAX_NOTICE_VALUES: Final = 20  # of an event's data that an obligation keeps for its message, and of its labels
MAX_NOTICE_VALUE: Final = 200  # characters

Transition = Literal["fire", "level", "resolve"]


def owe(state: State, policy: Policy, alert: Alert, transition: Transition, at: float) -> list[Obligation]:
    """Return the obligations of one transition of an alert, pending ones first; `state` is the one before it or after it."""
    routed = {routed.target: routed for routed in policy.routing.targets(alert.labels, alert.severity, at)}
    if transition != "resolve":
        routed |= {one.target: one for one in _beside_what_is_broken(policy, alert, routed.values(), at)}
    targets: dict[Target, Routed | None] = dict(routed)
    if transition == "resolve":
        for target in (
            *sorted(state.told.get(alert.id) or ()),
            *(one.target for one in state.open_obligations(alert.id)),
        ):
            targets.setdefault(target)
    if not targets:
        reason = policy.routing.nobody(alert.labels, alert.severity)
        return [replace(alerting(alert, transition, NOBODY, at), state="suppressed", reason=reason)]
    owed: list[Obligation] = []
    for target, way in targets.items():
        one = alerting(alert, _kind(state, alert, transition, target), target, at)
        one = _timed(state, one, policy.routing.route if way is None else way.route)
        owed.append(one if way is None or transition == "resolve" else _unless_kept(policy, one, way))
    return sorted(owed, key=lambda one: one.state != "pending")


def _beside_what_is_broken(policy: Policy, alert: Alert, named: Iterable[Routed], at: float) -> list[Routed]:
    """Return the next channel of each receiver that would be told of a broken service by that service alone."""
    service = alert.labels.get("service", "")
    of_receiver: dict[str, list[Routed]] = {}
    for one in named:
        of_receiver.setdefault(one.target.receiver, []).append(one)
    found: list[Routed] = []
    for receiver, ways in of_receiver.items():
        if service and all(one.channel == service for one in ways):
            found += _next_channel(policy, alert, receiver, ways[0].route, {one.target for one in ways}, "", at)
    return found


def owe_next_channel(
    state: State, policy: Policy, alert: Alert, missed: Obligation, why: str, at: float
) -> list[Obligation]:
    """Return what the next channel of a receiver is owed in place of what has not arrived there.

    Nothing if no channel is left that was not told; or if another one has told the receiver, unless it is critical.
    """
    target = missed.target
    informed = {one for one in state.told.get(alert.id) or () if one.receiver == target.receiver}
    waiting = {one.target for one in state.open_obligations(alert.id)}
    if alert.severity is not Severity.CRITICAL and informed - {target}:
        return []
    route = _at_once(policy)
    tried = {one.channel for one in policy.routing.channels_of(target.receiver, route) if one.target == target}
    tried |= set(missed.tried)
    ways = _next_channel(policy, alert, target.receiver, route, informed | waiting, target.notifier, at, tried)
    owed = (_timed(state, alerting(alert, "fire", one.target, at, missed.id), one.route) for one in ways)
    return [replace(one, passed_on=why, tried=tuple(sorted(tried))) for one in owed]


def _next_channel(
    policy: Policy,
    alert: Alert,
    receiver: str,
    route: Route,
    known: Collection[Target],
    broken: str,
    at: float,
    tried: Collection[str] = (),
) -> list[Routed]:
    """Return the targets of a receiver's first channel that was not tried, of which none is known, and that is neither
    broken nor quiet."""
    ways: dict[str, list[Routed]] = {}
    for one in policy.routing.channels_of(receiver, route):
        ways.setdefault(one.channel, []).append(one)
    used = {one.channel for found in ways.values() for one in found if one.target in known}
    for channel, found in ways.items():
        fit = [
            one for one in found if one.target.notifier != broken and not policy.calendar.kept(one, alert.severity, at)
        ]
        if fit and channel not in used and channel not in tried and channel != alert.labels.get("service"):
            return fit
    return []


def owe_again(
    state: State, policy: Policy, alert: Alert, kind: ObligationKind, instead_of: Mapping[Target, str], at: float
) -> list[Obligation]:
    """Return what is owed anew, as things are now, to those of the targets that are named now and not kept from it.

    `instead_of` gives for each target the obligation that a hold suppressed, "" if there is none. Who has taken over from
    such a target since, and was told nothing yet, is owed that it fires.
    """
    named = policy.routing.targets(alert.labels, alert.severity, at)
    if kind != "repeat":
        known = {one.target for one in named}
        named += [one for one in _named_by_steps(policy, alert, at) if one.target not in known]
    lost = instead_of.keys() - {one.target for one in named}
    owed: list[Obligation] = []
    for one in named:
        before = instead_of.get(one.target)
        told_as = kind
        if before is None:
            before = next((instead_of[target] for target in sorted(lost) if policy.routing.inherits(one, target)), None)
            told_as = "fire"
            if before is None or _is_known(state, alert, one.target):
                continue
        if not policy.calendar.kept(one, alert.severity, at):
            owed.append(_timed(state, alerting(alert, told_as, one.target, at, before), one.route))
    return owed


def owe_newly_named(state: State, before: Routing, policy: Policy, alert: Alert, at: float) -> list[Obligation]:
    """Return what is owed to whom the routes name of a firing alert, of receivers that they did not name before, and who
    knows nothing of it; suppressed while a hold or the calendar keeps it back, so that its end tells them.

    Another channel of somebody who was named is none: a reload is no reason to be told again.
    """
    old = {one.target.receiver for one in before.targets(alert.labels, alert.severity, at)}
    withheld = state.withheld.get(alert.id) or {}
    holds = "; ".join(map(str, alert.held))
    owed: list[Obligation] = []
    for one in policy.routing.targets(alert.labels, alert.severity, at):
        if one.target.receiver in old or one.target in withheld or _is_known(state, alert, one.target):
            continue
        made = _unless_kept(policy, _timed(state, alerting(alert, "fire", one.target, at), one.route), one)
        owed.append(replace(made, state="suppressed", reason=holds, held=True) if holds else made)
    return owed


def _is_known(state: State, alert: Alert, target: Target) -> bool:
    """Tell whether a target was told of an incident, or is about to be."""
    waiting = any(one.target == target for one in state.open_obligations(alert.id))
    return waiting or state.told_by(alert.id, target) is not None


def owe_step(state: State, policy: Policy, alert: Alert, receiver: str, at: float) -> list[Obligation]:
    """Return what a step of an escalation owes the channels of a receiver; nobody to tell is said as for a transition."""
    named = policy.routing.of_receiver(receiver, alert.severity, at, _at_once(policy))
    if not named:
        reason = f"no receiver: {receiver} has no channel that severity {alert.severity} uses"
        return [replace(alerting(alert, "escalate", NOBODY, at), state="suppressed", reason=reason)]
    owed = ((_timed(state, alerting(alert, "escalate", one.target, at), one.route), one) for one in named)
    return [_unless_kept(policy, made, way) for made, way in owed]


def _unless_kept(policy: Policy, owed: Obligation, way: Routed) -> Obligation:
    """Return what is owed by a way, suppressed if the calendar keeps its target from it for now."""
    kept = policy.calendar.kept(way, owed.severity, owed.at)
    return replace(owed, state="suppressed", reason=kept, held=True) if kept else owed


def kept_from(policy: Policy, alert: Alert, at: float) -> dict[Target, str]:
    """Return whom the calendar keeps from a firing alert at a time, of those who are named then, each with the reason."""
    if not policy.calendar.intervals:
        return {}
    steps = {way.target: way for way in _named_by_steps(policy, alert, at)}
    ways = steps | {way.target: way for way in policy.routing.targets(alert.labels, alert.severity, at)}
    kept = ((target, policy.calendar.kept(way, alert.severity, at)) for target, way in ways.items())
    return {target: why for target, why in kept if why}


def _named_by_steps(policy: Policy, alert: Alert, at: float) -> list[Routed]:
    """Return whom the steps that an incident has taken name now."""
    route = _at_once(policy)
    receivers = {step.receiver for one in policy.escalations for step in one.steps if step.name in alert.escalated}
    return [one for name in sorted(receivers) for one in policy.routing.of_receiver(name, alert.severity, at, route)]


def _at_once(policy: Policy) -> Route:
    root = policy.routing.route
    return replace(root, timing=replace(root.timing, wait_s=0.0, interval_s=0.0), mute=(), active=())


def owe_notice(policy: Policy, stored: StoredEvent, at: float) -> list[Obligation]:
    """Return the obligations of one event that carries a notice. Its labels for routes: notice, type, source, severity, and
    those that its type adds to them.

    What is suppressed by the event itself is owed to nobody, for the reason that it gives.
    """
    severity = policy.notice_severities.get(stored.event.type, Severity.LOW)
    words, further = policy.notice_of(stored)
    notice, text = as_notice(policy.notices[stored.event.type], stored, words, further, severity)
    labels = notice.labels
    named = policy.routing.targets(labels, severity, at)
    subject = f"{stored.source}/{stored.event.id}"

    def owed(target: Target) -> Obligation:
        return Obligation(
            id=obligation_id(subject, "notice", target, severity, at),
            kind="notice",
            target=target,
            state="pending",
            at=at,
            subject=subject,
            severity=severity,
            notice=notice,
            text=text,
            changed_at=at,
        )

    suppressed = stored.event.data.get("suppressed")
    if suppressed and isinstance(suppressed, str):
        reason = suppressed[:MAX_NOTICE_TEXT]
        targets = [one.target for one in named] or [NOBODY]
        return [replace(owed(target), state="suppressed", reason=reason) for target in targets]
    if named:
        kept = [(owed(one.target), policy.calendar.kept(one, severity, at)) for one in named]
        return [replace(one, state="suppressed", reason=why) if why else one for one, why in kept]
    return [replace(owed(NOBODY), state="suppressed", reason=policy.routing.nobody(labels, severity))]


def group_of(obligation: Obligation) -> str:
    """Obligations of one group may share a message: that of the route, or the notice's."""
    if obligation.about is not None:
        return obligation.group
    return f"{NOTICE_GROUP}{obligation.text.partition(':')[0] if obligation.notice is None else obligation.notice.name}"


def _timed(state: State, obligation: Obligation, route: Route) -> Obligation:
    """The obligation with its group, and when that may be told.

    A group that is new waits for more of it; one that was told of waits until its interval has passed; one that waits
    already is joined. What a hold kept back has waited meanwhile. Alertmanager's groups are told at the ends of their
    intervals only: here a group that was quiet for longer is told at once.
    """
    alert, timing = obligation.about, route.timing
    assert alert is not None
    group, labels = timing.group_of(route.path, alert.labels, alert.id)
    made = replace(
        obligation,
        group=group,
        group_labels=labels,
        interval_s=timing.interval_s,
        repeat_s=timing.repeat_s if not alert.once else 0.0,
    )
    if not (timing.wait_s or timing.interval_s):
        return made
    key = (obligation.target, group)
    waits_until, flushed = state.group_waits.get(key), state.flushed.get(key)
    if waits_until is not None and waits_until > obligation.at:
        return replace(made, not_before=waits_until)
    if flushed is not None:
        return replace(made, not_before=max(obligation.at, flushed + timing.interval_s))
    since = obligation.at if alert.severity_at is None else min(alert.severity_at, obligation.at)
    return replace(made, not_before=max(obligation.at, since + timing.wait_s))


def _kind(state: State, alert: Alert, transition: Transition, target: Target) -> ObligationKind:
    """Who knows nothing of an incident yet is owed that it fires, not that its level changed."""
    if transition == "level" and not state.told_by(alert.id, target):
        known = any(open_.target == target and open_.state != "pending" for open_ in state.open_obligations(alert.id))
        return "level" if known else "fire"
    return transition


def alerting(alert: Alert, kind: ObligationKind, target: Target, at: float, instead_of: str = "") -> Obligation:
    """Return what an alert as it is now owes a target, pending and in no group yet."""
    about = replace(alert, evidence=alert.evidence[:EVIDENCE_CARRIED])
    return Obligation(
        id=obligation_id(about.id, kind, target, about.severity, at, instead_of),
        kind=kind,
        target=target,
        state="pending",
        at=at,
        subject=about.id,
        severity=about.severity,
        about=about,
        changed_at=at,
    )


def as_notice(
    name: str, stored: StoredEvent, words: str, further: Mapping[str, str], severity: Severity
) -> tuple[Notice, str]:
    """Return what an obligation keeps of an event that carries a notice, and its line: the event's type's `words`, or its
    data. `further` are labels of its type."""
    event = stored.event
    own = {"notice": name, "type": event.type, "source": stored.source, "severity": severity.value}
    labels = {label: value[:MAX_NOTICE_VALUE] for label, value in islice(further.items(), MAX_NOTICE_VALUES) if value}
    plain = (
        (key, value)
        for key, value in event.data.items()
        if (isinstance(value, str | float) or _is_small(value)) and not is_personal(key)
    )
    data = {
        key: value[:MAX_NOTICE_VALUE] if isinstance(value, str) else value
        for key, value in islice(plain, MAX_NOTICE_VALUES)
    }
    notice = Notice(
        name=name, type=event.type, source=stored.source, at=event.timestamp, labels=labels | own, data=data
    )
    text = words or f"{name}: {', '.join(f'{key}={value}' for key, value in data.items()) or event.type}"
    return notice, text if len(text) <= MAX_NOTICE_TEXT else text[: MAX_NOTICE_TEXT - 1] + "…"


def _is_small(value: object) -> bool:
    """Tell whether it is a whole number, or a truth, that every reader of JSON can hold."""
    return isinstance(value, int) and abs(value) < 2**53
