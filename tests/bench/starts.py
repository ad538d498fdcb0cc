"""Start until ready with millions of samples, beside Prometheus that replays its write-ahead log.

Both have as many series and samples, of times 15 s apart. Ours are written through our own window and store, with such
times; Prometheus scrapes its own from an exporter, at the shortest interval that it keeps up with. Both writers are killed.
Each pass starts both on a copy.

Both close a chunk of a series at 120 samples, and at a start learn only where it lies. So there are two shapes: many series
with fewer samples than that, which Prometheus has in its log alone and makes anew from it, and fewer series over two hours,
of which it skips most of its log.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Final

import trio

from sixfbd.journal.samples import SampleStore, open_samples
from sixfbd.model import MetricKind, Series, labels_of
from sixfbd.window.window import Window
from tests.bench.loopback import serving
from tests.bench.passes import BenchError, Effort, Goal, Row, Side, row, take_turns
from tests.bench.processes import ROOT, daemon, exchange, make_daemon, prometheus

CHECKS: Final = 20
SHAPES: Final = ((50_000, 100), (10_000, 500))  # series, reports of each
TINY: Final = ((400, 5), (200, 10))
EVERY_MS: Final = 15_000
STALE_AFTER_MS: Final = 9_000_000  # of a check that runs once an hour
SCRAPE_MS: Final = 100
FILL_S: Final = 240.0
WAITING_SAMPLES: Final = 500_000
PAGES: Final = 16
SEED: Final = 11
APPENDED: Final = re.compile(rb"^prometheus_tsdb_head_samples_appended_total(?:\{[^}]*\})? (\S+)", re.MULTILINE)

CHECK: Final = """
[checks.filled{number}]
plugin = "bench-flip"
interval = "1h"
jitter = "1h"
to = 9
"""


async def write_samples(path: Path, series: int, reports: int) -> None:
    """Write the samples of CHECKS checks up to now, as the daemon does, and die of SIGKILL when the file has them all."""
    window, chance = Window(), random.Random(SEED)
    now_ms = round(time.time() * 1000)
    checks = {
        f"filled{number}": [
            Series("bench_filled", labels_of({"check": f"filled{number}", "id": str(one)}), MetricKind.GAUGE)
            for one in range(series // CHECKS)
        ]
        for number in range(CHECKS)
    }
    async with open_samples(path, window) as store:
        for report in range(reports):
            for check, columns in checks.items():
                values = [(one, round(1000 * chance.random(), 3)) for one in columns]
                at_ms = now_ms - EVERY_MS * (reports - report)
                appended = window.append(check, at_ms, values, complete=True, stale_after_ms=STALE_AFTER_MS)
                store.put(appended.rows)
            await _written(store, WAITING_SAMPLES)
        await _written(store, 0)
        if not store.dropped:
            os.kill(os.getpid(), signal.SIGKILL)
    raise BenchError(f"{store.dropped} samples were not written: {store.problem}")


async def _written(store: SampleStore, waiting: int) -> None:
    """Return when at most so many samples wait to be written."""
    with trio.fail_after(FILL_S):
        await trio.lowlevel.checkpoint()
        while store.queued > waiting:  # noqa: ASYNC110 - the store tells nobody when it has written
            await trio.sleep(0.05)


def fill_ours(run: Path, series: int, reports: int) -> Path:
    """Return a state directory with the samples in it, as a daemon that was killed leaves it; the run directory has none."""
    make_daemon(run, "".join(CHECK.format(number=number) for number in range(CHECKS)))
    with daemon(run) as server:
        server.kill()  # it has made its state
    writer = [sys.executable, "-m", __name__, run / "state" / "samples.db", str(series), str(reports)]
    done = subprocess.run(writer, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=2 * FILL_S)
    if done.returncode != -signal.SIGKILL:
        raise BenchError(f"the writer of the samples ended with {done.returncode}: {done.stderr[-2000:]}")
    return (run / "state").rename(run.parent / "our-state")


def fill_theirs(directory: Path, series: int, reports: int) -> Path:
    """Return a data directory of a Prometheus that scraped the samples and was killed."""
    chance, turn = random.Random(SEED), count()
    pages = [
        b"".join(b'bench_filled{id="%d"} %.3f\n' % (one, 1000 * chance.random()) for one in range(series))
        for _ in range(PAGES)
    ]
    with serving(1, lambda: pages[next(turn) % PAGES]) as exporter:
        scrape = (
            f"[{{job_name: filled, scrape_interval: {SCRAPE_MS}ms, scrape_timeout: {SCRAPE_MS}ms, "
            f"static_configs: [{{targets: ['{exporter.addresses[0]}']}}]}}]"
        )
        with prometheus(directory, scrape) as server, server.connection() as connection:
            deadline = time.monotonic() + FILL_S
            while (have := _appended(exchange(connection, "GET", "/metrics"))) < series * reports:
                if time.monotonic() > deadline:
                    raise BenchError(f"Prometheus scraped {have:,.0f} of {series * reports:,} samples in {FILL_S:g} s")
                time.sleep(0.1)
            server.kill()
    return (directory / "data").rename(directory.parent / "their-data")


def _appended(page: bytes) -> float:
    return sum(map(float, APPENDED.findall(page)))


def ours(run: Path, filled: Path) -> Side:
    def measure() -> Mapping[str, float]:
        shutil.copytree(filled, run / "state")
        with daemon(run) as server:
            found = {"wall": server.ready_s, "cpu": server.ready_cpu_s}
        shutil.rmtree(run / "state")
        return found

    return measure


def theirs(directory: Path, filled: Path) -> Side:
    def measure() -> Mapping[str, float]:
        shutil.copytree(filled, directory / "data")
        with prometheus(directory, "[]") as server:
            found = {"wall": server.ready_s, "cpu": server.ready_cpu_s}
        shutil.rmtree(directory / "data")
        return found

    return measure


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of a start with each shape; the data are made once."""
    measured: list[Row] = []
    for series, reports in effort.pick(SHAPES, TINY):
        place = directory / str(series)
        place.mkdir()
        measured += _rows_of(place, effort, series, reports)
    return measured


def _rows_of(directory: Path, effort: Effort, series: int, reports: int) -> Sequence[Row]:
    our_state = fill_ours(directory / "run", series, reports)
    their_data = fill_theirs(directory / "prometheus", series, reports)
    measured = take_turns(
        {
            "sixfbd": ours(directory / "run", our_state),
            "prometheus": theirs(directory / "prometheus", their_data),
        },
        effort,
    )
    what = f"start to ready with {series * reports:,} samples of {series:,} series"
    return [
        row(f"{what}, CPU", "s", measured, "cpu", "sixfbd", "prometheus", Goal(0.5)),
        row(f"{what}, wall", "s", measured, "wall", "sixfbd", "prometheus"),
    ]


if __name__ == "__main__":
    trio.run(write_samples, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
