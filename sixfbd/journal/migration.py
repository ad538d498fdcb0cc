"""What makes an SQLite file one of ours: its application id and its version; brings an older one up. Knows no table.

Before it is brought up a copy is kept beside it, with which the older sixfbd can be put back; nobody removes that.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import structlog
from msgspec import Struct

from sixfbd.journal.errors import JournalBroken, JournalError, mapped_errors
from sixfbd.journal.files import sync_directory, sync_file

log = structlog.get_logger(__name__)


class FileForm(Struct, frozen=True):
    """The form of a file. `what` it is in words; `migrations` are the statements of each version; `or_else`: a further mend
    for a file that is newer than we are."""

    what: str
    application_id: int
    migrations: tuple[tuple[str, ...], ...]
    or_else: str = ""

    @property
    def version(self) -> int:
        return len(self.migrations)

    def check_identity(self, connection: sqlite3.Connection, path: Path) -> int:
        """Return the version of the file (0: empty). Raises JournalBroken if it is not ours or newer than we are."""
        [version] = connection.execute("PRAGMA user_version").fetchone()
        [application] = connection.execute("PRAGMA application_id").fetchone()
        [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application != self.application_id and (tables or application or version):
            raise JournalBroken(f"{path}: an SQLite database, but not {self.what} of sixfbd; move it away")
        if version > self.version:
            raise JournalBroken(
                f"{path}: {path.name} is of version {version}, this sixfbd knows up to {self.version}; "
                f"install a newer sixfbd{self.or_else}"
            )
        return int(version)

    def migrate(self, connection: sqlite3.Connection, path: Path) -> None:
        """Bring the file up to this version in one transaction. Raises JournalError if no copy of it can be kept."""
        version = self.check_identity(connection, path)
        if version == self.version:
            return  # nothing is written: on a full disk it could not be
        if version:
            _keep_copy(connection, path, version)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statements in self.migrations[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id={self.application_id}")
            connection.execute(f"PRAGMA user_version={self.version}")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _keep_copy(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Copy the file as it is, over a copy of an upgrade that did not come to its end, or was undone."""
    kept = path.with_name(f"{path.name}.v{version}")
    partial = path.with_name(f"{kept.name}.partial")
    try:
        partial.unlink(missing_ok=True)  # of a start that ended while it was copied
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with mapped_errors(kept), closing(sqlite3.connect(partial)) as copy:
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode=delete").fetchone()
        partial.chmod(path.stat().st_mode & 0o777)
        sync_file(partial)
        partial.rename(kept)
        sync_directory(path.parent)
    except (JournalError, OSError) as error:
        raise JournalBroken(
            f"{path}: is of an older sixfbd, and before it is changed no copy can be kept: {error}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    log.info("journal.migrating", file=str(path), version=version, kept=str(kept))
