"""Why a rule finds nothing, or nobody is told: its expression taken apart at a time, as far back as samples go.

Evaluates parts of the rule's own expression on the window; what the judge holds of the rule is told for now only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from sixfbd import promql
from sixfbd.alerting.states import feeders_blind
from sixfbd.control.engine import SelectorFound, WhyNotCheck, WhyNotRow, WhyNotView, number
from sixfbd.model import Alert, AlertState, CheckName, Rule, RuleName
from sixfbd.promql import Query, Stop, Value
from sixfbd.promql.nodes import Binary, Node, Selector, walk
from sixfbd.promql.parse import kind_of
from sixfbd.quantities import show_duration
from sixfbd.rules.bind import BoundRule
from sixfbd.running import Running
from sixfbd.window.snapshot import Snapshot

COMPARISONS = frozenset({">", "<", ">=", "<=", "==", "!="})
MOST_ROWS = 10
LIMIT_S = 10.0
HELD_POINTS = 60  # at which it is asked whether the expression held, over the rule's `for`


class Parts(Struct, frozen=True):
    """What an expression yields at one time, whole and on the left side of the comparison that it ends with."""

    whole: Value
    left: Value | None
    op: str
    threshold: Value | None
    selectors: tuple[SelectorFound, ...]
    held_s: float


async def why_not(running: Running, name: str, labels: Mapping[str, str], at: float | None) -> WhyNotView:
    """Return why a rule does not fire for labels, now or at a time. Raises KeyError if there is no such rule; PromQLError,
    QueryError and QueryStopped as a query does."""
    bound = running.evaluator.rules.rules[RuleName(name)]
    now = running.world.clock.now()
    moment = now if at is None else at
    snapshot, stop = running.window.snapshot(), Stop.within(LIMIT_S)
    parts = await running.reader.offload(lambda: taken_apart(bound, snapshot, moment, stop))
    alerts = [] if at is not None else _alerts(running, bound.rule, labels)
    rows = _rows(parts, labels)
    return WhyNotView(
        rule=bound.rule,
        at=moment,
        labels=dict(labels),
        verdict=_verdict(bound.rule, parts, rows, labels, alerts, now),
        rows=tuple(rows[:MOST_ROWS]),
        more_rows=max(0, len(rows) - MOST_ROWS),
        selectors=parts.selectors,
        checks=tuple(_checks(running, bound)),
        alerts=tuple(alert.id for alert in alerts),
    )


def taken_apart(bound: BoundRule, snapshot: Snapshot, at: float, stop: Stop) -> Parts:
    """Evaluate an expression and its parts at a time. May read chunks from disk."""
    query, instant = bound.query, math.ceil(at * 1000)

    def value_of(node: Node) -> Value:
        return promql.evaluate(_part(query, node), snapshot, instant, instant, 1, stop)

    root = query.root
    compared = isinstance(root, Binary) and root.op in COMPARISONS
    left = value_of(root.left) if compared and isinstance(root, Binary) else None
    threshold = value_of(root.right) if compared and isinstance(root, Binary) else None
    found = [
        SelectorFound(_text(node), len(value_of(Selector(node.matchers, 0, node.offset_ms))))
        for node in dict.fromkeys(node for node in walk(root) if isinstance(node, Selector))
    ]
    op = root.op if compared and isinstance(root, Binary) else ""
    return Parts(value_of(root), left, op, threshold, tuple(found), _held_s(bound, snapshot, at, stop))


def _held_s(bound: BoundRule, snapshot: Snapshot, at: float, stop: Stop) -> float:
    """Return for how long some label set had been found at a time, `for` at most."""
    for_ms, end = round(bound.rule.for_s * 1000), math.ceil(at * 1000)
    if for_ms <= 0:
        return 0.0
    step = max(1, for_ms // HELD_POINTS)
    value = promql.evaluate(bound.query, snapshot, end - for_ms, end, step, stop)
    best = 0
    for row in value.present:
        run = 0
        for there in reversed(row.tolist()):
            if not there:
                break
            run += 1
        best = max(best, run)
    return max(0.0, (best - 1) * step / 1000)


def _part(query: Query, node: Node) -> Query:
    selectors = tuple(dict.fromkeys(one for one in walk(node) if isinstance(one, Selector)))
    return msgspec.structs.replace(query, root=node, kind=kind_of(node), selectors=selectors)


def _text(selector: Selector) -> str:
    name = next((one.value for one in selector.matchers if one.name == "__name__" and one.op == "="), "")
    others = [f'{one.name}{one.op}"{one.value}"' for one in selector.matchers if not (one.name == "__name__" and name)]
    return name + (f"{{{', '.join(others)}}}" if others or not name else "")


def _fits(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= labels.items()


def _rows(parts: Parts, wanted: Mapping[str, str]) -> list[WhyNotRow]:
    """What the left side of the comparison is for these labels, and what it is held against; the nearest first."""
    if parts.left is None:
        return []
    limits = _limits(parts.threshold)
    rows = [
        WhyNotRow(dict(labels), number(value), parts.op, number(limit))
        for labels, value in _items(parts.left)
        if _fits(dict(labels), wanted) and (limit := limits.get(labels, limits.get(()))) is not None
    ]
    return sorted(rows, key=lambda row: abs(float(row.value) - float(row.threshold)))


def _limits(threshold: Value | None) -> dict[tuple[tuple[str, str], ...], float]:
    return {} if threshold is None else {tuple(labels): value for labels, value in _items(threshold)}


def _items(value: Value) -> Iterable[tuple[tuple[tuple[str, str], ...], float]]:
    for row, labels in enumerate(value.labels):
        if value.present[row, 0]:
            yield tuple(labels), float(value.values[row, 0])


def _alerts(running: Running, rule: Rule, wanted: Mapping[str, str]) -> list[Alert]:
    keys = running.judge.state.of_rule.of(rule.name)
    found = (running.judge.state.alerts[key] for key in sorted(keys))
    return [alert for alert in found if _fits(alert.labels, wanted)]


def _checks(running: Running, bound: BoundRule) -> Iterable[WhyNotCheck]:
    """The checks whose series the rule reads, or read when they last reported."""
    names = set(running.evaluator.rules.checks_of(bound.name)) | set(running.judge.feeders(bound.name))
    for name in sorted(names):
        state = running.schedule.state(CheckName(name))
        if state is None:
            yield WhyNotCheck(name, "not configured")
        else:
            said = "paused" if state.paused else state.status.value
            yield WhyNotCheck(name, said, state.last_run_at, state.summary)


def _verdict(
    rule: Rule, parts: Parts, rows: Sequence[WhyNotRow], wanted: Mapping[str, str], alerts: Sequence[Alert], now: float
) -> str:
    """The answer in one sentence."""
    firing = [alert for alert in alerts if alert.state is AlertState.FIRING]
    if firing:
        one = firing[0]
        if one.held:
            return f"it does fire ({one.id}), and nobody is told: {'; '.join(map(str, one.held))}"
        return f"it does fire: sixfbctl why {one.id} says what became of it"
    if alerts and alerts[0].due_at is not None:
        left = show_duration(max(0, round(alerts[0].due_at - now)))
        return f"it is pending: it fires in {left} if the expression holds until then (for {show_duration(rule.for_s)})"
    if alerts and alerts[0].blind and feeders_blind(alerts[0], alerts[0].checks):
        return "it is pending, and a check that feeds it is not reporting"
    held = [dict(labels) for labels, _ in _items(parts.whole) if _fits(dict(labels), wanted)]
    if held and not rule.levels:
        lasted = show_duration(round(parts.held_s))
        return (
            f"its expression held for {lasted} of the {show_duration(rule.for_s)} that it must"
            if rule.for_s
            else ("its expression held: it fires with the next evaluation")
        )
    if held:
        return "its expression has a value, and no level has it"
    if rows:
        row = rows[0]
        return f"its value is {row.value}, which is not {row.op} {row.threshold}"
    if missing := [one.selector for one in parts.selectors if not one.series]:
        return f"there is no series {missing[0]}: nothing brings it, or what did has not reported for too long"
    if parts.left is not None and wanted and any(True for _ in _items(parts.left)):
        return f"no series of it has the labels {', '.join(f'{name}={value}' for name, value in wanted.items())}"
    return "its expression finds nothing"
