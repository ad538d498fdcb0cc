"""The judge's task: rounds, durable outcomes, timers, a journal that fails, stop and start."""

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from sixfbd.alerting.inputs import Lookup
from sixfbd.journal.records import EventsJudged, Started, Stopped, TokenChanged
from sixfbd.journal.state import account, base_of, fold
from sixfbd.journal.volatile import Unwritten
from sixfbd.judge import INPUTS_A_ROUND, Judge
from sixfbd.model import Event, PauseCheck


@pytest.fixture
def journal(kit):
    return kit.MemoryJournal()


@pytest.fixture
def judging(kit, journal, world):
    """Open a judge over the journal; its messages are collected in `judge.sent` and not answered."""

    @asynccontextmanager
    async def open_judge(policy=None, attach=True):
        judge = Judge(journal, world.clock, policy or kit.policy())
        judge.sent = []
        async with judge.running("1", "hash"):
            if attach:
                judge.attach(judge.sent.append)
            yield judge

    return open_judge


async def settled(judge):
    """Return when the judge has nothing left to do now; time jumps only when all are idle."""
    with trio.fail_after(60):
        while judge._waiting():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
            await trio.sleep(0.001)
        await trio.sleep(0.001)


async def test_a_firing_alert_is_committed_published_and_on_its_way_in_one_round(
    autojump_clock, kit, journal, judging, world
):
    async with judging() as judge:
        await settled(judge)
        before = journal.commits
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        assert journal.commits == before + 1
        assert [effect.message.state for effect in judge.sent] == ["sending"]
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0)
        assert judge.record_seq == len(journal.records)
        assert judge.messages_by_state() == {"sending": 1}


async def test_for_ends_by_a_timer_without_another_evaluation(autojump_clock, kit, journal, judging, world):
    async with judging(kit.policy(kit.rule(for_s=60))) as judge:
        start = world.clock.now()
        judge.submit(kit.seen(start, kit.found(host="a")))
        await trio.sleep(59.9)
        assert judge.sent == []
        await trio.sleep(0.2)
        assert len(judge.sent) == 1
        assert judge.sent[0].obligations[0].about.fired_at == pytest.approx(start + 60)


async def test_of_a_rule_the_newest_evaluation_that_waits_is_judged_and_older_or_failed_ones_are_not(
    autojump_clock, kit, journal, judging, world
):
    async with judging() as judge:
        now = world.clock.now()
        await trio.sleep(1)
        judge.submit(kit.seen(now, kit.found(1.0, host="a")))
        judge.submit(kit.seen(now + 0.2, kit.found(2.0, host="a")))
        judge.submit(kit.seen(now + 0.1, kit.found(3.0, host="a")))
        judge.submit(kit.seen(now + 0.3, error="broken"))
        await settled(judge)
        assert judge.latest("Hot").at == now + 0.2
        [key] = judge.state.alerts
        assert judge.latest_found(key).value == 2.0
        judge.submit(kit.seen(now + 0.1))
        await settled(judge)
        assert len(judge.state.alerts) == 1, "an evaluation that is older than the last one judged is dropped"


async def test_a_round_takes_a_bounded_number_of_inputs_and_all_are_judged(
    autojump_clock, kit, journal, judging, world
):
    rules = [kit.rule(f"R{n}") for n in range(2 * INPUTS_A_ROUND + 1)]
    async with judging(kit.policy(*rules)) as judge:
        await settled(judge)
        before = journal.commits
        for one in rules:
            judge.submit(kit.seen(world.clock.now(), kit.found(host="a"), rule=one.name))
        await settled(judge)
        assert journal.commits == before + 3
        assert len(judge.state.alerts) == len(rules)


async def test_a_large_round_lets_others_run(autojump_clock, kit, journal, judging, world):
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with judging() as judge:
        await settled(judge)
        judge.submit(kit.seen(world.clock.now(), *(kit.found(host=f"h{n}") for n in range(1000))))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            while not judge.sent:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert turns >= 20
        assert len(judge.state.alerts) == 1000


