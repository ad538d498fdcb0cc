"""What a reload would do, found out without doing it: the plan, one evaluation of its rules, and the judge's own decision on
a copy of the state. Nothing is written, sent or kept.

Series of checks that the plan drops are taken to end, as they will; what a new check will measure nobody knows.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np
import trio
from msgspec import Struct

from sixfbd.alerting.decide import decide
from sixfbd.alerting.inputs import Replaced
from sixfbd.alerting.policy import Policy
from sixfbd.alerting.routes import Routing
from sixfbd.control.engine import PreviewAlert, PreviewView
from sixfbd.host import PluginCatalog
from sixfbd.journal.records import AlertChanged, Base
from sixfbd.journal.state import State, apply
from sixfbd.model import Actor, Alert, AlertKey, AlertState, CheckName, Evaluated, RuleName, Target
from sixfbd.promql import Stop
from sixfbd.readers.addresses import Addresses
from sixfbd.reload import Plan, by_name, discard, policy_after, prepare
from sixfbd.rules.bind import ENGINE_PREFIX, BoundRules
from sixfbd.rules.evaluate import at_ms, evaluate_rule
from sixfbd.running import Running
from sixfbd.schedule import GRACE_S
from sixfbd.window.blocks import STALE, Block
from sixfbd.window.snapshot import Matcher, Snapshot

K = TypeVar("K")

LIMIT_S: Final = 40.0  # of the evaluation of all rules
DECIDED_AFTER_S: Final = 0.001  # the evaluations come after the new rules


async def preview(running: Running) -> PreviewView:
    """Read the configuration again and return what a reload would do. Raises Refused with all that is wrong with it."""
    async with running.reloading:
        plan: Plan | None = None
        try:
            plan = await prepare(running, running.config_path)
            return await _foresee(running, plan)
        finally:
            if plan is not None:
                with trio.CancelScope(shield=True), trio.move_on_after(GRACE_S):
                    await discard(plan, running)
                _forget_code(plan.catalog, running.catalog)


def _forget_code(seen: PluginCatalog, known: PluginCatalog) -> None:
    """Let the reload read plugin files anew that only the preview has loaded: they may be edited in between."""
    kept = {info.module for info in known.plugins}
    for info in seen.plugins:
        if info.module not in kept and info.origin == info.file.removesuffix("/__init__.py"):
            sys.modules.pop(info.module, None)


async def _foresee(running: Running, plan: Plan) -> PreviewView:
    now = running.world.clock.now()
    policy = policy_after(running, plan)
    dropped = frozenset(name for name in running.checks if name not in plan.checks)
    unreported = {name for name, one in plan.checks.items() if running.checks.get(name) is not one}
    feeders = {name: plan.bound.checks_of(name) | running.judge.feeders(name) for name in plan.bound.names}
    checks = unreported.union(*feeders.values())
    sight = _Sight(feeders, frozenset(name for name in checks if name in unreported or running.schedule.is_blind(name)))
    snapshot = _Ended(running.window.snapshot(), dropped, at_ms(now)) if dropped else running.window.snapshot()
    stop = Stop.within(LIMIT_S)
    work = partial(_decide, running.judge.cut()[0], plan, policy, snapshot, sight, now, stop)
    try:
        outcome = await running.reader.offload(work)
    except trio.Cancelled:
        stop.cancel("nobody waits for the preview")
        raise
    return _view(running, plan, policy, outcome)


class _Sight(Struct, frozen=True):
    """Which checks feed each rule, and which of all of them would not be reporting right after the reload."""

    feeders: Mapping[RuleName, frozenset[CheckName]]
    blind: frozenset[CheckName]

    def of(self, evaluated: Evaluated) -> tuple[str, ...]:
        names = self.feeders[evaluated.rule] | {check for found in evaluated.found for check in found.checks}
        return tuple(sorted(name for name in names if name in self.blind))


class _Routes(Struct, frozen=True):
    """To whom alerts go under one configuration."""

    routing: Routing
    addresses: Addresses
    at: float

    def targets(self, alert: Alert) -> tuple[Target, ...]:
        return tuple(routed.target for routed in self.routing.targets(alert.labels, alert.severity, self.at))

    def told(self, alert: Alert) -> tuple[str, ...]:
        """Return the targets in words, two that look alike once."""
        shown = (self.addresses.target(one) for one in self.targets(alert))
        words = [f"{one.receiver} through {one.notifier} {one.address}".rstrip() for one in shown]
        return tuple(dict.fromkeys(words))


class _Outcome(Struct, frozen=True):
    """The open alerts before and after, the last change of each, and the rules that failed, in words."""

    before: dict[AlertKey, Alert]
    after: dict[AlertKey, Alert]
    changes: dict[AlertKey, AlertChanged]
    failed: tuple[str, ...]


def _decide(
    base: Base, plan: Plan, policy: Policy, snapshot: Snapshot, sight: _Sight, now: float, stop: Stop
) -> _Outcome:
    """Judge the plan's rules on a copy of the state. For a thread."""
    state = State()
    apply(state, base)
    before = {key: state.alerts[key] for key in state.alerts}
    evaluated = _evaluate(plan.bound, snapshot, sight, now, stop)
    replaced = Replaced(now, policy, plan.config.text_hash, Actor("preview"), None)
    later = now + DECIDED_AFTER_S
    decision = decide(state, [replaced, *evaluated], policy, later, claim=False)
    state.publish(decision.draft)
    changes = {record.alert.key: record for record in decision.records if isinstance(record, AlertChanged)}
    failed = tuple(f"rule {one.rule} fails: {one.error}" for one in evaluated if one.error is not None)
    return _Outcome(before, {key: state.alerts[key] for key in state.alerts}, changes, failed)


