"""A log that is written, rotated and read while the daemon is killed: each line counts once. And what comes of it: a report, an
alert, none of the text."""

import os
import threading
import time
from pathlib import Path

import httpx

from tests.e2e.conftest import Daemon, wait_for

KILLS = 3


class Shop:
    """A web server that writes its log all the time, and opens it anew when it was renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        self._reopen = threading.Event()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.path.touch()
        self._thread.start()

    def rotate(self, number: int) -> None:
        """Rename the log; the server writes into the old file a moment longer, as servers do."""
        self.path.rename(self.path.with_suffix(f".log.{number}"))
        self.path.touch()
        self._reopen.set()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(10)

    def _run(self) -> None:
        log = self.path.open("a")
        while not self._ends.wait(0.002):
            if self._reopen.is_set():
                self._reopen.clear()
                log.close()
                log = self.path.open("a")
            at = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
            status = 500 if self.written % 10 == 0 else 200
            log.write(
                f'203.0.113.7 - ann [{at}] "GET /orders/{self.written}?email=ann@example.com HTTP/1.1" {status} 5'
                f' "-" "Mozilla/5.0" 0.{self.written % 10}\n'
            )
            log.flush()
            self.written += 1
        log.close()


def value(daemon: Daemon, expression: str) -> float:
    answer = httpx.get(f"{daemon.url}/api/v1/query", params={"query": f"sum({expression})"}, timeout=10)
    found = answer.json()["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def test_each_line_of_a_log_counts_once_over_rotations_and_kills(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    daemon.add(
        "40-log.toml",
        f'[checks.access]\nplugin = "log"\nfiles = ["{path}"]\nduration_unit = "s"\ninterval = "100ms"\ntimeout = "100ms"\n'
        'read_from = "beginning"\nerrors = {server = "\\" 500 "}\n',
    )
    shop = Shop(path)
    try:
        daemon.start()
        for number in range(KILLS):
            read = value(daemon, "log_lines_total")
            wait_for("lines are read", lambda before=read: value(daemon, "log_lines_total") > before + 50)
            daemon.kill()
            shop.rotate(number)
            daemon.start()
    finally:
        shop.stop()
    written = shop.written
    wait_for("all lines", lambda: value(daemon, "log_lines_total") >= written)
    failed = (written + 9) // 10
    assert value(daemon, "log_lines_total") == written
    assert value(daemon, "log_gaps_total") == value(daemon, "log_unparsed_lines_total") == 0
    assert value(daemon, 'log_errors_total{log="access",pattern="server"}') == failed
    assert value(daemon, 'http_path_requests_total{path="/orders/:id"}') == written
    report = httpx.get(f"{daemon.url}/api/monitoring/performance", timeout=10).json()["data"]
    assert (report["totalRequests"], report["errorBreakdown"]) == (written, {"500": failed})
    assert abs(report["p95ResponseTime"] - 900) < 10
    held = b"".join(
        one.read_bytes() for one in daemon.directory.rglob("*") if one.is_file() and os.access(one, os.R_OK)
    )
    assert b"/orders/:id" in held
    assert not [word for word in (b"203.0.113.7", b"ann@", b"Mozilla") if word in held]
