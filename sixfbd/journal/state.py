"""The state that the judge owns, and `apply`, the only way in which it changes: the fold of the journal's records.

`decide` applies its records to a draft, the start applies the journal's to an empty state; both end at the same value.
Holds what is still open: pending and firing alerts, obligations and messages that wait for something, what targets of
live incidents were told, accepted messages whose receipts may come. What is over is in the journal alone. No clock, no
I/O.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from msgspec.structs import replace

from sixfbd.journal.overlays import Grouped, Overlay, Timers
from sixfbd.journal.records import (
    RECEIPT_WAITS_S,
    Acked,
    AlertChanged,
    Awaited,
    Base,
    CheckPaused,
    DrillHeld,
    EventsJudged,
    Flips,
    GroupTold,
    HoldsChecked,
    MessageChanged,
    MessageLate,
    ObligationChanged,
    Owed,
    Postponed,
    Reached,
    ReceiptAsked,
    ReceiptHeld,
    ReceiptMissed,
    Record,
    SilenceChanged,
    Spent,
    SpentBy,
    Started,
    TokenChanged,
    Told,
    Withheld,
    receipt_key,
)
from sixfbd.model import (
    OPEN_STATES,
    TOLD_STATES,
    Alert,
    AlertKey,
    AlertState,
    CheckName,
    Message,
    MessageId,
    Obligation,
    RuleName,
    Silence,
    Target,
)

WAITING_STATES: Final = frozenset({"pending", "unknown"})  # messages that have a next try
ARRIVED: Final = frozenset({"accepted", "delivered"})
NOTICE_GROUP: Final = "notice:"  # begins the group of messages about events
DRILL_GROUP: Final = f"{NOTICE_GROUP}DRILL"  # of the messages of drills
MOST_HELD: Final = 1000  # receipts that wait for their messages
MOST_FLIPS: Final = 40  # of one alert that are remembered, and for how long
FLIPS_KEPT_S: Final = 86_400.0
SPENT_KEPT_S: Final = 86_400.0  # the longest time that a budget is for
MOST_SPENT: Final = 1000  # of one budget that are remembered

GroupKey: TypeAlias = tuple[Target, str]
"""A target, and what its alerts are grouped by."""

Purse: TypeAlias = tuple[Target, str]
"""A target, and the kind of notice whose budget it is, "" for alerts."""


class Lanes:
    """When messages of one notifier are due, those about alerts apart from notices, which let them go first."""

    __slots__ = ("alerts", "notices")

    def __init__(self, alerts: Timers[MessageId] | None = None, notices: Timers[MessageId] | None = None) -> None:
        self.alerts = Timers() if alerts is None else alerts
        self.notices = Timers() if notices is None else notices

    def draft(self) -> "Lanes":
        return Lanes(self.alerts.draft(), self.notices.draft())

    def merge(self, draft: "Lanes", current: Callable[[MessageId], float | None]) -> None:
        self.alerts.merge(draft.alerts, current)
        self.notices.merge(draft.notices, current)


class State:
    """Alerts, obligations and messages that are open. Changed by `apply` and `publish` only.

    Readers on the event loop may look at it between two awaits; nothing that they get out of it changes in place.
    """

    def __init__(self) -> None:
        self.alerts: Overlay[AlertKey, Alert] = Overlay()  # pending and firing
        self.incidents: Overlay[str, AlertKey] = Overlay()  # the same, by incident id
        self.of_rule: Grouped[RuleName, AlertKey] = Grouped()
        self.closing: Overlay[str, Alert] = Overlay()  # resolved, but something is still owed
        self.obligations: Overlay[str, Obligation] = Overlay()  # open ones
        self.open_of: Overlay[str, tuple[str, ...]] = Overlay()  # their ids by subject, oldest first
        self.messages: Overlay[MessageId, Message] = Overlay()  # open ones
        self.sending: Overlay[str, int] = Overlay()  # messages in flight by notifier
        self.awaited: Overlay[MessageId, Awaited] = Overlay()  # accepted, a receipt may come
        self.awaited_as: Overlay[str, MessageId] = Overlay()  # the same, by the provider's id
        self.held: Overlay[str, ReceiptHeld] = Overlay()  # receipts that wait for their messages, by what they share
        self.told: Overlay[str, Mapping[Target, Told]] = Overlay()  # by incident id
        self.flips: Overlay[AlertKey, tuple[float, ...]] = Overlay()  # when an alert came and went, lately
        self.silences: Overlay[str, Silence] = Overlay()  # those that are not over
        self.withheld: Overlay[str, Mapping[Target, str]] = (
            Overlay()
        )  # by incident: whom a hold keeps from what obligation
        self.flushed: Overlay[GroupKey, float] = Overlay()  # when the group's last message was made
        self.group_waits: Overlay[GroupKey, float] = Overlay()  # until when what is owed in the group waits for more
        self.group_sizes: Overlay[GroupKey, int] = Overlay()  # incidents that keep the group alive
        self.groups_of: Overlay[str, tuple[GroupKey, ...]] = Overlay()  # by incident
        self.spent: Overlay[Purse, tuple[float, ...]] = Overlay()  # when messages were made, lately
        self.digests: Overlay[Purse, float] = Overlay()  # when the last digest was
        self.reached: Overlay[Target, float] = Overlay()  # when a message last arrived there, or was taken
        self.drills: Overlay[str, DrillHeld] = Overlay()  # the last of each name
        self.drilled: Overlay[Target, float] = Overlay()  # when a drill's message last arrived, or was taken for good
        self.paused: Overlay[CheckName, bool] = Overlay()
        self.tokens: Overlay[str, TokenChanged] = Overlay()  # those not revoked
        self.alert_timers: Timers[AlertKey] = Timers()
        self.message_timers: dict[str, Lanes] = {}  # by notifier
        self.receipt_timers: Timers[MessageId] = Timers()
        self.late_timers: Timers[MessageId] = Timers()  # messages that should have arrived by then
        self.group_timers: Timers[str] = Timers()  # obligations that wait for their group
        self.repeat_timers: Timers[tuple[str, Target]] = Timers()  # incidents that a target was told of
        self.escalation_timers: Timers[AlertKey] = Timers()
        self.flip_timers: Timers[AlertKey] = Timers()
        self.holds_at: float | None = None
        """Up to when holds that begin and end by the clock have been heeded."""
        self.judged_event = 0
        self.started: Started | None = None
        self.last_alive_at: float | None = None

    # ---- reading -------------------------------------------------------------------------------------------------------

    def incident(self, incident: str) -> Alert | None:
        """Return the pending, firing or closing alert of this id."""
        key = self.incidents.get(incident)
        return self.closing.get(incident) if key is None else self.alerts.get(key)

    def open_obligations(self, subject: str) -> list[Obligation]:
        """Return what is open for an incident or a notice, oldest first."""
        return [self.obligations[identity] for identity in self.open_of.get(subject) or ()]

    def told_by(self, incident: str, target: Target) -> Told | None:
        """Return the last that a target was, or may have been, told of an incident."""
        return (self.told.get(incident) or {}).get(target)

    def carried(self, message: Message) -> tuple[Obligation, ...]:
        """Return the obligations that a message still carries: those that were not suppressed meanwhile."""
        found = (self.obligations.get(identity) for identity in message.obligations)
        return tuple(obligation for obligation in found if obligation is not None)

    def alerts_due(self, until: float, limit: int) -> list[tuple[float, AlertKey]]:
        """Return the alerts whose timer ends by `until`, earliest first."""
        return self.alert_timers.due(until, limit, self._alert_due_at)

    def messages_due(self, notifier: str, until: float, limit: int) -> list[MessageId]:
        """Return messages of a notifier that are due for a try, a look-up or their end: alerts before notices, earliest first."""
        lanes = self.message_timers.get(notifier)
        if lanes is None:
            return []
        due = lanes.alerts.due(until, limit, self._message_due_at)
        due += lanes.notices.due(until, limit - len(due), self._message_due_at) if len(due) < limit else []
        return [key for _, key in due]

    def next_alert_at(self) -> float | None:
        return self.alert_timers.first(self._alert_due_at)

    def next_message_at(self, notifier: str) -> float | None:
        lanes = self.message_timers.get(notifier)
        firsts = [] if lanes is None else [lane.first(self._message_due_at) for lane in (lanes.alerts, lanes.notices)]
        return min((at for at in firsts if at is not None), default=None)

    def awaited_by(self, message: MessageId | None, provider_id: str | None) -> Awaited | None:
        """Return the accepted message that a receipt with these ids is about."""
        if message is None and provider_id is not None:
            message = self.awaited_as.get(provider_id)
        return None if message is None else self.awaited.get(message)

    def held_for(self, message: MessageId, provider_id: str | None, at: float) -> list[ReceiptHeld]:
        """Return the receipts that wait for a message and have not waited for too long, the oldest first."""
        keys = [receipt_key(message, None), receipt_key(None, provider_id)]
        found = [held for key in keys if (held := self.held.get(key)) is not None and at - held.at < RECEIPT_WAITS_S]
        return sorted(found, key=lambda held: held.at)

    def receipts_due(self, until: float, limit: int) -> list[MessageId]:
        """Return the accepted messages that are to be asked for, or whose receipt did not come, by `until`, earliest first."""
        return [key for _, key in self.receipt_timers.due(until, limit, self._receipt_due_at)]

    def next_receipt_at(self) -> float | None:
        return self.receipt_timers.first(self._receipt_due_at)

    def messages_late(self, until: float, limit: int) -> list[MessageId]:
        """Return the messages that should have arrived by `until`, the earliest first."""
        return [key for _, key in self.late_timers.due(until, limit, self._late_at)]

    def next_late_at(self) -> float | None:
        return self.late_timers.first(self._late_at)

    def groups_due(self, until: float, limit: int) -> list[str]:
        """Return the obligations whose group need wait no longer than `until`, the earliest first."""
        return [key for _, key in self.group_timers.due(until, limit, self._group_due_at)]

    def next_group_at(self) -> float | None:
        return self.group_timers.first(self._group_due_at)

    def repeats_due(self, until: float, limit: int) -> list[tuple[float, tuple[str, Target]]]:
        """Return the incidents and targets that are to be told the same again by `until`, the earliest first."""
        return self.repeat_timers.due(until, limit, self._repeat_due_at)

    def next_repeat_at(self) -> float | None:
        return self.repeat_timers.first(self._repeat_due_at)

    def escalations_due(self, until: float, limit: int) -> list[tuple[float, AlertKey]]:
        """Return the alerts that an escalation takes further by `until`, the earliest first."""
        return self.escalation_timers.due(until, limit, self._escalation_due_at)

    def next_escalation_at(self) -> float | None:
        return self.escalation_timers.first(self._escalation_due_at)

    def _group_due_at(self, key: str) -> float | None:
        """Return until when what is owed waits for its group; None: it does not, or waits for an older message's end."""
        owed = self.obligations.get(key)
        if owed is None or owed.message is not None or not owed.not_before:
            return None
        behind = any(
            one.target == owed.target and one.state != "pending" for one in self.open_obligations(owed.subject)
        )
        return None if behind else owed.not_before

    def _repeat_due_at(self, key: tuple[str, Target]) -> float | None:
        incident, target = key
        told = self.told_by(incident, target)
        alert_key = self.incidents.get(incident)
        if told is None or alert_key is None or self.alerts[alert_key].acked_by is not None:
            return None
        return told.repeat_at

    def _flips_due_at(self, key: AlertKey) -> float | None:
        times = self.flips.get(key)
        return None if times is None else times[-1] + FLIPS_KEPT_S

    def _escalation_due_at(self, key: AlertKey) -> float | None:
        """Return when its next step is due; none is while somebody has taken it on, or a hold keeps it back."""
        alert = self.alerts.get(key)
        if alert is None or alert.acked_by is not None or alert.held or alert.state is not AlertState.FIRING:
            return None
        return alert.escalate_at

    def _receipt_due_at(self, key: MessageId) -> float | None:
        awaited = self.awaited.get(key)
        if awaited is None:
            return None
        look_at, until = awaited.message.look_at, awaited.message.receipt_until
        return until if look_at is None or until is None else min(look_at, until)

    def _late_at(self, key: MessageId) -> float | None:
        awaited = self.awaited.get(key)
        message = self.messages.get(key) if awaited is None else awaited.message
        return None if message is None else message.late_at

    def _alert_due_at(self, key: AlertKey) -> float | None:
        alert = self.alerts.get(key)
        return None if alert is None else alert.due_at

    def _message_due_at(self, key: MessageId) -> float | None:
        message = self.messages.get(key)
        return None if message is None or message.state not in WAITING_STATES else due_at(message)

    # ---- drafts --------------------------------------------------------------------------------------------------------

    def draft(self) -> "State":
        """Return a state that reads as this one and keeps its changes; this one must not change while it lives."""
        draft = object.__new__(State)  # all that __init__ makes is set here: a round makes one
        for name in _PARTS:
            setattr(draft, name, getattr(self, name).draft())
        draft.message_timers = {notifier: lanes.draft() for notifier, lanes in self.message_timers.items()}
        for name in _TIMERS:
            setattr(draft, name, getattr(self, name).draft())
        draft._copy_scalars(self)
        return draft

    def publish(self, draft: "State") -> None:
        """Take over a draft of this state, in one step without an await. The draft must not be used afterwards."""
        for name in _PARTS:
            getattr(self, name).merge(getattr(draft, name))
        for name, due in _TIMERS.items():
            getattr(self, name).merge(getattr(draft, name), getattr(self, due))
        for notifier, lanes in draft.message_timers.items():
            self.message_timers.setdefault(notifier, Lanes()).merge(lanes, self._message_due_at)
        self._copy_scalars(draft)

    def _copy_scalars(self, other: "State") -> None:
        self.judged_event = other.judged_event
        self.started = other.started
        self.last_alive_at = other.last_alive_at
        self.holds_at = other.holds_at


