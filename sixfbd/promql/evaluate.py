"""Evaluation: a walk over the tree, every node for all steps at once. A pure function of a snapshot and times.

Looks at its Stop between nodes and between blocks. Never reads a clock, never logs.
"""

from functools import reduce
from typing import Final

import numpy as np
import numpy.typing as npt

from sixfbd.promql import functions
from sixfbd.promql.aggregate import PICKING, aggregate
from sixfbd.promql.errors import QueryError, Stop
from sixfbd.promql.fetch import Fetch, span, window_reads
from sixfbd.promql.nodes import Aggregate, Binary, Call, Negate, Node, Number, Selector, Text
from sixfbd.promql.operators import COMPARISONS, binary, holds
from sixfbd.promql.parse import Query
from sixfbd.promql.value import Reads, Value, any_row, concatenated, empty, merged, scalar
from sixfbd.promql.windows import KEEPS_NAMES, RANGE_FUNCTIONS, quantile_over_time
from sixfbd.window.blocks import Times
from sixfbd.window.snapshot import Snapshot

MAX_STEPS: Final = 11_000  # as Prometheus' query API


def cost(query: Query, snapshot: Snapshot, start_ms: int, end_ms: int, step_ms: int) -> int:
    """Return an upper bound of the points that an evaluation reads and makes, without reading any."""
    steps = _count_steps(start_ms, end_ms, step_ms)
    read = sum(snapshot.points(s.matchers, *span(s, snapshot, start_ms, end_ms)) for s in query.selectors)
    return read + steps


def loaded(query: Query, snapshot: Snapshot, start_ms: int, end_ms: int) -> bool:
    """Tell whether an evaluation would read nothing from disk."""
    return all(snapshot.loaded(s.matchers, *span(s, snapshot, start_ms, end_ms)) for s in query.selectors)


def evaluate(
    query: Query,
    snapshot: Snapshot,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    stop: Stop,
    *,
    evidence: bool = False,
) -> Value:
    """Evaluate at start, start + step, ... up to `end_ms`; an instant query has `start_ms == end_ms`, any positive step.

    Rows are sorted by name and labels (topk and bottomk at one instant: by value), rows never present are left out.
    With `evidence` the value's `reads` say which checks and samples each row of the last step rests on.
    Raises QueryError for what this data or span makes impossible, QueryStopped when `stop` says so.
    """
    steps = start_ms + np.arange(_count_steps(start_ms, end_ms, step_ms), dtype=np.int64) * step_ms
    evaluation = _Evaluation(Fetch(snapshot, steps, stop, evidence=evidence), stop)
    with np.errstate(all="ignore"):  # division by zero and the like have results in PromQL
        if query.kind == "matrix":
            return evaluation.matrix(query.root)
        value = evaluation.value(query.root)
    return _in_order(value, query.root) if value.kind == "vector" else value


def _count_steps(start_ms: int, end_ms: int, step_ms: int) -> int:
    if step_ms <= 0:
        raise QueryError("the step must be longer than 0")
    if end_ms < start_ms:
        raise QueryError("the end lies before the start")
    steps = (end_ms - start_ms) // step_ms + 1
    if steps > MAX_STEPS:
        raise QueryError(f"{steps} steps are more than {MAX_STEPS}; make the step longer or the span shorter")
    return steps


def _in_order(value: Value, root: Node) -> Value:
    value = value.without_absent_rows()
    rows = range(len(value))
    if isinstance(root, Aggregate) and root.op in PICKING and len(value.steps_ms) == 1:
        sign = -1 if root.op == "topk" else 1
        return value.rows(sorted(rows, key=lambda row: (np.isnan(value.values[row, 0]), sign * value.values[row, 0])))
    return value.rows(sorted(rows, key=lambda row: (value.names[row], value.labels[row]))) if len(value) > 1 else value


