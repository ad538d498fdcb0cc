"""journal.db, as the rest of the daemon uses it: events, the judge's records, cursors, step series; durable on return.

Owns the file, its lock (`lock` beside it), one writer thread, the readers' connections. Never blocks the event loop and
never runs SQL on it. Decides nothing: the judge and intake do.
"""

import sqlite3
import statistics
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import msgspec
import structlog
import trio
from msgspec import Struct

from sixfbd.journal import backup, event_log, record_log, retention, step_log, verify
from sixfbd.journal.errors import (
    JournalBroken,
    JournalDamaged,
    JournalError,
    JournalFull,
    StateLockedError,
    mapped_errors,
    no_space,
)
from sixfbd.journal.event_log import Accepted, Duplicate, NewEvent
from sixfbd.journal.export import export_lines
from sixfbd.journal.journal_salvage import mend
from sixfbd.journal.lock import lock_state_directory
from sixfbd.journal.readers import Readers
from sixfbd.journal.record_log import AmbiguousIdError, StoredRecord
from sixfbd.journal.records import Base, Record
from sixfbd.journal.retention import Cut, Retained
from sixfbd.journal.salvage import Damage, names_set_aside
from sixfbd.journal.schema import connect, connect_writer, lay_out_wal, read_meta, write_meta
from sixfbd.journal.space import MIB, Reserve, free_bytes
from sixfbd.journal.writer import Numbers, Request, Writer, last_numbers
from sixfbd.model import Alert, CheckName, Json, Message, Series, StoredEvent
from sixfbd.quantities import DAY

__all__ = [
    "Accepted",
    "AmbiguousIdError",
    "Duplicate",
    "JournalBroken",
    "JournalDatabase",
    "JournalError",
    "JournalFull",
    "JournalStatus",
    "NewEvent",
    "Retained",
    "StateLockedError",
    "StoredRecord",
    "lock_state_directory",
]

T = TypeVar("T")

WAITING: Final = 2000  # requests at once; further callers wait their turn
EMPTY_PASSES: Final = 5  # to empty the WAL; each waits for readers as long as SQLite does
ANSWER_TIMEOUT_S: Final = 30.0
CLOSE_TIMEOUT_S: Final = 2.0
READERS: Final = 4
PAGE: Final = 1000
PROBE_BYTES: Final = 2 * MIB
LAST_ALIVE: Final = "last_alive_at"
LAST_ROWS: Final = 1000  # a commit's rows are not in the order of their times

log = structlog.get_logger(__name__)


class JournalStatus(Struct, frozen=True, kw_only=True):
    """How the journal is. Sizes in bytes, durations in seconds; commit times are of the last 1,000 groups."""

    path: str
    size_bytes: int
    wal_bytes: int
    records: int
    events: int
    step_series: int
    last_record_seq: int
    last_event_seq: int
    last_commit_age_s: float | None
    commit_p50_s: float | None
    commit_max_s: float | None
    waiting: int
    oldest_waiting_s: float
    failures: int
    last_error: str
    disk_free_bytes: int | None
    reserve_bytes: int


class Room(Struct, frozen=True, kw_only=True):
    """What is free on the file system of the state directory (None: nobody can tell), and what of it is kept back."""

    free_bytes: int | None = None
    reserve_bytes: int = 0
    set_aside: tuple[str, ...] = ()  # names of damaged files that lie in the state directory


