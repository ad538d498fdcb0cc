"""Events that notifiers make of our own messages, over a real journal: each counts once, whatever fails on the way."""

from contextlib import asynccontextmanager

import pytest
import trio
from msgspec import Struct
from structlog.testing import capture_logs

from sixfbd.config.tables import NotifierTable
from sixfbd.instances import NotifierInstance
from sixfbd.journal.errors import JournalBroken
from sixfbd.journal.records import MessageChanged
from sixfbd.model import Event, Message, MessageId, Target
from sixfbd.outbox.events import SLICE, MessageEvents
from sixfbd.plugin import Counter, EventType, Notifier
from sixfbd.quantities import Duration
from sixfbd.world import EngineClock
from tests.provider_kit import Engine

TAKEN = Counter("post_taken_total", "Letters that were taken.")


class Letter(Struct):
    taken: float


LETTER = EventType("letter", Letter, counts=lambda one: [TAKEN(one.taken)], metrics=(TAKEN,), shared=True)


class Post(Notifier):
    """Counts what is taken."""

    def __init__(self):
        self.got = []

    def events(self, messages):
        self.got.append(len(messages))
        taken = [Event(str(one.id), "letter", 1.0, {"taken": 1}) for one in messages if one.state == "accepted"]
        return taken if messages else [Event("begun", "letter", 1.0, {"taken": 0})]


class Broken(Post):
    """Raises, or returns what is no event."""

    def __init__(self, returned):
        super().__init__()
        self.returned = returned

    def events(self, messages):
        self.got.append(len(messages))
        if self.returned is None:
            raise RuntimeError("no ink")
        return self.returned


def instance(name, notifier):
    table = NotifierTable(name=name, plugin="post", timeout=Duration(5), concurrency=4)
    return NotifierInstance(name, "post", table, notifier)


def change(name, state="accepted", notifier="post"):
    message = Message(
        id=MessageId(name), target=Target("primary", notifier), state=state, created_at=1.0, expires_at=2.0,
        obligations=(),
    )  # fmt: skip
    return MessageChanged(EngineClock().now(), message)


class Life:
    def __init__(self, engine, events):
        self.engine = engine
        self.events = events

    async def change(self, *records):
        """What the judge does: first written, then told."""
        await self.engine.journal.commit(records)
        self.events.follow(records)

    async def counts(self, number):
        with trio.fail_after(20):
            while self.engine.counted().get(("post_taken_total",)) != number:  # noqa: ASYNC110 - the window has no event for it
                await trio.sleep(0.01)


@pytest.fixture
def living(tmp_path):
    @asynccontextmanager
    async def life(intake=None, **notifiers):
        instances = {name: instance(name, one) for name, one in notifiers.items()}
        async with Engine(tmp_path, EngineClock(), (LETTER,)).running() as engine, trio.open_nursery() as nursery:
            door = engine.intake if intake is None else intake(engine.intake)
            events = MessageEvents(door, engine.read, engine.clock, lambda: instances, pause_s=0.01, again_s=0.05)
            nursery.start_soon(events.run)
            yield Life(engine, events)
            nursery.cancel_scope.cancel()

    return life


async def test_a_counter_is_there_before_its_first_message(living):
    async with living(post=Post()) as life:
        await life.counts(0)


async def test_each_message_counts_once_through_changes_and_restarts(living):
    async with living(post=Post()) as life:
        await life.counts(0)
        await life.change(change("m-1", "sending"), change("m-2"))
        await life.change(change("m-1"), change("other", notifier="elsewhere"))
        await life.counts(2)
        await life.change(change("m-2"))
    async with living(post=Post()) as life:
        await life.counts(2)
        await life.change(change("m-3"))
        await life.counts(3)


async def test_what_changed_while_nobody_listened_is_read_from_the_journal(living):
    async with living() as life:
        await life.engine.journal.commit([change(f"m-{number}") for number in range(SLICE + 5)])
    post = Post()
    async with living(post=post) as life:
        await life.counts(SLICE + 5)
    assert post.got == [0, SLICE, 5]


class Shut:
    """A door that takes nothing the first three times."""

    def __init__(self, door):
        self.door = door
        self.left = 3

    async def events(self, source, events):
        if self.left:
            self.left -= 1
            raise JournalBroken("the disk is full")
        return await self.door.events(source, events)


async def test_what_the_journal_does_not_take_is_handed_in_later(living):
    async with living(Shut, post=Post()) as life:
        await life.change(change("m-1"))
        await life.counts(1)


@pytest.mark.parametrize("returned", [None, 5, ["letter"]])
async def test_a_notifier_that_breaks_is_named_and_the_others_count(living, returned):
    with capture_logs() as lines:
        async with living(broken=Broken(returned), post=Post()) as life:
            await life.counts(0)
            await life.change(change("m-1"), change("m-2", notifier="broken"))
            await life.counts(1)
    assert {one["instance"] for one in lines if one["event"] == "plugin.failed"} == {"notifier broken"}


async def test_a_notifier_without_events_is_never_asked(living):
    async with living(plain=Notifier({}, None), post=Post()) as life:
        await life.change(change("m-1", notifier="plain"))
        await life.counts(0)
