"""The form that the default rules of our checks share: a service, a summary, what it costs and what to do. Knows no check."""

from typing import Any, Final, Literal, TypeAlias, get_args

from sixfbd.plugin import Rule, RuleName, Severity

Service: TypeAlias = Literal["sms", "inventory", "payments", "web", "system", "email"]
"""What a rule's label `service` may be, by which channels are chosen; the engine's own rules have "daemon". "email" is
our addition to SEED S18: of its words none is true of the mail provider."""

SERVICES: Final[tuple[str, ...]] = get_args(Service)


def default_rule(
    service: Service,
    name: str,
    expr: str,
    summary: str,
    severity: Severity | None = None,
    *,
    impact: str = "",
    action: str = "",
    **more: Any,
) -> Rule:
    """Return a rule labelled with its service (SEED S18); `more` are further fields of `Rule`, such as `levels`.

    `impact` says what it costs if nobody does anything, `action` what to do first; messages have a line for each.
    """
    texts = {"summary": summary, "impact": impact, "action": action}
    return Rule(
        name=RuleName(name),
        expr=expr,
        severity=severity,
        labels={"service": service},
        annotations={key: text for key, text in texts.items() if text},
        **more,
    )
