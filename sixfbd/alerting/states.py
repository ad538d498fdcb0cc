"""The life of one alert as pure functions: inactive → pending → firing → resolved. The caller passes the time.

Returns what changes as records; whoever applies them owes what the transition owes. An evaluation that failed is never
brought here: it says nothing, so that nothing changes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from msgspec.structs import replace

from sixfbd.alerting.identity import incident_id
from sixfbd.alerting.policy import Policy
from sixfbd.alerting.routes import all_match, parse_matcher
from sixfbd.journal.records import AlertChanged
from sixfbd.model import Alert, AlertKey, AlertState, Found, Rule, Severity

Change: TypeAlias = AlertChanged | None
ENDED: Final = "ended"  # a describing label: why what is found is over


def seen(
    policy: Policy, rule: Rule, alert: Alert | None, found: Found, at: float, changes: Sequence[float] = ()
) -> Change:
    """The expression returned this label set. A value below every level counts as not there (but is known), and one that
    is described as ended is over. `changes`: when it came and went lately.
    """
    if reason := dict(found.describing).get(ENDED):
        return None if alert is None else withdraw(alert, at, reason)
    severity = severity_of(policy, rule, alert, found)
    if severity is None:
        return None if alert is None else absent(policy, rule, alert, at, changes, found=found)
    if alert is None:
        return _begin(policy, rule, found, severity, at)
    if alert.state is AlertState.PENDING:
        return _still_pending(policy, rule, alert, found, severity, at)
    return _still_firing(policy, rule, alert, found, severity, at, changes)


def absent(
    policy: Policy,
    rule: Rule,
    alert: Alert,
    at: float,
    changes: Sequence[float] = (),
    *,
    blind: bool = False,
    found: Found | None = None,
) -> Change:
    """The expression did not return the alert's label set; `blind`: a check that feeds it is not reporting.

    Blind, it stays as it is and says so (DESIGN promise 5, warm-up). `found` is a value that is within bounds again,
    `changes` when it came and went lately: what flaps is kept firing until it has settled.
    """
    if blind:
        return (
            None
            if alert.blind
            else _marked(alert, at, "a check that feeds it is not reporting", blind=True, due_at=None)
        )
    if alert.state is AlertState.PENDING:
        return AlertChanged(
            at, replace(alert, state=AlertState.INACTIVE, since=at, due_at=None, blind=False), alert.state
        )
    since = at if alert.absent_since is None else alert.absent_since
    known = (*changes, at) if alert.absent_since is None else changes
    flaps = policy.flapping.is_flapping(known, at, already=alert.flapping)
    end = max(since + rule.keep_firing_for_s, policy.flapping.settles_at(known, at) if flaps else at)
    if at >= end:
        return resolve(policy, rule, alert, at, found=found)
    marked = replace(alert, absent_since=since, due_at=end, blind=False, flapping=flaps)
    return None if marked == alert else AlertChanged(at, marked, alert.state, "flaps" if flaps else "kept firing")


def timed(policy: Policy, rule: Rule, alert: Alert, found: Found | None, at: float) -> Change:
    """The alert's timer ended: `for` is over, `keep_firing_for` is, or it has settled. `found` is the latest known of it."""
    if alert.state is AlertState.FIRING and alert.absent_since is None:
        return _marked(alert, at, "has settled", flapping=False, due_at=None)
    if alert.state is AlertState.FIRING:
        return resolve(policy, rule, alert, at)
    severity = alert.severity if found is None else severity_of(policy, rule, alert, found) or alert.severity
    return _fire(policy, rule, alert, found, severity, at)


def resolve(
    policy: Policy, rule: Rule, alert: Alert, at: float, *, found: Found | None = None, reason: str = ""
) -> AlertChanged:
    """A firing alert ends."""
    ended = replace(
        alert, state=AlertState.RESOLVED, since=at, resolved_at=at, due_at=None, absent_since=None, blind=False,
        reason=reason,
    )  # fmt: skip
    if found is not None:
        value = shown(found.value)
        ended = replace(ended, value=value, value_at_end=value, evidence=found.evidence)
    return AlertChanged(at, ended, alert.state, reason)


def withdraw(alert: Alert, at: float, reason: str) -> AlertChanged:
    """There is nothing to fire for any more, as when the alert's rule is gone: what fires resolves, what is pending never was."""
    state = AlertState.RESOLVED if alert.state is AlertState.FIRING else AlertState.INACTIVE
    resolved_at = at if state is AlertState.RESOLVED else None
    ended = replace(
        alert, state=state, since=at, resolved_at=resolved_at, due_at=None, absent_since=None, blind=False,
        reason=reason,
    )  # fmt: skip
    return AlertChanged(at, ended, alert.state, reason)


def retimed(rule: Rule, alert: Alert, at: float) -> Change:
    """The rule's durations may have changed: the alert's timer is set anew. A blind alert has none."""
    if alert.due_at is None or alert.flapping:
        return None
    if alert.state is AlertState.PENDING:
        due_at = (alert.pending_at or alert.since) + rule.for_s
    else:
        due_at = (alert.absent_since or at) + rule.keep_firing_for_s
    return None if due_at == alert.due_at else _marked(alert, at, "the rule's durations changed", due_at=due_at)


