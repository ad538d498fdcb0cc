"""A damaged journal.db is set aside, what can be read of it saved, and what was lost said. Real damage to real files."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sixfbd.journal.database import Accepted, JournalBroken, JournalDatabase, JournalFull, NewEvent
from sixfbd.journal.records import Audited, Base, TokenChanged
from sixfbd.journal.schema import FORM, connect_writer
from sixfbd.journal.state import fold
from sixfbd.model import CheckName, Event, MetricKind, Series

NOW = 1_800_000_000.0
SOLD = Series("shop_sold_total", (("city", "dallas"),), MetricKind.COUNTER)
EVENTS = 3000
PAGE = 4096


def sale(number):
    at = NOW + 10 * number
    return NewEvent(
        Event(f"e{number}", "sale", at, {"n": number, "x": "y" * 200}), at, ((SOLD, round(at * 1000), 1.0),)
    )


@pytest.fixture
async def path(tmp_path):
    """A journal of some thousand rows, closed in order."""
    path = tmp_path / "journal.db"
    async with JournalDatabase(path) as journal:
        await journal.put_events("shop", [sale(n) for n in range(EVENTS)], (CheckName("web"), {"after": 7}))
        for n in range(300):
            await journal.commit([Audited(NOW + n, "uid:0", f"command {n} {'x' * 100}", "ok")])
        await journal.commit([TokenChanged(NOW + 300, "grafana", "hash", ("read",), "me")])
    return path


async def opened(path):
    """Open it; return the damage that was found, the events, the fold, the total of the counter, and what verify says."""
    async with JournalDatabase(path) as journal:
        events = await journal.events(limit=2 * EVENTS)
        state = fold([record async for record in journal.load_records()])
        problems = await journal.verify()
        totals = [total for _, total, _ in journal.step_series()]
        [answer] = await journal.put_events("shop", [sale(EVENTS)])
        assert await journal.commit([Audited(NOW, "me", "after", "ok")])
    return journal.damage, events, state, totals, problems, answer


def pages_of(path, table):
    """The numbers of a table's leaf pages."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            found = connection.execute(
                "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
            ).fetchall()
        except sqlite3.OperationalError as error:
            pytest.fail(f"SQLite lacks dbstat: {error}")
    return [page for [page] in found]


def zero(path, *pages):
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(bytes(PAGE))


def aside(path):
    return [found for found in path.parent.glob("journal.db.corrupt-*") if not found.name.endswith(("-wal", "-shm"))]


async def test_a_healthy_journal_is_left_where_it_is(path):
    damage, events, _, totals, problems, answer = await opened(path)
    assert (damage, len(events), totals, problems, answer) == (None, EVENTS, [EVENTS], [], Accepted(EVENTS + 1))
    assert aside(path) == []


async def test_zeroed_pages_cost_what_was_on_them_and_nothing_else(path):
    leaves = pages_of(path, "events")
    zero(path, leaves[3], leaves[20], leaves[21])
    before = path.read_bytes()
    damage, events, state, totals, problems, answer = await opened(path)
    assert EVENTS - 60 < len(events) < EVENTS
    assert events[0].seq == 1 and events[-1].seq == EVENTS
    assert list(state.tokens) == ["grafana"]
    assert totals == [EVENTS], "the counters do not depend on the events' rows"
    assert problems == [], "what is lost is known, and no fault of the new file"
    assert answer == Accepted(EVENTS + 1), "numbers go on"
    [kept] = aside(path)
    assert kept.read_bytes() == before
    assert damage.aside == kept.name
    lost = EVENTS - len(events)
    assert damage.outcome == f"301 records and {len(events)} events were kept, 0 records and {lost} events lost"


