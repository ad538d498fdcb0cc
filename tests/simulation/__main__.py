"""`python -m tests.simulation FILE...`: play scenarios, print what became of each; exit 1 if one is not as it says."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.simulation.scenario import ScenarioError, read_scenario
from tests.simulation.stage import play
from tests.simulation.verdict import described, judged, table


def main(arguments: Sequence[str]) -> int:
    """Play the scenarios of these files; `-v` shows every message. Return 0 if all are as they say, 1 if not, 2 if one
    cannot be played."""
    shows = "-v" in arguments
    verdicts = []
    for path in (Path(one) for one in arguments if one != "-v"):
        try:
            scenario = read_scenario(path)
            arrivals, _ = play(scenario)
        except ScenarioError as error:
            print(error if str(path) in str(error) else f"{path}: {error}", file=sys.stderr)
            return 2
        verdicts.append(judged(scenario, arrivals))
        if shows:
            print(f"{scenario.name}: {scenario.says}", *(f"    {described(one)}" for one in arrivals), sep="\n")
    print(table(verdicts))
    return 0 if all(one.is_good for one in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
