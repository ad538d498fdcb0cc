"""The judge of scenarios itself: it must see what was missed, what was told to no purpose, and what came late."""

import subprocess
import sys
import tomllib

import pytest

from tests.simulation.scenario import ScenarioError, scenario_of
from tests.simulation.stage import play
from tests.simulation.verdict import judged

BEGIN = """
says = "A probe fails for ten minutes, and primary is told of its begin and of its end."

[config.checks.shop]
plugin = "scripted"

[[at]]
time = "0s"
check = "shop"
series = { 'probe_success{instance="shop"}' = 1 }

[[at]]
time = "2m"
check = "shop"
status = "unhealthy"
series = { 'probe_success{instance="shop"}' = 0 }

[[at]]
time = "12m"
check = "shop"
status = "healthy"
series = { 'probe_success{instance="shop"}' = 1 }
"""
TOLD = """
[[expect]]
receiver = "primary"
alert = "ProbeFailed"
kind = "{kind}"
from = "{begins}"
to = "{ends}"
"""
FIRE = TOLD.format(kind="fire", begins="3m", ends="4m")
RESOLVE = TOLD.format(kind="resolve", begins="12m", ends="13m")


@pytest.fixture
def simulate(tmp_path):
    """Write a scenario and play it as `./run simulate FILE` does; return what it printed and its exit code."""

    def run(text):
        path = tmp_path / "scenario.toml"
        path.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "tests.simulation", str(path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
        return ended.stdout + ended.stderr, ended.returncode

    return run


def test_a_scenario_that_is_as_it_says_exits_0(simulate):
    said, code = simulate(BEGIN + FIRE + RESOLVE)
    assert "1 scenarios, 2 messages: 0 missed, 0 false, 0 late; 1.00 pages per incident" in said
    assert code == 0


def test_what_nobody_was_told_of_is_missed(simulate):
    other = FIRE.replace("primary", "secondary")
    said, code = simulate(BEGIN + FIRE + RESOLVE + other)
    assert "missed  secondary: fire 'ProbeFailed' between 3m and 4m" in said
    assert "1 missed, 0 false, 0 late" in said
    assert code == 1


def test_what_nobody_should_have_been_told_is_false(simulate):
    said, code = simulate(BEGIN + FIRE)
    assert "primary by pager: resolve ProbeFailed" in said
    assert "0 missed, 1 false, 0 late" in said
    assert code == 1


def test_what_came_after_its_time_is_late(simulate):
    said, code = simulate(BEGIN + FIRE.replace("4m", "3m").replace("3m", "2m30s") + RESOLVE)
    assert "fire 'ProbeFailed' between 2m30s and 2m30s: it came at 3m0" in said
    assert "0 missed, 0 false, 1 late" in said
    assert code == 1


def test_what_came_before_its_time_is_false_and_what_was_expected_is_missed(simulate):
    said, code = simulate(BEGIN + FIRE.replace("4m", "9m").replace("3m", "8m") + RESOLVE)
    assert "1 missed, 1 false, 0 late" in said
    assert code == 1


def test_a_message_too_many_is_counted(simulate):
    said, code = simulate("messages = 1\n" + BEGIN + FIRE + RESOLVE)
    assert "2 messages, not 1" in said
    assert code == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('says = "too short"\nat = []', "says"),
        (BEGIN + FIRE.replace("3m", "10m"), "from is after to"),
        (BEGIN + '[[at]]\ntime = "5m"\ncheck = "shop"\nevent = "ticket_sale"\n', "a step has one of check, event"),
        (BEGIN + '[[at]]\ntime = "5"\ncheck = "shop"\n', "is not a duration"),
        (BEGIN + '[[at]]\ntime = "5m"\nchekc = "shop"\n', "chekc"),
        (BEGIN + '[[at]]\ntime = "5m"\ncommand = "ack"\nalert = "Nothing"\n', "at 5m: 0 alerts Nothing"),
        (BEGIN + '[[at]]\ntime = "5m"\ncheck = "shop"\nseries = { "up{a" = 1 }\n', "is not a series"),
    ],
)
def test_a_scenario_that_cannot_be_played_says_where_and_why(simulate, text, error):
    said, code = simulate(text)
    assert error in said
    assert "scenario.toml" in said
    assert code == 2


def test_a_file_without_a_time_zone_is_refused():
    with pytest.raises(ScenarioError, match="time zone"):
        scenario_of(tomllib.loads("start = 2026-06-01T12:00:00\n" + BEGIN), "name")


def test_the_same_scenario_is_the_same_every_time():
    scenario = scenario_of(tomllib.loads(BEGIN + FIRE + RESOLVE), "name")
    first, _ = play(scenario)
    second, _ = play(scenario)
    assert [(one.at, one.kind, one.receiver) for one in first] == [(one.at, one.kind, one.receiver) for one in second]
    assert judged(scenario, first).is_good