_PARTS: Final = (
    "alerts", "incidents", "of_rule", "closing", "obligations", "open_of", "messages", "sending", "awaited",
    "awaited_as", "held", "told", "flips", "silences", "withheld", "flushed", "group_waits", "group_sizes",
    "groups_of", "spent", "digests", "reached", "drills", "drilled", "paused", "tokens",
)  # fmt: skip

_TIMERS: Final = {
    "alert_timers": "_alert_due_at",
    "receipt_timers": "_receipt_due_at",
    "late_timers": "_late_at",
    "group_timers": "_group_due_at",
    "repeat_timers": "_repeat_due_at",
    "escalation_timers": "_escalation_due_at",
    "flip_timers": "_flips_due_at",
}


def due_at(message: Message) -> float:
    """Return when a waiting message is to be looked at again: at its next try or its end, whichever is first."""
    return min(message.next_try_at, message.expires_at)


def apply(state: State, record: Record) -> None:
    """Change the state as the record says. Never fails: a record about what is not there changes nothing."""
    match record:
        case AlertChanged():
            _note_flip(state, record)
            _alert(state, record.alert)
        case Acked():
            _acked(state, record)
        case Owed():
            _owed(state, record.obligation)
        case ObligationChanged():
            if record.held and (owed := state.obligations.get(record.id)) is not None:
                _withhold(state, owed)
            _close(state, record.id)
        case MessageChanged():
            _message(state, record)
        case ReceiptHeld():
            _hold(state, record)
        case ReceiptMissed():
            _end_awaiting(state, record.message)
        case ReceiptAsked():
            _asked(state, record)
        case MessageLate():
            _late(state, record.message)
        case SilenceChanged():
            _silence(state, record)
        case DrillHeld():
            state.drills[record.name] = record
        case HoldsChecked():
            _holds_checked(state, record)
        case Spent():
            _spend(state, record)
        case Postponed():
            _postpone(state, record)
        case CheckPaused():
            _paused(state, record)
        case EventsJudged():
            state.judged_event = max(state.judged_event, record.seq)
        case TokenChanged():
            _token(state, record)
        case Started():
            state.started = record
        case Base():
            _rebase(state, record)
            return
    state.last_alive_at = record.at if state.last_alive_at is None else max(state.last_alive_at, record.at)