class _Evaluation:
    """One walk. Vectors keep the order of their blocks; each method returns a Value over all steps."""

    def __init__(self, fetch: Fetch, stop: Stop) -> None:
        self._fetch = fetch
        self._steps: Times = fetch.steps_ms
        self._stop = stop

    def value(self, node: Node) -> Value:
        self._stop.check()
        match node:
            case Number():
                return scalar(self._steps, np.full(len(self._steps), node.value))
            case Text():
                text = empty(self._steps)
                text.kind, text.text = "string", node.value
                return text
            case Selector():
                return self._fetch.instant(node)
            case Call():
                return self._call(node)
            case Aggregate():
                param = None if node.param is None else self._param(node.param)
                return aggregate(node, self.value(node.operand), param)
            case Negate():
                return self._negated(self.value(node.operand))
            case Binary(op=op, left=Selector() as selector, right=Number() as number, return_bool=False) if (
                op in COMPARISONS
            ):
                return self._fetch.instant(selector, lambda values: holds(op, values, number.value))
            case Binary():
                return binary(node, self.value(node.left), self.value(node.right))

    def matrix(self, node: Node) -> Value:
        """Return the samples of a range selector at one instant; columns are the times of any of the samples."""
        assert isinstance(node, Selector)  # the only node of that kind
        if len(self._steps) > 1:
            raise QueryError("a range vector has no value at a step; wrap it in a function such as rate()")
        windows = list(self._fetch.windows(node))
        spans = [(w.t_ms[w.lo[0] + w.carried : w.hi[0]], w.v[w.lo[0] + w.carried : w.hi[0]]) for w in windows]
        times = np.unique(np.concatenate([t for t, _ in spans])) if spans else np.zeros(0, dtype=np.int64)
        rows = sum(len(window.series) for window in windows)
        values, present = np.zeros((rows, len(times))), np.zeros((rows, len(times)), dtype=np.bool_)
        begin = 0
        for t, v in spans:
            columns = np.searchsorted(times, t)
            values[begin : begin + v.shape[1], columns] = v.T
            present[begin : begin + v.shape[1], columns] = True
            begin += v.shape[1]
        series = [one for window in windows for one in window.series]
        whole = Value("matrix", times, values, present, [s.metric for s in series], [s.labels for s in series])
        return whole.without_absent_rows()

    def _param(self, node: Node) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = self.value(node).values[0]
        return values

    def _negated(self, value: Value) -> Value:
        return merged(value.with_values(-value.values))

    def _call(self, node: Call) -> Value:
        name, args = node.name, node.args
        if name in RANGE_FUNCTIONS or name == "quantile_over_time":
            return self._over_range(node)
        if name in functions.MATH:
            value = self.value(args[0])
            params = [self._param(arg) for arg in args[1:]]
            return merged(value.with_values(functions.MATH[name](value.values, *params)))
        match name:
            case "time":
                return scalar(self._steps, self._steps / 1000.0)
            case "vector":
                value = self.value(args[0])
                value.kind = "vector"
                return value
            case "scalar":
                return self._scalar(self.value(args[0]))
            case "timestamp":
                return self._timestamp(args[0])
            case "absent":
                present = self.value(args[0]).present
                return functions.absent(self._steps, any_row(present), args[0])
            case "absent_over_time":
                return functions.absent(self._steps, self._any_in_range(args[0]), args[0])
            case "clamp":
                return merged(functions.clamp(self.value(args[0]), self._param(args[1]), self._param(args[2])))
            case "histogram_quantile":
                return functions.histogram_quantile(self._param(args[0]), self.value(args[1]))
            case "label_replace":
                texts = [arg.value for arg in args[1:] if isinstance(arg, Text)]
                return functions.label_replace(self.value(args[0]), *texts)
        raise AssertionError(f"{name} passed the compiler")

    def _over_range(self, node: Call) -> Value:
        selector = node.args[-1]
        assert isinstance(selector, Selector)  # the only node of that kind
        phi = self._param(node.args[0]) if node.name == "quantile_over_time" else None
        parts = []
        for window in self._fetch.windows(selector):
            values, present = RANGE_FUNCTIONS[node.name](window) if phi is None else quantile_over_time(window, phi)
            present = np.broadcast_to(present, values.shape)
            keeps = node.name in KEEPS_NAMES
            parts.append(
                Value(
                    "vector",
                    self._steps,
                    values.T,
                    present.T,
                    [series.metric if keeps else "" for series in window.series],
                    [series.labels for series in window.series],
                    window_reads(window) if self._fetch.evidence else None,
                ).without_absent_rows()
            )
        return merged(concatenated(self._steps, parts))

    def _any_in_range(self, selector: Node) -> npt.NDArray[np.bool_]:
        assert isinstance(selector, Selector)  # the only node of that kind
        found = np.zeros(len(self._steps), dtype=np.bool_)
        for window in self._fetch.windows(selector):
            found |= window.counts > 0
        return found

    def _timestamp(self, argument: Node) -> Value:
        if isinstance(argument, Selector):
            value = self._fetch.timestamps(argument)
            return merged(value.with_values(value.values))
        value = self.value(argument)
        return merged(value.with_values(np.broadcast_to(self._steps / 1000.0, value.values.shape)))

    def _scalar(self, vector: Value) -> Value:
        """Return the value of the only row of each step, else NaN."""
        single = vector.present.sum(axis=0) == 1
        only = np.where(vector.present, vector.values, 0.0).sum(axis=0)
        out = scalar(self._steps, np.where(single, only, np.nan))
        if vector.reads:
            out.reads = [reduce(Reads.__or__, vector.reads)]
        return out
