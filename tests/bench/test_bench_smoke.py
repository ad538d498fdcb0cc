"""The bench still runs: every row, once, with tiny counts. What it prints is judged by people, not here."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = (
    *("report in process → webhook, p50", "report in process → webhook, p99", "event over HTTP → webhook, p50"),
    *("event → webhook, p50, beside the chain", "scraped each second: change → webhook"),
    *("alerts until delivered, wall", "alerts until delivered, CPU"),
    *("20 targets .* blackbox ", "20 targets .* 4 targets "),
    *("500 checks a second, lateness p99", "500 checks a second, CPU"),
    *("10 % changed, CPU", "all changed, CPU", "10 % changed, longest stall", "all changed, longest stall"),
    *("ingest CPU an event, 1 a request", "ingest CPU an event, 100 a request"),
    *("durable, 1 a commit", "durable, 10 a commit", "durable, 100 a commit", "durable, 1,000 a commit"),
    *("start to ready .* 400 series, CPU", "start to ready .* 200 series, CPU"),
    *("idle memory", "1 value changed → decided, p99"),
    *("report business, .* p95", "report performance, .* p95", "report inventory, .* p95", "report payments, .* p95"),
    *(
        "report sms, .* p95",
        "report system, .* p95",
        "5 sales a day, tail: false pages",
        "500 sales a day, checkouts: false",
    ),
    *("log lines, combined", "log lines, JSON", "log lines, a pattern"),
    *("a second, 10 rules, loop delay p99.9", "alerts at once meanwhile, loop delay p99.9"),
)
"""Each with a goal, as regular expressions."""
FIGURE = r"([\d,.e+-]+|inf) \((?:[\d,.e+-]+|inf)-(?:[\d,.e+-]+|inf)\)"  # beside what took no tick of the clock: inf


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_every_row_of_the_bench_is_measured() -> None:
    done = bench("--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    for start in ("machine", "versions  sixfbd", "beside", "load"):
        assert re.search(rf"^{start}", done.stdout, re.MULTILINE), done.stdout
    for row in ROWS:
        [line, *_] = [line for line in done.stdout.splitlines() if re.search(row, line)] or [""]
        assert line, f"{row} is missing:\n{done.stdout}"
        assert re.search(r"[≤≥] [\d.]+(x| ms)? +(not )?reached$", line), line
        figures = re.findall(FIGURE, line)
        assert len(figures) in (1, 3) and all(float(one.replace(",", "")) >= 0 for one in figures), line


def test_a_part_that_does_not_exist_is_named() -> None:
    done = bench("--parts", "journal,lunch")
    assert done.returncode == 2
    assert "no part lunch" in done.stderr