def fold(records: Iterable[Record]) -> State:
    """Return the state after all of the records."""
    state = State()
    for record in records:
        apply(state, record)
    return state


def base_of(state: State, at: float) -> Base:
    """Return the whole state as one record; equal states give equal records."""
    told = [told for incident in sorted(state.told) for told in state.told[incident].values()]
    return Base(
        at=at,
        alerts=tuple(
            sorted((*state.alerts.values(), *state.closing.values()), key=lambda alert: (alert.key, alert.id))
        ),
        obligations=tuple(
            obligation for subject in sorted(state.open_of) for obligation in state.open_obligations(subject)
        ),
        messages=tuple(sorted(state.messages.values(), key=lambda message: message.id)),
        told=tuple(sorted(told, key=lambda one: (one.incident, one.target))),
        paused=tuple(sorted(state.paused)),
        judged_event=state.judged_event,
        tokens=tuple(sorted(state.tokens.values(), key=lambda token: token.name)),
        started=state.started,
        last_alive_at=state.last_alive_at,
        awaited=tuple(sorted(state.awaited.values(), key=lambda one: one.message.id)),
        held=tuple(sorted(state.held.values(), key=lambda one: (one.at, one.key))),
        silences=tuple(sorted(state.silences.values(), key=lambda one: one.id)),
        withheld=tuple(
            Withheld(incident, *one)
            for incident in sorted(state.withheld)
            for one in sorted(state.withheld[incident].items())
        ),
        groups=_groups_of(state),
        reached=tuple(Reached(target, state.reached[target]) for target in sorted(state.reached)),
        flips=tuple(Flips(key, state.flips[key]) for key in sorted(state.flips)),
        holds_at=state.holds_at,
        drills=tuple(state.drills[name] for name in sorted(state.drills)),
        drilled=tuple(Reached(target, state.drilled[target]) for target in sorted(state.drilled)),
        spent=tuple(SpentBy(*purse, state.spent[purse], state.digests.get(purse)) for purse in sorted(state.spent)),
    )


