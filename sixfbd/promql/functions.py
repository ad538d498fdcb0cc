"""Functions over instant vectors: arithmetic of one value, label_replace, histogram_quantile, absent. Pure."""

import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sixfbd.model import Labels
from sixfbd.promql.nodes import Node, Selector
from sixfbd.promql.patterns import anchored
from sixfbd.promql.value import Mask, Reads, Value, any_row, merged
from sixfbd.window.blocks import Times, Values

Param: TypeAlias = npt.NDArray[np.float64]

MONOTONIC_TOLERANCE: Final = 1e-12  # Prometheus' smallDeltaTolerance: bucket counts closer than this are the same


def _round(values: Values, to_nearest: Param | float = 1.0) -> Values:
    inverse = 1.0 / to_nearest  # as Prometheus: round half up, and to 0.1 without the error of multiplying by 0.1
    rounded: Values = np.floor(values * inverse + 0.5) / inverse
    return rounded


MATH: Final[dict[str, Callable[..., Values]]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "ln": np.log,
    "sqrt": np.sqrt,
    "round": _round,
    "clamp_min": np.maximum,
    "clamp_max": np.minimum,
}
"""Take values (n, S) and parameters of one value a step (S,)."""


def clamp(value: Value, low: Param, high: Param) -> Value:
    """Limit values to low..high; where low is above high, nothing is left."""
    present = value.present & (low <= high)[None, :]
    present |= value.present & (np.isnan(low) | np.isnan(high))[None, :]
    return value.with_values(np.maximum(low, np.minimum(high, value.values)), present)


def absent(steps_ms: Times, any_present: Mask, argument: Node) -> Value:
    """Return 1 at the steps without any row; labels are those that the argument's matchers fix to one value."""
    labels = _fixed_labels(argument)
    missing = ~any_present.reshape(1, -1)
    return Value("vector", steps_ms, np.ones(missing.shape), missing, [""], [labels], [Reads()])


def _fixed_labels(argument: Node) -> Labels:
    if not isinstance(argument, Selector):
        return ()
    fixed: dict[str, str] = {}
    repeated: set[str] = set()
    for matcher in argument.matchers:
        if matcher.name == "__name__":
            continue
        if matcher.op == "=" and matcher.name not in fixed:
            fixed[matcher.name] = matcher.value
        else:
            repeated.add(matcher.name)
    return tuple(sorted((name, text) for name, text in fixed.items() if name not in repeated and text))


# ---- label_replace


def label_replace(value: Value, target: str, replacement: str, source: str, pattern: str) -> Value:
    """Set `target` to `replacement` ($1, ${1}, $name) in rows whose `source` label matches `pattern` as a whole."""
    regex = anchored(pattern)
    names, labels = list(value.names), list(value.labels)
    for row in range(len(value)):
        pairs = dict(labels[row]) | {"__name__": names[row]}
        found = regex.match(pairs.get(source, ""))
        if found is None:
            continue
        # the pattern is anchored: the whole match, $0, is the whole text
        groups = (pairs.get(source, ""), *found.groups())
        pairs[target] = _expanded(replacement, groups, found.groupdict())
        names[row] = pairs.pop("__name__")
        labels[row] = tuple(sorted((name, text) for name, text in pairs.items() if text))
    return merged(Value("vector", value.steps_ms, value.values, value.present, names, labels, value.reads))


def _expanded(template: str, groups: Sequence[str | None], named: dict[str, str | None]) -> str:
    """Fill in a template as Go's regexp.Expand does: `$name` is as long as it can be, what does not exist is ""."""
    out: list[str] = []
    at = 0
    while at < len(template):
        char = template[at]
        at += 1
        if char != "$":
            out.append(char)
            continue
        if template[at : at + 1] == "$":
            out.append("$")
            at += 1
            continue
        name, after = _reference(template, at)
        if name is None:
            out.append("$")
            continue
        at = after
        out.append(_group(name, groups, named))
    return "".join(out)


def _reference(template: str, at: int) -> tuple[str | None, int]:
    """Read the name after a `$`; None if there is none, and the place after it."""
    braced = template[at : at + 1] == "{"
    begin = at + braced
    end = begin
    while end < len(template) and (template[end].isalnum() or template[end] == "_"):
        end += 1
    if end == begin or (braced and template[end : end + 1] != "}"):
        return None, at
    return template[begin:end], end + braced


