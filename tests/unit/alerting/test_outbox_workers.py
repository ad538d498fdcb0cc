"""The workers with notifiers that fail, hang, crash, answer rubbish; their slots, their end."""

from contextlib import asynccontextmanager

import pytest
import trio

from sixfbd.alerting.inputs import Absent, Deliver, Lookup, Lost
from sixfbd.config.tables import Channel
from sixfbd.model import Message, Obligation, Severity, Target
from sixfbd.outbox.render import Place
from sixfbd.outbox.wording import Templates
from sixfbd.outbox.workers import Outbox
from sixfbd.plugin import OverPace


class Bench:
    """Stands in for the judge: takes answers, hands out messages."""

    def __init__(self):
        self.answers = {}
        self.start = None
        self.detached = False

    def submit(self, answer):
        self.answers[answer.message] = answer

    def attach(self, start):
        self.start = start

    def detach(self):
        self.detached = True


def deliver(number=1, notifier="hook", effect=Deliver):
    target = Target("primary", notifier)
    obligation = Obligation(
        id=f"o{number}", kind="notice", target=target, state="sending", at=0.0, subject=f"s/{number}",
        severity=Severity.LOW, text=f"sold: {number}",
    )  # fmt: skip
    message = Message(
        id=f"m{number}", target=target, state="sending", created_at=0.0, expires_at=9e9, obligations=(obligation.id,),
        attempt=1,
    )  # fmt: skip
    return effect(message, (obligation,))


@pytest.fixture
def opened(kit, world):
    @asynccontextmanager
    async def open_outbox(*doubles, **options):
        bench = Bench()
        instances = {name: kit.instance(double, name, **options) for name, double in doubles}
        bench.outbox = Outbox(bench, world.clock, instances, Place("shop", "test"))
        async with bench.outbox.running():
            yield bench

    return open_outbox


async def test_a_receipt_is_handed_back_and_counted(autojump_clock, kit, opened):
    double = kit.Double()
    async with opened(("hook", double)) as bench:
        bench.start(deliver())
        await trio.sleep(0.1)
        assert bench.answers["m1"].outcome == kit.Receipt()
        assert [(one.id, one.title, one.attempt) for one in double.got] == [("m1", "[NOTICE] sold: 1", 1)]
        assert bench.outbox.attempts == {("hook", "accepted"): 1}
        assert not bench.detached
    assert bench.detached
    assert double.closed == 1


async def test_the_time_that_tries_take_is_added_up_from_nothing_on(autojump_clock, kit, opened):
    async def slowly(notification, call):
        await trio.sleep(2.5)
        return kit.Receipt()

    async with opened(("hook", kit.Double(slowly)), ("idle", kit.Double())) as bench:
        assert bench.outbox.durations == {"hook": (0, 0.0), "idle": (0, 0.0)}
        bench.start(deliver(1))
        bench.start(deliver(2))
        await trio.sleep(5)
        assert bench.outbox.durations == {"hook": (2, pytest.approx(5.0)), "idle": (0, 0.0)}


def raising(error):
    def act(notification, call):
        raise error

    return act


class OddError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "text", "sent"),
    [
        ("TemporaryFailure", "temporary", "busy", False),
        ("sent", "temporary", "reset", True),
        ("PermanentFailure", "permanent", "never", None),
        (OddError("secret-token"), "crashed", "plugin double raised OddError", True),
        (SystemExit(3), "crashed", "plugin double raised SystemExit", True),
        (ExceptionGroup("two", [ValueError("secret-token")]), "crashed", "plugin double raised ValueError", True),
        ("group", "temporary", "busy", False),
    ],
)
async def test_what_a_notifier_raises_becomes_the_answer_that_it_means(
    autojump_clock, kit, opened, error, kind, text, sent
):
    made = {
        "TemporaryFailure": kit.TemporaryFailure("busy"),
        "sent": kit.TemporaryFailure("reset", sent=True),
        "PermanentFailure": kit.PermanentFailure("never"),
        "group": ExceptionGroup("g", [ExceptionGroup("h", [kit.TemporaryFailure("busy")])]),
    }
    double = kit.Double(raising(made.get(error, error) if isinstance(error, str) else error))
    async with opened(("hook", double)) as bench:
        bench.start(deliver())
        await trio.sleep(0.1)
        outcome = bench.answers["m1"].outcome
        assert str(outcome) == text
        assert getattr(outcome, "sent", None) is sent
        assert bench.outbox.attempts == {("hook", kind): 1}