def _evaluate(bound: BoundRules, snapshot: Snapshot, sight: _Sight, now: float, stop: Stop) -> list[Evaluated]:
    found = []
    for name in bound.names:
        one = evaluate_rule(bound.rule(name), snapshot, now, stop)
        found.append(Evaluated(one.rule, now + DECIDED_AFTER_S, one.found, error=one.error, blind_checks=sight.of(one)))
    return found


class _Ended:
    """A snapshot in which the series of some checks end at one moment: what `Window.end_check` will make of it."""

    def __init__(self, snapshot: Snapshot, checks: frozenset[CheckName], now_ms: int) -> None:
        self._snapshot = snapshot
        self._checks = checks
        self._now_ms = now_ms
        self.points = snapshot.points
        self.loaded = snapshot.loaded
        self.look_back_ms = snapshot.look_back_ms

    def select(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> list[Block]:
        blocks = self._snapshot.select(matchers, lo_ms, hi_ms)
        return [self._end(block) for block in blocks] if hi_ms >= self._now_ms else blocks

    def _end(self, block: Block) -> Block:
        ending = [self._ends(block.check, dict(series.labels), series.metric) for series in block.series]
        if block.step or not any(ending):
            return block
        past = block.t_ms < self._now_ms
        last = block.v[-1:].copy()
        last[0, ending] = STALE
        t_ms = np.append(block.t_ms[past], np.int64(self._now_ms))
        return Block(
            block.series, block.ids, t_ms, np.concatenate([block.v[past], last]), block.stale_after_ms, block.check
        )

    def _ends(self, reporter: str, labels: Mapping[str, str], metric: str) -> bool:
        return reporter in self._checks or (metric.startswith(ENGINE_PREFIX) and labels.get("check") in self._checks)


# ---- in sixfbctl's form --------------------------------------------------------------------------------------------------


def _view(running: Running, plan: Plan, policy: Policy, outcome: _Outcome) -> PreviewView:
    fates = _fates(running, plan)
    dropped = frozenset(name for name in running.checks if name not in plan.checks)
    now = running.world.clock.now()
    old = _Routes(running.judge.policy.routing, Addresses(running.config, running.catalog), now)
    new = _Routes(policy.routing, Addresses(plan.config, plan.catalog), now)
    transitions = _transitions(old, new, outcome, dropped)
    unmade = [
        f"{kind} {name} cannot be made: {one.problem}"
        for kind, instances in (("check", plan.checks), ("notifier", plan.notifiers), ("inbound", plan.inbounds))
        for name, one in instances.items()
        if one.problem
    ]
    return PreviewView(
        kept=tuple(fates["kept"]),
        added=tuple(fates["added"]),
        changed=tuple(fates["changed"]),
        restarted=tuple(fates["restarted"]),
        dropped=tuple(fates["dropped"]),
        would_fire=tuple(transitions["fire"]),
        would_resolve=tuple(transitions["resolve"]),
        rerouted=tuple(transitions["reroute"]),
        needs_restart=plan.needs_restart,
        problems=(*plan.problems, *unmade, *outcome.failed),
        warnings=plan.warnings,
        config_hash=plan.config.text_hash,
    )


def _fates(running: Running, plan: Plan) -> Mapping[str, Sequence[str]]:
    """Return what becomes of each check, notifier and rule, and which settings differ."""
    fates: defaultdict[str, list[str]] = defaultdict(list)
    instances: tuple[tuple[str, Mapping[Any, object], Mapping[Any, object]], ...] = (
        ("check", running.checks, plan.checks),
        ("notifier", running.notifiers, plan.notifiers),
        ("inbound", running.inbound.instances, plan.inbounds),
    )
    for kind, old, new in instances:
        for name, fate in _compared(old, new, lambda a, b: a is b):
            fates["restarted" if fate == "changed" else fate].append(f"{kind} {name}")
    for rule, fate in _compared(by_name(running.rules), by_name(plan.rules), lambda a, b: a == b):
        fates[fate].append(f"rule {rule}")
    fates["changed"] += plan.changed_settings
    return fates


def _compared(
    old: Mapping[K, object], new: Mapping[K, object], same: Callable[[object, object], bool]
) -> Iterator[tuple[K, str]]:
    for name in {**old, **new}:
        if name not in new:
            yield name, "dropped"
        elif name not in old:
            yield name, "added"
        else:
            yield name, "kept" if same(old[name], new[name]) else "changed"


def _transitions(
    old: _Routes, new: _Routes, outcome: _Outcome, dropped: frozenset[CheckName]
) -> Mapping[str, Sequence[PreviewAlert]]:
    """Return the alerts that would fire (now, or when their `for` is over), resolve, or be told to others than before."""
    found: defaultdict[str, list[PreviewAlert]] = defaultdict(list)
    for key in sorted({*outcome.before, *outcome.after}):
        before, after = outcome.before.get(key), outcome.after.get(key)
        if _fires(before) and not _fires(after):
            assert before is not None
            ended = ", ".join(check for check in before.checks if check in dropped)
            why = outcome.changes[key].why or (f"check {ended} dropped" if ended else "no longer true")
            found["resolve"].append(_alert_view(before, AlertState.RESOLVED, new, why=why))
        elif after is not None and not _fires(before) and (before is None or _fires(after)):
            found["fire"].append(_alert_view(after, after.state, new, known=before is not None))
        elif before is not None and after is not None and set(old.targets(before)) != set(new.targets(after)):
            found["reroute"].append(_alert_view(after, after.state, new, was=old.told(before)))
    return found


def _fires(alert: Alert | None) -> bool:
    return alert is not None and alert.state is AlertState.FIRING


def _alert_view(
    alert: Alert, state: AlertState, routes: _Routes, *, known: bool = True, why: str = "", was: tuple[str, ...] = ()
) -> PreviewAlert:
    return PreviewAlert(
        id=alert.id if known else "",  # the id of one that is foreseen would be another when it comes
        rule=alert.key.rule,
        labels=dict(alert.key.labels),
        severity=alert.severity,
        state=state,
        due_at=alert.due_at if state is AlertState.PENDING else None,
        reason=why,
        told=routes.told(alert),
        told_before=was,
    )
