"""What the state directory and its files can do to us is said with the place and the mend, never in sqlite3's words alone."""

import errno
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from sixfbd.journal.errors import (
    JournalBroken,
    JournalError,
    JournalFull,
    StateLockedError,
    directory_error,
    mapped_errors,
)
from sixfbd.journal.lock import lock_state_directory
from sixfbd.journal.schema import connect

STATE = Path("/var/lib/sixfbd")


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOENT, JournalBroken, "does not exist; create it, or set [daemon] state_directory"),
        (errno.ENOTDIR, JournalBroken, "is not a directory; set [daemon] state_directory to one"),
        (errno.EROFS, JournalBroken, "is on a read-only file system; mount it writable"),
        (errno.EACCES, JournalBroken, "cannot be written (Permission denied); look at its owner and mode"),
        (errno.ENOSPC, JournalFull, "no space is left"),
        (errno.EDQUOT, JournalFull, "the quota of the state directory's file system is used up"),
    ],
)
def test_a_directory_that_cannot_be_used_says_how_to_mend_it(number, kind, said):
    error = directory_error(OSError(number, os.strerror(number)), STATE)
    assert type(error) is kind
    assert str(error).startswith(f"{STATE}: ")
    assert said in str(error)


def test_a_full_database_is_told_from_a_broken_one(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("PRAGMA max_page_count=3")
        with pytest.raises(JournalFull, match=r"x\.db: no space left to write"), mapped_errors(tmp_path / "x.db"):
            connection.execute("INSERT INTO t VALUES (zeroblob(100000))")
        with pytest.raises(JournalBroken, match=r"x\.db: no such table: missing"), mapped_errors(tmp_path / "x.db"):
            connection.execute("SELECT * FROM missing")


def test_a_reader_makes_no_file(tmp_path):
    with pytest.raises(JournalBroken, match=r"journal\.db: .*cannot be opened"):
        connect(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_reader_cannot_write(tmp_path):
    (tmp_path / "journal.db").touch()
    with closing(connect(tmp_path / "journal.db")) as connection:
        with pytest.raises(JournalBroken, match="may not be written"), mapped_errors(tmp_path / "journal.db"):
            connection.execute("CREATE TABLE t (x)")


def test_the_lock_names_its_holder_and_goes_with_it(tmp_path):
    with lock_state_directory(tmp_path):
        with pytest.raises(StateLockedError, match=rf"another sixfbd \(pid {os.getpid()}\) uses this state directory"):
            with lock_state_directory(tmp_path):
                pass
    with lock_state_directory(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_holds_between_processes(tmp_path):
    attempt = [
        sys.executable,
        "-c",
        "import sys; from pathlib import Path; from sixfbd.journal.lock import lock_state_directory\n"
        "with lock_state_directory(Path(sys.argv[1])): print('locked')",
        str(tmp_path),
    ]
    with lock_state_directory(tmp_path):
        refused = subprocess.run(attempt, capture_output=True, text=True, timeout=30, check=False)
    assert f"(pid {os.getpid()})" in refused.stderr
    assert subprocess.run(attempt, capture_output=True, text=True, timeout=30, check=True).stdout == "locked\n"


def test_a_lock_without_a_directory_names_it(tmp_path):
    with pytest.raises(JournalError, match=f"{tmp_path}/missing: the state directory does not exist"):
        with lock_state_directory(tmp_path / "missing"):
            pass