def _group(name: str, groups: Sequence[str | None], named: dict[str, str | None]) -> str:
    if name.isdigit():
        return (groups[int(name)] or "") if int(name) < len(groups) else ""
    return named.get(name) or ""


# ---- histogram_quantile


def histogram_quantile(phi: Param, buckets: Value) -> Value:
    """Return the phi-quantile of each classic histogram: rows with `le`, grouped by their other labels."""
    groups: dict[Labels, list[tuple[float, int]]] = {}
    for row, labels in enumerate(buckets.labels):
        bound = _bound(labels)
        if bound is not None:
            rest = tuple(pair for pair in labels if pair[0] != "le")
            groups.setdefault(rest, []).append((bound, row))
    shape = (len(groups), len(buckets.steps_ms))
    values, present = np.full(shape, np.nan), np.zeros(shape, dtype=np.bool_)
    reads: list[Reads] | None = None if buckets.reads is None else []
    for out, members in enumerate(groups.values()):
        members.sort()
        bounds = np.array([bound for bound, _ in members])
        rows = [row for _, row in members]
        values[out], present[out] = _quantile_of_rows(phi, bounds, buckets.values[rows], buckets.present[rows])
        if reads is not None and buckets.reads is not None:
            reads.append(_joined([buckets.reads[row] for row in rows]))
    return Value("vector", buckets.steps_ms, values, present, [""] * len(groups), list(groups), reads)


def _joined(reads: Sequence[Reads]) -> Reads:
    joined = Reads()
    for each in reads:
        joined |= each
    return joined


def _bound(labels: Labels) -> float | None:
    text = dict(labels).get("le")
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _quantile_of_rows(phi: Param, bounds: Values, counts: Values, present: Mask) -> tuple[Values, Mask]:
    """Take bounds (b,), counts (b, S); steps at which the same buckets exist are computed at once."""
    out = np.full(counts.shape[1], np.nan)
    some = any_row(present)
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        held = patterns[:, number]
        steps = np.flatnonzero(which.reshape(-1) == number)
        if held.any():
            edges, cumulative = _coalesced(bounds[held], counts[np.ix_(held, steps)])
            out[steps] = _bucket_quantile(phi[steps], edges, cumulative)
    return out, some


def _coalesced(bounds: Values, counts: Values) -> tuple[Values, Values]:
    """Add up buckets of one bound and make counts grow with the bound, as federated or torn scrapes may not."""
    edges, starts = np.unique(bounds, return_index=True)
    cumulative = np.add.reduceat(counts, starts, axis=0)
    for row in range(1, len(edges)):
        before = cumulative[row - 1]
        close = np.abs(cumulative[row] - before) <= MONOTONIC_TOLERANCE * (np.abs(cumulative[row]) + np.abs(before))
        cumulative[row] = np.where(close | (cumulative[row] < before), before, cumulative[row])
    return edges, cumulative


def _bucket_quantile(phi: Param, edges: Values, cumulative: Values) -> Values:
    """Prometheus' bucketQuantile for edges (b,) and cumulative counts (b, S)."""
    steps = np.arange(cumulative.shape[1])
    if len(edges) < 2 or not math.isinf(edges[-1]):
        inside = np.full(len(steps), np.nan)
    else:
        total = cumulative[-1]
        rank = phi * total
        bucket = np.minimum((cumulative[:-1] < rank).sum(axis=0), len(edges) - 1)
        below = np.maximum(bucket - 1, 0)
        start = np.where(bucket > 0, edges[below], 0.0)
        count_below = np.where(bucket > 0, cumulative[below, steps], 0.0)
        count = cumulative[bucket, steps] - count_below
        inside = start + (edges[bucket] - start) * ((rank - count_below) / count)
        inside = np.where((bucket == 0) & (edges[0] <= 0), edges[0], inside)
        inside = np.where(bucket == len(edges) - 1, edges[-2], inside)
        inside = np.where(total == 0, np.nan, inside)
    outside = np.where(phi < 0, -np.inf, np.where(phi > 1, np.inf, inside))
    quantile: Values = np.where(np.isnan(phi), np.nan, outside)
    return quantile
