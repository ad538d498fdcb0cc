"""The outbox under attack: what notifiers raise and return must neither end the daemon nor spoil the journal."""

import math
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio

from sixfbd.journal.records import MessageChanged
from sixfbd.journal.state import base_of, fold
from sixfbd.judge import Judge
from sixfbd.model import Receipt
from sixfbd.outbox.render import Place
from sixfbd.outbox.workers import Outbox
from sixfbd.plugin import PermanentFailure, TemporaryFailure
from tests.containment_kit import kept_cancelled


@pytest.fixture
def living(kit, world):
    """Open a judge and an outbox over one notifier; yield both and the journal, which encodes what it is given."""

    @asynccontextmanager
    async def open_both(act, **options):
        journal = kit.MemoryJournal()
        judge = Judge(journal, world.clock, kit.policy(hook={"concurrency": 2}))
        async with judge.running("1", "hash"):
            double = kit.Double(act)
            async with Outbox(
                judge, world.clock, {"hook": kit.instance(double, **options)}, Place("shop", "test"), drain_s=1
            ).running() as outbox:
                yield judge, outbox, journal, double
        assert base_of(judge.state, 0) == base_of(fold(journal.records), 0), "what is written can be read again"

    return open_both


def raising(error):
    def act(notification, call):
        raise error

    return act


class Speechless(TemporaryFailure):
    def __init__(self):
        """Without the fields of its base."""

    def __str__(self):
        raise RuntimeError("no words")


def last(journal):
    return [record.message for record in journal.records if isinstance(record, MessageChanged)][-1]


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(1),
        KeyboardInterrupt(),
        BaseExceptionGroup("x", [SystemExit(1), TemporaryFailure("later")]),
        Speechless(),
        TemporaryFailure("no file /mnt/\udcff"),
        PermanentFailure("no file /mnt/\udcff"),
        *(TemporaryFailure("x", retry_after_s=wish) for wish in (math.nan, math.inf, -1.0, "soon", 10**400)),
    ],
)
async def test_whatever_a_notifier_raises_the_daemon_goes_on_and_the_journal_can_be_read(
    autojump_clock, kit, living, world, error
):
    async with living(raising(error)) as (judge, _outbox, journal, double):
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(1)
        message = last(journal)
        assert message.state in ("pending", "unknown", "dead") and message.last_error
        assert math.isfinite(message.next_try_at)
        double.act = None
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a"), kit.found(host="b")))
        await trio.sleep(1)
        assert last(journal).state == "accepted"


async def test_a_cancelled_that_a_notifier_kept_is_its_crash_and_not_the_end_of_the_outbox(
    autojump_clock, kit, living, world
):
    async def keeps(notification):
        raise await kept_cancelled()

    async with living(lambda notification, call: keeps(notification)) as (judge, outbox, journal, _):
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(0.5)
        assert last(journal).state == "unknown"
        assert outbox.attempts["hook", "crashed"] == 1
        assert outbox.in_flight == 0


@pytest.mark.parametrize(
    ("receipt", "state", "provider_id"),
    [
        (Receipt(provider_id=4711), "accepted", "4711"),  # type: ignore[arg-type]
        (Receipt(provider_id="\udcff"), "accepted", "?"),
        (Receipt(provider_id="x" * 10_000_000, detail="y" * 10_000_000), "accepted", "x" * 499 + "…"),
        (Receipt(detail=b"fine"), "accepted", None),  # type: ignore[arg-type]
        (Receipt(state="queued"), "dead", None),  # type: ignore[arg-type]
    ],
)
async def test_a_receipt_is_written_in_a_form_that_can_be_read_again(
    autojump_clock, kit, living, world, receipt, state, provider_id
):
    async with living(lambda notification, call: receipt) as (judge, _, journal, _double):
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(0.5)
        message = last(journal)
        assert (message.state, message.provider_id) == (state, provider_id)
        assert len(msgspec.json.encode(journal.records)) < 20_000


async def test_a_fault_of_our_own_costs_one_try_and_not_the_daemon(autojump_clock, kit, living, world):
    async with living(None) as (judge, outbox, journal, double):
        judge.submit(kit.seen(world.clock.now(), kit.found(host="a")))
        await trio.sleep(0.5)
        outbox.start(kit.Deliver(last(journal), ()))  # a message that carries nothing cannot be rendered
        await trio.sleep(0.5)
        assert outbox.attempts == {("hook", "accepted"): 1, ("hook", "temporary"): 1}
        assert len(double.got) == 1 and outbox.in_flight == 0


async def test_notifiers_that_do_not_close_cost_their_limit_once(autojump_clock, kit, world):
    class Stubborn(kit.Double):
        async def close(self):
            await trio.sleep_forever()

    class Raising(kit.Double):
        async def close(self):
            raise SystemExit(1)

    journal = kit.MemoryJournal()
    judge = Judge(journal, world.clock, kit.policy())
    doubles = {f"n{n}": kit.instance(Stubborn(), f"n{n}") for n in range(5)}
    doubles |= {"r": kit.instance(Raising(), "r"), "good": kit.instance(kit.Double(), "good")}
    async with judge.running("1", "hash"):
        async with Outbox(judge, world.clock, doubles, Place("shop", "test")).running():
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(2, abs=0.1)
    assert doubles["good"].notifier.closed == 1
