"""What happens to firing alerts as time goes by: holds begin and end, escalations take their steps, repeats fall due. Pure.

The part of a round that looks at alerts once all inputs are taken, before messages are made of what is owed.
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from sixfbd.alerting.drafting import DUE_AT_ONCE, SUPERSEDED, Drafting, Steps
from sixfbd.alerting.escalation import next_step
from sixfbd.alerting.holds import Held, Inhibition, inhibits_by, next_boundary
from sixfbd.alerting.owe import alerting, owe_again, owe_step
from sixfbd.alerting.policy import Policy
from sixfbd.alerting.routes import all_match
from sixfbd.journal.records import AlertChanged, HoldsChecked, Owed
from sixfbd.journal.state import State
from sixfbd.model import Alert, AlertKey, AlertState, Hold, ObligationKind, Target
from sixfbd.rules.defaults import PARENT_DOWN


class Holding(Drafting):
    """A decision that heeds holds; `doubted` are the alerts whose holds may have changed in this round."""

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

    def doubt_all_holds(self) -> None:
        self._doubt_all = True

    def heed_holds(self) -> Steps[None]:
        """Hold back what is to be held back now, and tell what is so no longer as far as anybody knows less."""
        boundary = next_boundary(self.draft.silences.values(), self.policy.calendar, self.draft.holds_at or 0.0)
        by_clock = boundary is not None and boundary <= self.now
        if by_clock or self._doubt_all:
            keys: Iterable[AlertKey] = sorted(self.draft.alerts)
        elif self._sources:
            keys = [key for key in sorted(self.draft.alerts) if key in self._doubted or self._may_be_target(key)]
        else:
            keys = list(self._doubted)
        held = Held(self.draft, self.policy.calendar, self.policy.inhibitions, self.now, self.policy.children)
        for key in keys:
            alert = self.draft.alerts.get(key)
            if alert is not None and alert.state is AlertState.FIRING:
                self._hold(alert, held.holds_of(alert))
                yield from self.rest()
        if by_clock:
            self.emit(HoldsChecked(self.now))

    def _may_be_target(self, key: AlertKey) -> bool:
        labels = self.draft.alerts[key].labels
        return any(all_match(one.target, labels) and one.values(labels) == values for one, values in self._sources)

    def _hold(self, alert: Alert, holds: tuple[Hold, ...]) -> None:
        alert = self._with_escalation(alert, holds)
        if holds:
            reason = "; ".join(map(str, holds))
            for owed in self.draft.open_obligations(alert.id):
                if owed.state == "pending" and owed.kind != "resolve":
                    self.suppress(owed, reason, self.now, held=True)
        elif withheld := self.draft.withheld.get(alert.id):
            self._tell_after_all(alert, withheld)

    def _with_escalation(self, alert: Alert, holds: tuple[Hold, ...]) -> Alert:
        """Return the alert with its holds and the time of the next step of an escalation, written down if they changed."""
        step = None if alert.once else next_step(self.policy.escalations, alert)
        marked = replace(alert, held=holds, escalate_at=None if step is None else step[0])
        if (marked.held, marked.escalate_at) != (alert.held, alert.escalate_at):
            why = "; ".join(map(str, holds)) or ("no longer held" if alert.held else "escalation")
            self.emit(AlertChanged(max(self.now, alert.since), marked, alert.state, why))
        return marked

    def _tell_after_all(self, alert: Alert, withheld: Mapping[Target, str]) -> None:
        """The holds are over: whoever knows less than what is so now is told, and nobody else."""
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
        while due := self.draft.escalations_due(self.now, DUE_AT_ONCE):
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
        while due := self.draft.repeats_due(self.now, DUE_AT_ONCE):
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
        while due := self._ripe():
            for key in due:
                self.ready[key] = None
                yield from self.rest()

    def _ripe(self) -> list[str]:
        found = self.draft.groups_due(self.now, DUE_AT_ONCE + len(self.ready))
        return [key for key in found if key not in self.ready]

    def next_holding_times(self) -> list[float | None]:
        """Return when time alone asks again for anything of this."""
        return [
            next_boundary(self.draft.silences.values(), self.policy.calendar, self.now),
            self.draft.next_escalation_at(),
            self.draft.next_repeat_at(),
            self.draft.next_group_at(),
        ]