def _groups_of(state: State) -> tuple[GroupTold, ...]:
    incidents: dict[GroupKey, list[str]] = {}
    for incident in sorted(state.groups_of):
        for group in state.groups_of[incident]:
            incidents.setdefault(group, []).append(incident)
    return tuple(
        GroupTold(*group, state.flushed.get(group), state.group_waits.get(group), tuple(incidents[group]))
        for group in sorted(incidents)
    )


def account(records: Iterable[Record]) -> dict[str, Obligation]:
    """Return every obligation that the records speak of, in the one state that it is in, by id in order of creation."""
    owed: dict[str, Obligation] = {}
    for record in records:
        match record:
            case Base():
                owed.update((obligation.id, obligation) for obligation in record.obligations)
                owed.update((one.id, one) for awaited in record.awaited for one in awaited.obligations)
            case Owed():
                owed[record.obligation.id] = record.obligation
            case ObligationChanged() if record.id in owed:
                owed[record.id] = replace(
                    owed[record.id], state=record.state, reason=record.reason, changed_at=record.at, held=record.held
                )
            case MessageChanged():
                for identity in record.message.obligations:
                    if identity in owed and _follows(owed[identity], record.message):
                        owed[identity] = _follow(owed[identity], record)
    return owed


# ---- how each record changes the state -------------------------------------------------------------------------------


