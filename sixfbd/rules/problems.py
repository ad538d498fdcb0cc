"""What compiling finds wrong with rules, in the configuration's form. Apart from `bind`, which the configuration needs."""

from collections.abc import Sequence

from sixfbd.config import RuleProblem
from sixfbd.model import Rule
from sixfbd.rules.bind import bind_rules


def rule_problems(rules: Sequence[Rule]) -> list[RuleProblem]:
    """Return a problem for each error, with line, column and a caret."""
    return [RuleProblem(error.rule, error.text) for error in bind_rules(rules).errors]
