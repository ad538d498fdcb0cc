"""The decision of one round: from the published state and the inputs to records, effects and the next due time. Pure.

The draft changes only through `apply`, record by record, so that memory equals the fold of the journal. Order within a
round: inputs by time, each after the timers that ended before it; then what is due in the outbox; then new messages.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from sixfbd.alerting import states
from sixfbd.alerting.drafting import DUE_AT_ONCE, SUPERSEDED, Steps
from sixfbd.alerting.inputs import (
    Absent,
    Answer,
    Began,
    CommandInput,
    Decision,
    EventsCommitted,
    Input,
    Lookup,
    Lost,
    Noted,
    Replaced,
    Reply,
    Stood,
    Tick,
    in_order,
)
from sixfbd.alerting.making import Making
from sixfbd.alerting.overdue import late_at, look_at
from sixfbd.alerting.owe import Transition, owe, owe_newly_named, owe_notice
from sixfbd.alerting.policy import NotifierPolicy, Policy
from sixfbd.alerting.routes import Routing
from sixfbd.journal.records import (
    AlertChanged,
    Configured,
    EventsJudged,
    MessageChanged,
    Owed,
    ReceiptHeld,
    Record,
    StoodStill,
)
from sixfbd.journal.state import State
from sixfbd.model import (
    AlertKey,
    AlertState,
    Evaluated,
    Found,
    Message,
    MessageId,
    Obligation,
    ObligationState,
    Outcome,
    Receipt,
    Rule,
    RuleName,
)
from sixfbd.outbox.receipts import Hold, Ignore, Take, heed
from sixfbd.outbox.steps import GiveUp, Look, Send, Suppress, next_step, retry_delay_s
from sixfbd.plugin import OverPace, PermanentFailure, TemporaryFailure

UNSURE_S: Final = (
    30.0  # before what may have arrived is sent for the one more time: a provider that hangs up does so for a while
)
SOONEST_S: Final = 0.1  # what was over the pace is not asked again sooner, whatever its notifier says
LOOKS_AGAIN_S: Final = 1.0  # while what fired before a start waits to be looked at, and times have passed meanwhile
EVENTS_UNJUDGED: Final = 1000  # events without a notice that may pass before their number is written

Latest = Mapping[RuleName, Evaluated]


def decide(
    published: State,
    inputs: Sequence[Input],
    policy: Policy,
    now: float,
    *,
    latest: Latest | None = None,
    claim: bool = True,
    judged_event: int = 0,
) -> Decision:
    """Return what a round of the judge decides; `published` stays as it is.

    `latest` are the last evaluations, by which a timer that ends tells the value of now. Without `claim` no message is
    taken up: what is owed waits. `judged_event`: events up to this number were looked at, though nothing wrote it yet.
    """
    steps = deciding(published, inputs, policy, now, latest=latest, claim=claim, judged_event=judged_event)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            decision: Decision = end.value
            return decision


def deciding(
    published: State,
    inputs: Sequence[Input],
    policy: Policy,
    now: float,
    *,
    latest: Latest | None = None,
    claim: bool = True,
    judged_event: int = 0,
) -> Steps[Decision]:
    """`decide` in steps: yields every WORK_A_STEP or so, so that a large round need not hold up the loop."""
    return (yield from _Round(published, policy, now, latest or {}, claim, judged_event).run(inputs))


def after_start(published: State, now: float, why: str) -> list[Record]:
    """Return what a start finds: messages that were being sent are `unknown`, and no timer runs on unseen.

    A clock that was set back meanwhile holds nothing up: what waits for a later hour is looked at now.
    """
    found: list[Record] = []
    set_back = published.last_alive_at is not None and published.last_alive_at > now
    for message in sorted(published.messages.values(), key=lambda one: one.id):
        if message.state == "sending":
            found.append(MessageChanged(now, replace(message, state="unknown", next_try_at=now, last_error=why), why))
        elif set_back and message.next_try_at > now:
            found.append(MessageChanged(now, replace(message, next_try_at=now), "the clock was set back"))
    for key in sorted(published.alerts):
        change = states.unconfirmed(published.alerts[key], now, "not evaluated since the start")
        if change is not None:
            found.append(change)
    return found


class _Round(Making):
    """One decision in the making."""

    def __init__(self, published: State, policy: Policy, now: float, latest: Latest, claim: bool, judged: int) -> None:
        super().__init__(published, policy, now, claim)
        self.judged = judged
        self.latest = dict(latest)
        self._found: dict[RuleName, dict[AlertKey, Found]] = {}

    def run(self, inputs: Sequence[Input]) -> Steps[Decision]:
        unseen_before = tuple(self._unseen())
        for one in in_order(inputs):
            yield from self._timers(min(one.at, self.now))
            yield from self._take(one)
        yield from self._timers(self.now)
        self.unseen = frozenset(self._unseen())
        self.doubt(key for key in unseen_before if key not in self.unseen)
        yield from self.heed_receipts()
        yield from self.heed_holds()
        yield from self.escalate()
        yield from self.repeat()
        yield from self.heed_late()
        yield from self.gather()
        yield from self._outbox()
        yield from self.new_messages()
        return Decision(self.draft, tuple(self.records), tuple(self.effects), self._next_due(), self.policy)

    # ---- inputs --------------------------------------------------------------------------------------------------------

    def _take(self, one: Input) -> Steps[None]:
        match one:
            case Evaluated():
                yield from self._evaluated(one)
            case Answer():
                self._answered(one)
            case EventsCommitted():
                yield from self._events(one)
            case CommandInput():
                self.commanded(one)
            case Noted():
                for record in one.records:
                    self.emit(record)
                self.effects.append(Reply(one.slot, Outcome(True)))
            case Replaced():
                yield from self._replaced(one)
            case Began():
                self.doubt_all_holds()
                yield from self._withdraw(one.at)
            case Stood():
                yield from self._stood_still(one)
            case Tick():
                pass

    def _stood_still(self, stood: Stood) -> Steps[None]:
        """Time in which nobody watched is no part of `for` and `keep_firing_for`, and ends neither."""
        self.emit(StoodStill(stood.until, stood.at))
        for key in sorted(self.draft.alerts):
            self._change(states.unseen(self.draft.alerts[key], stood.at, stood.until))
            yield from self.rest()

    def _evaluated(self, evaluated: Evaluated) -> Steps[None]:
        rule = self.policy.rules.get(evaluated.rule)
        if rule is None or evaluated.error is not None:
            return
        self.latest[evaluated.rule] = evaluated
        self._found.pop(evaluated.rule, None)
        present: set[AlertKey] = set()
        for found in evaluated.found:
            key = AlertKey(evaluated.rule, found.labels)
            present.add(key)
            alert = self.draft.alerts.get(key)
            at = evaluated.at if alert is None else max(evaluated.at, alert.since)
            self._change(states.seen(self.policy, rule, alert, found, at, self.draft.flips.get(key) or ()))
            yield from self.rest()
        for key in sorted(key for key in self.draft.of_rule.of(evaluated.rule) if key not in present):
            alert = self.draft.alerts[key]
            blind = states.feeders_blind(alert, evaluated.blind_checks)
            at, changes = max(evaluated.at, alert.since), self.draft.flips.get(key) or ()
            self._change(states.absent(self.policy, rule, alert, at, changes, blind=blind))
            yield from self.rest()

    def _timers(self, until: float) -> Steps[None]:
        while due := self.draft.alerts_due(until, DUE_AT_ONCE):
            for at, key in due:
                alert = self.draft.alerts[key]
                rule = self.policy.rules.get(key.rule)
                if rule is None:
                    self._change(states.withdraw(alert, at, "rule removed"))
                else:
                    self._change(states.timed(self.policy, rule, alert, self._latest_found(key), at))
                yield from self.rest()

    def _latest_found(self, key: AlertKey) -> Found | None:
        if key.rule not in self._found:
            evaluated = self.latest.get(key.rule)
            found = () if evaluated is None else evaluated.found
            self._found[key.rule] = {AlertKey(key.rule, one.labels): one for one in found}
        return self._found[key.rule].get(key)

    def _change(self, change: AlertChanged | None) -> None:
        """Take a change of an alert and what it owes."""
        if change is None:
            return
        before = self.draft.alerts.get(change.alert.key)
        self.emit(change)
        self.note_firing(before, change.alert)
        transition = _transition(change, None if before is None else before.severity)
        if transition is not None:
            self.owe(owe(self.draft, self.policy, change.alert, transition, change.at), change.at)

    def _events(self, committed: EventsCommitted) -> Steps[None]:
        before, already = self.draft.judged_event, len(self.records)
        for stored in committed.events:
            if stored.seq <= before:
                continue
            if stored.event.type in self.policy.notices:
                for obligation in owe_notice(self.policy, stored, committed.at):
                    self.emit(Owed(committed.at, obligation))
                    self.settle(obligation.subject, obligation.target, committed.at)
            if stored.event.type in self.policy.receipts:
                receipt = self.policy.receipt_of(stored)
                if receipt is not None:
                    self._heed(receipt, committed.at)
            yield from self.rest()
        acted = len(self.records) > already
        if committed.last_seq > before and (acted or committed.last_seq - before >= EVENTS_UNJUDGED):
            self.emit(EventsJudged(committed.at, committed.last_seq))

    def _replaced(self, replaced: Replaced) -> Steps[None]:
        """Another policy: alerts of rules that are gone end, timers follow the new durations.

        What a rule found that asks something else now is no answer to what it asks.
        """
        routing, before, self.policy = self.policy.routing, self.policy.rules, replaced.policy
        self.doubt_all_holds()
        changed = {name for name, rule in self.policy.rules.items() if not asks_the_same(before.get(name), rule)}
        self._found.clear()
        self.latest = {name: one for name, one in self.latest.items() if name not in changed}
        self.emit(Configured(replaced.at, replaced.config, replaced.by.name))
        if self.judged > self.draft.judged_event:  # what was no notice before does not become one afterwards
            self.emit(EventsJudged(replaced.at, self.judged))
        yield from self._withdraw(replaced.at)
        for name in sorted(self.draft.of_rule.groups()):
            for key in sorted(self.draft.of_rule.of(name)):
                alert = self.draft.alerts[key]
                at = max(replaced.at, alert.since)
                if name in changed:
                    self._change(states.unconfirmed(alert, at, "not evaluated since the rule changed"))
                else:
                    self._change(states.retimed(self.policy.rules[name], alert, at))
                yield from self.rest()
        yield from self._tell_newly_named(routing, replaced.at)
        self.effects.append(Reply(replaced.slot, Outcome(True)))

    def _tell_newly_named(self, before: Routing, at: float) -> Steps[None]:
        """Whom the routes name from now on of what fires already, and nobody has taken on: nobody else would tell them."""
        if before == self.policy.routing:
            return
        for alert in sorted(self.draft.alerts.values(), key=lambda one: one.key):
            if alert.state is AlertState.FIRING and alert.acked_by is None:
                self.owe(owe_newly_named(self.draft, before, self.policy, alert, at), at)
                yield from self.rest()

    def _withdraw(self, at: float) -> Steps[None]:
        """End the alerts of rules that are gone."""
        for name in sorted(self.draft.of_rule.groups()):
            if name not in self.policy.rules:
                for key in sorted(self.draft.of_rule.of(name)):
                    alert = self.draft.alerts[key]
                    self._change(states.withdraw(alert, max(at, alert.since), "rule removed"))
                    yield from self.rest()

    # ---- after a start -------------------------------------------------------------------------------------------------

    def _unseen(self) -> Iterator[AlertKey]:
        """Yield what fired before the start and was not evaluated since, with all that feeds it."""
        if self.draft.started is None or self.now >= self.looked_at:
            return
        for rule in sorted(self.draft.of_rule.groups()):
            evaluated = self.latest.get(rule)
            blind = None if evaluated is None else evaluated.blind_checks
            if blind == ():
                continue
            for key in self.draft.of_rule.of(rule):
                alert = self.draft.alerts[key]
                fired_before = alert.fired_at is not None and alert.fired_at < self.draft.started.at
                if fired_before and (blind is None or states.feeders_blind(alert, blind)):
                    yield key

    # ---- the outbox ----------------------------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        message = self.draft.messages.get(answer.message)
        if answer.lookup and answer.message in self.draft.awaited:
            if isinstance(answer.outcome, Receipt):  # else nothing is known that was not
                self._heed(replace(answer.outcome, message_id=answer.message), answer.at)
            return
        if message is None or (answer.lookup and message.state != "unknown"):
            return  # it was settled meanwhile, by a receipt or its end
        notifier = self.policy.notifiers.get(message.target.notifier)
        outcome = answer.outcome
        provider_id = outcome.provider_id if isinstance(outcome, Receipt) else None
        faster = self.draft.held_for(message.id, provider_id, answer.at)
        match outcome:
            case Receipt():
                self._take_receipt(message, outcome, answer.at)
            case Absent():
                self.move(
                    replace(message, state="pending", next_try_at=answer.at), "the provider has it not", answer.at
                )
            case PermanentFailure() if not answer.lookup:
                self.move(replace(message, state="dead", last_error=str(outcome)), str(outcome), answer.at)
            case OverPace() if not answer.lookup:
                self._postpone(message, outcome, answer.at)
            case PermanentFailure() | TemporaryFailure() | Lost():
                self._retry(message, notifier, answer)
        for held in faster:
            self._heed(held.receipt, answer.at)

    # ---- receipts: what a provider says of a message, at once or later ---------------------------------------------------

    def _heed(self, receipt: Receipt, at: float) -> None:
        step = heed(receipt, self.draft, self.policy)
        match step:
            case Take():
                self._take_receipt(step.message, receipt, at)
            case Hold():
                self.emit(ReceiptHeld(at, receipt))
            case Ignore():
                pass

    def _take_receipt(self, message: Message, receipt: Receipt, at: float) -> None:
        if receipt.state == "failed":
            self._take_failure(message, receipt, at)
            return
        notifier = self.policy.notifiers.get(message.target.notifier)
        awaits = receipt.state == "accepted" and notifier is not None and notifier.receipts
        taken = replace(
            message,
            state=receipt.state,
            provider_id=receipt.provider_id or message.provider_id,
            last_error="",
            receipt_until=at + notifier.expiry_s if awaits and notifier is not None else None,
            late_at=late_at(self.policy.routing, message.target, self.draft.carried(message), at) if awaits else None,
            look_at=look_at(at, 0) if awaits and notifier is not None and notifier.looks_for_receipts else None,
            looks=0,
        )
        self.move(taken, receipt.detail or receipt.state, at)

    def _take_failure(self, message: Message, receipt: Receipt, at: float) -> None:
        """It was taken, and did not arrive after all: given up, or tried again as far as there is still something to say."""
        awaited = self.draft.awaited.get(message.id)
        why = receipt.detail or "it did not arrive"
        failed = replace(
            message, provider_id=None, receipt_until=None, look_at=None
        )  # what comes late of this try is not of the next
        if not receipt.temporary:
            self.move(replace(failed, state="dead", last_error=why), why, at)
            return
        failure = TemporaryFailure(why, retry_after_s=receipt.retry_after_s)
        notifier = self.policy.notifiers.get(message.target.notifier)
        self._retry(failed, notifier, Answer(at, message.id, failure))
        for obligation in () if awaited is None else awaited.obligations:
            if obligation.id in self.draft.obligations and self._is_stale(obligation):
                self.suppress(self.draft.obligations[obligation.id], SUPERSEDED, at)

    def _is_stale(self, accepted: Obligation) -> bool:
        """Tell whether what was accepted, and is owed again, has been overtaken meanwhile."""
        others = self.draft.open_obligations(accepted.subject)
        if any(one.target == accepted.target and one.id != accepted.id for one in others):
            return True
        if accepted.about is None or accepted.kind == "resolve":
            return False
        alert = self.draft.incident(accepted.subject)
        if alert is None or alert.state is not AlertState.FIRING:
            return True
        told = self.draft.told_by(accepted.subject, accepted.target)
        return told is not None and told.obligation != accepted.id and told.at > accepted.changed_at

    def _retry(self, message: Message, notifier: NotifierPolicy | None, answer: Answer) -> None:
        outcome = answer.outcome
        error = outcome.reason if isinstance(outcome, Lost) else str(outcome)
        known = isinstance(outcome, TemporaryFailure) and not outcome.sent and not answer.lookup
        state: ObligationState = "pending" if known else "unknown"
        wish = outcome.retry_after_s if isinstance(outcome, TemporaryFailure) else None
        wait_s = 0.0 if notifier is None else retry_delay_s(message, notifier, self.policy.rng, wish)
        if state == "unknown" and notifier is not None and notifier.is_unsure:
            wait_s = max(wait_s, min(UNSURE_S, notifier.retry_most_s))
        moved = replace(message, state=state, last_error=error, next_try_at=answer.at + wait_s)
        step = next_step(moved, len(self.draft.carried(moved)), notifier, answer.at)
        if isinstance(step, GiveUp):
            self.move(replace(moved, state="dead"), step.reason, answer.at)
        else:
            self.move(moved, error, answer.at)

    def _postpone(self, message: Message, over: OverPace, at: float) -> None:
        """What was not tried waits as long as it was told to, and is as it was before; its end is looked at when it is due."""
        wait_s = max(over.retry_after_s or 0.0, SOONEST_S)
        waiting = replace(message, state="pending", attempt=message.attempt - 1, next_try_at=at + wait_s)
        self.move(waiting, str(over), at)

    def _outbox(self) -> Steps[None]:
        """Take up what is due, as far as each notifier has room."""
        if not self.claim:
            return
        for name in sorted(self.draft.message_timers):
            ask = partial(self.draft.messages_due, name)
            while self.room(name) and (due := self.due_now(ask, self._waits_for_a_look)):
                for identity in due:
                    if self.room(name):
                        self._take_up(self.draft.messages.get(identity))
                yield from self.rest()

    def _waits_for_a_look(self, identity: MessageId) -> bool:
        """Tell whether a message never left, and is about nothing but alerts that may be over since the daemon ended."""
        message = self.draft.messages.get(identity)
        if not self.unseen or message is None or message.state != "pending":
            return False
        carried = self.draft.carried(message)
        return bool(carried) and all(one.kind != "resolve" and self.is_unseen(one.subject) for one in carried)

    def _take_up(self, message: Message | None) -> None:
        if message is None:
            return
        notifier = self.policy.notifiers.get(message.target.notifier)
        step = next_step(message, len(self.draft.carried(message)), notifier, self.now)
        match step:
            case Send():
                self.claim_message(message, possibly_repeated=step.possibly_repeated)
            case Look():
                assert notifier is not None
                looking = replace(message, lookups=message.lookups + 1)
                wait_s = notifier.timeout_s + retry_delay_s(looking, notifier, self.policy.rng)
                looking = replace(looking, next_try_at=self.now + wait_s)
                self.emit(MessageChanged(self.now, looking, "looked up"))
                self.effects.append(Lookup(looking, self.draft.carried(looking)))
            case Suppress():
                self.move(replace(message, state="suppressed"), step.reason, self.now)
            case GiveUp():
                self.move(replace(message, state="dead", last_error=step.reason), step.reason, self.now)

    def _next_due(self) -> float | None:
        times = [
            self.draft.next_alert_at(),
            self.draft.next_receipt_at(),
            self.draft.next_late_at(),
            *self.next_holding_times(),
        ]
        if self.claim:
            times += [self.draft.next_message_at(name) for name in self.draft.message_timers if self.room(name)]
        first = min((at for at in times if at is not None), default=None)
        if not self.unseen:
            return first
        again = min(self.now + LOOKS_AGAIN_S, self.looked_at)
        return again if first is None or first <= again else min(first, self.looked_at)


def asks_the_same(before: Rule | None, now: Rule) -> bool:
    """Tell whether what a rule found before a reload answers what it asks after it."""
    return before is not None and (before.expr, before.levels) == (now.expr, now.levels)


def _transition(change: AlertChanged, severity_before: object) -> Transition | None:
    """Return what a change of an alert is to those who are told of it, None if nothing."""
    state = change.alert.state
    if state is AlertState.FIRING:
        if change.previous is not AlertState.FIRING:
            return "fire"
        return "level" if change.alert.severity is not severity_before else None
    return "resolve" if state is AlertState.RESOLVED else None
