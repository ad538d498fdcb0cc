"""Drills: messages, marked as such, that try out the way to people when nothing is wrong.

One of `[[drills]]` is held whenever its time interval begins, or is on when the daemon starts and was not held in it. Whether
it arrived is known from receipts where there are some; what did not is an alert (`DrillFailed`), and withholds the heartbeat.
"""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Final, Protocol

import structlog
from msgspec import Struct

from sixfbd.alerting.routes import Routing
from sixfbd.config.tables import DrillTable
from sixfbd.journal.records import DrillHeld
from sixfbd.journal.state import DRILL_GROUP, State
from sixfbd.model import Actor, HoldDrill, Sample, Target
from sixfbd.running import Running
from sixfbd.vitals import gauge

RETRY_S: Final = 60.0  # when one could not be held, as while the journal takes no writes
ARRIVES_S: Final = 600.0  # within which a drill has to arrive
MOST_CHANGES: Final = 1000  # of an interval since the last drill, that are looked at
BY: Final = Actor("schedule")

log = structlog.get_logger("sixfbd.drills")


class Interval(Protocol):
    """What a drill needs of a time interval."""

    def contains(self, at: float) -> bool: ...

    def next_change(self, at: float) -> float | None: ...


class FailedDrill(Struct, frozen=True):
    """A target that the last drill of a name ("": by hand) did not reach."""

    drill: str
    target: Target

    def __str__(self) -> str:
        return (
            f"the drill {self.drill or 'by hand'} did not reach {self.target.receiver} through {self.target.notifier}"
        )


async def hold(running: Running) -> None:
    """Hold each drill when it is due, for as long as it is let; `[[drills]]` may change by reloads."""
    while True:
        generation, pause_s = running.reloaded.generation, inf
        for drill in running.config.drills:
            pause_s = min(pause_s, _begins_in_s(running, drill))
            if not _is_due_now(running, drill):
                continue
            outcome = await running.judge.command(HoldDrill(drill.receivers, drill.name), BY)
            if not outcome.ok:
                log.warning("drill.not_held", drill=drill.name, error=outcome.error)
                pause_s = min(pause_s, RETRY_S)
        await running.reloaded.wait_at_most(generation, pause_s)


def _begins_in_s(running: Running, drill: DrillTable) -> float:
    """Return after how many seconds the drill's interval begins or ends next."""
    intervals: Mapping[str, Interval] = running.judge.policy.calendar.intervals
    interval, now = intervals.get(drill.during), running.world.clock.now()
    change_at = None if interval is None else interval.next_change(now)
    return inf if change_at is None else max(0.0, change_at - now)


def _is_due_now(running: Running, drill: DrillTable) -> bool:
    intervals: Mapping[str, Interval] = running.judge.policy.calendar.intervals
    interval, last = intervals.get(drill.during), running.judge.state.drills.get(drill.name)
    return interval is not None and is_due(interval, None if last is None else last.at, running.world.clock.now())


def is_due(interval: Interval, last_at: float | None, now: float) -> bool:
    """Tell whether an interval is on, and was off at some time since the last drill."""
    if not interval.contains(now):
        return False
    if last_at is None:
        return True
    at: float | None = last_at
    for _ in range(MOST_CHANGES):
        if at is None or at > now:
            return False
        if not interval.contains(at):
            return True
        at = interval.next_change(at)
    return True  # an interval that has been on for so long has ended in between, or is as good as always on


def failed(state: State, routing: Routing, now: float) -> list[FailedDrill]:
    """Return what the last drills did not reach, of the targets that there still are: given up, or not within ARRIVES_S."""
    return [
        FailedDrill(name, target)
        for name in sorted(state.drills)
        for target in state.drills[name].targets
        if target in routing.all_of(target.receiver)
        and (state.drilled.get(target) or 0.0) < state.drills[name].at
        and (now - state.drills[name].at > ARRIVES_S or not _is_on_its_way(state, state.drills[name], target))
    ]


def _is_on_its_way(state: State, drill: DrillHeld, target: Target) -> bool:
    if any(one.target == target for one in state.open_obligations(drill.subject)):
        return True
    return any(one.message.target == target and one.message.group == DRILL_GROUP for one in state.awaited.values())


def samples(running: Running) -> Iterator[Sample]:
    """When a drill last reached each receiver through each notifier, the address for which that is longest ago; what failed."""
    state, routing, now = running.judge.state, running.judge.policy.routing, running.world.clock.now()
    reached: dict[tuple[str, str], float] = {}
    for name in sorted(state.drills):
        for target in state.drills[name].targets:
            if target in routing.all_of(target.receiver):
                key, at = (target.receiver, target.notifier), state.drilled.get(target) or 0.0
                reached[key] = min(reached.get(key, at), at)
    for (receiver, notifier), at in reached.items():
        yield gauge("sixfbd_drill_last_success_timestamp_seconds", at, receiver=receiver, notifier=notifier)
    lost = {(one.drill, one.target.receiver, one.target.notifier) for one in failed(state, routing, now)}
    for name in sorted(state.drills):
        for receiver, notifier in sorted({(one.receiver, one.notifier) for one in state.drills[name].targets}):
            value = float((name, receiver, notifier) in lost)
            labels = {"drill": name or "by hand", "receiver": receiver, "notifier": notifier}
            yield gauge("sixfbd_drill_failed", value, **labels)
