"""How a message reads: from the obligations that it carries to a `Notification`. Pure; channels shorten and decorate it.

Title: `[FIRING] HighMemory (high) — summary`; of several alerts the first speaks and the rest is counted. Everything in it
is of the alert as it was when the obligation arose.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from sixfbd.config.tables import DEFAULT_SEVERITIES, SeverityTable
from sixfbd.model import Alert, Message, Obligation, Severity
from sixfbd.outbox.ack_links import AckLinks
from sixfbd.plugin import Notification, NotifiedAlert
from sixfbd.quantities import show_duration, show_value

OWN_LABELS: Final = frozenset({"alertname", "severity"})  # already in the title
ALERTS_IN_TEXT: Final = 10  # of one message; the rest is counted
MAX_TITLE: Final = 300  # characters
KIND_LINES: Final[Mapping[str, str]] = {
    "level": "Severity is {severity} now",
    "repeat": "Told again: it still fires, and nobody has acknowledged it",
    "escalate": "Escalated to you: nobody has acknowledged it",
}
SAID_OF: Final[Mapping[str, str]] = {"impact": "Impact", "action": "What to do", "runbook_url": "Runbook"}
"""Annotations that a message has a line for: what it costs, what to do, where that is described."""


class Place(Struct, frozen=True):
    """Where the messages come from: in every one of them. `url` leads to the dashboard; how severities look is here too.

    `links` makes the links by which an alert is acknowledged, `thresholds` are what rules compare with, by severity.
    """

    site: str = ""
    environment: str = ""
    url: str = ""
    severities: Mapping[Severity, SeverityTable] = DEFAULT_SEVERITIES
    links: AckLinks = AckLinks(b"")
    thresholds: Mapping[str, Mapping[Severity, str]] = {}

    def threshold(self, rule: str, severity: Severity) -> str:
        """Return what a rule compares its value with, "" if that is no number."""
        return self.thresholds.get(rule, {}).get(severity, "")


def render(
    message: Message, obligations: Sequence[Obligation], place: Place, now: float, remarks: tuple[str, ...] = ()
) -> Notification:
    """Return the notification of a message; `obligations` are those that it still carries, at least one.

    `remarks` are said of the daemon itself, whatever the message is about.
    """
    shown = urgent_first(obligations)[:ALERTS_IN_TEXT] if message.digest else obligations
    alerts = tuple(_notified(one, place) for one in shown if one.about is not None)
    firing = [alert for alert in alerts if alert.status == "firing"]
    status = "firing" if firing else "resolved" if alerts else "notice"
    severity = max((one.severity for one in firing or alerts or obligations), key=lambda one: one.rank)
    title = (
        _digest_title(message, obligations, severity)
        if message.digest and alerts
        else _title(obligations, alerts, status, severity)
    )
    look = place.severities.get(severity, SeverityTable())
    return Notification(
        id=message.id,
        receiver=message.target.receiver,
        address=message.target.address,
        status=status,
        severity=severity,
        title=title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1] + "…",
        text=_text(title, message, obligations, place, now, remarks),
        alerts=alerts,
        group_key=message.group,
        group_labels=(obligations[0].group_labels or {"alertname": message.group}) if alerts else {},
        external_url=place.url,
        attempt=message.attempt,
        sent_at=now,
        possibly_repeated=message.possibly_repeated,
        remarks=remarks,
        color=look.color,
        icon=look.icon,
    )


def urgent_first(obligations: Sequence[Obligation]) -> list[Obligation]:
    """Return obligations in the order in which a message tells them: what fires first, the most severe of it before."""
    return sorted(obligations, key=lambda one: (one.kind == "resolve", -one.severity.rank))


def fingerprint(alert: Alert) -> str:
    """The alert's identity, the same over all its incidents: 16 hexadecimal digits."""
    parts = [alert.key.rule, *(part for pair in alert.key.labels for part in pair)]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _notified(obligation: Obligation, place: Place) -> NotifiedAlert:
    alert = obligation.about
    assert alert is not None
    resolved = obligation.kind == "resolve"
    return NotifiedAlert(
        id=alert.id,
        status="resolved" if resolved else "firing",
        severity=alert.severity,
        labels=alert.labels,
        annotations=alert.annotations,
        value=alert.value,
        starts_at=_since(alert),
        ends_at=alert.resolved_at if resolved else None,
        kind=obligation.kind,
        fingerprint=fingerprint(alert),
        generator_url=place.url,
        reason=alert.reason if resolved else "",
        value_at_end=alert.value_at_end if resolved else None,
        ack_url="" if resolved or alert.acked_by else place.links.url(alert.id, obligation.target.receiver),
    )


