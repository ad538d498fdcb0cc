"""The crash simulator: random histories of judge and outbox, a death before and after every commit and every wire step.

A seed makes a history: rules fire, change level and resolve, events carry notices, people acknowledge, the configuration
changes, the journal fails for a while or loses an answer, and three providers do what bad providers do: one drops repeats,
one can be asked and says later what became of a message (twice, late, or faster than its answer), one can do neither. An
image is what would be left of that moment: the journal, and what the providers
took. A new judge starts from each image, inputs stop, it drains, and the account is checked.

SIXFBD_SIMULATE_SEEDS is the number of seeds (`./run simulate` runs 50), SIXFBD_SIMULATE_SEED the first one: a seed replays.
"""

import logging
import os
import random
from collections import Counter
from typing import NamedTuple

import msgspec
import pytest
import structlog
import trio

from sixfbd.alerting.escalation import UNFINISHED_S, unfinished
from sixfbd.journal.records import Acked, AlertChanged, Configured, Owed, SilenceChanged, Started
from sixfbd.journal.state import account, fold
from sixfbd.model import Event

SEEDS = int(os.environ.get("SIXFBD_SIMULATE_SEEDS", "3"))
FIRST = int(os.environ.get("SIXFBD_SIMULATE_SEED", "1"))
STEPS = 16  # of one history
FEW = 3  # seeds; one alone may be of a history in which hardly anything happens
SECOND_DEATHS = 8  # one image in so many dies once more while it recovers
PROMISES = {"hook": {"idempotent": True}, "sms": {"can_look_up": True, "receipts": True}, "mail": {}}
PAUSES_S = (0.0, 0.01, 0.4, 1.0, 4.0, 0.01, 0.4, 1.0, 4.0, 130.0)  # the last is longer than a receipt is waited for
ASLEEP_S = (1.0, 1000.0, 100_000.0)  # between a death and the next start; the last outlives every message


class Image(NamedTuple):
    """What is left of a daemon that dies now, and what it had answered."""

    when: str
    records: list
    events: list
    taken: dict  # Arrivals by notifier
    acked: list  # ids of alerts whose acknowledgement was answered ok
    silences: list  # ids of silences that were answered ok
    volatile: bool = False  # what was decided lately was in memory only (DESIGN promise 10)


class Totals:
    def __init__(self):
        self.seeds = self.lived = 0
        self.counts = Counter()

    def __str__(self):
        counts = self.counts
        return (
            f"{self.seeds} seeds, {counts['images']} images: {counts['lost']} lost, {counts['unaccounted']} unaccounted, "
            f"{counts['repeats']} repeats for {counts['sending']} messages in sending "
            f"({counts['obligations']} obligations, {counts['arrivals']} arrivals)"
        )


@pytest.fixture(scope="module")
def totals():
    made = Totals()
    yield made
    print(f"\n{made}")
    assert made.seeds < FEW or made.lived > 3 * STEPS * made.seeds, "hardly anything happened in these histories"