async def test_a_command_is_durable_when_its_outcome_is_there(autojump_clock, kit, journal, judging, world):
    async with judging() as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        [alert] = judge.state.alerts.values()
        outcome = await judge.command(kit.Ack(alert.id, "on it"), kit.Actor("uid:1000 alice"))
        assert (outcome.ok, outcome.detail) == (True, f"Hot {alert.id} acknowledged")
        assert [record.by for record in journal.records if type(record).__name__ == "Acked"] == ["uid:1000 alice"]
        assert journal.records[-1].outcome == outcome.detail, "who commanded what, and what came of it"
        again = await judge.command(kit.Ack(alert.id), kit.Actor("bob"))
        assert again.detail == f"Hot {alert.id} was acknowledged by uid:1000 alice before"


async def test_an_acknowledgement_of_what_does_not_fire_is_refused_with_the_reason(autojump_clock, kit, judging, world):
    async with judging(kit.policy(kit.rule(for_s=60))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        [alert] = judge.state.alerts.values()
        pending = await judge.command(kit.Ack(alert.id), kit.Actor("me"))
        assert pending.error == f"Hot {alert.id} is pending, not firing"
        unknown = await judge.command(kit.Ack("nonsense"), kit.Actor("me"))
        assert unknown.error == "no alert 'nonsense' is firing; `sixfbctl alerts` lists those that fire"


async def test_a_check_is_paused_by_a_command_and_stays_so_over_a_restart(autojump_clock, kit, journal, judging):
    async with judging() as judge:
        assert (await judge.command(PauseCheck("web"), kit.Actor("me"))).detail == "web is paused now"
        assert (await judge.command(PauseCheck("web"), kit.Actor("me"))).detail == "web is paused already"
    async with judging() as judge:
        assert list(judge.state.paused) == ["web"]
        assert (await judge.command(PauseCheck("web", paused=False), kit.Actor("me"))).detail == "web is running now"
        assert list(judge.state.paused) == []


async def test_records_of_others_are_written_and_folded_in(autojump_clock, kit, journal, judging):
    async with judging() as judge:
        assert (await judge.note([TokenChanged(1.0, "grafana", "hash", ("read",), "me")])).ok
        assert list(judge.state.tokens) == ["grafana"]
        assert journal.records[-1].name == "grafana"


async def test_while_the_journal_fails_judging_and_sending_go_on_and_commands_are_refused(
    autojump_clock, kit, journal, judging, world
):
    async with judging() as judge:
        await settled(judge)
        written = len(journal.records)
        journal.failure = kit.JournalFull("no space left")
        failed_at = world.clock.now()
        judge.submit(kit.seen(failed_at, kit.found(host="a")))
        await trio.sleep(1)
        assert judge.journal_failing
        assert judge.failing_since == pytest.approx(failed_at, abs=0.1)
        assert judge.last_journal_error == "no space left"
        [effect] = judge.sent
        judge.submit(kit.Answer(world.clock.now(), effect.message.id, kit.Receipt()))
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a"), kit.found(host="b")))
        await trio.sleep(9)
        assert [one.about.labels["host"] for effect in judge.sent for one in effect.obligations] == ["a", "b"]
        outcome = await judge.command(PauseCheck("web"), kit.Actor("me"))
        assert outcome.error == "the journal cannot be written, nothing was done: no space left"
        assert len(journal.records) == written
        journal.failure = None
        await trio.sleep(6)
        assert not judge.journal_failing
        assert base_of(fold(journal.records), 0) == base_of(judge.state, 0)
        kit.check_account(journal.records, judge.state)
        *_, gap, base = journal.records
        assert (gap.since, gap.error, gap.dropped) == (pytest.approx(failed_at, abs=0.1), "no space left", 0)
        assert base == base_of(judge.state, gap.at)
        assert list(judge.state.paused) == [], "what was refused is not done later"
        assert (await judge.command(PauseCheck("web"), kit.Actor("me"))).ok
        assert judge.record_seq == len(journal.records)


async def test_a_gap_longer_than_memory_drops_its_oldest_records_and_still_adds_up(
    autojump_clock, kit, journal, judging, world, monkeypatch
):
    """An alert is open before the gap and ends in it; another flaps all the time."""
    monkeypatch.setattr("sixfbd.judge.Unwritten", partial(Unwritten, most=50))
    async with judging() as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        journal.failure = kit.JournalFull("no space left")
        judge.submit(kit.Answer(world.clock.now(), judge.sent[0].message.id, kit.Receipt()))
        for turn in range(100):
            await trio.sleep(1)
            judge.submit(kit.seen(world.clock.now(), *([kit.found(host="b")] if turn % 2 else [])))
            await settled(judge)
            while len(judge.sent) > 1:
                judge.submit(kit.Answer(world.clock.now(), judge.sent.pop().message.id, kit.Receipt()))
                await settled(judge)
        journal.failure = None
        await trio.sleep(6)
        assert not judge.journal_failing
        gap = journal.records[-2]
        assert gap.dropped > 300
        assert len(journal.records) < 150
        assert base_of(fold(journal.records), 0) == base_of(judge.state, 0)
        open_ids = {one.id for one in account(journal.records).values() if one.state in kit.OPEN}
        assert open_ids == set(judge.state.obligations), "the account balances over the gap"


async def test_a_command_that_meets_the_failure_itself_is_refused_at_once(autojump_clock, kit, journal, judging):
    async with judging() as judge:
        await settled(judge)
        journal.failure = kit.JournalFull("no space left")
        with trio.fail_after(1):
            outcome = await judge.command(PauseCheck("web"), kit.Actor("me"))
        assert not outcome.ok
        journal.failure = None
        with trio.fail_after(10):
            while judge.journal_failing:  # noqa: ASYNC110 - a condition of the judge, which has no event for it
                await trio.sleep(0.1)
        assert (await judge.command(PauseCheck("web"), kit.Actor("me"))).ok


async def test_what_a_volatile_daemon_decided_is_written_when_it_stops_if_that_is_possible(
    autojump_clock, kit, journal, judging, world
):
    async with judging() as judge:
        await settled(judge)
        journal.failure = kit.JournalFull("no space left")
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        journal.failure = None
    assert [type(record).__name__ for record in journal.records[-3:]] == ["Volatile", "Base", "Stopped"]
    assert [alert.labels["host"] for alert in fold(journal.records).alerts.values()] == ["a"]


async def test_a_journal_that_takes_small_writes_only_stays_failing(autojump_clock, kit, journal, judging, world):
    async with judging() as judge:
        await settled(judge)
        commit, tries = journal.commit, 0

        async def full(records):
            nonlocal tries
            tries += 1
            await trio.lowlevel.checkpoint()
            raise kit.JournalFull("no space left")

        journal.commit = full
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(100)
        assert judge.journal_failing
        assert len(judge.sent) == 1
        assert tries < 40, "it does not try all the time"
        journal.commit = commit
        await trio.sleep(6)
        assert not judge.journal_failing


def sale(kit, seq):
    return kit.StoredEvent(seq, "shop", kit.START, Event(f"e{seq}", "sale", kit.START, {"n": seq}))


async def test_events_with_a_notice_are_read_from_the_journal_and_told_once(autojump_clock, kit, journal, judging):
    async with judging(kit.policy(notices={"sale": "sold"})) as judge:
        journal.stored += [sale(kit, 1), sale(kit, 2)]
        judge.events_committed(2)
        judge.events_committed(1)
        await settled(judge)
        assert [one.text for effect in judge.sent for one in effect.obligations] == ["sold: n=1", "sold: n=2"]
        assert judge.state.judged_event == 2


async def test_events_that_come_fresh_are_told_without_reading_the_journal(autojump_clock, kit, journal, judging):
    async with judging(kit.policy(notices={"sale": "sold"})) as judge:
        judge.events_committed(1, [sale(kit, 1)])
        await settled(judge)
        other = kit.StoredEvent(2, "shop", kit.START, Event("e2", "other", kit.START, {}))
        judge.events_committed(3, [other, sale(kit, 3)])
        await settled(judge)
        assert [one.text for effect in judge.sent for one in effect.obligations] == ["sold: n=1", "sold: n=3"]


async def test_events_of_which_some_did_not_come_fresh_are_read_from_the_journal(autojump_clock, kit, journal, judging):
    async with judging(kit.policy(notices={"sale": "sold"})) as judge:
        journal.stored += [sale(kit, 1), sale(kit, 2)]
        judge.events_committed(2, [sale(kit, 2)])
        await settled(judge)
        judge.events_committed(1, [sale(kit, 1)])
        journal.stored += [sale(kit, 3)]
        judge.events_committed(3, [sale(kit, 3)])
        await settled(judge)
        assert [one.text for effect in judge.sent for one in effect.obligations] == [
            "sold: n=1", "sold: n=2", "sold: n=3",
        ]  # fmt: skip


async def test_events_that_carry_no_notice_make_no_round_and_are_not_read_again(autojump_clock, kit, journal, judging):
    async with judging(kit.policy(notices={"sale": "sold"})) as judge:
        await settled(judge)
        written = len(journal.records)
        for number in range(1, 4):
            judge.events_committed(
                number, [kit.StoredEvent(number, "shop", kit.START, Event(f"e{number}", "other", kit.START, {}))]
            )
        await settled(judge)
        assert len(journal.records) == written
        judge.events_committed(4, [sale(kit, 4)])
        await settled(judge)
        assert judge.state.judged_event == 4
        assert [one.text for effect in judge.sent for one in effect.obligations] == ["sold: n=4"]


async def test_an_event_that_nobody_announced_before_the_end_is_judged_at_the_next_start(
    autojump_clock, kit, journal, judging
):
    policy = kit.policy(notices={"sale": "sold"})
    async with judging(policy):
        pass
    journal.stored += [sale(kit, 1)]
    async with judging(policy) as judge:
        await settled(judge)
        assert [one.text for effect in judge.sent for one in effect.obligations] == ["sold: n=1"]


async def test_more_events_than_a_page_are_all_judged(autojump_clock, kit, journal, judging):
    journal.stored += [sale(kit, seq) for seq in range(1, 1202)]
    async with judging(kit.policy(notices={"sale": "sold"}, hook={"concurrency": 1000})) as judge:
        await settled(judge)
        assert sum(len(effect.obligations) for effect in judge.sent) == 1201
        assert judge.state.judged_event == 1201


async def test_events_of_the_past_do_not_become_notices_when_a_configuration_makes_them_some(
    autojump_clock, kit, journal, judging
):
    journal.stored += [sale(kit, seq) for seq in range(1, 10)]
    noticing = kit.policy(notices={"sale": "sold"})
    async with judging() as judge:
        await settled(judge)
        assert (await judge.replace(noticing, "h2", kit.Actor("me"))).ok
        await settled(judge)
        assert judge.sent == []
        assert judge.state.judged_event == 9
    async with judging(noticing) as judge:
        await settled(judge)
        assert judge.sent == []


async def test_what_was_judged_without_a_notice_is_written_at_the_end(autojump_clock, kit, journal, judging):
    journal.stored += [sale(kit, seq) for seq in range(1, 10)]
    async with judging() as judge:
        await settled(judge)
    assert [type(record) for record in journal.records[-2:]] == [EventsJudged, Stopped]
    assert journal.records[-2].seq == 9


async def test_what_is_owed_waits_until_an_outbox_is_attached(autojump_clock, kit, journal, judging, world):
    async with judging(attach=False) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        assert judge.messages_by_state() == {"pending": 1}
        await trio.sleep(10)
        assert judge.oldest_message_age_s() == pytest.approx(10, abs=0.1)
        judge.attach(judge.sent.append)
        await settled(judge)
        assert judge.messages_by_state() == {"sending": 1}
        assert len(judge.sent) == 1
        judge.detach()
        judge.submit(kit.seen(world.clock.now(), kit.found(host="b")))
        await settled(judge)
        assert judge.messages_by_state() == {"sending": 1, "pending": 1}
        assert len(judge.sent) == 1


async def test_a_message_claimed_while_the_outbox_detached_is_not_lost(autojump_clock, kit, journal, judging, world):
    async with judging() as judge:
        await settled(judge)
        journal.on_commit = lambda when: judge.detach()
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        assert judge.sent == []
        assert judge.messages_by_state() == {"pending": 1}


async def test_a_start_writes_that_it_began_and_what_it_found_on_its_way(autojump_clock, kit, journal, judging, world):
    policy = kit.policy(hook={"can_look_up": True})
    async with judging(policy) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        died = journal.records[:]
    journal.records = died[:]
    await trio.sleep(100)
    async with judging(policy) as judge:
        began = journal.records[len(died)]
        assert isinstance(began, Started)
        assert began.last_alive_at == died[-1].at
        await settled(judge)
        assert [type(effect) for effect in judge.sent] == [Lookup]
        assert [one.state for one in account(journal.records).values()] == ["unknown"]


async def test_a_reload_takes_effect_in_one_round_and_forgets_evaluations_of_rules_that_are_gone(
    autojump_clock, kit, journal, judging, world
):
    async with judging(kit.policy(kit.rule("Hot"), kit.rule("Cold"))) as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        new = kit.policy(kit.rule("Cold"))
        assert (await judge.replace(new, "h2", kit.Actor("me"))).ok
        assert judge.policy is new
        assert judge.latest("Hot") is None
        assert len(judge.state.alerts) == 0


async def test_a_reload_that_cannot_be_written_changes_nothing(autojump_clock, kit, journal, judging, world):
    async with judging() as judge:
        before = judge.policy
        journal.failure = kit.JournalFull("no space left")
        outcome = await judge.replace(kit.policy(kit.rule("Cold")), "h2", kit.Actor("me"))
        assert not outcome.ok
        assert judge.policy is before
        journal.failure = None


async def test_dead_messages_are_counted_and_listeners_hear_of_each_round(autojump_clock, kit, journal, judging, world):
    heard = []
    async with judging() as judge:
        stop = judge.listen(heard.extend)
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        judge.submit(kit.Answer(world.clock.now(), judge.sent[0].message.id, kit.PermanentFailure("never")))
        await settled(judge)
        assert judge.dead == 1
        assert judge.closed == {"dead": 1}
        assert [type(record).__name__ for record in heard] == [
            "AlertChanged",
            "Owed",
            "MessageChanged",
            "MessageChanged",
        ]
        stop()
        await judge.note([TokenChanged(1.0, "grafana", "hash", ("read",), "me")])
        assert len(heard) == 4


async def test_the_cut_is_the_state_at_the_last_record(autojump_clock, kit, journal, judging, world):
    async with judging() as judge:
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await settled(judge)
        base, upto = judge.cut()
        assert upto == len(journal.records)
        assert base == base_of(fold(journal.records), base.at)


async def test_who_asks_while_it_stops_is_told_so(autojump_clock, kit, journal, judging):
    async with judging() as judge:
        pass
    assert (await judge.command(PauseCheck("web"), kit.Actor("me"))).error == "the daemon is stopping"
    assert isinstance(journal.records[-1], Stopped)


async def test_a_stop_with_a_journal_that_hangs_ends_in_time(autojump_clock, kit, journal, judging, world):
    async def hang(records):
        await trio.sleep_forever()

    with trio.fail_after(10):
        async with judging() as judge:
            await settled(judge)
            journal.commit = hang
            judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
            await trio.sleep(0.1)
