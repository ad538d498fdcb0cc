"""samples.db: what a restart finds, what a slow or failing disk costs, retention, damage."""

import os
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import trio

from sixfbd.journal.errors import JournalBroken, JournalError
from sixfbd.journal.retention import used_bytes
from sixfbd.journal.samples import FORM, ROW_SAMPLES, SampleStore, open_samples
from sixfbd.model import Series
from sixfbd.window.chunks import BAND, ChunkDamagedError
from sixfbd.window.layouts import BLOCK_ROWS
from sixfbd.window.sketches import KEPT_MINUTES
from sixfbd.window.snapshot import Matcher
from sixfbd.window.window import Window
from sixfbd.window.writes import EndLayout, Frame

A, B = Series("a", (("check", "shop"),)), Series("b", (("check", "shop"),))
MINUTE = 60_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


def report(window, at_ms, *series, check="shop", value=None):
    samples = [(one, float(at_ms if value is None else value)) for one in series]
    return window.append(check, at_ms, samples, complete=True, stale_after_ms=300_000).rows


def times(window, *matchers):
    return [t for block in window.snapshot().select(matchers, 0, 10**15) for t in block.t_ms.tolist()]


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a file
            await trio.sleep(0.01)


def query(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def test_what_is_put_is_in_the_file_within_a_second_without_closing(path):
    window = Window()
    async with open_samples(path, window) as store:
        store.put(report(window, 1000, A))
        started = time.monotonic()
        await until(lambda: store.queued == 0)
        assert time.monotonic() - started < 5  # generous for a loaded machine; the order is half a second
        assert query(path, "SELECT t FROM frames") == [(1000,)]


async def test_a_restart_goes_on_with_the_same_ids_and_does_not_end_a_series_twice(path):
    window = Window()
    async with open_samples(path, window) as store:
        store.put(report(window, 1000, A, B))
        store.put(report(window, 2000, A))
        ids = {
            one: block.ids[i] for block in window.snapshot().select((), 0, 9999) for i, one in enumerate(block.series)
        }
    again = Window()
    async with open_samples(path, again) as store:
        assert again.checks() == ["shop"]
        rows = report(again, 3000, A)
        store.put(rows)
        assert [type(row) for row in rows] == [Frame]
        [block] = again.snapshot().select((), 0, 9999)
        assert {one: block.ids[i] for i, one in enumerate(block.series)} == ids
        assert again.latest() == [(A, 3000, 3000.0, "shop")]


async def test_a_restart_knows_which_values_changed(path):
    window = Window()
    async with open_samples(path, window) as store:
        for n in range(BLOCK_ROWS):  # sealed: the head is empty
            store.put(report(window, 1000 * n, A, B, value=7.0))
    again = Window()
    again.bind(lambda one: frozenset({one.metric}))
    async with open_samples(path, again):
        appended = again.append("shop", 10**6, [(A, 7.0), (B, 8.0)], complete=True, stale_after_ms=300_000)
        assert appended.touched == {"b"}


async def test_times_go_on_increasing_after_a_restart(path):
    window = Window()
    async with open_samples(path, window) as store:
        store.put(report(window, 5000, A))
        store.put(window.end_check("shop", 6000).rows)
    again = Window()
    async with open_samples(path, again) as store:
        assert again.append("shop", 10, [(A, 1.0)], complete=True, stale_after_ms=1).at_ms == 6001


async def test_full_blocks_become_chunks_in_bands_and_their_frames_go(path):
    series = [Series("m", (("i", str(i)),)) for i in range(BAND + 5)]
    window = Window()
    async with open_samples(path, window) as store:
        for n in range(BLOCK_ROWS + 3):
            store.put(report(window, 1000 * n, *series))
    assert query(path, "SELECT band, t0, t1, n FROM chunks ORDER BY band") == [
        (0, 0, 1000 * (BLOCK_ROWS - 1), BLOCK_ROWS),
        (1, 0, 1000 * (BLOCK_ROWS - 1), BLOCK_ROWS),
    ]
    assert query(path, "SELECT count(*) FROM frames") == [(3,)]
    again = Window()
    async with open_samples(path, again):
        matchers = [Matcher("i", "=~", f"3|{BAND + 1}")]
        assert not again.snapshot().loaded(matchers, 0, 500)
        assert again.snapshot().loaded(matchers, 1000 * BLOCK_ROWS, 10**9)
        [block] = await trio.to_thread.run_sync(again.snapshot().select, matchers, 0, 10**9)
        assert again.snapshot().loaded(matchers, 0, 500)
        assert block.v.tolist() == [[1000.0 * n] * 2 for n in range(BLOCK_ROWS + 3)]


async def test_sealed_blocks_are_read_from_other_threads_while_they_are_written_and_released(path):
    window, stop, found = Window(memory_bytes=1), threading.Event(), []

    def read():
        while not stop.is_set():
            snapshot = snapshots[-1]
            [block] = snapshot.select((), 0, 10**15)
            found.append((block.t_ms == np.arange(len(block.t_ms)) * 1000).all() and len(block.t_ms) > 0)

    async with open_samples(path, window) as store:
        store.put(report(window, 0, A))
        snapshots = [window.snapshot()]
        thread = threading.Thread(target=read)
        thread.start()
        for n in range(1, 3000):
            store.put(report(window, 1000 * n, A))
            snapshots.append(window.snapshot())
            if n % 100 == 0:
                await trio.sleep(0.01)
        await until(lambda: store.queued == 0)
        stop.set()
        await trio.to_thread.run_sync(thread.join, 10)
    assert found
    assert all(found)


async def test_a_queue_that_is_full_drops_the_oldest_samples_and_counts_them(path):
    store = await trio.to_thread.run_sync(lambda: SampleStore(path, queue_samples=5 * (2 + ROW_SAMPLES)))
    window = Window()
    store.restore(window)
    for n in range(15):
        store.put(report(window, 1000 * n, A, B))
    assert store.dropped == 20
    assert store.queued == 10
    store.put(report(window, 20_000, B))
    assert store.dropped == 22
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        await until(lambda: store.queued == 0)
        store.stop()
    await store.close()
    again = Window()
    async with open_samples(path, again) as store:
        assert times(again) == [11_000, 12_000, 13_000, 14_000, 20_000]
        assert store.verify() == []


async def test_rows_of_a_chunk_that_was_dropped_are_found_in_their_frames_after_a_restart(path):
    window = Window()
    async with open_samples(path, window) as store:
        for n in range(3 * BLOCK_ROWS):
            rows = report(window, 1000 * n, A)
            store.put(rows if n != BLOCK_ROWS - 1 else rows[:-1])  # the first seal is lost
    again = Window()
    async with open_samples(path, again) as store:
        assert times(again) == [1000 * n for n in range(3 * BLOCK_ROWS)]
        await until(lambda: store.queued == 0)
        assert query(path, "SELECT count(*) FROM frames") == [(0,)]
        assert store.verify() == []


async def test_a_layout_that_ended_with_its_last_rows_unsealed_is_sealed_at_the_restart(path):
    window = Window()
    async with open_samples(path, window) as store:
        store.put(report(window, 1000, A))
        store.put(row for row in report(window, 2000) if isinstance(row, Frame | EndLayout))
    again = Window()
    async with open_samples(path, again) as store:
        assert again.checks() == []
        assert times(again) == [1000, 2000]
        await until(lambda: store.queued == 0)
        assert store.verify() == []


async def test_a_disk_that_fails_for_a_while_costs_nothing_that_the_queue_has_room_for(path):
    window = Window()
    async with open_samples(path, window) as store:
        other = sqlite3.connect(path, isolation_level=None)
        store._connection.execute("PRAGMA busy_timeout=0")  # so that the test need not wait for it
        other.execute("BEGIN IMMEDIATE")
        store.put(report(window, 1000, A))
        await until(lambda: store.problem is not None)
        assert str(path) in store.problem
        store.put(report(window, 2000, A))
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: store.queued == 0)
        assert store.problem is None
        assert store.dropped == 0
    again = Window()
    async with open_samples(path, again):
        assert times(again) == [1000, 2000]


