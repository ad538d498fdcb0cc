"""Who else is told of an alert that nobody acknowledges, and when. Pure (SEED S17).

A step is due when the alert has fired for that long with the severity that it has, unless somebody has taken it on; a
hold keeps it back for as long as it lasts. An incident takes each step once.
"""

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from sixfbd.alerting.routes import Matcher, all_match, parse_matchers
from sixfbd.config.tables import EscalationTable
from sixfbd.model import Alert


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
