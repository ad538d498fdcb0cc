"""Rules: bound to series when they change, evaluated as pure functions of a snapshot and a time, on change and on tick.

What they find goes to the judge as Evaluated values; nothing here knows of alerts, holds or messages.
"""

from sixfbd.rules.bind import BoundRule, BoundRules, RuleError, bind_rules, severity_of
from sixfbd.rules.engine import RuleEngine
from sixfbd.rules.evaluate import evaluate_rule, level_of, render_annotations

__all__ = [
    "BoundRule",
    "BoundRules",
    "RuleEngine",
    "RuleError",
    "bind_rules",
    "evaluate_rule",
    "level_of",
    "render_annotations",
    "severity_of",
]
