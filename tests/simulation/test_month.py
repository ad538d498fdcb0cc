"""A month of five cities in half a minute: the timeline of messages is the expected one, over restarts and the clocks' change."""

from pathlib import Path

from tests.simulation.scenario import read_scenario
from tests.simulation.stage import play
from tests.simulation.verdict import judged


def test_over_a_month_whoever_is_on_call_is_told_of_each_fault_once_and_of_its_end():
    month = read_scenario(Path(__file__).with_name("month.toml"))
    arrivals, _ = play(month)
    verdict = judged(month, arrivals)
    assert verdict.is_good, str(verdict)
    assert verdict.pages == verdict.incidents
