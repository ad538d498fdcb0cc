"""How the bench measures: sides take turns, the first pass is thrown away, a ratio is formed within each pass.

Other load on the machine hits both sides of a pass alike, so ratios hold where absolute numbers do not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, TypeAlias, TypeVar

T = TypeVar("T")

REACHED: Final = "reached"
NOT_REACHED: Final = "not reached"

Side: TypeAlias = Callable[[], Mapping[str, float]]
"""One pass of one side: what it measured, by metric."""

Passes: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""What each side measured, pass by pass."""


class BenchError(Exception):
    """A part of the bench cannot do its work; the text says which, and why."""


@dataclass(frozen=True)
class Effort:
    """How much to measure: passes that count, passes before them that do not, and whether it is a smoke test only.

    A smoke test is no measurement: it takes small counts, and no load is too high for it.
    """

    passes: int
    discard: int = 1
    tiny: bool = False

    def pick(self, full: T, tiny: T) -> T:
        """Return a count or a time: the one that measures, or the one that only shows that it runs."""
        return tiny if self.tiny else full

    def at_most(self, passes: int) -> "Effort":
        """Return the same with no more than so many passes, for what takes long and varies little."""
        return replace(self, passes=min(self.passes, passes))


@dataclass(frozen=True)
class Goal:
    """What a row's median should be: at most `limit`, or `at_least` it. Of the ratio, or `absolute`: of our own figure."""

    limit: float
    at_least: bool = False
    absolute: bool = False

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def words(self, unit: str) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{f' {unit}' if self.absolute else 'x'}"


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of ours, pass by pass, beside that of a neighbour (`theirs` empty: beside nothing)."""

    what: str
    unit: str
    ours: Sequence[float]
    beside: str = ""
    theirs: Sequence[float] = ()
    goal: Goal | None = None

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, pass by pass; infinite where theirs is nothing."""
        if not self.theirs:
            return []
        return [one / other if other else math.inf for one, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        """Whether the goal is reached, by the median."""
        if self.goal is None:
            return ""
        value = median(self.ours if self.goal.absolute else self.ratios)
        return REACHED if self.goal.reached(value) else NOT_REACHED


def take_turns(sides: Mapping[str, Side], effort: Effort) -> Passes:
    """Run each side once a pass, in turned order every other pass; return the passes that count."""
    names = list(sides)
    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for number in range(effort.discard + effort.passes):
        for name in names if number % 2 == 0 else reversed(names):
            values = sides[name]()
            if number >= effort.discard:
                measured[name].append(values)
    return measured


def figures(passes: Passes, metric: str, *sides: str) -> list[float]:
    """Return a metric pass by pass; of several sides their sum."""
    return [
        sum(values[metric] for values in together) for together in zip(*map(passes.__getitem__, sides), strict=True)
    ]


def row(
    what: str,
    unit: str,
    passes: Passes,
    metric: str,
    ours: str,
    theirs: str,
    goal: Goal | None = None,
    their_metric: str = "",
) -> Row:
    """Return the row of a metric of the side `ours` beside that of `theirs`."""
    return Row(what, unit, figures(passes, metric, ours), theirs, figures(passes, their_metric or metric, theirs), goal)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text: medians of the passes, their spread in brackets, the goal beside the ratio."""
    lines = [("", "unit", "sixfbd", "beside", "", "ratio", "goal", "")]
    lines += [
        (
            one.what,
            one.unit,
            spread(one.ours),
            spread(one.theirs),
            one.beside,
            spread(one.ratios),
            "" if one.goal is None else one.goal.words(one.unit),
            one.verdict,
        )
        for one in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def spread(values: Sequence[float]) -> str:
    """Return median (least-most), "-" of nothing."""
    if not values:
        return "-"
    return f"{_figure(median(values))} ({_figure(min(values))}-{_figure(max(values))})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie, by nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _figure(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
