"""Events of our own messages: what a notifier makes of those that changed, handed in by the door like anybody's.

Owns which changes have been handed in. What it cannot hand in, or did not before the process ended, is read from the
journal and handed in again: events are recognised by their ids, so that each counts once. Decides and sends nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog
import trio

from sixfbd.containment import described, kind_of
from sixfbd.instances import NotifierInstance
from sixfbd.journal.errors import JournalError
from sixfbd.journal.records import MessageChanged, Record
from sixfbd.model import Event, Message, MessageId
from sixfbd.plugin import Clock, Notifier
from sixfbd.quantities import DAY

KNOWN_S: Final = 6 * DAY  # events are recognised for 7
SLICE: Final = 500  # messages that a notifier gets at once
MAX_EVENTS: Final = 5000  # that it may make of them
PAUSE_S: Final = 1.0  # so that a burst of changes is one commit
AGAIN_S: Final = 30.0  # after a failure, and until a notifier that is new is asked

log = structlog.get_logger("sixfbd.outbox")


class Intake(Protocol):
    """The door."""

    async def events(self, source: str, events: Sequence[Event]) -> Sequence[object]: ...


class Messages(Protocol):
    """Where the messages are read that changed earlier."""

    async def messages(self, notifier: str, start: float, end: float) -> Sequence[Message]: ...


class _BrokenError(Exception):
    """The plugin raised, or returned rubbish."""


class MessageEvents:
    """`follow` is given what the judge writes, `run` hands in what the notifiers of now make of it."""

    def __init__(
        self,
        intake: Intake,
        read: Messages,
        clock: Clock,
        notifiers: Callable[[], Mapping[str, NotifierInstance]],
        *,
        pause_s: float = PAUSE_S,
        again_s: float = AGAIN_S,
    ) -> None:
        self._intake = intake
        self._read = read
        self._clock = clock
        self._notifiers = notifiers
        self._pause_s = pause_s
        self._again_s = again_s
        self._up_to_date: dict[str, NotifierInstance] = {}  # but for `_changed`
        self._changed: dict[str, dict[MessageId, Message]] = {}
        self._news = trio.Event()

    def follow(self, records: Sequence[Record]) -> None:
        """Note the messages that changed. Never waits."""
        for record in records:
            if isinstance(record, MessageChanged) and record.message.target.notifier in self._up_to_date:
                self._changed.setdefault(record.message.target.notifier, {})[record.message.id] = record.message
                self._news.set()

    async def run(self) -> None:
        """Hand in events until cancelled."""
        while True:
            self._news = trio.Event()
            for name, instance in self._notifiers().items():
                await self._hand_in(name, instance)
            with trio.move_on_after(self._again_s):
                await self._news.wait()
            await trio.sleep(self._pause_s)

    async def _hand_in(self, name: str, instance: NotifierInstance) -> None:
        notifier = instance.notifier
        if notifier is None or type(notifier).events is Notifier.events:
            return
        changed = self._changed.pop(name, {})
        is_new = self._up_to_date.get(name) is not instance
        self._up_to_date[name] = instance  # from now on changes are noted: what is read below may miss them
        try:
            if is_new:
                await self._put(name, instance, ())
                now = self._clock.now()
                changed = {one.id: one for one in await self._read.messages(name, now - KNOWN_S, now)} | changed
            for some in _slices(list(changed.values())):
                await self._put(name, instance, some)
        except JournalError as error:
            del self._up_to_date[name]
            log.warning("notifier.events_wait", notifier=name, error=str(error))
        except _BrokenError as error:
            log.error("plugin.failed", instance=f"notifier {name}", plugin=instance.plugin, error=str(error))

    async def _put(self, name: str, instance: NotifierInstance, messages: Sequence[Message]) -> None:
        events = _events(instance, messages, f"notifier {name}")
        if events:
            await self._intake.events(f"notifier:{name}", events)


def _slices(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    for first in range(0, len(messages), SLICE):
        yield messages[first : first + SLICE]


def _events(instance: NotifierInstance, messages: Sequence[Message], whose: str) -> Sequence[Event]:
    """Return what a notifier makes of messages. Raises _BrokenError, whatever the plugin does.

    `whose` is what the watchdog reads off this frame if the call blocks the loop.
    """
    assert instance.notifier is not None
    try:
        events: Any = instance.notifier.events(messages)
    except (Exception, SystemExit) as error:
        raise _BrokenError(f"events(): {described(error)}") from error
    if not isinstance(events, list | tuple) or not all(isinstance(one, Event) for one in events):
        raise _BrokenError(f"events() returned {kind_of(events)}, not a list of events")
    if len(events) > MAX_EVENTS:
        raise _BrokenError(f"events() returned {len(events)} of {len(messages)} messages; at most {MAX_EVENTS}")
    return events
