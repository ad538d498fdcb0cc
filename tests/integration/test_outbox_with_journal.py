"""Judge and outbox over a real journal.db on the real clock: durable before sent, the same after a restart and a cut."""

import random
import threading
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio

from sixfbd.alerting.policy import NotifierPolicy, Policy
from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config.tables import Channel, NotifierTable, RouteTable
from sixfbd.instances import NotifierInstance
from sixfbd.journal.database import JournalBroken, JournalDatabase, NewEvent
from sixfbd.journal.records import AlertChanged, MessageChanged, Owed
from sixfbd.journal.state import account, base_of, fold
from sixfbd.judge import Judge
from sixfbd.model import Ack, Actor, Evaluated, Event, Evidence, Found, Rule, Severity
from sixfbd.outbox.render import Place
from sixfbd.outbox.workers import Outbox
from sixfbd.plugin import Notifier, Receipt
from sixfbd.quantities import Duration
from sixfbd.world import EngineClock


class Post(Notifier):
    """Takes what it is given, or holds on to it while `held` is set."""

    def __init__(self):
        self.got = []
        self.held = False

    async def deliver(self, notification):
        self.got.append(notification)
        if self.held:
            await trio.sleep_forever()
        return Receipt(message_id=notification.id)


def policy_of(idempotent=True):
    return Policy(
        rules={"Hot": Rule(name="Hot", expr="x > 1", severity=Severity.HIGH)},
        level_of=lambda rule, value, current: rule.severity,
        annotate=lambda rule, found: {"summary": f"it is {found.value:g}"},
        routing=Routing(compile_route(RouteTable(receiver="primary")), {"primary": {"hook": Channel(via="hook")}}, {}),
        notifiers={"hook": NotifierPolicy(name="hook", idempotent=idempotent, retry_first_s=0.05)},
        rng=lambda *key: random.Random("/".join(key)),
        notices={"sale": "sold"},
    )


@asynccontextmanager
async def living(path, post, policy=None):
    """One life of journal, judge and outbox."""
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(JournalDatabase(path))
        clock = EngineClock()
        judge = Judge(journal, clock, policy or policy_of())
        await stack.enter_async_context(judge.running("1", "hash", last_alive_at=journal.last_alive_at))
        table = NotifierTable(name="hook", plugin="post", timeout=Duration(5), concurrency=4)
        instances = {"hook": NotifierInstance("hook", "post", table, post)}
        await stack.enter_async_context(Outbox(judge, clock, instances, Place("shop", "test"), drain_s=0.2).running())
        judge.clock = clock
        judge.journal = journal
        yield judge


def hot(judge, *hosts):
    finds = tuple(
        Found((("host", host),), 2.0, (Evidence("x", int(judge.clock.now() * 1000), 2.0),), ("c",)) for host in hosts
    )
    judge.submit(Evaluated("Hot", judge.clock.now(), finds))


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
            await trio.sleep(0.002)


