"""What the configuration says of holds, groups, repeats and escalations, and what a person reads who got it wrong."""

import pytest

from sixfbd.config.tables import default_escalations, default_route

RECEIVERS = """
[notifiers.log]
plugin = "plain"
[receivers.primary]
log = {via = "log"}
[receivers.escalation]
log = {via = "log"}
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[[inhibit]]\nsource_matchers = ["a"]\ntarget_matchers = [\'b="c"\']',
            'sixfbd.toml: inhibit[0].source_matchers[0]: \'a\' is not a matcher; write severity="critical" or team=~"web|shop"',
        ),
        (
            "[[inhibit]]\nsource_matchers = ['a=\"b\"']\ntarget_matchers = []",
            "sixfbd.toml: inhibit[0].target_matchers: is empty; at least 1 must be there",
        ),
        ("[inhibit]\na = 1", "sixfbd.toml: inhibit: a table is not a list of tables; write [[inhibit]]"),
        (
            '[[escalations]]\nname = "x"\nmatchers = [\'a="b"\']\nsteps = [{after = "5m", receiver = "escalaton"}]',
            'sixfbd.toml: escalations[0] "x".steps[0].receiver: "escalaton" is not a receiver; did you mean "escalation"?',
        ),
        (
            '[[escalations]]\nname = "x"\nmatchers = [\'a="b"\']\nsteps = [{after = "0s", receiver = "primary"}]',
            'sixfbd.toml: escalations[0] "x".steps[0].after: "0s" must be more than 0; whom to tell at once, routes say',
        ),
        (
            '[route]\nreceiver = "primary"\ngroup_wait = "soon"',
            'sixfbd.toml: route.group_wait: "soon" is not a duration; write "5m" or "300s"',
        ),
        (
            '[[rules]]\nname = "Mine"\nexpr = "up == 0"\nseverity = "low"\nonce = ["tier"]',
            'sixfbd.toml: rules[0] "Mine".once[0]: \'tier\' is not a matcher; write severity="critical" or team=~"web|shop"',
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(complaints, text, said):
    assert said in complaints(RECEIVERS + text)


def test_a_parent_that_there_is_not_and_a_circle_are_named(complaints):
    text = """
[checks.a]
plugin = "sms"
account = "AC1"
depends_on = ["b"]
[checks.b]
plugin = "sms"
account = "AC1"
depends_on = ["c", "nonesuch"]
[checks.c]
plugin = "sms"
account = "AC1"
depends_on = ["a"]
"""
    said = complaints(RECEIVERS + text)
    assert any("checks.b.depends_on[1]" in line and '"nonesuch" is not a check' in line for line in said)
    assert sum("closes a circle: a → b → c → a" in line for line in said) == 1


def test_two_escalations_of_one_name_are_one_too_many(complaints):
    one = '[[escalations]]\nname = "x"\nmatchers = [\'a="b"\']\nsteps = [{after = "5m", receiver = "primary"}]\n'
    said = complaints(RECEIVERS + one + one)
    assert 'sixfbd.toml: escalations[1] "x".name: "x" is there twice; choose another name' in said


def test_without_escalations_of_its_own_critical_alerts_reach_the_receiver_escalation_after_five_minutes(config_of):
    config = config_of(RECEIVERS)
    assert config.escalations == default_escalations(("primary", "escalation"))
    [table] = config.escalations
    assert [(float(step.after), step.receiver) for step in table.steps] == [(300.0, "escalation")]
    assert config_of("escalations = []\n" + RECEIVERS).escalations == ()


def test_there_is_nobody_to_escalate_to_without_that_receiver():
    assert default_escalations(("primary",)) == ()
    assert default_route(("primary",)).repeat_interval is None


ONCALL = """
[receivers.anna]
log = { via = "log" }
[receivers.bert]
log = { via = "log", quiet_hours = ["nights"] }
[time_intervals.nights]
intervals = [{ times = [{ start_time = "22:00", end_time = "24:00" }] }]
[route]
receiver = "week"
[[escalations]]
name = "late"
matchers = ['severity="critical"']
steps = [{ after = "5m", receiver = "week" }]
[oncall.week]
members = ["anna", "bert"]
start = "2026-01-05T09:00"
"""


def test_a_rotation_stands_wherever_a_receiver_does(complaints):
    assert complaints(RECEIVERS + ONCALL) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            'members = ["anna", "bert"]',
            'members = ["anna", "bret"]',
            'oncall.week.members[1]: "bret" is not a receiver',
        ),
        ('members = ["anna", "bert"]', "members = []", "oncall.week.members"),
        ("[oncall.week]", "[oncall.anna]", "oncall.anna: there is a [receivers.anna] too"),
        ('"2026-01-05T09:00"', '"monday"', 'oncall.week: start: "monday" is not a time'),
        ('receiver = "week"', 'receiver = "weak"', '"weak" is not a receiver'),
        ('["nights"]', '["nigths"]', 'receivers.bert.log.quiet_hours[0]: "nigths" is not a time interval'),
        (
            '"2026-01-05T09:00"',
            '"2026-01-05T09:00"\noverrides = [{ member = "x", from = "2026-01-06", until = "2026-01-07" }]',
            'oncall.week.overrides[0].member: "x" is not a receiver',
        ),
    ],
)
def test_what_is_wrong_with_a_rotation_is_named(complaints, before, after, said):
    assert any(said in line for line in complaints(RECEIVERS + ONCALL.replace(before, after, 1)))
