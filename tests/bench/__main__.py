"""`python -m tests.bench`: how the daemon does beside its neighbours, as a table of ratios.

Measures and reports; judges nothing. Everything runs on loopback, in a directory under /var/tmp that is removed.
"""

import argparse
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from tests.bench import alerts, journal, lives, probes
from tests.bench.passes import Row, table
from tests.bench.processes import BenchError

PASSES: Final = 5
PLACE: Final = "/var/tmp"  # a disk: on /tmp in memory nothing would be durable, and fsync free
NEIGHBOURS: Final = ("prometheus-alertmanager", "prometheus", "prometheus-blackbox-exporter")


@dataclass(frozen=True)
class Part:
    """One part of the bench; `size` is its counts or seconds a pass, `tiny` the same for a smoke test."""

    rows: Callable[[Path, int, int, int], Sequence[Row]]
    size: int
    tiny: int


PARTS: Final = {
    "a": Part(alerts.rows, 100, 4),
    "b": Part(journal.rows, 500, 5),
    "c": Part(probes.rows, 8, 1),
    "d": Part(lives.memory_rows, 10, 1),
    "e": Part(lives.start_rows, 0, 0),
}


def header() -> str:
    """Return what the numbers depend on: machine, versions, load."""
    memory = psutil.virtual_memory().total / 2**30
    disk = next(
        (one for one in sorted(psutil.disk_partitions(all=True), key=lambda one: -len(one.mountpoint))
         if Path(PLACE).is_relative_to(one.mountpoint)), None
    )  # fmt: skip
    packages = ", ".join(f"{name} {version(name)}" for name in ("trio", "hypercorn", "httpx", "httpcore", "numpy"))
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M %Z')}  {_commit()}",
        f"machine   {_processor()}, {os.cpu_count()} CPUs, {memory:.1f} GiB, {platform.system()} {platform.release()}, "
        f"{disk.fstype if disk else '?'} on {PLACE}",
        f"versions  sixfbd {version('sixfbd')}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}",
        f"beside    {', '.join(map(_version_of, NEIGHBOURS))}",
        f"load      {' '.join(f'{one:.2f}' for one in os.getloadavg())}",
    ]
    return "\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version_of(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        return f"{command} is missing"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return (said.stdout + said.stderr).partition(" (")[0].replace(", version", "").strip()


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    said = subprocess.run(
        [git, "describe", "--always", "--dirty"], capture_output=True, text=True, timeout=20, check=False
    )
    return f"commit {said.stdout.strip()}" if said.returncode == 0 else ""


def main(arguments: Sequence[str]) -> int:
    """Measure the parts asked for and print the table; 1 if one could not be measured."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure the daemon beside its neighbours.")
    parser.add_argument(
        "--passes", type=int, default=PASSES, help=f"passes that count, after a first (default {PASSES})"
    )
    parser.add_argument("--parts", default="".join(PARTS), help="which parts, such as: ab (default: all)")
    parser.add_argument("--tiny", action="store_true", help="one pass with tiny counts: does it still run?")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if options.passes < 1:
        parser.error("--passes: at least 1")
    passes, discard = (1, 0) if options.tiny else (options.passes, 1)
    print(header(), flush=True)
    print(
        f"{passes} passes that count, median (least-most); ratio = sixfbd / beside, formed within each pass\n",
        flush=True,
    )
    found: list[Row] = []
    failed = 0
    for name in options.parts:
        part = PARTS[name]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="sixfbd-bench-", dir=PLACE) as directory:
            try:
                found += part.rows(Path(directory), passes, discard, part.tiny if options.tiny else part.size)
            except BenchError as error:
                print(f"({name}) could not be measured: {error}", file=sys.stderr)
                failed = 1
                continue
        print(f"({name}) measured in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(found))
    print(f"\nload at the end  {' '.join(f'{one:.2f}' for one in os.getloadavg())}")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
