"""What a transition or a notice owes, and to whom: owed = wanted − told. Pure; the account of DESIGN promise 2.

For every transition and every target that its routes name there is one obligation; who was told that an alert fires is
owed its end, whatever the routes say by then. A route that names nobody leaves one suppressed obligation that says so.
"""

from typing import Final, Literal

from msgspec.structs import replace

from sixfbd.alerting.identity import obligation_id
from sixfbd.alerting.policy import Policy
from sixfbd.journal.state import State
from sixfbd.model import Alert, Obligation, ObligationKind, Severity, StoredEvent, Target

NOBODY: Final = Target("", "")
EVIDENCE_CARRIED: Final = 3  # samples that an obligation keeps for its message; the transition keeps all
MAX_NOTICE_TEXT: Final = 500  # characters

Transition = Literal["fire", "level", "resolve"]


def owe(state: State, policy: Policy, alert: Alert, transition: Transition, at: float) -> list[Obligation]:
    """Return the obligations of one transition of an alert, pending ones first; `state` is the one before it or after it."""
    routed = [routed.target for routed in policy.routing.targets(alert.labels, alert.severity)]
    targets = dict.fromkeys(routed)
    if transition == "resolve":
        targets.update(dict.fromkeys(sorted(state.told.get(alert.id) or ())))
        targets.update(dict.fromkeys(open_.target for open_ in state.open_obligations(alert.id)))
    about = replace(alert, evidence=alert.evidence[:EVIDENCE_CARRIED])
    if not targets:
        reason = policy.routing.nobody(alert.labels, alert.severity)
        return [replace(_alerting(about, transition, NOBODY, at), state="suppressed", reason=reason)]
    return [_alerting(about, _kind(state, alert, transition, target), target, at) for target in targets]


def owe_notice(policy: Policy, stored: StoredEvent, at: float) -> list[Obligation]:
    """Return the obligations of one event that carries a notice. Its labels for routes: notice, type, source, severity.

    What is suppressed by the event itself is owed to nobody, for the reason that it gives.
    """
    severity = policy.notice_severities.get(stored.event.type, Severity.LOW)
    notice = policy.notices[stored.event.type]
    labels = {"notice": notice, "type": stored.event.type, "source": stored.source, "severity": severity.value}
    targets = [routed.target for routed in policy.routing.targets(labels, severity)]
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
            text=_notice_text(notice, stored),
            changed_at=at,
        )

    suppressed = stored.event.data.get("suppressed")
    if suppressed and isinstance(suppressed, str):
        reason = suppressed[:MAX_NOTICE_TEXT]
        return [replace(owed(target), state="suppressed", reason=reason) for target in targets or [NOBODY]]
    if targets:
        return [owed(target) for target in targets]
    return [replace(owed(NOBODY), state="suppressed", reason=policy.routing.nobody(labels, severity))]


def group_of(obligation: Obligation) -> str:
    """Obligations of one group that arise together may share a message: the rule's name, or the notice's."""
    if obligation.about is not None:
        return obligation.about.key.rule
    return f"notice:{obligation.text.partition(':')[0]}"


def _kind(state: State, alert: Alert, transition: Transition, target: Target) -> ObligationKind:
    """Who knows nothing of an incident yet is owed that it fires, not that its level changed."""
    if transition == "level" and not state.told_by(alert.id, target):
        known = any(open_.target == target and open_.state != "pending" for open_ in state.open_obligations(alert.id))
        return "level" if known else "fire"
    return transition


def _alerting(about: Alert, kind: ObligationKind, target: Target, at: float) -> Obligation:
    return Obligation(
        id=obligation_id(about.id, kind, target, about.severity, at),
        kind=kind,
        target=target,
        state="pending",
        at=at,
        subject=about.id,
        severity=about.severity,
        about=about,
        changed_at=at,
    )


def _notice_text(notice: str, stored: StoredEvent) -> str:
    data = ", ".join(f"{name}={value}" for name, value in stored.event.data.items())
    text = f"{notice}: {data}" if data else f"{notice}: {stored.event.type}"
    return text if len(text) <= MAX_NOTICE_TEXT else text[: MAX_NOTICE_TEXT - 1] + "…"