def _note_flip(state: State, record: AlertChanged) -> None:
    """Remember when an expression begins or ceases to hold; of what has been quiet for long nothing is remembered."""
    key = record.alert.key
    if _holds(state.alerts.get(key)) != _holds(record.alert):
        state.flips[key] = (*(state.flips.get(key) or ())[1 - MOST_FLIPS :], record.at)
        state.flip_timers.add(record.at + FLIPS_KEPT_S, key)
    for _, quiet in state.flip_timers.due(record.at, 2, state._flips_due_at):
        state.flips.drop(quiet)


def _holds(alert: Alert | None) -> bool:
    return alert is not None and alert.state is AlertState.FIRING and alert.absent_since is None


def _alert(state: State, alert: Alert) -> None:
    if alert.state in (AlertState.PENDING, AlertState.FIRING):
        _put_alert(state, alert)
        return
    if state.incidents.get(alert.id) == alert.key:
        state.alerts.drop(alert.key)
        state.incidents.drop(alert.id)
        state.of_rule.drop(alert.key.rule, alert.key)
    if alert.state is AlertState.RESOLVED:
        state.closing[alert.id] = alert


def _put_alert(state: State, alert: Alert) -> None:
    state.alerts[alert.key] = alert
    state.incidents[alert.id] = alert.key
    state.of_rule.add(alert.key.rule, alert.key)
    if alert.due_at is not None:
        state.alert_timers.add(alert.due_at, alert.key)
    if alert.escalate_at is not None:
        state.escalation_timers.add(alert.escalate_at, alert.key)


def _acked(state: State, record: Acked) -> None:
    key = state.incidents.get(record.alert)
    if key is not None:
        state.alerts[key] = replace(state.alerts[key], acked_by=record.by, acked_at=record.at)


