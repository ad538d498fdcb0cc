"""Who else is told of an alert that nobody acknowledges, and when. Pure (SEED S17).

A step is due when the alert has fired for that long with the severity that it has, unless somebody has taken it on; a
hold keeps it back for as long as it lasts. While holds keep that from everybody nobody can take it on: then the time counts
from their end. An incident takes each step once.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from sixfbd.alerting.routes import Matcher, all_match, parse_matchers
from sixfbd.config.tables import EscalationTable
from sixfbd.journal.state import State
from sixfbd.model import Alert, AlertState

UNFINISHED_S: Final = 60.0  # after it was due, for a step to be taken
UNTOLD_S: Final = 600.0  # after a step was taken, for whom it names to be told or given up


class Step(Struct, frozen=True):
    """One step of an escalation; `name` is what an alert remembers of it."""

    name: str
    after_s: float
    receiver: str


class Escalation(Struct, frozen=True):
    """One `[[escalations]]`, its steps by time."""

    matchers: tuple[Matcher, ...]
    steps: tuple[Step, ...]


def compile_escalations(tables: Iterable[EscalationTable]) -> tuple[Escalation, ...]:
    """Return the escalations of a configuration. Raises ValueError with path and mend."""
    return tuple(
        Escalation(parse_matchers(table.matchers, f"escalations[{place}].matchers"), _steps(table))
        for place, table in enumerate(tables)
    )


def _steps(table: EscalationTable) -> tuple[Step, ...]:
    """Steps by time. They are named by whom they tell: a step that is only moved is not taken twice."""
    times: Counter[str] = Counter()
    steps: list[Step] = []
    for one in sorted(table.steps, key=lambda step: step.after):
        times[one.receiver] += 1
        again = f" ({times[one.receiver]})" if times[one.receiver] > 1 else ""
        steps.append(Step(f"{table.name}: {one.receiver}{again}", float(one.after), one.receiver))
    return tuple(steps)


def next_step(escalations: Iterable[Escalation], alert: Alert) -> tuple[float, Step] | None:
    """Return the step that a firing alert takes next, and when; None if there is none left."""
    since = alert.severity_at if alert.severity_at is not None else (alert.fired_at or alert.since)
    since = max(since, alert.unheard_until or since)
    left = [
        (since + step.after_s, step.name, step)
        for escalation in escalations
        if all_match(escalation.matchers, alert.labels)
        for step in escalation.steps
        if step.name not in alert.escalated
    ]
    if not left:
        return None
    at, _, step = min(left, key=lambda one: one[:2])
    return at, step


def unfinished(state: State, escalations: Iterable[Escalation], now: float) -> set[tuple[str, str]]:
    """Audit all escalations: return incident and step of those that should have been finished by a time, and are not.

    A step was due and was not taken, by what the configuration says and not by the timers that steps are taken by; or it
    was taken, and whom it names has not been told, nor given up. What fell due before the last start is due since that.
    """
    escalations = tuple(escalations)
    started_at = 0.0 if state.started is None else state.started.at
    found: set[tuple[str, str]] = set()
    for alert in state.alerts.values():
        if alert.state is AlertState.FIRING and alert.acked_by is None and not alert.held and not alert.once:
            step = next_step(escalations, alert)
            if step is not None and max(step[0], started_at) + UNFINISHED_S < now:
                found.add((alert.id, step[1].name))
    for one in state.obligations.values():
        if one.kind == "escalate" and max(one.at, started_at) + UNTOLD_S < now:
            found.add((one.subject, f"{one.target.receiver} through {one.target.notifier}"))
    return found
