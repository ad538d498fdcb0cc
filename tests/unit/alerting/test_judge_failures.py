"""The judge under attack: a journal that cannot be read or written, answers that are lost, reloads while
evaluations wait."""

from contextlib import asynccontextmanager

import pytest
import trio
from msgspec.structs import replace

from sixfbd.journal.errors import JournalBroken
from sixfbd.journal.records import Base, CheckPaused, Configured, Owed, Started, TokenChanged, Volatile
from sixfbd.journal.state import account, base_of, fold
from sixfbd.judge import INPUTS_A_ROUND, Judge
from sixfbd.model import Event, PauseCheck


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


async def recovered(judge):
    with trio.fail_after(60):
        while judge.journal_failing:  # noqa: ASYNC110 - a condition of the judge, which has no event for it
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
        await recovered(judge)
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
        assert [type(record) for record in journal.records[-2:]] == [Volatile, Base]
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


async def test_what_the_old_rules_find_after_a_reload_was_asked_for_is_dropped_with_it_and_else_judged(
    autojump_clock, kit, journal, judging, world
):
    """It waits in the round of the reload, though it is the newest of all that waits there."""
    for failure in (None, kit.JournalFull("journal.db: no space left")):
        async with judging(kit.policy(kit.rule("Hot", for_s=3600))) as judge:
            await settled(judge)
            journal.failure = failure
            async with trio.open_nursery() as nursery:
                nursery.start_soon(judge.replace, kit.policy(kit.rule("Hot", expr="x > 9")), "h2", kit.Actor("me"))
                await trio.lowlevel.checkpoint()
                judge.submit(kit.seen(world.clock.now() + 0.001, kit.found(host="a")))
            await trio.sleep(1)
            assert [str(alert.state) for alert in judge.state.alerts.values()] == (
                [] if failure is None else ["pending"]
            )
            journal.failure = None
            await trio.sleep(10)


LOST = "journal.db: no answer from the disk within 30 s; nobody can tell whether this was written"


def lose_an_answer(journal, written):
    """The next commit gets no answer, whether it is written or not."""
    when_lost = "after" if written else "before"

    def lose(when):
        if when == when_lost:
            journal.on_commit = lambda when: None
            raise JournalBroken(LOST)

    journal.on_commit = lose


@pytest.mark.parametrize("written", [True, False])
async def test_a_round_whose_answer_is_lost_is_written_once_and_its_message_leaves_once(
    autojump_clock, kit, journal, judging, world, written
):
    heard = []
    async with judging(kit.policy()) as judge:
        await settled(judge)
        judge.listen(heard.extend)
        lose_an_answer(journal, written)
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(10)
        kit.check_account(journal.records, judge.state)
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)
        assert judge.record_seq == len(journal.records)
        assert not judge.journal_failing
        assert [effect.message.attempt for effect in judge.sent] == [1]
        assert sum(isinstance(record, Owed) for record in journal.records) == 1
        assert sum(isinstance(record, Owed) for record in heard) == 1, "listeners hear of it, once"
        judge.submit(kit.Answer(world.clock.now(), judge.sent[0].message.id, kit.Receipt()))
        await settled(judge)
        assert judge.messages_by_state() == {}


@pytest.mark.parametrize("written", [True, False])
async def test_who_asked_in_a_round_whose_answer_is_lost_is_told_what_came_of_it(
    autojump_clock, kit, journal, judging, written
):
    async with judging(kit.policy()) as judge:
        await settled(judge)
        lose_an_answer(journal, written)
        with trio.fail_after(1):
            paused = await judge.command(PauseCheck("web"), kit.Actor("me"))
        assert (paused.ok, paused.error) == (
            (True, "") if written else (False, "the journal did not take it, nothing was done")
        )
        assert list(judge.state.paused) == (["web"] if written else [])
        adopted = []
        lose_an_answer(journal, written)
        replaced = await judge.replace(kit.policy(), "h2", kit.Actor("me"), lambda: adopted.append(1))
        await settled(judge)
        assert replaced.ok is written
        assert adopted == ([1] if written else [])
        assert [one.config for one in journal.records if isinstance(one, Configured)] == (["h2"] if written else [])


