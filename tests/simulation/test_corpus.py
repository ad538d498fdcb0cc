"""Every scenario of tests/corpus: who must be told is told in time, once, and nobody else is told of anything."""

from pathlib import Path

import pytest

from sixfbd.config import PluginSources
from sixfbd.host import load_plugins
from sixfbd.rules.defaults import ENGINE_RULES
from tests.simulation.scenario import read_scenario
from tests.simulation.stage import play
from tests.simulation.verdict import judged

CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.toml"))
MARKED = "may be a repeat"


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_everybody_is_told_what_the_scenario_says_and_nothing_besides(path, request):
    scenario = read_scenario(path)
    if scenario.wrong:
        request.applymarker(pytest.mark.xfail(reason=scenario.wrong, strict=True))
    arrivals, _ = play(scenario)
    verdict = judged(scenario, arrivals)
    assert verdict.is_good, f"{scenario.says}\n{verdict}"
    marked = sum(MARKED in one.text for one in arrivals if one.kind == "fire")
    assert verdict.pages - verdict.incidents <= marked, "an incident was paged twice, and not as a possible repeat"


def test_every_default_rule_is_told_of_in_a_scenario():
    catalog = load_plugins(PluginSources())
    rules = {rule.name for rule in (*ENGINE_RULES, *catalog.rules)}
    told = {one.alert for path in CORPUS for one in read_scenario(path).expect}
    assert sorted(rules - told) == []
