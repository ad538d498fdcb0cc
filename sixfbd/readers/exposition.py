"""/metrics in one of its forms, rendered again only where something changed.

prometheus_client writes every line once, when its series is first seen; from then on only the value in it is exchanged, and
only if it is another. Holds one form of what it rendered last; owns no facts. Not for two threads at a time.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from prometheus_client import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from sixfbd.http.engine import Encoder
from sixfbd.model import LayoutId, SeriesId
from sixfbd.window.window import Newest

Families: TypeAlias = Callable[[Newest], Sequence[Metric]]
"""Gives the families of all that is there, shown or not; the value of each sample is its place in `Newest.series()`."""

_written: Final = cast(Callable[[float], str], floatToGoString)


class _Registry(Collector):
    """The families as an encoder wants to ask for them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def encode_families(encode: Encoder, families: Sequence[Metric]) -> bytes:
    """Return families in the form that `encode` writes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Registry(families))
    return encode(registry)


@dataclass
class _Family:
    """A family: its comments, and its lines ("" where nothing is to be shown)."""

    head: str
    lines: list[str] = field(default_factory=list)
    text: str | None = None  # None: to be joined again


@dataclass
class _Line:
    family: _Family
    number: int
    prefix: str


@dataclass
class _Columns:
    """What was rendered last of one layout's columns."""

    bits: npt.NDArray[np.uint64]
    shown: npt.NDArray[np.bool_]


class Exposition:
    """One form of /metrics."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        self._key: Hashable = None
        self._families: list[_Family] = []
        self._lines: list[_Line | None] = []  # by place in Newest.series; None: left out
        self._columns: dict[LayoutId, _Columns] = {}
        self._steps: dict[SeriesId, float | None] = {}
        self._tail = ""

    def render(self, newest: Newest, key: Hashable, families: Families) -> bytes:
        """Return the exposition; `key` is another one when `families` would give others. Costs time: not for the loop."""
        key = (key, tuple(part.layout for part in newest.layouts), tuple(step.id for step in newest.steps))
        if key != self._key:
            self._lay_out(newest, families)
            self._key = key
        place = 0
        for part in newest.layouts:
            self._exchange(place, part.layout, part.values, part.shown)
            place += len(part.entries)
        for step in newest.steps:
            if self._steps[step.id] != step.value:
                self._put(place, step.value)
                self._steps[step.id] = step.value
            place += 1
        return self._joined().encode()

    def _lay_out(self, newest: Newest, families: Families) -> None:
        text = encode_families(self._encode, families(newest)).decode()
        self._families, self._lines, self._columns, self._steps, self._tail = (
            [],
            [None for _ in newest.series()],
            {},
            {},
            "",
        )
        comments: list[str] = []
        for line in text.split("\n"):
            if line == "# EOF":
                self._tail = line + "\n"
            elif line.startswith("#"):
                comments.append(line + "\n")
            elif line:
                if comments:
                    self._families.append(_Family("".join(comments)))
                    comments.clear()
                family = self._families[-1]
                prefix, _, place = line.rpartition(" ")
                self._lines[int(float(place))] = _Line(family, len(family.lines), prefix + " ")
                family.lines.append("")
        self._steps = {step.id: None for step in newest.steps}

    def _exchange(
        self, place: int, layout: LayoutId, values: npt.NDArray[np.float64], shown: npt.NDArray[np.bool_]
    ) -> None:
        """Write the lines of a layout, whose first series has this place, that are not as they were."""
        bits = values.view(np.uint64)
        before = self._columns.get(layout)
        if before is None:
            changed = np.flatnonzero(shown)
        else:
            changed = np.flatnonzero((shown != before.shown) | (shown & (bits != before.bits)))
        if len(changed):
            for column, value, visible in zip(
                changed.tolist(), values[changed].tolist(), shown[changed].tolist(), strict=True
            ):
                self._put(place + column, value if visible else None)
        self._columns[layout] = _Columns(bits, shown)

    def _put(self, place: int, value: float | None) -> None:
        line = self._lines[place]
        if line is not None:
            line.family.lines[line.number] = "" if value is None else f"{line.prefix}{_written(value)}\n"
            line.family.text = None

    def _joined(self) -> str:
        for family in self._families:
            if family.text is None:
                lines = "".join(family.lines)
                family.text = family.head + lines if lines else ""
        return "".join([family.text or "" for family in self._families]) + self._tail
