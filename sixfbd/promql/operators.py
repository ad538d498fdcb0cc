"""Binary operators: scalars, vectors with scalars, vectors with vectors by matching labels, and the set operators. Pure."""

from collections.abc import Callable, Hashable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from sixfbd.model import Labels
from sixfbd.promql.errors import QueryError
from sixfbd.promql.nodes import Binary, Matching
from sixfbd.promql.value import Mask, Reads, Value, any_row, concatenated, empty, merged, scalar, series_text
from sixfbd.window.blocks import Values

Signature: TypeAlias = Callable[[str, Labels], Hashable]

ARITHMETIC: Final[dict[str, np.ufunc]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
COMPARISONS: Final[dict[str, np.ufunc]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def holds(op: str, left: Values, right: Values | float) -> Mask:
    """Tell where a comparison is true."""
    found: Mask = COMPARISONS[op](left, right)
    return found


def binary(node: Binary, left: Value, right: Value) -> Value:
    """Apply a binary operator. Raises QueryError for matches that are not unique."""
    if node.op in ("and", "or", "unless"):
        return _set_operation(node, left, right)
    if left.kind == "scalar" and right.kind == "scalar":
        values, _ = _computed(node, left.values, right.values)
        both = scalar(left.steps_ms, values)
        both.reads = _pairwise(left, [0], right, [0])
        return both
    if left.kind == "scalar" or right.kind == "scalar":
        return _with_scalar(node, left, right)
    return _vectors(node, left, right)


def _computed(node: Binary, left: Values, right: Values) -> tuple[Values, Mask | None]:
    """Return values and, for a comparison that filters, where it holds; the values are then the left ones."""
    if node.op in ARITHMETIC:
        return ARITHMETIC[node.op](left, right), None
    found = holds(node.op, left, right)
    if node.return_bool:
        return found.astype(np.float64), None
    return left, found


def _drops_name(node: Binary) -> bool:
    return node.op in ARITHMETIC or node.return_bool


def _with_scalar(node: Binary, left: Value, right: Value) -> Value:
    vector = right if left.kind == "scalar" else left
    values, found = _computed(node, left.values, right.values)
    rows = range(len(vector))
    zeros = [0] * len(vector)
    reads = _pairwise(left, zeros, right, rows) if vector is right else _pairwise(left, rows, right, zeros)
    if found is not None:
        out = vector.with_values(vector.values, vector.present & found, keep_names=True)
    else:
        out = vector.with_values(values, keep_names=not _drops_name(node))
    out.reads = reads
    return merged(out)


def _pairwise(
    left: Value, left_rows: range | list[int], right: Value, right_rows: range | list[int]
) -> list[Reads] | None:
    if left.reads is None and right.reads is None:
        return None
    nothing = Reads()
    return [
        (left.reads[i] if left.reads is not None else nothing)
        | (right.reads[j] if right.reads is not None else nothing)
        for i, j in zip(left_rows, right_rows, strict=True)
    ]


# ---- matching


def _signature_of(matching: Matching) -> Signature:
    """Return the function that makes of a row's name and labels what has to be equal on both sides."""
    wanted = tuple(sorted(set(matching.labels)))
    if matching.on:

        def on(name: str, labels: Labels) -> Hashable:
            pairs = {"__name__": name, **dict(labels)}
            return tuple((label, pairs[label]) for label in wanted if pairs.get(label))

        return on
    if not wanted:
        return lambda name, labels: labels
    return lambda name, labels: tuple(pair for pair in labels if pair[0] not in wanted)


def _by_signature(value: Value, signature: Signature) -> dict[Hashable, list[int]]:
    rows: dict[Hashable, list[int]] = {}
    for row, (name, labels) in enumerate(zip(value.names, value.labels, strict=True)):
        rows.setdefault(signature(name, labels), []).append(row)
    return rows


def _vectors(node: Binary, left: Value, right: Value) -> Value:
    matching = node.matching
    swapped = matching.card == "one-to-many"
    many, one = (right, left) if swapped else (left, right)
    if not len(many) or not len(one):
        return empty(left.steps_ms)
    signature = _signature_of(matching)
    rows_of_one = _by_signature(one, signature)
    _refuse_two_on_one_side(one, rows_of_one, any_row(many.present), "left" if swapped else "right")
    many_rows: list[int] = []
    one_rows: list[int] = []
    signatures: list[Hashable] = []
    for row, (name, labels) in enumerate(zip(many.names, many.labels, strict=True)):
        sig = signature(name, labels)
        for partner in rows_of_one.get(sig, ()):
            many_rows.append(row)
            one_rows.append(partner)
            signatures.append(sig)
    if not many_rows:
        return empty(left.steps_ms)
    return _matched(node, many, many_rows, one, one_rows, signatures)


def _matched(
    node: Binary, many: Value, many_rows: list[int], one: Value, one_rows: list[int], signatures: list[Hashable]
) -> Value:
    swapped = node.matching.card == "one-to-many"
    many_values, one_values = many.values[many_rows], one.values[one_rows]
    values, holds = _computed(node, *((one_values, many_values) if swapped else (many_values, one_values)))
    present = many.present[many_rows] & one.present[one_rows]
    if holds is not None:
        present &= holds
    used = np.flatnonzero(present.any(axis=1))
    _refuse_many_matches(node.matching, present, signatures, used)
    drop = _drops_name(node)
    names: list[str] = []
    labels: list[Labels] = []
    for index in used:
        name, own = _result_identity(node.matching, many, many_rows[index], one, one_rows[index], drop=drop)
        names.append(name)
        labels.append(own)
    reads = _pairwise(many, [many_rows[i] for i in used], one, [one_rows[i] for i in used])
    result = Value("vector", many.steps_ms, values[used], present[used], names, labels, reads)
    try:
        return merged(result)
    except QueryError:
        raise QueryError(
            "multiple matches for labels: grouping labels must ensure unique matches"
            if node.matching.card != "one-to-one"
            else "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
        ) from None


def _result_identity(
    matching: Matching, many: Value, many_row: int, one: Value, one_row: int, *, drop: bool
) -> tuple[str, Labels]:
    name, labels = "" if drop else many.names[many_row], many.labels[many_row]
    if matching.card == "one-to-one":
        if matching.on:
            return (
                name if "__name__" in matching.labels else "",
                tuple(pair for pair in labels if pair[0] in matching.labels),
            )
        return name, tuple(pair for pair in labels if pair[0] not in matching.labels) if matching.labels else labels
    if not matching.include:
        return name, labels
    pairs, given = dict(labels), {"__name__": one.names[one_row], **dict(one.labels[one_row])}
    pairs["__name__"] = name
    for label in matching.include:
        pairs[label] = given.get(label, "")
    name = pairs.pop("__name__")
    return name, tuple(sorted((label, text) for label, text in pairs.items() if text))


def _refuse_two_on_one_side(
    one: Value, rows_of: dict[Hashable, list[int]], steps: npt.NDArray[np.bool_], side: str
) -> None:
    """Raise QueryError if the side that must be unique has two rows of one signature at one of `steps`."""
    for sig, rows in rows_of.items():
        if len(rows) < 2:
            continue
        twice = (one.present[rows].sum(axis=0) > 1) & steps
        if twice.any():
            step = int(np.flatnonzero(twice)[0])
            first, second = [row for row in rows if one.present[row, step]][:2]
            raise QueryError(
                f"found duplicate series for the match group {series_text('', sig)} on the {side} hand-side of the operation: "  # type: ignore[arg-type]  # signatures are label tuples
                f"[{series_text(one.names[first], one.labels[first])}, {series_text(one.names[second], one.labels[second])}]; "
                "many-to-many matching not allowed: matching labels must be unique on one side"
            )


def _refuse_many_matches(
    matching: Matching, present: Mask, signatures: list[Hashable], used: npt.NDArray[np.intp]
) -> None:
    """One to one: raise QueryError if one signature yields two results at one step."""
    if matching.card != "one-to-one" or len({signatures[i] for i in used}) == len(used):
        return
    taken: dict[Hashable, Mask] = {}
    for index in used:
        before = taken.get(signatures[index])
        if before is not None and (before & present[index]).any():
            raise QueryError(
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            )
        taken[signatures[index]] = present[index] if before is None else before | present[index]


# ---- and, or, unless


def _set_operation(node: Binary, left: Value, right: Value) -> Value:
    signature = _signature_of(node.matching)
    if node.op == "or":
        kept = right.with_values(right.values, right.present & ~_covered(right, left, signature), keep_names=True)
        return merged(concatenated(left.steps_ms, [part for part in (left, kept) if len(part)]))
    covered = _covered(left, right, signature)
    present = left.present & (covered if node.op == "and" else ~covered)
    out = left.with_values(left.values, present, keep_names=True)
    if node.op == "and" and left.reads is not None and right.reads is not None:
        partners = _by_signature(right, signature)
        out.reads = [
            reads | right.reads[partners[sig][0]] if (sig := signature(name, labels)) in partners else reads
            for reads, name, labels in zip(left.reads, left.names, left.labels, strict=True)
        ]
    return out


def _covered(rows: Value, other: Value, signature: Signature) -> Mask:
    """Tell for each row and step whether `other` has a row of the same signature there."""
    there = {sig: any_row(other.present[members]) for sig, members in _by_signature(other, signature).items()}
    covered = np.zeros(rows.present.shape, dtype=np.bool_)
    for row, (name, labels) in enumerate(zip(rows.names, rows.labels, strict=True)):
        found = there.get(signature(name, labels))
        if found is not None:
            covered[row] = found
    return covered
