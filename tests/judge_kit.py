"""A bench for the judge: policies by hand, a journal in memory, rounds without a task, notifiers that misbehave on call,
and a far side that outlives the daemon. The fixture `kit` is this module, for the unit tests and the simulator."""

import random
from typing import NamedTuple

import msgspec
import trio

from sixfbd.alerting.budget import Budget, Limit
from sixfbd.alerting.decide import after_start, decide
from sixfbd.alerting.escalation import compile_escalations
from sixfbd.alerting.flapping import Flapping
from sixfbd.alerting.holding import LOOK_S
from sixfbd.alerting.holds import Calendar, children_of, compile_inhibitions
from sixfbd.alerting.inputs import Absent, Answer, CommandInput, Deliver, EventsCommitted, Lookup, Lost, Replaced, Reply
from sixfbd.alerting.policy import NotifierPolicy, Policy
from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config.tables import (
    Channel,
    EscalationStep,
    EscalationTable,
    InhibitTable,
    NotifierTable,
    RouteTable,
    SeverityTable,
)
from sixfbd.instances import NotifierInstance
from sixfbd.journal.errors import JournalBroken, JournalFull
from sixfbd.journal.records import Record, Started
from sixfbd.journal.state import State, account, apply, base_of, fold
from sixfbd.judge import Judge
from sixfbd.model import (
    Ack,
    Actor,
    AddSilence,
    Evaluated,
    Event,
    Evidence,
    ExpireSilence,
    Found,
    HoldDrill,
    Level,
    Receipt,
    Rule,
    Severity,
    StoredEvent,
    Target,
    labels_of,
)
from sixfbd.outbox.render import Place
from sixfbd.outbox.workers import Outbox
from sixfbd.plugin import Notifier, PermanentFailure, TemporaryFailure
from sixfbd.quantities import Duration
from sixfbd.world import EngineClock

__all__ = [
    "OPEN",
    "START",
    "STOCK_LEVELS",
    "Absent",
    "Ack",
    "Actor",
    "AddSilence",
    "Answer",
    "Arrival",
    "Budget",
    "ByTurns",
    "Calendar",
    "Channel",
    "CommandInput",
    "Deliver",
    "Double",
    "Duration",
    "EscalationStep",
    "EscalationTable",
    "EventsCommitted",
    "Every",
    "ExpireSilence",
    "FarSide",
    "HoldDrill",
    "InhibitTable",
    "JournalBroken",
    "JournalFull",
    "Ledger",
    "Limit",
    "Lookup",
    "Lost",
    "MemoryJournal",
    "PermanentFailure",
    "Receipt",
    "Replaced",
    "Reply",
    "RouteTable",
    "SeverityTable",
    "StoredEvent",
    "Target",
    "TemporaryFailure",
    "check_account",
    "double_of",
    "drained",
    "found",
    "instance",
    "last_messages",
    "live",
    "policy",
    "rule",
    "seen",
]

START = 1_800_000_000.0
OPEN = {"pending", "sending", "unknown"}
decoder = msgspec.json.Decoder(Record)


def level_of(rule, value, current):
    """Levels with hysteresis, as simple as it gets: `when` and `clear` are "< n" and ">= n"."""
    for level in sorted(rule.levels, key=lambda one: -one.severity.rank):
        edge = float(level.when.split()[1])
        held = current is not None and current.rank >= level.severity.rank and level.clear is not None
        if value < (float(level.clear.split()[1]) if held else edge):
            return level.severity
    return None


def annotate(rule, found):
    return {name: text.replace("{{ $value }}", f"{found.value:g}") for name, text in rule.annotations.items()}


def rule(name="Hot", **options):
    options.setdefault("severity", None if "levels" in options else Severity.HIGH)
    options.setdefault("annotations", {"summary": "it is {{ $value }}"})
    options.setdefault("expr", "x > 1")
    return Rule(name=name, **options)


STOCK_LEVELS = (
    Level(Severity.MEDIUM, "< 10", ">= 12"),
    Level(Severity.HIGH, "< 5", ">= 7"),
    Level(Severity.CRITICAL, "< 1", ">= 2"),
)


