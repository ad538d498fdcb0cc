"""Copies of a journal while it is being written. Owns the copy until it is whole; never overwrites a file."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from sixfbd.journal.errors import JournalBroken, directory_error, mapped_errors
from sixfbd.journal.files import sync_directory, sync_file
from sixfbd.journal.readers import Readers

PAGES_AT_ONCE: Final = 512


def write_backup(readers: Readers, path: Path, check: Callable[[], object]) -> None:
    """Copy the journal as it is now to `path`, durable on return: one file, to be read by this user only.

    The copy is made beside it under another name and renamed when it is whole. `check` is called between slices; what
    it raises ends the backup. Raises JournalError if `path` exists or cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    if path.exists():
        raise JournalBroken(f"{path}: exists already; give the backup another name, or move that file away")
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise JournalBroken(f"{path}: the backup cannot be written there: {error.strerror}") from error
    try:
        _copy(readers, partial, check)
        sync_file(partial)
        partial.rename(path)
        sync_directory(path.parent)
    except OSError as error:
        raise directory_error(error, path.parent) from error
    finally:
        partial.unlink(missing_ok=True)


def _copy(readers: Readers, target: Path, check: Callable[[], object]) -> None:
    with readers.borrow() as source, mapped_errors(target), closing(sqlite3.connect(target)) as copy:
        # A read begins the snapshot; without one, every commit meanwhile would start the copy anew.
        source.execute("SELECT count(*) FROM meta").fetchone()
        source.backup(copy, pages=PAGES_AT_ONCE, progress=lambda _status, _left, _all: check(), sleep=0)
        copy.execute("PRAGMA journal_mode=delete").fetchone()  # or opening it to read would leave files beside it
