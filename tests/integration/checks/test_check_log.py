"""The `log` check on real files and a real journal.db: each line once, over rotation, truncation, restarts and crashes."""

import gzip
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from sixfbd.plugin import Status
from sixfbd_plugins.business import requests
from sixfbd_plugins.logs import check as module
from sixfbd_plugins.logs import journald
from sixfbd_plugins.logs.check import LOG_LINES, JournalOptions, LogCheck, LogOptions
from sixfbd_plugins.logs.files import LINGER_S, LONGEST_LINE
from tests.provider_kit import Engine, ManualClock, PluginContext

NOW = 1_795_769_411.0  # 27 Nov 2026 08:50:11 UTC


def line(path="/a", status=200, took=0.1):
    return f'::1 - - [27/Nov/2026:08:50:05 +0000] "GET {path} HTTP/1.1" {status} 1 "-" "agent" {took}\n'


class Log:
    """An engine that watches log files with one check; `restart` makes a new instance that goes on by the cursor."""

    def __init__(self, folder: Path, **options):
        self.folder, self.clock = folder, ManualClock(NOW)
        self.path = folder / "access.log"
        self.options = LogOptions(
            **{"files": (str(self.path),), "duration_unit": "s", "read_from": "beginning", **options}
        )
        types = (requests.REQUEST, requests.LOGGED_REQUESTS, LOG_LINES)
        self.engine = Engine(folder, self.clock, types, "access", LogCheck)
        self.warnings = []
        self.restart()

    def restart(self):
        context = PluginContext(None, self.clock)
        context.name = "access"
        context.log = self
        self.check = LogCheck(self.options, context)

    def warning(self, event, **facts):
        self.warnings.append((event, facts))

    def write(self, *lines, mode="a"):
        with self.path.open(mode) as file:
            file.write("".join(lines))

    def idle(self):
        """Time passes: nothing has been written to any file for a while."""
        for path in self.folder.glob("access*"):
            os.utime(path, (NOW - 2 * LINGER_S, NOW - 2 * LINGER_S))

    async def once(self, *, lost=False):
        """Run once; `lost`: the daemon dies before what was read is committed."""
        cursor = await self.engine.journal.cursor(self.engine.check)
        report = await self.check.run(cursor)
        if not lost:
            refused = await self.engine.report(report)
            assert refused.count == 0, refused
        return report

    async def read(self):
        """Run until there is nothing more; return the last report."""
        report = await self.once()
        while report.more:
            report = await self.once()
        return report

    @property
    def counted(self):
        return self.engine.counted()

    @property
    def lines(self):
        return self.counted.get(("log_lines_total", "access"), 0)

    @property
    def gaps(self):
        return self.counted.get(("log_gaps_total", "access"), 0)


@pytest.fixture(autouse=True)
def no_groups(monkeypatch):
    """Which groups of paths there are belongs to the process."""
    monkeypatch.setattr(requests.paths, "_groups", set())


@pytest.fixture
async def log(tmp_path):
    log = Log(tmp_path)
    async with log.engine.running():
        yield log
    await log.check.close()


@pytest.fixture
def watching(tmp_path):
    """Return a log with options of its own, within `async with log.engine.running()`."""
    return lambda **options: Log(tmp_path, **options)


async def test_requests_of_a_log_count_as_those_of_events_do(log):
    log.write(line("/orders/1"), line("/orders/2", 500, 3.5), "rubbish\n")
    report = await log.read()
    assert (report.status, report.summary) == (Status.HEALTHY, "3 lines, 2 requests, 1 unread")
    counted = log.counted
    assert counted["http_requests_total", "GET", "200"] == 1
    assert counted["http_path_requests_total", "5xx", "/orders/:id"] == 1
    assert counted["http_slow_requests_total", "/orders/:id"] == 1
    assert counted["http_slow_request_seconds", "/orders/:id"] == 3.5
    assert counted["http_request_duration_seconds_count",] == 2
    assert counted["http_request_duration_seconds_sum",] == pytest.approx(3.6)
    assert counted["log_unparsed_lines_total", "access"] == 1
    p95 = await log.engine.read.quantile("http_request_duration_seconds", 0.95, NOW - 60, NOW)
    assert p95 == pytest.approx(3.5, rel=0.011)