async def test_what_is_queued_is_written_when_everything_around_is_cancelled(path):
    window = Window()
    with trio.CancelScope() as scope:
        async with open_samples(path, window) as store:
            store.put(report(window, 1000, A))
            window.observe(A, 1000, {1.0: 1})
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert query(path, "SELECT t FROM frames") == [(1000,)]
    assert query(path, "SELECT minute FROM sketches") == [(0,)]


async def test_retention_deletes_old_chunks_and_what_is_left_without_rows(path):
    old = Series("old", (("check", "gone"),))
    window = Window()
    async with open_samples(path, window) as store:
        store.put(report(window, 1000, old, check="gone"))
        store.put(window.end_check("gone", 2000).rows)
        window.observe(Series("summary"), 1000, {1.0: 1})
        for n in range(5 * BLOCK_ROWS):
            store.put(report(window, 10_000 * n, A))
        cut = 10_000 * 2 * BLOCK_ROWS
        await until(lambda: store.queued == 0)
        before = window.snapshot()
        assert await store.retain(window, cut) == 4  # the ended one, two of the live one, the sketch
        assert times(window) == [10_000 * n for n in range(2 * BLOCK_ROWS, 5 * BLOCK_ROWS)]
        assert min(t for block in before.select((), 0, 10**15) for t in block.t_ms) >= 0  # an old snapshot still reads
        assert window.snapshot().select([Matcher("__name__", "=", "old")], 0, 10**15) == []
        assert await store.retain(window, cut) == 0
    assert query(path, "SELECT count(*) FROM layouts") == [(1,)]
    assert query(path, "SELECT metric FROM series ORDER BY id") == [("summary",), ("a",)]
    again = Window()
    async with open_samples(path, again) as store:
        assert times(again) == times(window)
        rows = report(again, 10**8, old, check="gone")
        used = query(path, "SELECT max(id) FROM layouts")[0][0]
        assert [row.id for row in rows if hasattr(row, "series")][-1] > used
        assert store.verify() == []


