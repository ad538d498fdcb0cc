"""The workers of the outbox: each message that the judge hands over is tried once by its notifier, and answered.

Owns the running deliveries and the notifiers' life: each notifier has slots of its own, so that one that never answers
costs nobody else's. Never retries and never decides: the judge does. What a notifier raises or returns is contained and
named here, and becomes an Answer in every case but one: a delivery that the end of the process cuts off stays `sending`
in the journal, and is `unknown` at the next start.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import structlog
import trio

from sixfbd.alerting.inputs import Absent, Answer, Deliver, Lookup, Lost
from sixfbd.containment import MOST_WISH_S, call_guarded, described, leaves, one_line, receipt_in_writing, words_of
from sixfbd.instances import NotifierInstance, close_all
from sixfbd.model import MessageId, Receipt
from sixfbd.outbox.render import Place, render
from sixfbd.outbox.wording import Templates
from sixfbd.plugin import Clock, Notification, Notifier, OverPace, PermanentFailure, TemporaryFailure
from sixfbd.slots import taken

DRAIN_S: Final = 5.0  # how long a stop waits for what is on its way

log = structlog.get_logger("sixfbd.outbox")


class Judge(Protocol):
    """What the outbox needs of the judge."""

    def submit(self, one: Answer) -> None: ...

    def attach(self, start: Callable[[Deliver | Lookup], None]) -> None: ...

    def detach(self) -> None: ...


class _Crashed(TemporaryFailure):
    """The plugin raised something that is no failure of the contract."""


class _Rubbish(PermanentFailure):
    """The plugin returned something that is no answer of the contract."""


class _Account:
    """One notifier at work: its slots, and how many deliveries hold on to it."""

    def __init__(self, instance: NotifierInstance) -> None:
        self.instance = instance
        self.timeout_s = float(instance.table.timeout)
        self.slots = trio.CapacityLimiter(max(1, instance.table.concurrency))
        self.running = 0
        self.idle = trio.Event()
        self.idle.set()

    def begin(self) -> None:
        self.running += 1
        if self.idle.is_set():
            self.idle = trio.Event()

    def end(self) -> None:
        self.running -= 1
        if not self.running:
            self.idle.set()


class Outbox:
    """`async with outbox.running()`: entered after the judge, left before it. Entering attaches it, so that messages go
    out; leaving lets what is on its way finish within `drain_s`, then closes the notifiers.

    `remarks` says what is to be said in every message that is sent now. `attempts` counts tries by (notifier, outcome):
    accepted, delivered, temporary, permanent, lost, crashed; `durations` is how many there were and the seconds that they
    took, by notifier.
    """

    def __init__(
        self,
        judge: Judge,
        clock: Clock,
        notifiers: Mapping[str, NotifierInstance],
        place: Place,
        *,
        drain_s: float = DRAIN_S,
        remarks: Callable[[], Sequence[str]] = lambda: (),
        templates: Templates | None = None,
    ) -> None:
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.durations = dict.fromkeys(notifiers, (0, 0.0))
        self.place = place
        self.templates = templates or Templates()
        self._remarks = remarks
        self._writing = trio.CapacityLimiter(1)
        self._judge = judge
        self._clock = clock
        self._drain_s = drain_s
        self._accounts = {name: _Account(instance) for name, instance in notifiers.items()}
        self._retired: list[_Account] = []
        self._looking: set[MessageId] = set()
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Outbox"]:
        """Deliver for as long as the block lasts."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._judge.attach(self.start)
                try:
                    yield self
                finally:
                    self._judge.detach()
                await self._drain()
                nursery.cancel_scope.cancel()
        finally:
            await close_all(account.instance for account in [*self._accounts.values(), *self._retired])

    @property
    def in_flight(self) -> int:
        """Deliveries and look-ups that run now."""
        return sum(account.running for account in [*self._accounts.values(), *self._retired])

    def start(self, effect: Deliver | Lookup) -> None:
        """Begin one try; returns at once. Called by the judge once the claim is durable."""
        assert self._nursery is not None
        if isinstance(effect, Lookup):
            if effect.message.id in self._looking:
                return
            self._looking.add(effect.message.id)
        account = self._accounts.get(effect.message.target.notifier)
        if account is not None:
            account.begin()
        self._nursery.start_soon(self._work, effect, account)

    def replace(
        self, notifiers: Mapping[str, NotifierInstance], place: Place, templates: Templates | None = None
    ) -> None:
        """A reload: instances that are the same object go on; others are closed when their last delivery has ended."""
        assert self._nursery is not None
        self.place = place
        if templates is not None:
            templates.failures.update(self.templates.failures)  # a counter does not fall because of a reload
            self.templates = templates
        self.durations = dict.fromkeys(notifiers, (0, 0.0)) | self.durations
        before = self._accounts
        self._accounts = {
            name: before[name] if name in before and before[name].instance is instance else _Account(instance)
            for name, instance in notifiers.items()
        }
        for account in before.values():
            if account not in self._accounts.values():
                self._retired.append(account)
                self._nursery.start_soon(self._retire, account)

    async def _retire(self, account: _Account) -> None:
        await account.idle.wait()
        self._retired.remove(account)
        await close_all([account.instance])

    async def _drain(self) -> None:
        with trio.move_on_after(self._drain_s) as scope:
            for account in [*self._accounts.values(), *self._retired]:
                await account.idle.wait()
        if scope.cancelled_caught:
            log.warning("outbox.cut_off", in_flight=self.in_flight, after_s=self._drain_s)

    # ---- one try -------------------------------------------------------------------------------------------------------

    async def _work(self, effect: Deliver | Lookup, account: _Account | None) -> None:
        lookup = isinstance(effect, Lookup)
        outcome: Receipt | TemporaryFailure | PermanentFailure | Lost | Absent
        try:
            outcome = await self._try(effect, account)
        except Exception as error:  # a fault of our own: it costs this try, not the daemon and not the message
            log.exception("outbox.failed", message=effect.message.id)
            outcome = TemporaryFailure(f"a fault of the daemon's own: {described(error)}")
        finally:
            self._looking.discard(effect.message.id)
            if account is not None:
                account.end()
        self._report(effect, outcome)
        self._judge.submit(Answer(self._clock.now(), effect.message.id, outcome, lookup))

    async def _try(
        self, effect: Deliver | Lookup, account: _Account | None
    ) -> Receipt | TemporaryFailure | PermanentFailure | Lost | Absent:
        name = effect.message.target.notifier
        if account is None:
            return PermanentFailure(f"notifier {name} is not configured")
        if account.instance.notifier is None:
            return TemporaryFailure(f"notifier {name}: {account.instance.problem}")  # a reload may mend it
        notifier = account.instance.notifier
        async with taken(account.slots):
            notification = await self._written(effect)
            if isinstance(effect, Lookup):
                outcome = await self._look_up(account, notifier, notification)
            else:
                outcome = await self._deliver(account, notifier, notification)
        return outcome

    async def _written(self, effect: Deliver | Lookup) -> Notification:
        """Return the message as it reads; templates, which take their time, are rendered in a thread."""
        place, templates, owed = self.place, self.templates, effect.obligations
        plain = render(effect.message, owed, place, self._clock.now(), tuple(self._remarks()))
        channel = templates.channel_of(effect.message.target)
        if effect.message.digest or not templates.applies(plain.status, owed, channel):
            return plain
        return await trio.to_thread.run_sync(templates.apply, plain, owed, place, channel, limiter=self._writing)

    async def _deliver(
        self, account: _Account, notifier: Notifier[Any], notification: Notification
    ) -> Receipt | TemporaryFailure | PermanentFailure | Lost:
        began = self._clock.now()
        result = await self._contained(account, lambda: notifier.deliver(notification), lost=True)
        if not isinstance(result, OverPace):
            count, seconds = self.durations[account.instance.name]
            self.durations[account.instance.name] = (count + 1, seconds + self._clock.now() - began)
        if isinstance(result, TemporaryFailure | PermanentFailure | Lost):
            return result
        receipt = receipt_in_writing(result, ("accepted", "delivered"))
        return receipt or _Rubbish(f"plugin {account.instance.plugin}: deliver() returned {_kind_of_rubbish(result)}")

    async def _look_up(
        self, account: _Account, notifier: Notifier[Any], notification: Notification
    ) -> Receipt | TemporaryFailure | PermanentFailure | Lost | Absent:
        result = await self._contained(account, lambda: notifier.lookup(notification), lost=False)
        if result is None:
            return Absent()
        if isinstance(result, TemporaryFailure | PermanentFailure | Lost):
            return result
        receipt = receipt_in_writing(result, ("accepted", "delivered", "failed"))
        return receipt or _Crashed(
            f"plugin {account.instance.plugin}: lookup() returned {_kind_of_rubbish(result)} or None"
        )

    async def _contained(self, account: _Account, call: Callable[[], Awaitable[object]], *, lost: bool) -> object:
        """Run a notifier's method within its timeout; return what it returned, or the failure that it means.

        `lost`: an exception that is none of ours leaves open whether the message was taken.
        """
        ended = await call_guarded(call, account.timeout_s, f"notifier {account.instance.name}")
        if ended.error is not None:
            return self._meaning(account, ended.error, lost)
        if ended.overran:
            return Lost(f"no answer within {account.timeout_s:g} s")
        return ended.answer

    def _meaning(self, account: _Account, error: BaseException, lost: bool) -> TemporaryFailure | PermanentFailure:
        for one in leaves(error):
            if isinstance(one, OverPace) and (wish := _wish_of(one)) is not None:
                return OverPace(words_of(one), retry_after_s=wish)
            if isinstance(one, TemporaryFailure):
                return TemporaryFailure(
                    words_of(one), retry_after_s=_wish_of(one), sent=bool(getattr(one, "sent", True))
                )
            if isinstance(one, PermanentFailure):
                return PermanentFailure(words_of(one))
        plugin = account.instance.plugin
        log.error("notifier.crashed", notifier=account.instance.name, plugin=plugin, exc_info=error)
        return _Crashed(f"plugin {plugin} raised {type(leaves(error)[0]).__name__}", sent=lost)

    def _report(
        self, effect: Deliver | Lookup, outcome: Receipt | TemporaryFailure | PermanentFailure | Lost | Absent
    ) -> None:
        lookup = isinstance(effect, Lookup)
        name = effect.message.target.notifier
        if isinstance(outcome, OverPace):
            log.debug("notify.postponed", notifier=name, message=effect.message.id, wait_s=outcome.retry_after_s)
            return
        kind = _kind_of(outcome)
        if not lookup:
            self.attempts[name, kind] += 1
        if isinstance(outcome, Receipt | Absent):
            return
        log.warning(
            "notify.failed",
            notifier=name,
            message=effect.message.id,
            attempt=effect.message.attempt,
            lookup=lookup,
            kind=kind,
            error=outcome.reason if isinstance(outcome, Lost) else str(outcome),
        )


def _kind_of(outcome: Receipt | TemporaryFailure | PermanentFailure | Lost | Absent) -> str:
    match outcome:
        case Receipt():
            return outcome.state
        case _Crashed() | _Rubbish():
            return "crashed"
        case TemporaryFailure():
            return "temporary"
        case PermanentFailure():
            return "permanent"
        case Lost():
            return "lost"
        case Absent():
            return "absent"


def _kind_of_rubbish(result: object) -> str:
    if isinstance(result, Receipt):
        return one_line(f"a Receipt whose state is {result.state!r}")
    return f"{type(result).__name__}, not a Receipt"


def _wish_of(failure: TemporaryFailure) -> float | None:
    """Return what the provider wished, None if it is no time to wait."""
    wish = getattr(failure, "retry_after_s", None)
    return float(wish) if isinstance(wish, int | float) and 0 <= wish <= MOST_WISH_S else None