def _owed(state: State, obligation: Obligation) -> None:
    if obligation.kind == "repeat":
        _repeat_later(state, obligation)
    if obligation.state not in OPEN_STATES:
        if obligation.held:
            _withhold(state, obligation)
        _forget_if_over(state, obligation.subject)
        return
    if obligation.about is not None:
        _reveal(state, obligation)
        _join(state, obligation)
    state.obligations[obligation.id] = obligation
    known = state.open_of.get(obligation.subject) or ()
    if obligation.id not in known:  # written twice if the answer to the first write never came
        state.open_of[obligation.subject] = (*known, obligation.id)
    _wait_for_group(state, obligation)


def _wait_for_group(state: State, obligation: Obligation) -> None:
    if obligation.not_before and obligation.message is None:
        state.group_timers.add(obligation.not_before, obligation.id)


def _withhold(state: State, obligation: Obligation) -> None:
    """A hold keeps a target from knowing; of a repeat it knows already."""
    if obligation.kind != "repeat":
        known = state.withheld.get(obligation.subject) or {}
        state.withheld[obligation.subject] = {**known, obligation.target: obligation.id}


def _reveal(state: State, obligation: Obligation) -> None:
    """A target is told after all."""
    known = state.withheld.get(obligation.subject) or {}
    if obligation.target not in known:
        return
    if len(known) > 1:
        state.withheld[obligation.subject] = {
            target: identity for target, identity in known.items() if target != obligation.target
        }
    else:
        state.withheld.drop(obligation.subject)


def _join(state: State, obligation: Obligation) -> None:
    """An incident keeps the groups alive that it was told in, as far as somebody has to wait for them."""
    if not (obligation.not_before or obligation.interval_s):
        return
    group, joined = (obligation.target, obligation.group), state.groups_of.get(obligation.subject) or ()
    if group not in joined:
        state.groups_of[obligation.subject] = (*joined, group)
        state.group_sizes[group] = (state.group_sizes.get(group) or 0) + 1
    if obligation.not_before and obligation.message is None:
        state.group_waits[group] = obligation.not_before


def _repeat_later(state: State, repeat: Obligation) -> None:
    """A repeat that is owed, or is not, is not owed again before another interval has passed."""
    told = state.told_by(repeat.subject, repeat.target)
    if told is not None and told.repeat_s > 0:
        _put_told(state, replace(told, repeat_at=repeat.at + told.repeat_s))


def _close(state: State, identity: str) -> None:
    obligation = state.obligations.get(identity)
    if obligation is None:
        return
    state.obligations.drop(identity)
    rest = tuple(other for other in state.open_of.get(obligation.subject) or () if other != identity)
    if rest:
        state.open_of[obligation.subject] = rest
        for other in rest:
            _wait_for_group(state, state.obligations[other])
    else:
        state.open_of.drop(obligation.subject)
        _forget_if_over(state, obligation.subject)


def _forget_if_over(state: State, incident: str) -> None:
    """A resolved incident of which nothing is owed any more leaves memory."""
    if incident in state.closing and incident not in state.open_of:
        state.closing.drop(incident)
        state.told.drop(incident)
        state.withheld.drop(incident)
        for group in state.groups_of.get(incident) or ():
            size = (state.group_sizes.get(group) or 1) - 1
            if size:
                state.group_sizes[group] = size
            else:
                state.group_sizes.drop(group)
                state.flushed.drop(group)
                state.group_waits.drop(group)
        state.groups_of.drop(incident)


def _message(state: State, record: MessageChanged) -> None:
    message = record.message
    if (awaited := _end_awaiting(state, message.id)) is not None and message.state not in ARRIVED:
        _take_back(state, awaited, again=message.state in OPEN_STATES)
    _count_sending(state, message)
    if (group := (message.target, message.group)) in state.group_sizes:
        state.flushed[group] = max(message.created_at, state.flushed.get(group) or 0.0)
        state.group_waits.drop(group)
    if message.state in ARRIVED:
        state.reached[message.target] = record.at
        if message.group == DRILL_GROUP and (message.state == "delivered" or message.receipt_until is None):
            state.drilled[message.target] = record.at
    if message.state in OPEN_STATES:
        _put_message(state, message)
    else:
        state.messages.drop(message.id)
    carried = [_follow(obligation, record) for obligation in state.carried(message)]
    for changed in carried:
        state.obligations[changed.id] = changed
        if message.state in TOLD_STATES:
            _tell(state, changed)
        if message.state not in OPEN_STATES:
            _close(state, changed.id)
    if message.receipt_until is not None:
        _await(state, Awaited(message, tuple(carried)))
    if message.state != "sending":  # its answer is there, and with it what they waited for
        for key in (receipt_key(message.id, None), receipt_key(None, message.provider_id)):
            state.held.drop(key)


