"""500 checks a second that do nothing: how late they begin, and what the daemon costs beside as many bare timers.

A check's lateness is counted against the grid of its own earliest begin. The CPU is of the whole daemon: it also stores
and shows what it knows of each run (six series a check), and looks after itself. Beside it a process with 500 tasks
that each sleep a second in a loop.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench.loopback import Stamps, stamped
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, figures, percentile, row, take_turns
from tests.bench.processes import bare, daemon, make_daemon

CHECKS: Final = 500
WARM_S: Final = 3.0
ANSWER_S: Final = 60.0
PASSES: Final = 3
LEAST_SHARE: Final = 0.8  # of the runs that are due; the plugin keeps those of the last second to itself


def lateness_ms(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Return how late each run began, of pairs (check, time), in milliseconds. One run a second is due."""
    runs: dict[float, list[float]] = {}
    for check, at in pairs:
        runs.setdefault(check, []).append(at)
    late = []
    for times in runs.values():
        offsets = [at - round(at - times[0]) for at in times]
        late += [1000 * (offset - min(offsets)) for offset in offsets]
    return late


def ours(directory: Path, stamps: Stamps, seconds: float, least: float) -> Side:
    make_daemon(
        directory,
        "".join(
            f'[checks.c{number}]\nplugin = "bench-tick"\ninterval = "1s"\nto = {stamps.port}\n'
            for number in range(CHECKS)
        ),
    )

    def measure() -> Mapping[str, float]:
        with daemon(directory) as server:
            time.sleep(WARM_S)
            stamps.all()
            began, cpu_s = time.perf_counter(), server.cpu_s()
            time.sleep(seconds)
            cpu_s, wall_s = server.cpu_s() - cpu_s, time.perf_counter() - began
            pairs = stamps.all() or stamps.next(ANSWER_S, "not one of the checks")
        if len(pairs) < least:
            raise BenchError(
                f"{len(pairs)} runs in {seconds:g} s, of {CHECKS * seconds:g}: the load is too high to measure"
            )
        return {"p99": percentile(lateness_ms(pairs), 0.99), "cpu": 1000 * cpu_s / wall_s}

    return measure


def timers(directory: Path, seconds: float) -> Side:
    def measure() -> Mapping[str, float]:
        with bare(directory, "timers", str(CHECKS)) as server:
            time.sleep(WARM_S)
            began, cpu_s = time.perf_counter(), server.cpu_s()
            time.sleep(seconds)
            return {"cpu": 1000 * (server.cpu_s() - cpu_s) / (time.perf_counter() - began)}

    return measure


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of many checks."""
    seconds = effort.pick(10.0, 3.0)
    least = effort.pick(LEAST_SHARE * CHECKS * seconds, 0.0)
    beside = f"{CHECKS} bare trio timers"
    with stamped() as stamps:
        measured = take_turns(
            {
                "sixfbd": ours(directory / "run", stamps, seconds, least),
                beside: timers(directory / "timers", seconds),
            },
            effort.at_most(PASSES),
        )
    return [
        Row(
            f"{CHECKS} checks a second, lateness p99",
            "ms",
            figures(measured, "p99", "sixfbd"),
            goal=Goal(20, absolute=True),
        ),
        row(f"{CHECKS} checks a second, CPU a second", "ms", measured, "cpu", "sixfbd", beside, Goal(1)),
    ]