async def test_of_a_file_that_is_too_large_the_oldest_samples_go_and_the_space_is_given_back(path):
    window, draw = Window(), np.random.default_rng(2)
    async with open_samples(path, window) as store:
        for n in range(400 * BLOCK_ROWS):
            store.put(report(window, 1000 * n, A, B, value=float(draw.random())))
            if n % 5000 == 0:
                await until(lambda: store.queued == 0)
        await until(lambda: store.queued == 0)
        used = used_bytes(store._connection)
        assert await store.retain(window, 0, used // 2) > 100
        assert await store.retain(window, 0, used // 2) == 0, "it fits"
        found = times(window)
        assert found[-1] == 1000 * (400 * BLOCK_ROWS - 1) and 100 * BLOCK_ROWS < len(found) < 300 * BLOCK_ROWS
        assert store.verify() == []
    assert path.stat().st_size < 0.7 * used + 256 * 4096


async def test_numbers_of_what_retention_deleted_are_not_used_again(path):
    window = Window()
    async with open_samples(path, window) as store:
        store.put(report(window, 1000, A))
        store.put(window.end_check("shop", 2000).rows)
        await until(lambda: store.queued == 0)
        await store.retain(window, 10_000)
    again = Window()
    async with open_samples(path, again):
        rows = report(again, 20_000, A)
    assert [row.id for row in rows if hasattr(row, "id")] == [2, 2]


async def test_sketches_come_back_and_a_minute_goes_on_where_it_was(path):
    window = Window()
    async with open_samples(path, window) as store:
        for n in range(100):
            window.observe(A, n * 3000, {float(n + 1): 1})
        assert store.problem is None
    again = Window()
    async with open_samples(path, again):
        assert list(again.sketched()) == [A]
        assert again.quantile(A, 0.5, 0, 5 * MINUTE) == pytest.approx(50, rel=0.03)
        again.observe(A, 99 * 3000, {1000.0: 1})
    third = Window()
    async with open_samples(path, third):
        assert third.sketch(A, 0, 5 * MINUTE).count == 101


async def test_old_minutes_are_read_from_the_file_and_late_values_added_to_them_there(path):
    window = Window()
    later = (KEPT_MINUTES + 100) * MINUTE
    async with open_samples(path, window) as store:
        window.observe(A, 0, {1.0: 1})
        window.observe(A, later, {100.0: 1})
        store.put(report(window, later + MINUTE, B))
        await until(lambda: store.queued == 0)
        window.observe(A, 30_000, {3.0: 1})
        sketch = await trio.to_thread.run_sync(window.sketch, A, 0, MINUTE)
        assert sketch.count == 2
    again = Window()
    async with open_samples(path, again):
        sketch = await trio.to_thread.run_sync(again.sketch, A, 0, later)
        assert sketch.count == 3


# ---- damage -----------------------------------------------------------------------------------------------------------------


async def filled(path):
    window = Window()
    async with open_samples(path, window) as store:
        for n in range(2 * BLOCK_ROWS + 5):
            store.put(report(window, 1000 * n, A, B))
        assert await trio.to_thread.run_sync(store.verify) == []


def change(path, sql, *values):
    with sqlite3.connect(path) as connection:
        connection.execute(sql, values)
    connection.close()


def problems(path):
    store = SampleStore(path)
    try:
        return store.verify()
    finally:
        store.close_now()


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE chunks SET data = zeroblob(40) WHERE t0 = 0", "the chunk from 0 ms, band 0: cannot be decoded"),
        ("UPDATE chunks SET t1 = t1 + 1 WHERE t0 = 0", "its times do not go from 0 to 119001 ms"),
        ("UPDATE chunks SET n = 3 WHERE t0 = 0", "holds 120 rows of 2 series, not 3 of 2"),
        ("UPDATE chunks SET band = 1 WHERE t0 = 0", "band 1: holds 120 rows of 2 series, not 120 of -62"),
        ("DELETE FROM series WHERE id = 2", "layout 1: series 2 is not there"),
        ("UPDATE frames SET v = x'00' WHERE t = 240000", "the frame at 240000 ms is not as wide as the layout"),
        ("UPDATE frames SET t = 5 WHERE t = 240000", "the row at 5 ms is in a frame and in a chunk"),
        ("DELETE FROM layouts", "layout 1: has frames, but is not there"),
        ("UPDATE layouts SET last = x'00'", "its last samples are 1 bytes, not 32"),
    ],
)
async def test_verify_names_what_does_not_fit(path, sql, said):
    await filled(path)
    change(path, sql)
    assert said in "; ".join(problems(path))


