"""The judge: one task that owns the state of alerts and deliveries, and alone writes the journal's records.

A round: drain the inputs, `decide` on a draft, one commit, publish, act. What arrives meanwhile is the next round. If
nobody can tell whether a commit was written, the journal is asked before anything else is decided. While it cannot be
written the judge is volatile: rounds go on in memory, commands are refused; once it takes writes again the records of the
gap are written with the whole state (DESIGN promise 10). Evaluates nothing and delivers nothing itself: rules hand it what
they found, the outbox what came of each try.
"""

from collections import Counter, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog
import trio

from sixfbd.alerting.decide import EVENTS_UNJUDGED, after_start, asks_the_same, decide, deciding
from sixfbd.alerting.inputs import (
    Answer,
    Began,
    CommandInput,
    Decision,
    Deliver,
    EventsCommitted,
    Input,
    Lookup,
    Noted,
    Replaced,
    Reply,
    Stood,
    Tick,
)
from sixfbd.alerting.policy import Policy
from sixfbd.journal.errors import JournalBroken, JournalError, JournalFull
from sixfbd.journal.records import (
    Acked,
    AlertChanged,
    Base,
    CheckPaused,
    EventsJudged,
    MessageChanged,
    ObligationChanged,
    Owed,
    Record,
    Started,
    Stopped,
    TokenChanged,
)
from sixfbd.journal.state import State, apply, base_of
from sixfbd.journal.volatile import Unwritten
from sixfbd.model import (
    OPEN_STATES,
    Actor,
    AlertKey,
    CheckName,
    Command,
    Evaluated,
    Found,
    Message,
    Outcome,
    RuleName,
    StoredEvent,
)
from sixfbd.plugin import Clock, TemporaryFailure

INPUTS_A_ROUND: Final = 200
COMMANDS_WAITING: Final = 1000  # beyond that a command is refused
EVENTS_A_PAGE: Final = 500
FRESH_EVENTS: Final = 2000  # kept from the door; of more than that the judge reads the journal
RETRY_FIRST_S: Final = 0.1
RETRY_MOST_S: Final = 5.0
STOP_S: Final = 2.0  # for the last round and its commit
LINES_A_ROUND: Final = 20  # transitions that are logged one by one
TURNS: Final = 8  # of the loop, in which what a round has claimed gets onto its way

log = structlog.get_logger("sixfbd.judge")

Start: TypeAlias = Callable[[Deliver | Lookup], None]
Listener: TypeAlias = Callable[[Sequence[Record]], None]


class Journal(Protocol):
    """What the judge needs of journal.db."""

    @property
    def last_event_seq(self) -> int: ...

    @property
    def last_record_seq(self) -> int: ...

    async def commit(self, records: Sequence[Record]) -> int: ...

    async def rebase(self, records: Sequence[Record], base: Base) -> int: ...

    async def probe(self, at: float) -> None: ...

    def load_records(self, after: int | None = None) -> AsyncIterable[Record]: ...

    async def events(
        self, after_seq: int = 0, *, types: Collection[str] | None = None, limit: int = EVENTS_A_PAGE
    ) -> list[StoredEvent]: ...