def hanging(journal):
    """Let no commit be answered; what is returned takes those that wait, and the next ones."""
    commit, hung = journal.commit, []

    async def hang(records):
        hung.append(records)
        await trio.sleep(30)
        raise JournalBroken(LOST)

    async def go_on():
        journal.commit = commit
        for records in hung:
            await commit(records)

    journal.commit = hang
    return go_on


async def test_while_the_journal_cannot_be_asked_who_asked_hears_that_nobody_can_tell(
    autojump_clock, kit, journal, judging
):
    """A disk that hangs takes what waits for it once it turns again."""
    async with judging(kit.policy()) as judge:
        await settled(judge)
        heard = []
        judge.listen(heard.extend)
        go_on = hanging(journal)
        asked = await judge.command(PauseCheck("web"), kit.Actor("me"))
        assert asked.error == f"nobody can tell whether this was done, the journal does not answer: {LOST}"
        with trio.fail_after(1):
            later = await judge.command(PauseCheck("other"), kit.Actor("me"))
        assert later.error == f"the journal cannot be written, nothing was done: {LOST}"
        await go_on()
        await trio.sleep(60)
        assert list(judge.state.paused) == ["web"]
        assert [one.check for one in heard if isinstance(one, CheckPaused)] == ["web"], "who does it hears of it"
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)


async def test_what_a_reload_owed_that_is_written_but_did_not_take_place_is_not_open_for_ever(
    autojump_clock, kit, journal, judging, world
):
    async with judging(kit.policy(kit.rule("Hot"))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        judge.submit(kit.Answer(world.clock.now(), judge.sent[0].message.id, kit.Receipt()))
        await settled(judge)
        go_on = hanging(journal)
        assert not (await judge.replace(kit.policy(kit.rule("Cold")), "h2", kit.Actor("me"))).ok
        await go_on()
        await recovered(judge)
        await settled(judge)
        assert len(judge.state.alerts) == 1 and len(judge.sent) == 1, "its end was not told, for it has not ended"
        assert {one.kind: one.state for one in account(journal.records).values()} == {
            "fire": "accepted",
            "resolve": "suppressed",
        }
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)


async def test_with_a_full_journal_the_judge_begins_volatile(autojump_clock, kit, journal, judging, world):
    async with judging(kit.policy()) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
    journal.failure = kit.JournalFull("journal.db: no space left")
    async with judging(kit.policy()) as judge:
        assert judge.journal_failing and len(judge.state.alerts) == 1
        judge.submit(kit.seen(world.clock.now(), kit.found(host="b")))
        await trio.sleep(60)
        assert judge.journal_failing and len(judge.sent) == 2, "the first is sent again: nobody knows what came of it"
        journal.failure = None
        await recovered(judge)
        kit.check_account(journal.records, judge.state)
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)
        assert sum(isinstance(record, Started) for record in journal.records) == 2


async def test_events_whose_round_got_no_answer_are_told_once(autojump_clock, kit, journal, judging):
    async with judging(kit.policy(notices={"sale": "sale"})) as judge:
        await settled(judge)
        lose_an_answer(journal, written=True)
        journal.stored.append(sale(kit, 1))
        judge.events_committed(1)
        await trio.sleep(10)
        journal.stored.append(sale(kit, 2))
        judge.events_committed(2)
        await settled(judge)
        assert [one.subject for effect in judge.sent for one in effect.obligations] == ["shop/s1", "shop/s2"]
        assert judge.state.judged_event == 2


async def test_a_base_that_retention_wrote_meanwhile_takes_nothing_away(autojump_clock, kit, journal, judging, world):
    async with judging(kit.policy()) as judge:
        await settled(judge)
        base, _ = judge.cut()

        def lose(when):
            if when == "after":
                journal.on_commit = lambda when: None
                journal.records.append(base)
                raise JournalBroken(LOST)

        journal.on_commit = lose
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(10)
        assert len(judge.state.alerts) == len(judge.sent) == 1


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
