"""Every scenario of tests/corpus: who must be told is told in time, once, and nobody else is told of anything."""

from pathlib import Path

import pytest

from tests.simulation.scenario import read_scenario
from tests.simulation.stage import play
from tests.simulation.verdict import judged

CORPUS = sorted((Path(__file__).parents[1] / "corpus").glob("*.toml"))
MOST_PAGES = 1.1  # per incident


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_everybody_is_told_what_the_scenario_says_and_nothing_besides(path, request):
    scenario = read_scenario(path)
    if scenario.wrong:
        request.applymarker(pytest.mark.xfail(reason=scenario.wrong, strict=True))
    arrivals, _ = play(scenario)
    verdict = judged(scenario, arrivals)
    assert verdict.is_good, f"{scenario.says}\n{verdict}"
    assert verdict.pages <= MOST_PAGES * verdict.incidents