class _Slot:
    """Where a command waits for its outcome."""

    def __init__(self) -> None:
        self._done = trio.Event()
        self._outcome: Outcome | None = None

    def set(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._done.set()

    async def wait(self) -> Outcome:
        await self._done.wait()
        assert self._outcome is not None
        return self._outcome


class _NotTakenError(JournalError):
    """A commit got no answer, and the journal says that it was not written."""


class Judge:
    """`async with judge.running()`: entered after the journal and before all that submits; left after the outbox.

    `state` is the published state, durable whenever it can be read and the journal is not failing. All methods belong to
    the event loop's thread; those that are not async never wait.
    """

    def __init__(self, journal: Journal, clock: Clock, policy: Policy) -> None:
        self.state = State()
        self.policy = policy
        self.last_journal_error = ""
        self.record_seq = 0
        """Number of the last record that `state` holds."""
        self.dead = 0
        """Messages given up since the start."""
        self.closed: Counter[str] = Counter()
        """Messages that ended since the start, by state."""
        self._journal = journal
        self._clock = clock
        self._evaluations: dict[RuleName, Evaluated] = {}  # waiting, the newest of each rule
        self._latest: dict[RuleName, Evaluated] = {}
        self._others: deque[Input] = deque()
        self._asked: deque[CommandInput | Noted | Replaced] = deque()
        self._stood: list[Stood] = []
        self._committed_event = 0
        self._read_event = 0
        self._fresh: dict[int, StoredEvent] = {}  # by number; not yet judged
        self._start: Start | None = None
        self._listeners: list[Listener] = []
        self._next_due: float | None = None
        self._wake = trio.Event()
        self._unwritten: Unwritten | None = None  # not None: volatile
        self._failing = trio.Event()
        self._unreadable = False  # events wait in a journal that cannot be read
        self._writable = True
        self._doubted = False
        self._pause_s = RETRY_FIRST_S
        self._loaded = False
        self._stopping = False

    # ---- life ----------------------------------------------------------------------------------------------------------

    async def load(self) -> State:
        """Fold the journal into `state`; called once, before `running`, which calls it if nobody did."""
        async for record in self._journal.load_records():
            apply(self.state, record)
        self._read_event = self.state.judged_event
        self._loaded = True
        return self.state

    @asynccontextmanager
    async def running(self, version: str, config: str, *, last_alive_at: float | None = None) -> AsyncIterator["Judge"]:
        """Judge for as long as the block lasts; then a last round, and a `stopped` record, within STOP_S.

        Writes `started` with the hash `config` of the configuration; messages that were being sent when the process
        before ended become `unknown`. Raises JournalError if the journal cannot be read, JournalBroken if it cannot be
        written at the start either; if it is only full the judge begins volatile.
        """
        if not self._loaded:
            await self.load()
        await self._begin(version, config, last_alive_at)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            yield self
            self._stopping = True
            self._wake.set()
            nursery.cancel_scope.deadline = trio.current_time() + STOP_S

    async def _begin(self, version: str, config: str, last_alive_at: float | None) -> None:
        now = self._clock.now()
        alive = [at for at in (last_alive_at, self.state.last_alive_at) if at is not None]
        records: list[Record] = [Started(now, version, config, max(alive, default=None))]
        records += after_start(self.state, now, "the daemon ended while it was being sent")
        self.record_seq = self._journal.last_record_seq
        try:
            self.record_seq = await self._journal.commit(records)
        except JournalFull as error:
            self._turn_volatile(error).add(records)
        for record in records:
            apply(self.state, record)
        self.submit(Began(now))
        self.events_committed(self._journal.last_event_seq)

    # ---- what comes in -------------------------------------------------------------------------------------------------

    def submit(self, one: Evaluated | Answer | Began | Tick) -> None:
        """Take an evaluation or an answer of a notifier. Of the evaluations of a rule that wait only the newest is kept."""
        if not isinstance(one, Evaluated):
            self._others.append(one)
        elif not self._take_evaluated(one):
            return
        self._wake.set()

    def _take_evaluated(self, one: Evaluated) -> bool:
        """A failed evaluation says nothing, one that is older than the last says nothing new."""
        last = self._evaluations.get(one.rule) or self._latest.get(one.rule)
        if one.error is not None or (last is not None and one.at <= last.at):
            return False
        self._evaluations[one.rule] = one
        return True

    def stood_still(self, since: float, until: float) -> None:
        """The loop stood still between these times; the next round takes it before anything that is due after it."""
        self._stood.append(Stood(since, until))
        self._wake.set()

    def events_committed(self, seq: int, fresh: Sequence[StoredEvent] = ()) -> None:
        """Events up to this number are durable. Those that are not given as `fresh` are read from the journal."""
        if self._says_nothing(seq, fresh):
            self._committed_event = self._read_event = seq
            return
        if len(self._fresh) + len(fresh) <= FRESH_EVENTS:
            self._fresh.update((one.seq, one) for one in fresh)
        if seq > self._committed_event:
            self._committed_event = seq
            self._wake.set()

    def _says_nothing(self, seq: int, fresh: Sequence[StoredEvent]) -> bool:
        """Tell whether no round is due for these events: all are at hand, none carries a notice or a receipt."""
        return (
            self._read_event == self._committed_event == seq - len(fresh)
            and seq - self.state.judged_event < EVENTS_UNJUDGED
            and not any(self.policy.heeds(one.event.type) for one in fresh)
        )

    def doubt_journal(self) -> None:
        """Somebody else's write failed: find out whether the journal takes any, and be volatile if it does not."""
        if self._unwritten is None:
            self._doubted = True
            self._wake.set()

    async def command(self, command: Command, by: Actor) -> Outcome:
        """Carry out a command; its outcome is durable on return. Refused at once while the journal cannot be written."""
        slot = _Slot()
        return await self._ask(CommandInput(self._clock.now(), command, by, slot), slot)

    async def note(self, records: Sequence[Record]) -> Outcome:
        """Write records that somebody else decided (tokens, audit, clock) and fold them in; durable on return."""
        slot = _Slot()
        return await self._ask(Noted(self._clock.now(), tuple(records), slot), slot)

    async def replace(
        self, policy: Policy, config: str, by: Actor, adopt: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Judge by another policy from one round on; alerts of rules that are gone resolve. Not `ok`: nothing changed.

        `adopt` is called at the moment of the change, once it is durable, whether or not the caller still waits: what has
        to change with the policy changes there. Evaluations by the old rules that wait are dropped.
        """
        slot = _Slot()
        return await self._ask(Replaced(self._clock.now(), policy, config, by, slot, adopt), slot)

    async def _ask(self, one: CommandInput | Noted | Replaced, slot: _Slot) -> Outcome:
        if self._stopping:
            return Outcome(False, error="the daemon is stopping")
        if self.journal_failing:
            return Outcome(False, error=f"the journal cannot be written, nothing was done: {self.last_journal_error}")
        if len(self._asked) >= COMMANDS_WAITING:
            return Outcome(False, error=f"{COMMANDS_WAITING} commands are waiting already; try again later")
        self._asked.append(one)
        self._wake.set()
        return await slot.wait()

    # ---- what goes out -------------------------------------------------------------------------------------------------

    def attach(self, start: Start) -> None:
        """Let messages go out: `start` is called with each that is claimed. Until then what is owed waits."""
        self._start = start
        self._wake.set()

    def detach(self) -> None:
        """Claim no further message; answers are still taken."""
        self._start = None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with the records of each round once they are published; returns what ends that. Never waits."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ---- what readers ask ----------------------------------------------------------------------------------------------

    def latest(self, rule: RuleName) -> Evaluated | None:
        """Return the last evaluation of a rule that was judged, with the values of now; None before the first."""
        return self._latest.get(rule)

    def latest_found(self, key: AlertKey) -> Found | None:
        """Return what the last evaluation found of one alert."""
        evaluated = self._latest.get(key.rule)
        found = () if evaluated is None else evaluated.found
        return next((one for one in found if one.labels == key.labels), None)

    def feeders(self, rule: RuleName) -> frozenset[CheckName]:
        """Return the checks that fed the open alerts of a rule."""
        alerts = (self.state.alerts.get(key) for key in self.state.of_rule.of(rule))
        return frozenset(CheckName(check) for alert in alerts if alert is not None for check in alert.checks)

    def messages_by_state(self) -> Counter[str]:
        """Count the open messages by state."""
        return Counter(message.state for message in self.state.messages.values())

    def oldest_message_age_s(self) -> float:
        """Return the age of the oldest open message in seconds, 0 if none is open."""
        oldest = min((message.created_at for message in self.state.messages.values()), default=None)
        return 0.0 if oldest is None else self._clock.now() - oldest

    def cut(self) -> tuple[Base, int]:
        """Return the whole state and the number of the last record that it holds: what `Journal.retain` takes."""
        return base_of(self.state, self._clock.now()), self.record_seq

    # ---- rounds --------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._probe)
                while self._waiting() or not self._stopping:
                    if not self._waiting() and not self._recoverable:
                        await self._rest()
                    if self._doubted:
                        await self._try_out()
                    if self._recoverable:
                        await self._recover()
                    await self._round(await self._drain())
                await self._end()
                nursery.cancel_scope.cancel()
        finally:
            self._refuse(self._asked, "the daemon is stopping")

    def _waiting(self) -> bool:
        queued = self._evaluations or self._others or self._asked or self._stood
        return bool(queued) or self._events_wait() or self._doubted

    def _events_wait(self) -> bool:
        return self._committed_event > self._read_event and not self._unreadable

    async def _rest(self) -> None:
        """Wait for an input, or until time alone has something to say."""
        wait_s = float("inf") if self._next_due is None else max(0.0, self._next_due - self._clock.now())
        with trio.move_on_after(wait_s):
            await self._wake.wait()
        self._wake = trio.Event()

    async def _drain(self) -> list[Input]:
        """Take at most INPUTS_A_ROUND inputs off the queues; what is left over wakes the next round.

        What the rules find after a reload was asked for waits for what comes of that: it drops it, or fails.
        """
        inputs: list[Input] = []
        if self._events_wait():
            try:
                inputs.append(await self._read_events())
            except JournalError as error:
                self._turn_volatile(error)
                self._unreadable = True
        while self._others and len(inputs) < INPUTS_A_ROUND:
            inputs.append(self._others.popleft())
        while self._asked and len(inputs) < INPUTS_A_ROUND:
            inputs.append(self._asked.popleft())
        until = next((one.at for one in inputs if isinstance(one, Replaced)), float("inf"))
        waiting = [rule for rule, one in self._evaluations.items() if one.at <= until]
        inputs += [self._evaluations.pop(rule) for rule in waiting[: INPUTS_A_ROUND - len(inputs)]]
        return inputs

    async def _read_events(self) -> EventsCommitted:
        upto = self._committed_event
        types = sorted({*self.policy.notices, *self.policy.receipts})
        events = self._taken_fresh(upto)
        if events is None and types:
            events = await self._journal.events(self._read_event, types=types, limit=EVENTS_A_PAGE)
            if len(events) == EVENTS_A_PAGE:
                upto = events[-1].seq
        self._read_event = max(upto, events[-1].seq if events else 0)
        return EventsCommitted(self._clock.now(), self._read_event, tuple(events or ()))

    def _taken_fresh(self, upto: int) -> list[StoredEvent] | None:
        """Take the events up to a number that came fresh; None if they have to be read: some did not, or there are many."""
        numbers = range(self._read_event + 1, upto + 1)
        whole = len(numbers) <= min(EVENTS_A_PAGE, len(self._fresh)) and all(
            number in self._fresh for number in numbers
        )
        taken = [self._fresh[number] for number in numbers] if whole else None
        self._fresh = {number: one for number, one in self._fresh.items() if number > upto}
        return None if taken is None else [one for one in taken if self.policy.heeds(one.event.type)]

    async def _round(self, inputs: list[Input]) -> None:
        now = self._clock.now()  # tells of a stand-still, if there was one
        inputs += self._stood
        self._stood = []
        decision = await self._decide(inputs, now)
        meanwhile: Sequence[Record] = ()
        if self._unwritten is None and decision.records:
            try:
                meanwhile = await self._commit(decision.records)
            except JournalError as error:
                inputs = self._go_volatile_with(inputs, error)
                decision = await self._decide(inputs, now)
        if self._unwritten is not None:
            self._unwritten.add(decision.records)
        self._publish(decision, inputs)
        for record in meanwhile:
            apply(self.state, record)
        await self._log(decision.records)

    async def _commit(self, records: Sequence[Record]) -> Sequence[Record]:
        """Write a round; return what the journal holds besides, to be applied after it. Raises JournalFull or
        _NotTakenError if it was not written, JournalBroken if nobody can tell."""
        try:
            self.record_seq = await self._journal.commit(records)
        except JournalBroken as error:
            news = await self._ask_journal()
            if not news or not _begins_with(news, records):
                raise _NotTakenError(str(error)) from error
            return news[len(records) :]
        return ()

    async def _ask_journal(self) -> list[Record]:
        """Return what the journal holds that the state does not. Only a write that is answered shows that the fate of those
        before it is known; this one says nothing new."""
        seq = await self._journal.commit([EventsJudged(self._clock.now(), self.state.judged_event)])
        after = self._journal.load_records(self.record_seq)
        news: list[Record] = [record async for record in after if not isinstance(record, Base)]
        self.record_seq = seq
        return news

    def _publish(self, decision: Decision, inputs: Sequence[Input]) -> None:
        self.state.publish(decision.draft)
        self._next_due = decision.next_due
        self._adopt(decision.policy, inputs)
        self._tell(decision.records)
        self._act(decision)

    async def _decide(self, inputs: Sequence[Input], now: float) -> Decision:
        """Decide, letting the loop turn within a large round: the published state is ours alone to change."""
        steps = deciding(
            self.state,
            inputs,
            self.policy,
            now,
            latest=self._latest,
            claim=self._start is not None,
            judged_event=self._read_event,
        )
        while True:
            try:
                next(steps)
            except StopIteration as end:
                decision: Decision = end.value
                return decision
            await trio.lowlevel.checkpoint()

    def _adopt(self, policy: Policy, inputs: Sequence[Input]) -> None:
        for one in inputs:
            if isinstance(one, Evaluated):
                self._latest[one.rule] = one
        if policy is not self.policy:
            before = self.policy.rules
            unchanged = {name for name, rule in policy.rules.items() if asks_the_same(before.get(name), rule)}
            self.policy = policy
            self._latest = {name: one for name, one in self._latest.items() if name in unchanged}
            self._evaluations.clear()
            for one in inputs:
                if isinstance(one, Replaced):
                    one.adopt()

    def _act(self, decision: Decision) -> None:
        for effect in decision.effects:
            if isinstance(effect, Reply):
                effect.slot.set(effect.outcome)
            elif self._start is not None:
                self._start(effect)
            else:  # detached while the claim was being written: it certainly did not leave
                unsent = TemporaryFailure("the outbox was closing")
                self.submit(Answer(self._clock.now(), effect.message.id, unsent, isinstance(effect, Lookup)))

    def _tell(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, MessageChanged):
                self._count(record.message, record.what)
        for listener in list(self._listeners):
            listener(records)

    async def _log(self, records: Sequence[Record]) -> None:
        """Log transitions once the messages about them are on their way: a line takes about as long as a request."""
        changes = [one for one in records if isinstance(one, AlertChanged) and one.alert.state is not one.previous]
        if not changes:
            return
        for _ in range(TURNS):
            await trio.lowlevel.cancel_shielded_checkpoint()
        for change in changes[:LINES_A_ROUND]:
            _log_transition(change)
        if len(changes) > LINES_A_ROUND:
            log.info("alerts.more", transitions=len(changes) - LINES_A_ROUND)

    def _count(self, message: Message, what: str) -> None:
        if message.state in OPEN_STATES:
            return
        self.closed[message.state] += 1
        if message.state == "dead":
            self.dead += 1
            log.error("message.dead", message=message.id, notifier=message.target.notifier, reason=what)

    # ---- when the journal fails ----------------------------------------------------------------------------------------

    @property
    def journal_failing(self) -> bool:
        """Whether what is decided is in memory only."""
        return self._unwritten is not None

    @property
    def failing_since(self) -> float | None:
        """Since when (engine time); None while it is not failing."""
        return None if self._unwritten is None else self._unwritten.since

    @property
    def _recoverable(self) -> bool:
        return self._unwritten is not None and self._writable

    def _turn_volatile(self, error: JournalError) -> Unwritten:
        """Go on in memory; nobody waits for a command meanwhile. Returns where the records go."""
        self.last_journal_error = str(error)
        if self._unwritten is None:
            log.error("journal.failing", error=str(error))
            self._unwritten = Unwritten(self.state, self._clock.now(), str(error))
        self._writable = False
        self._failing.set()
        self._refuse(self._asked, f"the journal cannot be written, nothing was done: {error}")
        return self._unwritten

    def _go_volatile_with(self, inputs: Sequence[Input], error: JournalError) -> list[Input]:
        """Refuse the commands of a round that was not written, or of which nobody can tell; return the rest of it."""
        if isinstance(error, _NotTakenError):
            said = "the journal did not take it, nothing was done"
        elif isinstance(error, JournalFull):
            said = f"the journal cannot be written, nothing was done: {error}"
        else:
            said = f"nobody can tell whether this was done, the journal does not answer: {error}"
        self._turn_volatile(error)
        self._refuse(_asked_in(inputs), said)
        return [one for one in inputs if not isinstance(one, CommandInput | Noted | Replaced)]

    async def _try_out(self) -> None:
        self._doubted = False
        try:
            await self._journal.probe(self._clock.now())
        except JournalError as error:
            self._turn_volatile(error)

    async def _probe(self) -> None:
        """While volatile, try beside the rounds whether the journal takes a write: a disk that hangs must not stop them."""
        while True:
            await self._failing.wait()
            while not self._writable:
                await trio.sleep(self._pause_s)
                self._pause_s = min(2 * self._pause_s, RETRY_MOST_S)
                try:
                    await self._journal.probe(self._clock.now())
                except JournalError as error:
                    self.last_journal_error = str(error)
                else:
                    self._writable = True
            self._failing = trio.Event()
            self._wake.set()

    async def _recover(self) -> None:
        """Write what happened since the journal failed, and the state as it is now; if that fails it stays volatile."""
        unwritten = self._unwritten
        assert unwritten is not None
        gap = unwritten.gap(self._clock.now())
        try:
            there = [one async for one in self._journal.load_records(self.record_seq) if not isinstance(one, Base)]
            # of a round that got no answer: what was asked in it and is written counts as done
            asked = [one for one in there if isinstance(one, Acked | CheckPaused | TokenChanged)]
            for record in (*asked, gap):
                apply(self.state, record)
            records = [*_without(unwritten.records, there), *_taken_back(there, unwritten.records, self.state, gap.at)]
            self.record_seq = await self._journal.rebase([*records, gap], base_of(self.state, gap.at))
        except JournalError as error:
            self._turn_volatile(error)
            return
        self._unwritten, self._unreadable, self._pause_s = None, False, RETRY_FIRST_S
        log.info(
            "journal.recovered",
            after_s=round(gap.at - gap.since, 3),
            records=len(unwritten.records),
            dropped=gap.dropped,
        )
        self._tell([*asked, gap])

    def _refuse(self, asked: deque[CommandInput | Noted | Replaced], error: str) -> None:
        while asked:
            asked.popleft().slot.set(Outcome(False, error=error))

    async def _end(self) -> None:
        now = self._clock.now()
        records: list[Record] = [Stopped(now)]
        if self._read_event > self.state.judged_event:
            records.insert(0, EventsJudged(now, self._read_event))
        if self._unwritten is not None:
            await self._recover()
        if self._unwritten is not None:
            log.error("journal.lost", since=self._unwritten.since, records=len(self._unwritten.records))
            return
        try:
            self.record_seq = await self._journal.commit(records)
        except JournalError as error:
            log.error("journal.failing", error=str(error))
            return
        for record in records:
            apply(self.state, record)


def _asked_in(inputs: Sequence[Input]) -> deque[CommandInput | Noted | Replaced]:
    return deque(one for one in inputs if isinstance(one, CommandInput | Noted | Replaced))


def _begins_with(news: Sequence[Record], records: Sequence[Record]) -> bool:
    """Tell whether a commit is what was written first: it is there whole or not at all, and nobody else writes records."""
    return msgspec.json.encode(news[0]) == msgspec.json.encode(records[0])


def _without(records: Sequence[Record], there: Sequence[Record]) -> Sequence[Record]:
    """Return the records that are not written yet, those of the gap's first round being there or not."""
    written = {msgspec.json.encode(record) for record in there}
    return [record for record in records if msgspec.json.encode(record) not in written] if written else records


def _taken_back(
    there: Sequence[Record], records: Sequence[Record], state: State, at: float
) -> Iterator[ObligationChanged]:
    """End what a round that got no answer owes when the one in its place does not: it would stay open in the account."""
    known = {record.obligation.id for record in records if isinstance(record, Owed)}
    for record in there:
        if isinstance(record, Owed) and record.obligation.state in OPEN_STATES:
            identity = record.obligation.id
            if identity not in known and identity not in state.obligations:
                yield ObligationChanged(at, identity, "suppressed", "the journal gave no answer: it was decided anew")


def _log_transition(record: AlertChanged) -> None:
    alert = record.alert
    log.info(
        f"alert.{alert.state}",
        alert=alert.id,
        rule=alert.key.rule,
        labels=dict(alert.key.labels),
        severity=str(alert.severity),
        value=alert.value,
        previous=str(record.previous),
        why=record.why,
    )


__all__ = ["Answer", "Journal", "Judge", "Listener", "Policy", "Start", "decide"]
