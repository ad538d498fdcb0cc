"""Alerts that come and go: when one flaps, and when it has settled. Pure.

Icinga weighs the last 20 results of a check: a change of state counts 0.8 if it is the oldest and 1.2 if it is the newest, and
what changes in more than 30 % of them flaps until it is less than 25 %
(https://icinga.com/docs/icinga-2/latest/doc/08-advanced-topics/#check-flapping). Here changes have times and there are no
results between them, so that the 20 are equal parts of a window of time; several changes within one part count as one each.

An alert that flaps is kept firing, whatever its expression says meanwhile: people are told once that it fires, and once
that it has ended, when it has settled. So nobody is told of an end that is none, and no state is hidden.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

PARTS: Final = 20
OLDEST, NEWEST = 0.8, 1.2
BEYOND_S: Final = 0.001  # an edge that is hit exactly is on either side of it


class Flapping(Struct, frozen=True):
    """`[flapping]`: the window in seconds (0: nothing flaps), and the parts of it above which it begins and below which it ends."""

    window_s: float = 1800.0
    high: float = 0.30
    low: float = 0.25

    def is_flapping(self, changes: Iterable[float], at: float, *, already: bool) -> bool:
        """Tell whether an alert with these times of change flaps at a time; `already`: it did until now."""
        return self.share(changes, at) > (self.low if already else self.high)

    def share(self, changes: Iterable[float], at: float) -> float:
        """Return the weighted part of the window that is changes, 0 to 1.2 or more."""
        if self.window_s <= 0:
            return 0.0
        part_s = self.window_s / PARTS
        ages = (int((at - change) // part_s) for change in changes if change <= at)
        return sum(NEWEST - (NEWEST - OLDEST) * age / (PARTS - 1) for age in ages if age < PARTS) / PARTS

    def settles_at(self, changes: Iterable[float], at: float) -> float:
        """Return when it has settled if nothing changes any more: at the latest when the window has passed."""
        part_s, known = self.window_s / PARTS, tuple(changes)
        last = max(known, default=at)
        edges = sorted({change + age * part_s + BEYOND_S for change in known for age in range(1, PARTS + 1)})
        later = (edge for edge in edges if edge > at and not self.is_flapping(known, edge, already=True))
        return next(later, max(at, last + self.window_s + BEYOND_S))