async def test_a_line_that_cannot_be_read_is_named_by_its_shape_and_once_an_hour(log):
    log.write(line(), "ann@example.com 203.0.113.7 asked for something\n")
    await log.read()
    log.write("bob@example.com\n")
    await log.read()
    [(event, facts)] = log.warnings
    assert event == "log.line_not_parsed"
    assert facts["where"] == f"{log.path} at byte {len(line())}"
    assert facts["shape"] == "a@a.a 0.0.0.0 a a a"


async def test_a_line_is_read_when_it_is_whole(log):
    first, rest = line()[:30], line()[30:]
    log.write(first)
    await log.read()
    assert log.lines == 0
    log.write(rest)
    await log.read()
    assert log.lines == 1


async def test_what_was_there_before_the_first_run_is_left_unless_asked_for(watching):
    log = watching(read_from="end")
    async with log.engine.running():
        log.write(line(), line()[:20])
        await log.read()
        log.write(line()[20:], line("/new"))
        await log.read()
        assert log.lines == 1, "a line that had begun before the first run is not ours"
        assert log.counted["http_path_requests_total", "2xx", "/new"] == 1
        await log.check.close()


async def test_a_file_that_comes_later_is_read_from_its_beginning(watching):
    log = watching(read_from="end")
    async with log.engine.running():
        report = await log.read()
        assert report.status is Status.UNKNOWN
        assert report.summary == f"{log.path} is not there"
        log.write(line())
        assert (await log.read()).status is Status.HEALTHY
        assert log.lines == 1
        await log.check.close()


# ---- rotation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_renamed_file_is_read_to_its_end_also_what_is_written_after(log, restarts):
    log.write(line(), line())
    await log.read()
    log.write(line())
    old = log.path.rename(log.folder / "access.log.1")
    if restarts:
        await log.check.close()
        log.restart()
    log.write(line("/new"), mode="x")
    await log.read()
    with old.open("a") as file:
        file.write(line())  # a server that has not opened its new file yet
    await log.read()
    assert (log.lines, log.gaps) == (5, 0)


@pytest.mark.parametrize("restarts", [False, True])
async def test_of_a_file_that_is_copied_and_cut_off_the_rest_is_read_from_the_copy(log, restarts):
    log.write(line(), line())
    await log.read()
    log.write(line("/rest"))
    shutil.copy(log.path, log.folder / "access.log.1")
    os.truncate(log.path, 0)
    log.write(*[line("/new")] * 9)  # longer than what had been read
    if restarts:
        await log.check.close()
        log.restart()
    await log.read()
    await log.read()
    assert (log.lines, log.gaps) == (12, 0)
    assert log.counted["http_path_requests_total", "2xx", "/rest"] == 1


async def test_a_file_that_is_cut_off_and_copied_nowhere_is_a_gap_and_read_on(log):
    log.write(line(), line())
    await log.read()
    log.write(line("/new"), mode="w")
    report = await log.read()
    assert (report.status, log.lines, log.gaps) == (Status.DEGRADED, 3, 1)
    assert log.warnings[0][0] == "log.gap"
    assert (await log.read()).status is Status.HEALTHY


async def test_a_file_that_is_compressed_and_removed_at_once_is_still_read_to_its_end(log):
    log.write(line())
    await log.read()
    log.write(line("/rest"))
    with gzip.open(log.folder / "access.log.1.gz", "wb") as packed:
        packed.write(log.path.read_bytes())
    log.path.unlink()
    log.write(line("/new"), mode="x")
    await log.read()
    assert (log.lines, log.gaps) == (3, 0)


