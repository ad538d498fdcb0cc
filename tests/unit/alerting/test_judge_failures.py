"""The judge under attack: a journal that cannot be read or written, reloads while evaluations wait, answers written twice."""

from contextlib import asynccontextmanager

import pytest
import trio
from msgspec.structs import replace

from sixfbd.journal.errors import JournalBroken
from sixfbd.journal.records import EventsJudged, TokenChanged
from sixfbd.journal.state import base_of, fold
from sixfbd.judge import INPUTS_A_ROUND, Judge
from sixfbd.model import Event


@pytest.fixture
def journal(kit):
    return kit.MemoryJournal()


@pytest.fixture
def judging(journal, world):
    @asynccontextmanager
    async def open_judge(policy):
        judge = Judge(journal, world.clock, policy)
        judge.sent = []
        async with judge.running("1", "hash"):
            judge.attach(judge.sent.append)
            yield judge

    return open_judge


async def settled(judge):
    with trio.fail_after(60):
        while judge._waiting():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
            await trio.sleep(0.001)
        await trio.sleep(0.001)


def sale(kit, seq):
    return kit.StoredEvent(seq, "shop", kit.START, Event(f"s{seq}", "sale", kit.START, {}))


async def test_what_waits_is_not_lost_when_the_events_cannot_be_read(autojump_clock, kit, journal, judging, world):
    """An answer of a notifier and a command wait while the reading of events fails."""
    async with judging(kit.policy(notices={"sale": "sale"})) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        [effect] = judge.sent
        read, outcomes = journal.events, []

        async def unreadable(*args, **options):
            await trio.lowlevel.checkpoint()
            raise JournalBroken("journal.db: disk I/O error")

        async def ask():
            outcomes.append(await judge.note([TokenChanged(1.0, "t", "hash", (), "me")]))

        journal.events = unreadable
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.lowlevel.checkpoint()
                judge.submit(kit.Answer(world.clock.now(), effect.message.id, kit.Receipt()))
                journal.stored.append(sale(kit, 1))
                judge.events_committed(1)
        assert judge.journal_failing
        assert not outcomes[0].ok, "who asks is told at once, and does not wait for ever"
        journal.events = read
        await settled(judge)
        assert judge.messages_by_state() == {"sending": 1}, "the alert's is accepted, the notice's is on its way"
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)


async def test_a_journal_is_failing_until_something_was_written(autojump_clock, kit, journal, judging):
    async with judging(kit.policy()) as judge:
        await settled(judge)
        journal.failure = kit.JournalFull("journal.db: no space left")
        assert not (await judge.note([TokenChanged(1.0, "t", "hash", (), "me")])).ok
        for _ in range(100):
            await trio.sleep(1)
            assert judge.journal_failing, "that nothing had to be written shows nothing"
        journal.failure = None
        await trio.sleep(6)
        assert not judge.journal_failing
        assert isinstance(journal.records[-1], EventsJudged)
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)
        assert (await judge.note([TokenChanged(1.0, "t", "hash", (), "me")])).ok


async def test_a_reload_adopts_at_the_moment_of_its_commit_though_nobody_waits(
    autojump_clock, kit, journal, judging, nursery
):
    async with judging(kit.policy(kit.rule("Hot"))) as judge:
        await settled(judge)
        new, adopted = kit.policy(kit.rule("Cold")), []

        def adopt():
            adopted.append((judge.policy is new, journal.commits))

        before = journal.commits
        with trio.CancelScope() as scope:
            journal.on_commit = lambda when: scope.cancel()
            await judge.replace(new, "h2", kit.Actor("me"), adopt)
        await settled(judge)
        assert scope.cancelled_caught
        assert adopted == [(True, before + 1)]


async def test_a_reload_that_cannot_be_written_adopts_nothing(autojump_clock, kit, journal, judging):
    async with judging(kit.policy()) as judge:
        await settled(judge)
        journal.failure = kit.JournalFull("journal.db: no space left")
        adopted = []
        assert not (await judge.replace(kit.policy(), "h2", kit.Actor("me"), lambda: adopted.append(1))).ok
        assert adopted == []
        journal.failure = None


async def test_evaluations_by_the_old_rules_are_not_judged_by_the_new_ones(
    autojump_clock, kit, journal, judging, world
):
    """More evaluations wait than a round takes, and the reload comes with the first of them."""
    rules = [kit.rule(f"R{n}") for n in range(2 * INPUTS_A_ROUND)]
    async with judging(kit.policy(*rules)) as judge:
        await settled(judge)
        now = world.clock.now()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(judge.replace, kit.policy(*rules), "h2", kit.Actor("me"))
            await trio.lowlevel.checkpoint()
            for one in rules:
                judge.submit(kit.seen(now, kit.found(host="a"), rule=one.name))
        await settled(judge)
        assert len(judge.state.alerts) < INPUTS_A_ROUND


async def test_a_write_whose_answer_came_too_late_may_be_there_twice(autojump_clock, kit, journal, judging, world):
    """The disk hung for longer than anybody waits, and wrote in the end: the judge has written the same again."""
    async with judging(kit.policy()) as judge:
        await settled(judge)
        commit = journal.commit

        async def late(records):
            await commit(records)
            journal.commit = commit
            raise JournalBroken("no answer from the disk within 30 s; nobody can tell whether this was written")

        journal.commit = late
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        await trio.sleep(1)
        again = fold(journal.records)
        assert base_of(again, 0) == base_of(judge.state, 0)
        [subject] = again.open_of
        assert len(again.open_of[subject]) == 1


async def test_a_rule_that_went_while_the_daemon_was_down_resolves_its_alerts(
    autojump_clock, kit, journal, judging, world
):
    async with judging(kit.policy(kit.rule("Hot"), kit.rule("Cold", for_s=60))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a"), rule="Cold"))
        await settled(judge)
        judge.submit(kit.Answer(world.clock.now(), judge.sent[0].message.id, kit.Receipt()))
        await settled(judge)
    async with judging(kit.policy(kit.rule("Other"))) as judge:
        await settled(judge)
        assert len(judge.state.alerts) == 0
        [effect] = judge.sent
        [resolved] = effect.obligations
        assert (resolved.kind, resolved.about.reason) == ("resolve", "rule removed")


@pytest.mark.parametrize("change", [{"expr": "x > 9"}, {}])
async def test_a_rule_that_asks_something_else_fires_by_its_own_evaluation_alone(
    autojump_clock, kit, journal, judging, world, change
):
    """`for` is shortened to nothing; with another expression, what the old one found is no evidence."""
    rule = kit.rule("Hot", for_s=3600)
    async with judging(kit.policy(rule)) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(60)
        new = kit.policy(replace(rule, for_s=0.0, **change))
        assert (await judge.replace(new, "h2", kit.Actor("me"))).ok
        await trio.sleep(60)
        assert len(judge.sent) == (0 if change else 1)
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        assert len(judge.sent) == 1
