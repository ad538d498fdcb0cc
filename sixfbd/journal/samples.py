"""samples.db: series, layouts, frames, chunks and sketches; what a restart restores the window from. Disposable.

Owns the file, one writer at a time (in a worker thread, at most every 0.5 s, one transaction) and the readers' connections.
`put` never waits: when the disk is too slow for the queue, the oldest samples are dropped and counted. Holds nothing that
alerts depend on: those have evidence of their own in journal.db. Knows no metrics and no rules.
"""

import json
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import structlog
import trio

from sixfbd.journal.errors import (
    JournalBroken,
    JournalDamaged,
    JournalError,
    JournalFull,
    directory_error,
    mapped_errors,
)
from sixfbd.journal.migration import FileForm
from sixfbd.journal.readers import Readers
from sixfbd.journal.retention import give_back, used_bytes
from sixfbd.journal.salvage import Damage, damage_of, set_aside
from sixfbd.journal.samples_salvage import SamplesSalvage, Slice
from sixfbd.journal.space import FLOOR_BYTES, MIB, RESUME_BYTES, free_bytes
from sixfbd.journal.step_log import stored_series
from sixfbd.model import LayoutId, SeriesId
from sixfbd.window.blocks import Times
from sixfbd.window.chunks import BAND, ChunkDamagedError, decode, encode
from sixfbd.window.sketches import KEPT_MINUTES, MINUTE_MS, merged, pack, unpack
from sixfbd.window.window import Window
from sixfbd.window.writes import (
    EndLayout,
    Forget,
    Frame,
    NewLayout,
    NewSeries,
    Seal,
    SetStaleAfter,
    SketchMinute,
    Stored,
    StoredLayout,
    Write,
)

T = TypeVar("T")

