"""What was acknowledged survives: kill -9 in the middle of writing, and a disk that is full for a while."""

import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import trio

from sixfbd.journal.database import CLOSE_TIMEOUT_S, JournalBroken, JournalDatabase, JournalFull
from sixfbd.journal.records import Audited
from sixfbd.journal.verify import verify_file

ROUNDS = 10
DEADLINE_S = 30

WRITER = """
import sys
from pathlib import Path

import trio

from sixfbd.journal.database import JournalDatabase, NewEvent
from sixfbd.journal.records import Audited
from sixfbd.model import CheckName, Event, MetricKind, Series

NOW = 1_800_000_000.0
SOLD = Series("shop_sold_total", (), MetricKind.COUNTER)
path, name = Path(sys.argv[1]), sys.argv[2]


def say(line):
    sys.stdout.write(line + "\\n")
    sys.stdout.flush()


async def put(journal, caller):
    for number in range(100_000):
        ids = [f"{name}/{caller}/{number}/{i}" for i in range(3)]
        events = [NewEvent(Event(id, "sale", NOW), NOW + number, ((SOLD, round(NOW + number) * 1000, 1.0),)) for id in ids]
        answers = await journal.put_events("shop", events, (CheckName(f"{name}/{caller}"), number))
        say(" ".join(["event", *(f"{answer.seq}={id}" for answer, id in zip(answers, ids))]))
        say(f"cursor {name}/{caller} {number}")


async def commit(journal, caller):
    for number in range(100_000):
        text = f"{name}/{caller}/{number}"
        say(f"record {await journal.commit([Audited(NOW, 'me', text, 'ok')])} {text}")


async def main():
    async with JournalDatabase(path) as journal, trio.open_nursery() as nursery:
        for caller in range(4):
            nursery.start_soon(put, journal, caller)
            nursery.start_soon(commit, journal, caller)


trio.run(main)
"""


async def test_nothing_acknowledged_is_lost_by_kill_nine(tmp_path):
    path = tmp_path / "journal.db"
    events: dict[int, str] = {}
    records: dict[int, str] = {}
    cursors: dict[str, int] = {}
    for round_number in range(ROUNDS):
        said = run_and_kill(path, f"round{round_number}", lines=60 + 37 * round_number)
        assert said
        for kind, *facts in said:
            if kind == "event":
                events.update((int(seq), event_id) for seq, _, event_id in (fact.partition("=") for fact in facts))
            elif kind == "record":
                records[int(facts[0])] = facts[1]
            else:
                cursors[facts[0]] = int(facts[1])
        async with JournalDatabase(path) as journal:
            assert await journal.verify() == []
            stored = {event.seq: event.event.id for event in await journal.events(limit=1_000_000)}
            assert events.items() <= stored.items()
            kept = {entry.seq: entry.record.command for entry in await journal.records(limit=1_000_000)}
            assert records.items() <= kept.items()
            for check, number in cursors.items():
                assert await journal.cursor(check) >= number
            assert journal.step_series()[0][1] == len(stored)


def run_and_kill(path, name, lines):
    """Run the writer, kill it after some lines, and return all whole lines that it had said, in words."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE) as process:
        try:
            heard = [process.stdout.readline() for _ in range(lines)]
            assert all(heard), "the writer ended by itself"
        finally:
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
    everything = b"".join(heard) + rest
    return [line.decode().split() for line in everything[: everything.rfind(b"\n") + 1].splitlines()]


FULL_DISK = """
import resource
import signal
import sys
from pathlib import Path

import trio

from sixfbd.journal.database import JournalDatabase, JournalError, NewEvent
from sixfbd.model import Event

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write over the limit fails with EFBIG, as one to a full disk with ENOSPC


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def main():
    async with JournalDatabase(Path(sys.argv[1])) as journal:
        put = 0
        limit(600_000)
        refused = None
        while refused is None and put < 1000:
            try:
                await journal.put_events("shop", [NewEvent(Event(f"e{put}", "sale", 1.0, {"x": "y" * 3000}), 1.0)])
                put += 1
            except JournalError as error:
                refused = error
        print("refused", type(refused).__name__, refused)
        limit(0)  # or room is made by copying the WAL into the file
        for _ in range(3):
            try:
                await journal.put_events("shop", [NewEvent(Event("never", "sale", 1.0, {"x": "y" * 9000}), 1.0)])
                print("taken")
            except JournalError as error:
                print("still", type(error).__name__)
        print("status", (await journal.status()).failures)
        print("readable", len(await journal.events(limit=10_000)) == put)
        limit(resource.RLIM_INFINITY)
        for number in range(50):
            [answer] = await journal.put_events("shop", [NewEvent(Event(f"after{number}", "sale", 2.0), 2.0)])
            assert answer.seq == put + 1 + number
        print("works", put, await journal.verify())