def _title(obligations: Sequence[Obligation], alerts: Sequence[NotifiedAlert], status: str, severity: Severity) -> str:
    if not alerts:
        more = len(obligations) - 1
        return f"[NOTICE] {obligations[0].text}" + (f", and {more} more" if more else "")
    these = [alert for alert in alerts if alert.status == status]
    count = f":{len(these)}" if len(these) > 1 else ""
    summary = these[0].sentence if these[0].annotations.get("summary") else these[0].ending
    title = f"[{status.upper()}{count}] {these[0].labels['alertname']} ({severity})"
    others = ([f"and {len(these) - 1} more"] if summary and count else []) + (
        [f"{len(alerts) - len(these)} resolved"] if len(these) < len(alerts) else []
    )
    said = ", ".join([summary, *others] if summary else others)
    return f"{title} — {said}" if said else title


def _digest_title(message: Message, obligations: Sequence[Obligation], severity: Severity) -> str:
    """What is over a budget is counted; the worst of it is named."""
    firing = [one for one in urgent_first(obligations) if _fires(one)]
    ended = len(obligations) - len(firing)
    count = len(firing) + message.more
    said = [f"{count} more alert{'s' if count > 1 else ''} firing"] * bool(count) + [f"{ended} resolved"] * bool(ended)
    worst = (
        f" — {firing[0].about.annotations.get('summary') or firing[0].about.key.rule}"
        if firing and firing[0].about
        else ""
    )
    return f"[DIGEST] {', '.join(said)} ({severity}){worst}"


def _text(
    title: str,
    message: Message,
    obligations: Sequence[Obligation],
    place: Place,
    now: float,
    remarks: tuple[str, ...],
) -> str:
    blocks = [title, *remarks]
    if message.possibly_repeated:
        blocks.append("This message may be a repeat: the answer to the first try was lost.")
    if message.digest:
        blocks.append(
            "The budget of this channel is spent: until there is room again, what else happens comes in one digest. "
            "`sixfbctl alerts` lists all that fire"
        )
    ordered = urgent_first(obligations)
    for obligation in ordered[:ALERTS_IN_TEXT]:
        lines = (
            [obligation.text] if obligation.about is None else _alert_lines(obligation, obligation.about, place, now)
        )
        blocks.append("\n".join(lines))
    if (more := max(0, len(ordered) - ALERTS_IN_TEXT) + message.more) > 0:
        lists = any(_fires(one) for one in ordered[ALERTS_IN_TEXT:]) or message.more
        blocks.append(f"and {more} more{'; `sixfbctl alerts` lists all that fire' if lists else ''}")
    where = " / ".join(part for part in (place.site, place.environment) if part)
    blocks += [part for part in (where, place.url) if part]
    return "\n\n".join(blocks)


def _fires(obligation: Obligation) -> bool:
    return obligation.about is not None and obligation.kind != "resolve"


def _alert_lines(obligation: Obligation, alert: Alert, place: Place, now: float) -> list[str]:
    resolved = obligation.kind == "resolve"
    begun = _since(alert)
    summary = alert.annotations.get("summary") or alert.key.rule
    lines = [f"Resolved, was: {summary}" if resolved else f"Firing: {summary}"]
    if alert.reason:
        lines.append(f"Reason: {alert.reason}")
    if alert.annotations.get("description") and not resolved:
        lines.append(alert.annotations["description"])
    if not resolved:
        lines += [f"{word}: {said}" for name, word in SAID_OF.items() if (said := alert.annotations.get(name))]
    if obligation.kind in KIND_LINES:
        lines.append(KIND_LINES[obligation.kind].format(severity=alert.severity))
    if obligation.passed_on and not resolved:
        lines.append(f"By this channel too, since another one failed: {obligation.passed_on}")
    if alert.flapping and not resolved:
        lines.append("It comes and goes: it is told as over when it has settled")
    labels = ", ".join(f"{name}={value}" for name, value in alert.labels.items() if name not in OWN_LABELS)
    if labels:
        lines.append(f"Labels: {labels}")
    if resolved:
        now_is = alert.value_at_end
        lines.append(f"Last value: {show_value(alert.value)}" if now_is is None else f"Value now: {show_value(now_is)}")
        ended = alert.resolved_at or now
        lines.append(f"It lasted {_lasted(ended - begun)}: from {_moment(begun)} to {_moment(ended)}")
    else:
        threshold = place.threshold(alert.key.rule, alert.severity)
        lines.append(f"Value: {show_value(alert.value)}" + (f" (threshold: {threshold})" if threshold else ""))
        lines.append(f"Since: {_moment(begun)}, for {_lasted(now - begun)}")
        lines += [
            f"Evidence: {one.series} = {show_value(one.value)} at {_moment(one.at_ms / 1000)}" for one in alert.evidence
        ]
        link = place.links.url(alert.id, obligation.target.receiver)
        lines.append(f"Acknowledge: {link or f'sixfbctl ack {alert.id}'}")
    lines.append(f"Explain: sixfbctl why {alert.id}")
    return lines


def _since(alert: Alert) -> float:
    return alert.since if alert.fired_at is None else alert.fired_at


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _lasted(seconds: float) -> str:
    """A duration in whole seconds: nobody reads milliseconds in an alert."""
    return show_duration(max(0, round(seconds)))