async def test_what_is_over_the_pace_is_no_try(autojump_clock, kit, opened):
    double = kit.Double(raising(OverPace("slower", retry_after_s=7.0)))
    async with opened(("hook", double)) as bench:
        bench.start(deliver())
        await trio.sleep(0.1)
        outcome = bench.answers["m1"].outcome
        assert (type(outcome), str(outcome), outcome.retry_after_s) == (OverPace, "slower", 7.0)
        assert (bench.outbox.attempts, bench.outbox.durations["hook"]) == ({}, (0, 0.0))


@pytest.mark.parametrize("rubbish", [None, 7, "ok", {"state": "accepted"}])
async def test_rubbish_instead_of_a_receipt_is_permanent_and_names_the_plugin(autojump_clock, kit, opened, rubbish):
    async with opened(("hook", kit.Double(lambda notification, call: rubbish))) as bench:
        bench.start(deliver())
        await trio.sleep(0.1)
        outcome = bench.answers["m1"].outcome
        assert isinstance(outcome, kit.PermanentFailure)
        assert str(outcome) == f"plugin double: deliver() returned {type(rubbish).__name__}, not a Receipt"
        assert bench.outbox.attempts == {("hook", "crashed"): 1}


async def test_a_notifier_that_never_answers_is_cut_off_and_costs_its_own_slots_only(autojump_clock, kit, opened):
    hanging = kit.Double(hang)
    quick = kit.Double()
    async with opened(("hang", hanging), ("quick", quick), timeout=5.0, concurrency=2) as bench:
        for number in range(5):
            bench.start(deliver(number, "hang"))
            bench.start(deliver(10 + number, "quick"))
        await trio.sleep(0.1)
        assert len(quick.got) == 5
        assert all(f"m{10 + number}" in bench.answers for number in range(5))
        assert hanging.most_running == 2
        await trio.sleep(15.1)
        assert hanging.most_running == 2
        assert {bench.answers[f"m{number}"].outcome for number in range(5)} == {Lost("no answer within 5 s")}
        assert bench.outbox.attempts["hang", "lost"] == 5


async def test_a_look_up_tells_whether_the_provider_has_it(autojump_clock, kit, opened):
    said = iter([None, kit.Receipt(state="delivered"), "rubbish"])
    double = kit.Double(look=lambda notification, call: next(said))
    async with opened(("hook", double)) as bench:
        answers = []
        for _ in range(3):
            bench.start(deliver(effect=Lookup))
            await trio.sleep(0.1)
            answers.append(bench.answers.pop("m1"))
        assert all(answer.lookup for answer in answers)
        assert [answer.outcome for answer in answers[:2]] == [Absent(), kit.Receipt(state="delivered")]
        assert isinstance(answers[2].outcome, kit.TemporaryFailure)
        assert str(answers[2].outcome) == "plugin double: lookup() returned str, not a Receipt or None"
        assert bench.outbox.attempts == {}, "a look-up is no try"


async def test_one_look_up_of_a_message_runs_at_a_time(autojump_clock, kit, opened):
    double = kit.Double(look=lambda notification, call: None)
    async with opened(("hook", double)) as bench:
        bench.start(deliver(effect=Lookup))
        bench.start(deliver(effect=Lookup))
        await trio.sleep(0.1)
        assert len(double.looked) == 1


async def test_a_notifier_that_could_not_be_made_or_is_not_there_is_answered_for(autojump_clock, kit, opened):
    async with opened(("hook", None), problem="plugin double cannot start: no key") as bench:
        bench.start(deliver(1))
        bench.start(deliver(2, "other"))
        await trio.sleep(0.1)
        assert isinstance(bench.answers["m1"].outcome, kit.TemporaryFailure), "a reload may mend it"
        assert str(bench.answers["m1"].outcome) == "notifier hook: plugin double cannot start: no key"
        assert isinstance(bench.answers["m2"].outcome, kit.PermanentFailure)


