"""Damaged files of the state directory: found at the start, set aside under another name, read as far as they can be.

A file that is intact but not ours, or newer than we are, is not damaged: it is left to those who open it to refuse it.
Blocks on the disk. Never writes to a damaged file.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from sixfbd.journal.errors import DAMAGE, directory_error, no_space
from sixfbd.journal.files import sync_directory

CHECK_BYTES: Final = 32 * 1024**2  # checked whole at a start, in tenths of a second; of a larger file what is read then
GAPS: Final = 2000  # damaged places in one table before the rest of it is given up
PROBES: Final = 2000  # reads that may fail in one of them before the rest of it is given up
LAST_ROW: Final = 2**40
MARK: Final = ".corrupt-"
HEADER_BYTES: Final = 100  # https://www.sqlite.org/fileformat.html


class Damage(Struct, frozen=True, kw_only=True):
    """A file that was found damaged: why, where it is now ("": nowhere), and what of it was kept and lost, in words."""

    file: str
    why: str
    aside: str = ""
    outcome: str = ""

    def __str__(self) -> str:
        what = f"was damaged and set aside as {self.aside}" if self.aside else "is not what it was"
        return f"{self.file} {what} ({self.why}): {self.outcome}"


def damage_of(path: Path) -> str | None:
    """Return what is damaged in an SQLite file of at most CHECK_BYTES, None if nothing was found."""
    if not path.exists() or not 0 < path.stat().st_size <= CHECK_BYTES:
        return None
    try:
        with closing(read_only(path)) as connection:
            [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # it is said when it is opened
        return None
    except sqlite3.DatabaseError as error:
        return str(error) if error.sqlite_errorcode & 0xFF in DAMAGE else None
    return None if said == "ok" else " ".join(said.split())


def read_only(path: Path) -> sqlite3.Connection:
    """Open a file that may be damaged, with its WAL; leaves it as it is."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def set_aside(path: Path) -> Path:
    """Rename a file, and its WAL with it; return the new name. Raises JournalError."""
    aside = path.with_name(f"{path.name}{MARK}{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    number = 0
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.partition('+')[0]}+{number}")
    try:
        wal = path.with_name(f"{path.name}-wal")
        if wal.exists():
            wal.rename(aside.with_name(f"{aside.name}-wal"))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        path.rename(aside)
        sync_directory(path.parent)
    except OSError as error:
        raise directory_error(error, path.parent) from error
    return aside


def names_set_aside(directory: Path) -> tuple[str, ...]:
    """Return the names of the files that lie aside, without their WALs."""
    names = (entry.name for entry in os.scandir(directory))
    return tuple(sorted(name for name in names if MARK in name and not name.endswith(("-wal", "-shm"))))


def readable(connection: sqlite3.Connection, table: str, columns: str, key: str = "rowid") -> Iterator[tuple[Any, ...]]:
    """Yield the rows (key, *columns) of a table that can be read, by the integer `key`; what is damaged is passed over."""
    at, gaps = 0, 0
    while at < LAST_ROW and gaps < GAPS:
        try:
            for row in _span(connection, table, columns, key, at, LAST_ROW):
                yield row
                at = row[0] + 1
            return
        except sqlite3.Error:
            end = _behind(connection, table, key, at)
            yield from _islands(connection, table, columns, key, at, end)
            at, gaps = end, gaps + 1


def _span(
    connection: sqlite3.Connection, table: str, columns: str, key: str, lo: int, hi: int
) -> Iterator[tuple[Any, ...]]:
    sql = f"SELECT {key}, {columns} FROM {table} WHERE {key} >= ? AND {key} < ? ORDER BY {key}"
    for row in connection.execute(sql, (lo, hi)):
        if row[0] < lo:
            raise sqlite3.DatabaseError("the keys do not increase")
        lo = row[0] + 1
        yield row


def _behind(connection: sqlite3.Connection, table: str, key: str, at: int) -> int:
    """Return a key behind the damage that begins at `at`, found in growing steps; LAST_ROW if nothing can be read there."""
    step = 1
    while at + step < LAST_ROW:
        try:
            connection.execute(
                f"SELECT {key} FROM {table} WHERE {key} >= ? ORDER BY {key} LIMIT 1", (at + step,)
            ).fetchone()
            return at + step
        except sqlite3.Error:
            step *= 2
    return LAST_ROW


def _islands(
    connection: sqlite3.Connection, table: str, columns: str, key: str, lo: int, hi: int
) -> Iterator[tuple[Any, ...]]:
    """Yield what can be read between two keys by halving what cannot, as long as there is hope."""
    spans, failed = [(lo, hi)], 0
    while spans and failed < PROBES:
        lo, hi = spans.pop()
        try:
            for row in _span(connection, table, columns, key, lo, hi):
                yield row
                lo = row[0] + 1
        except sqlite3.Error:
            failed += 1
            if hi - lo > 1:
                middle = (lo + hi) // 2
                spans += [(middle, hi), (lo, middle)]


def with_header(path: Path, copy: Path, template: Path) -> None:
    """Copy a file whose first bytes are damaged, and give it the header of one of ours. Raises JournalError."""
    try:
        size = path.stat().st_size
        space = os.statvfs(path.parent)
        if space.f_bavail * space.f_frsize < 2 * size:
            raise no_space(path)
        header = bytearray(template.read_bytes()[:HEADER_BYTES])
        page = int.from_bytes(header[16:18], "big")
        header[28:32] = (size // page).to_bytes(4, "big")
        header[32:40] = bytes(8)  # no free pages: nobody writes to it
        with path.open("rb") as source, copy.open("wb") as target:
            source.seek(HEADER_BYTES)
            target.write(header)
            while piece := source.read(1024**2):
                target.write(piece)
    except OSError as error:
        raise directory_error(error, path.parent) from error