def found(value=2.0, checks=("c",), **labels):
    evidence = (Evidence(f"x{{{','.join(labels.values())}}}", int(START * 1000), 1.0),)
    return Found(labels_of(labels), value, evidence, tuple(checks))


def seen(at, *finds, rule="Hot", **options):
    return Evaluated(rule, at, tuple(finds), **options)


ONCE = RouteTable(receiver="primary", repeat_interval=Duration(0))


def policy(
    *rules,
    receivers=None,
    route=None,
    severities=None,
    notices=None,
    notice_severities=None,
    notice_of=lambda stored: ("", {}),
    calendar=None,
    inhibit=(),
    escalations=(),
    flaps_s=0.0,
    parents=None,
    rotations=None,
    budgets=None,
    notice_budget=None,
    **notifiers,
):
    notifiers = notifiers or {"hook": {}}
    receivers = {"primary": {name: Channel(via=name) for name in notifiers}} if receivers is None else receivers
    return Policy(
        rules={one.name: one for one in (rules or (rule(),))},
        level_of=level_of,
        annotate=annotate,
        routing=Routing(compile_route(ONCE if route is None else route), receivers, severities or {}, rotations or {}),
        calendar=calendar or Calendar(),
        inhibitions=compile_inhibitions(inhibit),
        escalations=compile_escalations(escalations),
        flapping=Flapping(window_s=flaps_s),
        children=children_of(parents or {}),
        budgets=budgets or {},
        notice_budget=notice_budget,
        notifiers={name: NotifierPolicy(name=name, **options) for name, options in notifiers.items()},
        rng=lambda *key: random.Random("/".join(key)),
        notices=notices or {},
        notice_severities=notice_severities or {},
        receipts=frozenset({"receipt"}),
        receipt_of=lambda stored: Receipt(**stored.event.data),
        notice_of=notice_of,
    )