trio.run(main)
"""


async def test_a_full_disk_refuses_what_it_cannot_keep_and_works_again_after(tmp_path):
    path = tmp_path / "journal.db"
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if "journal.verified" not in line]
    assert len(lines) < len(ran.stdout.splitlines()), "after an I/O error the journal is verified first"
    assert re.match(rf"refused Journal(Full|Broken) {re.escape(str(path))}: ", lines[0])
    assert [line.rpartition("Journal")[0] for line in lines[1:4]] == ["still "] * 3
    assert lines[4:6] == ["status 4", "readable True"]
    put = int(re.fullmatch(r"works (\d+) \[\]", lines[6])[1])
    assert put > 10
    assert verify_file(path) == []


def test_after_kill_nine_the_next_start_needs_no_repair(tmp_path):
    path = tmp_path / "journal.db"
    assert run_and_kill(path, "first", lines=50)
    assert verify_file(path) == []  # before anybody opened it for writing
    assert run_and_kill(path, "second", lines=50)  # the lock went with its holder


async def test_a_write_that_does_not_fit_leaves_those_beside_it_alone(tmp_path):
    outcomes = {}

    async def commit(journal, text):
        try:
            outcomes[text[:5]] = await journal.commit([Audited(1.0, "me", text, "ok")])
        except JournalFull as error:
            outcomes[text[:5]] = str(error)

    async with JournalDatabase(tmp_path / "journal.db") as journal:
        await journal.commit([Audited(1.0, "me", "before", "ok")])
        pages = journal._writer._connection.execute("PRAGMA page_count").fetchone()[0]
        journal._writer._connection.execute(f"PRAGMA max_page_count={pages + 20}")
        async with trio.open_nursery() as nursery:
            for text in ("one", "large" * 100_000, "two", "three"):
                nursery.start_soon(commit, journal, text)
        assert outcomes.pop("large").startswith(f"{tmp_path}/journal.db: no space left to write; free some")
        assert sorted(outcomes.values()) == [2, 3, 4]
        assert await journal.verify() == []


# ---- a file that another program holds ---------------------------------------------------------------------------------


async def test_a_journal_that_cannot_write_is_left_within_its_time_and_says_so_to_those_who_wait(tmp_path):
    path = tmp_path / "journal.db"
    answers = []

    async def commit(journal):
        with pytest.raises(JournalBroken) as caught:
            await journal.commit([Audited(1.0, "me", "waiting", "ok")])
        answers.append(str(caught.value))

    with closing(sqlite3.connect(path, isolation_level=None)) as outside:
        async with trio.open_nursery() as nursery:
            async with JournalDatabase(path) as journal:
                outside.execute("BEGIN IMMEDIATE")
                for _ in range(3):
                    nursery.start_soon(commit, journal)
                while (await journal.status()).waiting < 3:
                    await trio.lowlevel.checkpoint()
                assert (await journal.status()).oldest_waiting_s > 0
                leaving_at = trio.current_time()
            assert trio.current_time() - leaving_at < CLOSE_TIMEOUT_S + 1
        outside.execute("ROLLBACK")
    assert answers == [f"{path}: the journal ended without an answer; nobody can tell whether this was written"] * 3


async def test_a_file_that_another_program_holds_is_named_and_written_again_when_it_is_free(tmp_path):
    path = tmp_path / "journal.db"
    async with JournalDatabase(path) as journal:
        with closing(sqlite3.connect(path, isolation_level=None)) as outside:
            outside.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalBroken, match="another process holds it; close the tool"):
                await journal.commit([Audited(1.0, "me", "refused", "ok")])
            assert (await journal.status()).last_error.startswith(f"{path}: database is locked (SQLITE_BUSY)")
            outside.execute("ROLLBACK")
        assert await journal.commit([Audited(1.0, "me", "taken", "ok")]) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is what this test provokes
async def test_when_the_writer_is_no_more_everybody_hears_so_at_once(tmp_path):
    def die(connection, numbers):
        raise SystemExit

    async with JournalDatabase(tmp_path / "journal.db") as journal:
        with trio.fail_after(10):
            with pytest.raises(JournalBroken, match="ended without an answer; nobody can tell"):
                await journal._write(die)
            with pytest.raises(JournalBroken, match="the journal is closed"):
                await journal.commit([Audited(1.0, "me", "late", "ok")])
    for thread in threading.enumerate():
        if thread.name == "journal-writer":  # its last words belong to this test, not to the next one
            thread.join(10)
    assert verify_file(tmp_path / "journal.db") == []