GATHER_S: Final = 0.475  # between two ticks of the schedule: what is measured then does not wait for the disk with it
RETRY_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 2.0
QUEUE_SAMPLES: Final = 2_000_000  # 16 MB; a hundred seconds of a burst at the design point
ROW_SAMPLES: Final = 20  # what a row itself weighs in memory, in samples
RETENTION_SLICE_S: Final = 0.004  # and the commit that follows
RETENTION_PAUSE_S: Final = 0.05
BUSY_TIMEOUT_MS: Final = 5000
WAL_KEEP_BYTES: Final = 4 * 1024**2

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE series (
            id INTEGER PRIMARY KEY,
            metric TEXT NOT NULL,
            labels TEXT NOT NULL,
            kind TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE layouts (
            id INTEGER PRIMARY KEY,
            check_name TEXT NOT NULL,
            series BLOB NOT NULL,
            stale_after_ms INTEGER NOT NULL,
            last BLOB NOT NULL,
            ended INTEGER NOT NULL DEFAULT 0
        ) STRICT""",
        """CREATE TABLE frames (
            id INTEGER PRIMARY KEY,
            layout INTEGER NOT NULL,
            t INTEGER NOT NULL,
            v BLOB NOT NULL,
            UNIQUE (layout, t)
        ) STRICT""",
        """CREATE TABLE chunks (
            id INTEGER PRIMARY KEY,
            layout INTEGER NOT NULL,
            band INTEGER NOT NULL,
            t0 INTEGER NOT NULL,
            t1 INTEGER NOT NULL,
            n INTEGER NOT NULL,
            data BLOB NOT NULL
        ) STRICT""",
        # covers what a start reads of every chunk, so that it reads no data
        "CREATE UNIQUE INDEX chunk_spans ON chunks (layout, t0, band, t1, n)",
        "CREATE INDEX chunk_ends ON chunks (t1)",
        """CREATE TABLE sketches (
            series INTEGER NOT NULL,
            minute INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (series, minute)
        ) STRICT""",
        "CREATE INDEX sketch_minutes ON sketches (minute)",
    ),
)
FORM: Final = FileForm(
    "the samples",
    0x36464253,  # "6FBS"
    MIGRATIONS,
    ", or move the file away (the samples of the past are lost then)",
)

_SPAN: Final = np.dtype([("layout", np.int64), ("t0", np.int64), ("t1", np.int64), ("n", np.int32)])
WITNESSED: Final = ("journal_records", "journal_events")
_DROPPABLE: Final = (Frame, Seal, SketchMinute)

log = structlog.get_logger(__name__)


class SampleStore:
    """The file at `path`, made if it does not exist; its directory must exist. Opening blocks on the disk and raises
    JournalError for a file that is damaged, not ours, or newer than we are.

    `put`, `stop` and the properties are for the event loop, `restore` comes before the first `put`; `chunk`, `sketches`
    and `verify` are for any thread and block. `open_samples` does it all in order.
    """

    def __init__(self, path: Path, *, queue_samples: int = QUEUE_SAMPLES) -> None:
        self.path = path
        self.dropped = 0
        """Samples that were never written because the disk was full, too slow or failed."""
        self.problem: str | None = None
        """Why the last try to write failed, None if it did not."""
        self._queue: deque[Write] = deque()
        self._kept: list[Write] = []  # definitions out of the queue's dropped part; before the queue
        self._queued = 0
        self._weight = 0
        self._queue_limit = queue_samples
        self._dropping = False
        self._held = False
        self._wake = trio.Event()
        self._stopping = trio.Event()
        self._scope = trio.CancelScope(shield=True)
        self._writing = trio.CapacityLimiter(1)
        self.damage: Damage | None = None
        """What was found damaged when it was opened."""
        self.witnessed: tuple[int, int] = (0, 0)
        """The last record and event of journal.db that the file knew of when it was opened."""
        self.witness: Callable[[], tuple[int, int]] | None = None
        """Asked at every write for those of now: a journal that has lost its end cannot say so itself."""
        self._salvage: SamplesSalvage | None = None
        self._readers = Readers(path)
        with mapped_errors(path):
            self._connection = _connect(path)

    # ---- writing --------------------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Samples that wait to be written."""
        return self._queued

    def put(self, rows: Iterable[Write]) -> None:
        """Queue rows to be written, in this order, within about half a second. Never waits, never fails."""
        for row in rows:
            self._queue.append(row)
            self._queued += _samples(row)
            self._weight += _weight(row)
        self._bound()
        self._wake.set()

    def stop(self) -> None:
        """Let `run` write what is queued, within 2 s, and return."""
        self._stopping.set()
        self._wake.set()
        self._scope.deadline = trio.current_time() + CLOSE_TIMEOUT_S

    async def run(self) -> None:
        """Write what is put until `stop`. No cancel ends it: what is put while all around is cancelled is written still."""
        with self._scope:
            while not self._stopping.is_set():
                await self._wake.wait()
                self._wake = trio.Event()
                await self._pause(GATHER_S)
                if not await self._flush():
                    self._wake.set()
                    await self._pause(RETRY_S)
            await self._flush()

    async def close(self) -> None:
        """Close the file, after `run` has returned; a writer that hangs is left alone after 2 s."""
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True) as scope:
            await trio.to_thread.run_sync(self.close_now, limiter=self._writing, abandon_on_cancel=True)
        if scope.cancelled_caught and self._queued:
            log.error("samples.close_timed_out", file=str(self.path), samples=self._queued)

    def close_now(self) -> None:
        """Close the file of a store that does not run. Blocks on the disk."""
        self._readers.close()
        self._connection.close()

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._stopping.wait()

    async def _flush(self) -> bool:
        """Write all that is queued in one transaction; False if that failed, and it is queued again."""
        try:
            await self._in_writer(self._leave_room)
        except JournalFull as error:
            self._failed(str(error))
            return False
        batch = [*self._kept, *self._queue]
        self._kept.clear()
        self._queue.clear()
        if not batch:
            return True
        try:
            await self._in_writer(lambda: self._commit(batch))
        except JournalError as error:
            self._queue = deque((*batch, *self._kept, *self._queue))
            self._kept.clear()
            self._bound()
            self._failed(str(error))
            return False
        self._queued -= sum(map(_samples, batch))
        self._weight -= sum(map(_weight, batch))
        self._dropping = False
        if self.problem is not None:
            log.info("samples.write_recovered", file=str(self.path))
            self.problem = None
        return True

    def _failed(self, problem: str) -> None:
        if problem != self.problem:
            log.error("samples.write_failed", problem=problem, samples=self._queued)
        self.problem = problem

    def _bound(self) -> None:
        """Drop the oldest samples that the queue has no room for; definitions stay: what comes later needs them."""
        while self._weight > self._queue_limit and self._queue:
            row = self._queue.popleft()
            if isinstance(row, _DROPPABLE):
                if not self._dropping:  # once for each time that the disk cannot keep up
                    log.error("samples.dropping", file=str(self.path), queued=self._queued, dropped=self.dropped)
                self._dropping = True
                self.dropped += _samples(row)
                self._queued -= _samples(row)
                self._weight -= _weight(row)
            else:
                self._kept.append(row)
            _release(row)

    async def _in_writer(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._writing, abandon_on_cancel=True)

    def _commit(self, batch: Sequence[Write]) -> None:
        with self._transaction() as connection:
            for row in batch:
                _write(connection, row)
            if self.witness is not None:
                connection.executemany(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                    zip(WITNESSED, self.witness(), strict=True),
                )
        for row in batch:
            _release(row)

    def _leave_room(self) -> None:
        """Raise JournalFull while what is left of the disk is the journal's."""
        free = free_bytes(self.path.parent)
        self._held = free is not None and free < (RESUME_BYTES if self._held else FLOOR_BYTES)
        if self._held:
            raise JournalFull(
                f"{self.path}: samples are not written while less than {FLOOR_BYTES // MIB} MiB are free (the rest is for "
                "events and alerts); free some on its file system"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with mapped_errors(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    # ---- retention --------------------------------------------------------------------------------------------------------

    async def retain(self, window: Window, before_ms: int, most_bytes: int | None = None) -> int:
        """Delete the chunks and sketches that end before the time; return how many. The window forgets them first.

        Of a file that holds more than `most_bytes` the oldest go earlier. In slices of 5 ms of the writer's time. A failure
        of the disk is logged; the rest goes with the next call.
        """
        total = await self._retain(window, before_ms)
        try:
            while most_bytes is not None and (cut := await self._in_writer(partial(self._size_cut, most_bytes))):
                deleted = await self._retain(window, cut)
                total += deleted
                if not deleted:
                    break
            more = True
            while more:
                more = await self._in_writer(self._give_back)
                await trio.sleep(RETENTION_PAUSE_S)
        except JournalError as error:
            log.error("samples.retention_failed", problem=str(error))
        return total

    def _size_cut(self, most_bytes: int) -> int | None:
        """Return the time before which chunks have to end for the rest to fit; None if all fits."""
        with mapped_errors(self.path):
            used = used_bytes(self._connection)
            if used <= most_bytes:
                return None
            [count] = self._connection.execute("SELECT count(*) FROM chunks").fetchone()
            place = min(count - 1, int(count * (used - most_bytes) / used))
            row = self._connection.execute("SELECT t1 FROM chunks ORDER BY t1 LIMIT 1 OFFSET ?", (place,)).fetchone()
        return None if row is None else int(row[0]) + 1

    def _give_back(self) -> bool:
        with self._transaction() as connection:
            return give_back(connection)

    async def _retain(self, window: Window, before_ms: int) -> int:
        rows = window.forget(before_ms)
        total = 0
        try:
            while deleted := await self._in_writer(lambda: self._delete_slice(before_ms)):
                total += deleted
                await trio.sleep(RETENTION_PAUSE_S)
        except JournalError as error:
            log.error("samples.retention_failed", problem=str(error))
            return total
        self.put(rows)
        return total

    def _delete_slice(self, before_ms: int) -> int:
        end, total = time.perf_counter() + RETENTION_SLICE_S, 0
        with self._transaction() as connection:
            while time.perf_counter() < end:
                deleted = connection.execute(
                    "DELETE FROM chunks WHERE (layout, t0) IN"  # all bands at once
                    " (SELECT layout, t0 FROM chunks WHERE t1 < ? ORDER BY t1 LIMIT 8)",
                    (before_ms,),
                ).rowcount
                deleted += connection.execute(
                    "DELETE FROM sketches WHERE rowid IN"
                    " (SELECT rowid FROM sketches WHERE minute < ? ORDER BY minute LIMIT 8)",
                    (before_ms // MINUTE_MS,),
                ).rowcount
                if not deleted:
                    break
                total += deleted
        return total

    # ---- reading ----------------------------------------------------------------------------------------------------------

    def chunk(self, layout: LayoutId, band: int, t0_ms: int) -> bytes | None:
        """Return the chunk that begins at `t0_ms`, None if there is none. Raises JournalError."""
        with self._readers.borrow() as connection:
            row = connection.execute(
                "SELECT data FROM chunks WHERE layout = ? AND t0 = ? AND band = ?", (layout, t0_ms, band)
            ).fetchone()
        return None if row is None else row[0]

    def sketches(self, series: SeriesId, lo_minute: int, hi_minute: int) -> list[tuple[int, bytes]]:
        """Return (minute, sketch) from `lo_minute` to `hi_minute`, both included. Raises JournalError."""
        with self._readers.borrow() as connection:
            return connection.execute(
                "SELECT minute, data FROM sketches WHERE series = ? AND minute BETWEEN ? AND ? ORDER BY minute",
                (series, lo_minute, hi_minute),
            ).fetchall()

    def restore(self, window: Window) -> None:
        """Fill an empty window with what is in the file; it reads chunks from here from now on. Blocks on the disk.

        Before `run` and the first `put`. Raises JournalError; if what is in the file does not fit together the window is
        as it was.
        """
        with self._readers.borrow() as connection:
            try:
                stored = _stored(connection)
                if misfit := _misfit(stored):
                    raise ValueError(misfit)
            except (KeyError, ValueError) as error:
                raise JournalDamaged(f"{self.path}: what is in it does not fit together: {error}") from error
            known = dict(connection.execute("SELECT key, value FROM meta").fetchall())
            self.witnessed = known.get(WITNESSED[0], 0), known.get(WITNESSED[1], 0)
            rows = window.load(stored, self)
        self.put(rows)

    # ---- saving -----------------------------------------------------------------------------------------------------------

    def take_over(self, salvage: SamplesSalvage, damage: Damage) -> None:
        """Write what the samples of a damaged file mean into this new one; `save` brings the samples. Before `restore`."""
        self.damage, self._salvage = damage, salvage
        with self._transaction() as connection:
            salvage.definitions(connection)

    async def save(self, window: Window) -> None:
        """Bring over what can be read of a damaged file, a slice at a time; returns at once if there was none."""
        salvage, self._salvage = self._salvage, None
        if salvage is None or self.damage is None:
            return
        slices = salvage.slices()
        outcome = ""
        try:
            while (part := await self._in_writer(lambda: next(slices, None))) is not None:
                spans = [span for span in part.spans if window.adopt(LayoutId(span[0]), *span[1:])]
                kept = {span[:2] for span in spans}
                part.chunks = [row for row in part.chunks if (row[0], row[2]) in kept]
                await self._in_writer(partial(self._take, part))
                await trio.sleep(RETENTION_PAUSE_S)
        except (JournalError, sqlite3.Error) as error:
            outcome = f"; the rest was not saved: {error}"
        finally:
            with trio.CancelScope(shield=True):
                await self._in_writer(salvage.close)
        outcome = (
            f"{salvage.layouts} layouts, {salvage.chunks} chunks and {salvage.sketches} sketches were kept{outcome}"
        )
        self.damage = msgspec.structs.replace(self.damage, outcome=outcome)
        log.warning("samples.saved", file=str(self.path), outcome=outcome)

    def _take(self, part: Slice) -> None:
        self._leave_room()
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO chunks (layout, band, t0, t1, n, data) VALUES (?, ?, ?, ?, ?, ?)", part.chunks
            )
            connection.executemany(
                "INSERT OR IGNORE INTO sketches (series, minute, data) VALUES (?, ?, ?)", part.sketches
            )

    def verify(self) -> list[str]:
        """Check the file, and what is in it against its own rules; return what is wrong, [] if nothing. Reads everything.

        Raises JournalError if it cannot be read at all.
        """
        with self._readers.borrow() as connection:
            problems = [line for [line] in connection.execute("PRAGMA integrity_check") if line != "ok"]
            return problems or [*_layout_problems(connection), *_chunk_problems(connection)]


@asynccontextmanager
async def open_samples(path: Path, window: Window) -> AsyncIterator[SampleStore]:
    """Open samples.db, restore `window` (empty) from it, and write what is `put` until the context is left.

    A damaged file is set aside; what can be read of it comes back meanwhile. On leaving, what the window still holds back
    is written. Leave it after all that appends. Raises JournalError.
    """
    store = await trio.to_thread.run_sync(_open, path, window)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            try:
                async with trio.open_nursery() as saving:
                    saving.start_soon(store.save, window)
                    yield store
                    saving.cancel_scope.cancel()
            finally:
                store.put(window.flush())
                store.stop()
    finally:
        await store.close()


def _open(path: Path, window: Window) -> SampleStore:
    """Open the file, or a new one in the place of a damaged one."""
    why = damage_of(path)
    if why is None:
        try:
            return _restored(path, window)
        except JournalDamaged as error:
            cause = error.__cause__
            why = str(cause) if isinstance(cause, sqlite3.Error) else str(error).partition(": ")[2]
    aside = set_aside(path)
    log.error("samples.set_aside", file=str(path), aside=aside.name, why=why)
    store = SampleStore(path)
    damage = Damage(file=path.name, why=why, aside=aside.name, outcome="what can be read of it is being saved")
    try:
        store.take_over(SamplesSalvage(aside), damage)
    except JournalError as error:
        store.damage = msgspec.structs.replace(damage, outcome=f"nothing of it can be read: {error}")
    store.restore(window)
    return store


def _restored(path: Path, window: Window) -> SampleStore:
    store = SampleStore(path)
    try:
        store.restore(window)
    except BaseException:
        store.close_now()
        raise
    return store


def _samples(row: Write) -> int:
    if isinstance(row, Frame):
        return row.samples
    return row.v.size if isinstance(row, Seal) else 0


def _weight(row: Write) -> int:
    """What a row that may be dropped takes of memory, in samples of 8 bytes."""
    match row:
        case Frame() | Seal():
            return _samples(row) + ROW_SAMPLES
        case SketchMinute():
            return len(row.sketch) // 8 + ROW_SAMPLES
        case _:
            return 0


def _release(row: Write) -> None:
    if isinstance(row, Seal):
        row.released()


# ---- the file ---------------------------------------------------------------------------------------------------------------


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.touch(0o640)
    except OSError as error:
        raise directory_error(error, path.parent) from error
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if not FORM.check_identity(connection, path):
            # Of a new file only: it is written at once, also where it is set already.
            connection.execute("PRAGMA auto_vacuum=incremental")
        [mode] = connection.execute("PRAGMA journal_mode=wal").fetchone()
        if mode != "wal":
            raise JournalBroken(f"{path}: its file system cannot share memory (a network's?); use a local one")
        for pragma in (
            "synchronous=normal",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "temp_store=memory",
            f"journal_size_limit={WAL_KEEP_BYTES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        FORM.migrate(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


# ---- rows -------------------------------------------------------------------------------------------------------------------


def _write(connection: sqlite3.Connection, row: Write) -> None:
    match row:
        case Frame():
            connection.execute(
                "INSERT OR REPLACE INTO frames (layout, t, v) VALUES (?, ?, ?)", (row.layout, row.t_ms, row.values)
            )
        case Seal():
            _write_chunks(connection, row)
        case NewSeries():
            values = (row.id, row.series.metric, json.dumps(row.series.labels), str(row.series.kind))
            connection.execute("INSERT INTO series (id, metric, labels, kind) VALUES (?, ?, ?, ?)", values)
        case NewLayout():
            ids = np.array(row.series, dtype="<i8").tobytes()
            connection.execute(
                "INSERT INTO layouts (id, check_name, series, stale_after_ms, last) VALUES (?, ?, ?, ?, ?)",
                (row.id, row.check, ids, row.stale_after_ms, row.last),
            )
        case EndLayout():
            connection.execute("UPDATE layouts SET ended = 1 WHERE id = ?", (row.id,))
        case SetStaleAfter():
            connection.execute(
                "UPDATE layouts SET stale_after_ms = ? WHERE check_name = ?", (row.stale_after_ms, row.check)
            )
        case SketchMinute():
            _write_sketch(connection, row)
        case Forget():
            for table in ("chunks", "frames"):
                connection.executemany(f"DELETE FROM {table} WHERE layout = ?", [(one,) for one in row.layouts])
            _forget(connection, "layouts", row.layouts)
            _forget(connection, "series", row.series)


def _write_chunks(connection: sqlite3.Connection, seal: Seal) -> None:
    """Put the chunks in the place of the frames."""
    rows, width = seal.v.shape
    t0, t1 = int(seal.t_ms[0]), int(seal.t_ms[-1])
    for band in range(-(-width // BAND)):
        data = encode(seal.t_ms, seal.v[:, band * BAND : (band + 1) * BAND])
        connection.execute(
            "INSERT INTO chunks (layout, band, t0, t1, n, data) VALUES (?, ?, ?, ?, ?, ?)",
            (seal.layout, band, t0, t1, rows, data),
        )
    connection.execute("DELETE FROM frames WHERE layout = ? AND t BETWEEN ? AND ?", (seal.layout, t0, t1))
    connection.execute("UPDATE layouts SET last = ? WHERE id = ?", (seal.last, seal.layout))


def _write_sketch(connection: sqlite3.Connection, row: SketchMinute) -> None:
    data = row.sketch
    if row.merge:
        known = connection.execute(
            "SELECT data FROM sketches WHERE series = ? AND minute = ?", (row.series, row.minute)
        ).fetchone()
        data = data if known is None else pack(merged((unpack(known[0]), unpack(data))))
    connection.execute(
        "INSERT OR REPLACE INTO sketches (series, minute, data) VALUES (?, ?, ?)", (row.series, row.minute, data)
    )


def _forget(connection: sqlite3.Connection, table: str, ids: Sequence[int]) -> None:
    """Delete rows; the numbers stay used."""
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (table, _next_id(connection, table)))
    connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(one,) for one in ids])


def _next_id(connection: sqlite3.Connection, table: str) -> int:
    """Return the first number of `series` or `layouts` that was never used."""
    [highest] = connection.execute(f"SELECT ifnull(max(id), 0) FROM {table}").fetchone()
    used = connection.execute("SELECT value FROM meta WHERE key = ?", (table,)).fetchone()
    return max(int(highest) + 1, 0 if used is None else int(used[0]))


# ---- reading back -----------------------------------------------------------------------------------------------------------


def _stored(connection: sqlite3.Connection) -> Stored:
    [newest] = connection.execute("SELECT ifnull(max(minute), 0) FROM sketches").fetchone()
    return Stored(
        series=[
            (SeriesId(one), stored_series(metric, labels, kind))
            for one, metric, labels, kind in connection.execute(
                "SELECT id, metric, labels, kind FROM series ORDER BY id"
            )
        ],
        layouts=_stored_layouts(connection),
        sketches=connection.execute(
            "SELECT series, minute, data FROM sketches WHERE minute >= ? ORDER BY minute", (newest - KEPT_MINUTES,)
        ).fetchall(),
        sketched=frozenset(one for [one] in connection.execute("SELECT DISTINCT series FROM sketches")),
        next_series=_next_id(connection, "series"),
        next_layout=_next_id(connection, "layouts"),
    )


def _misfit(stored: Stored) -> str:
    """Say what does not fit together in what was read, "" if it does."""
    known = {series_id for series_id, _ in stored.series}
    for layout in stored.layouts:
        if not known.issuperset(layout.series):
            return f"layout {layout.id} has a series that is not there"
        if len(layout.last) != 16 * len(layout.series):
            return f"the last samples of layout {layout.id} are {len(layout.last)} bytes"
    if not known.issuperset(stored.sketched):
        return "there are sketches of a series that is not there"
    return ""


def _stored_layouts(connection: sqlite3.Connection) -> list[StoredLayout]:
    spans: npt.NDArray[np.void] = np.fromiter(
        connection.execute("SELECT layout, t0, t1, n FROM chunks WHERE band = 0 ORDER BY layout, t0"), dtype=_SPAN
    )
    frames: dict[int, list[tuple[int, bytes]]] = {}
    for layout, t_ms, values in connection.execute("SELECT layout, t, v FROM frames ORDER BY layout, t"):
        frames.setdefault(layout, []).append((t_ms, values))
    return [
        _stored_layout(row, spans, frames.get(row[0], []))
        for row in connection.execute("SELECT id, check_name, series, stale_after_ms, last, ended FROM layouts")
    ]


def _stored_layout(
    row: tuple[int, str, bytes, int, bytes, int], spans: npt.NDArray[np.void], frames: Sequence[tuple[int, bytes]]
) -> StoredLayout:
    layout, check, series, stale_after_ms, last, ended = row
    ids = tuple(SeriesId(one) for one in np.frombuffer(series, "<i8").tolist())
    first, end = np.searchsorted(spans["layout"], (layout, layout + 1))
    mine = spans[first:end]
    values = np.frombuffer(b"".join(values for _, values in frames), "<f8").reshape(len(frames), len(ids))
    return StoredLayout(
        id=LayoutId(layout),
        check=check,
        series=ids,
        stale_after_ms=stale_after_ms,
        ended=bool(ended),
        last=last,
        chunk_t0=mine["t0"].copy(),
        chunk_t1=mine["t1"].copy(),
        chunk_rows=mine["n"].copy(),
        frame_t=np.array([t_ms for t_ms, _ in frames], dtype=np.int64),
        frame_v=values.astype(np.float64, copy=False),
    )


# ---- verifying --------------------------------------------------------------------------------------------------------------


def _layout_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Series that are not there, frames of the wrong width, rows without a layout, frames and chunks of one time."""
    known = {one for [one] in connection.execute("SELECT id FROM series")}
    for layout, series, last in connection.execute("SELECT id, series, last FROM layouts"):
        missing = [one for one in np.frombuffer(series, "<i8").tolist() if one not in known]
        if missing:
            yield f"layout {layout}: series {missing[0]} is not there"
        if len(last) != 2 * len(series):
            yield f"layout {layout}: its last samples are {len(last)} bytes, not {2 * len(series)}"
    for layout, t_ms in connection.execute(
        "SELECT layout, t FROM frames JOIN layouts ON layouts.id = layout WHERE length(v) != length(series)"
    ):
        yield f"layout {layout}: the frame at {t_ms} ms is not as wide as the layout"
    for table in ("frames", "chunks"):
        for [layout] in connection.execute(
            f"SELECT DISTINCT layout FROM {table} WHERE layout NOT IN (SELECT id FROM layouts)"
        ):
            yield f"layout {layout}: has {table}, but is not there"
    for layout, t_ms in connection.execute(
        "SELECT f.layout, f.t FROM frames f JOIN chunks c"
        " ON c.band = 0 AND c.layout = f.layout AND f.t BETWEEN c.t0 AND c.t1"
    ):
        yield f"layout {layout}: the row at {t_ms} ms is in a frame and in a chunk"


def _chunk_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Chunks that cannot be decoded or do not hold what their row says, bands that are missing."""
    for layout, band, t0, t1, n, data, width in connection.execute(
        "SELECT layout, band, t0, t1, n, data, length(series) / 8 FROM chunks JOIN layouts ON layouts.id = layout"
    ):
        problem = _chunk_problem(data, t0, t1, n, min(BAND, width - band * BAND))
        if problem:
            yield f"layout {layout}: the chunk from {t0} ms, band {band}: {problem}"
    for layout, t0, bands, width in connection.execute(
        "SELECT layout, t0, count(*), length(series) / 8 FROM chunks JOIN layouts ON layouts.id = layout"
        " GROUP BY layout, t0"
    ):
        if bands != -(-width // BAND):
            yield f"layout {layout}: the chunk from {t0} ms has {bands} bands, not {-(-width // BAND)}"
    previous: tuple[int, int] = (0, 0)
    for layout, t0, t1 in connection.execute("SELECT layout, t0, t1 FROM chunks WHERE band = 0 ORDER BY layout, t0"):
        if layout == previous[0] and t0 <= previous[1]:
            yield f"layout {layout}: the chunk from {t0} ms begins before the one before it ends"
        previous = (layout, t1)


def _chunk_problem(data: bytes, t0: int, t1: int, n: int, width: int) -> str:
    try:
        t_ms, v = decode(data)
    except ChunkDamagedError as error:
        return f"cannot be decoded: {error}"
    if v.shape != (n, width):
        return f"holds {v.shape[0]} rows of {v.shape[1]} series, not {n} of {width}"
    return "" if _spans(t_ms, t0, t1) else f"its times do not go from {t0} to {t1} ms"


def _spans(t_ms: Times, t0: int, t1: int) -> bool:
    return bool(t_ms[0] == t0 and t_ms[-1] == t1 and (np.diff(t_ms) > 0).all())
