"""Functions over range vectors, for all series and all steps of a window at once.

Each takes a Window of n samples, k series, S steps and returns values (S, k) and presence (S, k) or (S, 1). Follows
Prometheus 3 (https://github.com/prometheus/prometheus/blob/main/promql/functions.go). Step series are known at every
moment: their rates and differences are exact, nothing is extrapolated.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sixfbd.promql.fetch import Index, Window
from sixfbd.promql.value import Mask
from sixfbd.window.blocks import Values

Result: TypeAlias = tuple[Values, Mask]
RangeFunction: TypeAlias = Callable[[Window], Result]

_EXPANDED_POINTS: Final = 2_000_000  # of one slice of steps whose windows are laid out side by side


def _first(window: Window) -> Values:
    return _rows(window, window.lo)


def _last(window: Window) -> Values:
    return _rows(window, window.hi - 1)


def _rows(window: Window, rows: Index) -> Values:
    """Return the values at `rows`; rows of empty windows are clipped to any that exist."""
    if len(window.v) == 0:
        return np.zeros((len(rows), window.v.shape[1]))
    return window.v[np.clip(rows, 0, len(window.v) - 1)]


def _times(window: Window, rows: Index) -> npt.NDArray[np.int64]:
    """Return the times at `rows`; of a value carried in, the time of the window's left edge."""
    if len(window.t_ms) == 0:
        return np.zeros(len(rows), dtype=np.int64)
    times = window.t_ms[np.clip(rows, 0, len(window.t_ms) - 1)]
    return np.where(rows == window.lo, window.at - window.range_ms, times) if window.carried else times


def _at_least(window: Window, count: int) -> Mask:
    return (window.counts >= count)[:, None]


def _reduce(ufunc: np.ufunc, v: npt.NDArray[Any], lo: Index, hi: Index) -> npt.NDArray[Any]:
    """Return `ufunc` reduced over the rows [lo, hi) of v, shape (S, k); of an empty window, anything."""
    padded = np.concatenate([v, np.zeros((1, v.shape[1]), dtype=v.dtype)])
    edges = np.empty(2 * len(lo), dtype=np.intp)
    edges[0::2] = np.minimum(lo, len(v))
    edges[1::2] = hi
    reduced: npt.NDArray[Any] = ufunc.reduceat(padded, edges, axis=0)[0::2]
    return reduced


# ---- counters and differences


def _drops(v: Values) -> Values:
    """Return for each row what the counter held before it, where it fell (a reset), else 0."""
    fell = np.zeros_like(v)
    np.copyto(fell[1:], v[:-1], where=v[1:] < v[:-1])
    return fell


def _grown(window: Window, *, counter: bool) -> Values:
    """Return last minus first; of a counter, what it held before each reset added."""
    grown = _last(window) - _first(window)
    if counter and not window.carried:
        drops = _drops(window.v)
        if drops.any():
            inner = np.minimum(window.lo + 1, window.hi)
            grown = grown + np.where((window.hi > inner)[:, None], _reduce(np.add, drops, inner, window.hi), 0.0)
    return grown


def _extrapolated(window: Window, *, counter: bool, per_second: bool) -> Result:
    """rate, increase and delta: what lies between first and last sample, stretched towards the window's edges.

    Prometheus' extrapolatedRate: by at most 1.1 average intervals to each side, half an interval where an edge is
    further off, and for a counter never beyond the time at which it would have been 0.
    """
    grown = _grown(window, counter=counter)
    range_s = window.range_ms / 1000
    if window.carried:
        return grown / range_s if per_second else grown, _at_least(window, 1)
    first_ms, last_ms = _times(window, window.lo), _times(window, window.hi - 1)
    sampled = ((last_ms - first_ms) / 1000)[:, None]
    average = sampled / (window.counts - 1)[:, None]
    to_start = ((first_ms - (window.at - window.range_ms)) / 1000)[:, None]
    to_end = ((window.at - last_ms) / 1000)[:, None]
    limit = average * 1.1
    to_start = np.where(to_start >= limit, average / 2, to_start)
    to_end = np.where(to_end >= limit, average / 2, to_end)
    stretch_back = np.broadcast_to(to_start, grown.shape)
    if counter:
        first = _first(window)
        to_zero = np.where((grown > 0) & (first >= 0), sampled * (first / grown), np.inf)
        stretch_back = np.minimum(stretch_back, to_zero)
    factor = (sampled + stretch_back + to_end) / sampled
    if per_second:
        factor = factor / range_s
    return grown * factor, _at_least(window, 2)


def _last_two(window: Window, *, per_second: bool) -> Result:
    """irate and idelta: from the last two samples."""
    last, before = _last(window), _rows(window, window.hi - 2)
    difference = last - before
    if per_second:
        difference = np.where(last < before, last, difference)
        seconds = (_times(window, window.hi - 1) - _times(window, window.hi - 2)) / 1000
        difference = difference / seconds[:, None]
    return difference, _at_least(window, 2)


def _count_pairs(window: Window, counted: Mask) -> Result:
    """Return how many rows of each window but its first are `counted`; sums of whole numbers are exact."""
    total = np.concatenate([np.zeros((1, counted.shape[1])), np.cumsum(counted, axis=0, dtype=np.float64)])
    lo = np.minimum(window.lo + 1, window.hi)
    return total[window.hi] - total[lo], _at_least(window, 1)


def _changes(window: Window) -> Result:
    v = window.v
    changed = np.zeros(v.shape, dtype=np.bool_)
    changed[1:] = (v[1:] != v[:-1]) & ~(np.isnan(v[1:]) & np.isnan(v[:-1]))
    return _count_pairs(window, changed)