def _put_message(state: State, message: Message) -> None:
    state.messages[message.id] = message
    if message.late_at is not None:
        state.late_timers.add(message.late_at, message.id)
    if message.state in WAITING_STATES:
        lanes = state.message_timers.setdefault(message.target.notifier, Lanes())
        lane = lanes.notices if message.group.startswith(NOTICE_GROUP) else lanes.alerts
        lane.add(due_at(message), message.id)


def _await(state: State, awaited: Awaited) -> None:
    message = awaited.message
    state.awaited[message.id] = awaited
    if message.provider_id is not None:
        state.awaited_as[message.provider_id] = message.id
    if message.late_at is not None:
        state.late_timers.add(message.late_at, message.id)
    if (due := state._receipt_due_at(message.id)) is not None:
        state.receipt_timers.add(due, message.id)


def _asked(state: State, record: ReceiptAsked) -> None:
    if (awaited := state.awaited.get(record.message)) is not None:
        message = replace(awaited.message, look_at=record.look_at, looks=record.looks)
        _await(state, replace(awaited, message=message))


def _late(state: State, identity: MessageId) -> None:
    """It is late once: what follows was decided with it."""
    if (awaited := state.awaited.get(identity)) is not None:
        state.awaited[identity] = replace(awaited, message=replace(awaited.message, late_at=None))
    elif (message := state.messages.get(identity)) is not None:
        state.messages[identity] = replace(message, late_at=None)


def _end_awaiting(state: State, identity: MessageId) -> Awaited | None:
    awaited = state.awaited.get(identity)
    if awaited is not None:
        state.awaited.drop(identity)
        if awaited.message.provider_id is not None:
            state.awaited_as.drop(awaited.message.provider_id)
    return awaited


def _take_back(state: State, awaited: Awaited, *, again: bool) -> None:
    """What was accepted did not arrive: nobody was told; `again`: it is owed as it was before, ahead of what came later."""
    for obligation in awaited.obligations:
        told = state.told_by(obligation.subject, obligation.target)
        if obligation.kind == "fire" and told is not None and told.obligation == obligation.id:
            rest = {target: one for target, one in state.told[obligation.subject].items() if one is not told}
            state.told[obligation.subject] = rest
        if again:
            state.obligations[obligation.id] = obligation
            state.open_of[obligation.subject] = (obligation.id, *(state.open_of.get(obligation.subject) or ()))


def _hold(state: State, record: ReceiptHeld) -> None:
    """Keep a receipt; what says that a message was taken does not replace what says what became of it."""
    before = state.held.get(record.key)
    if before is None or before.receipt.state == "accepted" or record.receipt.state != "accepted":
        state.held[record.key] = record
    old = sorted(state.held.values(), key=lambda one: (one.at, one.key))
    for one in old:
        if record.at - one.at >= RECEIPT_WAITS_S or len(state.held) > MOST_HELD:
            state.held.drop(one.key)


def _count_sending(state: State, message: Message) -> None:
    before = state.messages.get(message.id)
    change = (message.state == "sending") - (before is not None and before.state == "sending")
    if change:
        count = (state.sending.get(message.target.notifier) or 0) + change
        if count:
            state.sending[message.target.notifier] = count
        else:
            state.sending.drop(message.target.notifier)


def _follows(obligation: Obligation, message: Message) -> bool:
    """Tell whether a change of a message changes an obligation: it is open, or accepted and a receipt says more."""
    return obligation.state in OPEN_STATES or (obligation.state == "accepted" and obligation.message == message.id)


def _follow(obligation: Obligation, record: MessageChanged) -> Obligation:
    """The obligation as its message's change leaves it."""
    message = record.message
    reason = record.what if message.state in ("dead", "suppressed") else ""
    return replace(obligation, state=message.state, message=message.id, reason=reason, changed_at=record.at)