async def test_a_stop_waits_for_what_is_on_its_way(autojump_clock, kit, opened):
    double = kit.Double(lambda notification, call: slow(kit))
    async with opened(("hook", double)) as bench:
        bench.start(deliver())
        await trio.lowlevel.checkpoint()
    assert bench.answers["m1"].outcome == kit.Receipt()
    assert double.closed == 1


async def hang_forever():
    await trio.sleep_forever()


def hang(notification, call):
    return hang_forever()


async def slow(kit):
    await trio.sleep(3)
    return kit.Receipt()


async def test_a_stop_waits_no_longer_than_its_deadline_and_gives_no_answer_for_what_it_cut_off(
    autojump_clock, kit, opened
):
    double = kit.Double(hang)
    began = trio.current_time()
    async with opened(("hook", double), timeout=60.0) as bench:
        bench.start(deliver())
        await trio.sleep(0.1)
    assert trio.current_time() - began == pytest.approx(5.1, abs=0.1)
    assert bench.answers == {}
    assert double.closed == 1


async def test_a_reload_keeps_the_same_instances_and_closes_others_after_their_last_delivery(
    autojump_clock, kit, opened
):
    kept, gone, new = kit.Double(), kit.Double(lambda notification, call: slow(kit)), kit.Double()
    async with opened(("kept", kept), ("gone", gone)) as bench:
        bench.start(deliver(1, "gone"))
        await trio.sleep(0.1)
        same = bench.outbox._accounts["kept"].instance
        bench.outbox.replace({"kept": same, "gone": kit.instance(new, "gone")}, Place("shop", "next"))
        bench.start(deliver(2, "gone"))
        await trio.sleep(0.1)
        assert (gone.closed, len(new.got)) == (0, 1)
        await trio.sleep(3)
        assert (gone.closed, kept.closed, new.closed) == (1, 0, 0)
        assert bench.answers["m1"].outcome == kit.Receipt()
        assert "shop / next" in new.got[0].text
    assert (gone.closed, kept.closed, new.closed) == (1, 1, 1)


async def test_an_error_inside_the_block_ends_the_deliveries_and_closes_the_notifiers(autojump_clock, kit, opened):
    double = kit.Double(hang)
    with pytest.RaisesGroup(OddError):
        async with opened(("hook", double)) as bench:
            bench.start(deliver())
            await trio.sleep(0.1)
            raise OddError
    assert double.closed == 1
    assert bench.detached


async def test_a_template_is_rendered_beside_the_loop_and_one_that_fails_costs_no_message(kit, world):
    """On the real clock: a thread renders, and the loop turns meanwhile."""
    bench = Bench()
    receivers = {"primary": {"mail": Channel(via="hook")}}
    texts = {"notice@mail.title": "{{ notice.text|upper }}", "notice.text": "{{ 1 / (notice.text|length - 7) }}"}
    double = kit.Double()
    instances = {"hook": kit.instance(double, "hook")}
    bench.outbox = Outbox(bench, world.clock, instances, Place("shop", "test"), templates=Templates(texts, receivers))
    async with bench.outbox.running():
        for number in (1, 22):
            bench.start(deliver(number))
        with trio.fail_after(10):
            while len(bench.answers) < 2:  # noqa: ASYNC110 - the bench has no event for it
                await trio.sleep(0.001)
    told = {one.id: one for one in double.got}
    assert {name: one.title for name, one in told.items()} == {"m1": "SOLD: 1", "m22": "SOLD: 22"}
    assert told["m22"].text == "1" and told["m1"].text.startswith("SOLD: 1\n\n"), "plain, since its template failed"
    assert bench.outbox.templates.failures["notice.text"] == 1


async def test_a_reload_brings_other_templates_and_keeps_the_counts(autojump_clock, kit, opened):
    async with opened(("hook", kit.Double())) as bench:
        bench.outbox.templates.failures["firing.text"] = 3
        bench.outbox.replace({}, Place("shop", "test"), Templates({"firing.text": "x", "notice.text": "y"}))
        assert dict(bench.outbox.templates.failures) == {"firing.text": 3, "notice.text": 0}
