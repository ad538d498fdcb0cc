"""What tests of default rules share: what a rule finds on series by hand, and what it says."""

from typing import Any

from sixfbd.promql import Stop
from sixfbd.rules import evaluate_rule
from sixfbd.rules.evaluate import level_of, render_annotations


def found(bound: Any, name: str, snapshot: Any, now: float, summary: str = "why") -> list[tuple[float, str, str]]:
    """What a rule finds: (value, severity, text) of each label set."""
    rule = bound.rule(name)
    result = evaluate_rule(rule, snapshot, now, Stop())
    assert result.error is None
    return [
        (
            round(one.value, 6),
            str(rule.rule.severity or level_of(rule, one.value, None)),
            render_annotations(rule, dict(one.labels), one.value, summary)["summary"],
        )
        for one in result.found
    ]