async def test_a_damaged_chunk_fails_the_select_that_needs_it_and_no_other(path):
    await filled(path)
    change(path, "UPDATE chunks SET data = zeroblob(40) WHERE t0 = 0")
    window = Window()
    async with open_samples(path, window):
        with pytest.raises(
            ChunkDamagedError, match=r"samples.db: chunk of layout 1 \(check 'shop'\), band 0, from 0 ms"
        ):
            window.snapshot().select((), 0, 1000)
        [block] = window.snapshot().select((), 120_000, 10**9)
        assert len(block.t_ms) == BLOCK_ROWS + 5


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM series WHERE id = 2", "UPDATE frames SET v = x'00'", "UPDATE layouts SET last = x'00' WHERE id = 1"],
)
async def test_a_file_that_does_not_fit_together_is_set_aside_and_the_daemon_starts(path, sql):
    await filled(path)
    change(path, sql)
    window = Window()
    async with open_samples(path, window) as store:
        assert "does not fit together" in store.damage.why
        assert path.with_name(store.damage.aside).exists()
        await until(lambda: "kept" in store.damage.outcome)
        store.put(report(window, 10**6, A))
        await until(lambda: store.queued == 0)
        assert store.verify() == []


async def test_damage_in_a_file_too_large_to_be_checked_whole_is_found_by_who_reads_it(path, monkeypatch):
    await filled(path)
    [[page]] = query(path, "SELECT rootpage FROM sqlite_schema WHERE name = 'layouts'")
    body = bytearray(path.read_bytes())
    body[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(body)
    monkeypatch.setattr("sixfbd.journal.salvage.CHECK_BYTES", 0)
    async with open_samples(path, Window()) as store:
        assert store.damage.why == "database disk image is malformed"
        assert path.with_name(store.damage.aside).read_bytes() == bytes(body)


async def test_of_a_file_with_zeroed_pages_the_samples_that_can_be_read_come_back_while_it_runs(path):
    window, rows = Window(), 40 * BLOCK_ROWS + 5
    draw = np.random.default_rng(1)
    async with open_samples(path, window) as store:
        for n in range(rows):
            store.put(report(window, 1000 * n, A, B, value=float(draw.random())))
            if n % 1000 == 0:
                await until(lambda: store.queued == 0)
        window.observe(Series("took"), 1000, {2.0: 1})
    body = bytearray(path.read_bytes())
    chunk_pages = [
        page for [page] in query(path, "SELECT pageno FROM dbstat WHERE name = 'chunks' AND pagetype = 'leaf'")
    ]
    for page in chunk_pages[2:4]:
        body[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(body)
    again = Window()
    async with open_samples(path, again) as store:
        assert times(again)[-5:] == [1000 * n for n in range(rows - 5, rows)], "what is newest is there at once"
        store.put(report(again, 1000 * rows, A, B))
        await until(lambda: "kept" in store.damage.outcome)
        found = times(again)
        assert len(found) == len(set(found)) and found == sorted(found)
        assert rows * 0.7 < len(found) < rows, "the pages that were lost are a few chunks"
        assert list(again.sketched()) == [Series("took")]
        await until(lambda: store.queued == 0)
        assert store.verify() == []
        outcome = store.damage.outcome
    assert path.with_name(store.damage.aside).read_bytes() == bytes(body)
    assert outcome.startswith("1 layouts, ") and outcome.endswith("1 sketches were kept")
    third = Window()
    async with open_samples(path, third) as store:
        assert store.damage is None
        assert times(third) == found


async def test_a_file_that_is_no_database_is_set_aside_and_a_new_one_begun(path):
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    window = Window()
    async with open_samples(path, window) as store:
        assert "not a database" in store.damage.why
        store.put(report(window, 1000, A))
    again = Window()
    async with open_samples(path, again) as store:
        assert store.damage is None and times(again) == [1000]


async def test_a_truncated_file_is_set_aside_and_the_daemon_starts(path):
    await filled(path)
    os.truncate(path, path.stat().st_size // 2)
    window = Window()
    async with open_samples(path, window) as store:
        assert store.damage is not None
        await until(lambda: "being saved" not in store.damage.outcome)
        store.put(report(window, 10**6, A))
    again = Window()
    async with open_samples(path, again) as store:
        assert store.damage is None and store.verify() == []


async def test_the_file_bears_witness_of_what_the_journal_had(path):
    window = Window()
    async with open_samples(path, window) as store:
        assert store.witnessed == (0, 0)
        store.witness = lambda: (7, 11)
        store.put(report(window, 1000, A))
    async with open_samples(path, Window()) as store:
        assert store.witnessed == (7, 11)


def test_what_is_no_database_is_refused_by_name(path):
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(JournalError, match=r"samples\.db: .*not a database"):
        SampleStore(path)


def test_another_database_is_refused_and_left_as_it_is(path):
    change(path, "CREATE TABLE mine (x)")
    with pytest.raises(JournalBroken, match=r"samples\.db: an SQLite database, but not the samples of sixfbd"):
        SampleStore(path)
    assert query(path, "SELECT name FROM sqlite_schema") == [("mine",)]


def test_a_newer_file_is_refused_with_what_to_do(path):
    SampleStore(path).close_now()
    change(path, f"PRAGMA user_version={FORM.version + 1}")
    with pytest.raises(
        JournalBroken, match=rf"of version {FORM.version + 1}, this sixfbd knows up to {FORM.version}; install"
    ):
        SampleStore(path)


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(JournalError, match="does not exist"):
        SampleStore(tmp_path / "nowhere" / "samples.db")


async def test_the_file_has_a_bound_for_a_check_whose_labels_change_at_every_run(path, monkeypatch):
    monkeypatch.setattr("sixfbd.window.window.MAX_ENDED_LAYOUTS", 100)
    window = Window()
    async with open_samples(path, window) as store:
        for run in range(2000):
            store.put(report(window, 1000 * (run + 1), A, Series("n", (("check", "shop"), ("n", str(run))))))
        await until(lambda: store.queued == 0)
        kept = len(window._layouts)
    window = Window()
    async with open_samples(path, window) as store:
        assert store.verify() == []
        assert len(window._layouts) == kept <= 102
        [block] = window.snapshot().select([Matcher("__name__", "=", "a")], 0, 10**15)
        assert len(block.t_ms) == 2000, "the series that lasts has all of its history"
    [[layouts]], [[series]] = query(path, "SELECT count(*) FROM layouts"), query(path, "SELECT count(*) FROM series")
    [[strays]] = query(path, "SELECT count(*) FROM chunks WHERE layout NOT IN (SELECT id FROM layouts)")
    assert layouts <= 102 and series <= 103 and strays == 0
    assert query(path, "SELECT count(*) FROM frames WHERE layout NOT IN (SELECT id FROM layouts)") == [(0,)]
