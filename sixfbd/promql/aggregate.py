"""Aggregations: rows to groups, all steps at once. A group is present where one of its rows is. Pure."""

from typing import Final

import numpy as np
import numpy.typing as npt

from sixfbd.model import Labels
from sixfbd.promql.errors import QueryError
from sixfbd.promql.nodes import Aggregate
from sixfbd.promql.value import Mask, Reads, Value, empty
from sixfbd.promql.windows import quantiles
from sixfbd.window.blocks import Values

Index = npt.NDArray[np.intp]

PICKING: Final = frozenset(["topk", "bottomk"])


def aggregate(node: Aggregate, value: Value, param: npt.NDArray[np.float64] | None) -> Value:
    """Aggregate a vector; `param` has one value a step (S,), for quantile, topk and bottomk."""
    if not len(value):
        return empty(value.steps_ms)
    keys, members = _groups(node, value)
    if node.op in PICKING:
        assert param is not None  # the parser demands it
        return _picked(value, members, param, largest=node.op == "topk")
    order = np.concatenate(members)
    starts = np.cumsum([0] + [len(rows) for rows in members[:-1]])
    values, present = value.values[order], value.present[order]
    counts = np.add.reduceat(present, starts, axis=0, dtype=np.int64)
    reduced = _reduced(node.op, values, present, starts, counts, param)
    return Value(
        "vector",
        value.steps_ms,
        reduced,
        counts > 0,
        [name for name, _ in keys],
        [labels for _, labels in keys],
        _joined_reads(value, members),
    )


def _groups(node: Aggregate, value: Value) -> tuple[list[tuple[str, Labels]], list[Index]]:
    """Return the groups' names and labels, and the rows of each."""
    rows_of: dict[tuple[str, Labels], list[int]] = {}
    wanted = frozenset(node.labels)
    for row, labels in enumerate(value.labels):
        if node.without:
            key = ("", tuple(pair for pair in labels if pair[0] not in wanted))
        else:
            own = tuple(pair for pair in labels if pair[0] in wanted) if wanted else ()
            key = (value.names[row] if "__name__" in wanted else "", own)
        rows_of.setdefault(key, []).append(row)
    return list(rows_of), [np.array(rows, dtype=np.intp) for rows in rows_of.values()]


def _reduced(
    op: str, values: Values, present: Mask, starts: Index, counts: Values, param: npt.NDArray[np.float64] | None
) -> Values:
    if op == "count":
        return counts.astype(np.float64)
    if op == "group":
        return np.ones(counts.shape)
    if op in ("min", "max"):
        reduce = np.fmin if op == "min" else np.fmax
        extreme: Values = reduce.reduceat(np.where(present, values, np.nan), starts, axis=0)
        return extreme
    if op == "quantile":
        assert param is not None  # the parser demands it
        pieces = zip(np.split(values, starts[1:]), np.split(present, starts[1:]), strict=True)
        return np.stack([quantiles(param, piece, inside) for piece, inside in pieces])
    total: Values = np.add.reduceat(np.where(present, values, 0.0), starts, axis=0)
    if op == "sum":
        return total
    mean = _means(total, values, present, starts, counts)
    if op == "avg":
        return mean
    sizes = np.diff(np.append(starts, len(values)))
    squares = np.where(present, (values - np.repeat(mean, sizes, axis=0)) ** 2, 0.0)
    deviation: Values = np.sqrt(np.add.reduceat(squares, starts, axis=0) / counts)
    return deviation


def _means(total: Values, values: Values, present: Mask, starts: Index, counts: Values) -> Values:
    mean: Values = total / counts
    if np.isinf(total).any():  # a sum may overflow where a mean does not
        sizes = np.diff(np.append(starts, len(values)))
        parts = np.where(present, values / np.repeat(counts, sizes, axis=0), 0.0)
        mean = np.where(np.isinf(total), np.add.reduceat(parts, starts, axis=0), mean)
    return mean


def _joined_reads(value: Value, members: list[Index]) -> list[Reads] | None:
    if value.reads is None:
        return None
    joined = []
    for rows in members:
        group = Reads()
        for row in rows:
            if value.present[row, -1]:
                group |= value.reads[row]
        joined.append(group)
    return joined


def _picked(value: Value, members: list[Index], param: npt.NDArray[np.float64], *, largest: bool) -> Value:
    """Keep of each group the k largest (smallest) rows at each step; NaN is picked last."""
    if np.isnan(param).any():
        raise QueryError("topk and bottomk need a number, not NaN")
    k = np.clip(np.trunc(param), 0, len(value)).astype(np.int64)
    present = np.zeros(value.present.shape, dtype=np.bool_)
    for rows in members:
        ordered = np.where(value.present[rows], value.values[rows], np.nan)
        keys = -ordered if largest else ordered
        # absent rows sort behind NaN, which sorts behind all numbers; ties keep the order of the rows
        order = np.lexsort((keys, ~value.present[rows]), axis=0)
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(len(rows))[:, None], axis=0)
        present[rows] = value.present[rows] & (rank < k)
    return value.with_values(value.values, present, keep_names=True)
