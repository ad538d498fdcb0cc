"""The form that the default rules of our checks share: a service, one summary. Knows no check."""

from typing import Any

from sixfbd.plugin import Rule, RuleName, Severity


def default_rule(
    service: str, name: str, expr: str, summary: str, severity: Severity | None = None, **more: Any
) -> Rule:
    """Return a rule labelled with its service (SEED S18); `more` are further fields of `Rule`, such as `levels`."""
    return Rule(
        name=RuleName(name),
        expr=expr,
        severity=severity,
        labels={"service": service},
        annotations={"summary": summary},
        **more,
    )