async def records_of(path):
    async with JournalDatabase(path) as journal:
        return [stored.record for stored in await journal.records(limit=100_000)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


async def test_a_transition_is_durable_with_all_that_it_owes_before_anything_is_sent(path):
    post = Post()
    async with living(path, post) as judge:
        kept = []
        deliver = post.deliver

        async def look(notification):
            kept.extend(stored.record for stored in await judge.journal.records(limit=1000))
            return await deliver(notification)

        post.deliver = look
        hot(judge, "a")
        await until(lambda: post.got)
    kinds = {type(record) for record in kept}
    assert {AlertChanged, Owed, MessageChanged} <= kinds
    [message] = [record.message for record in kept if isinstance(record, MessageChanged)]
    assert (message.state, message.id) == ("sending", post.got[0].id)


async def test_a_restart_reads_the_same_state_and_sends_nothing_again(path):
    post = Post()
    async with living(path, post) as judge:
        hot(judge, "a", "b")
        await until(lambda: judge.closed["accepted"] == 1)
        [first, _] = sorted(judge.state.alerts.values(), key=lambda alert: alert.id)
        assert (await judge.command(Ack(first.id), Actor("me"))).ok
    async with living(path, post) as judge:
        assert judge.state.incident(first.id).acked_by == "me"
        assert base_of(judge.state, 0) == base_of(fold([one async for one in judge.journal.load_records()]), 0)
        hot(judge, "a", "b")
        await until(lambda: judge.latest("Hot") is not None)
        assert len(post.got) == 1
        hot(judge)
        await until(lambda: judge.closed["accepted"] == 1)
        assert [one.status for one in post.got] == ["firing", "resolved"]
        assert len(judge.state.alerts) == len(judge.state.closing) == len(judge.state.told) == 0


async def test_what_the_end_cut_off_is_unknown_at_the_next_start_and_settled_then(path):
    post = Post()
    post.held = True
    async with living(path, post) as judge:
        hot(judge, "a")
        await until(lambda: post.got)
    post.held = False
    async with living(path, post, policy_of(idempotent=False)) as judge:
        await until(lambda: judge.closed["accepted"] == 1)
    assert [one.possibly_repeated for one in post.got] == [False, True]
    assert len({one.id for one in post.got}) == 1
    records = await records_of(path)
    assert [one.state for one in account(records).values()] == ["accepted"]
    states = [record.message.state for record in records if isinstance(record, MessageChanged)]
    assert states == ["sending", "unknown", "sending", "accepted"]


async def test_a_cut_in_the_middle_leaves_the_same_state(path):
    post = Post()
    post.held = True
    async with living(path, post) as judge:
        hot(judge, "a")
        await until(lambda: post.got)
        base, upto = judge.cut()
        await judge.journal.retain(base, upto)
        hot(judge, "a", "b")
        await until(lambda: len(judge.state.alerts) == 2)
        loaded = fold([one async for one in judge.journal.load_records()])
        assert base_of(loaded, 0) == base_of(judge.state, 0)


async def test_an_event_that_was_acknowledged_is_told_of_once_whether_announced_or_found_at_the_start(path):
    post = Post()
    async with JournalDatabase(path) as journal:
        await journal.put_events("shop", [NewEvent(Event("e1", "sale", 1.0, {"n": 1}), 1.0, ())])
    async with living(path, post) as judge:
        await until(lambda: judge.closed["accepted"] == 1)
        await judge.journal.put_events("shop", [NewEvent(Event("e2", "sale", 2.0, {"n": 2}), 2.0, ())])
        judge.events_committed(judge.journal.last_event_seq)
        await until(lambda: judge.closed["accepted"] == 2)
    async with living(path, post) as judge:
        await trio.sleep(0.05)
    assert [one.title for one in post.got] == ["[NOTICE] sold: n=1", "[NOTICE] sold: n=2"]


async def test_a_disk_that_stalls_beyond_the_answer_doubles_neither_obligation_nor_message(path, monkeypatch):
    """What nobody waited for any more is written in the end; retention writes a base meanwhile."""
    post = Post()
    async with living(path, post) as judge:
        await until(lambda: not judge._waiting())
        monkeypatch.setattr("sixfbd.journal.database.ANSWER_TIMEOUT_S", 0.1)
        blocked, go = threading.Event(), threading.Event()

        def stall(connection, numbers):
            blocked.set()
            go.wait(10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(suppressed, judge.journal._write, stall)
            await until(blocked.is_set)
            hot(judge, "a")
            base, upto = judge.cut()
            nursery.start_soon(suppressed, judge.journal.retain, base, upto)
            await until(lambda: judge.journal_failing)
            await until(lambda: post.got)
            assert len(judge.state.alerts) == 1, "it goes on in memory"
            go.set()
            await until(lambda: not judge.journal_failing)
        await until(lambda: not judge.state.messages)
        held = base_of(judge.state, 0)
        assert judge.record_seq <= judge.journal.last_record_seq
        again = [record async for record in judge.journal.load_records()]
        assert base_of(fold(again), 0) == held
    assert len(post.got) == 1
    records = await records_of(path)
    assert sum(isinstance(record, Owed) for record in records) == 1
    assert [one.state for one in account(records).values()] == ["accepted"]


async def suppressed(call, *args):
    with suppress(JournalBroken):
        await call(*args)
