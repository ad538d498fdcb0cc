"""Memory equals the fold of the journal, on random histories; from a base in the middle; through JSON."""

import copy

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.journal.records import (
    Acked,
    AlertChanged,
    CheckPaused,
    EventsJudged,
    MessageChanged,
    ObligationChanged,
    Owed,
    Record,
    TokenChanged,
)
from sixfbd.journal.state import State, apply, base_of, fold
from sixfbd.model import Event, PauseCheck

HOSTS = ("a", "b", "c")
OUTCOMES = ("accepted", "delivered", "temporary", "later", "sent", "lost", "permanent", "absent")

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("see"), st.lists(st.sampled_from(HOSTS), unique=True), st.sampled_from(("", "blind", "error"))
        ),
        st.tuples(st.just("stock"), st.sampled_from((0, 4, 6, 9, 11, 20))),
        st.tuples(st.just("answer"), st.integers(0, 5), st.sampled_from(OUTCOMES)),
        st.tuples(st.just("wait"), st.sampled_from((0.1, 1.0, 7.0, 30.0, 100.0))),
        st.tuples(st.just("ack"), st.integers(0, 3)),
        st.tuples(st.just("pause"), st.booleans()),
        st.tuples(st.just("event"), st.booleans()),
        st.tuples(
            st.just("receipt"),
            st.integers(0, 5),
            st.sampled_from(("ours", "theirs", "old", "strange")),
            st.sampled_from(("accepted", "delivered", "failed")),
            st.booleans(),
        ),
        st.tuples(st.just("crash")),
        st.tuples(st.just("reload"), st.integers(0, 3)),
        st.tuples(st.just("claim"), st.booleans()),
        st.tuples(
            st.just("silence"),
            st.sampled_from(('host="a"', 'alertname="Stock"')),
            st.sampled_from((0.0, 5.0)),
            st.sampled_from((3.0, 40.0)),
        ),
        st.tuples(st.just("unsilence"), st.integers(0, 2)),
        st.tuples(st.just("drill"), st.sampled_from(["", "weekly"])),
    ),
    max_size=40,
)
NOTIFIERS = {
    "hook": {"idempotent": True, "concurrency": 2, "expiry_s": 120.0},
    "mail": {"can_look_up": True, "concurrency": 1, "expiry_s": 120.0, "receipts": True},
    "bell": {"expiry_s": 120.0, "receipts": True},
}


def policies(kit):
    hot = kit.rule("Hot", for_s=5.0, keep_firing_for_s=3.0)
    stock = kit.rule("Stock", levels=kit.STOCK_LEVELS)
    quick = kit.rule("Hot")
    channels = {name: kit.Channel(via=name) for name in NOTIFIERS}
    severities = {"medium": kit.SeverityTable(channels=("mail", "bell")), "critical": kit.SeverityTable()}
    common = {"notices": {"sale": "sold"}, "severities": severities, **NOTIFIERS}
    return (
        kit.policy(hot, stock, receivers={"primary": channels}, **common),
        kit.policy(quick, receivers={"primary": {"hook": channels["hook"]}}, **common),
        kit.policy(hot, stock, receivers={"primary": channels}, route=kit.RouteTable(), **common),
        held_and_grouped(kit, (quick, stock), channels, common),
    )


def held_and_grouped(kit, rules, channels, common):
    """Groups, repeats, escalation, inhibition and a route that is muted now and then, all within seconds."""
    route = kit.RouteTable(
        receiver="primary",
        group_by=("alertname", "host"),
        group_wait=kit.Duration(4),
        repeat_interval=kit.Duration(45),
        routes=(
            kit.RouteTable(matchers=('alertname="Hot"',), mute_time_intervals=("odd",), continue_=True),
            kit.RouteTable(receiver="late", group_interval=kit.Duration(20)),
        ),
    )
    step = kit.EscalationStep(after=kit.Duration(15), receiver="late")
    return kit.policy(
        *rules,
        receivers={"primary": channels, "late": {"hook": channels["hook"]}},
        route=route,
        inhibit=(kit.InhibitTable(source_matchers=('severity="critical"',), target_matchers=('alertname="Hot"',)),),
        escalations=(kit.EscalationTable(name="late", matchers=('severity=~"high|critical"',), steps=(step,)),),
        calendar=kit.Calendar(intervals={"odd": kit.Every(30.0)}),
        flaps_s=60.0,
        **common,
    )


