"""What makes an SQLite file one of ours: its application id and its version; brings an older one up. Knows no table."""

import sqlite3
from pathlib import Path

from msgspec import Struct

from sixfbd.journal.errors import JournalBroken


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
        """Bring the file up to this version in one transaction."""
        if self.check_identity(connection, path) == self.version:
            return  # nothing is written: on a full disk it could not be
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statements in self.migrations[self.check_identity(connection, path) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id={self.application_id}")
            connection.execute(f"PRAGMA user_version={self.version}")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
