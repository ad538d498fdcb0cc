"""Evaluating one rule at one time: a pure function of a snapshot. Errors become part of the result, never exceptions."""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from sixfbd.model import Evaluated, Evidence, Found, Labels, Severity
from sixfbd.promql import QueryError, QueryStopped, Reads, Stop, Value, evaluate, series_text
from sixfbd.rules.bind import BoundRule, severity_of
from sixfbd.rules.levels import severity_at
from sixfbd.rules.templates import shown
from sixfbd.window.snapshot import Snapshot

MAX_EVIDENCE_BYTES: Final = 4096  # of one label set, encoded as JSON (DESIGN promise 1)
MAX_FOUND: Final = 10_000  # label sets of one rule: the design point of alerts at once


def at_ms(now: float) -> int:
    """Return the instant of an evaluation at `now`: rounded up, so that a sample stamped at `now` is seen."""
    return math.ceil(now * 1000)


def evaluate_rule(bound: BoundRule, snapshot: Snapshot, now: float, stop: Stop) -> Evaluated:
    """Evaluate a rule at `now` (engine time). May read chunks from disk: not for the event loop unless they are loaded.

    A rule with `levels` finds what has a level or, having had one, might keep it: the judge asks `level_of` for the
    severity, and None means that the label set is not firing. `blind_checks` is left to the engine.
    """
    instant = at_ms(now)
    try:
        value = evaluate(bound.query, snapshot, instant, instant, 1, stop, evidence=True)
        return Evaluated(bound.name, now, _found(bound, value))
    except (QueryError, QueryStopped) as error:
        return Evaluated(bound.name, now, error=str(error))
    except Exception as error:  # noqa: BLE001 - one bad rule, or one unreadable chunk, stays one bad rule
        return Evaluated(bound.name, now, error=f"{type(error).__name__}: {error}")


def level_of(bound: BoundRule, value: float, current: Severity | None) -> Severity | None:
    """Return the severity of a value that a rule found, given the severity that its alert has now; None: not firing.

    A rule with one severity has that for every value. See `severity_at` for levels. Not for rules whose severity is a label.
    """
    return severity_at(bound.levels, value, current) if bound.levels else bound.rule.severity


def render_annotations(bound: BoundRule, labels: Mapping[str, str], value: float | str, summary: str) -> dict[str, str]:
    """Return a rule's annotations for one alert; never raises (an error is named in the text)."""
    number = float(value)
    return {name: template.render(labels, number, summary) for name, template in bound.annotations.items()}


def _found(bound: BoundRule, value: Value) -> tuple[Found, ...]:
    highest = bound.levels[0].severity if bound.levels else None
    rows = [
        row
        for row in range(len(value))
        if not bound.levels or level_of(bound, float(value.values[row, 0]), highest) is not None
    ]
    if len(rows) > MAX_FOUND:
        raise QueryError(
            f"the rule finds {len(rows)} label sets, more than {MAX_FOUND}; aggregate, or narrow its matchers"
        )
    described = [_described(bound, value.labels[row]) for row in rows]
    labels = [own for own, _ in described]
    if len(set(labels)) < len(labels):
        raise QueryError(f"the rule finds {_first_twice(labels)} more than once; aggregate away the metric's name")
    reads = value.reads if value.reads is not None else [Reads()] * len(value)
    return tuple(
        Found(
            own,
            float(value.values[row, 0]),
            _evidence(reads[row]),
            tuple(sorted(reads[row].checks)),
            describing,
            severity_of(dict(describing).get("severity", "")),
        )
        for row, (own, describing) in zip(rows, described, strict=True)
    )


def _described(bound: BoundRule, labels: Labels) -> tuple[Labels, Labels]:
    """Part labels into those that name an alert and those that only tell of it."""
    telling = bound.rule.describing
    if not telling:
        return labels, ()
    return tuple(one for one in labels if one[0] not in telling), tuple(one for one in labels if one[0] in telling)


def _first_twice(labels: list[Labels]) -> str:
    seen: set[Labels] = set()
    for own in labels:
        if own in seen:
            return series_text("", own)
        seen.add(own)
    raise AssertionError("no label set is there twice")


def _evidence(reads: Reads) -> tuple[Evidence, ...]:
    """Return the samples read, as many as fit into MAX_EVIDENCE_BYTES."""
    out: list[Evidence] = []
    room = MAX_EVIDENCE_BYTES - len(b"[]")
    for series, t_ms, number in reads.samples():
        value = number if math.isfinite(number) else str(shown(number))
        evidence = Evidence(series_text(series.metric, series.labels), t_ms, value)
        room -= len(msgspec.json.encode(evidence)) + len(b",")
        if room < 0:
            break
        out.append(evidence)
    return tuple(out)