def _tell(state: State, obligation: Obligation) -> None:
    incident = obligation.subject
    if incident not in state.incidents and incident not in state.closing:
        return
    repeats = obligation.repeat_s > 0 and obligation.kind != "resolve"
    told = Told(
        incident,
        obligation.target,
        obligation.kind,
        obligation.id,
        obligation.message,
        obligation.changed_at,
        obligation.severity,
        obligation.repeat_s,
        obligation.changed_at + obligation.repeat_s if repeats else None,
    )
    _put_told(state, told)


def _put_told(state: State, told: Told) -> None:
    state.told[told.incident] = {**(state.told.get(told.incident) or {}), told.target: told}
    if told.repeat_at is not None:
        state.repeat_timers.add(told.repeat_at, (told.incident, told.target))


def _silence(state: State, record: SilenceChanged) -> None:
    if record.silence.ends_at > record.at:
        state.silences[record.silence.id] = record.silence
    else:
        state.silences.drop(record.silence.id)


def _holds_checked(state: State, record: HoldsChecked) -> None:
    state.holds_at = record.at if state.holds_at is None else max(state.holds_at, record.at)
    for silence in list(state.silences.values()):
        if silence.ends_at <= state.holds_at:
            state.silences.drop(silence.id)


def _spend(state: State, record: Spent) -> None:
    purse = (record.target, record.notice)
    lately = [at for at in state.spent.get(purse) or () if at > record.at - SPENT_KEPT_S]
    state.spent[purse] = (*lately[1 - MOST_SPENT :], record.at)
    if record.digest:
        state.digests[purse] = record.at


def _postpone(state: State, record: Postponed) -> None:
    owed = state.obligations.get(record.id)
    if owed is not None and owed.message is None:
        state.obligations[owed.id] = waiting = replace(owed, not_before=record.until, postponed=True)
        _wait_for_group(state, waiting)


def _paused(state: State, record: CheckPaused) -> None:
    if record.paused:
        state.paused[record.check] = True
    else:
        state.paused.drop(record.check)


def _token(state: State, record: TokenChanged) -> None:
    if record.revoked:
        state.tokens.drop(record.name)
    else:
        state.tokens[record.name] = record


def _rebase(state: State, base: Base) -> None:
    for name in _PARTS:
        getattr(state, name).clear()
    for alert in base.alerts:
        if alert.state is AlertState.RESOLVED:
            state.closing[alert.id] = alert
        else:
            _put_alert(state, alert)
    for obligation in base.obligations:
        _owed(state, obligation)
    for message in base.messages:
        _count_sending(state, message)
        _put_message(state, message)
    for awaited in base.awaited:
        _await(state, awaited)
    for held in base.held:
        state.held[held.key] = held
    for told in base.told:
        _put_told(state, told)
    for there in base.reached:
        state.reached[there.target] = there.at
    for drill in base.drills:
        state.drills[drill.name] = drill
    for there in base.drilled:
        state.drilled[there.target] = there.at
    for flips in base.flips:
        state.flips[flips.key] = flips.times
        state.flip_timers.add(flips.times[-1] + FLIPS_KEPT_S, flips.key)
    for silence in base.silences:
        state.silences[silence.id] = silence
    for kept in base.withheld:
        state.withheld[kept.incident] = {**(state.withheld.get(kept.incident) or {}), kept.target: kept.obligation}
    for group in base.groups:
        _regroup(state, group)
    for one in base.spent:
        state.spent[one.target, one.notice] = one.times
        if one.digest_at is not None:
            state.digests[one.target, one.notice] = one.digest_at
    state.holds_at = base.holds_at
    for check in base.paused:
        state.paused[check] = True
    for token in base.tokens:
        state.tokens[token.name] = token
    state.judged_event, state.started, state.last_alive_at = base.judged_event, base.started, base.last_alive_at


def _regroup(state: State, told: GroupTold) -> None:
    group = (told.target, told.group)
    if told.at is not None:
        state.flushed[group] = told.at
    if told.waits_until is not None:
        state.group_waits[group] = told.waits_until
    state.group_sizes[group] = len(told.incidents)
    for incident in told.incidents:
        known = state.groups_of.get(incident) or ()
        if group not in known:
            state.groups_of[incident] = (*known, group)
