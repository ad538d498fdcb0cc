"""What goes wrong with the files of the state directory, in one tree; the one place where sqlite3's errors are mapped.

    JournalError                 a file of the state directory cannot be used; the text names it and the mend
    ├── JournalFull              no space (or quota) left: nothing was written; later writes may succeed
    ├── JournalBroken            the disk, the file or SQLite failed: nothing was written, or nobody can tell
    │   └── JournalDamaged            what is in the file is not what was written
    └── StateLockedError              another instance holds the state directory

Never raises sqlite3's own errors to callers.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sixfbd.journal.space import free_bytes

NO_SPACE_BYTES: Final = 1024**2  # below this an I/O error of SQLite is taken for a full disk: it hides the errno
DAMAGE: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_MENDS: Final = {
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; move it away, or restore a backup in its place",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop the daemon, move it away, and restore a backup in its place",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the owner and the mode of the file and its directory",
    sqlite3.SQLITE_PERM: "it may not be opened; look at the owner and the mode of the file and its directory",
    sqlite3.SQLITE_READONLY: "it may not be written; look at the owner and the mode of the file and its directory",
    sqlite3.SQLITE_BUSY: "another process holds it; close the tool that has it open for writing",
}


class JournalError(Exception):
    """A file of the state directory cannot be used."""


class JournalFull(JournalError):  # noqa: N818 - the contract's name (DESIGN section 6)
    """No space is left: nothing was written. Later writes may succeed."""


class JournalBroken(JournalError):  # noqa: N818 - the contract's name (DESIGN section 6)
    """The disk, the file or SQLite failed. Nothing was written, unless the text says that nobody can tell."""


class JournalDamaged(JournalBroken):
    """What is in the file is not what was written."""


class StateLockedError(JournalError):
    """Another instance holds the state directory."""


def journal_error(error: sqlite3.Error, path: Path) -> JournalError:
    """Return ours for one of sqlite3's: JournalFull if space is missing, JournalBroken for all else."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    primary = 0 if code is None else code & 0xFF  # the low byte is the kind, the rest its variety
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _is_full(path)):
        return no_space(path)
    mend = _MENDS.get(primary, "see the kernel's log for the disk, and run `sixfbctl journal verify`")
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    kind = JournalDamaged if primary in DAMAGE else JournalBroken
    return kind(f"{path}: {error} ({name}): {mend}")


def no_space(path: Path) -> JournalFull:
    """Return the error that says so."""
    return JournalFull(f"{path}: no space left to write; free some on its file system, or raise the quota")


@contextmanager
def mapped_errors(path: Path) -> Iterator[None]:
    """Raise ours in place of sqlite3's."""
    try:
        yield
    except sqlite3.Error as error:
        raise journal_error(error, path) from error


def directory_error(error: OSError, directory: Path) -> JournalError:
    """Return the error that says what is wrong with the state directory itself."""
    mend = {
        errno.ENOENT: "the state directory does not exist; create it, or set [daemon] state_directory",
        errno.ENOTDIR: "the state directory is not a directory; set [daemon] state_directory to one",
        errno.EROFS: "the state directory is on a read-only file system; mount it writable",
        errno.ENOSPC: "no space is left on the state directory's file system; free some",
        errno.EDQUOT: "the quota of the state directory's file system is used up; raise it",
    }
    said = mend.get(
        error.errno or 0, f"the state directory cannot be written ({error.strerror}); look at its owner and mode"
    )
    kind = JournalFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else JournalBroken
    return kind(f"{directory}: {said}")


def _is_full(path: Path) -> bool:
    free = free_bytes(path.parent)
    return free is not None and free < NO_SPACE_BYTES
