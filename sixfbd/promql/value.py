"""What an evaluation yields: rows (series) by columns (steps), absence as a mask, and what was read for each row."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sixfbd.model import Labels, Series
from sixfbd.promql.errors import QueryError
from sixfbd.promql.nodes import Kind
from sixfbd.window.blocks import Times, Values

Mask: TypeAlias = npt.NDArray[np.bool_]

MAX_PICKS: Final = 32  # series named as evidence of one output row; sums over more name the first ones
SAMPLES_PER_PICK: Final = 4


class Pick(Struct, frozen=True, eq=False):
    """Samples of one series that were read for one row: views of a block, oldest first."""

    series: Series
    t_ms: Times
    v: Values


class Reads(Struct, frozen=True):
    """What was read for one output row: all checks, and the samples of at most MAX_PICKS series."""

    checks: frozenset[str] = frozenset()
    picks: tuple[Pick, ...] = ()

    def __or__(self, other: "Reads") -> "Reads":
        return Reads(self.checks | other.checks, (self.picks + other.picks)[:MAX_PICKS])

    def samples(self) -> Iterator[tuple[Series, int, float]]:
        """Yield (series, t_ms, value): of each series the oldest sample and the newest ones, SAMPLES_PER_PICK in all."""
        for pick in self.picks:
            n = len(pick.t_ms)
            for row in range(n) if n <= SAMPLES_PER_PICK else (0, *range(n - SAMPLES_PER_PICK + 1, n)):
                yield pick.series, int(pick.t_ms[row]), float(pick.v[row])


class Value(Struct, eq=False):
    """The result of an evaluation over S steps, or of a part of one.

    `values` float64 and `present` bool have shape (n, S); where `present` is False the value means nothing (NaN is a value
    like others). Row i is the series `names[i]` ("" without a name) with `labels[i]`. A scalar is one row without labels,
    always present. For `kind == "matrix"` the columns are the times of the samples. A string is in `text`, without rows.
    `reads[i]` says what was read for row i; None unless evidence was asked for.
    """

    kind: Kind
    steps_ms: Times
    values: Values
    present: Mask
    names: list[str]
    labels: list[Labels]
    reads: list[Reads] | None = None
    text: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def label_dicts(self) -> list[dict[str, str]]:
        """Return each row's labels as Prometheus' HTTP API shows them, `__name__` included."""
        return [
            ({"__name__": name} if name else {}) | dict(labels)
            for name, labels in zip(self.names, self.labels, strict=True)
        ]

    def rows(self, index: Sequence[int] | npt.NDArray[np.intp]) -> "Value":
        """Return the rows at `index`, in that order."""
        return Value(
            self.kind,
            self.steps_ms,
            self.values[index],
            self.present[index],
            [self.names[i] for i in index],
            [self.labels[i] for i in index],
            None if self.reads is None else [self.reads[i] for i in index],
        )

    def without_absent_rows(self) -> "Value":
        """Return the rows that are present at one step at least."""
        used = self.present.any(axis=1)
        return self if used.all() else self.rows(np.flatnonzero(used))

    def with_values(self, values: Values, present: Mask | None = None, *, keep_names: bool = False) -> "Value":
        """Return the same rows with other values, their metric names dropped unless kept."""
        return Value(
            self.kind,
            self.steps_ms,
            values,
            self.present if present is None else present,
            self.names if keep_names else [""] * len(self),
            self.labels,
            self.reads,
        )


def any_row(present: Mask) -> Mask:
    """Return for each step whether any row is present."""
    found: Mask = np.logical_or.reduce(present, axis=0)
    return found


def scalar(steps_ms: Times, values: Values) -> Value:
    """Return a scalar of one value a step."""
    return Value("scalar", steps_ms, values.reshape(1, -1), np.ones((1, len(steps_ms)), dtype=np.bool_), [""], [()])


def empty(steps_ms: Times) -> Value:
    """Return a vector without rows."""
    shape = (0, len(steps_ms))
    return Value("vector", steps_ms, np.zeros(shape), np.zeros(shape, dtype=np.bool_), [], [], [])


def concatenated(steps_ms: Times, parts: Sequence[Value]) -> Value:
    """Return the rows of all parts, one vector."""
    if not parts:
        return empty(steps_ms)
    if len(parts) == 1:
        return parts[0]
    reads: list[Reads] | None = []
    for part in parts:
        reads = None if reads is None or part.reads is None else reads + part.reads
    return Value(
        "vector",
        steps_ms,
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
        [name for part in parts for name in part.names],
        [labels for part in parts for labels in part.labels],
        reads,
    )


def merged(value: Value) -> Value:
    """Return the value with rows of the same labels made one. Raises QueryError where two are present at one step."""
    keys = list(zip(value.names, value.labels, strict=True))
    if len(set(keys)) == len(keys):
        return value
    rows_of: dict[tuple[str, Labels], list[int]] = {}
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    values, present = value.values.copy(), value.present.copy()
    reads = None if value.reads is None else list(value.reads)
    for key, (first, *others) in rows_of.items():
        for row in others:
            if (present[first] & present[row]).any():
                raise QueryError(f"vector cannot contain metrics with the same labelset: {series_text(*key)}")
            values[first] = np.where(present[row], values[row], values[first])
            present[first] |= present[row]
            if reads is not None:
                reads[first] = reads[first] | reads[row]
    whole = Value(value.kind, value.steps_ms, values, present, value.names, value.labels, reads)
    return whole.rows([rows[0] for rows in rows_of.values()])


def series_text(name: str, labels: Labels) -> str:
    """Return the series as PromQL writes it: `up{job="x"}`, or `{}` without name and labels."""
    inner = ", ".join(f'{label}="{escaped(text)}"' for label, text in labels)
    return f"{name}{{{inner}}}" if inner or not name else name


def escaped(text: str) -> str:
    """Escape a label value for a double-quoted string."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