class Every:
    """A time interval of the tests: holds for `length_s`, then does not for as long, and so on."""

    def __init__(self, length_s):
        self.length_s = length_s

    def contains(self, at):
        return int(at // self.length_s) % 2 == 1

    def next_change(self, at):
        return (at // self.length_s + 1) * self.length_s


class ByTurns:
    """A rotation of the tests: shifts of `shift_s`, the first of which begins at START."""

    def __init__(self, *members, shift_s):
        self.members = members
        self.shift_s = shift_s

    def on_call(self, at):
        return self.members[int((at - START) // self.shift_s) % len(self.members)]

    def until(self, at):
        return START + ((at - START) // self.shift_s + 1) * self.shift_s


class Ledger:
    """Rounds without a task: decide, write down (through JSON), publish. Keeps every record and every effect."""

    def __init__(self, policy, now=START):
        self.policy = policy
        self.now = now
        self.state = State()
        self.records = []
        self.effects = []
        self.latest = {}
        self.next_due = None
        self.claim = True

    def go(self, *inputs, at=None):
        self.now = self.now if at is None else at
        decision = decide(self.state, inputs, self.policy, self.now, latest=self.latest, claim=self.claim)
        assert all(one.at <= self.now for one in inputs), "an input of the future"
        self.write(decision.records)
        self.state.publish(decision.draft)
        self.policy = decision.policy
        self.effects += decision.effects
        self.next_due = decision.next_due
        self.latest.update((one.rule, one) for one in inputs if isinstance(one, Evaluated) and one.error is None)
        return decision

    def write(self, records):
        self.records += [decoder.decode(msgspec.json.encode(record)) for record in records]

    def see(self, *finds, at=None, **options):
        self.now = self.now if at is None else at
        return self.go(seen(self.now, *finds, **options))

    def tick(self, at):
        return self.go(at=at)

    def answer(self, message, outcome=None, lookup=False, at=None):
        self.now = self.now if at is None else at
        return self.go(Answer(self.now, message, Receipt() if outcome is None else outcome, lookup))

    def command(self, command, by="uid:1000 alice", at=None):
        """Give a command; return its outcome."""
        self.now = self.now if at is None else at
        self.go(CommandInput(self.now, command, Actor(by), len(self.effects)))
        return next(effect.outcome for effect in reversed(self.effects) if isinstance(effect, Reply))

    def receipt(self, at=None, **said):
        """An event of type `receipt` came, whose data is a Receipt's."""
        self.now = self.now if at is None else at
        seq = self.state.judged_event + 1
        event = Event(f"receipt {seq}", "receipt", self.now, said)
        return self.go(EventsCommitted(self.now, seq, (StoredEvent(seq, "provider", self.now, event),)))

    def crash(self, at=None):
        """Begin again from the records alone."""
        self.now = self.now + 1 if at is None else at
        self.state = fold(self.records)
        self.latest = {}
        records = [Started(self.now, "1", "hash"), *after_start(self.state, self.now, "crash")]
        self.write(records)
        for record in records:
            apply(self.state, record)

    @property
    def sending(self):
        return sorted(one.id for one in self.state.messages.values() if one.state == "sending")

    def states(self, kind=None):
        """State of every obligation there ever was, in order of creation."""
        return [(one.kind, one.state) for one in account(self.records).values() if kind in (None, one.kind)]

    def deliver_all(self):
        """Every message on its way is accepted; return what they carried, each as (receiver, kind, subject's severity)."""
        told = []
        while sending := self.sending:
            for message in sending:
                carried = self.state.carried(self.state.messages[message])
                told += [(one.target.receiver, one.kind, str(one.severity)) for one in carried]
                self.answer(message)
        return sorted(told)

    def reasons(self):
        """Why each suppressed obligation is, in order of creation."""
        return [one.reason for one in account(self.records).values() if one.state == "suppressed"]

    def alert(self, rule="Hot"):
        [key] = self.state.of_rule.of(rule)
        return self.state.alerts[key]

    def check(self):
        """Memory is the fold of the journal, and the account balances."""
        assert base_of(self.state, 0) == base_of(fold(self.records), 0)
        check_account(self.records, self.state)
        check_nobody_is_forgotten(self.state, self.policy)


def check_account(records, state):
    """For every transition one obligation for each target that was told of it or is; in one state; in order per target."""
    owed = account(records)
    written = [record.obligation for record in records if type(record).__name__ == "Owed"]
    assert len(written) == len({one.id for one in written}), "an obligation was written twice"
    transitions = [
        record.alert
        for record in records
        if type(record).__name__ == "AlertChanged"
        and record.alert.state != record.previous
        and record.alert.state in ("firing", "resolved")
    ]
    for alert in transitions:
        kind = "fire" if alert.state == "firing" else "resolve"
        of_it = [one for one in written if one.subject == alert.id and one.kind == kind and one.at == alert.since]
        assert of_it, f"{kind} of {alert.id} owes nobody"
        # What was held may be told in the same moment after all, and what was given up be tried once more since another
        # channel has failed too.
        of_it = [one for one in of_it if not owed[one.id].held and owed[one.id].state != "dead"]
        assert len(of_it) == len({one.target for one in of_it}), "one target is owed the same twice"
    open_ids = {identity for identity, one in owed.items() if one.state in OPEN}
    assert open_ids == set(state.obligations), "what is open is not what is in memory"
    for one in state.obligations.values():
        waits_for = [
            other for other in state.open_obligations(one.subject) if other.target == one.target and other.id != one.id
        ]
        carried = one.message in state.messages if one.message is not None else False
        gathers = one.message is None and one.not_before > 0
        assert carried or gathers or any(other.message is not None for other in waits_for), f"{one} waits for nothing"
    check_order(records)


def check_nobody_is_forgotten(state, policy):
    """Whom no hold keeps from knowing any more knows what fires, or is about to; of a rotation, who was on call then."""
    for incident in state.withheld:
        alert = state.incident(incident)
        at = state.last_alive_at
        if alert is None or alert.state != "firing" or alert.held or may_be_unseen(state, alert, at):
            continue
        if alert.acked_at is not None and alert.acked_at >= alert.severity_at:
            continue
        routed = {one.target: one for one in policy.routing.targets(alert.labels, alert.severity, at)}
        for target in state.withheld[incident]:
            told = state.told_by(incident, target)
            waits = any(one.target == target for one in state.open_obligations(incident))
            muted = target in routed and policy.calendar.kept(routed[target], alert.severity, at)
            knows = told is not None and told.severity == alert.severity
            by_turns = target in routed and routed[target].rotation != ""
            others = (one.receiver for one in [*(state.told.get(incident) or ()), *waiting_for(state, incident)])
            handed_over = by_turns and any(
                one in policy.routing.rotations[routed[target].rotation].members for one in others
            )
            assert target not in routed or muted or waits or knows or handed_over, (
                f"{target} was forgotten when the hold ended"
            )


def may_be_unseen(state, alert, at):
    """Of what fired before a start nobody is told before it was looked at again, for a while."""
    return state.started is not None and alert.fired_at < state.started.at and at < state.started.at + LOOK_S


def waiting_for(state, incident):
    return [one.target for one in state.open_obligations(incident)]


def check_order(records):
    """Per target and incident nothing goes out while an older one is on its way, and no end before the begin."""
    order, on_way, told, obligations, gone = {}, {}, set(), {}, set()
    for record in records:
        match type(record).__name__:
            case "Owed":
                one = record.obligation
                obligations[one.id] = one
                order.setdefault((one.subject, one.target), []).append(one.id)
            case "ObligationChanged":
                on_way.pop(record.id, None)
                gone.add(record.id)
            case "MessageChanged":
                for identity in record.message.obligations:
                    if identity in gone:  # its message goes on without it
                        continue
                    one = obligations[identity]
                    line = (one.subject, one.target)
                    if record.message.state == "sending":
                        others = {other for other in order[line] if other in on_way and other != identity}
                        assert not others, f"{identity} goes out while {others} is on its way"
                        if one.kind == "resolve":
                            assert line in told, "an end before its begin"
                    if record.message.state in ("accepted", "delivered", "unknown"):
                        told.add(line)
                    if record.message.state in ("sending", "unknown"):
                        on_way[identity] = True
                    else:
                        on_way.pop(identity, None)


class MemoryJournal:
    """Records and events in lists; `commit` takes a checkpoint, and fails as long as `failure` is set."""

    def __init__(self, records=(), events=()):
        self.records = list(records)
        self.stored = list(events)
        self.commits = 0
        self.failure = None
        self.on_commit = lambda before: None

    @property
    def last_event_seq(self):
        return self.stored[-1].seq if self.stored else 0

    @property
    def last_record_seq(self):
        return len(self.records)

    async def commit(self, records):
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        self.on_commit("before")
        self.records += [decoder.decode(msgspec.json.encode(record)) for record in records]
        self.commits += 1
        self.on_commit("after")
        return len(self.records)

    async def rebase(self, records, base):
        return await self.commit([*records, base])

    async def probe(self, at):
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure

    async def load_records(self, after=None):
        for record in self.records[after or 0 :]:
            await trio.lowlevel.checkpoint()
            yield record

    async def events(self, after_seq=0, *, types=None, limit=500):
        await trio.lowlevel.checkpoint()
        return [one for one in self.stored if one.seq > after_seq and (types is None or one.event.type in types)][
            :limit
        ]


class Double(Notifier):
    """A notifier that does what `act(notification, call)` says; keeps what it was given."""

    def __init__(self, act=None, look=None):
        self.act = act
        self.look = look
        self.got = []
        self.looked = []
        self.closed = 0
        self.running = 0
        self.most_running = 0

    async def deliver(self, notification):
        self.got.append(notification)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await trio.lowlevel.checkpoint()
            if self.act is None:
                return Receipt()
            result = self.act(notification, len(self.got))
            return await result if hasattr(result, "__await__") else result
        finally:
            self.running -= 1

    async def lookup(self, notification):
        self.looked.append(notification)
        await trio.lowlevel.checkpoint()
        return self.look(notification, len(self.looked))

    async def close(self):
        self.closed += 1


def instance(double, name="hook", *, timeout=5.0, concurrency=4, problem=""):
    table = NotifierTable(name=name, plugin="double", timeout=Duration(timeout), concurrency=concurrency)
    return NotifierInstance(name, "double", table, double, problem)


# ---- several lives of one daemon ---------------------------------------------------------------------------------------


class Arrival(NamedTuple):
    """One thing that a far side was told: an alert of a message, or the message itself if it is a notice (no alert)."""

    message: str
    alert: str = ""
    status: str = "notice"
    kind: str = "notice"


class FarSide:
    """A provider: takes messages, and answers by chance with what a bad network answers. Outlives the daemon.

    `on_wire` is called before and after a message is taken. `drops_repeats`: it knows a message by its id.
    """

    def __init__(self, draw, taken=(), *, faulty=True, drops_repeats=False, on_wire=lambda when: None):
        self.draw = draw
        self.taken = list(taken)  # Arrivals, oldest first
        self.faulty = faulty
        self.drops_repeats = drops_repeats
        self.on_wire = on_wire
        self.tries = 0
        self.known_as = {}  # what it calls each message: the last try of it that it took
        self.confirmed = set()  # what it has said to have arrived

    async def take(self, notification):
        fault = self.draw.random() if self.faulty else 1.0
        await trio.sleep(self.draw.choice((0.0, 0.05, 0.5)))
        if fault < 0.15:
            raise TemporaryFailure("refused")
        if fault < 0.2:
            raise TemporaryFailure("slow down", retry_after_s=3.0)
        if fault < 0.25:
            await trio.sleep_forever()  # hangs before taking it
        if 0.42 <= fault < 0.44:
            raise PermanentFailure("no such address")
        self._keep(notification)
        if fault < 0.35:
            await trio.sleep_forever()  # took it, and its answer is lost
        if fault < 0.4:
            raise TemporaryFailure("reset", sent=True)
        if fault < 0.42:
            raise ConnectionResetError("after it was taken")
        return Receipt(message_id=notification.id, provider_id=self.known_as.get(notification.id))

    def fails(self, message):
        """What it took did not arrive after all; return what it called it."""
        self.taken = [one for one in self.taken if one.message != message]
        return self.known_as.pop(message)

    def _keep(self, notification):
        if self.drops_repeats and self.has(notification):
            return
        self.on_wire("before a message was taken")
        told = [Arrival(notification.id, one.id, one.status, one.kind) for one in notification.alerts]
        self.taken += told or [Arrival(notification.id)]
        self.tries += 1
        self.known_as[notification.id] = f"{notification.id}/{self.tries}"
        self.on_wire("after a message was taken")

    def has(self, notification):
        if not any(notification.id == one.message for one in self.taken):
            return None
        if self.faulty and self.draw.random() < 0.3:
            self.confirmed.add(notification.id)
        state = "delivered" if notification.id in self.confirmed else "accepted"
        return Receipt(state=state, provider_id=self.known_as.get(notification.id))


def double_of(far_side, name="hook", **options):
    """A notifier that talks to a far side, and can ask it."""
    double = Double(lambda notification, call: far_side.take(notification))
    double.look = lambda notification, call: far_side.has(notification)
    return instance(double, name, **options)


async def live(journal, policy, instances, now, script, config="hash"):
    """One life of the daemon on its own clock, as long as `script(judge, outbox, clock)` takes; return its end's time."""
    clock = EngineClock(now)
    judge = Judge(journal, clock, policy)
    async with judge.running("1", config):
        async with Outbox(judge, clock, instances, Place("shop", "test")).running() as outbox:
            await script(judge, outbox, clock)
    return clock.now()


async def drained(judge, limit_s=1200):
    """Return when the judge owes nothing and nothing is on its way."""
    with trio.fail_after(limit_s):
        while judge.state.messages or judge.state.obligations or judge._waiting():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
            await trio.sleep(0.5)


def last_messages(records):
    """Return the last form of every message that the records speak of, by id."""
    return {record.message.id: record.message for record in records if type(record).__name__ == "MessageChanged"}
