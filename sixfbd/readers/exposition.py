"""/metrics in one of its forms, rendered again only where something changed.

prometheus_client writes every line once, when its series is first seen; from then on only the value in it is exchanged, and
only if it is another. Holds one form of what it rendered last; owns no facts. Not for two at a time.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt
from prometheus_client import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from sixfbd.http.engine import Encoder
from sixfbd.window.blocks import Values
from sixfbd.window.window import Newest

Families: TypeAlias = Callable[[Newest], Sequence[Metric]]
"""Gives the families of all that is there, shown or not; the value of each sample is its place in `Newest.series()`."""

SLICE: Final = 2000  # lines that are written before others have their turn: about 0.3 ms
PLAIN: Final = (1e-4, 1e6)  # sizes between which JSON and both forms of /metrics write a number alike, and 0

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


def ends_of_lines(values: Values) -> list[bytes]:
    """Return each value as prometheus_client writes it, and the end of its line."""
    size = np.abs(values)
    plain = ((size >= PLAIN[0]) & (size < PLAIN[1])) | (size == 0)
    ends = (msgspec.json.encode(values.tolist())[1:-1].replace(b",", b"\n") + b"\n").splitlines(keepends=True)
    for place in np.flatnonzero(~plain).tolist():
        ends[place] = f"{_written(float(values[place]))}\n".encode()
    return ends


class Exposition:
    """One form of /metrics.

    `lay_out` when it does not fit, `take` what is newest, then ask for the page. The page is a list of parts, one for the
    comments of each family and two for each line: its series, and its value. What is not shown is there as b"".
    """

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        self._key: Hashable = None
        self._parts: list[bytes] = []
        # By place in Newest.series():
        self._series: list[bytes] = []
        self._part: npt.NDArray[np.intp] = np.empty(0, np.intp)  # where its parts begin; -1: it is left out
        self._head: list[int] = []  # where the comments of its family are
        self._bits: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._shown: npt.NDArray[np.bool_] = np.empty(0, np.bool_)
        self._valued: npt.NDArray[np.bool_] = np.empty(0, np.bool_)  # the line has the value of these bits
        # By where they are:
        self._comments: dict[int, bytes] = {}
        self._lines: dict[int, int] = {}  # how many of the family are shown

    def fits(self, newest: Newest, key: Hashable) -> bool:
        """Tell whether it is laid out for these series; `key` is another one when `families` would give others."""
        return self._key == _whole_key(newest, key)

    def lay_out(self, newest: Newest, key: Hashable, families: Families) -> None:
        """Begin anew for these series, with no value yet. Costs time: not for the loop."""
        count = sum(1 for _ in newest.series())
        self._parts, self._comments, self._lines = [], {}, {}
        self._series, self._head, self._part = [b""] * count, [0] * count, np.full(count, -1)
        self._bits = np.zeros(count, np.uint64)
        self._shown, self._valued = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        comments: list[bytes] = []
        for line in encode_families(self._encode, families(newest)).split(b"\n"):
            if line == b"# EOF":
                self._parts.append(line + b"\n")
            elif line.startswith(b"#"):
                comments.append(line + b"\n")
            elif line:
                if comments:
                    head = len(self._parts)
                    self._comments[head], self._lines[head] = b"".join(comments), 0
                    self._parts.append(b"")
                    comments.clear()
                series, _, value = line.rpartition(b" ")
                place = int(float(value))
                self._series[place], self._head[place], self._part[place] = series + b" ", head, len(self._parts)
                self._parts += (b"", b"")
        self._key = _whole_key(newest, key)

    def take(self, newest: Newest) -> Iterator[None]:
        """Write the lines that are not as they were, those that it is laid out for; yields between each SLICE of them.

        To end before its end is no loss: what was not written is still to be written.
        """
        values, shown = _now(newest)
        bits = values.view(np.uint64)
        shown &= self._part >= 0
        turned = np.flatnonzero(shown != self._shown)
        for first in range(0, len(turned), SLICE):
            if first:
                yield
            self._turn(turned[first : first + SLICE], shown)
        changed = np.flatnonzero(shown & ((bits != self._bits) | ~self._valued))
        for first in range(0, len(changed), SLICE):
            if first or len(turned):
                yield
            some = changed[first : first + SLICE]
            parts = self._parts
            for part, end in zip((self._part[some] + 1).tolist(), ends_of_lines(values[some]), strict=True):
                parts[part] = end
            self._bits[some], self._valued[some] = bits[some], True

    def page(self) -> bytes:
        """Return what was taken."""
        return b"".join(self._parts)

    def _turn(self, turned: npt.NDArray[np.intp], shown: npt.NDArray[np.bool_]) -> None:
        """Show the series of lines that were not shown, without a value yet, and the other way round."""
        parts = self._parts
        for place, part, visible in zip(
            turned.tolist(), self._part[turned].tolist(), shown[turned].tolist(), strict=True
        ):
            head = self._head[place]
            self._lines[head] += 1 if visible else -1
            parts[head] = self._comments[head] if self._lines[head] else b""
            parts[part], parts[part + 1] = self._series[place] if visible else b"", b""
        self._shown[turned], self._valued[turned] = shown[turned], False


def _whole_key(newest: Newest, key: Hashable) -> Hashable:
    return (key, tuple([part.layout for part in newest.layouts]), tuple([step.id for step in newest.steps]))


def _now(newest: Newest) -> tuple[Values, npt.NDArray[np.bool_]]:
    """Return the values and what is shown, by place."""
    steps = [step.value for step in newest.steps]
    values = [part.values for part in newest.layouts] + [np.array([value or 0.0 for value in steps], np.float64)]
    shown = [part.shown for part in newest.layouts] + [np.array([value is not None for value in steps], np.bool_)]
    return np.concatenate(values), np.concatenate(shown)
