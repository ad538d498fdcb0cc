"""`python -m tests.bench`: how the daemon does beside its neighbours, as a table of ratios and the goals for them.

Measures and reports; a goal that is not reached fails nothing. Everything runs on loopback, in directories under /var/tmp
that are removed.
"""

import argparse
import logging
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from sixfbd.logs import configure_logging
from tests.bench import (
    alerts,
    burst,
    chain,
    checks,
    design_point,
    ingest,
    journal,
    live,
    logs,
    memory,
    pages,
    probes,
    reports,
    rules,
    sales,
    starts,
)
from tests.bench.passes import NOT_REACHED, REACHED, BenchError, Effort, Row, table

PASSES: Final = 5
PLACE: Final = "/var/tmp"  # a disk: on /tmp in memory nothing would be durable, and fsync free
NEIGHBOURS: Final = ("prometheus-alertmanager", "prometheus", "prometheus-blackbox-exporter")


PARTS: Final[Mapping[str, Callable[[Path, Effort], Sequence[Row]]]] = {
    "alerts": alerts.rows,
    "chain": chain.rows,
    "burst": burst.rows,
    "probes": probes.rows,
    "checks": checks.rows,
    "pages": pages.rows,
    "ingest": ingest.rows,
    "journal": journal.rows,
    "starts": starts.rows,
    "memory": memory.rows,
    "rules": rules.rows,
    "design-point": design_point.rows,
    "reports": reports.rows,
    "sales": sales.rows,
    "logs": logs.rows,
    "live": live.rows,
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
        f"load      {load()}",
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


def load() -> str:
    """Return how busy the machine is, ourselves included."""
    return " ".join(f"{one:.2f}" for one in os.getloadavg())


def parts_of(text: str) -> list[str]:
    """Return the names of parts in a list with commas. Raises ArgumentTypeError that names what is none."""
    names = text.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return names


def measure(name: str, effort: Effort) -> list[Row]:
    """Measure one part in a directory of its own. What cannot be measured says why; the other parts go on."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sixfbd-bench-", dir=PLACE) as directory:
        try:
            found = list(PARTS[name](Path(directory), effort))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this part's
            if not isinstance(error, BenchError):
                traceback.print_exc()
            print(f"{name}: could not be measured (load {load()}): {error}", file=sys.stderr, flush=True)
            return []
    print(f"{name}: measured in {time.perf_counter() - began:.0f} s, load {load()}", file=sys.stderr, flush=True)
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure the parts asked for and print the table; 1 if one could not be measured."""
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure the daemon beside its neighbours.")
    parser.add_argument(
        "--passes",
        type=int,
        default=PASSES,
        help=f"passes that count, after a first (default {PASSES}; some parts take 3)",
    )
    parser.add_argument(
        "--parts", type=parts_of, default=list(PARTS), help=f"which parts, with commas (default: {','.join(PARTS)})"
    )
    parser.add_argument("--tiny", action="store_true", help="one pass with tiny counts: does it still run?")
    options = parser.parse_args(arguments)
    if options.passes < 1:
        parser.error("--passes: at least 1")
    effort = Effort(1, 0, tiny=True) if options.tiny else Effort(options.passes)
    print(header(), flush=True)
    print(
        f"{effort.passes} passes that count, median (least-most); ratio = sixfbd / beside, formed within each pass; "
        "the goal is for the median\n",
        flush=True,
    )
    with tempfile.TemporaryFile("w") as log:
        configure_logging(
            form="json", stream=log
        )  # parts of the daemon that are measured in this process log as it does
        found = {name: measure(name, effort) for name in options.parts}
        logging.shutdown()
    rows_ = [one for some in found.values() for one in some]
    print(table(rows_))
    verdicts = [one.verdict for one in rows_]
    print(f"\n{verdicts.count(REACHED)} goals reached, {verdicts.count(NOT_REACHED)} not reached")
    if failed := [name for name, some in found.items() if not some]:
        print(f"not measured, see above: {', '.join(failed)}")
    print(f"load at the end  {load()}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