@pytest.mark.parametrize("table", ["records", "events_known", "step_hours"])
async def test_damage_beyond_the_reach_of_the_first_check_is_found_by_who_reads_it(path, monkeypatch, table):
    """A start reads all that it needs of a large file; it must not end, each time anew, in what nobody checked."""
    monkeypatch.setattr("sixfbd.journal.salvage.CHECK_BYTES", 0)
    pages = pages_of(path, table)
    zero(path, pages[len(pages) // 2])
    damage, events, state, totals, problems, answer = await opened(path)
    assert "malformed" in damage.why
    assert (len(events), list(state.tokens), totals, problems) == (EVENTS, ["grafana"], [EVENTS], [])
    assert answer == Accepted(EVENTS + 1)


async def test_bases_that_made_room_for_later_ones_are_not_counted_as_lost(path):
    async with JournalDatabase(path) as journal:
        for n in range(5):
            await journal.retain(Base(NOW + n, (), (), (), (), (), 0, ()), journal.last_record_seq)
    zero(path, pages_of(path, "events")[5])
    damage, _, _, _, problems, _ = await opened(path)
    assert " 0 records and " in damage.outcome and problems == []


async def test_without_room_for_what_can_be_read_nothing_is_touched(path, monkeypatch):
    def small(place):
        connection = connect_writer(place)
        connection.execute("PRAGMA max_page_count=50")
        return connection

    zero(path, pages_of(path, "events")[5])
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(JournalFull, match="damaged, and saving what can be read"):
        patch.setattr("sixfbd.journal.journal_salvage.connect_writer", small)
        await opened(path)
    assert path.read_bytes() == before
    assert aside(path) == [] and not path.with_name("journal.db.salvaged").exists()
    assert (await opened(path))[0] is not None


async def test_records_that_are_lost_are_counted_and_the_rest_is_folded(path):
    zero(path, pages_of(path, "records")[1])
    damage, events, state, _, problems, _ = await opened(path)
    assert len(events) == EVENTS and problems == [] and list(state.tokens) == ["grafana"]
    assert " 0 records" not in damage.outcome.split("kept,")[1] and "0 events lost" in damage.outcome


async def test_a_base_that_is_lost_makes_the_fold_begin_at_the_first_record_that_is_left(path):
    base = Base(NOW, (), (), (), (), (), 0, (TokenChanged(NOW, "old", "hash", (), "me"),))
    async with JournalDatabase(path) as journal:
        await journal.retain(base, journal.last_record_seq)
        await journal.commit([TokenChanged(NOW + 1, "new", "hash", (), "me")])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema=on")
        connection.execute("DELETE FROM records WHERE kind = 'base'")
        connection.commit()
    zero(path, pages_of(path, "events")[5])
    _, _, state, _, problems, _ = await opened(path)
    assert sorted(state.tokens) == ["grafana", "new"] and problems == []


async def test_of_a_truncated_file_the_part_that_is_left_is_kept(path):
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE)
    damage, events, _, _, problems, answer = await opened(path)
    assert damage is not None and 100 < len(events) < EVENTS and problems == []
    assert answer == Accepted(EVENTS + 1) or answer.seq > max(one.seq for one in events)


async def test_a_damaged_header_costs_nothing(path):
    with path.open("r+b") as file:
        file.write(os.urandom(100))
    damage, events, state, totals, problems, answer = await opened(path)
    assert (len(events), list(state.tokens), totals, problems) == (EVENTS, ["grafana"], [EVENTS], [])
    assert answer == Accepted(EVENTS + 1)
    assert "file is not a database" in damage.why and "0 records and 0 events lost" in damage.outcome
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["journal.db", damage.aside, "lock"]


@pytest.mark.parametrize("content", [b"not a database " * 1000, b"\0" * 100_000, os.urandom(50_000)])
async def test_of_garbage_nothing_is_kept_and_the_daemon_starts_all_the_same(path, content):
    path.write_bytes(content)
    damage, events, state, totals, problems, answer = await opened(path)
    assert (events, list(state.tokens), totals, problems, answer) == ([], [], [], [], Accepted(1))
    assert "nothing of it can be read" in damage.outcome and "the journal is empty now" in damage.outcome
    assert aside(path)[0].read_bytes() == content


async def test_a_wal_that_is_damaged_ends_where_the_damage_begins(path):
    copy = await with_wal(path)
    wal = copy.with_name("journal.db-wal")
    content = bytearray(wal.read_bytes())
    middle = len(content.rstrip(b"\0")) // 2  # of what is written: the rest is zeros
    content[middle : middle + 100] = os.urandom(100)
    wal.write_bytes(content)
    damage, events, _, totals, problems, _ = await opened(copy)
    assert damage is None and problems == []
    assert EVENTS < len(events) < EVENTS + 100 and totals == [len(events)]


async def test_without_its_wal_the_file_is_whole_as_of_the_last_checkpoint(path):
    copy = await with_wal(path)
    copy.with_name("journal.db-wal").unlink()
    damage, events, _, _, problems, _ = await opened(copy)
    assert damage is None and problems == [] and len(events) == EVENTS


async def with_wal(path) -> Path:
    """Return a copy of the journal as a crash leaves it: a hundred events are in the WAL alone."""
    copy = path.parent / "crashed" / "journal.db"
    copy.parent.mkdir()
    async with JournalDatabase(path) as journal:
        for number in range(100):
            await journal.put_events("other", [sale(number)])
        for name in ("journal.db", "journal.db-wal"):
            copy.with_name(name).write_bytes(path.with_name(name).read_bytes())
    return copy


async def test_another_applications_file_and_a_newer_one_are_refused_and_left_alone(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={FORM.version + 1}")
    before = path.read_bytes()
    with pytest.raises(JournalBroken, match=f"knows up to {FORM.version}; install a newer sixfbd"):
        await opened(path)
    assert path.read_bytes() == before
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with pytest.raises(JournalBroken, match="not a journal of sixfbd; move it away"):
        await opened(path)
    assert aside(path) == []


async def test_a_salvage_that_was_cut_off_is_done_again_or_finished(path):
    path.with_name("journal.db.salvaged").write_bytes(b"half a file")
    assert (await opened(path))[0] is None
    path.rename(path.with_name("journal.db.salvaged"))
    damage, events, *_ = await opened(path)
    assert damage is None and len(events) == EVENTS + 1


async def test_what_was_in_the_file_when_it_was_opened_stays_known(path):
    async with JournalDatabase(path) as journal:
        await journal.put_events("shop", [sale(EVENTS)])
        assert (journal.opened_with.record, journal.opened_with.event) == (301, EVENTS)
        assert journal.last_event_seq == EVENTS + 1
