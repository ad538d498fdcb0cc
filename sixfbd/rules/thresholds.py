"""What a rule compares its value with, in words for messages: "> 0.85". Pure."""

from collections.abc import Iterable
from typing import Final

from sixfbd.model import Severity
from sixfbd.promql.nodes import Binary, Negate, Node, Number
from sixfbd.quantities import show_value
from sixfbd.rules.bind import BoundRule

COMPARISONS: Final = frozenset({">", ">=", "<", "<=", "!="})  # == is a state that is there or not: nothing is passed
KEPT: Final = frozenset({"and", "unless"})  # what they yield are values of their left side


def thresholds_of(rules: Iterable[BoundRule]) -> dict[str, dict[Severity, str]]:
    """Return the threshold of each severity that a rule has, by rule; rules that compare with no number are left out."""
    found = {rule.name: _thresholds(rule) for rule in rules}
    return {name: each for name, each in found.items() if each}


def _thresholds(rule: BoundRule) -> dict[Severity, str]:
    if rule.rule.levels:
        return {level.severity: level.when.strip() for level in rule.rule.levels}
    compared = _compared(rule.query.root)
    severities = list(Severity) if rule.rule.severity is None else [rule.rule.severity]
    return dict.fromkeys(severities, compared) if compared else {}


def _compared(node: Node) -> str:
    """Return the comparison with a number that the values of an expression passed, "" if there is none."""
    if not isinstance(node, Binary):
        return ""
    if node.op in KEPT:
        return _compared(node.left)
    if node.op not in COMPARISONS or node.return_bool:
        return ""
    match node.right:
        case Number(value=value):
            return f"{node.op} {show_value(value)}"
        case Negate(operand=Number(value=value)):
            return f"{node.op} {show_value(-value)}"
    return ""
