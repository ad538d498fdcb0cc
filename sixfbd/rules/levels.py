"""The rungs of a rule with `levels`: comparisons such as "<= 5", and which severity a value has. Pure."""

import operator
import re
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from sixfbd.model import Severity

_COMPARISON: Final = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*")
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class Condition(Struct, frozen=True):
    """A comparison of a value with a number."""

    op: str
    number: float

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Raise ValueError with the mend in its text if `text` is no comparison."""
        found = _COMPARISON.fullmatch(text)
        if found is None:
            raise ValueError(f'{text!r} is not a comparison with a number; write "<= 5"')
        return cls(found[1], float(found[2]))

    def holds(self, value: float) -> bool:
        """Tell whether it is true of `value`; of NaN only != is."""
        return _OPERATORS[self.op](value, self.number)


class BoundLevel(Struct, frozen=True):
    """One rung: it is reached when `when` holds, and left when `clear` does (None: when `when` no longer does)."""

    severity: Severity
    when: Condition
    clear: Condition | None

    def keeps(self, value: float) -> bool:
        """Tell whether an alert that has this level keeps it."""
        return self.when.holds(value) or (self.clear is not None and not self.clear.holds(value))


def severity_at(levels: Sequence[BoundLevel], value: float, current: Severity | None) -> Severity | None:
    """Return the severity that `value` has, given the one that the alert has now; None: it does not fire.

    A higher level is taken as soon as its `when` holds. A level is left only as its `clear` says; what is left falls to
    the next lower level that still holds or keeps the value, so that hysteresis works on every rung of the way down.
    `levels` are sorted, highest severity first.
    """
    for level in levels:
        reached = current is not None and level.severity.rank <= current.rank
        if level.keeps(value) if reached else level.when.holds(value):
            return level.severity
    return None
