"""What happens to firing alerts as time goes by: holds begin and end, escalations take their steps, repeats fall due. Pure.

The part of a round that looks at alerts once all inputs are taken, before messages are made of what is owed. A start finds
alerts as they were when the daemon ended, and may be over since: nobody is told of them before they were looked at again.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from msgspec.structs import replace

from sixfbd.alerting.drafting import DUE_AT_ONCE, SUPERSEDED, Drafting, Steps
from sixfbd.alerting.escalation import next_step
from sixfbd.alerting.holds import Held, Inhibition, inhibits_by, next_boundary
from sixfbd.alerting.owe import alerting, kept_from, owe_again, owe_step
from sixfbd.alerting.policy import Policy
from sixfbd.alerting.routes import all_match
from sixfbd.journal.records import AlertChanged, HoldsChecked, Owed
from sixfbd.journal.state import State
from sixfbd.model import Alert, AlertKey, AlertState, Hold, ObligationKind, Target
from sixfbd.rules.defaults import PARENT_DOWN

LOOK_S: Final = 30.0  # after a start, at most, until people are told again of what fired before it

T = TypeVar("T")


class Holding(Drafting):
    """A decision that heeds holds; `doubted` are the alerts whose holds may have changed in this round."""

    unseen: frozenset[AlertKey] = frozenset()
    """What fired before a start and was not evaluated since, for LOOK_S at most: of that nobody is told meanwhile."""

    def __init__(self, published: State, policy: Policy, now: float) -> None:
        super().__init__(published, policy, now)
        self._doubted: dict[AlertKey, None] = {}
        self._doubt_all = False
        self._sources: list[tuple[Inhibition, tuple[str, ...]]] = []  # that began or ended in this round

    # ---- holds ---------------------------------------------------------------------------------------------------------

    def note_firing(self, before: Alert | None, after: Alert) -> None:
        """An alert changed: its own holds may be others, and those of what it inhibits, or did."""
        if after.state is AlertState.FIRING:
            self._doubted[after.key] = None
        if after.key.rule == PARENT_DOWN and (before is None or before.state is not after.state):
            self.doubt_all_holds()
        if not self.policy.inhibitions:
            return
        for alert in (before, after):
            if alert is not None and alert.state in (AlertState.FIRING, AlertState.RESOLVED):
                self._sources += inhibits_by(self.policy.inhibitions, alert)

    def doubt(self, keys: Iterable[AlertKey]) -> None:
        self._doubted |= dict.fromkeys(keys)

    def doubt_all_holds(self) -> None:
        self._doubt_all = True

    def heed_holds(self) -> Steps[None]:
        """Hold back what is to be held back now, and tell what is so no longer as far as anybody knows less."""
        by_clock = self._something_begins_or_ends()
        policy = self.policy
        held = Held(self.draft, policy.calendar, policy.routing, policy.inhibitions, self.now, policy.children)
        for key in self._doubtful(by_clock):
            alert = self.draft.alerts.get(key)
            if alert is not None and alert.state is AlertState.FIRING:
                self._hold(alert, held.holds_of(alert))
                yield from self.rest()
        if by_clock:
            self.emit(HoldsChecked(self.now))

    def _something_begins_or_ends(self) -> bool:
        """Tell whether the clock has begun or ended a hold since holds were heeded last, or the wait after a start."""
        last = self.draft.holds_at or 0.0
        boundary = next_boundary(self.draft.silences.values(), self.policy.calendar, last)
        if boundary is not None and boundary <= self.now:
            return True
        return bool(self.draft.withheld) and last < self.looked_at <= self.now

    # ---- after a start -------------------------------------------------------------------------------------------------

    @property
    def looked_at(self) -> float:
        """When what fired before the last start is told of though nothing has looked at it again."""
        return 0.0 if self.draft.started is None else self.draft.started.at + LOOK_S

    def is_unseen(self, incident: str) -> bool:
        return bool(self.unseen) and self.draft.incidents.get(incident) in self.unseen

    def due_now(self, ask: Callable[[float, int], list[T]], waits: Callable[[T], bool]) -> list[T]:
        """Return the first that is due of what `ask` gives up to a time and a number, without what waits for something else."""
        limit = DUE_AT_ONCE
        while True:
            due = ask(self.now, limit)
            found = [one for one in due if not waits(one)]
            if found or len(due) < limit:
                return found
            limit *= 2

    # ---- which holds -----------------------------------------------------------------------------------------------------

    def _doubtful(self, by_clock: bool) -> Iterable[AlertKey]:
        """Return the alerts whose holds may be others now, or of which somebody may be told after all."""
        if by_clock or self._doubt_all:
            return sorted(self.draft.alerts)
        if self._sources:
            return [key for key in sorted(self.draft.alerts) if key in self._doubted or self._may_be_target(key)]
        return list(self._doubted)

    def _may_be_target(self, key: AlertKey) -> bool:
        labels = self.draft.alerts[key].labels
        return any(all_match(one.target, labels) and one.values(labels) == values for one, values in self._sources)

    def _hold(self, alert: Alert, holds: tuple[Hold, ...]) -> None:
        alert = self._with_escalation(alert, holds)
        pending = [one for one in self.draft.open_obligations(alert.id) if one.state == "pending"]
        kept = kept_from(self.policy, alert, self.now) if pending and not holds else {}
        for owed in pending:
            reason = "; ".join(map(str, holds)) or kept.get(owed.target)
            if reason and owed.kind != "resolve":
                self.suppress(owed, reason, self.now, held=True)
        withheld = self.draft.withheld.get(alert.id)
        if withheld and not holds and alert.key not in self.unseen:
            self._tell_after_all(alert, withheld)

    def _with_escalation(self, alert: Alert, holds: tuple[Hold, ...]) -> Alert:
        """Return the alert with its holds and the time of the next step of an escalation, written down if they changed."""
        unheard = alert.held and not holds and self._nobody_knows(alert)
        alert = replace(alert, unheard_until=self.now) if unheard else alert
        step = None if alert.once else next_step(self.policy.escalations, alert)
        marked = replace(alert, held=holds, escalate_at=None if step is None else step[0])
        if (marked.held, marked.escalate_at) != (alert.held, alert.escalate_at):
            why = "; ".join(map(str, holds)) or ("no longer held" if alert.held else "escalation")
            self.emit(AlertChanged(max(self.now, alert.since), marked, alert.state, why))
        return marked

    def _nobody_knows(self, alert: Alert) -> bool:
        """Tell whether holds have kept from everybody, so far, that an alert fires with the severity that it has."""
        if alert.unheard_until is not None and alert.unheard_until >= (alert.severity_at or alert.since):
            return False  # once: what is held again and again is escalated in the end
        waits = any(one.kind != "resolve" for one in self.draft.open_obligations(alert.id))
        told = (self.draft.told.get(alert.id) or {}).values()
        is_known = waits or any(one.severity is alert.severity for one in told)
        return alert.id in self.draft.withheld and not is_known

    def _tell_after_all(self, alert: Alert, withheld: Mapping[Target, str]) -> None:
        """The holds are over: whoever knows less than what is so now is told, and nobody else; nor is anybody of what
        somebody has taken on as it is now."""
        if alert.acked_at is not None and alert.acked_at >= (alert.severity_at or alert.since):
            return
        unknowing: dict[ObligationKind, dict[Target, str]] = {"fire": {}, "level": {}}
        waiting = {one.target for one in self.draft.open_obligations(alert.id)}
        for target, obligation in withheld.items():
            told = self.draft.told_by(alert.id, target)
            if target not in waiting and (told is None or told.severity is not alert.severity):
                unknowing["fire" if told is None else "level"][target] = obligation
        for kind, targets in unknowing.items():
            self.owe(owe_again(self.draft, self.policy, alert, kind, targets, self.now), self.now)

    # ---- escalations and repeats -----------------------------------------------------------------------------------------

    def escalate(self) -> Steps[None]:
        """Take every step that is due: whom it names is told, in the transaction that remembers that it was taken."""
        while due := self.due_now(self.draft.escalations_due, lambda one: one[1] in self.unseen):
            for _, key in due:
                alert = self.draft.alerts[key]
                step = next_step(self.policy.escalations, alert)
                if step is None or step[0] > self.now:  # the configuration is another one
                    self._with_escalation(alert, alert.held)
                    continue
                taken = replace(alert, escalated=(*alert.escalated, step[1].name))
                after = next_step(self.policy.escalations, taken)
                taken = replace(taken, escalate_at=None if after is None else after[0])
                self.emit(AlertChanged(self.now, taken, alert.state, f"escalated: {step[1].name}"))
                self.owe(owe_step(self.draft, self.policy, taken, step[1].receiver, self.now), self.now)
                yield from self.rest()

    def repeat(self) -> Steps[None]:
        """Tell again what still fires and nobody has taken on; a hold keeps that back, too."""
        while due := self.due_now(self.draft.repeats_due, lambda one: self.is_unseen(one[1][0])):
            for _, (incident, target) in due:
                alert = self.draft.alerts[self.draft.incidents[incident]]
                self._repeat(alert, target)
                yield from self.rest()

    def _repeat(self, alert: Alert, target: Target) -> None:
        if alert.held:
            self._no_repeat(alert, target, "; ".join(map(str, alert.held)), held=True)
        elif any(one.target == target for one in self.draft.open_obligations(alert.id)):
            self._no_repeat(alert, target, SUPERSEDED)
        elif owed := owe_again(self.draft, self.policy, alert, "repeat", {target: ""}, self.now):
            self.owe(owed, self.now)
            if all(one.target != target for one in owed):
                heirs = ", ".join(dict.fromkeys(one.target.receiver for one in owed))
                self._no_repeat(alert, target, f"handed over to {heirs}")
        else:
            self._no_repeat(alert, target, "no route names it now, or it is kept from it")

    def _no_repeat(self, alert: Alert, target: Target, reason: str, *, held: bool = False) -> None:
        owed = replace(alerting(alert, "repeat", target, self.now), state="suppressed", reason=reason, held=held)
        self.emit(Owed(self.now, owed))

    # ---- groups --------------------------------------------------------------------------------------------------------

    def gather(self) -> Steps[None]:
        """What waited for its group to fill waits no longer."""
        while due := self.due_now(self.draft.groups_due, self._gathers):
            for key in due:
                self.ready[key] = None
                yield from self.rest()

    def _gathers(self, key: str) -> bool:
        owed = self.draft.obligations[key]
        return key in self.ready or (owed.kind != "resolve" and self.is_unseen(owed.subject))

    def next_holding_times(self) -> list[float | None]:
        """Return when time alone asks again for anything of this."""
        return [
            next_boundary(self.draft.silences.values(), self.policy.calendar, self.now),
            self.draft.next_escalation_at(),
            self.draft.next_repeat_at(),
            self.draft.next_group_at(),
        ]
