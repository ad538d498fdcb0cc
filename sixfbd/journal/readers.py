"""Connections for reading, shared among threads. Owns them; never writes.

Each borrow is one snapshot: all statements in it see the journal as it was at the first of them.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sixfbd.journal.errors import JournalBroken, mapped_errors
from sixfbd.journal.schema import connect

KEPT: Final = 4


class Readers:
    """A pool that opens connections as they are needed and keeps KEPT of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to this thread, in a read transaction. Raises JournalError in place of sqlite3's errors."""
        with mapped_errors(self.path):
            connection = self._take()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()  # what state it is in, nobody knows
                raise
        self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise JournalBroken(f"{self.path}: the journal is closed")
            if self._idle:
                return self._idle.pop()
        return connect(self.path)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed and len(self._idle) < KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