class JournalDatabase:
    """An async context manager over the file at `path`, made if it does not exist; its directory must exist.

    Entering raises JournalError (a text that names the file and the mend), StateLockedError if another instance holds the
    directory. Leaving writes what waits, then closes, within 2 s; what waits longer gets JournalBroken. It holds on to
    its writer until it is left, whatever is cancelled around it: leave it after all that writes.
    """

    def __init__(
        self,
        path: Path,
        *,
        keep_events_s: float = 396 * DAY,
        keep_records_s: float = 730 * DAY,
        max_bytes: int = 4 * 1024**3,
    ) -> None:
        self.path = path
        self.last_alive_at: float | None = None
        """What the process before this one said last by `touch` (engine time); None in a new journal."""
        self.newest_at: float | None = None
        """The newest engine time that anything in the file carries when it is opened; None in a new journal."""
        self.keep(keep_events_s, keep_records_s, max_bytes)
        self._lock = ExitStack()
        self._readers = Readers(path)
        self._reserve = Reserve(path.parent)
        self.room = Room()
        """As `look_around` found it last."""
        self._numbers = Numbers(0, 0)
        self.opened_with = self._numbers
        """The last numbers that were in the file when it was opened."""
        self.damage: Damage | None = None
        """What was found damaged when it was opened; the file was set aside and saved as far as it can be read."""
        self._known: event_log.Known | None = None
        self._outstanding: deque[tuple[Request, trio.Event]] = deque()
        self._subscribers: list[trio.MemorySendChannel[int]] = []
        self._reading = trio.CapacityLimiter(READERS)
        self._room = trio.Semaphore(WAITING)
        self._stopped = trio.Event()
        self._writer: Writer | None = None

    def keep(self, events_s: float, records_s: float, max_bytes: int) -> None:
        """Keep events and records for so long, and so much of them, from the next `retain` on."""
        self._keep_events_s = max(events_s, event_log.KNOWN_FOR_S)  # duplicates have to be recognised for so long
        self._keep_records_s = records_s
        self._max_bytes = max_bytes

    async def __aenter__(self) -> "JournalDatabase":
        token = trio.lowlevel.current_trio_token()

        def answered(group: list[Request], numbers: Numbers) -> None:
            _tell(token, partial(self._answered, group, numbers))

        def stopped() -> None:
            _tell(token, self._ended)

        try:
            self._writer = await trio.to_thread.run_sync(self._open, answered, stopped)
        except JournalFull:
            if not await trio.to_thread.run_sync(self._reserve.release):
                raise
            self._writer = await trio.to_thread.run_sync(self._open, answered, stopped)
        return self

    def _open(self, answered: Callable[[list[Request], Numbers], None], stopped: Callable[[], None]) -> Writer:
        with ExitStack() as stack:
            stack.enter_context(lock_state_directory(self.path.parent))
            self.damage = mend(self.path) or self.damage
            try:
                connection = self._connected()
            except JournalDamaged as error:  # further in than the check at the start came
                self.damage = mend(self.path, str(error.__cause__))
                connection = self._connected()
            self._lock = stack.pop_all()
        return Writer(connection, self.path, self._numbers, answered, stopped, self._reserve)

    def _connected(self) -> sqlite3.Connection:
        """Open the file and read all that a start needs of it, so that what is damaged there shows now."""
        with mapped_errors(self.path), ExitStack() as failing:
            connection = connect_writer(self.path)
            failing.callback(connection.close)
            self.opened_with = self._numbers = last_numbers(connection)
            self._known = event_log.read_known(connection)
            self.last_alive_at = read_meta(connection, LAST_ALIVE)
            self.newest_at = _newest_at(connection, self.last_alive_at)
            record_log.pass_over_fold(connection)
            step_log.series_ends(connection)
            lay_out_wal(connection, self.path)
            failing.pop_all()
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        writer, self._writer = self._writer, None
        assert writer is not None
        self._readers.close()  # before the writer: the last one to close empties the WAL
        writer.stop()
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._stopped.wait()
        for subscriber in self._subscribers:
            subscriber.close()
        if self._stopped.is_set():
            self._lock.close()
            return
        if self._outstanding:
            log.error("journal.close_timed_out", file=str(self.path), waiting=len(self._outstanding))
        else:  # a slow disk: the next start copies the WAL into the file
            log.info("journal.left_open", file=str(self.path))
        self._abandon()  # but not the lock: the thread may yet write

    def _ended(self) -> None:
        self._stopped.set()
        self._abandon()  # nobody, unless the thread died

    def _abandon(self) -> None:
        """Let those go who still wait: the disk hangs, or the writer is no more."""
        while self._outstanding:
            request, done = self._outstanding.popleft()
            request.error = JournalBroken(
                f"{self.path}: the journal ended without an answer; nobody can tell whether this was written"
            )
            done.set()

    # ---- writing --------------------------------------------------------------------------------------------------------

    async def commit(self, records: Sequence[Record]) -> int:
        """Write records, all or none; durable on return. Returns the last one's number.

        Raises JournalFull: none was written; JournalBroken: nobody can tell, until a later write was answered. Once the
        write has begun a cancel waits for its end, so that a caller who is cancelled before returning has written
        nothing. A `Base` is written by `retain` only.
        """
        if any(isinstance(record, Base) for record in records):
            raise ValueError("a Base is written by retain(), with the cut that it stands for")
        if not records:
            return self.last_record_seq
        return await self._write(lambda connection, numbers: record_log.insert_records(connection, records, numbers))

    async def put_events(
        self, source: str, events: Sequence[NewEvent], cursor: tuple[CheckName, Json] | None = None
    ) -> list[Accepted | Duplicate]:
        """Write the events of one source that are not known, their increments and the cursor, all or none.

        The answer at index i is that of events[i]; durable on return. Events are known by (source, id) for 7 days after
        they were received, also within `events`. Raises ValueError if the cursor has more than 64 KiB or an increment
        is negative or not finite, TypeError if data is not JSON, JournalFull or JournalBroken: then nothing was written.
        """
        encoded = None if cursor is None else (cursor[0], event_log.encode_cursor(*cursor))

        def write(connection: sqlite3.Connection, numbers: Numbers) -> list[Accepted | Duplicate]:
            answers = event_log.insert_events(connection, source, events, numbers, self._known)
            if encoded is not None:
                event_log.write_cursor(connection, *encoded)
            return answers

        return await self._write(write)

    async def rebase(self, records: Sequence[Record], base: Base) -> int:
        """Write records and `base`, the state after them, all or none; the fold starts at it. Returns the base's number.

        For a writer whose records could not be written for a while. Durability and errors as in `commit`.
        """

        def write(connection: sqlite3.Connection, numbers: Numbers) -> int:
            record_log.insert_records(connection, records, numbers)
            return record_log.insert_base(connection, base, numbers.record, numbers)

        return await self._write(write)

    async def touch(self, at: float) -> None:
        """Note that the daemon lives at `at` (engine time). Survives a crash of the process, not always power loss."""
        await self._write(lambda connection, _: write_meta(connection, LAST_ALIVE, at), lazy=True)

    async def probe(self, at: float) -> None:
        """Find out whether the journal takes writes, by a durable sign of life; raises JournalError if it does not.

        A write that only fits because it replaces an older one shows nothing: JournalFull while less than PROBE_BYTES are
        free.
        """

        def write(connection: sqlite3.Connection, _: Numbers) -> None:
            free = free_bytes(self.path.parent)
            if free is not None and free < PROBE_BYTES:
                raise no_space(self.path)
            write_meta(connection, LAST_ALIVE, at)

        await self._write(write)

    async def retain(self, base: Base, upto: int) -> Retained:
        """Make `base`, the state after the record numbered `upto`, the start of the fold; delete what is too old.

        Records up to `upto` are deleted when they are `keep_records_s` older than `base.at`; events that have been
        judged, and hours of step series, when they are `keep_events_s` older. Of a file that uses more than `max_bytes`
        the oldest go earlier, but events not within the 7 days in which duplicates are recognised. In slices; a cancel
        leaves the rest for the next time.
        """
        if not 0 <= upto <= self.last_record_seq:
            raise ValueError(f"the cut {upto} is not among the records, the last is {self.last_record_seq}")
        await self._write(lambda connection, numbers: record_log.insert_base(connection, base, upto, numbers))
        cut = Cut(upto, base.at - self._keep_records_s, base.judged_event, base.at - self._keep_events_s)
        total = await self._delete(lambda connection: retention.delete_slice(connection, cut))
        widest = Cut(upto, base.at, base.judged_event, base.at - event_log.KNOWN_FOR_S)
        more = await self._delete(lambda connection: retention.shrink_slice(connection, widest, self._max_bytes))
        while await self._write(lambda connection, _: retention.give_back(connection)):
            pass
        return Retained(total.records + more.records, total.events + more.events, total.step_hours + more.step_hours)

    async def _delete(self, delete: Callable[[sqlite3.Connection], Retained]) -> Retained:
        """Delete a slice at a time until nothing is left to delete."""
        total = Retained()
        while (some := await self._write(lambda connection, _: delete(connection))) != Retained():
            total = Retained(
                total.records + some.records, total.events + some.events, total.step_hours + some.step_hours
            )
        return total

    async def _write(self, work: Callable[[sqlite3.Connection, Numbers], T], *, lazy: bool = False) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._room.acquire_nowait()
        except trio.WouldBlock:
            await self._room.acquire()
        try:
            if self._writer is None or self._stopped.is_set():
                raise JournalBroken(f"{self.path}: the journal is closed")
            request, done = Request(work, lazy), trio.Event()
            self._outstanding.append((request, done))
            self._writer.put(request)
            with trio.move_on_after(ANSWER_TIMEOUT_S, shield=True):
                await done.wait()
        finally:
            self._room.release()
        if not done.is_set():
            raise JournalBroken(
                f"{self.path}: no answer from the disk within {ANSWER_TIMEOUT_S:g} s; "
                "nobody can tell whether this was written"
            )
        if request.error is not None:
            raise request.error
        result: T = request.result
        return result

    def _answered(self, group: list[Request], numbers: Numbers) -> None:
        news = numbers.event > self._numbers.event
        self._numbers = numbers
        for _ in range(min(len(group), len(self._outstanding))):  # in the order in which they were put
            self._outstanding.popleft()[1].set()
        if news:
            for subscriber in self._subscribers:
                _wake(subscriber, numbers.event)

    # ---- reading --------------------------------------------------------------------------------------------------------

    @property
    def last_record_seq(self) -> int:
        """The number of the last record committed; 0 in a new journal."""
        return self._numbers.record

    @property
    def last_event_seq(self) -> int:
        """The number of the last event committed; 0 in a new journal."""
        return self._numbers.event

    def longest_commit_s(self) -> float:
        """Return the longest time that a commit took since the last call, in seconds; one that still goes on counts."""
        writer = self._writer
        return 0.0 if writer is None else writer.longest_commit_s()

    @property
    def oldest_waiting_s(self) -> float:
        """How long the oldest write has waited, in seconds; 0 if none waits."""
        return time.perf_counter() - self._outstanding[0][0].queued_at if self._outstanding else 0.0

    async def cursor(self, check: CheckName) -> Json | None:
        """Return the last committed cursor of a check, None if it has none."""
        return await self._read(lambda connection: event_log.read_cursor(connection, check))

    async def events(
        self,
        after_seq: int = 0,
        *,
        types: Collection[str] | None = None,
        start: float | None = None,
        end: float | None = None,
        limit: int = PAGE,
        newest_first: bool = False,
    ) -> list[StoredEvent]:
        """Return at most `limit` events numbered above `after_seq`, with `start <= timestamp < end`, in order of number."""
        return await self._read(
            lambda connection: event_log.read_events(connection, after_seq, types, start, end, limit, newest_first)
        )

    @contextmanager
    def subscribe(self) -> Iterator[trio.MemoryReceiveChannel[int]]:
        """Give a channel that yields an event number whenever events have been committed; it ends with the journal.

        It holds one number and drops further ones: read on with `events(after_seq=...)` until there are no more, then
        receive again. A slow subscriber misses nothing and holds nobody up.
        """
        send, receive = trio.open_memory_channel[int](1)
        self._subscribers.append(send)
        try:
            with send, receive:
                yield receive
        finally:
            self._subscribers.remove(send)

    async def records(
        self, after: int = 0, kinds: Collection[str] | None = None, limit: int = PAGE
    ) -> list[StoredRecord]:
        """Return at most `limit` records numbered above `after`, oldest first; `kinds` are the tags of records.py."""
        return await self._read(lambda connection: record_log.read_records(connection, after, kinds, limit))

    async def load_records(self, after: int | None = None) -> AsyncIterator[Record]:
        """Yield what the fold at start takes: the last base, if there is one, and the records that it does not hold; with
        `after` all records above that number, bases too.

        Raises JournalBroken if one of them is no record: what was decided is not known, and must not be made up.
        """
        base, begin = (None, after) if after is not None else await self._fold_read(record_log.fold_start)
        if base is not None:
            yield base.record
        while page := await self._fold_read(partial(record_log.read_records, after=begin, kinds=None, limit=PAGE)):
            for stored in page:
                if base is None or stored.seq != base.seq:
                    yield stored.record
            begin = page[-1].seq

    async def _fold_read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._read(read)
        except msgspec.DecodeError as error:  # ValidationError is one
            raise JournalBroken(
                f"{self.path}: a record cannot be read ({error}); was it written by a newer sixfbd? "
                "`sixfbctl journal verify` names it; restore a backup in its place"
            ) from error

    async def history(self, alert_id: str) -> list[Record]:
        """Return all that is recorded of one incident, oldest first: transitions, acknowledgements, what was owed, sent.

        Takes an incident's id or a beginning of it that is unique (else raises AmbiguousIdError, which names some), or the
        whole id of a notice (`source/id`), obligation or message. Returns [] for an unknown id.
        """
        return await self._read(lambda connection: record_log.read_history(connection, alert_id))

    async def recent_alerts(self, limit: int = 50) -> list[Alert]:
        """Return the last form of the incidents that changed last, latest first."""
        return await self._read(lambda connection: record_log.read_recent_alerts(connection, limit))

    async def messages(self, notifier: str, start: float, end: float, limit: int) -> list[Message]:
        """Return a notifier's messages that changed at `start <= at < end`, each as it was then last, oldest change first."""
        return await self._read(lambda connection: record_log.read_messages(connection, notifier, start, end, limit))

    async def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        def borrow() -> T:
            with self._readers.borrow() as connection:
                return read(connection)

        return await trio.to_thread.run_sync(borrow, abandon_on_cancel=True, limiter=self._reading)

    # ---- step series, from any thread but the event loop's ------------------------------------------------------------

    def step_series(self) -> list[tuple[Series, float, int]]:
        """Return every step series with its total and the time of its last increment in ms. Reads the disk: blocks."""
        with self._readers.borrow() as connection:
            return step_log.read_step_series(connection)

    def step_hours(self, series: Series, lo_ms: int, hi_ms: int) -> list[step_log.StepHour]:
        """Return (hour_start_ms, before, times in ms, increments) of the hours that start in `lo_ms`..`hi_ms`, and of the
        last one that starts at or before `lo_ms`, oldest first. Reads the disk: blocks.

        `before` is the total up to the hour's start; times are int64 and strictly increasing, increments float64.
        """
        with self._readers.borrow() as connection:
            return step_log.read_step_hours(connection, series, lo_ms, hi_ms)

    # ---- care -----------------------------------------------------------------------------------------------------------

    async def status(self) -> JournalStatus:
        """Return sizes, numbers and how commits went."""
        rows = await self._read(_count_rows)
        writer = self._writer
        if writer is None:
            raise JournalBroken(f"{self.path}: the journal is closed")
        latencies, now = list(writer.latencies), time.perf_counter()
        return JournalStatus(
            path=str(self.path),
            size_bytes=_size(self.path),
            wal_bytes=_size(self.path.with_name(f"{self.path.name}-wal")),
            records=rows[0],
            events=rows[1],
            step_series=rows[2],
            last_record_seq=self.last_record_seq,
            last_event_seq=self.last_event_seq,
            last_commit_age_s=None if writer.last_commit is None else now - writer.last_commit,
            commit_p50_s=statistics.median(latencies) if latencies else None,
            commit_max_s=max(latencies, default=None),
            waiting=len(self._outstanding),
            oldest_waiting_s=self.oldest_waiting_s,
            failures=writer.failures,
            last_error=writer.last_error,
            disk_free_bytes=self.room.free_bytes,
            reserve_bytes=self.room.reserve_bytes,
        )

    async def look_around(self) -> Room:
        """Look how much room there is, and keep the reserve if there is enough of it; `room` holds what was found."""
        self.room = await trio.to_thread.run_sync(self._look_around, abandon_on_cancel=True)
        return self.room

    def _look_around(self) -> Room:
        try:
            self._reserve.restore()
        except OSError as error:
            log.warning("journal.reserve_failed", file=str(self.path.parent), error=str(error))
        directory = self.path.parent
        return Room(
            free_bytes=free_bytes(directory),
            reserve_bytes=self._reserve.size_bytes(),
            set_aside=names_set_aside(directory),
        )

    def copies(self) -> list[str]:
        """Return the paths of files beside the journal that hold what was in it before: copies kept at an upgrade or a restore,
        and what was set aside as damaged. Blocks."""
        own = {self.path.name, *(f"{self.path.name}-{part}" for part in ("wal", "shm"))}
        beside = self.path.parent.glob(f"{self.path.stem}*")
        return sorted(str(file) for file in beside if file.is_file() and file.name not in own)

    async def forget(self, customers: Collection[str], *, dry_run: bool) -> int:
        """Write "erased" in place of customers in every event; return how many held one. Durable on return, and no byte of them
        is left in the journal's files: what is written over is zeroed, and the WAL is emptied. In slices; a cancel leaves the
        rest. Raises JournalError."""
        after: int | None = 0
        total = 0
        while after is not None:
            after, held = await self._write(partial(self._forget_slice, customers, after, dry_run))
            total += held
        if not dry_run:
            await trio.to_thread.run_sync(self._empty_wal)
        return total

    def _forget_slice(
        self, customers: Collection[str], after: int, dry_run: bool, connection: sqlite3.Connection, _: Numbers
    ) -> tuple[int | None, int]:
        end = time.perf_counter() + retention.SLICE_S
        return event_log.forget_slice(connection, customers, after, end, dry_run=dry_run)

    def _empty_wal(self) -> None:
        """Write what is in the WAL into the file, and nothing is left in it. Waits for whoever reads."""
        with mapped_errors(self.path), closing(connect(self.path)) as connection:
            connection.execute("PRAGMA query_only=off")
            for _ in range(EMPTY_PASSES):
                busy, *_rest = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    return
        raise JournalBroken(
            f"{self.path}: it is erased, but old bytes are left in the WAL while somebody reads; do it again"
        )

    async def verify(self) -> list[str]:
        """Check the file and what is in it against its own rules; return what is wrong, [] if nothing. Takes no writer's
        time, but reads everything."""
        return await self._read(verify.problems)

    async def backup(self, path: Path) -> None:
        """Copy the journal as it is now to a new file, which is whole when it is there. Raises JournalError, also if
        `path` exists. A cancel removes what was copied."""
        await trio.to_thread.run_sync(backup.write_backup, self._readers, path, trio.from_thread.check_cancelled)

    async def export(self) -> AsyncGenerator[bytes, None]:
        """Yield NDJSON lines, as the journal is now: a header, all records, all events (`sixfbd.journal.export`).

        Close it (`aclose`) if it is not read to its end: it holds a snapshot.
        """
        lines = self._export()
        try:
            while page := await trio.to_thread.run_sync(lambda: list(islice(lines, PAGE)), limiter=self._reading):
                for line in page:
                    yield line
        finally:
            lines.close()

    def _export(self) -> Generator[bytes, None, None]:
        with self._readers.borrow() as connection:
            yield from export_lines(connection)


def _tell(token: trio.lowlevel.TrioToken, what: Callable[[], object]) -> None:
    try:
        token.run_sync_soon(what)
    except trio.RunFinishedError:
        log.warning("journal.unheard", what="the event loop ended before the journal's writer did")


def _wake(subscriber: trio.MemorySendChannel[int], number: int) -> None:
    try:
        subscriber.send_nowait(number)
    except (trio.WouldBlock, trio.ClosedResourceError):
        return  # it has one to read, or the journal is being left


def _count_rows(connection: sqlite3.Connection) -> tuple[int, int, int]:
    counts = (
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("records", "events", "step_series")
    )
    records, events, series = counts
    return records, events, series


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _newest_at(connection: sqlite3.Connection, alive_at: float | None) -> float | None:
    """Return the newest time among the last rows and the last sign of life."""
    times = [alive_at]
    for table, column in (("records", "at"), ("events", "received_at")):
        query = f"SELECT max({column}) FROM (SELECT {column} FROM {table} ORDER BY seq DESC LIMIT {LAST_ROWS})"
        times += connection.execute(query).fetchone()
    return max((at for at in times if at is not None), default=None)
