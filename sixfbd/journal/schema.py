"""The form of journal.db: tables, migrations by `user_version`, pragmas; opens connections, reads and writes no rows.

Numbers are given by AUTOINCREMENT so that they go on after retention has emptied a table. A key of random text is kept
out of unique indexes: `events_known` starts with the day, so that its inserts stay on few pages.
"""

import errno
import os
import sqlite3
from pathlib import Path
from typing import Final

import structlog

from sixfbd.journal.errors import JournalBroken, directory_error, mapped_errors
from sixfbd.journal.files import sync_directory
from sixfbd.journal.migration import FileForm
from sixfbd.journal.space import RESUME_BYTES, free_bytes

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID",
        """CREATE TABLE records (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            body TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX records_kind ON records (kind)",
        """CREATE TABLE record_subjects (
            subject TEXT NOT NULL,
            seq INTEGER NOT NULL REFERENCES records (seq) ON DELETE CASCADE,
            PRIMARY KEY (subject, seq)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX record_subjects_seq ON record_subjects (seq)",
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            type TEXT NOT NULL,
            at REAL NOT NULL,
            received_at REAL NOT NULL,
            day INTEGER NOT NULL,
            hash INTEGER NOT NULL,
            data TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX events_known ON events (day, hash)",
        "CREATE INDEX events_type ON events (type)",
        "CREATE INDEX events_type_at ON events (type, at)",
        "CREATE INDEX events_at ON events (at)",
        """CREATE TABLE step_series (
            id INTEGER PRIMARY KEY,
            metric TEXT NOT NULL,
            labels TEXT NOT NULL,
            kind TEXT NOT NULL,
            UNIQUE (metric, labels, kind)
        ) STRICT""",
        """CREATE TABLE step_hours (
            series INTEGER NOT NULL REFERENCES step_series (id),
            hour_ms INTEGER NOT NULL,
            before REAL NOT NULL,
            total REAL NOT NULL,
            PRIMARY KEY (series, hour_ms)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE step_parts (
            id INTEGER PRIMARY KEY,
            series INTEGER NOT NULL,
            start_ms INTEGER NOT NULL,
            hour_ms INTEGER NOT NULL,
            total REAL NOT NULL,
            data BLOB NOT NULL,
            UNIQUE (series, start_ms),
            FOREIGN KEY (series, hour_ms) REFERENCES step_hours (series, hour_ms)
        ) STRICT""",
        "CREATE TABLE cursors (source TEXT PRIMARY KEY, cursor TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
)
FORM: Final = FileForm("a journal", 0x36464244, MIGRATIONS)  # "6FBD"
EVENTS_LOST: Final = "events_lost"  # in `meta`: spans of event numbers that a damaged file did not give back, as JSON

BUSY_TIMEOUT_MS: Final = 5000  # only an outside tool that writes to our file can make us wait
CACHE_KIB: Final = 8000
WAL_KEEP_BYTES: Final = 8 * 1024**2  # a WAL begins at this size and shrinks to it: writing over is cheaper than growing
WAL_INLINE_PAGES: Final = 32_768  # 128 MiB: the writer itself checkpoints only if the checkpointer cannot keep up

log = structlog.get_logger(__name__)


def connect(path: Path) -> sqlite3.Connection:
    """Open for reading; usable from one thread at a time. The file is left as it is. Raises JournalError."""
    with mapped_errors(path):
        connection = _open(path)
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "query_only=on", f"cache_size=-{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")
    return connection


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open for writing, made or migrated if need be. Raises JournalError, also for a file that is newer than we are."""
    _create(path)
    with mapped_errors(path):
        connection = _open(path)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def lay_out_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Bring a WAL that is smaller to WAL_KEEP_BYTES: a commit that makes it grow takes half as long again on the disk.

    What is added are zeros, which are no frames (https://www.sqlite.org/walformat.html). Where room is scarce, or another
    process writes, the WAL is left as it is: a start does without. Blocks on the disk; raises sqlite3.Error.
    """
    wal = path.with_name(f"{path.name}-wal")
    try:
        connection.execute("BEGIN IMMEDIATE")  # nobody writes meanwhile
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        log.warning("journal.wal_not_laid_out", file=str(wal), error=str(error))
        return
    try:
        free = free_bytes(path.parent)
        if free is not None and free >= RESUME_BYTES + WAL_KEEP_BYTES:
            _fill(wal, WAL_KEEP_BYTES)
    except OSError as error:
        log.warning("journal.wal_not_laid_out", file=str(wal), error=str(error))
    finally:
        connection.execute("ROLLBACK")


def _fill(path: Path, size: int) -> None:
    """Bring a file to a size, or leave it as it is and raise OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        there = os.fstat(descriptor).st_size
        if there >= size:
            return
        try:
            if os.write(descriptor, bytes(size - there)) < size - there:  # a quota, which free_bytes does not know
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, there)
            raise
    finally:
        os.close(descriptor)


def _open(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=rw"  # never made by SQLite: see _create
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def _create(path: Path) -> None:
    """Make the file ourselves: SQLite would give it the umask's mode, and its directory entry would not be durable."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640))
        sync_directory(path.parent)
    except FileExistsError:
        return
    except OSError as error:
        raise directory_error(error, path.parent) from error


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    if not FORM.check_identity(connection, path):
        # Of a new file only: it is written at once, also where it is set already.
        connection.execute("PRAGMA auto_vacuum=incremental")
    [mode] = connection.execute("PRAGMA journal_mode=wal").fetchone()
    if mode != "wal":
        raise JournalBroken(f"{path}: its file system cannot share memory (a network's?); use a local one")
    for pragma in (
        "synchronous=full",
        "secure_delete=on",  # what is deleted or erased leaves no byte behind
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=on",
        "temp_store=memory",
        f"cache_size=-{CACHE_KIB}",
        f"wal_autocheckpoint={WAL_INLINE_PAGES}",
        f"journal_size_limit={WAL_KEEP_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    FORM.migrate(connection, path)


def read_meta(connection: sqlite3.Connection, key: str) -> float | int | None:
    """Return one number of `meta`, or None."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    value: float | int | None = None if row is None else row[0]
    return value


def write_meta(connection: sqlite3.Connection, key: str, value: float) -> None:
    """Set one number of `meta`, in the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))