async def test_a_file_that_was_compressed_while_nobody_looked_is_a_gap(log):
    log.write(line())
    await log.read()
    await log.check.close()
    with gzip.open(log.folder / "access.log.1.gz", "wb") as packed:
        packed.write(log.path.read_bytes())
    log.path.unlink()
    log.write(line("/new"), mode="x")
    log.restart()
    await log.read()
    assert (log.lines, log.gaps) == (2, 1)


async def test_a_log_that_was_cut_off_under_a_server_that_does_not_append_begins_with_zeros(log):
    log.write(line(), line())
    await log.read()
    size = log.path.stat().st_size
    shutil.copy(log.path, log.folder / "access.log.1")
    os.truncate(log.path, 0)
    with log.path.open("r+b") as file:
        file.seek(size)
        file.write(line("/new").encode())
    await log.read()
    await log.read()
    assert (log.lines, log.gaps) == (3, 0)
    assert log.counted["http_path_requests_total", "2xx", "/new"] == 1
    assert ("log_unparsed_lines_total", "access") not in log.counted or not log.counted[
        "log_unparsed_lines_total", "access"
    ]


async def test_a_rotated_file_is_let_go_when_nobody_writes_it_any_more_its_last_line_too(log):
    log.write(line(), line().rstrip("\n"))
    await log.read()
    log.path.rename(log.folder / "access.log.1")
    log.write(line("/new"))
    await log.read()
    assert len((await log.engine.journal.cursor(log.engine.check))["places"]) == 2
    log.idle()
    await log.read()
    await log.read()
    assert (log.lines, log.gaps) == (3, 0)
    assert len((await log.engine.journal.cursor(log.engine.check))["places"]) == 1
    await log.read()
    assert len(log.check._files._held) == 1


async def test_many_files_by_a_pattern_are_read_and_their_copies_and_packed_ones_are_not(watching):
    log = watching()
    log.options = LogOptions(files=(f"{log.folder}/access*",), read_from="beginning")
    log.restart()
    async with log.engine.running():
        (log.folder / "access-1.log").write_text(line("/one"))
        (log.folder / "access-2.log").write_text(line("/two") * 2)
        (log.folder / "access-3.log.gz").write_bytes(gzip.compress(line().encode()))
        await log.read()
        assert log.lines == 3
        shutil.copy(log.folder / "access-2.log", log.folder / "access-2.log.1")
        await log.read()
        (log.folder / "access-2.log").write_text(line("/three"))
        await log.read()
        await log.read()
        assert (log.lines, log.gaps) == (4, 0)
        await log.check.close()


async def test_what_cannot_be_read_is_said_with_its_mend(watching):
    log = watching()
    async with log.engine.running():
        os.mkfifo(log.path)
        report = await log.read()
        assert (report.status, report.summary) == (Status.UNKNOWN, f"{log.path} is no regular file")
        await log.check.close()


# ---- bounds ------------------------------------------------------------------------------------------------------------


async def test_a_page_is_bounded_and_asks_for_another(log, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 4 * LONGEST_LINE)
    log.write(*[line(f"/n{n}") for n in range(3000)])
    report = await log.once()
    assert report.more and 0 < log.lines < 1000
    await log.read()
    assert log.lines == 3000


async def test_a_line_without_an_end_is_cut_and_its_rest_passed_by(log):
    log.write(line().rstrip("\n") + " " + "x" * (5 * LONGEST_LINE))
    await log.read()
    log.write("x" * (5 * LONGEST_LINE) + "\n", line("/next"))
    await log.read()
    assert log.lines == 2
    assert log.counted["log_cut_lines_total", "access"] == 1
    assert log.counted["http_path_requests_total", "2xx", "/next"] == 1


async def test_a_log_of_another_form_is_degraded(log):
    log.write('{"path":"/a"}\n' * 3, line())
    report = await log.read()
    assert report.status is Status.DEGRADED
    assert report.summary == "3 of 4 lines have not the form 'combined'"


