"""Reloads as the judge sees them: whatever sequence of policies comes, what a policy did not change goes on as if none had."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.journal.records import AlertChanged, Owed
from sixfbd.model import AlertState

HOSTS = ("a", "b")
OTHERS = ("R1", "R2", "R3")

options = st.fixed_dictionaries(
    {
        "for_s": st.sampled_from((0.0, 60.0, 3600.0)),
        "keep_firing_for_s": st.sampled_from((0.0, 60.0, 3600.0)),
        "labels": st.sampled_from(({}, {"team": "x"})),
        "expr": st.sampled_from(("x > 1", "x > 2")),
    }
)
policies = st.fixed_dictionaries({}, optional=dict.fromkeys(OTHERS, options))
ticks = st.sampled_from((0.1, 15.0, 3600.0))  # [daemon] evaluation_interval, which every rule carries
hosts = st.sampled_from(((), ("a",), ("b",), HOSTS))
blind = st.sampled_from((False, False, False, True))
evaluations = st.tuples(st.just("evaluate"), st.sampled_from(("Kept", "Kept", *OTHERS)), hosts, blind)
steps = st.lists(
    st.one_of(
        evaluations,
        evaluations,
        evaluations,
        st.tuples(st.just("reload"), policies, ticks),
        st.tuples(st.just("wait"), st.sampled_from((1.0, 59.0, 61.0, 3600.0))),
        st.tuples(st.just("answer")),
        st.tuples(st.just("crash")),
    ),
    min_size=15,
    max_size=30,
)


def policy_of(kit, kept, others, tick_s=15.0):
    rules = (kit.rule("Kept", **kept), *(made(kit, name, chosen) for name, chosen in others.items()))
    return kit.policy(*(msgspec.structs.replace(rule, interval_s=tick_s) for rule in rules))


def made(kit, name, chosen):
    durations = {key: value for key, value in chosen.items() if key != "expr"}
    return msgspec.structs.replace(kit.rule(name, **durations), expr=chosen["expr"])


class Life:
    """A ledger that plays steps; `obeys` tells whether it takes reloads."""

    def __init__(self, kit, kept, obeys=True):
        self.kit = kit
        self.kept = kept
        self.obeys = obeys
        self.others = {}
        self.ledger = kit.Ledger(policy_of(kit, kept, {}))

    def play(self, step):
        ledger = self.ledger
        match step:
            case ("evaluate", rule, present, blind):
                finds = [self.kit.found(host=host) for host in present]
                ledger.see(*finds, rule=rule, blind_checks=("c",) if blind else (), at=ledger.now + 0.5)
            case ("reload", others, tick_s) if self.obeys:
                self.reload(others, tick_s)
            case ("wait", seconds):
                ledger.tick(ledger.now + seconds)
            case ("answer",) if ledger.sending:
                ledger.answer(ledger.sending[0])
            case ("crash",):
                ledger.crash()

    def reload(self, others, tick_s):
        self.others = others
        ledger = self.ledger
        ledger.go(
            self.kit.Replaced(
                ledger.now, policy_of(self.kit, self.kept, others, tick_s), "h", self.kit.Actor("me"), None
            )
        )

    def told_of_kept(self):
        """What was decided of the rule that no reload touches."""
        changes = [one for one in self.ledger.records if isinstance(one, AlertChanged) and one.alert.key.rule == "Kept"]
        ids = {one.alert.id for one in changes}
        return changes, [
            (one.obligation.kind, one.obligation.about)
            for one in self.ledger.records
            if isinstance(one, Owed) and one.obligation.subject in ids
        ]


@settings(max_examples=100, deadline=None)
@given(kept=options.map(lambda chosen: {key: value for key, value in chosen.items() if key != "expr"}), steps=steps)
def test_a_rule_that_no_reload_changes_lives_as_if_there_had_been_none(kit, kept, steps):
    reloaded, left_alone = Life(kit, kept), Life(kit, kept, obeys=False)
    for step in steps:
        reloaded.play(step)
        left_alone.play(step)
        reloaded.ledger.check()
    assert reloaded.told_of_kept() == left_alone.told_of_kept()


@settings(max_examples=100, deadline=None)
@given(first=policies, steps=steps, last=policies, tick_s=ticks)
def test_a_reload_ends_what_is_gone_and_moves_only_timers(kit, first, steps, last, tick_s):
    life = Life(kit, {})
    life.reload(first, 15.0)
    for step in steps:
        life.play(step)
    life.ledger.tick(life.ledger.now)
    before, old = open_alerts(life.ledger), life.others
    written = len(life.ledger.records)
    life.reload(last, tick_s)
    after = open_alerts(life.ledger)
    ended = set()
    for key, alert in before.items():
        if key.rule in OTHERS and key.rule not in last:
            assert key not in after, "its rule is gone"
            ended.add(alert.id)
        elif key.rule == "Kept" or old[key.rule] == last[key.rule]:
            assert after[key] == alert
        elif old[key.rule]["expr"] != last[key.rule]["expr"]:
            assert after[key].due_at is None, "no timer runs on what another expression found"
            assert_same(after[key], alert)
        elif alert.due_at is not None and wanted_timer(alert, last[key.rule]) <= life.ledger.now:
            ended.add(alert.id)  # the shorter duration is over already
            assert alert.state is AlertState.PENDING or key not in after
        else:
            assert alert.due_at is None or after[key].due_at == wanted_timer(alert, last[key.rule])
            assert_same(after[key], alert)
    assert after.keys() <= before.keys()
    owed = [one.obligation for one in life.ledger.records[written:] if isinstance(one, Owed)]
    assert {one.subject for one in owed} <= ended, "nobody is told of what goes on"


def assert_same(now, alert):
    assert (now.id, now.state, now.fired_at, now.pending_at, now.absent_since, now.evidence) == (
        alert.id, alert.state, alert.fired_at, alert.pending_at, alert.absent_since, alert.evidence,
    )  # fmt: skip


def open_alerts(ledger):
    return {key: ledger.state.alerts[key] for key in ledger.state.alerts}


def wanted_timer(alert, chosen):
    if alert.state is AlertState.PENDING:
        return alert.pending_at + chosen["for_s"]
    return alert.absent_since + chosen["keep_firing_for_s"]
