"""Every moment before and after every commit is a place to die: a new judge starts from each, drains, and the account balances.

The receiver is one for all lives of an image: what it took before the end it has taken.
"""

import random

import pytest
import trio

from sixfbd.journal.state import account, fold
from sixfbd.judge import Judge
from sixfbd.outbox.render import Place
from sixfbd.outbox.workers import Outbox
from sixfbd.world import EngineClock

HOSTS = ("a", "b", "c")


class Receiver:
    """The far side: takes messages, and answers by chance with what a bad network answers."""

    def __init__(self, kit, seed, taken=(), faulty=True):
        self.kit = kit
        self.draw = random.Random(seed)
        self.taken = list(taken)  # (message id, alert id, status) in order of arrival
        self.faulty = faulty

    async def take(self, notification):
        fault = self.draw.random() if self.faulty else 1.0
        await trio.sleep(self.draw.choice((0.0, 0.05, 0.5)))
        if fault < 0.15:
            raise self.kit.TemporaryFailure("refused")
        if fault < 0.2:
            raise self.kit.TemporaryFailure("slow down", retry_after_s=3.0)
        if fault < 0.25:
            await trio.sleep_forever()  # hangs before taking it
        self.taken += [(notification.id, alert.id, alert.status) for alert in notification.alerts]
        if fault < 0.35:
            await trio.sleep_forever()  # took it, and its answer is lost
        if fault < 0.4:
            raise self.kit.TemporaryFailure("reset", sent=True)
        return self.kit.Receipt(message_id=notification.id)

    def has(self, notification):
        return self.kit.Receipt() if any(notification.id == one for one, _, _ in self.taken) else None


def double_of(kit, receiver, can_look_up):
    double = kit.Double(lambda notification, call: receiver.take(notification))
    double.look = lambda notification, call: receiver.has(notification)
    return {"hook": kit.instance(double, "hook", timeout=2.0, concurrency=2)}


async def live(kit, journal, policy, receiver, now, script):
    """One life of the daemon on its own clock; returns the engine time at its end."""
    clock = EngineClock(now)
    judge = Judge(journal, clock, policy)
    async with judge.running("1", "hash"):
        async with Outbox(judge, clock, double_of(kit, receiver, True), Place("shop", "test")).running():
            await script(judge, clock)
    return clock.now()


@pytest.mark.parametrize("promise", ["idempotent", "can_look_up", "nothing"])
@pytest.mark.parametrize("seed", range(3))
async def test_from_every_image_nothing_is_lost_and_repeats_are_at_most_what_was_on_its_way(
    autojump_clock, kit, promise, seed
):
    settings = {"timeout_s": 2.0, "concurrency": 2, "retry_first_s": 0.2, "retry_most_s": 2.0}
    if promise != "nothing":
        settings[promise] = True
    policy = kit.policy(kit.rule(for_s=0.3), hook=settings)
    images = []
    receiver = Receiver(kit, seed)
    journal = kit.MemoryJournal()

    def keep(when):
        images.append((journal.records[:], receiver.taken[:], when))

    journal.on_commit = keep
    draw = random.Random(seed)

    async def trouble(judge, clock):
        for _ in range(12):
            now_hot = [host for host in HOSTS if draw.random() < 0.5]
            judge.submit(kit.seen(clock.now(), *(kit.found(host=host) for host in now_hot)))
            await trio.sleep(draw.choice((0.01, 0.4, 1.0, 4.0)))

    await live(kit, journal, policy, receiver, kit.START, trouble)
    assert len(images) > 30

    async def calm(judge, clock):
        await trio.sleep(0.01)
        judge.submit(kit.seen(clock.now(), kit.found(host="a")))
        with trio.fail_after(1200):
            while judge.state.messages or judge.state.obligations or judge._waiting():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
                await trio.sleep(0.5)

    lost = repeats = on_their_way = 0
    for records, taken, _ in images:
        again = kit.MemoryJournal(records)
        quiet = Receiver(kit, 0, taken, faulty=False)
        await live(kit, again, policy, quiet, kit.START + 1000, calm)
        kit.check_account(again.records, fold(again.records))
        owed = account(again.records)
        assert {one.state for one in owed.values()} <= {"accepted", "delivered", "suppressed", "dead"}
        arrived = {(alert, status) for _, alert, status in quiet.taken}
        for one in owed.values():
            status = "resolved" if one.kind == "resolve" else "firing"
            lost += one.state in ("accepted", "delivered") and (one.subject, status) not in arrived
        before = len(taken)
        sending = {
            one.message.id for one in messages_of(records).values() if one.message.state in ("sending", "unknown")
        }
        on_their_way += len(sending)
        repeated = {one for one in quiet.taken[before:] if one in taken}
        assert {message for message, _, _ in repeated} <= sending, "a repeat of what was not on its way"
        if promise == "can_look_up":
            assert not repeated, "what can be looked up is not repeated"
        repeats += len(repeated)
    assert lost == 0
    assert repeats > 0 or promise == "can_look_up", "no image died while an answer was on its way"
    print(f"{len(images)} images: 0 lost, {repeats} repeats, {on_their_way} messages on their way")


def messages_of(records):
    """The last record of every message."""
    return {record.message.id: record for record in records if type(record).__name__ == "MessageChanged"}