async def test_a_log_of_another_form_is_degraded_at_its_first_run_though_nothing_is_counted_yet(watching):
    log = watching(read_from="end")
    async with log.engine.running():
        log.write('{"path":"/a"}\n' * 1000)
        report = await log.read()
        assert report.status is Status.DEGRADED
        assert re.search(r"(\d+) of its last \1 lines have not the form 'combined'", report.summary)
        assert log.lines == 0
        await log.check.close()


async def test_a_log_of_the_right_form_is_healthy_at_its_first_run(watching):
    log = watching(read_from="end")
    async with log.engine.running():
        log.write(*[line()] * 1000, line()[:9])
        report = await log.read()
        assert (report.status, report.summary) == (Status.HEALTHY, "begins at the end of 1 file")
        await log.check.close()


async def test_a_file_that_is_no_longer_configured_is_let_go(log):
    log.write(line())
    await log.read()
    await log.check.close()
    log.options = LogOptions(files=(f"{log.folder}/access-2.log",))
    log.restart()
    (log.folder / "access-2.log").touch()
    log.write(line())
    await log.read()
    assert (log.lines, log.gaps) == (1, 0)
    assert [one["path"] for one in (await log.engine.journal.cursor(log.engine.check))["places"]] == [
        f"{log.folder}/access-2.log"
    ]


async def test_error_patterns_begin_at_zero_and_count_lines(watching):
    log = watching(format="text", errors={"no_memory": "Out of memory", "panic": r"\bpanic\b"}, duration_unit="")
    async with log.engine.running():
        log.write("all is well\n")
        await log.read()
        assert log.counted["log_errors_total", "access", "no_memory"] == 0
        log.write("kernel: Out of memory: killed\n", "panic\n", "Out of memory panic\n")
        await log.read()
        assert log.counted["log_errors_total", "access", "no_memory"] == 2
        assert log.counted["log_errors_total", "access", "panic"] == 2
        await log.check.close()


# ---- systemd's journal ---------------------------------------------------------------------------------------------------

IMPORT = "/lib/systemd/systemd-journal-remote"


def journal_of(folder, entries):
    """Make a journal of (seconds after NOW, unit, message) as systemd has them."""
    lines = []
    for at, unit, message in entries:
        plain = f"MESSAGE={message}\n".encode()
        packed = b"MESSAGE\n" + len(message.encode()).to_bytes(8, "little") + message.encode() + b"\n"
        wall, monotonic = int((NOW + at) * 1e6), int((at + 1000) * 1e6)
        head = f"__REALTIME_TIMESTAMP={wall}\n__MONOTONIC_TIMESTAMP={monotonic}\n_BOOT_ID={'0' * 31}1\n"
        lines.append(
            head.encode() + f"_SYSTEMD_UNIT={unit}\n".encode() + (packed if "\n" in message else plain) + b"\n"
        )
    folder.mkdir(exist_ok=True)
    made = folder / f"part{len(list(folder.iterdir()))}.journal"
    subprocess.run([IMPORT, "-o", str(made), "-"], input=b"".join(lines), check=True, capture_output=True, timeout=30)


async def test_systemds_journal_is_read_from_now_on_each_entry_once(watching, tmp_path):
    folder = tmp_path / "journal"
    log = watching(files=(), journal=JournalOptions(units=("shop.service",), directory=str(folder)), read_from="end",
                   errors={"panic": "panic"})  # fmt: skip
    journal_of(folder, [(-60, "shop.service", "old"), (1, "other.service", line().strip())])
    async with log.engine.running():
        assert (await log.read()).status is Status.HEALTHY
        assert log.lines == 0
        journal_of(folder, [(2, "shop.service", line("/a").strip()), (3, "shop.service", "a panic\nof two lines")])
        log.clock.at += 10
        await log.read()
        log.restart()
        await log.read()
        journal_of(folder, [(11, "shop.service", line("/b").strip()), (12, "shop.service", "x" * 10_000)])
        await log.read()
        assert log.lines == 3
        assert log.counted["http_path_requests_total", "2xx", "/b"] == 1
        assert log.counted["log_errors_total", "access", "panic"] == 1
        assert log.counted["log_cut_lines_total", "access"] == 1, "journalctl shows no field of more than 4 KiB"