def _resets(window: Window) -> Result:
    v = window.v
    fell = np.zeros(v.shape, dtype=np.bool_)
    fell[1:] = v[1:] < v[:-1]
    return _count_pairs(window, fell)


# ---- over time


def _sum(window: Window) -> Result:
    return _reduce(np.add, window.v, window.lo, window.hi), _at_least(window, 1)


def _avg(window: Window) -> Result:
    counts = window.counts[:, None]
    total = _reduce(np.add, window.v, window.lo, window.hi)
    mean = total / counts
    if np.isinf(total).any():  # a sum may overflow where a mean does not
        mean = np.where(np.isinf(total), _mean_by_parts(window), mean)
    return mean, _at_least(window, 1)


def _mean_by_parts(window: Window) -> Values:
    mean = np.zeros((len(window.lo), window.v.shape[1]))
    for steps, laid_out, inside in _laid_out(window):
        parts = np.where(inside, laid_out / window.counts[steps, None, None], 0.0)
        mean[steps] = parts.sum(axis=1)
    return mean


def _min(window: Window) -> Result:
    return _reduce(np.fmin, window.v, window.lo, window.hi), _at_least(window, 1)


def _max(window: Window) -> Result:
    return _reduce(np.fmax, window.v, window.lo, window.hi), _at_least(window, 1)


def _count(window: Window) -> Result:
    counts = np.repeat(window.counts[:, None].astype(np.float64), window.v.shape[1], axis=1)
    return counts, _at_least(window, 1)


def _present(window: Window) -> Result:
    return np.ones((len(window.lo), window.v.shape[1])), _at_least(window, 1)


def _newest(window: Window) -> Result:
    return _last(window), _at_least(window, 1)


def _laid_out(window: Window) -> Iterator[tuple[slice, Values, Mask]]:
    """Yield slices of steps with their windows side by side: values (s, w, k), and which (s, w, 1) are inside."""
    width = max(int(window.counts.max(initial=0)), 1)
    columns = max(window.v.shape[1], 1)
    at_once = max(_EXPANDED_POINTS // (width * columns), 1)
    for begin in range(0, len(window.lo), at_once):
        steps = slice(begin, begin + at_once)
        rows = window.lo[steps, None] + np.arange(width)
        inside = rows < window.hi[steps, None]
        yield steps, window.v[np.minimum(rows, len(window.v) - 1)], inside[:, :, None]


def _stddev(window: Window) -> Result:
    deviation = np.zeros((len(window.lo), window.v.shape[1]))
    if len(window.v):
        for steps, laid_out, inside in _laid_out(window):
            counts = window.counts[steps, None, None]
            mean = np.where(inside, laid_out, 0.0).sum(axis=1, keepdims=True) / counts
            squares = np.where(inside, (laid_out - mean) ** 2, 0.0).sum(axis=1)
            deviation[steps] = np.sqrt(squares / counts[:, 0])
    return deviation, _at_least(window, 1)


def quantile_over_time(window: Window, phi: npt.NDArray[np.float64]) -> Result:
    """Return the phi-quantile (shape (S,)) of each window, interpolated between the two nearest samples."""
    found = np.zeros((len(window.lo), window.v.shape[1]))
    if len(window.v):
        for steps, laid_out, inside in _laid_out(window):
            inside = np.broadcast_to(inside, laid_out.shape)
            found[steps] = quantiles(phi[steps, None], np.moveaxis(laid_out, 1, 0), np.moveaxis(inside, 1, 0))
    return found, _at_least(window, 1)


def quantiles(phi: npt.NDArray[np.float64], values: Values, inside: Mask) -> Values:
    """Return quantiles along axis 0 of those `values` that are `inside`, as Prometheus' quantile(): NaN sorts first.

    `phi` broadcasts against the shape of the result. Nothing inside, or phi NaN: NaN; phi < 0: -Inf; phi > 1: +Inf.
    """
    counts = inside.sum(axis=0)
    nans = (inside & np.isnan(values)).sum(axis=0)
    filled = np.where(inside, np.where(np.isnan(values), -np.inf, values), np.inf)
    filled.sort(axis=0)
    rank = np.clip(np.nan_to_num(phi), 0, 1) * (counts - 1)
    lower = np.maximum(np.floor(rank), 0).astype(np.intp)
    upper = np.maximum(np.minimum(lower + 1, counts - 1), 0)
    weight = rank - np.floor(rank)
    below = np.where(lower < nans, np.nan, np.take_along_axis(filled, lower[None], axis=0)[0])
    above = np.where(upper < nans, np.nan, np.take_along_axis(filled, upper[None], axis=0)[0])
    between: Values = below * (1 - weight) + above * weight
    between = np.where(phi < 0, -np.inf, np.where(phi > 1, np.inf, between))
    return np.where(np.isnan(phi) | (counts == 0), np.nan, between)


RANGE_FUNCTIONS: Final[dict[str, RangeFunction]] = {
    "rate": lambda w: _extrapolated(w, counter=True, per_second=True),
    "increase": lambda w: _extrapolated(w, counter=True, per_second=False),
    "delta": lambda w: _extrapolated(w, counter=False, per_second=False),
    "irate": lambda w: _last_two(w, per_second=True),
    "idelta": lambda w: _last_two(w, per_second=False),
    "changes": _changes,
    "resets": _resets,
    "sum_over_time": _sum,
    "avg_over_time": _avg,
    "min_over_time": _min,
    "max_over_time": _max,
    "count_over_time": _count,
    "present_over_time": _present,
    "last_over_time": _newest,
    "stddev_over_time": _stddev,
}
KEEPS_NAMES: Final = frozenset(["last_over_time"])