def unconfirmed(alert: Alert, at: float, why: str) -> Change:
    """The daemon has started, or the rule says something else now: no timer runs on until it has been evaluated once.

    What began later than now did so by a clock that was set back since: it begins now.
    """
    marks: dict[str, object] = {} if alert.due_at is None else {"due_at": None, "blind": True}
    if alert.state is AlertState.PENDING and alert.pending_at is not None and alert.pending_at > at:
        marks["pending_at"] = at
    if alert.absent_since is not None and alert.absent_since > at:
        marks["absent_since"] = at
    return _marked(alert, at, why, **marks) if marks else None


def unseen(alert: Alert, since: float, until: float) -> Change:
    """Nobody watched from `since` to `until`: its timers are longer by that, and run on when it has been evaluated."""
    if alert.due_at is None:
        return None
    gap_s = until - since
    absent_since = None if alert.absent_since is None else alert.absent_since + gap_s
    pending_at = (alert.pending_at or alert.since) + gap_s if alert.state is AlertState.PENDING else alert.pending_at
    marks = {"due_at": None, "blind": True, "absent_since": absent_since, "pending_at": pending_at}
    return _marked(alert, max(until, alert.since), f"the daemon stood still for {gap_s:.0f} s", **marks)


def severity_of(policy: Policy, rule: Rule, alert: Alert | None, found: Found) -> Severity | None:
    if not rule.levels:
        return rule.severity or found.severity or Severity.MEDIUM
    return policy.level_of(rule, found.value, None if alert is None else alert.severity)


def feeders_blind(alert: Alert, blind_checks: Iterable[str]) -> bool:
    """Tell whether a check that feeds the alert is among the blind ones; one whose checks are unknown is fed by all."""
    blind = list(blind_checks)
    return bool(blind) if not alert.checks else any(check in blind for check in alert.checks)


def told_once(rule: Rule, found: Found) -> bool:
    """Tell whether the rule wants that what was found is neither repeated nor escalated."""
    labels = {**dict(found.labels), **dict(found.describing)}
    return bool(rule.once) and all_match(map(parse_matcher, rule.once), labels)


def shown(value: float) -> float | str:
    """A value as JSON can hold it: NaN and infinities as text, as Prometheus writes them."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


# ---- one step each -----------------------------------------------------------------------------------------------------


def _begin(policy: Policy, rule: Rule, found: Found, severity: Severity, at: float) -> AlertChanged:
    key = AlertKey(rule.name, found.labels)
    begun = Alert(
        key=key,
        id=incident_id(key, at),
        state=AlertState.PENDING,
        since=at,
        severity=severity,
        value=shown(found.value),
        labels=full_labels(rule, key, severity),
        pending_at=at,
    )
    if rule.for_s <= 0:
        return replace(_fire(policy, rule, begun, found, severity, at), previous=AlertState.INACTIVE)
    pending = replace(_informed(policy, rule, begun, found, severity, at), due_at=at + rule.for_s)
    return AlertChanged(at, pending, AlertState.INACTIVE)


def _still_pending(policy: Policy, rule: Rule, alert: Alert, found: Found, severity: Severity, at: float) -> Change:
    due_at = (alert.pending_at or alert.since) + rule.for_s
    if at >= due_at:
        return _fire(policy, rule, alert, found, severity, at)
    if alert.blind or severity is not alert.severity:
        informed = _informed(policy, rule, alert, found, severity, at)
        return _marked(informed, at, "seen again" if alert.blind else "severity changed", blind=False, due_at=due_at)
    return None


def _still_firing(
    policy: Policy, rule: Rule, alert: Alert, found: Found, severity: Severity, at: float, changes: Sequence[float]
) -> Change:
    due_at = policy.flapping.settles_at(changes, at) if alert.flapping else None
    if severity is not alert.severity:
        informed = _informed(policy, rule, alert, found, severity, at)
        return _marked(informed, at, f"{alert.severity} → {severity}", blind=False, absent_since=None, due_at=due_at)
    if alert.blind or alert.absent_since is not None:
        return _marked(alert, at, "seen again", blind=False, absent_since=None, due_at=due_at)
    return None


def _fire(policy: Policy, rule: Rule, alert: Alert, found: Found | None, severity: Severity, at: float) -> AlertChanged:
    if found is not None:
        alert = _informed(policy, rule, alert, found, severity, at)
    firing = replace(alert, state=AlertState.FIRING, since=at, fired_at=at, severity_at=at, due_at=None, blind=False)
    return AlertChanged(at, firing, AlertState.PENDING)


def _informed(policy: Policy, rule: Rule, alert: Alert, found: Found, severity: Severity, at: float) -> Alert:
    """The alert with what was found now: value, evidence, annotations, severity."""
    return replace(
        alert,
        severity=severity,
        severity_at=alert.severity_at if severity is alert.severity else at,
        once=told_once(rule, found),
        value=shown(found.value),
        labels=full_labels(rule, alert.key, severity),
        annotations=dict(policy.annotate(rule, found)),
        evidence=found.evidence,
        checks=found.checks,
    )


def _marked(alert: Alert, at: float, why: str, **marks: object) -> AlertChanged:
    """A change within the alert's state."""
    return AlertChanged(at, replace(alert, **marks), alert.state, why)


def full_labels(rule: Rule, key: AlertKey, severity: Severity) -> dict[str, str]:
    """Labels as routes, receivers and people see them; the rule's own win over the series', name and severity over all."""
    return {**dict(key.labels), **rule.labels, "alertname": rule.name, "severity": severity.value}