async def test_a_page_of_the_journal_is_bounded_and_asks_for_another(watching, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "JOURNAL_BYTES", 20_000)
    folder = tmp_path / "journal"
    log = watching(files=(), journal=JournalOptions(directory=str(folder)), read_from="end")
    journal_of(folder, [(n / 100, "shop.service", line(f"/n{n}").strip()) for n in range(300)])
    async with log.engine.running():
        report = await log.once()
        assert report.more and 0 < log.lines < 300
        await log.read()
        assert log.lines == 300


async def test_a_journal_that_cannot_be_read_is_unknown_and_says_why(watching, tmp_path):
    log = watching(files=(), journal=JournalOptions(directory=str(tmp_path / "none")), read_from="end")
    async with log.engine.running():
        report = await log.check.run(None)
    assert report.status is Status.UNKNOWN
    assert "No such file or directory" in report.summary


async def test_a_journalctl_that_hangs_ends_with_the_run(tmp_path):
    (tmp_path / "journalctl").write_text("#!/bin/sh\necho $$ >$0.pid\nexec sleep 1000\n")
    (tmp_path / "journalctl").chmod(0o755)
    started = tmp_path / "journalctl.pid"
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journald.read, [str(tmp_path / "journalctl")], 1000)
            while not started.exists() or not started.read_text().strip():  # noqa: ASYNC110 - a process tells nobody
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert not Path(f"/proc/{int(started.read_text())}").exists()


# ---- each line once, whatever happens ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
async def test_each_line_is_counted_once_over_any_history_of_rotations_and_crashes(log, seed, monkeypatch):
    monkeypatch.setattr(module, "PAGE_BYTES", 4 * LONGEST_LINE)
    chance, written = random.Random(seed), 0

    def write():
        nonlocal written
        many = chance.randrange(1, 400)
        log.write(*[line(f"/s{written + n}") for n in range(many)])
        written += many

    def make_room():
        for number in sorted((int(old.suffix[1:]) for old in log.folder.glob("access.log.*")), reverse=True):
            (log.folder / f"access.log.{number}").rename(log.folder / f"access.log.{number + 1}")

    def rename():
        make_room()
        log.path.rename(log.folder / "access.log.1")
        log.write("", mode="x")

    def copy_and_cut():
        make_room()
        shutil.copy(log.path, log.folder / "access.log.1")
        os.truncate(log.path, 0)

    write()
    await log.read()  # of a file that was never read, nothing is known that a copy could be found by
    for _ in range(40):
        step = chance.choice([write, write, rename, copy_and_cut, "once", "once", "lost", "restart", "idle"])
        if step == "once":
            await log.once()
        elif step == "lost":
            await log.once(lost=True)
            log.restart()
        elif step == "restart":
            await log.check.close()
            log.restart()
        elif step == "idle":
            log.idle()
        else:
            if step in (rename, copy_and_cut):
                await log.once()  # two rotations between two looks are told as a gap, if anything of them is lost
            step()
            if step is copy_and_cut:
                await log.once()
    await log.read()
    assert (log.lines, log.gaps) == (written, 0)


async def test_reading_leaves_the_loop_free(tmp_path):
    """The check reads in its thread: a task that only wants its turn gets it all the while."""
    log = Log(tmp_path)

    async def threaded(fn, *args):
        return await trio.to_thread.run_sync(fn, *args)

    log.check.ctx.to_thread = threaded
    log.write(*[line(f"/n{n}") for n in range(8000)])
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            await trio.sleep(0.001)
            turns += 1

    async with log.engine.running(), trio.open_nursery() as nursery:
        nursery.start_soon(turn)
        await trio.lowlevel.checkpoint()
        await log.check.run(None)
        nursery.cancel_scope.cancel()
    assert turns >= 3
    await log.check.close()