class History:
    """Plays steps on a ledger."""

    def __init__(self, kit):
        self.kit = kit
        self.policies = policies(kit)
        self.ledger = kit.Ledger(self.policies[0])
        self.events = 0

    def play(self, step):
        self.ledger.now += 0.01
        getattr(self, step[0])(*step[1:])

    def see(self, hosts, how):
        options = {"blind": {"blind_checks": ("c",)}, "error": {"error": "x"}, "": {}}[how]
        self.ledger.see(*(self.kit.found(host=host) for host in hosts), **options)

    def stock(self, value):
        self.ledger.see(self.kit.found(value, city="dallas"), rule="Stock")

    def answer(self, which, outcome):
        kit, now = self.kit, self.ledger.now
        messages = sorted(self.ledger.state.messages)
        if not messages:
            return
        message = self.ledger.state.messages[messages[which % len(messages)]]
        if message.state == "pending":
            return
        lookup = message.state == "unknown"
        if outcome == "absent" and not lookup:
            return
        made = {
            "accepted": kit.Receipt(message_id=message.id, provider_id=f"{message.id}/{message.attempt}"),
            "delivered": kit.Receipt(state="delivered", provider_id="p"),
            "temporary": kit.TemporaryFailure("no"),
            "later": kit.TemporaryFailure("no", retry_after_s=50.0),
            "sent": kit.TemporaryFailure("no", sent=True),
            "lost": kit.Lost("no answer"),
            "permanent": kit.PermanentFailure("never"),
            "absent": kit.Absent(),
        }[outcome]
        self.ledger.go(kit.Answer(now, message.id, made, lookup))

    def wait(self, seconds):
        self.ledger.tick(self.ledger.now + seconds)

    def ack(self, which):
        ids = sorted(self.ledger.state.incidents) or ["none"]
        self.ledger.go(
            self.kit.CommandInput(self.ledger.now, self.kit.Ack(ids[which % len(ids)]), self.kit.Actor("me"), None)
        )

    def pause(self, paused):
        self.ledger.go(self.kit.CommandInput(self.ledger.now, PauseCheck("c", paused), self.kit.Actor("me"), None))

    def event(self, notice):
        self.events += 1
        event = Event(f"e{self.events}", "sale" if notice else "other", self.ledger.now, {"n": self.events})
        stored = self.kit.StoredEvent(self.events, "shop", self.ledger.now, event)
        self.ledger.go(self.kit.EventsCommitted(self.ledger.now, self.events, (stored,)))

    def receipt(self, which, by, state, temporary):
        """A receipt of a message that is on its way or was accepted, of one try of it or of the one before, or of nobody's."""
        held = self.ledger.state
        messages = {one.message.id: one.message for one in held.awaited.values()}
        messages |= {one.id: one for one in held.messages.values()}
        if not messages:
            return
        message = messages[sorted(messages)[which % len(messages)]]
        self.events += 1
        ids = {
            "ours": {"message_id": message.id},
            "theirs": {"provider_id": f"{message.id}/{message.attempt}"},
            "old": {"message_id": message.id, "provider_id": f"{message.id}/{message.attempt - 1}"},
            "strange": {"provider_id": f"strange {self.events}"},
        }[by]
        event = Event(f"e{self.events}", "receipt", self.ledger.now, {**ids, "state": state, "temporary": temporary})
        stored = self.kit.StoredEvent(self.events, "provider", self.ledger.now, event)
        self.ledger.go(self.kit.EventsCommitted(self.ledger.now, self.events, (stored,)))

    def crash(self):
        self.ledger.crash()

    def reload(self, which):
        self.ledger.go(
            self.kit.Replaced(self.ledger.now, self.policies[which], f"h{which}", self.kit.Actor("me"), None)
        )

    def silence(self, matcher, later_s, duration_s):
        self.ledger.command(
            self.kit.AddSilence(matchers=(matcher,), duration_s=duration_s, starts_at=self.ledger.now + later_s)
        )

    def drill(self, name):
        self.ledger.command(self.kit.HoldDrill((), name))

    def unsilence(self, which):
        ids = sorted(self.ledger.state.silences) or ["none"]
        self.ledger.command(self.kit.ExpireSilence(ids[which % len(ids)]))

    def claim(self, claim):
        self.ledger.claim = claim


@settings(max_examples=300, deadline=None)
@given(steps=steps)
def test_memory_is_the_fold_of_the_journal_and_the_account_balances_after_every_step(kit, steps):
    history = History(kit)
    for step in steps:
        history.play(step)
        history.ledger.check()


