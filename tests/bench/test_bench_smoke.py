"""The bench still runs: every row, once, with tiny counts. What it prints is judged by people, not here."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = {
    "a": ("notice → webhook, p50", "notice → webhook, p99", "rule → webhook, p50", "rule → webhook, p99"),
    "b": ("1 a commit", "10 a commit", "100 a commit", "1,000 a commit"),
    "c": ("1 check of 50", "50 checks"),
    "d": ("idle memory",),
    "e": ("start to ready",),
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_every_row_of_the_bench_is_measured() -> None:
    done = bench("--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    for start in ("machine", "versions  sixfbd", "beside", "load"):
        assert re.search(rf"^{start}", done.stdout, re.MULTILINE), done.stdout
    for part, names in ROWS.items():
        lines = [line for line in done.stdout.splitlines() if line.startswith(f"({part}) ")]
        for name in names:
            assert any(name in line for line in lines), f"({part}) {name} is missing:\n{done.stdout}"
        for line in lines:
            figures = re.findall(r"([\d,.e+-]+) \([\d,.e+-]+-[\d,.e+-]+\)", line)
            assert len(figures) == 3 and all(float(one.replace(",", "")) > 0 for one in figures), line


def test_a_part_that_does_not_exist_is_named() -> None:
    done = bench("--parts", "az")
    assert done.returncode == 2
    assert "no part z" in done.stderr
