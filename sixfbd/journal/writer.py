"""The one writer of journal.db: a thread that commits in groups, and one that checkpoints beside it.

Requests that wait are written in one transaction, each in a savepoint: one that fails fails alone, one fsync serves all.
After an I/O error nothing is taken for durable that was not written and synchronised anew (`_renew`): of a failed fsync
the kernel tells once, and forgets what it did not write. Owns the writing connection. Knows nothing of trio: `answered`
is called in the writer's thread.
"""

import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from sixfbd.journal.errors import JournalBroken, JournalError, JournalFull, journal_error
from sixfbd.journal.schema import WAL_KEEP_BYTES, connect, connect_writer
from sixfbd.journal.space import Reserve

GROUP_SIZE: Final = 500
CHECKPOINT_BYTES: Final = WAL_KEEP_BYTES + 1024**2  # a WAL that has grown to this size is copied into the file
CHECKPOINT_EVERY_S: Final = 1.0
CHECKPOINT_PASSES: Final = 5  # what is written during a pass is copied in the next, which is shorter
LATENCIES: Final = 1000

log = structlog.get_logger(__name__)


class Numbers:
    """The last numbers given, as of one commit; within a transaction as of the rows written so far."""

    __slots__ = ("event", "record")

    def __init__(self, record: int, event: int) -> None:
        self.record = record
        self.event = event

    def copy(self) -> "Numbers":
        return Numbers(self.record, self.event)


Work = Callable[[sqlite3.Connection, Numbers], Any]
"""Writes rows in the caller's transaction, and counts on the numbers for those that it gives."""


class Request:
    """One unit of writing: all of it or nothing. `lazy`: need not survive power loss (meta that is written often)."""

    __slots__ = ("error", "lazy", "queued_at", "result", "work")

    def __init__(self, work: Work, lazy: bool) -> None:
        self.work = work
        self.lazy = lazy
        self.queued_at = time.perf_counter()
        self.result: Any = None
        self.error: Exception | None = None


def last_numbers(connection: sqlite3.Connection) -> Numbers:
    """Read the last numbers given, of rows that retention has deleted since as well."""
    given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return Numbers(given.get("records", 0), given.get("events", 0))


