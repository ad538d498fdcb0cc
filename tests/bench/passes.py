"""How the bench measures: sides take turns, the first pass is thrown away, a ratio is formed within each pass.

Other load on the machine hits both sides of a pass alike, so ratios hold where absolute numbers do not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

Side: TypeAlias = Callable[[], Mapping[str, float]]
"""One pass of one side: what it measured, by metric."""

Passes: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""What each side measured, pass by pass."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a metric of one side beside one of another."""

    what: str
    unit: str
    ours: Sequence[float]
    beside: str
    theirs: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Ours divided by theirs, pass by pass."""
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]


def take_turns(sides: Mapping[str, Side], passes: int, discard: int = 1) -> Passes:
    """Run each side once a pass, in turned order every other pass; return all passes but the first `discard`."""
    names = list(sides)
    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in names}
    for number in range(discard + passes):
        for name in names if number % 2 == 0 else reversed(names):
            values = sides[name]()
            if number >= discard:
                measured[name].append(values)
    return measured


def row(what: str, unit: str, passes: Passes, metric: str, ours: str, theirs: str, their_metric: str = "") -> Row:
    """Return the row of a metric of the side `ours` beside that of `theirs`."""
    return Row(
        what,
        unit,
        [values[metric] for values in passes[ours]],
        theirs,
        [values[their_metric or metric] for values in passes[theirs]],
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text: medians of the passes, their spread in brackets."""
    lines = [("", "unit", "sixfbd", "beside", "", "ratio")]
    lines += [
        (one.what, one.unit, spread(one.ours), spread(one.theirs), one.beside, spread(one.ratios)) for one in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def spread(values: Sequence[float]) -> str:
    """Return median (least-most)."""
    return f"{_figure(median(values))} ({_figure(min(values))}-{_figure(max(values))})"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie, by nearest rank."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _figure(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