@settings(max_examples=150, deadline=None)
@given(steps=steps, cut=st.floats(0, 1))
def test_a_base_in_the_middle_stands_for_all_that_was_before_it(kit, steps, cut):
    history = History(kit)
    for step in steps:
        history.play(step)
    records = history.ledger.records
    middle = int(len(records) * cut)
    base = base_of(fold(records[:middle]), 5.0)
    decoded = msgspec.json.decode(msgspec.json.encode(base), type=Record)
    assert decoded == base
    assert base_of(fold([decoded, *records[middle:]]), 0) == base_of(history.ledger.state, 0)


@settings(max_examples=150, deadline=None)
@given(steps=steps)
def test_whatever_happened_everything_ends_in_an_end_state_once_the_receivers_answer(kit, steps):
    history = History(kit)
    for step in steps:
        history.play(step)
    ledger = history.ledger
    ledger.claim = True
    ledger.go(kit.Replaced(ledger.now, kit.policy(**NOTIFIERS), "last", kit.Actor("me"), None))
    for _ in range(400):
        sending = ledger.sending
        if sending:
            ledger.answer(sending[0])
        elif unknown := [one.id for one in ledger.state.messages.values() if one.lookups and one.state == "unknown"]:
            ledger.answer(unknown[0], lookup=True)
        elif len(ledger.state.messages) or len(ledger.state.obligations):
            assert ledger.next_due is not None, "something is open, and neither time nor an answer moves it"
            ledger.tick(max(ledger.now, ledger.next_due))
        else:
            break
    assert not len(ledger.state.messages) and not len(ledger.state.obligations)
    ledger.check()


@settings(max_examples=100, deadline=None)
@given(steps=steps)
def test_a_seed_replays_the_same_history_gives_the_same_records(kit, steps):
    first, second = History(kit), History(kit)
    for step in steps:
        first.play(step)
        second.play(copy.deepcopy(step))
    assert first.ledger.records == second.ledger.records


def test_a_decision_leaves_the_published_state_as_it_is(kit):
    ledger = kit.Ledger(policies(kit)[0])
    ledger.see(kit.found(host="a"))
    before = base_of(ledger.state, 0)
    draft = ledger.state.draft()
    for record in [*ledger.records, TokenChanged(1.0, "t", "hash", ("read",), "me"), CheckPaused(1.0, "c", True, "me")]:
        apply(draft, record)
    assert base_of(ledger.state, 0) == before
    assert base_of(draft, 0) != before


def test_an_acknowledgement_lives_as_long_as_its_incident(kit):
    ledger = kit.Ledger(kit.policy())
    ledger.see(kit.found(host="a"))
    ledger.go(kit.CommandInput(ledger.now, kit.Ack(ledger.alert().id), kit.Actor("uid:1000 alice"), None))
    assert ledger.alert().acked_by == "uid:1000 alice"
    ledger.see(at=kit.START + 1)
    ledger.see(kit.found(host="a"), at=kit.START + 2)
    assert ledger.alert().acked_by is None


def test_tokens_that_are_revoked_and_checks_that_are_resumed_leave_memory():
    token = TokenChanged(1.0, "t", "hash", ("read",), "me")
    state = fold([token, CheckPaused(2.0, "c", True, "me")])
    assert list(state.tokens.values()) == [token]
    assert list(state.paused) == ["c"]
    for record in (msgspec.structs.replace(token, revoked=True), CheckPaused(3.0, "c", False, "me")):
        apply(state, record)
    assert len(state.tokens) == len(state.paused) == 0
    assert state.last_alive_at == 3.0


def test_records_about_what_is_not_there_change_nothing(kit):
    ledger = kit.Ledger(kit.policy())
    ledger.see(kit.found(host="a"))
    ledger.answer(ledger.sending[0])
    ledger.see(at=kit.START + 1)
    kinds = (AlertChanged, MessageChanged, Owed)
    closing = [record for record in ledger.records if isinstance(record, kinds)]
    state = State()
    apply(state, next(one for one in closing if isinstance(one, MessageChanged)))
    for record in (Acked(1.0, "x", "me"), ObligationChanged(1.0, "x", "suppressed", "y"), EventsJudged(1.0, 0)):
        apply(state, record)
    assert len(state.obligations) == len(state.told) == len(state.alerts) == 0
