"""Every moment before and after every commit is a place to die: a new judge starts from each, drains, and the account balances.

The receiver is one for all lives of an image: what it took before the end it has taken.
"""

import random

import pytest
import trio

from sixfbd.journal.state import account, fold

HOSTS = ("a", "b", "c")


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
    receiver = kit.FarSide(random.Random(seed))
    journal = kit.MemoryJournal()

    def keep(when):
        images.append((journal.records[:], receiver.taken[:], when))

    journal.on_commit = keep
    draw = random.Random(seed)

    def through(receiver):
        return {"hook": kit.double_of(receiver, timeout=2.0, concurrency=2)}

    async def trouble(judge, outbox, clock):
        for _ in range(12):
            now_hot = [host for host in HOSTS if draw.random() < 0.5]
            judge.submit(kit.seen(clock.now(), *(kit.found(host=host) for host in now_hot)))
            await trio.sleep(draw.choice((0.01, 0.4, 1.0, 4.0)))

    await kit.live(journal, policy, through(receiver), kit.START, trouble)
    assert len(images) > 20

    async def calm(judge, outbox, clock):
        await trio.sleep(0.01)
        judge.submit(kit.seen(clock.now(), kit.found(host="a")))
        await kit.drained(judge)

    lost = repeats = on_their_way = 0
    for records, taken, _ in images:
        again = kit.MemoryJournal(records)
        quiet = kit.FarSide(random.Random(0), taken, faulty=False)
        await kit.live(again, policy, through(quiet), kit.START + 1000, calm)
        kit.check_account(again.records, fold(again.records))
        owed = account(again.records)
        assert {one.state for one in owed.values()} <= {"accepted", "delivered", "suppressed", "dead"}
        arrived = {(one.alert, one.status) for one in quiet.taken}
        for one in owed.values():
            status = "resolved" if one.kind == "resolve" else "firing"
            lost += one.state in ("accepted", "delivered") and (one.subject, status) not in arrived
        before = len(taken)
        sending = {
            one.id
            for one in kit.last_messages(records).values()
            if one.state in ("sending", "unknown") or one.possibly_repeated  # refused when it was sent once more
        }
        on_their_way += len(sending)
        repeated = {one for one in quiet.taken[before:] if one in taken}
        assert {one.message for one in repeated} <= sending, "a repeat of what was not on its way"
        if promise == "can_look_up":
            assert not repeated, "what can be looked up is not repeated"
        repeats += len(repeated)
    assert lost == 0
    assert repeats > 0 or promise == "can_look_up", "no image died while an answer was on its way"
    print(f"{len(images)} images: 0 lost, {repeats} repeats, {on_their_way} messages on their way")