@pytest.fixture(autouse=True)
def quiet_log():
    """Thousands of lives would log every transition again."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def seeded(monkeypatch):
    """Trio draws lots among tasks that are ready; seeded, a history replays (as pytest-trio does for hypothesis)."""

    def seed(number):
        monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        monkeypatch.setattr(trio._core._run, "_r", random.Random(number))

    return seed


# ---- configurations ----------------------------------------------------------------------------------------------------


def configurations(kit):
    """Three configurations that a reload goes between: all; one rule and one route less; one notifier and levels less."""
    settings = {
        name: {
            "timeout_s": 2.0,
            "concurrency": 2,
            "retry_first_s": 0.2,
            "retry_most_s": 2.0,
            "expiry_s": 600.0,
            **promise,
        }
        for name, promise in PROMISES.items()
    }
    hook, sms, mail = (
        kit.Channel(via="hook"),
        kit.Channel(via="sms", to=("555-0100", "555-0101")),
        kit.Channel(via="mail"),
    )
    receivers = {"primary": {"hook": hook, "mail": mail}, "oncall": {"sms": sms, "hook": hook}}
    critical = kit.RouteTable(receiver="oncall", matchers=('severity="critical"',), continue_=True)
    everything = kit.RouteTable(receiver="primary")
    all_routes = kit.RouteTable(receiver="primary", routes=(critical, everything))
    hot = kit.rule("Hot")
    slow = kit.rule("Slow", for_s=0.3, keep_firing_for_s=1.5)
    stock = kit.rule("Stock", levels=kit.STOCK_LEVELS)
    plain = kit.rule("Stock", severity=kit.Severity.CRITICAL)
    notices = {"sale": "sale"}

    def made(rules, route, names=tuple(PROMISES)):
        chosen = {name: settings[name] for name in names}
        return kit.policy(*rules, receivers=receivers, route=route, notices=notices, **chosen)

    return {
        "held": held_and_escalated(kit, (hot, slow, stock), receivers, settings, notices),
        "all": made((hot, slow, stock), all_routes),
        "fewer rules": made((hot, kit.rule("Stock", levels=kit.STOCK_LEVELS[1:])), everything),
        "fewer notifiers": made((hot, kit.rule("Slow", for_s=2.0), plain), all_routes, ("hook", "sms")),
    }


def held_and_escalated(kit, rules, receivers, settings, notices):
    """Groups that wait, repeats, an escalation, an inhibition and a route that is muted now and then, within seconds."""
    route = kit.RouteTable(
        receiver="primary",
        group_by=("alertname",),
        group_wait=kit.Duration(1),
        group_interval=kit.Duration(3),
        repeat_interval=kit.Duration(20),
        routes=(
            kit.RouteTable(matchers=('alertname="Hot"',), mute_time_intervals=("odd",), continue_=True),
            kit.RouteTable(matchers=('severity="critical"',), receiver="oncall", group_wait=kit.Duration(0)),
            kit.RouteTable(receiver="turns"),
        ),
    )
    steps = tuple(
        kit.EscalationStep(after=kit.Duration(after), receiver=name) for after, name in ((4, "oncall"), (7, "turns"))
    )
    receivers = {**receivers, "other": receivers["primary"], "mail": {"mail": receivers["primary"]["mail"]}}
    receivers["oncall"] = {
        name: msgspec.structs.replace(channel, quiet_hours=("odd",)) for name, channel in receivers["oncall"].items()
    }
    return kit.policy(
        *rules,
        receivers=receivers,
        rotations={"turns": kit.ByTurns("primary", "mail", "other", shift_s=5.0)},
        route=route,
        notices=notices,
        inhibit=(
            kit.InhibitTable(
                source_matchers=('severity="critical"',), target_matchers=('alertname="Hot"',), equal=("host",)
            ),
        ),
        escalations=(kit.EscalationTable(name="late", matchers=('severity=~"high|critical"',), steps=steps),),
        calendar=kit.Calendar(intervals={"odd": kit.Every(7.0)}),
        flaps_s=8.0,
        budgets={
            kit.Target("oncall", "sms", number): kit.Budget((kit.Limit(3, 6.0), kit.Limit(8, 60.0)), reserve=1)
            for number in ("555-0100", "555-0101")
        }
        | {kit.Target("mail", "mail", ""): kit.Budget((kit.Limit(1, 5.0),))},
        notice_budget=kit.Budget((kit.Limit(2, 5.0),)),
        **{**settings, "sms": {**settings["sms"], "looks_for_receipts": True}},
    )


def in_force(records):
    """The name of the configuration that the last of the records was decided under."""
    return next(one.config for one in reversed(records) if isinstance(one, Started | Configured))


# ---- one history ---------------------------------------------------------------------------------------------------------


class History:
    """Lives of a daemon over one journal and the same providers; an image of every moment."""

    def __init__(self, kit, name, image, *, faulty):
        self.kit = kit
        self.draw = random.Random(f"{name}/history")
        self.policies = configurations(kit)
        self.images = []
        self.acked = list(image.acked)
        self.silences = list(image.silences)
        self.volatile = image.volatile  # what the providers took then is unknown for ever
        self.judge = None
        self.journal = kit.MemoryJournal(image.records, image.events)
        self.journal.on_commit = self.commit
        self.loses = ""  # the answer of the next commit: "before" it is written, or "after"
        self.providers = {
            notifier: kit.FarSide(
                random.Random(f"{name}/{notifier}"),
                image.taken.get(notifier, ()),
                faulty=faulty,
                drops_repeats="idempotent" in promise,
                on_wire=lambda when, notifier=notifier: self.keep(f"{when} by {notifier}"),
            )
            for notifier, promise in PROMISES.items()
        }

    def commit(self, when):
        self.keep(f"{when} a commit")
        if when == self.loses:
            self.loses = ""
            raise self.kit.JournalBroken("no answer from the disk; nobody can tell whether this was written")

    def keep(self, when):
        in_memory = self.judge is not None and self.judge.journal_failing and when != "after a commit"
        self.images.append(self.image(when)._replace(volatile=self.volatile or in_memory))

    def image(self, when):
        taken = {name: provider.taken[:] for name, provider in self.providers.items()}
        return Image(when, self.journal.records[:], self.journal.stored[:], taken, self.acked[:], self.silences[:])

    def instances(self, config):
        return {
            name: self.kit.double_of(self.providers[name], name, timeout=2.0, concurrency=2)
            for name in self.policies[config].notifiers
        }

    async def live(self, script, now, config):
        return await self.kit.live(
            self.journal, self.policies[config], self.instances(config), now, script, config=config
        )

    # ---- what happens in it ----

    async def trouble(self, judge, outbox, clock):
        """STEPS things at random, at random distances; the providers take what reaches them meanwhile."""
        self.judge = judge
        happenings = (
            self.evaluate, self.evaluate, self.evaluate, self.evaluate, self.sell, self.acknowledge, self.reload,
            self.break_journal, self.lose_answer, self.confirm, self.confirm, self.silence, self.unsilence, self.drill,
        )  # fmt: skip
        for _ in range(STEPS):
            await self.draw.choice(happenings)(judge, outbox, clock)
            await trio.sleep(self.draw.choice(PAUSES_S))
        self.journal.failure, self.loses = None, ""
        await self.settled(judge)

    async def evaluate(self, judge, outbox, clock):
        rule = self.draw.choice(("Hot", "Slow", "Stock"))
        values = (0.5, 3.0, 6.0, 11.0, 20.0) if rule == "Stock" else (2.0,)
        finds = [
            self.kit.found(self.draw.choice(values), host=host) for host in ("a", "b", "c") if self.draw.random() < 0.6
        ]
        blind = ("c",) if self.draw.random() < 0.1 else ()
        judge.submit(self.kit.seen(clock.now(), *finds, rule=rule, blind_checks=blind))

    async def sell(self, judge, outbox, clock):
        """An event is answered: it is durable before the judge hears of it."""
        number = self.journal.last_event_seq + 1
        event = Event(f"e{number}", self.draw.choice(("sale", "other")), clock.now(), {"n": number})
        self.journal.stored.append(self.kit.StoredEvent(number, "shop", clock.now(), event))
        self.keep("after an event was answered")
        judge.events_committed(number)

    async def confirm(self, judge, outbox, clock):
        """The provider says of a message that it arrived, that it did not, or once more what it has said before."""
        sms = self.providers["sms"]
        if not sms.known_as:
            return
        message = self.draw.choice(sorted(sms.known_as))
        state = self.draw.choice(("accepted", "delivered", "failed", "failed"))
        state = "delivered" if message in sms.confirmed else state
        if state == "delivered":
            sms.confirmed.add(message)
        known_as = sms.fails(message) if state == "failed" else sms.known_as[message]
        said = {"provider_id": known_as, "state": state, "temporary": self.draw.random() < 0.7}
        if self.draw.random() < 0.3:
            said["message_id"] = message
        for _ in range(self.draw.choice((1, 1, 2))):
            number = self.journal.last_event_seq + 1
            event = Event(f"e{number}", "receipt", clock.now(), said)
            self.journal.stored.append(self.kit.StoredEvent(number, "sms", clock.now(), event))
            self.keep("after a receipt was answered")
            judge.events_committed(number)

    async def acknowledge(self, judge, outbox, clock):
        firing = sorted(judge.state.incidents)
        if firing:
            alert = self.draw.choice(firing)
            if (await judge.command(self.kit.Ack(alert), self.kit.Actor("uid:1000"))).ok:
                self.acked.append(alert)
                self.keep("after an acknowledgement was answered")

    async def silence(self, judge, outbox, clock):
        matcher = self.draw.choice(('host="a"', 'alertname="Stock"', 'host=~"b|c"'))
        command = self.kit.AddSilence(
            matchers=(matcher,),
            duration_s=self.draw.choice((0.5, 5.0, 30.0)),
            starts_at=clock.now() + self.draw.choice((0.0, 0.0, 3.0)),
        )
        outcome = await judge.command(command, self.kit.Actor("uid:1000"))
        if outcome.ok:
            self.silences.append(outcome.id)
            self.keep("after a silence was answered")

    async def drill(self, judge, outbox, clock):
        await judge.command(self.kit.HoldDrill((), "weekly"), self.kit.Actor("schedule"))

    async def unsilence(self, judge, outbox, clock):
        if judge.state.silences:
            silence = self.draw.choice(sorted(judge.state.silences))
            await judge.command(self.kit.ExpireSilence(silence), self.kit.Actor("uid:1000"))

    async def reload(self, judge, outbox, clock):
        config = self.draw.choice(sorted(self.policies))
        if (await judge.replace(self.policies[config], config, self.kit.Actor("uid:0"))).ok:
            outbox.replace(self.instances(config), outbox.place)

    async def break_journal(self, judge, outbox, clock):
        self.journal.failure = None if self.journal.failure else self.kit.JournalFull("no space")

    async def lose_answer(self, judge, outbox, clock):
        self.loses = self.draw.choice(("before", "after", "after"))

    async def settled(self, judge):
        with trio.fail_after(60):
            while judge._waiting():  # noqa: ASYNC110 - a condition of the judge, which has no event for it
                await trio.sleep(0.1)

    async def calm(self, judge, outbox, clock):
        """Inputs stop, silences and steps of escalations run out, and it drains; then every rule is evaluated once, finds
        nothing, and it drains again."""
        await trio.sleep(130.0)  # and what no receipt came of goes by the next channel
        await self.kit.drained(judge)
        self.kit.check_nobody_is_forgotten(judge.state, judge.policy)
        assert not unfinished(judge.state, judge.policy.escalations, clock.now() + UNFINISHED_S - 1)
        for rule in sorted(judge.policy.rules):
            judge.submit(self.kit.seen(clock.now(), rule=rule))
        await trio.sleep(20.0)  # what is kept firing, and what flaps, has settled by then
        await self.kit.drained(judge)
        assert not judge.state.alerts, "an alert fires on though nothing is found"


# ---- the account -----------------------------------------------------------------------------------------------------------


def lost_in(kit, image, after):
    """What was answered, or counts as told, and is nowhere."""
    owed = account(after.records)
    arrived = {name: {(one.message, one.alert, one.kind) for one in taken} for name, taken in after.taken.items()}
    for one in owed.values():
        if one.state in ("accepted", "delivered"):
            told = (one.message, "", "notice") if one.about is None else (one.message, one.subject, one.kind)
            # sent from memory alone with less in it, and then in full: who drops repeats takes that for one
            cut_short = image.volatile and any(one.message == got.message for got in image.taken[one.target.notifier])
            if told not in arrived[one.target.notifier] and not cut_short:
                yield f"{one.kind} {one.id} is {one.state}, but {one.target.notifier} never got it"
    subjects = {one.subject for one in owed.values() if one.kind == "notice"}
    for stored in image.events:
        if stored.event.type == "sale" and f"shop/{stored.event.id}" not in subjects:
            yield f"event {stored.event.id} was answered, and nobody was owed its notice"
    acked = {one.alert for one in after.records if isinstance(one, Acked)}
    yield from (
        f"the acknowledgement of {alert} was answered, and is gone" for alert in image.acked if alert not in acked
    )
    made = {one.silence.id for one in after.records if isinstance(one, SilenceChanged)}
    yield from (f"silence {one} was answered, and is gone" for one in image.silences if one not in made)
    if after.records[: len(image.records)] != image.records:
        yield "the journal changed what it held"


def unaccounted_in(kit, after, policies):
    """Obligations in no end state, transitions that do not owe whom their routes name, and who was left believing."""
    owed = account(after.records)
    yield from (f"{one.kind} {one.id} is {one.state}" for one in owed.values() if one.state in kit.OPEN)
    policy, targets_of = None, {}
    for one in after.records:
        if isinstance(one, Owed):
            targets_of.setdefault((one.obligation.subject, one.at), set()).add(one.obligation.target)
    severities = {}
    for one in after.records:
        match one:
            case Started() | Configured():
                policy = policies[one.config]
            case AlertChanged():
                before = severities.get(one.alert.id)
                severities[one.alert.id] = one.alert.severity
                changed = one.alert.state != one.previous or before is not one.alert.severity
                if changed and one.alert.state in ("firing", "resolved"):
                    named = {
                        found.target for found in policy.routing.targets(one.alert.labels, one.alert.severity, one.at)
                    }
                    missing = named - targets_of.get((one.alert.id, one.at), set())
                    yield from (f"{one.alert.state} of {one.alert.id} does not owe {target}" for target in missing)
    messages = kit.last_messages(after.records)
    for name, taken in after.taken.items():
        unknown = sorted({one.message for one in taken if one.message not in messages})
        yield from (f"{name} got {message}, of which the journal knows nothing" for message in unknown)
    yield from believers(after, owed)


def believers(after, owed):
    """Who was told that an incident fires, and of its end neither told nor given up on."""
    ended = {one.alert.id for one in after.records if isinstance(one, AlertChanged) and one.alert.state == "resolved"}
    for name, taken in after.taken.items():
        last = {one.alert: one.status for one in taken if one.alert}
        for alert, status in last.items():
            given_up = any(
                one.subject == alert and one.target.notifier == name and one.state == "dead" for one in owed.values()
            )
            if status == "firing" and alert in ended and not given_up:
                yield f"{name} still believes that {alert} fires"


def repeats_in(kit, image, after):
    """Yield the message of every repeat after the death; of one that was not on its way, with a reason to fail."""
    messages = kit.last_messages(image.records)
    for name, taken in after.taken.items():
        before = image.taken.get(name, [])
        for message in sorted({one.message for one in taken[len(before) :]} & {one.message for one in before}):
            if message not in messages:
                yield message, f"{name} got {message} again, of which the journal knew nothing"
            elif PROMISES[name]:
                yield message, f"{name} got {message} again, though it promises that this cannot be"
            elif messages[message].state not in ("sending", "unknown") and not messages[message].possibly_repeated:
                yield message, f"{name} got {message} again, which was {messages[message].state}"
            else:
                yield message, ""
        most = max(Counter((one.message, one.alert, one.kind) for one in taken).values(), default=0)
        if most > 2:
            yield "", f"{name} got a message {most} times"


async def recovered(kit, name, image, totals):
    """Let a new judge drain from an image, check the account, and return the images of its own life."""
    history = History(kit, name, image, faulty=False)
    asleep_s = history.draw.choice(ASLEEP_S)
    last_at = max((one.at for one in image.records), default=kit.START)
    await history.live(history.calm, last_at + asleep_s, in_force(image.records) if image.records else "all")
    after = history.image("after it drained")
    state = fold(after.records)
    kit.check_account(after.records, state)
    lost = list(lost_in(kit, image, after))
    unaccounted = list(unaccounted_in(kit, after, history.policies))
    sending = {one.id for one in kit.last_messages(image.records).values() if one.state == "sending"}
    repeats = list(repeats_in(kit, image, after))
    if image.volatile:  # what was sent from memory alone is not known any more: it said so in every message
        unaccounted, repeats = [], []
    problems = [*lost, *unaccounted, *(reason for _, reason in repeats if reason)]
    assert not problems, f"{name}, {image.when}: {problems}"
    totals.update(
        images=1,
        lost=len(lost),
        unaccounted=len(unaccounted),
        repeats=sum(message in sending for message, _ in repeats),
        sending=len(sending),
        obligations=len(account(after.records)),
        arrivals=sum(map(len, after.taken.values())),
    )
    return history.images


async def lived(kit, seed):
    """The history of a seed: two lives with trouble, the second from what the first left in order."""
    history = History(kit, f"seed {seed}", Image("the beginning", [], [], {}, [], []), faulty=True)
    end = await history.live(history.trouble, kit.START, "all")
    await history.live(history.trouble, end + 10, in_force(history.journal.records))
    return history.images


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_from_every_image_it_drains_and_the_account_balances(autojump_clock, kit, seeded, totals, seed):
    seeded(seed)
    draw = random.Random(f"{seed}/second deaths")
    try:
        images = await lived(kit, seed)
        for number, image in enumerate(images):
            again = await recovered(kit, f"seed {seed} image {number}", image, totals.counts)
            if again and draw.randrange(SECOND_DEATHS) == 0:
                second = draw.choice(again)
                await recovered(kit, f"seed {seed} image {number} and again", second, totals.counts)
    except BaseException as error:
        error.add_note(f"replay: SIXFBD_SIMULATE_SEED={seed} ./run simulate --seeds 1")
        raise
    totals.seeds += 1
    totals.lived += len(images)


async def test_a_seed_replays_to_the_letter(autojump_clock, kit, seeded):
    lives = []
    for _ in range(2):
        seeded(7)
        lives.append(await lived(kit, 7))
    assert lives[0] == lives[1]


async def test_the_account_notices_what_was_lost_and_who_was_forgotten(autojump_clock, kit, seeded):
    """The simulator's own check: a far side that forgets, and a record that is torn out, are seen."""
    seeded(3)
    image = (await lived(kit, 3))[-1]
    told = {notifier: [one for one in taken if one.status != "resolved"] for notifier, taken in image.taken.items()}
    assert told != image.taken
    forgetful = image._replace(taken=told)
    assert list(lost_in(kit, forgetful, forgetful))
    assert list(believers(forgetful, account(forgetful.records)))
    policies = configurations(kit)
    assert not [one for one in unaccounted_in(kit, image, policies) if "does not owe" in one]
    owed = [one for one in image.records if not (isinstance(one, Owed) and one.obligation.kind == "fire")]
    assert [one for one in unaccounted_in(kit, image._replace(records=owed), policies) if "does not owe" in one]