class Writer:
    """Starts its threads when made; `stop` ends them after what was put before it. Daemon threads: a disk that hangs
    cannot hold the process."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        numbers: Numbers,
        answered: Callable[[list[Request], Numbers], None],
        stopped: Callable[[], None],
        reserve: Reserve,
    ) -> None:
        self.latencies: deque[float] = deque(maxlen=LATENCIES)  # seconds a commit took, latest last
        self.failures = 0
        self.last_error = ""
        self.last_commit: float | None = None  # time.perf_counter()
        self._began: float | None = None  # the same, of the group that is being written
        self._longest_s = 0.0
        self._connection = connection
        self._path = path
        self._answered = answered
        self._stopped = stopped
        self._reserve = reserve
        self._numbers = numbers
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._stopping = False
        self._committed = threading.Event()
        self._suspect = False  # an I/O error happened: what the disk holds is not known
        self._full = False  # a checkpoint is due whatever the size: it lets the WAL's space be used again
        self._checkpointer_stop = threading.Event()
        self._checkpointer = threading.Thread(target=self._checkpoint_on, name="journal-checkpoint", daemon=True)
        self._checkpointer.start()
        threading.Thread(target=self._run, name="journal-writer", daemon=True).start()

    def put(self, request: Request) -> None:
        """Have a request written; `answered` gets it back with its result or its error. Never blocks."""
        self._requests.put(request)

    def longest_commit_s(self) -> float:
        """Return how long the longest group took that was written since the last call, or takes by now; in seconds."""
        longest_s, self._longest_s = self._longest_s, 0.0
        began = self._began
        return longest_s if began is None else max(longest_s, time.perf_counter() - began)

    def stop(self) -> None:
        """End after what was put before; `stopped` is called when the connection is closed."""
        self._requests.put(None)

    def _run(self) -> None:
        try:
            while not self._stopping:
                group = self._next_group()
                if group:
                    self._began = time.perf_counter()
                    self._write(group)
                    self._write_again(group)
                    self._longest_s = max(self._longest_s, time.perf_counter() - self._began)
                    self._began = None
                    self._answered(group, self._numbers)
        finally:
            self._close()

    def _next_group(self) -> list[Request]:
        """Wait for a request and take all that are waiting then."""
        group: list[Request] = []
        request = self._requests.get()
        while request is not None:
            group.append(request)
            if len(group) == GROUP_SIZE:
                return group
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return group
        self._stopping = True
        return group

    def _write(self, group: list[Request]) -> None:
        """Write a group in one transaction. Afterwards each request has its result or its error."""
        began = time.perf_counter()
        lazy = all(request.lazy for request in group)
        try:
            if self._suspect:
                self._renew()
            if lazy:
                self._connection.execute("PRAGMA synchronous=normal")
            self._transact(group)
            if lazy:
                self._connection.execute("PRAGMA synchronous=full")
        except JournalError as error:
            self._fail(group, error, error)
        except sqlite3.Error as error:
            self._suspect = self._suspect or _is_io_error(error)
            failure = self._roll_back(journal_error(error, self._path))
            if isinstance(failure, JournalFull) and len(group) > 1:
                for request in group:  # one that is too large for the space left must not take the small ones with it
                    request.error = None
                    self._write([request])
            else:
                self._fail(group, failure, error)
        else:
            self._committed.set()
            self.last_commit = time.perf_counter()
            self.latencies.append(self.last_commit - began)

    def _write_again(self, group: list[Request]) -> None:
        """What found no room gets the reserve, once."""
        full = [request for request in group if isinstance(request.error, JournalFull)]
        if full and self._reserve.release():
            for request in full:
                request.error = None
            self._write(full)

    def _transact(self, group: list[Request]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        if len(group) == 1:
            self._transact_alone(group[0])
            return
        numbers = self._numbers
        for request in group:
            execute("SAVEPOINT request")
            counted = numbers.copy()
            try:
                request.result = request.work(self._connection, counted)
                numbers = counted
            except Exception as error:  # handed to its caller, who alone has to do with it
                if not self._connection.in_transaction:
                    raise  # SQLite gave up the whole transaction (disk full, I/O error): nobody's was written
                execute("ROLLBACK TO request")
                request.error = self._own(error)
            execute("RELEASE request")
        execute("COMMIT")
        self._numbers = numbers

    def _transact_alone(self, request: Request) -> None:
        """Write the one request of a transaction: what fails is rolled back whole, without a savepoint."""
        numbers = self._numbers.copy()
        try:
            request.result = request.work(self._connection, numbers)
        except Exception as error:  # handed to its caller, who alone has to do with it
            if not self._connection.in_transaction:
                raise
            self._connection.execute("ROLLBACK")
            request.error = self._own(error)
            return
        self._connection.execute("COMMIT")
        self._numbers = numbers

    def _own(self, error: Exception) -> Exception:
        return journal_error(error, self._path) if isinstance(error, sqlite3.Error) else error

    def _renew(self) -> None:
        """Go on with a new connection if all that was acknowledged can be read, and the disk takes all of it once more.

        The new connection is opened before the old one goes: opened alone it would take the frames of a commit that failed
        for written. Copying the whole WAL into the file and synchronising that leaves nothing to a WAL whose pages the
        kernel may have given up. Raises JournalError or sqlite3.Error.
        """
        fresh = connect_writer(self._path)
        self._suspect = False  # before it is looked at: a checkpoint that fails meanwhile says so again
        try:
            _drop_cached(self._wal())
            [said] = fresh.execute("PRAGMA quick_check(1)").fetchone()
            found = last_numbers(fresh)
            if said != "ok" or found.record < self._numbers.record or found.event < self._numbers.event:
                said = f"record {self._numbers.record} or event {self._numbers.event} is gone" if said == "ok" else said
                raise JournalBroken(
                    f"{self._path}: it is damaged after an I/O error ({said}); restart the daemon: it saves what can be read"
                )
            busy, _, _ = fresh.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise JournalBroken(f"{self._path}: it cannot be verified after an I/O error while it is being read")
        except BaseException:
            self._suspect = True
            fresh.close()
            raise
        self._connection.close()
        self._connection, self._numbers = fresh, found
        log.warning("journal.verified", file=str(self._path), last_record=found.record, last_event=found.event)

    def _wal(self) -> Path:
        return self._path.with_name(f"{self._path.name}-wal")

    def _fail(self, group: list[Request], failure: JournalError, cause: Exception) -> None:
        """Nothing of the group was written."""
        self.failures += 1
        self.last_error = str(failure)
        if isinstance(failure, JournalFull):
            self._full = True
            self._committed.set()
        for request in group:
            if request.error is None:  # each caller raises its own instance: a traceback belongs to one task
                request.error = type(failure)(str(failure))
                request.error.__cause__ = cause

    def _roll_back(self, failure: JournalError) -> JournalError:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("PRAGMA synchronous=full")
        except sqlite3.Error as error:
            return JournalBroken(f"{failure}; and it could not be rolled back: {error}")
        return failure

    def _close(self) -> None:
        """Closing the last connection copies the rest of the WAL into the file and removes it."""
        self._checkpointer_stop.set()
        self._committed.set()
        self._checkpointer.join()
        try:
            self._connection.close()
        except sqlite3.Error as error:
            log.warning("journal.close_failed", file=str(self._path), error=str(error))
        self._stopped()

    # ---- checkpoints --------------------------------------------------------------------------------------------------

    def _checkpoint_on(self) -> None:
        """Keep the WAL small beside the writer: a passive checkpoint neither waits for it nor makes it wait."""
        wal = self._wal()
        failed = False
        while True:
            self._committed.wait()
            if self._checkpointer_stop.wait(CHECKPOINT_EVERY_S):
                return
            self._committed.clear()
            try:
                if self._full or wal.stat().st_size >= CHECKPOINT_BYTES:
                    self._full = False
                    self._checkpoint()
                failed = False
            except (OSError, sqlite3.Error, JournalError) as error:
                self._suspect = self._suspect or _is_io_error(error)
                if not failed:
                    log.warning("journal.checkpoint_failed", file=str(self._path), error=str(error))
                failed = True

    def _checkpoint(self) -> None:
        connection = connect(self._path)
        try:
            connection.execute("PRAGMA query_only=off")
            for _ in range(CHECKPOINT_PASSES):
                _busy, in_wal, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if in_wal == copied or self._checkpointer_stop.is_set():
                    return
        finally:
            connection.close()


def _is_io_error(error: Exception) -> bool:
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT)


def _drop_cached(wal: Path) -> None:
    """Have a WAL read from the disk, not from the cache. Never the journal's own file: closing it would end SQLite's locks."""
    try:
        descriptor = os.open(wal, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
