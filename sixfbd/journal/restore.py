"""A backup put in the journal's place while no daemon runs. What was there is kept under another name, never deleted."""

import os
import shutil
import time
from pathlib import Path
from typing import Final

from sixfbd.journal.errors import JournalBroken, directory_error
from sixfbd.journal.files import sync_directory
from sixfbd.journal.lock import LOCK_NAME, lock_state_directory
from sixfbd.journal.verify import verify_file

REPLACED: Final = ".replaced-"
SHOWN: Final = 5  # of what is wrong with a backup


def restore(backup: Path, directory: Path, *, dry_run: bool = False) -> Path | None:
    """Make a backup the journal of a state directory; return where the journal is that was there, None if there was none.

    With `dry_run` everything is checked and nothing is done. Raises StateLockedError while a daemon runs, JournalError if the
    backup is none, contradicts itself or cannot be written there.
    """
    journal = directory / "journal.db"
    with lock_state_directory(directory):
        if backup.resolve() == journal.resolve():
            raise JournalBroken(f"{backup}: is the journal itself; name a backup of it")
        if wrong := verify_file(backup):
            raise JournalBroken(f"{backup}: is damaged, nothing was done: {'; '.join(wrong[:SHOWN])}")
        aside = _free_name(journal) if journal.exists() else None
        if not dry_run:
            try:
                _replace(backup, journal, aside)
            except OSError as error:
                raise directory_error(error, directory) from error
        return aside


def _replace(backup: Path, journal: Path, aside: Path | None) -> None:
    """The copy is whole and on the disk before anything is renamed."""
    partial = journal.with_name(f"{journal.name}.partial-{os.getpid()}")
    try:
        with backup.open("rb") as source, os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        if aside is not None:
            wal = journal.with_name(f"{journal.name}-wal")
            if wal.exists():
                wal.rename(aside.with_name(f"{aside.name}-wal"))
            journal.with_name(f"{journal.name}-shm").unlink(missing_ok=True)
            journal.rename(aside)
        if os.geteuid() == 0:  # the daemon is no root, and has to open them
            owner = journal.parent.stat()
            for path in (partial, journal.with_name(LOCK_NAME)):
                os.chown(path, owner.st_uid, owner.st_gid)
        partial.rename(journal)
        sync_directory(journal.parent)
    finally:
        partial.unlink(missing_ok=True)


def _free_name(journal: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    aside, number = journal.with_name(f"{journal.name}{REPLACED}{stamp}"), 0
    while aside.exists():
        number += 1
        aside = journal.with_name(f"{journal.name}{REPLACED}{stamp}+{number}")
    return aside
